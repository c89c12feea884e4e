// Package dirstore is a small read-only store of the files below a directory, for
// the tests of loader/dataset, which may not import the real one. It compares sizes
// only.
package dirstore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/stokerio/stoker/backend"
)

// Store serves the regular files below its directory.
type Store struct{ Dir string }

var errReadOnly = errors.New("read-only")

// Objects implements backend.Lister. It follows no link and takes all for links
// that lead outside.
func (s Store) Objects(ctx context.Context, visit func(backend.Object) error, leftOut func(name []byte, reason string)) error {
	return filepath.WalkDir(s.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(s.Dir, path)
		if err != nil {
			return err
		}
		if !d.Type().IsRegular() {
			if target, err := os.Stat(path); err == nil && target.IsDir() {
				name += "/"
			}
			if leftOut != nil {
				leftOut([]byte(name), backend.LinkOutside)
			}
			return nil
		}
		return visit(backend.Object{Origin: "dir:" + s.Dir, Name: []byte(name), Version: backend.Version{
			Device: 1, Inode: 2, Size: info.Size(), ModifiedNs: info.ModTime().UnixNano(), ChangedNs: 3}})
	})
}

// ReadAt implements backend.Store.
func (s Store) ReadAt(_ context.Context, c backend.Chunk, p []byte, off int64) error {
	name := string(c.Object.Name)
	fail := func(kind backend.Kind, err error) error {
		return &backend.Error{Kind: kind, Op: "read", Object: name, Err: err}
	}
	if off < 0 || off+int64(len(p)) > c.Size || c.Size > backend.MaxChunkBytes || c.Start%backend.MaxChunkBytes != 0 {
		return fail(backend.OutOfRange, nil)
	}
	f, err := os.Open(filepath.Join(s.Dir, name))
	if err != nil {
		return fail(backend.NotFound, err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != c.Object.Version.Size {
		return fail(backend.Changed, err)
	}
	if _, err := f.ReadAt(p, c.Start+off); err != nil {
		return fail(backend.Unavailable, err)
	}
	return nil
}

// Put implements backend.Store.
func (s Store) Put(context.Context, []byte) (backend.ChunkID, error) {
	return backend.ChunkID{}, &backend.Error{Kind: backend.Permission, Op: "put", Object: s.Dir, Err: errReadOnly}
}

// Fill implements backend.Store.
func (s Store) Fill(context.Context, backend.Chunk, []byte) error {
	return &backend.Error{Kind: backend.Permission, Op: "fill", Object: s.Dir, Err: errReadOnly}
}

// Stat implements backend.Store.
func (s Store) Stat(_ context.Context, c backend.Chunk) (backend.Info, error) {
	return backend.Info{Chunk: c, Bytes: c.Size}, nil
}

// Delete implements backend.Store.
func (s Store) Delete(context.Context, backend.Chunk) error {
	return &backend.Error{Kind: backend.Permission, Op: "delete", Object: s.Dir, Err: errReadOnly}
}

// List implements backend.Store.
func (s Store) List(context.Context, func(backend.Info) error) error { return nil }

// Close implements backend.Store.
func (s Store) Close() error { return nil }

// ReadPart returns the bytes of a part of an object, chunk by chunk.
func (s Store) ReadPart(ctx context.Context, o backend.Object, offset, length int64) ([]byte, error) {
	p := make([]byte, length)
	for done := int64(0); done < length; {
		start := (offset + done) / backend.MaxChunkBytes * backend.MaxChunkBytes
		c := backend.Chunk{Object: &o, Start: start, Size: min(backend.MaxChunkBytes, o.Version.Size-start)}
		n := min(length-done, start+c.Size-offset-done)
		if n <= 0 {
			return nil, errors.New("part ends beyond its object")
		}
		if err := s.ReadAt(ctx, c, p[done:done+n], offset+done-start); err != nil {
			return nil, err
		}
		done += n
	}
	return p, nil
}
