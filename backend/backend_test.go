package backend_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/backendtest"
)

// able is a store with an ability.
type able struct{ backend.Store }

func (able) Objects(context.Context, func(backend.Object) error, func([]byte, string)) error {
	return io.EOF
}

func TestAsFindsAbilitiesThroughAnyNumberOfWrappers(t *testing.T) {
	var store backend.Store = able{backendtest.NewMemory()}
	for depth := range 4 {
		lister, ok := backend.As[backend.Lister](store)
		if !ok || lister.Objects(context.Background(), nil, nil) != io.EOF {
			t.Errorf("%d wrappers: the ability was not found", depth)
		}
		if _, ok := backend.As[backend.Locator](store); ok {
			t.Errorf("%d wrappers: found an ability that is not there", depth)
		}
		store = backendtest.Wrap(store)
	}
	if _, ok := backend.As[backend.Lister](nil); ok {
		t.Error("no store has an ability")
	}
}

func TestKindsAndRemediesAreFoundThroughWrapping(t *testing.T) {
	inner := &backend.Error{Kind: backend.Changed, Op: "read", Object: "a/b", Detail: "expected 1, found 2", Err: io.EOF, Remedy: "index again"}
	err := fmt.Errorf("gather batch 3: %w", &backend.Error{Kind: backend.Unavailable, Op: "gather", Object: "x", Err: inner})
	if kind := backend.KindOf(err); kind != backend.Unavailable {
		t.Errorf("kind %q, want that of the outermost", kind)
	}
	if backend.RemedyOf(err) != "index again" || !errors.Is(err, io.EOF) {
		t.Errorf("remedy %q of %v", backend.RemedyOf(err), err)
	}
	for _, none := range []error{nil, io.EOF, &backend.Error{Kind: backend.Corrupt}} {
		if backend.RemedyOf(none) != "" {
			t.Errorf("%v has a remedy", none)
		}
	}
	if backend.KindOf(nil) != "" || backend.KindOf(io.EOF) != "" {
		t.Error("errors of others have a kind")
	}
	const want = `read "a/b": changed: expected 1, found 2: EOF (index again)`
	if inner.Error() != want {
		t.Errorf("%s\nwant %s", inner, want)
	}
	if text := (&backend.Error{Kind: backend.OutOfRange, Op: "read", Object: "c"}).Error(); !strings.Contains(text, "out of range") {
		t.Error(text)
	}
}

func TestGatherReadsOneByOneWhereTheStoreCannotGather(t *testing.T) {
	store := backendtest.Wrap(backendtest.NewMemory())
	id, err := store.Put(context.Background(), []byte("abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	chunk := backend.Chunk{ID: id, Size: 6}
	reads := []backend.Read{{Chunk: chunk, P: make([]byte, 2)}, {Chunk: chunk, Offset: 3, P: make([]byte, 3)}}
	var report backend.GatherReport
	for _, r := range []*backend.GatherReport{&report, nil} {
		if err := backend.Gather(context.Background(), store, reads, r); err != nil {
			t.Fatal(err)
		}
	}
	if string(reads[0].P) != "ab" || string(reads[1].P) != "def" {
		t.Errorf("read %q and %q", reads[0].P, reads[1].P)
	}
	if report != (backend.GatherReport{DiskBytes: 5, DiskReads: 2}) {
		t.Errorf("report %+v", report)
	}
}

// chunkOf draws a chunk from few values, so that equal ones occur.
func chunkOf(t *rapid.T, label string) backend.Chunk {
	small := rapid.Int64Range(0, 2)
	text := rapid.SampledFrom([]string{"", "a", "b", "ab"})
	return backend.Chunk{
		Object: &backend.Object{
			Origin: text.Draw(t, label+" origin"), Name: []byte(text.Draw(t, label+" name")),
			Version: backend.Version{
				Device: uint64(small.Draw(t, "device")), Inode: uint64(small.Draw(t, "inode")), Size: small.Draw(t, "size"),
				ModifiedNs: small.Draw(t, "modified"), ChangedNs: small.Draw(t, "changed"), Tag: text.Draw(t, "tag"),
			},
		},
		Start: small.Draw(t, "start"), Size: small.Draw(t, "chunk size"),
	}
}

func TestIdentitiesAreEqualExactlyForEqualChunks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := chunkOf(t, "a"), chunkOf(t, "b")
		if rapid.Bool().Draw(t, "shift") { // the same bytes, cut elsewhere
			b = a
			o := *a.Object
			both := o.Origin + string(o.Name)
			cut := rapid.IntRange(0, len(both)).Draw(t, "cut")
			o.Origin, o.Name = both[:cut], []byte(both[cut:])
			b.Object = &o
		}
		same := a.Object.Origin == b.Object.Origin && string(a.Object.Name) == string(b.Object.Name) &&
			a.Object.Version == b.Object.Version && a.Start == b.Start && a.Size == b.Size
		if (a.Identity() == b.Identity()) != same {
			t.Fatalf("%+v %+v", *a.Object, *b.Object)
		}
	})
}

func TestANumberIsNoIdentity(t *testing.T) {
	a := backend.Chunk{Object: &backend.Object{Name: []byte("x"), Number: 1}, Size: 1}
	b := backend.Chunk{Object: &backend.Object{Name: []byte("x"), Number: 2}, Size: 1}
	if a.Identity() != b.Identity() {
		t.Error("the number is part of the identity")
	}
	content := backend.Chunk{ID: backend.ContentID([]byte("x")), Size: 1}
	if content.Identity() != content.ID || len(content.ID.String()) != 64 {
		t.Error("a chunk named by content has its ID as identity")
	}
}
