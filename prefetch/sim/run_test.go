package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/stokerio/stoker/prefetch"
	"pgregory.net/rapid"
)

// playFixed runs a world with the same fixed depth on all nodes.
func playFixed(t testing.TB, w *World, depth int64) *Result {
	t.Helper()
	r, err := Run(w, func(node int) Decider { return NewFixedDepth(depth, w.Nodes[node].CacheBytes) })
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// checkBytes fails unless every byte that was moved is accounted for.
func checkBytes(t testing.TB, r *Result) {
	t.Helper()
	var moved, kept int64 // streams without a future store what they read themselves
	for i := range r.Jobs {
		for k := range r.Jobs[i].Streams {
			s := &r.Jobs[i].Streams[k]
			moved += s.FetchedBytes + s.DemandBytes
			kept += s.KeptBytes
			if sum := s.WindowBytes + s.KeptBytes + s.GapBytes + s.UnusedBytes + s.HedgeLostBytes + s.HeldBytes; sum != s.FetchedBytes {
				t.Errorf("job %d, stream %d: %d bytes fetched, %d accounted for: %+v", i, k, s.FetchedBytes, sum, s.Usage)
			}
		}
	}
	var linked, stored int64
	for _, l := range r.Links {
		linked += l.Bytes
	}
	for _, n := range r.Nodes {
		stored += n.StoredBytes
		if n.StoredBytes != n.DroppedBytes+n.CacheBytes {
			t.Errorf("cache: %+v", n)
		}
	}
	if linked != moved || stored < kept {
		t.Errorf("links moved %d bytes, streams %d; caches stored %d, streams kept %d", linked, moved, stored, kept)
	}
}

// oneStream is a world with one stream of single samples.
func oneStream(law Law, samples int64, perSample time.Duration) *World {
	w := &World{Seed: 7, Links: []LinkSpec{{}}, Nodes: []NodeSpec{originNode(law, 0, 0)}}
	s := w.stream(w.addDataset(LayoutSpec{Samples: samples, SampleBytes: 1000, SamplesPerChunk: 1}, false), 1, perSample)
	s.Epochs = 1
	w.Jobs = []JobSpec{{Streams: []StreamSpec{s}}}
	return w
}

func TestConstantLatencyStallsAsCalculated(t *testing.T) {
	const tau, samples = time.Millisecond, 5000
	for _, latency := range []time.Duration{0, 500 * time.Microsecond, 10 * time.Millisecond, 40 * time.Millisecond} {
		for _, depth := range []int64{1, 2, 10, 39, 40, 41, 100} {
			w := oneStream(Constant(latency), samples, tau)
			w.Jobs[0].Streams[0].WarmUp = 1000
			r := playFixed(t, w, depth)
			// Depth samples are taken in each max(depth·tau, latency).
			round := max(time.Duration(depth)*tau, latency)
			want := 1 - float64(time.Duration(depth)*tau)/float64(round)
			near(t, "stall share", r.Jobs[0].StallShare(), want, 1e-3)
			checkBytes(t, r)
		}
	}
}

func TestWithoutPrefetchingEachSampleTakesItsLatency(t *testing.T) {
	w := oneStream(Constant(3*time.Millisecond), 1000, time.Millisecond)
	r, err := Run(w, func(int) Decider { return idle{NewFixedDepth(1, 0)} })
	if err != nil {
		t.Fatal(err)
	}
	j := &r.Jobs[0]
	if j.Missing != 1000 || j.Stall != 3*time.Second || j.Compute != time.Second || r.End != seconds(4) {
		t.Errorf("%+v, end %v", j.Usage, time.Duration(r.End))
	}
	if j.DemandBytes != 1000*1000 || j.FetchedBytes != 0 {
		t.Errorf("%d bytes on demand, %d fetched", j.DemandBytes, j.FetchedBytes)
	}
}

// idle is a Decider that never fetches.
type idle struct{ *Fixed }

func (idle) Next(prefetch.Time, *prefetch.Fetch) (bool, error) { return false, nil }

// recurrence is when the samples of one stream are taken that has depth samples ahead,
// by the law of its latencies: t(i) = max(t(i-1) + tau, t(i-depth) + L(i)).
func recurrence(law Law, random *rand.Rand, depth, samples int64, tau time.Duration) (stall time.Duration) {
	taken := make([]time.Duration, samples)
	for i := range taken {
		ready := law.Draw(random)
		if before := i - int(depth); before >= 0 {
			ready += taken[before]
		}
		asked := time.Duration(0)
		if i > 0 {
			asked = taken[i-1] + tau
		}
		taken[i] = max(asked, ready)
		stall += taken[i] - asked
	}
	return stall
}

func TestRunsEqualTheRecurrence(t *testing.T) {
	const samples, tau = 4000, time.Millisecond
	for _, law := range DepthLaws() {
		for _, depth := range []int64{1, 40, 160, 400} {
			w := oneStream(law.Law, samples, tau)
			got := playFixed(t, w, depth).Jobs[0].Stall
			random := newNode(w, 0, nil, nil).random[prefetch.Origin]
			if want := recurrence(law.Law, random, depth, samples, tau); got != want {
				t.Errorf("%s, depth %d: stalls %v, want %v", law.Name, depth, got, want)
			}
		}
	}
}

// The figures are of the recurrence, which runs equal: with a long tail it takes a
// million samples until they are good to 0.01.
func TestFixedDepthsStallAsTheTableSays(t *testing.T) {
	const samples, tau = 1_000_000, time.Millisecond
	depths := []int64{40, 80, 120, 160, 240, 400}
	table := map[string][]float64{
		"constant":      {.001, .001, .001, .001, .001, .001},
		"lognormal-0.5": {.548, .251, .078, .015, .004, .001},
		"lognormal-1":   {.745, .613, .470, .368, .226, .067},
		"mixture":       {.720, .628, .569, .474, .322, .006},
	}
	for _, law := range DepthLaws() {
		for i, depth := range depths {
			stall := recurrence(law.Law, rand.New(rand.NewPCG(1, 2)), depth, samples, tau)
			want := table[law.Name][i]
			near(t, fmt.Sprintf("%s, depth %d", law.Name, depth), float64(stall)/float64(stall+samples*tau), want, max(0.01, 0.05*want))
		}
	}
}

func TestWindowsHoldAsManySamplesAsTheirDepth(t *testing.T) {
	s := &playFixed(t, DepthScenario(Constant(40*time.Millisecond)), 100).Jobs[0].Streams[0]
	if s.MaxDepth != 100 || s.MaxWindow != 100*scenarioSample {
		t.Errorf("at most %d samples, %d bytes", s.MaxDepth, s.MaxWindow)
	}
	near(t, "mean depth", s.MeanDepth, 100, 0.2)
	near(t, "mean window", s.MeanWindow, 100*scenarioSample, 0.2*scenarioSample)
	if s.FetchedBytes != s.WindowBytes || s.Samples != 3*33_333 || s.WasteShare() != 0 {
		t.Errorf("%+v", s.Usage)
	}
}

func TestLeastDepthIsTheLeast(t *testing.T) {
	w := oneStream(Constant(40*time.Millisecond), 3000, time.Millisecond)
	w.Jobs[0].Streams[0].WarmUp = 500
	depth, r, ok, err := LeastDepth(w, 0.01, 1000)
	if err != nil || !ok || depth != 40 || r.WorstStall() > 0.01 {
		t.Errorf("depth %d, %v, %v", depth, ok, err)
	}
	if depth, _, ok, err = LeastDepth(w, 0.01, 20); err != nil || ok || depth != 20 {
		t.Errorf("with 20 at most: depth %d, %v, %v", depth, ok, err)
	}
}

func TestMeanDepthIsTheMeanLatency(t *testing.T) {
	w := oneStream(Constant(40*time.Millisecond), 20_000, time.Millisecond)
	w.Jobs[0].Streams[0].WarmUp = 5000
	r, err := Run(w, func(int) Decider { return NewMeanDepth(0) })
	if err != nil {
		t.Fatal(err)
	}
	near(t, "mean depth", r.Jobs[0].Streams[0].MeanDepth, 40, 1.01)
}

func TestLongerRunsAllocateNoMore(t *testing.T) {
	allocations := func(samples int64) float64 {
		w := oneStream(Lognormal{10 * time.Millisecond, 1}, 50_000, time.Millisecond)
		w.Jobs[0].Streams[0].Limit = samples
		return testing.AllocsPerRun(1, func() { playFixed(t, w, 50) })
	}
	if short, long := allocations(2_000), allocations(40_000); long > short+20 {
		t.Errorf("%v allocations for 2,000 samples, %v for 40,000", short, long)
	}
}

// anyWorld draws a small world with a bit of everything.
func anyWorld(t *rapid.T) *World {
	w := &World{Seed: rapid.Uint64().Draw(t, "seed"), Tick: 10 * time.Millisecond}
	law := rapid.SampledFrom([]Law{
		Constant(time.Millisecond), Exponential(3 * time.Millisecond), Lognormal{2 * time.Millisecond, 1},
		Mixture{time.Millisecond, 50 * time.Millisecond, .05}, Measured{0, time.Millisecond, 9 * time.Millisecond},
	}).Draw(t, "law")
	w.Links = []LinkSpec{{
		BytesPerSecond:        rapid.SampledFrom([]float64{0, 1e6, 1e7}).Draw(t, "link"),
		RequestBytesPerSecond: rapid.SampledFrom([]float64{0, 5e5}).Draw(t, "request"),
		FIFO:                  rapid.Bool().Draw(t, "fifo"),
	}}
	spec := LayoutSpec{
		Samples: 300, SampleBytes: 1000, Spread: rapid.SampledFrom([]float64{0, .5}).Draw(t, "spread"),
		SamplesPerChunk: rapid.Int64Range(0, 7).Draw(t, "a chunk"), ChunkBytes: 2500,
	}
	for range rapid.IntRange(1, 3).Draw(t, "nodes") {
		n := originNode(law, 0, rapid.SampledFrom([]int64{0, 50_000, 1 << 30}).Draw(t, "cache"))
		n.Sources[prefetch.Origin].FailShare = rapid.SampledFrom([]float64{0, .1}).Draw(t, "fails")
		n.Losses = rapid.SampledFrom([]time.Duration{0, 2 * time.Millisecond}).Draw(t, "losses")
		w.Nodes = append(w.Nodes, n)
	}
	for range rapid.IntRange(1, 2).Draw(t, "datasets") {
		w.addDataset(spec, rapid.Bool().Draw(t, "keep"))
	}
	for range rapid.IntRange(1, 3).Draw(t, "jobs") {
		w.Jobs = append(w.Jobs, anyJob(t, w, rapid.IntRange(0, len(w.Datasets)-1).Draw(t, "dataset")))
	}
	w.HedgeCancel = rapid.Bool().Draw(t, "cancel")
	if rapid.Bool().Draw(t, "until") {
		w.Until = prefetch.Time(200 * time.Millisecond)
	}
	return w
}

func anyJob(t *rapid.T, w *World, dataset int) (j JobSpec) {
	j.Weight = rapid.SampledFrom([]float64{0, 4}).Draw(t, "weight")
	ranks := rapid.Int64Range(1, 3).Draw(t, "ranks")
	seed := rapid.Uint64().Draw(t, "order")
	kind := OrderKind(rapid.IntRange(0, 2).Draw(t, "kind"))
	batch := rapid.Int64Range(1, 9).Draw(t, "batch")
	for rank := range ranks {
		s := w.stream(dataset, 0, time.Millisecond)
		s.Order = must(NewOrder(OrderSpec{Kind: kind, Seed: seed, Samples: 300, Window: 40, Rank: rank, Ranks: ranks, Batch: batch}))
		s.Node, s.Batch, s.Epochs = rapid.IntRange(0, len(w.Nodes)-1).Draw(t, "node"), batch, 2
		s.Limit = rapid.SampledFrom([]int64{0, 100}).Draw(t, "limit")
		s.Jitter = rapid.SampledFrom([]float64{0, .5}).Draw(t, "jitter")
		s.Start = prefetch.Time(rapid.IntRange(0, 1e8).Draw(t, "start"))
		s.Blind = rapid.Bool().Draw(t, "blind")
		s.Phases = []Phase{{At: 5e7, PerSample: 2 * time.Millisecond}, {At: 1e8, Pause: 20 * time.Millisecond}}
		for after := range rapid.Int64Range(0, 3).Draw(t, "seeks") {
			s.Seeks = append(s.Seeks, Seek{
				After: after * rapid.Int64Range(0, 60).Draw(t, "after"), Epoch: rapid.Int64Range(0, 2).Draw(t, "to epoch"),
				Place: rapid.Int64Range(0, s.Order.Len(0)-1).Draw(t, "to place"),
			})
		}
		j.Streams = append(j.Streams, s)
	}
	return j
}

func TestEqualWorldsGiveEqualResultsAndLoseNoByte(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := anyWorld(rt)
		depth := rapid.Int64Range(1, 50).Draw(rt, "depth")
		decide := FixedDepths(depth).Of(w)
		first, oracle, err := runWatched(w, decide)
		if err != nil {
			rt.Fatal(err)
		}
		if err := oracle.check(w, first); err != nil {
			rt.Fatal(err)
		}
		second := playFixed(t, w, depth)
		if !reflect.DeepEqual(first, second) {
			rt.Fatalf("%+v\n%+v", first, second)
		}
		for i := range first.Jobs {
			j := &first.Jobs[i]
			for k := range j.Streams {
				s, spec := &j.Streams[k], &w.Jobs[i].Streams[k]
				if w.Until == 0 && spec.Limit == 0 && len(spec.Seeks) == 0 && s.Samples != 2*spec.Order.Len(0) {
					rt.Fatalf("job %d, stream %d took %d samples", i, k, s.Samples)
				}
			}
		}
		if checkBytes(t, first); t.Failed() {
			rt.FailNow()
		}
	})
}

