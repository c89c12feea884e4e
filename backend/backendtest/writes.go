package backendtest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stokerio/stoker/backend"
)

func lifeClauses() []clause {
	return []clause{
		{"Close may be called again and ends all calls", closeEnds},
		{"Close waits for calls in flight", closeWaits},
	}
}

func closeEnds(t *testing.T, f *fixture) {
	for range 2 {
		if err := f.store.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
	ctx, c := context.Background(), f.chunks[large]
	wantKind(t, "read", f.store.ReadAt(ctx, c, make([]byte, 8), 0), backend.Unavailable)
	_, err := f.store.Stat(ctx, c)
	wantKind(t, "stat", err, backend.Unavailable)
	wantKind(t, "list", f.store.List(ctx, func(backend.Info) error { return nil }), backend.Unavailable)
	reads := []backend.Read{{Chunk: c, P: make([]byte, 8)}}
	wantKind(t, "gather", backend.Gather(ctx, f.store, reads, new(backend.GatherReport)), backend.Unavailable)
}

// closeWaits closes the store under readers: each read is right or Unavailable.
func closeWaits(t *testing.T, f *fixture) {
	var group sync.WaitGroup
	started := make(chan struct{}, 4)
	for range cap(started) {
		group.Go(func() {
			p := make([]byte, len(f.contents[large]))
			for n := 0; ; n++ {
				err := f.store.ReadAt(context.Background(), f.chunks[large], p, 0)
				if err != nil {
					wantKind(t, "read", err, backend.Unavailable)
					return
				}
				if !bytes.Equal(p, f.contents[large]) {
					t.Error("wrong bytes while the store closed")
				}
				if n == 0 {
					started <- struct{}{}
				}
			}
		})
	}
	for range cap(started) {
		<-started
	}
	if err := f.store.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	group.Wait()
}

func writeClauses() []clause {
	return []clause{
		{"Put names a chunk by its content and is idempotent", putIsIdempotent},
		{"Put refuses more than MaxChunkBytes", putIsBounded},
		{"what is filled is readable and found by its identity", fillIsReadable},
		{"Fill refuses content of another size than the chunk", fillChecksSize},
		{"Delete forgets a chunk and is idempotent", deleteForgets},
		{"a cancelled Put, Fill or Delete ends with the context's cause", writesCancelled},
	}
}

func putIsIdempotent(t *testing.T, f *fixture) {
	ctx, content := context.Background(), []byte("put twice")
	for range 2 {
		id, err := f.store.Put(ctx, content)
		if err != nil {
			t.Fatal(err)
		}
		if id != backend.ContentID([]byte("put twice")) {
			t.Fatalf("id %s is not the content's", id)
		}
	}
	id := backend.ContentID(content)
	clear(content) // the store must have copied it
	p := make([]byte, len(content))
	if err := f.store.ReadAt(ctx, backend.Chunk{ID: id, Size: int64(len(p))}, p, 0); err != nil {
		t.Fatal(err)
	}
	if string(p) != "put twice" {
		t.Errorf("read %q back", p)
	}
	if n := f.count(t, id); n != 1 {
		t.Errorf("the chunk is listed %d times, want once", n)
	}
}

func (f *fixture) count(t *testing.T, id backend.ChunkID) (n int) {
	err := f.store.List(context.Background(), func(i backend.Info) error {
		if i.Chunk.Identity() == id {
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func putIsBounded(t *testing.T, f *fixture) {
	_, err := f.store.Put(context.Background(), make([]byte, backend.MaxChunkBytes+1))
	wantKind(t, "put", err, backend.OutOfRange)
}

// originChunk names a chunk of some origin's object.
func originChunk(name string, size int) backend.Chunk {
	o := &backend.Object{
		Origin: "file:1:2", Name: []byte(name),
		Version: backend.Version{Device: 1, Inode: 9, Size: int64(size), ModifiedNs: 5, ChangedNs: 5},
	}
	return backend.Chunk{Object: o, Size: int64(size)}
}

func fillIsReadable(t *testing.T, f *fixture) {
	ctx, content := context.Background(), []byte("an origin's bytes")
	c := originChunk("shard", len(content))
	if err := f.store.Fill(ctx, c, content); err != nil {
		t.Fatal(err)
	}
	clear(content)
	clear(c.Object.Name) // borrowed until Fill returned
	c = originChunk("shard", len(content))
	p := make([]byte, len(content))
	if err := f.store.ReadAt(ctx, c, p, 0); err != nil {
		t.Fatal(err)
	}
	if string(p) != "an origin's bytes" {
		t.Errorf("read %q back", p)
	}
	newer := c
	object := *c.Object
	object.Version.ChangedNs++
	newer.Object = &object
	wantKind(t, "read of another version", f.store.ReadAt(ctx, newer, p, 0), backend.NotFound)
}

func fillChecksSize(t *testing.T, f *fixture) {
	wantKind(t, "fill", f.store.Fill(context.Background(), originChunk("shard", 5), []byte("four")), backend.OutOfRange)
}

func deleteForgets(t *testing.T, f *fixture) {
	for range 2 {
		if err := f.store.Delete(context.Background(), f.chunks[large]); err != nil {
			t.Fatal(err)
		}
	}
	p := make([]byte, 8)
	wantKind(t, "read", f.store.ReadAt(context.Background(), f.chunks[large], p, 0), backend.NotFound)
	f.wantRead(t, large-1, 0, len(f.contents[large-1]))
}

func writesCancelled(t *testing.T, f *fixture) {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errCause)
	_, put := f.store.Put(ctx, []byte("late"))
	fill := f.store.Fill(ctx, originChunk("late", 4), []byte("late"))
	for what, err := range map[string]error{"put": put, "fill": fill, "delete": f.store.Delete(ctx, f.chunks[large])} {
		if !errors.Is(err, errCause) {
			t.Errorf("%s: %v, want the context's cause", what, err)
		}
	}
	f.wantRead(t, large, 0, len(f.contents[large]))
}
