package loader

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/loader/order"
)

// drawShare draws a rank's share of a dataset, and a place that it can go on from.
func drawShare(t *rapid.T) (share order.Share, samples int64, from place) {
	world := rapid.IntRange(1, 9).Draw(t, "world size")
	share = order.Share{
		Rank: rapid.IntRange(0, world-1).Draw(t, "rank"), WorldSize: world, BatchSize: rapid.IntRange(1, 9).Draw(t, "batch size"),
		DropLast: rapid.Bool().Draw(t, "drop last"), Padded: rapid.Bool().Draw(t, "padded"),
	}
	least := int64(world)
	if share.DropLast {
		least *= int64(share.BatchSize)
	}
	samples = rapid.Int64Range(least, least+500).Draw(t, "samples")
	from.epoch = rapid.Int64Range(0, 3).Draw(t, "epoch")
	from.consumed = rapid.Int64Range(0, samples).Draw(t, "consumed")
	if share.Padded {
		from.consumed -= from.consumed % int64(world)
	}
	return share, samples, from
}

// readIn is what production reads of an epoch from a position on: the samples, and after
// each step how many they are and where the epoch stands.
func readIn(share order.Share, p order.Permutation, consumed int64) (samples []int64, counts, places []int64) {
	for {
		step, more := share.Next(p.Len(), consumed)
		if !more {
			return samples, counts, places
		}
		f := filler{}
		f.choose(&p, &step)
		samples = append(samples, f.samples...)
		consumed = step.Consumed
		counts, places = append(counts, int64(len(samples))), append(places, consumed)
	}
}

func TestTheFutureIsWhatProductionReads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		share, samples, from := drawShare(t)
		kind := rapid.SampledFrom([]order.Kind{order.Global, order.Windowed, order.Sequential}).Draw(t, "order")
		o, err := order.New(order.Spec{Kind: kind, Seed: 3, Samples: samples, Window: 16})
		if err != nil {
			t.Fatal(err)
		}
		f := newFuture(&epochs{computed: o}, share, samples, from)
		epoch, consumed := from.epoch, from.consumed
		if want, _, _ := readIn(share, o.Epoch(epoch), consumed); len(want) == 0 {
			epoch, consumed = epoch+1, 0
		}
		if f.epoch != epoch {
			t.Fatalf("begins in epoch %d, want %d", f.epoch, epoch)
		}
		for range 2 {
			want, counts, places := readIn(share, o.Epoch(epoch), consumed)
			checkEpoch(t, f, epoch, want)
			for i := range counts {
				if got := f.placeOf(place{epoch, places[i]}); got != counts[i] {
					t.Fatalf("epoch %d: after %d positions the place is %d, want %d", epoch, places[i], got, counts[i])
				}
			}
			epoch, consumed = epoch+1, 0
		}
	})
}

// checkEpoch compares an epoch with what is read of it, whatever is asked for at once.
func checkEpoch(t *rapid.T, f *future, epoch int64, want []int64) {
	n := f.Len(epoch)
	if n != int64(len(want)) {
		t.Fatalf("epoch %d has %d samples, want %d", epoch, n, len(want))
	}
	if got := f.At(epoch, 0, n, nil); !slices.Equal(got, want) {
		t.Fatalf("epoch %d: %v, want %v", epoch, got, want)
	}
	from := rapid.Int64Range(0, n).Draw(t, "from")
	count := rapid.Int64Range(0, n-from).Draw(t, "count")
	if got := f.At(epoch, from, count, []int64{-1}); !slices.Equal(got[1:], want[from:from+count]) {
		t.Fatalf("epoch %d, %d from %d: %v, want %v", epoch, count, from, got[1:], want[from:from+count])
	}
	places := map[int64]int64{}
	for i, sample := range want {
		places[sample] = int64(i)
	}
	for sample := range f.samples {
		got, ok := f.PositionOf(epoch, sample)
		at, is := places[sample]
		if f.share.Padded {
			is = false
		}
		if ok != is || ok && got != at {
			t.Fatalf("epoch %d: sample %d is at %d, %v, want %d, %v", epoch, sample, got, ok, at, is)
		}
	}
	for _, sample := range []int64{-1, f.samples} {
		if _, ok := f.PositionOf(epoch, sample); ok {
			t.Fatalf("sample %d has a place", sample)
		}
	}
}

// TestAFutureWithoutAnOrderIsEmptyUntilItComes has drawn orders, made one epoch after the
// other.
func TestAFutureWithoutAnOrderIsEmptyUntilItComes(t *testing.T) {
	tables := order.NewTables(1 << 20)
	spec := order.Spec{Kind: order.Torch, Seed: 1, Samples: 100}
	e, err := newEpochs(tables, spec, func() string { return "s-1" }, discardLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	share := order.Share{WorldSize: 3, Rank: 1, BatchSize: 4, Padded: true}
	f := newFuture(e, share, 100, place{})
	if n := f.Len(0); n != 0 || !f.short || f.longer() {
		t.Fatalf("%d samples of an order that nobody has", n)
	}
	var perms []order.Permutation
	for epoch := range int64(3) {
		p, err := e.at(t.Context(), epoch)
		if err != nil {
			t.Fatal(err)
		}
		perms = append(perms, p)
		if epoch == 0 && !f.longer() {
			t.Fatal("the order of the first epoch is not seen")
		}
		want, _, _ := readIn(share, p, 0)
		if got := f.At(epoch, 0, f.Len(epoch), nil); !slices.Equal(got, want) || len(want) != 34 {
			t.Fatalf("epoch %d: %v, want %v", epoch, got, want)
		}
		eventually(t, "the next epoch's order is made ahead", func() bool { return f.Len(epoch+1) == 34 })
	}
	// Production is in epoch 2: that of epoch 1 is kept until it is told to be over.
	if want, _, _ := readIn(share, perms[2], 0); !slices.Equal(f.At(2, 0, 34, nil), want) {
		t.Error("epoch 2 changed")
	}
	f.forget(3)
	if f.kept[0].is {
		t.Error("the order of an epoch that is over is kept")
	}
	if n := f.Len(1); n != 34 {
		t.Errorf("an epoch that is over has %d samples", n)
	}
	if got := f.At(1, 0, 34, nil); len(got) != 0 || !f.short || !f.longer() {
		t.Errorf("%d samples of an epoch whose order is gone; short %v", len(got), f.short)
	}
}
