package flash

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

// bypass is a descriptor by which a file is read past the page cache (O_DIRECT). It is
// opened when it is first needed.
type bypass struct {
	once sync.Once
	fd   int
	// memory and offset are what addresses, and what offsets and lengths, are multiples of.
	memory, offset int64
	err            error
}

// open opens the file again that fd is a descriptor of.
func (b *bypass) open(fd int) error {
	b.once.Do(func() {
		b.fd = -1
		b.fd, b.err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
		if b.err == nil {
			b.err = b.align()
		}
	})
	return b.err
}

// align asks what has to be aligned to what. Kernels before 6.1 do not say: to a page
// then, which all devices accept.
func (b *bypass) align() error {
	var s unix.Statx_t
	if err := unix.Statx(b.fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &s); err != nil || s.Mask&unix.STATX_DIOALIGN == 0 {
		b.memory, b.offset = pageBytes, pageBytes
		return nil //nolint:nilerr // it may be read so
	}
	b.memory, b.offset = int64(s.Dio_mem_align), int64(s.Dio_offset_align)
	if b.memory <= 0 || b.memory > pageBytes || b.offset <= 0 || b.offset > pageBytes {
		return fmt.Errorf("it wants reads aligned to %d bytes, to %d in memory", b.offset, b.memory)
	}
	return nil
}

// close closes the descriptor, if there is one.
func (b *bypass) close() error {
	b.once.Do(func() { b.fd = -1 })
	if b.fd < 0 {
		return nil
	}
	return unix.Close(b.fd)
}

// aligned reports whether n bytes at off can be read straight to p's memory.
func (b *bypass) aligned(p []byte, off, n int64) bool {
	return (off|n)&(b.offset-1) == 0 && int64(address(p))&(b.memory-1) == 0
}

// down and up are the multiples around an offset.
func (b *bypass) down(off int64) int64 { return off &^ (b.offset - 1) }
func (b *bypass) up(off int64) int64   { return (off + b.offset - 1) &^ (b.offset - 1) }

// bypass returns how a segment is read past the page cache, nil if it is not.
func (s *segment) bypass() *bypass {
	d := s.device
	f, real := s.file.(*file)
	if !real || !d.store.options.Direct || d.noDirect.Load() {
		return nil
	}
	if err := f.bypass.open(f.fd); err != nil {
		d.refuseDirect(err)
		return nil
	}
	return &f.bypass
}

// refuseDirect reads the device through the page cache from now on.
func (d *device) refuseDirect(err error) {
	if !d.noDirect.Swap(true) {
		d.store.event(Event{Kind: DeviceWarning, Device: d.path, Err: err, Detail: "it cannot be read past the page cache (O_DIRECT): it is read through it"})
	}
}

// readFile reads from a segment's file, as io.ReaderAt.
func (d *device) readFile(s *segment, p []byte, off int64) (int, error) {
	d.counters.read(len(p))
	if b := s.bypass(); b != nil {
		n, err := b.read(&d.store.buffers, p, off)
		if !errors.Is(err, unix.EINVAL) {
			return n, err
		}
		d.refuseDirect(err)
	}
	return s.file.ReadAt(p, off)
}

// read fills p from off on: straight where both are aligned, else by a buffer.
func (b *bypass) read(lend *buffers, p []byte, off int64) (done int, err error) {
	for done < len(p) {
		rest, at := p[done:], off+int64(done)
		whole := int64(len(rest)) &^ (b.offset - 1)
		n := 0
		if whole > 0 && b.aligned(rest, at, whole) {
			n, err = b.pread(rest[:whole], at)
		} else {
			n, err = b.readAround(lend, rest, at)
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// readAround reads the first bytes of p by a buffer.
func (b *bypass) readAround(lend *buffers, p []byte, off int64) (int, error) {
	from := b.down(off)
	to := min(b.up(off+int64(len(p))), from+backend.BlockBytes)
	by := lend.take(int(to - from))
	defer lend.give(by)
	n, err := b.pread(by.p[:to-from], from)
	if err != nil {
		return 0, err
	}
	if int64(n) <= off-from {
		return 0, io.EOF
	}
	return copy(p, by.p[off-from:n]), nil
}

// pread is one read, of at least a byte.
func (b *bypass) pread(p []byte, off int64) (int, error) {
	for {
		n, err := unix.Pread(b.fd, p, off)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, os.NewSyscallError("pread", err)
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// address is where memory begins.
func address(p []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(p))) }
