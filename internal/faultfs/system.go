package faultfs

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Openat2 implements System.
func (f *FS) Openat2(dirfd int, name []byte, how *unix.OpenHow) (int, syscall.Errno) {
	full := f.join(dirfd, name)
	if e := f.before(Openat2, full); e.errno != 0 {
		return -1, e.errno
	}
	fd, errno := f.inner.Openat2(dirfd, name, how)
	f.opened(fd, errno, full)
	return fd, errno
}

// Openat implements System.
func (f *FS) Openat(dirfd int, name []byte, flags int) (int, syscall.Errno) {
	full := f.join(dirfd, name)
	if e := f.before(Openat, full); e.errno != 0 {
		return -1, e.errno
	}
	fd, errno := f.inner.Openat(dirfd, name, flags)
	f.opened(fd, errno, full)
	return fd, errno
}

// Fstat implements System.
func (f *FS) Fstat(fd int, stat *unix.Stat_t) syscall.Errno {
	e := f.before(Fstat, f.nameOf(fd))
	return e.stat(stat, func() syscall.Errno { return f.inner.Fstat(fd, stat) })
}

// Fstatat implements System.
func (f *FS) Fstatat(dirfd int, name []byte, stat *unix.Stat_t, flags int) syscall.Errno {
	e := f.before(Fstatat, f.join(dirfd, name))
	return e.stat(stat, func() syscall.Errno { return f.inner.Fstatat(dirfd, name, stat, flags) })
}

func (e *effect) stat(stat *unix.Stat_t, call func() syscall.Errno) syscall.Errno {
	if e.errno != 0 {
		return e.errno
	}
	errno := call()
	for _, change := range e.stats {
		change(stat)
	}
	return errno
}

// Pread implements System.
func (f *FS) Pread(fd int, p []byte, off int64) (int, syscall.Errno) {
	e := f.before(Pread, f.nameOf(fd))
	return e.read(p, func(p []byte) (int, syscall.Errno) { return f.inner.Pread(fd, p, off) })
}

// Preadv2 implements System.
func (f *FS) Preadv2(fd int, p []byte, off int64, flags int) (int, syscall.Errno) {
	e := f.before(Preadv2, f.nameOf(fd))
	return e.read(p, func(p []byte) (int, syscall.Errno) { return f.inner.Preadv2(fd, p, off, flags) })
}

func (e *effect) read(p []byte, call func([]byte) (int, syscall.Errno)) (int, syscall.Errno) {
	switch {
	case e.errno != 0:
		return -1, e.errno
	case e.short < 0:
		return 0, 0
	case e.short > 0 && e.short < len(p):
		p = p[:e.short]
	}
	return call(p)
}

// Getdents implements System.
func (f *FS) Getdents(fd int, p []byte) (int, syscall.Errno) {
	if e := f.before(Getdents, f.nameOf(fd)); e.errno != 0 {
		return -1, e.errno
	}
	return f.inner.Getdents(fd, p)
}

// Fadvise implements System.
func (f *FS) Fadvise(fd int, off, n int64, advice int) syscall.Errno {
	if e := f.before(Fadvise, f.nameOf(fd)); e.errno != 0 {
		return e.errno
	}
	return f.inner.Fadvise(fd, off, n, advice)
}

// Cachestat implements System.
func (f *FS) Cachestat(fd int, asked *unix.CachestatRange, pages *unix.Cachestat_t) syscall.Errno {
	e := f.before(Cachestat, f.nameOf(fd))
	if e.errno != 0 {
		return e.errno
	}
	errno := f.inner.Cachestat(fd, asked, pages)
	for _, change := range e.pages {
		change(pages)
	}
	return errno
}

// Close implements System. The descriptor is closed whatever the answer, as the
// kernel does. The name is forgotten first: the number may be given out again as
// soon as it is closed.
func (f *FS) Close(fd int) syscall.Errno {
	e := f.before(Close, f.nameOf(fd))
	f.mu.Lock()
	delete(f.mu.names, fd)
	f.mu.Unlock()
	errno := f.inner.Close(fd)
	if e.errno != 0 {
		return e.errno
	}
	return errno
}