func TestKeepScenarioHitsWhatTheCacheHolds(t *testing.T) {
	for _, c := range []float64{.25, .9} {
		r := playFixed(t, KeepScenario(c), 64)
		checkBytes(t, r)
		for _, epoch := range r.Jobs[0].Streams[0].Epochs[1:] {
			near(t, "hit ratio", epoch.HitRatio(), c, 0.001)
		}
	}
}

func TestJobsOnANarrowLinkShareIt(t *testing.T) {
	for _, factor := range []float64{1.1, 0.8} {
		r := playFixed(t, BudgetScenario(factor), 160)
		checkBytes(t, r)
		var sum float64
		for i := range r.Jobs {
			sum += r.Jobs[i].FairRate
			near(t, "demand", r.Jobs[i].Demand, 100e6/float64(int(1)<<i), 1)
			t.Logf("link %v, job %d: rate %.2f MB/s of %.2f, stall %.3f", factor, i, r.Jobs[i].Rate/1e6, r.Jobs[i].FairRate/1e6, r.Jobs[i].StallShare())
		}
		near(t, "sum of fair rates", sum, min(1, factor)*187.5e6, 1)
		if factor > 1 && (r.WorstStall() > 0.05 || r.Links[0].Unfairness > 0.05) {
			t.Errorf("with room for all: stall %.3f, unfairness %.3f", r.WorstStall(), r.Links[0].Unfairness)
		}
		if factor < 1 && r.WorstStall() < 0.1 {
			t.Errorf("without room for all: stall %.3f", r.WorstStall())
		}
	}
}

