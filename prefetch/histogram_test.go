package prefetch

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// histogramDurations draws durations over the whole range, some of them often.
func histogramDurations(t *rapid.T) []time.Duration {
	exponent := rapid.Float64Range(2, 12)
	if rapid.Bool().Draw(t, "narrow") {
		exponent = rapid.Float64Range(6, 7)
	}
	one := rapid.Custom(func(t *rapid.T) time.Duration {
		if rapid.IntRange(0, 9).Draw(t, "kind") == 0 {
			return rapid.SampledFrom([]time.Duration{0, 100, time.Millisecond}).Draw(t, "often")
		}
		return time.Duration(math.Pow(10, exponent.Draw(t, "exponent")))
	})
	return rapid.SliceOfN(one, 1, 60).Draw(t, "durations")
}

func histogramOf(durations []time.Duration) *Histogram {
	h := new(Histogram)
	for _, d := range durations {
		h.Add(d)
	}
	return h
}

// bruteExcess is E[(L-d)+] over the durations themselves.
func bruteExcess(durations []time.Duration, d time.Duration) (mean float64) {
	for _, l := range durations {
		mean += float64(max(l-d, 0)) / float64(len(durations))
	}
	return mean
}

// bruteHedged is E[(min(L, after+L')-d)+] over all pairs.
func bruteHedged(durations []time.Duration, d, after time.Duration) (mean float64) {
	n := float64(len(durations))
	for _, l := range durations {
		for _, other := range durations {
			mean += float64(max(min(l, after+other)-d, 0)) / (n * n)
		}
	}
	return mean
}

func TestAHistogramEqualsItsSamplesButForTheWidthOfABucket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		durations := histogramDurations(t)
		h := histogramOf(durations)
		d := rapid.SampledFrom(durations).Draw(t, "d")
		d = time.Duration(float64(d) * rapid.Float64Range(0, 1.5).Draw(t, "factor"))

		mean := bruteExcess(durations, 0)
		if got := float64(h.Mean()); math.Abs(got-mean) > 1+1e-9*mean {
			t.Fatalf("Mean = %v, want %v", got, mean)
		}
		if got, want := float64(h.Excess(d)), bruteExcess(durations, d); math.Abs(got-want) > 1+histogramWidth*float64(d) {
			t.Fatalf("Excess(%v) = %v, want %v", d, got, want)
		}
		after := rapid.SampledFrom(durations).Draw(t, "after")
		got, want := float64(h.HedgedExcess(d, after)), bruteHedged(durations, d, after)
		if math.Abs(got-want) > 1+2*histogramWidth*mean {
			t.Fatalf("HedgedExcess(%v, %v) = %v, want %v of mean %v", d, after, got, want, mean)
		}

		slices.Sort(durations)
		q := rapid.Float64Range(0, 1).Draw(t, "q")
		exact := float64(durations[max(0, int(math.Ceil(q*float64(len(durations))-1e-9))-1)])
		if got := float64(h.Quantile(q)); math.Abs(got-exact) > 1+histogramWidth*exact {
			t.Fatalf("Quantile(%v) = %v, want %v", q, got, exact)
		}
	})
}

func TestExcessFallsIsConvexAndLeastIsItsInverse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := histogramOf(histogramDurations(t))
		after := time.Duration(rapid.Int64Range(0, int64(2*h.Quantile(1))).Draw(t, "after"))
		excesses := map[string]func(time.Duration) time.Duration{
			"plain":  h.Excess,
			"hedged": func(d time.Duration) time.Duration { return h.HedgedExcess(d, after) },
		}
		leasts := map[string]func(time.Duration) time.Duration{
			"plain":  h.Least,
			"hedged": func(limit time.Duration) time.Duration { return h.LeastHedged(limit, after) },
		}
		step := 1 + h.Quantile(1)/37
		limit := time.Duration(rapid.Int64Range(0, int64(h.Mean())+2).Draw(t, "limit"))
		for name, excess := range excesses {
			for d := time.Duration(0); d <= h.Quantile(1); d += step {
				a, b, c := excess(d), excess(d+step), excess(d+2*step)
				if b > a || a+c-2*b < -2 { // each is rounded
					t.Fatalf("%s: excess %v, %v, %v at %v and steps of %v", name, a, b, c, d, step)
				}
			}
			least := leasts[name](limit)
			if got := excess(least); got > limit {
				t.Fatalf("%s: excess of the least for %v, %v, is %v", name, limit, least, got)
			}
			if least > 0 && excess(least-1) < limit {
				t.Fatalf("%s: the least for %v is %v, but less does too", name, limit, least)
			}
		}
		for d := time.Duration(0); d <= h.Quantile(1); d += step {
			if hedged, plain := h.HedgedExcess(d, after), h.Excess(d); hedged > plain+1 {
				t.Fatalf("hedged at %v: %v of %v is left at %v", after, hedged, plain, d)
			}
		}
		if d := h.Quantile(1) / 3; h.HedgedExcess(d, h.Quantile(1)) != h.Excess(d) {
			t.Fatalf("a hedge that never begins changes Excess(%v) = %v to %v", d, h.Excess(d), h.HedgedExcess(d, h.Quantile(1)))
		}
	})
}

