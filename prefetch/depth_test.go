package prefetch

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// depthAt returns a depth whose consumer takes tau a sample.
func depthAt(tau time.Duration, o DepthOptions) *Depth {
	d := NewDepth(o)
	for i := range Time(2) {
		d.Consumed(i*Time(tau), 1, 0)
	}
	return d
}

// trueDepth is the least D with E[(L-D)+] <= epsilon, in the law's own unit.
func (l latencyLaw) trueDepth(epsilon float64) int64 {
	d := int64(1)
	for l.excess(float64(d)) > epsilon {
		d++
	}
	return d
}

// learnt is a histogram of n draws, in milliseconds.
func (l latencyLaw) learnt(n int) *Histogram {
	h, r := new(Histogram), rand.New(rand.NewPCG(3, 4))
	for range n {
		h.Add(inMilliseconds(l.draw(r)))
	}
	return h
}

func TestTheDepthLearntIsTheDepthOfTheTrueLaw(t *testing.T) {
	for _, law := range latencyLaws() {
		h := law.learnt(1 << 20)
		for _, epsilon := range []float64{.005, .05, .5} {
			d := depthAt(time.Millisecond, DepthOptions{Epsilon: epsilon, Batch: 1})
			want := law.trueDepth(epsilon)
			got := d.Set(0, h, 1, 0) - 1 // the batch
			if math.Abs(float64(got-want)) > .05*float64(want) {
				t.Errorf("%s: depth %d for epsilon %v, of the true law %d", law.name, got, epsilon, want)
			}
		}
	}
}

// The stall shares that a simulation found for a fixed depth, at 1 ms a sample
// (reference, 1.6): e/(1+e) with e = E[(L-D tau)+]/tau bounds them.
func TestTheExcessBoundsTheStallOfAFixedDepth(t *testing.T) {
	depths := []float64{40, 80, 120, 160, 240, 400}
	stalls := [][]float64{ // of latencyLaws
		{.001, .001, .001, .001, .001, .001},
		{.548, .251, .078, .015, .004, .001},
		{.745, .613, .470, .368, .226, .067},
		{.720, .628, .569, .474, .322, .006},
	}
	const noise = .006 // of the simulation
	for i, law := range latencyLaws() {
		h := law.learnt(1 << 20)
		for j, depth := range depths {
			e := float64(h.Excess(inMilliseconds(depth))) / 1e6
			if bound := e / (1 + e); bound < stalls[i][j]-noise {
				t.Errorf("%s at depth %v: bound %.4f, simulated %v", law.name, depth, bound, stalls[i][j])
			}
			if exact := law.excess(depth); math.Abs(e-exact) > .05*exact+.003 {
				t.Errorf("%s at depth %v: excess %.4f, exactly %.4f", law.name, depth, e, exact)
			}
		}
	}
	for depth, want := range map[float64]float64{120: .098, 160: .021} {
		e := lognormal(40, .5).excess(depth)
		if bound := e / (1 + e); math.Abs(bound-want) > .004 {
			t.Errorf("bound %.4f at depth %v, want %v", bound, depth, want)
		}
	}
}

func TestTheDepthIsTheLeastThatTheSamplesAllow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		durations := histogramDurations(t)
		tau := time.Duration(math.Pow(10, rapid.Float64Range(3, 9).Draw(t, "tau")))
		missing := rapid.SampledFrom([]float64{1, .5, .01}).Draw(t, "missing")
		epsilon := rapid.SampledFrom([]float64{.001, .005, .1}).Draw(t, "epsilon")
		batch := rapid.Int64Range(1, 300).Draw(t, "batch")
		hedge := time.Duration(0)
		if rapid.Bool().Draw(t, "hedged") {
			hedge = 1 + rapid.SampledFrom(durations).Draw(t, "after")
		}
		got := depthAt(tau, DepthOptions{Epsilon: epsilon, Batch: batch}).Set(0, histogramOf(durations), missing, hedge)

		// The samples' own answer, with all latencies 3 % shorter and 3 % longer.
		enough := func(depth int64, factor float64) bool {
			scaled := make([]time.Duration, len(durations))
			for i, d := range durations {
				scaled[i] = time.Duration(float64(d) * factor)
			}
			lead := time.Duration(min(float64(depth-batch)*float64(tau), 1<<60))
			excess := bruteExcess(scaled, lead)
			if hedge > 0 {
				excess = bruteHedged(scaled, lead, time.Duration(float64(hedge)*factor))
			}
			return missing*excess <= epsilon*float64(tau)+1 && missing*bruteExcess(scaled, 0) <= float64(lead)+1
		}
		if !enough(got+1, 1-histogramWidth) {
			t.Fatalf("depth %d is too little", got)
		}
		if got-2 >= batch && enough(got-2, 1+histogramWidth) {
			t.Fatalf("depth %d is more than is needed", got)
		}
	})
}

