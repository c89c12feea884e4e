package tar

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/seekable"
)

// How archives are stored, openedArchive.Kind.
const (
	kindTar   = "tar"
	kindGzip  = "gzip"
	kindBzip2 = "bzip2"
	kindXZ    = "xz"
	kindZstd  = "zstd"
)

// Limits of what an archive may decompress to. The disk that a bomb takes is little,
// as it is compressed anew, but the time is not.
const (
	// maxUnpacked is what one file in seekable form holds: 1 TiB.
	maxUnpacked = seekable.MaxBytes

	// maxRatio is how many bytes each compressed one may stand for, beyond the first
	// freeUnpacked. gzip cannot say more than 1032 with one.
	maxRatio     = 2000
	freeUnpacked = 1 << 30
)

// unpackBytes is how much is decompressed between two looks at the context.
const unpackBytes = 1 << 20

// openedArchive is an archive that can be read from any place, whatever it was
// compressed with. It is closed once; what was read counts only if Close returns nil.
type openedArchive struct {
	Source
	Kind   string
	Object backend.Object // what serves the archive's bytes: the shard, or a seekable file
	Close  func() error
}

// openArchive opens the archive o. What it is compressed with is seen from its first
// bytes, not from its name. A plain archive is read in place. A compressed one is
// decompressed once, front to back and in bounded memory (the window that its format
// asks for, at most 128 MiB), into a seekable file in dir; one that an earlier scan has
// left there is used after a look at its seek table. Nothing else is written: no plain
// copy and no members.
//
// The Source is not for parallel use. o is borrowed until Close.
//
// Errors: Corrupt for a compressed stream that is damaged, cut short or followed by
// something else, with the place in the compressed file; Invalid for one that a limit,
// or something that is not supported, keeps from being read; those of the origin, and
// NoSpace and the like for dir.
func openArchive(ctx context.Context, store backend.Store, o *backend.Object, dir string) (openedArchive, error) {
	in, err := backend.OpenObject(ctx, store, o)
	if err != nil {
		return openedArchive{}, err
	}
	kind, err := archiveKind(in, o)
	if err != nil {
		return openedArchive{}, errors.Join(err, in.Close())
	}
	if kind == kindTar {
		return openedArchive{Source: objectSource{in, o.Version.Size}, Kind: kind, Object: *o, Close: in.Close}, nil
	}
	unpacked, err := unpackOnce(ctx, in, store, o, kind, dir)
	if err != nil {
		return openedArchive{}, err
	}
	return openSeekable(ctx, store, unpacked, kind, dir)
}

// objectSource is an open object as a Source.
type objectSource struct {
	backend.Reader
	size int64
}

func (s objectSource) Size() int64 { return s.size }

// unpackOnce returns the object that holds o unpacked: one that is there, or a new
// one. It reads o from in, and closes that.
func unpackOnce(ctx context.Context, in backend.Reader, store backend.Store, o *backend.Object, kind, dir string) (backend.Object, error) {
	name := seekable.NameOf("unpacked", o)
	unpacked, found, err := findSeekable(ctx, store, o, dir, name)
	if err != nil || found {
		return unpacked, errors.Join(err, in.Close())
	}
	w, err := seekable.Create(dir)
	if err != nil {
		return unpacked, errors.Join(err, in.Close())
	}
	err = unpack(ctx, w, newCompressed(in, o), kind)
	if closed := in.Close(); err == nil {
		err = closed
	}
	if err != nil {
		w.Abort()
		return unpacked, err
	}
	return w.Finish(name, o)
}

// unpack writes what from decompresses to.
func unpack(ctx context.Context, to io.Writer, from *compressed, kind string) error {
	stream, err := from.decompress(kind)
	if err != nil {
		return err
	}
	b, total := make([]byte, unpackBytes), int64(0)
	for {
		if ctx.Err() != nil {
			return fmt.Errorf("unpack: %w", context.Cause(ctx))
		}
		n, failed := io.ReadFull(stream, b)
		if failed == io.ErrUnexpectedEOF { // of ReadFull, as streams wrap theirs
			failed = io.EOF
		}
		if total += int64(n); total > maxUnpacked || total > freeUnpacked && total/maxRatio > from.consumed() {
			return from.tooLarge(total)
		}
		if _, err := to.Write(b[:n]); err != nil {
			return err
		}
		if failed == io.EOF {
			return nil
		}
		if failed != nil {
			return failed
		}
	}
}

// openSeekable opens an object in a seekable file of dir. It is read through a pool
// that holds just the window of a Walker.
func openSeekable(ctx context.Context, store backend.Store, unpacked backend.Object, kind, dir string) (openedArchive, error) {
	files, err := openFiles(store, dir)
	if err != nil {
		return openedArchive{}, err
	}
	in, err := files.OpenObject(ctx, &unpacked)
	if err != nil {
		return openedArchive{}, errors.Join(err, files.Close())
	}
	return openedArchive{
		Source: objectSource{in, unpacked.Version.Size}, Kind: kind, Object: unpacked,
		Close: func() error { return errors.Join(in.Close(), files.Close()) },
	}, nil
}

// findSeekable looks whether an earlier scan has left the seekable file of o called
// name, whole as far as its seek table says.
func findSeekable(ctx context.Context, store backend.Store, o *backend.Object, dir, name string) (unpacked backend.Object, found bool, err error) {
	files, err := openFiles(store, dir)
	if backend.KindOf(err) == backend.NotFound {
		return unpacked, false, nil
	}
	if err != nil {
		return unpacked, false, err
	}
	unpacked, err = files.Examine(ctx, name, false)
	err = errors.Join(err, files.Close())
	if kind := backend.KindOf(err); kind == backend.NotFound || kind == backend.Corrupt {
		return unpacked, false, nil
	}
	unpacked.Origin, unpacked.Number = o.Origin, o.Number
	return unpacked, err == nil && string(unpacked.Name) == string(o.Name), err
}

// openFiles opens the seekable files of dir.
func openFiles(store backend.Store, dir string) (*seekable.Store, error) {
	return seekable.New(lent{store}, dir, seekable.Options{
		PoolOptions: seekable.PoolOptions{Bytes: 4 * seekable.FrameBytes, Reads: 1}, OpenFiles: 1,
	})
}

// lent is a store that somebody else closes.
type lent struct{ backend.Store }

func (lent) Close() error { return nil }

// SeekableFiles returns the file, in the dataset's directory, that holds objects with
// that Version.Tag; ok is false for objects that lie in the origin itself.
func SeekableFiles(tag string) (name string, ok bool) {
	name, _, ok = seekable.FileOf(tag)
	return name, ok
}
