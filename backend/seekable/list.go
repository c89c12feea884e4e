package seekable

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/stokerio/stoker/backend"
)

// List implements backend.Store: the decorated store's chunks, then those of every
// file in the directory.
func (s *Store) List(ctx context.Context, visit func(backend.Info) error) error {
	if err := s.enter("list"); err != nil {
		return err
	}
	defer s.leave()
	if err := s.origin.List(ctx, visit); err != nil {
		return err
	}
	dir, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", s.dirfd))
	if err != nil {
		return fileError("list", s.dir, err)
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			if ctx.Err() != nil {
				return canceled("list", ctx)
			}
			if !namePattern.MatchString(name) {
				continue
			}
			if err := s.listFile(name, visit); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fileError("list", s.dir, err)
		}
	}
}

// listFile visits the chunks of one file. One that is gone meanwhile has none.
func (s *Store) listFile(name string, visit func(backend.Info) error) error {
	f := &openFile{name: name}
	err := s.openNamed(f, name)
	if backend.KindOf(err) == backend.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	about, err := s.describe(f)
	s.system.Close(f.fd)
	if err != nil {
		return err
	}
	o := &backend.Object{
		Origin: string(about.origin), Name: about.name, Version: backend.Version{Size: f.bytes, Tag: Tag(name, f.bytes)},
	}
	for start := int64(0); start < f.bytes || start == 0; start += s.options.ChunkBytes {
		c := backend.Chunk{Object: o, Start: start, Size: min(s.options.ChunkBytes, f.bytes-start)}
		if err := visit(backend.Info{Chunk: c, Bytes: c.Size}); err != nil {
			return err
		}
	}
	return nil
}

// Examine returns the object that the file called name holds, after checking its
// seek table; with deep every frame is decompressed as well.
// Errors: NotFound, Corrupt, Permission, Unavailable.
func (s *Store) Examine(ctx context.Context, name string, deep bool) (backend.Object, error) {
	if err := s.enter("examine"); err != nil {
		return backend.Object{}, err
	}
	defer s.leave()
	if !namePattern.MatchString(name) {
		return backend.Object{}, &backend.Error{Kind: backend.NotFound, Op: "examine", Object: name, Detail: "no file is called so"}
	}
	f := &openFile{name: name}
	if err := s.openNamed(f, name); err != nil {
		return backend.Object{}, err
	}
	about, err := s.describe(f)
	s.system.Close(f.fd)
	if err != nil {
		return backend.Object{}, err
	}
	o := backend.Object{
		Origin: string(about.origin), Name: about.name, Version: backend.Version{Size: f.bytes, Tag: Tag(name, f.bytes)},
	}
	if deep {
		err = s.readAll(ctx, &o)
	}
	return o, err
}

// readAll decompresses all of o.
func (s *Store) readAll(ctx context.Context, o *backend.Object) error {
	b := make([]byte, 8*FrameBytes)
	for at := int64(0); at < o.Version.Size; {
		p := b[:min(int64(len(b)), o.Version.Size-at)]
		if err := s.read(ctx, backend.Read{Chunk: backend.Chunk{Object: o, Size: o.Version.Size}, Offset: at, P: p}); err != nil {
			return err
		}
		at += int64(len(p))
	}
	return nil
}
