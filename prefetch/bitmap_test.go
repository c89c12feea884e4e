package prefetch

import (
	"testing"

	"pgregory.net/rapid"
)

func TestBitmapAgreesWithAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(1, 2000).Draw(t, "bits")
		b, model := newBitmap(n), map[int64]bool{}
		for _, i := range rapid.SliceOfN(rapid.Int64Range(0, n-1), 0, 60).Draw(t, "flips") {
			if b.has(i) != model[i] {
				t.Fatalf("has(%d) = %v", i, b.has(i))
			}
			if model[i] {
				b.clear(i)
				delete(model, i)
			} else {
				b.set(i)
				model[i] = true
			}
		}
		if b.count != int64(len(model)) {
			t.Fatalf("count %d, want %d", b.count, len(model))
		}
		for at := rapid.Int64Range(0, n-1).Draw(t, "from"); at < n; {
			i, ok := b.next(at)
			for j := at; j < min(i, n); j++ {
				if model[j] {
					t.Fatalf("next(%d) = %d passes %d", at, i, j)
				}
			}
			if ok && !model[i] || i < at || !ok && i == at {
				t.Fatalf("next(%d) = %d, %v", at, i, ok)
			}
			at = i + 1
			if !ok {
				at = i
			}
		}
	})
}

func TestSizesAreThoseLastSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(1, 1000).Draw(t, "chunks")
		var sizes bitmapSizes
		model := map[int64]uint32{}
		size := rapid.OneOf(rapid.Just(uint32(8<<20)), rapid.Uint32Range(1, 1<<32-1))
		for range rapid.IntRange(0, 50).Draw(t, "sets") {
			i, size := rapid.Int64Range(0, n-1).Draw(t, "chunk"), size.Draw(t, "size")
			sizes.set(i, n, size)
			model[i] = size
			for i, want := range model {
				if got := sizes.at(i); got != int64(want) {
					t.Fatalf("chunk %d: %d, want %d", i, got, want)
				}
			}
		}
	})
}

func TestEqualSizesTakeNoMemory(t *testing.T) {
	var sizes bitmapSizes
	for i := range int64(100_000) {
		sizes.set(i, 100_000, 8<<20)
	}
	if sizes.pages != nil {
		t.Fatal("pages for chunks of one size")
	}
}