func TestNodesShareTheOriginsLink(t *testing.T) {
	r := playFixed(t, ClusterScenario(4, 0.5), 160)
	checkBytes(t, r)
	for i, s := range r.Jobs[0].Streams {
		if s.Samples != 3*(40_000/(4*32)*32) {
			t.Errorf("rank %d took %d samples", i, s.Samples)
		}
		// A quarter comes from the cache after the first epoch; the link has room for half.
		if got := s.StallShare(); got < 0.25 || got > 0.55 {
			t.Errorf("rank %d: stall share %.3f", i, got)
		}
	}
}

func TestSecondDatasetFindsACacheThatIsFull(t *testing.T) {
	w := SecondDatasetScenario()
	r := playFixed(t, w, 64)
	checkBytes(t, r)
	first, second := r.Jobs[0].Streams[0], r.Jobs[1].Streams[0]
	if got := first.Epochs[1].ResidentBytes; got != w.Nodes[0].CacheBytes {
		t.Errorf("the first dataset holds %d bytes of %d", got, w.Nodes[0].CacheBytes)
	}
	if got := second.Epochs[0].ResidentBytes; got != 0 {
		t.Errorf("what is never evicted made room for %d bytes", got)
	}
	if begin := second.Begin; begin <= first.Epochs[1].End || begin >= first.Epochs[2].End {
		t.Errorf("the second job began at %v", time.Duration(begin))
	}
}