func TestWithoutKnowledgeTheDepthIsTwoBatches(t *testing.T) {
	h := histogramOf([]time.Duration{time.Second})
	known := depthAt(time.Millisecond, DepthOptions{Batch: 32})
	for name, got := range map[string]int64{
		"new":          NewDepth(DepthOptions{Batch: 32}).value,
		"no consumer":  NewDepth(DepthOptions{Batch: 32}).Set(0, h, 1, 0),
		"no histogram": known.Set(0, nil, 1, 0),
		"an empty one": known.Set(0, new(Histogram), 1, 0),
	} {
		if got != 64 {
			t.Errorf("%s: depth %d, want 64", name, got)
		}
	}
	if got := known.Set(0, h, 1, 0); got != 1000+32 {
		t.Errorf("depth %d, want 1,032", got)
	}
	known.Used(0, false)
	for _, missing := range []float64{0, -1, math.Inf(-1)} {
		if got := known.Set(0, h, missing, 0); got != 0 || known.value != 0 {
			t.Errorf("depth %d with %v missing, want Min", got, missing)
		}
	}
	for _, missing := range []float64{math.NaN(), math.Inf(1), 7} {
		if got := known.Set(0, h, missing, 0); got != 1000+32 {
			t.Errorf("depth %d with %v missing, want 1,032", got, missing)
		}
	}
}

// windows lets a consumer of 1 ms a sample take n windows, each used as use says.
func (d *Depth) windows(now *Time, h *Histogram, n int, use func()) {
	for range n {
		for range d.value {
			*now = now.Add(time.Millisecond)
			d.Consumed(*now, 1, 0)
			use()
		}
		d.Set(*now, h, 1, 0)
	}
}

func TestALateSampleMakesTheWindowDeeperForAWhile(t *testing.T) {
	h := histogramOf([]time.Duration{200 * time.Millisecond})
	onTime := func() {}
	for _, jump := range []Time{0, -1e15, 1e15} {
		d, now := depthAt(time.Millisecond, DepthOptions{Batch: 1}), Time(2e6)
		base := d.Set(now, h, 1, 0)
		d.windows(&now, h, 3, onTime)
		if base != 201 || d.value != base {
			t.Fatalf("depth %d, then %d, want 201", base, d.value)
		}
		d.Used(0, false)
		d.Used(0, false)
		if got := d.Set(now, h, 1, 0); got != 252 {
			t.Errorf("depth %d after a late sample, want 252", got)
		}
		d.Used(0, false)
		if got := d.Set(now.Add(250*time.Millisecond), h, 1, 0); got != 252 {
			t.Errorf("depth %d after another within a window, want 252", got)
		}
		now += jump
		d.windows(&now, h, 2, onTime)
		d.Used(0, false)
		deeper := d.value
		if got := d.Set(now, h, 1, 0); got != deeper+(deeper+3)/4 {
			t.Errorf("depth %d after another in a later window, want a quarter more than %d", got, deeper)
		}
		top := d.value
		d.windows(&now, h, 8, onTime)
		if got, want := d.value, (base+top)/2; got < want-3 || got > want+3 {
			t.Errorf("depth %d after 8 windows, want %d", got, want)
		}
		d.windows(&now, h, 80, onTime)
		if d.value != base {
			t.Errorf("depth %d in the end, want %d", d.value, base)
		}
	}
}

