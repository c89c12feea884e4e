package shm

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The futex operations of linux/futex.h. They are the shared kind (no
// FUTEX_PRIVATE_FLAG), as the word lies in memory of two processes.
const (
	futexWait = 0
	futexWake = 1
)

// sleepWord sleeps until someone wakes the word, its value is no longer seen, or
// the bound is over; it does not say which. The caller looks again.
func sleepWord(mem []byte, off int64, seen uint32, bound time.Duration) {
	ts := unix.NsecToTimespec(int64(bound))
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word32(mem, off))),
		futexWait, uintptr(seen), uintptr(unsafe.Pointer(&ts)), 0, 0)
}

// wakeWord wakes everyone who sleeps on the word.
func wakeWord(mem []byte, off int64) {
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word32(mem, off))),
		futexWake, 1<<30, 0, 0, 0)
}
