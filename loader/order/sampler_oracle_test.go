package order

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/internal/pythonoracle"
)

// libraries is testdata/oracle.py, running.
type libraries struct{ *pythonoracle.Oracle }

// libraryRequest is a request of an epoch's order, or of a rank's batches of it.
type libraryRequest struct {
	Spec  Spec        `json:"spec"`
	Epoch int64       `json:"epoch"`
	Share *sharedCase `json:"share,omitempty"`
}

var seedingsOf = map[Kind][]Seeding{
	Torch: {SeedEachEpoch, SeedOnce, SeedLoader, SeedLoaderGenerator},
	Numpy: {SeedEachEpoch, SeedOnce, SeedInPlace},
}

func TestSamplersEqualTheLibraries(t *testing.T) {
	oracle := libraries{pythonoracle.Start(t, "testdata/oracle.py", "numpy", "torch")}
	t.Run("orders", oracle.checkOrders)
	t.Run("padded shares", oracle.checkPaddedShares)
	t.Run("large orders", oracle.checkLargeOrders)
}

func (l libraries) checkOrders(t *testing.T) {
	tables := NewTables(1 << 30)
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom([]Kind{Torch, Numpy}).Draw(t, "kind")
		request := libraryRequest{Epoch: rapid.Int64Range(0, 6).Draw(t, "epoch"), Spec: Spec{
			Kind:    kind,
			Seeding: rapid.SampledFrom(seedingsOf[kind]).Draw(t, "seeding"),
			Seed:    rapid.Uint64Range(0, 1<<32-8).Draw(t, "seed"),
			Samples: rapid.OneOf(rapid.Int64Range(1, 20), rapid.Int64Range(1, 4000)).Draw(t, "samples"),
		}}
		if kind == Torch {
			request.Spec.Seed = rapid.Uint64Range(0, 1<<64-8).Draw(t, "torch_seed")
		}
		table, err := tables.Acquire(t.Context(), request.Spec, request.Epoch)
		if err != nil {
			t.Fatal(err)
		}
		defer table.Release()
		var want []int64
		l.AskJSON(t, request, &want)
		if got := samplesOf(table.Permutation()); !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}

// checkPaddedShares compares them with a DataLoader over a DistributedSampler.
func (l libraries) checkPaddedShares(t *testing.T) {
	tables := NewTables(1 << 30)
	rapid.Check(t, func(t *rapid.T) {
		spec := Spec{
			Kind:    rapid.SampledFrom([]Kind{Torch, Sequential}).Draw(t, "kind"),
			Seed:    rapid.Uint64Range(0, 100).Draw(t, "seed"),
			Samples: rapid.OneOf(rapid.Int64Range(1, 20), rapid.Int64Range(1, 300)).Draw(t, "samples"),
		}
		epoch, world := rapid.Int64Range(0, 3).Draw(t, "epoch"), rapid.IntRange(1, 40).Draw(t, "world")
		c := sharedCase{
			Rank: rapid.IntRange(0, world-1).Draw(t, "rank"), WorldSize: world,
			BatchSize: rapid.IntRange(1, 40).Draw(t, "batch"), DropLast: rapid.Bool().Draw(t, "drop_last"),
		}
		p := Permutation{samples: spec.Samples}
		if spec.Kind == Torch {
			table, err := tables.Acquire(t.Context(), spec, epoch)
			if err != nil {
				t.Fatal(err)
			}
			defer table.Release()
			p = table.Permutation()
		}
		share := c.share()
		if err := share.Validate(spec.Samples); (err != nil) != (c.DropLast && spec.Samples < int64(world*c.BatchSize)) {
			t.Fatalf("%+v of %d samples: %v", share, spec.Samples, err)
		}
		var want [][]int64
		l.AskJSON(t, libraryRequest{Spec: spec, Epoch: epoch, Share: &c}, &want)
		got := batchesOf(p, share)
		if !slices.EqualFunc(got, want, slices.Equal[[]int64]) {
			t.Fatalf("%v, want %v", got, want)
		}
		if steps := share.Steps(spec.Samples, 0); steps != int64(len(want)) {
			t.Fatalf("%d steps, want %d", steps, len(want))
		}
	})
}

// A permutation of torchSmall samples takes torch 1.7 GB. So its random numbers are
// compared, and what torch does with them, on a table that is drawn as if it were large.
// (For 214,748,364 samples and seed 42, torch 2.13 begins 85514504 93417259 199404010.)
func (l libraries) checkLargeOrders(t *testing.T) {
	const n = 1000
	var longs []uint64
	l.AskJSON(t, map[string]uint64{"seed": 42, "longs": n}, &longs)
	want := make([]uint32, n)
	for i := range want {
		z := longs[i] % uint64(i+1)
		want[i], want[z] = want[z], uint32(i)
	}
	d := newDrawing(tableKey{kind: Torch, samples: n, seed: 42}, nil)
	d.table = make([]uint32, n)
	d.drawTorchWide(n)
	if !slices.Equal(d.table, want) {
		t.Error("not the permutation that torch makes of these numbers")
	}
}
