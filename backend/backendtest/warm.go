package backendtest

import (
	"bytes"
	"context"
	"errors"
	"math"
	"testing"

	"github.com/stokerio/stoker/backend"
)

func warmClauses() []clause {
	return []clause{
		{"bytes that were warmed are read as they are", warmedIsRead},
		{"what is warmed again at once is resident or read again, never an error", warmedTwice},
		{"warming out of the object's range is OutOfRange", warmOutOfRange},
		{"a cancelled warming ends with the context's cause", warmCancelled},
		{"a store that is closed warms nothing", warmAfterClose},
	}
}

// warm calls Warm on chunk i's object; ok is false if the store cannot, which is no fault.
func (f *fixture) warm(ctx context.Context, i int, off, n int64) (resident, ok bool, err error) {
	c := f.chunks[i]
	if c.Object == nil {
		return false, false, nil
	}
	return backend.Warm(ctx, f.store, c.Object, off, n)
}

func warmedIsRead(t *testing.T, f *fixture) {
	for i, content := range f.contents {
		size := int64(len(content))
		for _, r := range [][2]int64{{0, size}, {size / 3, size / 2}, {size, size}, {max(0, size-1), size}} {
			if _, _, err := f.warm(context.Background(), i, r[0], r[1]-r[0]); err != nil {
				t.Errorf("warm [%d, %d) of chunk %d: %v", r[0], r[1], i, err)
			}
			f.wantRead(t, i, int(r[0]), int(r[1]))
		}
	}
}

func warmedTwice(t *testing.T, f *fixture) {
	for i, content := range f.contents {
		for range 3 {
			if _, _, err := f.warm(context.Background(), i, 0, int64(len(content))); err != nil {
				t.Errorf("chunk %d: %v", i, err)
			}
		}
	}
}

func warmOutOfRange(t *testing.T, f *fixture) {
	size := int64(len(f.contents[large]))
	for _, r := range [][2]int64{
		{0, size + 1}, {1, size}, {size, 1}, {size + 1, 0}, {-1, 1}, {-1, 0}, {0, -1}, {0, math.MinInt64},
		{math.MaxInt64, 1}, {math.MaxInt64 - 1, 2}, {math.MinInt64, 1}, {1, math.MaxInt64},
	} {
		if _, ok, err := f.warm(context.Background(), large, r[0], r[1]); ok {
			wantKind(t, "warm", err, backend.OutOfRange)
		}
	}
}

func warmCancelled(t *testing.T, f *fixture) {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errCause)
	if resident, ok, err := f.warm(ctx, large, 0, 8); ok && (resident || !errors.Is(err, errCause)) {
		t.Errorf("warm: %v, %v, want the context's cause", resident, err)
	}
	f.wantRead(t, large, 0, len(f.contents[large]))
}

func warmAfterClose(t *testing.T, f *fixture) {
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := f.warm(context.Background(), large, 0, 8); ok {
		wantKind(t, "warm", err, backend.Unavailable)
	}
}

// warmChanged warms a chunk whose source changed.
func (f *fixture) warmChanged(t *testing.T) {
	for i, content := range f.contents {
		resident, ok, err := f.warm(context.Background(), i, 0, int64(len(content)))
		switch {
		case !ok:
		case i == large:
			wantKind(t, "warm", err, backend.Changed)
			if resident {
				t.Error("what changed was there")
			}
		case err != nil:
			t.Errorf("warm chunk %d: %v", i, err)
		}
	}
}

// warmKeepsNothing passes an object whose name is overwritten after the call.
func (f *fixture) warmKeepsNothing(t *testing.T) {
	c := f.chunks[large]
	if c.Object == nil {
		return
	}
	o := *c.Object
	o.Name = bytes.Clone(o.Name)
	if _, _, err := backend.Warm(context.Background(), f.store, &o, 0, 8); err != nil {
		t.Error(err)
	}
	clear(o.Name)
}
