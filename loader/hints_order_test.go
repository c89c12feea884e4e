package loader

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/loader/order"
)

// TestAHintsOrderIsWhatARankReads holds the places of a sampler against the steps that a
// session takes, one by one.
func TestAHintsOrderIsWhatARankReads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		samples := rapid.Int64Range(1, 200).Draw(t, "samples")
		share := order.Share{WorldSize: rapid.IntRange(1, 9).Draw(t, "world"), BatchSize: rapid.IntRange(1, 40).Draw(t, "batch"),
			DropLast: rapid.Bool().Draw(t, "drop"), Padded: rapid.Bool().Draw(t, "padded")}
		share.Rank = rapid.IntRange(0, share.WorldSize-1).Draw(t, "rank")
		if share.Validate(samples) != nil {
			t.Skip()
		}
		o, err := order.New(order.Spec{Kind: order.Global, Seed: 5, Samples: samples})
		if err != nil {
			t.Fatal(err)
		}
		first, epochs := rapid.Int64Range(0, 3).Draw(t, "epoch"), rapid.Int64Range(1, 3).Draw(t, "epochs")
		var want []int64
		for epoch := first; epoch < first+epochs; epoch++ {
			for consumed := int64(0); ; {
				step, more := share.Next(samples, consumed)
				if !more {
					break
				}
				for i := range step.Length {
					want = append(want, o.Epoch(epoch).At(step.Position(i, samples)))
				}
				consumed = step.Consumed
			}
		}
		s := newShared(o.Epoch, samples, share, first, epochs)
		if s.len() != int64(len(want)) {
			t.Fatalf("%d places, want %d", s.len(), len(want))
		}
		from := rapid.Int64Range(0, s.len()).Draw(t, "from")
		h := &hintOrder{places: s, from: from, length: s.len() - from}
		at := rapid.Int64Range(0, h.length).Draw(t, "at")
		n := rapid.Int64Range(0, h.length-at).Draw(t, "n")
		if got := h.At(0, at, n, nil); !slices.Equal(got, want[from+at:from+at+n]) {
			t.Fatalf("places [%d, +%d) from %d are %v, want %v", at, n, from, got, want[from+at:from+at+n])
		}
		if h.Len(0) != h.length || h.Len(1) != 0 {
			t.Fatal("a hint is one epoch")
		}
	})
}
