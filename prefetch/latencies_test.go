package prefetch

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// latencyLaw is a law of latencies, in units of its own.
type latencyLaw struct {
	name   string
	draw   func(r *rand.Rand) float64
	excess func(d float64) float64 // E[(L-d)+], exactly
}

// latencyLaws are the four that depths are judged by: all have a mean of 40.
func latencyLaws() []latencyLaw {
	return []latencyLaw{
		{"constant", func(*rand.Rand) float64 { return 40 }, func(d float64) float64 { return max(40-d, 0) }},
		lognormal(40, .5),
		lognormal(40, 1),
		{"two values", func(r *rand.Rand) float64 {
			if r.IntN(100) == 0 {
				return 400
			}
			return 36
		}, func(d float64) float64 { return .99*max(36-d, 0) + .01*max(400-d, 0) }},
	}
}

// lognormal is the lognormal law of a mean and a coefficient of variation.
func lognormal(mean, cv float64) latencyLaw {
	variance := math.Log(1 + cv*cv)
	sigma, mu := math.Sqrt(variance), math.Log(mean)-variance/2
	below := func(z float64) float64 { return .5 * math.Erfc(-z/math.Sqrt2) }
	return latencyLaw{
		name: "lognormal " + map[float64]string{.5: ".5", 1: "1"}[cv],
		draw: func(r *rand.Rand) float64 { return math.Exp(mu + sigma*r.NormFloat64()) },
		excess: func(d float64) float64 { // Black and Scholes' formula
			return mean*below((mu+variance-math.Log(d))/sigma) - d*below((mu-math.Log(d))/sigma)
		},
	}
}

// inMilliseconds is the duration of x milliseconds.
func inMilliseconds(x float64) time.Duration { return time.Duration(x * float64(time.Millisecond)) }

func TestSizeClassesArePowersOfTwo(t *testing.T) {
	for bytes, want := range map[int64]int{
		math.MinInt64: 0, -1: 0, 0: 0, 1: 0, 2: 1, 3: 1, 4: 2, 1<<20 - 1: 19, 1 << 20: 20,
		1 << 40: 40, 1 << 41: 40, math.MaxInt64: 40,
	} {
		if got := latencyClassOf(bytes); got != want {
			t.Errorf("class of %d bytes = %d, want %d", bytes, got, want)
		}
	}
}

func TestForAnswersFromTheNearestSizeThatIsKnown(t *testing.T) {
	var l Latencies
	if l.For(Origin, 1000) != nil {
		t.Error("something is known of nothing")
	}
	observe := func(source Source, bytes int64, n int) *Histogram {
		for range n {
			l.Observe(source, bytes, time.Duration(bytes))
		}
		return l.For(source, bytes)
	}
	if observe(Origin, 1<<10, latencyEnough-1) != nil {
		t.Error("too little is believed")
	}
	small := observe(Origin, 1<<10, 1)
	large := observe(Origin, 1<<20, latencyEnough)
	if small == nil || large == nil || small == large {
		t.Fatalf("known are %p and %p", small, large)
	}
	for bytes, want := range map[int64]*Histogram{
		-5: small, 0: small, 1 << 10: small, 2000: small, 1 << 14: small,
		1 << 15: large, 1 << 16: large, 1 << 20: large, math.MaxInt64: large,
	} {
		if got := l.For(Origin, bytes); got != want {
			t.Errorf("of %d bytes: %p, want %p of %p and %p", bytes, got, want, small, large)
		}
	}
	if l.For(Peer, 1<<10) != nil {
		t.Error("one source answers for another")
	}
	l.Observe(Sources, 1, time.Second)
	if l.For(Sources, 1) != nil {
		t.Error("a source that does not exist is known")
	}
}

func TestAShortHalfLifeIsBelievedToo(t *testing.T) {
	for _, halfLife := range []int{1, 2, 5, 15} {
		l := Latencies{HalfLife: halfLife}
		for range 200 {
			l.Observe(Flash, 1, time.Second)
		}
		if h := l.For(Flash, 1); h == nil || h.Mean() != time.Second {
			t.Errorf("half-life %d: nothing is known after 200 observations", halfLife)
		}
	}
}

func TestOlderObservationsCountHalfAfterTheHalfLife(t *testing.T) {
	const halfLife = 3200
	l := Latencies{HalfLife: halfLife}
	// The quartiles stay, so nothing is forgotten at once.
	for range 100 * halfLife {
		l.Observe(Peer, 1, time.Millisecond)
	}
	h := l.For(Peer, 1)
	if got, want := h.Weight(), halfLife/math.Ln2; math.Abs(got-want) > .02*want {
		t.Errorf("weight %v in the long run, want %v", got, want)
	}
	l.Observe(Peer, 1, time.Second)
	before := h.above(float64(time.Second))
	for range halfLife {
		l.Observe(Peer, 1, time.Millisecond)
	}
	if got := h.above(float64(time.Second)); math.Abs(got-before/2) > .05*before {
		t.Errorf("a share of %v is %v after the half-life", before, got)
	}
}

func TestLatenciesForgetAtOnceWhenTheLawChangesAndNeverElse(t *testing.T) {
	for _, law := range latencyLaws() {
		for _, factor := range []float64{1, .2, .7, 1.5, 10} {
			var l Latencies
			r := rand.New(rand.NewPCG(1, 2))
			for range 60_000 {
				l.Observe(Origin, 1, inMilliseconds(law.draw(r)))
			}
			before := l.For(Origin, 1).Weight()
			if before < 30_000 {
				t.Errorf("%s: weight %v after 60,000 observations of one law", law.name, before)
			}
			for range 3 * latencyRecent {
				l.Observe(Origin, 1, inMilliseconds(factor*law.draw(r)))
			}
			h := l.For(Origin, 1)
			if forgot := h.Weight() < before; forgot != (factor != 1) {
				t.Errorf("%s times %v: weight %v after %v", law.name, factor, h.Weight(), before)
			}
			if got, want := float64(h.Quantile(.5)), law.median()*factor*1e6; math.Abs(got-want) > .12*want {
				t.Errorf("%s times %v: median %v, want %v", law.name, factor, got, want)
			}
		}
	}
}

// median is where half lies above, from the slope of the excess.
func (l latencyLaw) median() float64 {
	low, high := 1., 400.
	for range 60 {
		m := (low + high) / 2
		if l.excess(m)-l.excess(m+.001) > .0005 {
			low = m
		} else {
			high = m
		}
	}
	return low
}

func TestLatenciesAllocateNothingOnceASizeIsKnown(t *testing.T) {
	var l Latencies
	l.Observe(Origin, 1, 1)
	if allocs := testing.AllocsPerRun(3*latencyRecent, func() {
		l.Observe(Origin, 1, time.Millisecond)
		l.For(Origin, 1<<30)
	}); allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
}

func BenchmarkObserve(b *testing.B) {
	var l Latencies
	for i := range b.N {
		l.Observe(Origin, 1, time.Duration(i%1000)*time.Millisecond)
	}
}