func TestPhasesChangeTheRate(t *testing.T) {
	w := oneStream(Constant(0), 1000, time.Millisecond)
	w.Jobs[0].Streams[0].Phases = []Phase{
		{At: prefetch.Time(100 * time.Millisecond), PerSample: 2 * time.Millisecond},
		{At: prefetch.Time(500 * time.Millisecond), Pause: time.Second},
	}
	r := playFixed(t, w, 10)
	j := &r.Jobs[0]
	// 100 samples of 1 ms, 900 of 2 ms, and the pause, which is neither stall nor compute.
	if end := r.End.Sub(0); j.Stall != 0 || j.Compute != 1900*time.Millisecond || end != j.Compute+time.Second {
		t.Errorf("stall %v, compute %v, end %v", j.Stall, j.Compute, end)
	}
}

func TestSeeksGoOnElsewhere(t *testing.T) {
	for name, decide := range map[string]Deciders{"fixed": FixedDepths(20), "planner": Planners(prefetch.Options{})} {
		w := oneStream(Constant(10*time.Millisecond), 1000, time.Millisecond)
		w.Jobs[0].Streams[0].Seeks = []Seek{{After: 300, Place: 800}, {After: 400, Place: 0}}
		r, oracle, err := runWatched(w, decide.Of(w))
		if err != nil {
			t.Fatal(err)
		}
		checkBytes(t, r)
		if err := oracle.check(w, r); err != nil {
			t.Error(err)
		}
		// 300 samples, 100 from the 800th on, and then all of them; what was ahead is waste.
		if s := &r.Jobs[0]; s.Samples != 1400 || s.UnusedBytes < 10_000 || s.Stall < 30*time.Millisecond {
			t.Errorf("%s: %+v", name, s.Usage)
		}
	}
}

