package seekable

import (
	"context"
	"fmt"

	"github.com/stokerio/stoker/backend"
)

var _ backend.Warmer = (*Store)(nil)

// Warm implements backend.Warmer: of a seekable object the compressed frames are brought
// into the page cache, by reads whose bytes are dropped; they are decompressed when they
// are read. Other objects are the decorated store's.
func (s *Store) Warm(ctx context.Context, o *backend.Object, off, n int64) (resident bool, err error) {
	if !isSeekable(o) {
		resident, ok, err := backend.Warm(ctx, s.origin, o, off, n)
		if !ok {
			err = backend.ErrCannotWarm
		}
		return resident, err
	}
	if err := s.enter("warm"); err != nil {
		return false, err
	}
	defer s.leave()
	g := s.takeGather()
	defer s.putGather(g)
	f, err := s.acquireRange(ctx, "warm", o, off, n, g)
	if err != nil {
		return false, err
	}
	resident, err = s.warm(ctx, f, &g.lane, string(o.Name), off, off+n)
	s.releaseFile(f, err != nil)
	return resident && err == nil, err
}

// acquireRange returns the file that a range of a seekable object is served from, with one
// more user.
func (s *Store) acquireRange(ctx context.Context, op string, o *backend.Object, off, n int64, g *gather) (*openFile, error) {
	if ctx.Err() != nil {
		return nil, canceled(op, ctx)
	}
	c := backend.Chunk{Object: o, Size: o.Version.Size}
	if err := checkChunk(op, c); err != nil {
		return nil, err
	}
	if off < 0 || n < 0 || off > c.Size || n > c.Size-off {
		return nil, rangeError(op, c, off, n, "the range is not within the object")
	}
	f, err := s.acquireFile(o, &g.stat)
	if err == nil && f.bytes != c.Size {
		err = rangeError(op, c, off, n, fmt.Sprintf("the file holds %d bytes, the object %d", f.bytes, c.Size))
		s.releaseFile(f, true)
	}
	return f, err
}

// warm reads the frames that hold [from, to) of the object.
func (s *Store) warm(ctx context.Context, f *openFile, l *lane, object string, from, to int64) (resident bool, err error) {
	resident = true
	for i := from / f.frameBytes; i*f.frameBytes < to; i++ {
		if ctx.Err() != nil {
			return false, canceled("warm", ctx)
		}
		start := f.offsets[i]
		b := l.room(int(f.offsets[i+1] - start))
		if done := s.readCached(f, b, start); done < len(b) {
			resident = false
			if err := s.pread(f, object, b[done:], start+int64(done)); err != nil {
				return false, err
			}
		}
	}
	return resident, nil
}