func TestALateSampleMakesASmallWindowOneDeeper(t *testing.T) {
	h := histogramOf([]time.Duration{500 * time.Microsecond})
	d := depthAt(time.Millisecond, DepthOptions{Batch: 1})
	if base := d.Set(0, h, 1, 0); base != 2 {
		t.Fatalf("depth %d, want 2", base)
	}
	d.Used(0, false)
	if got := d.Set(0, h, 1, 0); got != 3 {
		t.Errorf("depth %d, want 3", got)
	}
}

func TestALatencyThatIsLearntTakesOverFromTheCorrection(t *testing.T) {
	h := histogramOf([]time.Duration{200 * time.Millisecond})
	d := depthAt(time.Millisecond, DepthOptions{Batch: 1})
	d.Set(0, h, 1, 0)
	d.Used(0, false)
	d.Set(0, h, 1, 0)
	for range 1000 {
		h.Add(300 * time.Millisecond)
	}
	if got := d.Set(0, h, 1, 0); got != 301 {
		t.Errorf("depth %d, want 301: no more than the tail asks for", got)
	}
}

func TestSamplesDroppedUnusedHalveTheWindowForAWhile(t *testing.T) {
	h := histogramOf([]time.Duration{200 * time.Millisecond})
	d, now := depthAt(time.Millisecond, DepthOptions{Batch: 1}), Time(2e6)
	d.Set(now, h, 1, 0)
	d.Unused(0)
	d.Unused(-5)
	if got := d.Set(now, h, 1, 0); got != 201 {
		t.Errorf("depth %d though nothing was unused", got)
	}
	d.Unused(1)
	d.Unused(3)
	d.Used(0, false)
	if got := d.Set(now, h, 1, 0); got != 100 {
		t.Errorf("depth %d, want 100", got)
	}
	d.Unused(1)
	if got := d.Set(now.Add(time.Millisecond), h, 1, 0); got != 100 {
		t.Errorf("depth %d at once after, want 100", got)
	}
	d.windows(&now, h, 8, func() {})
	if got := d.value; got < 148 || got > 153 {
		t.Errorf("depth %d after 8 windows, want half of the way back", got)
	}
	d.windows(&now, h, 80, func() {})
	if got := d.value; got != 201 {
		t.Errorf("depth %d in the end, want 201", got)
	}
}

func TestSamplesThatLieReadyForLongEndACorrectionSooner(t *testing.T) {
	h := histogramOf([]time.Duration{20 * time.Millisecond})
	depths := map[bool]int{}
	for _, early := range []bool{false, true} {
		d, now := depthAt(time.Millisecond, DepthOptions{Batch: 1}), Time(2e6)
		base := d.Set(now, h, 1, 0)
		d.Used(0, false)
		d.Set(now, h, 1, 0)
		for d.value > base {
			d.windows(&now, h, 1, func() {
				if early {
					d.Used(time.Duration(d.value)*time.Millisecond, true)
				} else {
					d.Used(time.Millisecond, true)
				}
			})
			depths[early]++
		}
		d.windows(&now, h, 10, func() { d.Used(time.Hour, true) })
		if d.value != base {
			t.Errorf("depth %d of samples that lie ready for long, want %d: not below the tail", d.value, base)
		}
	}
	if depths[true]+3 > depths[false] {
		t.Errorf("back after %d windows if early, %d else", depths[true], depths[false])
	}
}

