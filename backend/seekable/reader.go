package seekable

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

// OpenObject implements backend.Opener. An open reader of a seekable object counts as
// a call in flight. Its bytes are checked one by one against their checksums, so Close
// has nothing left to say.
func (s *Store) OpenObject(ctx context.Context, o *backend.Object) (backend.Reader, error) {
	if !isSeekable(o) {
		return backend.OpenObject(ctx, s.origin, o)
	}
	if err := s.enter("open"); err != nil {
		return nil, err
	}
	err := checkChunk("open", backend.Chunk{Object: o, Size: o.Version.Size})
	if err == nil && ctx.Err() != nil {
		err = canceled("open", ctx)
	}
	if err == nil {
		var f *openFile
		if f, err = s.acquireFile(o, new(unix.Stat_t)); err == nil {
			s.releaseFile(f, false)
			return &reader{store: s, ctx: ctx, object: o}, nil
		}
	}
	s.leave()
	return nil, err
}

type reader struct {
	store  *Store
	ctx    context.Context //nolint:containedctx // of one series of reads
	object *backend.Object
	closed bool
}

// ReadAt implements backend.Reader.
func (r *reader) ReadAt(p []byte, off int64) error {
	if err := backend.CheckRange(r.object, int64(len(p)), off); err != nil {
		return err
	}
	whole := backend.Chunk{Object: r.object, Size: r.object.Version.Size}
	return r.store.read(r.ctx, backend.Read{Chunk: whole, Offset: off, P: p})
}

// Close implements backend.Reader.
func (r *reader) Close() error {
	if !r.closed {
		r.closed = true
		r.store.leave()
	}
	return nil
}