func TestChunksThatTheCacheLosesAreFetchedAgain(t *testing.T) {
	for name, decide := range map[string]Deciders{"fixed": FixedDepths(20), "planner": Planners(prefetch.Options{})} {
		w := oneStream(Constant(5*time.Millisecond), 1000, time.Millisecond)
		w.Datasets[0].Keep, w.Nodes[0].CacheBytes, w.Nodes[0].Losses = true, 1<<20, 10*time.Millisecond
		w.Jobs[0].Streams[0].Epochs = 3
		r, oracle, err := runWatched(w, decide.Of(w))
		if err != nil {
			t.Fatal(err)
		}
		checkBytes(t, r)
		if err := oracle.check(w, r); err != nil {
			t.Error(err)
		}
		n, s := &r.Nodes[0], &r.Jobs[0]
		near(t, name+": bytes lost", float64(n.LostBytes), 300*1000, 60*1000) // in three seconds
		if n.StoredBytes != n.CacheBytes+n.LostBytes || s.Samples != 3000 || s.Hits < 1500 {
			t.Errorf("%s: %+v, %+v", name, *n, s.Usage)
		}
	}
}

func TestWorldsThatCannotBePlayedAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(w *World){
		"node":     func(w *World) { w.Jobs[0].Streams[0].Node = 1 },
		"dataset":  func(w *World) { w.Jobs[0].Streams[0].Dataset = -1 },
		"source":   func(w *World) { w.Jobs[0].Streams[0].Source = prefetch.Peer },
		"order":    func(w *World) { w.Jobs[0].Streams[0].Order = nil },
		"endless":  func(w *World) { w.Jobs[0].Streams[0].Epochs = 0 },
		"place":    func(w *World) { w.Jobs[0].Streams[0].Place = 1 << 40 },
		"link":     func(w *World) { w.Nodes[0].Sources[prefetch.Origin].Link = 2 },
		"rate":     func(w *World) { w.Links[0].BytesPerSecond = math.NaN() },
		"always":   func(w *World) { w.Nodes[0].Sources[prefetch.Origin].FailShare = 1 },
		"negative": func(w *World) { w.Jobs[0].Streams[0].PerSample = -1 },
		"layout":   func(w *World) { w.Datasets[0].Layout = nil },
		"losses":   func(w *World) { w.Nodes[0].Losses = -1 },
		"seek":     func(w *World) { w.Jobs[0].Streams[0].Seeks = []Seek{{Place: 10}} },
	} {
		w := oneStream(Constant(0), 10, time.Millisecond)
		spoil(w)
		if _, err := Run(w, func(int) Decider { return NewFixedDepth(1, 0) }); err == nil {
			t.Errorf("%s: it was played", name)
		}
	}
}
