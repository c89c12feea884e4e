package backend

import (
	"context"
	"fmt"
)

// Reader reads one object many times, in small pieces, for whoever parses a file:
// a scan that reads a million headers cannot afford to have the object's version
// checked at each. Not for parallel use.
type Reader interface {
	// ReadAt fills p with the object's bytes from off: whole or an error, as
	// Store.ReadAt. What was read counts only once Close has returned nil.
	// Errors: Changed, Corrupt, Unavailable, Permission, OutOfRange.
	ReadAt(p []byte, off int64) error

	// Close ends the reading, whatever it returns, and says whether all that was
	// read was of the version asked for. Errors: Changed, Unavailable.
	Close() error
}

// Opener is the optional ability to check an object's version once before and once
// after a series of reads. Errors: NotFound, Changed, Unavailable, Permission.
type Opener interface {
	OpenObject(ctx context.Context, o *Object) (Reader, error)
}

// OpenObject begins a series of reads of o, through the store's own ability where
// it has one, else one Store.ReadAt for each chunk that a read touches. It does not
// look through wrappers, as Gather does not. o is borrowed until Close.
func OpenObject(ctx context.Context, s Store, o *Object) (Reader, error) {
	if opener, ok := s.(Opener); ok {
		return opener.OpenObject(ctx, o)
	}
	return &chunkReader{ctx: ctx, store: s, object: o}, nil
}

// chunkReader reads through a store that has no Opener; each read is checked.
type chunkReader struct {
	ctx    context.Context //nolint:containedctx // of one series of reads
	store  Store
	object *Object
}

func (r *chunkReader) ReadAt(p []byte, off int64) error {
	size := r.object.Version.Size
	if err := CheckRange(r.object, int64(len(p)), off); err != nil {
		return err
	}
	for len(p) > 0 {
		start := off - off%MaxChunkBytes
		c := Chunk{Object: r.object, Start: start, Size: min(MaxChunkBytes, size-start)}
		n := min(int64(len(p)), start+c.Size-off)
		if err := r.store.ReadAt(r.ctx, c, p[:n], off-start); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

func (r *chunkReader) Close() error { return nil }

// CheckRange refuses bytes that are not within the object: OutOfRange.
func CheckRange(o *Object, length, off int64) error {
	if size := o.Version.Size; off < 0 || off > size || length > size-off {
		return &Error{
			Kind: OutOfRange, Op: "read", Object: string(o.Name),
			Detail: fmt.Sprintf("%d bytes from %d of %d", length, off, size),
		}
	}
	return nil
}
