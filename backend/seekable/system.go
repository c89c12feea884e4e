package seekable

import (
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// System is the seam between a Store and the kernel. Kernel() is the real one; tests
// put one that injects faults in its place (internal/faultfs).
//
// Names are NUL-terminated and borrowed until the call returns. A result of 0 for the
// errno means success. Implementations must be safe for parallel use and must not
// keep the slices and pointers that they are given.
type System interface {
	Openat(dirfd int, name []byte, flags int) (fd int, errno syscall.Errno)
	Fstat(fd int, stat *unix.Stat_t) syscall.Errno
	Pread(fd int, p []byte, off int64) (n int, errno syscall.Errno)
	Preadv2(fd int, p []byte, off int64, flags int) (n int, errno syscall.Errno)
	Cachestat(fd int, asked *unix.CachestatRange, pages *unix.Cachestat_t) syscall.Errno
	Close(fd int) syscall.Errno
}

// Kernel returns the real system calls. They allocate nothing.
func Kernel() System { return kernel{} }

type kernel struct{}

func (kernel) Openat(dirfd int, name []byte, flags int) (int, syscall.Errno) {
	fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(dirfd), uintptr(unsafe.Pointer(&name[0])),
		uintptr(flags|unix.O_LARGEFILE), 0, 0, 0)
	return int(fd), errno
}

func (kernel) Fstat(fd int, stat *unix.Stat_t) syscall.Errno {
	_, _, errno := unix.Syscall(unix.SYS_FSTAT, uintptr(fd), uintptr(unsafe.Pointer(stat)), 0)
	return errno
}

func (kernel) Pread(fd int, p []byte, off int64) (int, syscall.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_PREAD64, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
		uintptr(len(p)), uintptr(off), 0, 0)
	return int(n), errno
}

func (kernel) Preadv2(fd int, p []byte, off int64, flags int) (int, syscall.Errno) {
	vector := unix.Iovec{Base: unsafe.SliceData(p), Len: uint64(len(p))}
	n, _, errno := unix.Syscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&vector)),
		1, uintptr(off), 0, uintptr(flags))
	return int(n), errno
}

func (kernel) Cachestat(fd int, asked *unix.CachestatRange, pages *unix.Cachestat_t) syscall.Errno {
	var errno syscall.Errno
	_ = errors.As(unix.Cachestat(uint(fd), asked, pages, 0), &errno) // nothing else comes of a system call
	return errno
}

func (kernel) Close(fd int) syscall.Errno {
	_, _, errno := unix.Syscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
	return errno
}