func TestAHedgeCutsARareSlowFetch(t *testing.T) {
	h := new(Histogram)
	h.AddWeight(36*time.Millisecond, 99)
	h.AddWeight(400*time.Millisecond, 1)
	// After a hedge at 40 ms one in 10,000 takes 400 ms, the others of the slow 76 ms.
	want := .01 * (.99*26 + .01*350) * 1e6
	if got := float64(h.HedgedExcess(50*time.Millisecond, 40*time.Millisecond)); math.Abs(got-want) > 1 {
		t.Errorf("HedgedExcess = %v ns, want %v", got, want)
	}
	if got := h.LeastHedged(350*time.Microsecond, 40*time.Millisecond); got >= h.Least(350*time.Microsecond) {
		t.Errorf("LeastHedged = %v, Least = %v", got, h.Least(350*time.Microsecond))
	}
}

func TestDurationsThreePercentApartAreToldApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		low := time.Duration(math.Pow(10, rapid.Float64Range(2, 11.9).Draw(t, "exponent")))
		high := time.Duration(math.Ceil(float64(low) * (1 + histogramWidth)))
		h := histogramOf([]time.Duration{low, high})
		if a, b := h.Quantile(.5), h.Quantile(1); a != low || b != high {
			t.Fatalf("%v and %v are %v and %v", low, high, a, b)
		}
	})
}

func TestAHistogramHoldsWhateverItIsGiven(t *testing.T) {
	for _, c := range []struct{ d, want time.Duration }{
		{0, 0}, {-1, 0}, {math.MinInt64, 0}, {1, 100}, {99, 100}, {100, 100},
		{1000 * time.Second, 1000 * time.Second}, {math.MaxInt64, 1000 * time.Second},
	} {
		h := histogramOf([]time.Duration{c.d})
		if h.Mean() != c.want || h.Quantile(.5) != c.want || h.Excess(0) != c.want || h.Least(0) != c.want {
			t.Errorf("%v counts as %v, %v, %v, %v, want %v", c.d, h.Mean(), h.Quantile(.5), h.Excess(0), h.Least(0), c.want)
		}
	}

	var h Histogram
	for _, w := range []float64{0, -1, math.NaN(), math.Inf(-1)} {
		h.AddWeight(time.Second, w)
	}
	if h != (Histogram{}) {
		t.Errorf("weights that are none count %v", h.Weight())
	}
	if h.Mean() != 0 || h.Quantile(.5) != 0 || h.Excess(1) != 0 || h.Least(0) != 0 || h.HedgedExcess(1, 1) != 0 || h.LeastHedged(0, 1) != 0 {
		t.Error("an empty histogram says something")
	}
	h.AddWeight(time.Second, math.Inf(1))
	h.AddWeight(time.Second, math.MaxFloat64)
	if h.Mean() != time.Second || h.Least(0) != time.Second {
		t.Errorf("infinite weights: mean %v, least %v", h.Mean(), h.Least(0))
	}
	for _, d := range []time.Duration{math.MinInt64, -time.Second, math.MaxInt64} {
		want := time.Duration(min(max(float64(time.Second)-float64(d), 0), math.MaxInt64))
		if got := h.Excess(d); math.Abs(float64(got-want)) > 2 {
			t.Errorf("Excess(%d) = %d, want %d", d, got, want)
		}
		h.HedgedExcess(d, d)
		h.LeastHedged(d, d)
	}
	for _, q := range []float64{-1, 2, math.NaN(), math.Inf(1), math.Inf(-1)} {
		if got := h.Quantile(q); got != time.Second {
			t.Errorf("Quantile(%v) = %v", q, got)
		}
	}
}

func TestDecayTakesWeightAndNothingElse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := histogramOf(histogramDurations(t))
		before := *h
		h.Decay(.25)
		if got, want := h.Weight(), before.Weight()/4; math.Abs(got-want) > 1e-9*want {
			t.Fatalf("weight %v, want %v", got, want)
		}
		for _, q := range []float64{0, .3, .9, 1} {
			if d := h.Quantile(q) - before.Quantile(q); d < -1 || d > 1 {
				t.Fatalf("the quantile %v moved by %v", q, d)
			}
		}
		h.Add(0)
		for range 100 {
			h.Decay(.5)
		}
		if *h != (Histogram{}) {
			t.Fatalf("after 100 halvings weigh %v", h.Weight())
		}
	})
	for _, c := range []struct{ factor, want float64 }{{-1, 0}, {0, 0}, {1, 1}, {2, 1}, {math.NaN(), 1}, {math.Inf(1), 1}, {math.Inf(-1), 0}} {
		h := histogramOf([]time.Duration{time.Second})
		if h.Decay(c.factor); h.Weight() != c.want {
			t.Errorf("Decay(%v) leaves %v, want %v", c.factor, h.Weight(), c.want)
		}
	}
}

func TestHistogramsAllocateNothing(t *testing.T) {
	h := histogramOf([]time.Duration{time.Second, time.Minute})
	if allocs := testing.AllocsPerRun(100, func() {
		h.Add(time.Millisecond)
		h.Decay(.99)
		h.LeastHedged(time.Millisecond, h.Quantile(.95))
		h.Least(h.Excess(time.Millisecond))
	}); allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
}
