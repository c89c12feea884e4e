package object

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// System is the seam between Dir and the kernel. Kernel() is the real one; tests
// put one that injects faults in its place (internal/faultfs).
//
// Names are NUL-terminated and borrowed until the call returns. A result of 0
// for the errno means success. Implementations must be safe for parallel use and
// must not keep the slices and pointers that they are given.
type System interface {
	Openat2(dirfd int, name []byte, how *unix.OpenHow) (fd int, errno syscall.Errno)
	Openat(dirfd int, name []byte, flags int) (fd int, errno syscall.Errno)
	Fstat(fd int, stat *unix.Stat_t) syscall.Errno
	Fstatat(dirfd int, name []byte, stat *unix.Stat_t, flags int) syscall.Errno
	Pread(fd int, p []byte, off int64) (n int, errno syscall.Errno)
	Preadv2(fd int, p []byte, off int64, flags int) (n int, errno syscall.Errno)
	Getdents(fd int, p []byte) (n int, errno syscall.Errno)
	Fadvise(fd int, off, n int64, advice int) syscall.Errno
	Cachestat(fd int, asked *unix.CachestatRange, pages *unix.Cachestat_t) syscall.Errno
	Close(fd int) syscall.Errno
}

// Kernel returns the real system calls. They allocate nothing.
func Kernel() System { return kernel{} }

type kernel struct{}

// shortRead is up to how many bytes a read that does not wait is made without telling
// Go's scheduler: it is over before another thread could have used the processor.
const shortRead = 64 << 10

func (kernel) Openat2(dirfd int, name []byte, how *unix.OpenHow) (int, syscall.Errno) {
	fd, _, errno := unix.Syscall6(unix.SYS_OPENAT2, uintptr(dirfd), uintptr(unsafe.Pointer(&name[0])),
		uintptr(unsafe.Pointer(how)), unsafe.Sizeof(*how), 0, 0)
	return int(fd), errno
}

func (kernel) Openat(dirfd int, name []byte, flags int) (int, syscall.Errno) {
	fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(dirfd), uintptr(unsafe.Pointer(&name[0])),
		uintptr(flags|unix.O_LARGEFILE), 0, 0, 0)
	return int(fd), errno
}

func (kernel) Fstat(fd int, stat *unix.Stat_t) syscall.Errno {
	_, _, errno := unix.Syscall(unix.SYS_FSTAT, uintptr(fd), uintptr(unsafe.Pointer(stat)), 0)
	return errno
}

func (kernel) Fstatat(dirfd int, name []byte, stat *unix.Stat_t, flags int) syscall.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_NEWFSTATAT, uintptr(dirfd), uintptr(unsafe.Pointer(&name[0])),
		uintptr(unsafe.Pointer(stat)), uintptr(flags), 0, 0)
	return errno
}

func (kernel) Pread(fd int, p []byte, off int64) (int, syscall.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_PREAD64, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
		uintptr(len(p)), uintptr(off), 0, 0)
	return int(n), errno
}

func (kernel) Preadv2(fd int, p []byte, off int64, flags int) (int, syscall.Errno) {
	vector := unix.Iovec{Base: unsafe.SliceData(p), Len: uint64(len(p))}
	if flags&unix.RWF_NOWAIT != 0 && len(p) <= shortRead {
		n, _, errno := unix.RawSyscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&vector)),
			1, uintptr(off), 0, uintptr(flags))
		return int(n), errno
	}
	n, _, errno := unix.Syscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&vector)),
		1, uintptr(off), 0, uintptr(flags))
	return int(n), errno
}

func (kernel) Getdents(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := unix.Syscall(unix.SYS_GETDENTS64, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return int(n), errno
}

func (kernel) Fadvise(fd int, off, n int64, advice int) syscall.Errno {
	return errnoOf(unix.Fadvise(fd, off, n, advice))
}

func (kernel) Cachestat(fd int, asked *unix.CachestatRange, pages *unix.Cachestat_t) syscall.Errno {
	return errnoOf(unix.Cachestat(uint(fd), asked, pages, 0))
}

// errnoOf is the errno that a call of x/sys/unix returned as an error, 0 for nil.
func errnoOf(err error) syscall.Errno {
	errno, _ := err.(syscall.Errno) //nolint:errorlint // the calls return it bare
	return errno
}

func (kernel) Close(fd int) syscall.Errno {
	_, _, errno := unix.Syscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
	return errno
}
