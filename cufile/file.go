package cufile

import (
	"fmt"
	"io"
	"math"
	"syscall"

	"golang.org/x/sys/unix"
)

// File is a file that the storage library reads from. Several goroutines may read
// from it at once, into one slab or several.
type File struct {
	driver     *Driver
	path       string
	descriptor int // outside of Go's poller, whose O_NONBLOCK the library refuses
	handle     uintptr
	gate       gate
}

// OpenFile opens a file for reading and registers it with the storage library. The
// caller closes it. Where no direct route reaches the file and AllowCompat is false
// the library refuses, most often with 5008 or 5030.
func (d *Driver) OpenFile(path string, o FileOptions) (*File, error) {
	if !d.gate.enter() {
		return nil, closed("open", path)
	}
	defer d.gate.leave()
	if !d.storage {
		return nil, fmt.Errorf("open %q: %w: opened with NoStorage", path, ErrNoStorage)
	}
	descriptor, err := openFile(path, o)
	if err != nil {
		return nil, err
	}
	handle, s := d.table.registerFile(descriptor)
	if s.failed() {
		_ = unix.Close(descriptor) // only opened, nothing was written
		return nil, s.error(path)
	}
	f := &File{driver: d, path: path, descriptor: descriptor, handle: handle}
	d.gate.moveIn(f, fmt.Sprintf("file %q", path))
	return f, nil
}

// openFile refuses what cannot be read at an offset before it opens it: the open of a
// pipe waits for a writer for ever, and the one of a folder blames direct I/O. What
// cannot be looked at, open says better.
func openFile(path string, o FileOptions) (int, error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err == nil && !readable(stat.Mode) {
		return -1, &Error{Op: "open", Object: path, Detail: "it is no file with bytes at offsets (a folder, pipe, socket or terminal); name a regular file or a block device"}
	}
	flags := unix.O_RDONLY | unix.O_CLOEXEC
	if !o.Buffered {
		flags |= unix.O_DIRECT
	}
	descriptor, err := openRetrying(path, flags)
	if err != nil {
		return -1, &Error{Op: "open", Object: path, Errno: errnoOf(err)}
	}
	return descriptor, nil
}

func readable(mode uint32) bool {
	kind := mode & unix.S_IFMT
	return kind == unix.S_IFREG || kind == unix.S_IFBLK
}

func openRetrying(path string, flags int) (int, error) {
	for {
		descriptor, err := unix.Open(path, flags, 0)
		if err != unix.EINTR {
			return descriptor, err
		}
	}
}

// Path is what the file was opened by.
func (f *File) Path() string { return f.path }

// maxInterruptions bounds how often in a row a read may be interrupted, so that a
// library that answers EINTR for ever is an error and not a hang.
const maxInterruptions = 1000

// ReadAt reads n bytes of the file from offset into the slab at slabOffset, and
// blocks a thread until they are there. As with os.File it answers fewer bytes only
// with an error, io.EOF at the file's end. It goes on after short reads and
// interruptions. A read is direct where all three numbers are multiples of
// [Alignment] and the slab is registered; others work through bounce buffers. What
// the slab holds beyond the bytes that were read is undefined after an error.
func (f *File) ReadAt(s *Slab, slabOffset int64, n int, offset int64) (int, error) {
	if !f.gate.enter() {
		return 0, closed("read", f.path)
	}
	defer f.gate.leave()
	if !s.gate.enter() {
		return 0, closed("read into", s.name())
	}
	defer s.gate.leave()
	if err := f.allows(s, slabOffset, n, offset); err != nil {
		return 0, fmt.Errorf("read %q: %w", f.path, err)
	}
	return f.read(s, slabOffset, n, offset)
}

// allows refuses what no library should see.
func (f *File) allows(s *Slab, slabOffset int64, n int, offset int64) error {
	switch {
	case s.device.driver != f.driver:
		return fmt.Errorf("%w: the slab belongs to another Driver", ErrUnsupported)
	case !s.writable:
		return ErrReadOnly
	case offset < 0 || offset > math.MaxInt64-int64(n):
		return fmt.Errorf("%w: file offset %d", ErrRange, offset)
	}
	return s.within(slabOffset, n)
}

func (f *File) read(s *Slab, slabOffset int64, n int, offset int64) (int, error) {
	context, base := s.device.handle.context, s.segment.address
	done, interruptions := 0, 0
	for done < n {
		got, cuda, errno := f.driver.table.read(context, f.handle, base, uint64(n-done), offset+int64(done), slabOffset+int64(done))
		switch {
		case cuda != 0 || got < 0 && !again(got, errno, &interruptions):
			return done, f.failure(got, cuda, errno)
		case got < 0:
			continue
		case got > int64(n-done):
			return done, &Error{Op: f.driver.vendor.read, Object: f.path, Detail: fmt.Sprintf("it answered %d bytes for %d", got, n-done)}
		}
		done += int(got)
		interruptions = 0
		if got == 0 || done < n && f.ends(offset+int64(done)) {
			return done, io.EOF
		}
	}
	return done, nil
}

// again says whether a failed read is only interrupted: Go's profiler signals every
// thread, also those in C.
func again(got int64, errno int32, interruptions *int) bool {
	*interruptions++
	return got == -1 && syscall.Errno(errno) == syscall.EINTR && *interruptions <= maxInterruptions
}

// ends says whether the file ends at the offset, which saves a short read an
// unaligned one behind it. Where the size cannot be read, the next read will tell.
func (f *File) ends(offset int64) bool {
	var stat unix.Stat_t
	return unix.Fstat(f.descriptor, &stat) == nil && stat.Mode&unix.S_IFMT == unix.S_IFREG && offset >= stat.Size
}

// failure makes an error of what a read answered.
func (f *File) failure(got int64, cuda, errno int32) error {
	e := &Error{Op: f.driver.vendor.read, Object: f.path}
	switch {
	case cuda != 0:
		e.Op, e.CUDA = f.driver.vendor.enter, int(cuda)
	case got == -1:
		e.Errno = syscall.Errno(errno)
		if errno == 0 {
			e.Detail = "it gave no reason"
		}
	default:
		e.Code = int(-got)
	}
	return e
}

// Close waits for reads in flight, deregisters the file and closes it.
func (f *File) Close() error {
	err := f.gate.shut(func() error {
		f.driver.table.deregisterFile(f.handle)
		_ = unix.Close(f.descriptor) // read-only: no data can be lost, and EINTR closes too
		f.driver.gate.moveOut(f)
		return nil
	})
	if err != nil {
		return fmt.Errorf("close %q: %w", f.path, err)
	}
	return nil
}
