// Package backendtest is the conformance suite of backend.Store: every
// implementation and every decorator runs it. Each clause is a sentence of the
// contract and one sub-test.
package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stokerio/stoker/backend"
)

// Harness says how to make the store under test and in what it is special.
type Harness struct {
	// New returns an open store and one chunk for each of contents, in order. The
	// store is closed by the suite.
	New func(t testing.TB, contents [][]byte) (backend.Store, []backend.Chunk)

	// ReadOnly stores refuse Put, Fill and Delete with Permission.
	ReadOnly bool

	// Change makes the source of chunks[i] differ from the version that the chunk
	// names. nil: chunks of this store have no source that could change.
	Change func(t testing.TB, store backend.Store, chunks []backend.Chunk, i int)
}

// clause is one sentence of the contract.
type clause struct {
	name string
	run  func(*testing.T, *fixture)
}

// fixture is a store with known chunks.
type fixture struct {
	harness  Harness
	store    backend.Store
	contents [][]byte
	chunks   []backend.Chunk
}

// Run checks every clause that applies to the store, each on a store of its own.
func Run(t *testing.T, h Harness) {
	clauses := readClauses()
	clauses = append(clauses, abilityClauses()...)
	clauses = append(clauses, warmClauses()...)
	clauses = append(clauses, lifeClauses()...)
	if h.ReadOnly {
		clauses = append(clauses, clause{"a read-only store refuses Put, Fill and Delete", refusesWrites})
	} else {
		clauses = append(clauses, writeClauses()...)
		clauses = append(clauses, partialClauses()...)
	}
	if h.Change != nil {
		clauses = append(clauses, clause{"a chunk whose source changed is an error of kind Changed", changedIsAnError})
	}
	for _, c := range clauses {
		t.Run(c.name, func(t *testing.T) { c.run(t, newFixture(t, h)) })
	}
}

// sizes of the chunks of every fixture: empty, tiny, around pages and blocks.
func sizes() []int {
	return []int{0, 1, 4095, 4096, 4097, 100_000, backend.BlockBytes, backend.BlockBytes + 1}
}

func newFixture(t testing.TB, h Harness) *fixture {
	f := &fixture{harness: h}
	random := rand.NewChaCha8([32]byte{1})
	for _, size := range sizes() {
		content := make([]byte, size)
		random.Read(content)
		f.contents = append(f.contents, content)
	}
	f.store, f.chunks = h.New(t, f.contents)
	if len(f.chunks) != len(f.contents) {
		t.Fatalf("harness made %d chunks for %d contents", len(f.chunks), len(f.contents))
	}
	t.Cleanup(func() {
		if err := f.store.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return f
}

// large is the number of a chunk of 100,000 bytes.
const large = 5

// missing names a chunk that no fixture holds.
func missing() backend.Chunk {
	return backend.Chunk{ID: backend.ContentID([]byte("a chunk that nobody stored")), Size: 26}
}

func wantKind(t testing.TB, what string, err error, kind backend.Kind) {
	t.Helper()
	var e *backend.Error
	if !errors.As(err, &e) {
		t.Errorf("%s: error %v, want a *backend.Error of kind %s", what, err, kind)
		return
	}
	if e.Kind != kind {
		t.Errorf("%s: kind %s (%v), want %s", what, e.Kind, err, kind)
	}
	if e.Op == "" || e.Object == "" {
		t.Errorf("%s: %#v does not say what was done to which object", what, e)
	}
}

// poisoned returns n bytes that are unlikely to be a chunk's.
func poisoned(n int) []byte { return bytes.Repeat([]byte{0xA5}, n) }

// wantRead reads [from, to) of chunk i and compares.
func (f *fixture) wantRead(t testing.TB, i, from, to int) {
	t.Helper()
	p := poisoned(to - from)
	if err := f.store.ReadAt(context.Background(), f.chunks[i], p, int64(from)); err != nil {
		t.Errorf("read [%d, %d) of chunk %d: %v", from, to, i, err)
		return
	}
	if !bytes.Equal(p, f.contents[i][from:to]) {
		t.Errorf("read [%d, %d) of chunk %d: wrong bytes", from, to, i)
	}
}

func refusesWrites(t *testing.T, f *fixture) {
	ctx := context.Background()
	_, err := f.store.Put(ctx, []byte("new"))
	wantKind(t, "put", err, backend.Permission)
	wantKind(t, "fill", f.store.Fill(ctx, f.chunks[large], f.contents[large]), backend.Permission)
	wantKind(t, "delete", f.store.Delete(ctx, f.chunks[large]), backend.Permission)
	f.wantRead(t, large, 0, len(f.contents[large]))
}

func changedIsAnError(t *testing.T, f *fixture) {
	ctx := context.Background()
	f.wantRead(t, large, 0, len(f.contents[large]))
	f.seriesAcrossChange(t)
	p := poisoned(len(f.contents[large]))
	wantKind(t, "read", f.store.ReadAt(ctx, f.chunks[large], p, 0), backend.Changed)
	_, err := f.store.Stat(ctx, f.chunks[large])
	wantKind(t, "stat", err, backend.Changed)
	reads := []backend.Read{{Chunk: f.chunks[1], P: p[:1]}, {Chunk: f.chunks[large], P: p}}
	wantKind(t, "gather", backend.Gather(ctx, f.store, reads, new(backend.GatherReport)), backend.Changed)
	f.warmChanged(t)
	for i := range f.chunks {
		if i != large {
			f.wantRead(t, i, 0, len(f.contents[i]))
		}
	}
}

// seriesAcrossChange changes the large chunk's source within a series of reads of
// it: one of the calls must say so, Close at the latest.
func (f *fixture) seriesAcrossChange(t *testing.T) {
	object := f.chunks[large].Object
	if object == nil {
		f.harness.Change(t, f.store, f.chunks, large)
		return
	}
	r, err := backend.OpenObject(context.Background(), f.store, object)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 1)
	if err := r.ReadAt(p, 0); err != nil {
		t.Error(err)
	}
	f.harness.Change(t, f.store, f.chunks, large)
	err = r.ReadAt(p, 1)
	if closed := r.Close(); err == nil {
		err = closed
	}
	wantKind(t, "a series of reads", err, backend.Changed)
}

// Benchmark measures reads of one size each through ReadAt.
func Benchmark(b *testing.B, h Harness) {
	f := newFixture(b, h)
	for i, content := range f.contents[1:] {
		b.Run(fmt.Sprintf("read_bytes=%d", len(content)), func(b *testing.B) {
			p := make([]byte, len(content))
			b.SetBytes(int64(len(content)))
			for b.Loop() {
				if err := f.store.ReadAt(context.Background(), f.chunks[i+1], p, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
