package sim

import (
	"math"
	"testing"

	"github.com/stokerio/stoker/prefetch"
)

// figure plays what gives a figure with the production planner.
func figure[T any](t *testing.T, play func(Deciders) (T, error)) T {
	t.Helper()
	r, err := play(Planners(prefetch.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestJobsHaveALinkByTheirWeights(t *testing.T) {
	r := figure(t, func(d Deciders) (WeightsResult, error) { return Weights(1, d) })
	for i, rate := range r.Rates {
		near(t, "fair rate", r.FairRates[i], 160e6/7*float64(int(1)<<i), 1)
		near(t, "rate", rate, r.FairRates[i], 0.05*r.FairRates[i])
	}
	if r.Error > 0.05 {
		t.Errorf("%.4f off", r.Error)
	}
}

func TestWhatOfALinkIsReservedStaysFree(t *testing.T) {
	r := figure(t, func(d Deciders) (ReserveResult, error) { return Reserve(1, 0.25, d) })
	// A burst of a tenth of a second may begin at once, and latencies differ.
	if r.Used > 1.001 || r.Used < 0.99 || r.Peak > 1.05 {
		t.Errorf("the jobs have %.4f of what is theirs, and %.4f in a second", r.Used, r.Peak)
	}
}

func TestACacheOfNearlyAllStallsNobody(t *testing.T) {
	r := figure(t, func(d Deciders) (CacheResult, error) { return Cached(1, 0.99, d) })
	if math.Abs(r.HitRatio-0.99) > 0.01 || r.StallShare > 0.01 {
		t.Errorf("%+v", r)
	}
}

func TestChunksOfManySamplesAreReadAboutOnce(t *testing.T) {
	for kind, most := range map[OrderKind]float64{Permuted: 1.5, Windowed: 1.05} {
		r := figure(t, func(d Deciders) (ChunksResult, error) { return Chunks(1, kind, d) })
		if r.Amplification > most || r.Amplification < 0.99 || r.StallShare > 0.01 {
			t.Errorf("order %d: %+v", kind, r)
		}
	}
}

func TestRanksOfOneChunkASampleFitTheDefaultMemory(t *testing.T) {
	r := figure(t, func(d Deciders) (RanksResult, error) { return Ranks(1, 1, d) })
	if r.StallShare > 0.01 || r.MaxWindow > 1<<30 || r.Amplification > 1.01 {
		t.Errorf("%+v", r)
	}
}

func TestFiguresOfNonsenseAreRefused(t *testing.T) {
	d := FixedDepths(1)
	for name, play := range map[string]func() error{
		"reserve": func() error { _, err := Reserve(1, math.NaN(), d); return err },
		"cache":   func() error { _, err := Cached(1, 1.5, d); return err },
		"order":   func() error { _, err := Chunks(1, Windowed+1, d); return err },
		"ranks":   func() error { _, err := Ranks(1, 0, d); return err },
	} {
		if play() == nil {
			t.Errorf("%s: it was played", name)
		}
	}
}
