package order

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"
)

// mustNew returns the order of a spec that a test knows to be valid.
func mustNew(t testing.TB, spec Spec) Order {
	t.Helper()
	o, err := New(spec)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// checkBijective fails unless p takes the positions onto the samples one to one and
// PositionOf undoes At.
func checkBijective(t testing.TB, p Permutation) {
	t.Helper()
	seen := make([]bool, p.Len())
	for i := range p.Len() {
		s := p.At(i)
		if s < 0 || s >= p.Len() || seen[s] {
			t.Fatalf("position %d of %d: sample %d is outside or was given before", i, p.Len(), s)
		}
		seen[s] = true
		if back := p.PositionOf(s); back != i {
			t.Fatalf("sample %d stands at %d, PositionOf says %d", s, i, back)
		}
	}
}

func TestEveryKindVisitsEachSampleOnce(t *testing.T) {
	for n := int64(1); n <= 300; n++ {
		for epoch := range int64(3) {
			checkBijective(t, mustNew(t, Spec{Kind: Global, Seed: 3, Samples: n}).Epoch(epoch))
			checkBijective(t, mustNew(t, Spec{Kind: Sequential, Samples: n}).Epoch(epoch))
		}
	}
	for n := int64(1); n <= 40; n++ {
		for w := int64(1); w <= n+2; w++ {
			checkBijective(t, mustNew(t, Spec{Kind: Windowed, Seed: uint64(n), Samples: n, Window: w}).Epoch(w))
		}
	}
	for _, n := range []int64{65535, 65536, 65537, 100003} {
		checkBijective(t, mustNew(t, Spec{Kind: Global, Seed: 1, Samples: n}).Epoch(0))
		checkBijective(t, mustNew(t, Spec{Kind: Windowed, Seed: 1, Samples: n, Window: 1000}).Epoch(0))
	}
}

func TestPositionOfUndoesAtForHugeDatasets(t *testing.T) {
	sizes := []int64{1e8, 1e12, 1<<40 + 1, math.MaxInt64}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.OneOf(rapid.SampledFrom(sizes), rapid.Int64Range(1, math.MaxInt64)).Draw(t, "samples")
		spec := Spec{
			Kind:    rapid.SampledFrom([]Kind{Global, Windowed, Sequential}).Draw(t, "kind"),
			Seed:    rapid.Uint64().Draw(t, "seed"),
			Samples: n,
			Window:  rapid.OneOf(rapid.Int64Range(1, n), rapid.Int64Range(1, min(n, 100000))).Draw(t, "window"),
		}
		o, err := New(spec)
		if err != nil {
			t.Fatal(err)
		}
		p := o.Epoch(rapid.Int64().Draw(t, "epoch"))
		positions := rapid.OneOf(rapid.Int64Range(0, n-1), rapid.Just(n-1), rapid.Int64Range(0, min(n-1, 70000)))
		for _, i := range rapid.SliceOfN(positions, 1, 20).Draw(t, "positions") {
			s := p.At(i)
			if s < 0 || s >= n {
				t.Fatalf("%+v: position %d: sample %d is outside", spec, i, s)
			}
			if back := p.PositionOf(s); back != i {
				t.Fatalf("%+v: position %d: sample %d, whose position is %d", spec, i, s, back)
			}
		}
	})
}

func TestWindowedStaysWithinAWindowForItsLength(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(1, 2000).Draw(t, "samples")
		w := rapid.Int64Range(1, 300).Draw(t, "window")
		o, err := New(Spec{Kind: Windowed, Seed: rapid.Uint64().Draw(t, "seed"), Samples: n, Window: w})
		if err != nil {
			t.Fatal(err)
		}
		p := o.Epoch(0)
		for i := int64(0); i < n; {
			window := p.At(i) / w
			size := min(w, n-window*w)
			for range size { // positions i.. hold exactly this window
				if got := p.At(i) / w; got != window {
					t.Fatalf("position %d: window %d, want all %d samples of window %d first", i, got, size, window)
				}
				i++
			}
		}
	})
}

func TestSequentialIsTheIdentity(t *testing.T) {
	p := mustNew(t, Spec{Kind: Sequential, Seed: 9, Samples: 1000}).Epoch(5)
	for i := range int64(1000) {
		if p.At(i) != i || p.PositionOf(i) != i {
			t.Fatalf("position %d: sample %d, back %d", i, p.At(i), p.PositionOf(i))
		}
	}
}

func TestNewRefusesWhatMakesNoOrder(t *testing.T) {
	for _, spec := range []Spec{
		{Kind: Global},
		{Kind: Global, Samples: -1},
		{Kind: Windowed, Samples: 10},
		{Kind: Windowed, Samples: 10, Window: -5},
		{Kind: "shuffled", Samples: 10},
		{Samples: 10},
	} {
		if o, err := New(spec); err == nil {
			t.Errorf("New(%+v) = %v, want an error", spec, o)
		}
	}
}

func TestPositionsOutsideTheEpochPanic(t *testing.T) {
	p := mustNew(t, Spec{Kind: Global, Samples: 10}).Epoch(0)
	for name, call := range map[string]func(){
		"At(-1)":          func() { p.At(-1) },
		"At(10)":          func() { p.At(10) },
		"PositionOf(-1)":  func() { p.PositionOf(-1) },
		"PositionOf(10)":  func() { p.PositionOf(10) },
		"Next(10, -1, …)": func() { Share{WorldSize: 1, BatchSize: 1}.Next(10, -1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s does not panic", name)
				}
			}()
			call()
		}()
	}
}

func TestPermutationsAllocateNothing(t *testing.T) {
	for _, kind := range []Kind{Global, Windowed, Sequential} {
		o := mustNew(t, Spec{Kind: kind, Seed: 7, Samples: 1e9 + 7, Window: 65536})
		sum, epoch := int64(0), int64(0)
		allocs := testing.AllocsPerRun(100, func() {
			epoch++
			p := o.Epoch(epoch)
			for i := range int64(64) {
				sum += p.PositionOf(p.At(i*1e6)) + p.At(i)
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations an epoch with 128 samples, want 0 (sum %d)", kind, allocs, sum)
		}
	}
}

func BenchmarkAt(b *testing.B) {
	for _, kind := range []Kind{Global, Windowed, Sequential} {
		for _, n := range []int64{1e4, 1e8, 1<<27 + 1} {
			b.Run(fmt.Sprintf("kind=%s/samples=%d", kind, n), func(b *testing.B) {
				p := mustNew(b, Spec{Kind: kind, Seed: 1, Samples: n, Window: DefaultWindow}).Epoch(0)
				sum, i := int64(0), int64(0)
				for b.Loop() {
					sum += p.At(i)
					if i++; i == n {
						i = 0
					}
				}
				_ = sum
			})
		}
	}
}
