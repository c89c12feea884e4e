package flash_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
)

// held is a chunk that somebody reads around the store.
type held struct {
	backend.Location
	content []byte
}

func (w *witness) locate(s *flash.Store, number uint64, size int) held {
	w.t.Helper()
	at, err := s.Locate(context.Background(), filledOf(number, size), backend.Range{Length: int64(size)})
	if err != nil {
		w.t.Fatal(err)
	}
	return held{at, bytesOf(number, size)}
}

// read checks that the bytes are still where they were.
func (h *held) read(t *testing.T) {
	t.Helper()
	f, err := os.Open(h.Path)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, len(h.content))
	_, err = f.ReadAt(p, h.Offset)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p, h.content) {
		t.Error("the bytes of a chunk that is held are not there any more")
	}
}

// Bytes that are held stay where they are when their chunk is deleted, dropped or filled
// anew and its class is filled many times over; after the release their room is used.
func TestHoldOutlastsEviction(t *testing.T) {
	w := newWitness(t)
	s := w.open(killed(t.TempDir()))
	defer w.close(s)
	ctx := context.Background()
	const size = 60000
	var holds []held
	for i := range uint64(4) {
		w.must(w.fill(ctx, s, i, size, 0))
		holds = append(holds, w.locate(s, i, size))
	}
	w.must(w.delete(ctx, s, filledOf(1, size)))
	w.must(w.delete(ctx, s, filledOf(2, size)))
	w.must(w.fill(ctx, s, 2, size, 0))
	for i := range uint64(300) {
		w.must(w.fill(ctx, s, 100+i, size, 0))
	}
	for i := range holds {
		holds[i].read(t)
		holds[i].Release()
	}
	for i := range uint64(300) {
		w.must(w.fill(ctx, s, 500+i, size, 0))
	}
	w.check(s)
}

// The file of a segment that is to go away stays while bytes of it are held.
func TestHoldOutlastsTheSegment(t *testing.T) {
	w := newWitness(t)
	directory := t.TempDir()
	s := w.open(killed(directory))
	ctx := context.Background()
	for i := range uint64(20) {
		w.must(w.fill(ctx, s, i, 60000, 0))
	}
	h := w.locate(s, 19, 60000)
	w.must(s.SetLimit(directory, 1))
	for i := range uint64(3) {
		w.must(w.delete(ctx, s, filledOf(i, 60000)))
		h.read(t)
	}
	h.Release()
	w.close(s)
}

// A hold that is given back after the store was closed does no harm.
func TestHoldOutlastsTheStore(t *testing.T) {
	w := newWitness(t)
	directory := t.TempDir()
	s := w.open(killed(directory))
	ctx := context.Background()
	w.must(w.fill(ctx, s, 1, 60000, 0))
	w.must(w.fill(ctx, s, 2, 60000, 0))
	kept, dropped := w.locate(s, 1, 60000), w.locate(s, 2, 60000)
	w.must(w.delete(ctx, s, filledOf(2, 60000)))
	w.close(s)
	kept.read(t)
	kept.Release()
	dropped.Release()
	s = w.open(killed(directory))
	w.check(s)
	w.close(s)
}
