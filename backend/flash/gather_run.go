package flash

import (
	"errors"
	"io"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// discarded is where what lies in gaps goes, of all calls.
var discarded [gapCached]byte

// aim says where what is read goes, and lends the run a buffer if it needs one.
func (g *gather) aim(r *run) {
	if n := r.lends(); n > 0 {
		r.lent = g.store.buffers.take(n)
		if r.isLarge() {
			g.large++
		}
	}
	r.into = g.vectors[r.vectors:r.vectors:r.last]
	switch first := &g.pieces[r.pieces]; {
	case r.ragged:
		whole := r.bypass.down(first.end()) - first.at
		r.add(first.p[:whole])
		r.add(r.lent.p[:r.bypass.offset])
	case r.straight:
		at := r.from
		for i := range g.pieces[r.pieces:r.upTo] {
			p := &g.pieces[int(r.pieces)+i]
			if gap := p.at - at; gap > 0 {
				r.add(discarded[:gap])
			}
			r.add(p.p)
			at = p.end()
		}
	default:
		r.add(r.lent.p[:r.to-r.from])
	}
}

func (r *run) isLarge() bool { return r.lends() > bufferBytes[0] }

func (r *run) add(p []byte) {
	r.into = append(r.into, unix.Iovec{Base: unsafe.SliceData(p), Len: uint64(len(p))})
}

// advance notes that n bytes more were read.
func (r *run) advance(n int64) {
	r.segment.device.counters.read(int(n))
	r.done += n
	for n > 0 {
		v := &r.into[0]
		if int64(v.Len) > n {
			v.Base = (*byte)(unsafe.Add(unsafe.Pointer(v.Base), n))
			v.Len -= uint64(n)
			return
		}
		n -= int64(v.Len)
		r.into = r.into[1:]
	}
}

// whole reports whether all was read.
func (r *run) whole() bool { return r.from+r.done == r.to }

// descriptor is what the run is read by, -1 if its file has none.
func (r *run) descriptor() int {
	if r.bypass != nil {
		return r.bypass.fd
	}
	return r.segment.file.Fd()
}

// restartsAtMost is how often in a row a read is begun again that was interrupted.
const restartsAtMost = 100

// progress notes what a read gave; again is true if it, or what is left, is to be read
// once more.
func (r *run) progress(n int, errno syscall.Errno) (again bool) {
	switch {
	case errno == unix.EINTR, errno == unix.EAGAIN, errno == unix.ECANCELED:
		if r.restarts++; r.restarts <= restartsAtMost {
			return true
		}
		fallthrough
	case errno != 0:
		r.err = &os.PathError{Op: "read", Path: r.segment.path(), Err: errno}
	case n == 0:
		r.err = io.ErrUnexpectedEOF
	default:
		r.restarts = 0
		r.advance(int64(n))
		return !r.whole()
	}
	return false
}

// readCached reads what the page cache has, from the run's start on; true if that was all,
// or an error.
func (g *gather) readCached(r *run) bool {
	fd := r.descriptor()
	if fd < 0 || g.store.noNowait.Load() {
		return false
	}
	n, errno := g.store.preadv(fd, r.into, r.from, unix.RWF_NOWAIT)
	switch errno {
	case 0:
		done := !r.progress(n, 0)
		r.cached = r.done
		return done
	case unix.EOPNOTSUPP, unix.ENOSYS:
		g.store.noNowait.Store(true)
		return false
	case unix.EAGAIN, unix.EINTR:
		return false
	}
	r.progress(0, errno)
	return true
}

// readWhole reads what is left, however long it takes.
func (r *run) readWhole() {
	fd := r.descriptor()
	if fd < 0 {
		r.readPlain()
		return
	}
	for again := true; again && !r.whole(); {
		n, errno := r.segment.device.store.preadv(fd, r.into, r.from+r.done, 0)
		again = r.progress(n, errno)
	}
}

// readPlain reads a file that is not a real one: its runs are of one place.
func (r *run) readPlain() {
	p := unsafe.Slice(r.into[0].Base, r.into[0].Len)
	n, err := r.segment.file.ReadAt(p, r.from)
	switch {
	case n == len(p):
		r.advance(int64(n))
	case err == nil, errors.Is(err, io.EOF):
		r.err = io.ErrUnexpectedEOF
	default:
		r.err = err
	}
}

// preadv is preadv2(2); it allocates nothing.
func preadv(fd int, into []unix.Iovec, off int64, flags int) (int, syscall.Errno) {
	if flags&unix.RWF_NOWAIT != 0 && len(into) == 1 && into[0].Len <= shortRead {
		n, _, errno := unix.RawSyscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(into))),
			1, uintptr(off), 0, uintptr(flags))
		return int(n), errno
	}
	n, _, errno := unix.Syscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(into))),
		uintptr(len(into)), uintptr(off), 0, uintptr(flags))
	return int(n), errno
}

