package object

import (
	"context"
	"os"

	"github.com/stokerio/stoker/backend"
)

var _ backend.Prober = (*Dir)(nil)

// Resident implements backend.Prober by cachestat(2), which not every kernel has.
func (d *Dir) Resident(ctx context.Context, o *backend.Object, off, n int64) (bytes int64, known bool, err error) {
	if err := d.enter("look at"); err != nil {
		return 0, false, err
	}
	defer d.leave()
	if ctx.Err() != nil {
		return 0, false, canceled("look at", ctx)
	}
	c := backend.Chunk{Object: o}
	if o != nil {
		c.Size = o.Version.Size
	}
	if err := d.checkChunk("look at", c); err != nil {
		return 0, false, err
	}
	if off < 0 || n < 0 || off > c.Size || n > c.Size-off {
		return 0, false, rangeError("look at", c, off, n, "the range is not within the object")
	}
	w := &warming{dir: d, ctx: ctx, file: file{object: o, fd: -1}}
	if _, err := w.open(); err != nil {
		return 0, false, err
	}
	bytes, known = w.count(off, off+n)
	d.releaseFile(&w.file, false)
	return bytes, known, nil
}

// count is how many bytes of a range are cached, by whole pages.
func (w *warming) count(from, to int64) (bytes int64, known bool) {
	if from == to {
		return 0, true
	}
	all, known := w.cached(from, to)
	if !known {
		return 0, false
	}
	if all {
		return to - from, true
	}
	page := int64(os.Getpagesize())
	return min(to-from, int64(w.pages.Cache)*page), true
}
