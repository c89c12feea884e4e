package object

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

var _ backend.Opener = (*Dir)(nil)

// OpenObject implements backend.Opener: the file stays open, and its version is
// compared now and in Close. An open reader counts as a call in flight.
func (d *Dir) OpenObject(ctx context.Context, o *backend.Object) (backend.Reader, error) {
	if err := d.enter("open"); err != nil {
		return nil, err
	}
	r := &reader{dir: d, ctx: ctx}
	if err := r.open(o); err != nil {
		d.leave()
		return nil, err
	}
	return r, nil
}

// reader is an open file of a Dir.
type reader struct {
	dir    *Dir
	ctx    context.Context //nolint:containedctx // of one series of reads
	file   file
	lane   lane
	failed bool
}

func (r *reader) open(o *backend.Object) error {
	if r.ctx.Err() != nil {
		return canceled("open", r.ctx)
	}
	if err := r.dir.checkChunk("open", backend.Chunk{Object: o, Size: o.Version.Size}); err != nil {
		return err
	}
	r.file.object = o
	_, err := r.dir.openFile(&r.lane, &r.file, r.dir.howPlain)
	return err
}

// ReadAt implements backend.Reader.
func (r *reader) ReadAt(p []byte, off int64) error {
	err := r.readAt(p, off)
	r.failed = r.failed || err != nil
	return err
}

func (r *reader) readAt(p []byte, off int64) error {
	if err := backend.CheckRange(r.file.object, int64(len(p)), off); err != nil {
		return err
	}
	if r.ctx.Err() != nil {
		return canceled("read", r.ctx)
	}
	for done, restarts := 0, 0; done < len(p); {
		n, errno := r.dir.system.Pread(r.file.fd, p[done:], off+int64(done))
		switch {
		case errno == unix.EINTR && restarts < maxRestarts:
			restarts++
		case errno != 0:
			return r.dir.errnoError("read", r.file.object.Name, errno)
		case n == 0:
			whole := backend.Read{Chunk: backend.Chunk{Object: r.file.object}, Offset: off, P: p}
			return r.dir.shortError(&r.file, &whole, int64(done))
		default:
			done += n
		}
	}
	return nil
}

// Close implements backend.Reader. After an error there is nothing to compare.
func (r *reader) Close() error {
	if r.file.fd < 0 {
		return nil
	}
	defer r.dir.leave()
	var err error
	if !r.failed {
		err = r.dir.checkVersion(&r.lane, &r.file)
	}
	r.dir.releaseFile(&r.file, r.failed || err != nil)
	return err
}