// depthLoop lets one consumer of 1 ms a sample take samples in turn, by the batch, while
// the window fetches ahead, each sample by itself. It returns the share of the second
// half of the time that the consumer waited, and the mean depth then.
func depthLoop(law latencyLaw, samples, batch int, seed uint64) (stall, depth float64) {
	r, l := rand.New(rand.NewPCG(seed, 5)), new(Latencies)
	d := NewDepth(DepthOptions{Batch: int64(batch), Max: 5000})
	ready := make([]float64, 0, samples+5000) // ms
	took := make([]float64, 0, samples+5000)
	now, waited, begun, sets := 0., 0., 0., 0.
	for taken := 0; taken < samples; taken += batch {
		for len(ready) < taken+max(int(d.value), batch) {
			took = append(took, law.draw(r))
			ready = append(ready, now+took[len(took)-1])
		}
		if taken > 0 {
			now += float64(batch)
		}
		wait := 0.
		for i := taken; i < taken+batch; i++ {
			wait = max(wait, ready[i]-now)
			d.Used(inMilliseconds(max(now-ready[i], 0)), ready[i] <= now)
			l.Observe(Origin, 1, inMilliseconds(took[i]))
		}
		now += wait
		d.Consumed(Time(inMilliseconds(now)), int64(batch), inMilliseconds(wait))
		d.Set(Time(inMilliseconds(now)), l.For(Origin, 1), 1, 0)
		switch {
		case taken < samples/2:
			begun = now
		default:
			waited, depth, sets = waited+wait, depth+float64(d.value), sets+1
		}
	}
	return waited / (now - begun), depth / sets
}

func TestTheWindowHoldsTheStallAtEpsilonAndIsNoDeeperThanTheTailAsks(t *testing.T) {
	for _, law := range latencyLaws() {
		for _, batch := range []int{1, 32} {
			stall, depth := 0., 0.
			const seeds = 3
			for seed := range uint64(seeds) {
				s, d := depthLoop(law, 80_000, batch, seed)
				stall, depth = stall+s/seeds, depth+d/seeds
			}
			least := float64(law.trueDepth(depthEpsilon))
			t.Logf("%s by %d: stall %.4f, depth %.0f, of the true law %.0f", law.name, batch, stall, depth, least)
			if stall > .01 {
				t.Errorf("%s by %d: stall share %.4f", law.name, batch, stall)
			}
			if depth > 1.3*least+2*float64(batch) {
				t.Errorf("%s by %d: mean depth %.0f, of the true law %.0f", law.name, batch, depth, least)
			}
		}
	}
}

// paceAfter is the time a sample takes, learnt from intervals between takes of one
// sample, each without a wait.
func paceAfter(intervals ...time.Duration) time.Duration {
	d, now := NewDepth(DepthOptions{}), Time(0)
	d.Consumed(now, 1, 0)
	for _, i := range intervals {
		now = now.Add(i)
		d.Consumed(now, 1, 0)
	}
	return d.Tau()
}

// times repeats intervals.
func times(n int, intervals ...time.Duration) (all []time.Duration) {
	for range n {
		all = append(all, intervals...)
	}
	return all
}

func TestTauIsTheTimeOfASampleWithoutWaitsPausesAndSlowFirstSteps(t *testing.T) {
	const ms = time.Millisecond
	join := func(parts ...[]time.Duration) (all []time.Duration) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	for _, c := range []struct {
		name      string
		intervals []time.Duration
		low, high time.Duration
	}{
		{"nothing known", nil, 0, 0},
		{"a steady pace", times(100, ms), ms, ms},
		{"an uneven pace", times(100, ms/2, 3*ms/2), 9 * ms / 10, 11 * ms / 10},
		{"fours at once", times(100, 0, 0, 0, 4*ms), 8 * ms / 10, 13 * ms / 10},
		{"sixteens at once", times(100, append(times(15, time.Microsecond), 16*ms)...), ms / 2, 2 * ms},
		{"a slow first step", join(times(1, 30*time.Second), times(4, ms)), ms, ms},
		{"two slow first steps", join(times(2, 30*time.Second), times(4, ms)), ms, ms},
		{"a fast start", join(times(4, ms/1000), times(30, ms)), 8 * ms / 10, 12 * ms / 10},
		{"a pause", join(times(100, ms), times(1, time.Hour)), ms, 13 * ms / 10},
		{"a pause some time ago", join(times(100, ms), times(1, time.Hour), times(40, ms)), ms, 102 * ms / 100},
		{"a slower pace", join(times(100, ms), times(60, 10*ms)), 95 * ms / 10, 101 * ms / 10},
		{"a faster pace", join(times(100, 10*ms), times(100, ms)), ms, 105 * ms / 100},
		{"a clock that went back", join(times(100, ms), times(1, -time.Hour), times(5, ms)), ms, ms},
		{"no time at all", times(100, 0), 1, 1},
	} {
		if got := paceAfter(c.intervals...); got < c.low || got > c.high {
			t.Errorf("%s: tau %v, want %v to %v", c.name, got, c.low, c.high)
		}
	}
}

