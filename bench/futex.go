package bench

import (
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// futex calls the shared kind of futex(2). A wait that ends early, for whatever
// reason, is no error: the caller looks at the word again.
func futex(word *uint32, operation int, value uint32, bound time.Duration) error {
	var timeout *unix.Timespec
	if bound > 0 {
		ts := unix.NsecToTimespec(int64(bound))
		timeout = &ts
	}
	_, _, errno := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), uintptr(operation), uintptr(value),
		uintptr(unsafe.Pointer(timeout)), 0, 0)
	switch errno {
	case 0, unix.EAGAIN, unix.EINTR, unix.ETIMEDOUT:
		return nil
	}
	return errno
}

func atomicAdd(word *uint32) { atomic.AddUint32(word, 1) }

func atomicLoad(word *uint32) uint32 { return atomic.LoadUint32(word) }

// The operations, from linux/futex.h.
const (
	futexWait = 0
	futexWake = 1
)
