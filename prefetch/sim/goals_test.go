package sim

import (
	"math"
	"testing"
	"time"

	"github.com/stokerio/stoker/prefetch"
)

// What the production planner must reach in the worlds that `stoker bench prefetch` plays,
// made shorter here, as the race detector takes its time. The worlds are deterministic: a
// figure that changes was changed by the code.

func planned(t *testing.T, w *World, hedges float64) *Result {
	t.Helper()
	r, err := Run(w, Planners(prefetch.Options{WindowBytes: 1 << 34, HedgeShare: hedges}).Of(w))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestWindowsAreAsDeepAsTheTailAsks(t *testing.T) {
	// The least fixed depths that stall at most 0.01, in hindsight: LeastDepth finds them
	// with a dozen runs each.
	least := map[string]float64{"constant": 40, "lognormal-0.5": 167, "lognormal-1": 603, "mixture": 396}
	for _, law := range DepthLaws() {
		t.Run(law.Name, func(t *testing.T) {
			for _, test := range []struct {
				hedges float64
				cancel bool
			}{{0, false}, {0.01, false}, {0.01, true}} {
				w := DepthScenario(law.Law)
				w.Jobs[0].Streams[0].Limit, w.HedgeCancel = 12_000, test.cancel
				s := planned(t, w, test.hedges).Jobs[0].Streams[0]
				if s.StallShare() > 0.01 || s.WasteShare() > 0.02 || s.MeanDepth > 1.3*least[law.Name] {
					t.Errorf("%+v: stalled %.4f (want 0.01), wasted %.4f (want 0.02), depth %.0f (want 1.3 times %.0f)",
						test, s.StallShare(), s.WasteShare(), s.MeanDepth, least[law.Name])
				}
			}
		})
	}
}

func TestALinkIsDividedFairly(t *testing.T) {
	play := func(link float64) *Result {
		w := BudgetScenario(link)
		w.From, w.Until = seconds(6), seconds(18)
		for i := range w.Jobs {
			w.Jobs[i].Streams[0].WarmUp = int64(w.From.Sub(0) / w.Jobs[i].Streams[0].PerSample)
		}
		return planned(t, w, 0)
	}
	if stall := play(1.1).WorstStall(); stall > 0.01 {
		t.Errorf("a job stalls for %.4f of its time on a link that is wide enough, want at most 0.01", stall)
	}
	if r := play(0.8); r.Links[0].Unfairness > 0.05 {
		t.Errorf("a job's rate on a link that is too narrow is %.3f off what is fair, want at most 0.05", r.Links[0].Unfairness)
	}
}

func TestWhatIsKeptIsHit(t *testing.T) {
	w := shortKeep(1, 10_000, 0.5)
	epochs := planned(t, w, 0).Jobs[0].Streams[0].Epochs
	if hit := epochs[len(epochs)-1].HitRatio(); math.Abs(hit-0.5) > 0.01 {
		t.Errorf("a cache of half the dataset is hit %.4f of the time", hit)
	}
}

func TestASecondDatasetHasItsShareAfterAnEpoch(t *testing.T) {
	const samples = 5_000
	w := shortKeep(2, samples, 1)
	w.Jobs[1].Streams[0].Start = seconds(8)
	first := planned(t, w, 0).Jobs[1].Streams[0].Epochs[0]
	if share := float64(first.ResidentBytes) / float64(w.Nodes[0].CacheBytes/2); share < 0.99 {
		t.Errorf("it has %.4f of its share", share)
	}
}

// shortKeep is as many jobs, each with a dataset of its own, and a cache of the share c of
// one of them.
func shortKeep(jobs int, samples int64, c float64) *World {
	w := &World{Seed: 3, Links: []LinkSpec{{}}}
	w.Nodes = []NodeSpec{originNode(Lognormal{5 * time.Millisecond, 0.5}, 0, int64(c*float64(samples))*scenarioSample)}
	for i := range jobs {
		dataset := w.addDataset(LayoutSpec{Samples: samples, SampleBytes: scenarioSample, SamplesPerChunk: 1}, true)
		s := w.stream(dataset, uint64(i), time.Millisecond)
		s.Batch, s.Epochs = 32, 3
		w.Jobs = append(w.Jobs, JobSpec{Streams: []StreamSpec{s}})
	}
	return w
}