func TestTauCountsTheSamplesTakenBeforeAndNotTheWait(t *testing.T) {
	d := NewDepth(DepthOptions{})
	d.Consumed(0, 32, time.Hour)
	d.Consumed(Time(50*time.Millisecond), 7, 18*time.Millisecond)
	d.Consumed(Time(51*time.Millisecond), 0, 0)
	d.Consumed(Time(60*time.Millisecond), 32, 3*time.Millisecond)
	if got := d.Tau(); got != time.Millisecond {
		t.Errorf("tau %v, want 1ms", got)
	}
}

func TestNothingThatIsReportedMakesTheDepthInsane(t *testing.T) {
	hostileTime := rapid.OneOf(rapid.Int64(), rapid.Int64Range(0, 1e10), rapid.SampledFrom([]int64{0, -1, math.MinInt64, math.MaxInt64}))
	hostile := rapid.OneOf(rapid.Float64Range(0, 1), rapid.SampledFrom([]float64{0, -1, 1e-300, 1e300, math.NaN(), math.Inf(1), math.Inf(-1)}))
	rapid.Check(t, func(t *rapid.T) {
		o := DepthOptions{
			Epsilon: hostile.Draw(t, "epsilon"),
			Min:     hostileTime.Draw(t, "min"), Max: hostileTime.Draw(t, "max"), Batch: hostileTime.Draw(t, "batch"),
		}
		d, h := NewDepth(o), new(Histogram)
		least, most := max(o.Min, 0), min(o.Max, depthUnbounded)
		if o.Max < 1 {
			most = depthUnbounded
		}
		least = min(least, most)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now, x := Time(hostileTime.Draw(t, "now")), hostileTime.Draw(t, "x")
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0, 1:
				d.Consumed(now, x, time.Duration(hostileTime.Draw(t, "waited")))
			case 2:
				d.Used(time.Duration(x), rapid.Bool().Draw(t, "ready"))
			case 3:
				d.Unused(x)
			case 4:
				h.AddWeight(time.Duration(x), hostile.Draw(t, "weight"))
			}
			got := d.Set(now, h, hostile.Draw(t, "missing"), time.Duration(hostileTime.Draw(t, "hedge")))
			if got < least || got > most || got != d.value || d.Tau() < 0 {
				t.Fatalf("depth %d of %+v, tau %v", got, o, d.Tau())
			}
		}
	})
}

func TestDepthsAllocateNothing(t *testing.T) {
	d, h, now := NewDepth(DepthOptions{Batch: 8}), histogramOf([]time.Duration{time.Second}), Time(0)
	if allocs := testing.AllocsPerRun(1000, func() {
		now += 1e6
		d.Consumed(now, 8, 0)
		d.Used(0, now%3 == 0)
		d.Unused(int64(now % 2))
		d.Set(now, h, .5, time.Millisecond)
	}); allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
}

func BenchmarkSet(b *testing.B) {
	h := lognormal(40, 1).learnt(1 << 17)
	for name, hedge := range map[string]time.Duration{"plain": 0, "hedged": h.Quantile(.95)} {
		b.Run("tail="+name, func(b *testing.B) {
			d := depthAt(time.Millisecond, DepthOptions{Batch: 1})
			for i := range b.N {
				d.Set(Time(i), h, 1, hedge)
			}
			b.ReportMetric(float64(d.value), "samples")
		})
	}
}