// shortRead is up to how many bytes a read that does not wait is made without telling
// Go's scheduler: it is over before another thread could have used the processor.
const shortRead = 64 << 10

// finish ends a run: what came by a buffer is copied, a block is checked, the first error
// ends the call.
func (g *gather) finish(r *run) {
	if r.err == nil && g.err == nil {
		g.err = g.deliver(r)
	}
	if r.err != nil && g.err == nil {
		g.err = g.salvage(r)
	}
	if r.lent.p != nil {
		if r.isLarge() {
			g.large--
		}
		g.store.buffers.give(r.lent)
		r.lent = buffer{}
	}
	if g.err == nil {
		g.account(r)
	}
}

// deliver checks what was read, and copies what is not where it is wanted.
func (g *gather) deliver(r *run) error {
	first := &g.pieces[r.pieces]
	if r.ragged {
		whole := r.bypass.down(first.end()) - first.at
		copy(first.p[whole:], r.lent.p)
	}
	if r.check {
		block := first.p
		if !r.straight {
			block = r.lent.p
		}
		h := &g.held[first.read]
		size := blockBytes(h.span.slots[h.extent].size, int(first.block))
		if err := h.check(gatherOp, &g.reads[first.read].Chunk, block[:size], int(first.block)); err != nil {
			return err
		}
	}
	if r.straight {
		return nil
	}
	for i := r.pieces; i < r.upTo; i++ {
		p := &g.pieces[i]
		copy(p.p, r.lent.p[p.at-r.from:])
	}
	return nil
}

// salvage says why a run could not be read. If it was for several chunks, or not straight
// from the file, each piece is read by itself, which tells whose fault it is.
func (g *gather) salvage(r *run) error {
	if r.bypass != nil && errors.Is(r.err, unix.EINVAL) {
		r.segment.device.refuseDirect(r.err)
	}
	first := &g.pieces[r.pieces]
	if r.bypass == nil && r.upTo == r.pieces+1 {
		return g.held[first.read].unreadable(gatherOp, &g.reads[first.read].Chunk, r.err)
	}
	for i := r.pieces; i < r.upTo; i++ {
		p := &g.pieces[i]
		unchecked := uint8(0)
		if p.unchecked {
			unchecked = 1 << p.block
		}
		if err := g.held[p.read].read(gatherOp, &g.reads[p.read].Chunk, p.p, p.at-p.chunk, unchecked); err != nil {
			return err
		}
	}
	return nil
}

// account notes whence the bytes of a run came.
func (g *gather) account(r *run) {
	waited := int64(0)
	if !r.begun.IsZero() {
		waited = max(1, time.Since(r.begun).Nanoseconds())
	}
	for i := r.pieces; i < r.upTo; i++ {
		p := &g.pieces[i]
		switch {
		case waited == 0, !r.check && p.end() <= r.from+r.cached:
			g.report.CachedBytes += int64(len(p.p))
		default:
			g.report.DiskBytes += int64(len(p.p))
			g.waits[p.read] = max(g.waits[p.read], waited)
		}
	}
}
