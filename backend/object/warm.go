package object

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

var _ backend.Warmer = (*Dir)(nil)

const (
	// warmStep is how many bytes one request to read ahead names. Linux cuts larger ones
	// to the larger of the device's read_ahead_kb and max_sectors_kb and says nothing
	// (mm/readahead.c, force_page_cache_ra); that is 128 KiB or more but for a device
	// that somebody has set otherwise.
	warmStep = 128 << 10
	// statBlock is the unit of stat(2)'s st_blocks.
	statBlock = 512
	// warmAhead is how far ahead of what is waited for requests are made: a few
	// milliseconds of a fast device, so that one call keeps it busy.
	warmAhead = 8 << 20
)

// warming is one Warm call's state and scratch.
type warming struct {
	dir  *Dir
	ctx  context.Context //nolint:containedctx // of one call
	file file
	lane lane

	asked unix.CachestatRange
	pages unix.Cachestat_t
	one   [1]byte
	whole []byte // warmStep bytes, once they were needed
}

// Warm implements backend.Warmer: the kernel is asked to read ahead, and each piece is
// waited for by reading its last byte, which is there last where the piece lies in one
// place of the device. Files with holes, whose holes are there at once, are read by reads
// whose bytes are dropped; so are all where a kernel or a file system takes no requests.
func (d *Dir) Warm(ctx context.Context, o *backend.Object, off, n int64) (resident bool, err error) {
	if err := d.enter("warm"); err != nil {
		return false, err
	}
	defer d.leave()
	w := d.takeWarming()
	w.ctx, w.file = ctx, file{object: o, fd: -1}
	resident, err = w.run(off, n)
	w.ctx, w.file = nil, file{}
	select {
	case d.warm <- w:
	default:
	}
	return resident, err
}

func (d *Dir) takeWarming() *warming {
	select {
	case w := <-d.warm:
		return w
	default:
		return &warming{dir: d}
	}
}

func (w *warming) run(off, n int64) (resident bool, err error) {
	d, o := w.dir, w.file.object
	if w.ctx.Err() != nil {
		return false, canceled("warm", w.ctx)
	}
	c := backend.Chunk{Object: o}
	if o != nil {
		c.Size = o.Version.Size
	}
	if err := d.checkChunk("warm", c); err != nil {
		return false, err
	}
	if off < 0 || n < 0 || off > c.Size || n > c.Size-off {
		return false, rangeError("warm", c, off, n, "the range is not within the object")
	}
	atOnce, err := w.open()
	if err != nil {
		return false, err
	}
	there := n == 0 || w.isResident(off, off+n)
	if !there {
		err = w.bring(off, off+n)
	}
	if err == nil {
		err = d.checkVersion(&w.lane, &w.file)
	}
	d.releaseFile(&w.file, err != nil)
	return there && atOnce && err == nil, err
}

// open opens the file. atOnce is false if that had to wait for the device: a read would
// have had to, too.
func (w *warming) open() (atOnce bool, err error) {
	d := w.dir
	if !d.noOpenat2 && !d.noCachedOpen.Load() {
		wait, err := d.openFile(&w.lane, &w.file, d.howCached)
		switch {
		case err == nil && !wait:
			return true, nil
		case err != nil && isErrno(err, unix.EINVAL):
			d.noCachedOpen.Store(true)
		case err != nil:
			return false, err
		}
	}
	_, err = d.openFile(&w.lane, &w.file, d.howPlain)
	return d.noOpenat2 || d.noCachedOpen.Load(), err
}

// isResident says whether a read of [from, to) would not wait, as far as the kernel tells
// cheaply. Pages that are being read already count as cached, so the ends of the pieces
// are read as well, without waiting.
func (w *warming) isResident(from, to int64) bool {
	all, known := w.cached(from, to)
	if known && !all {
		return false
	}
	if w.dir.noNowait.Load() {
		return known
	}
	for at := from; at < to; {
		end := stepEnd(at, to)
		switch _, errno := w.dir.system.Preadv2(w.file.fd, w.one[:], end-1, unix.RWF_NOWAIT); errno {
		case 0, unix.EINTR:
		case unix.EOPNOTSUPP, unix.ENOSYS:
			w.dir.noNowait.Store(true)
			return known
		default: // whatever it is, the read that waits will say so
			return false
		}
		at = end
	}
	return true
}

// stepEnd is the end of the piece that begins at at.
func stepEnd(at, to int64) int64 { return min(to, (at/warmStep+1)*warmStep) }

// cached asks cachestat(2) whether all pages of a range are in the page cache. known is
// false where the kernel (before Linux 6.5) or the file system cannot tell, or does not
// tell this process.
func (w *warming) cached(from, to int64) (all, known bool) {
	if w.dir.noCachestat.Load() {
		return false, false
	}
	w.asked = unix.CachestatRange{Off: uint64(from), Len: uint64(to - from)}
	switch errno := w.dir.system.Cachestat(w.file.fd, &w.asked, &w.pages); errno {
	case 0:
		page := int64(os.Getpagesize())
		return w.pages.Cache >= uint64((to-1)/page-from/page+1), true
	case unix.ENOSYS:
		w.dir.noCachestat.Store(true)
	}
	return false, false
}

// bring has [from, to) read, and waits for it.
func (w *warming) bring(from, to int64) error {
	asked, refused := from, w.hasHoles()
	for at := from; at < to; {
		for asked < to && asked < at+warmAhead && !refused {
			if w.ctx.Err() != nil {
				return canceled("warm", w.ctx)
			}
			end := stepEnd(asked, to)
			refused = w.dir.system.Fadvise(w.file.fd, asked, end-asked, unix.FADV_WILLNEED) != 0
			asked = end
		}
		if w.ctx.Err() != nil {
			return canceled("warm", w.ctx)
		}
		if refused {
			return w.read(at, to)
		}
		end := stepEnd(at, to)
		if err := w.pread(w.one[:], end-1); err != nil {
			return err
		}
		at = end
	}
	// A request may have been cut short, and memory may be short.
	if all, known := w.cached(from, to); known && !all {
		return w.read(from, to)
	}
	return nil
}

// hasHoles reports whether the file takes less of the device than it is long.
func (w *warming) hasHoles() bool {
	return w.lane.stat.Blocks*statBlock < w.file.object.Version.Size
}

// read reads [from, to) and drops it.
func (w *warming) read(from, to int64) error {
	if w.whole == nil {
		w.whole = make([]byte, warmStep)
	}
	for at := from; at < to; {
		if w.ctx.Err() != nil {
			return canceled("warm", w.ctx)
		}
		end := stepEnd(at, to)
		if err := w.pread(w.whole[:end-at], at); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// pread fills p, however long it takes.
func (w *warming) pread(p []byte, off int64) error {
	restarts := 0
	for done := 0; done < len(p); {
		n, errno := w.dir.system.Pread(w.file.fd, p[done:], off+int64(done))
		switch {
		case errno == unix.EINTR && restarts < maxRestarts:
			restarts++
		case errno != 0:
			return w.dir.errnoError("warm", w.file.object.Name, errno)
		case n == 0:
			return w.dir.changedError("warm", w.file.object,
				fmt.Sprintf("expected a file of %d bytes, found its end at or before %d", w.file.object.Version.Size, off+int64(done)))
		default:
			done += n
		}
	}
	return nil
}
