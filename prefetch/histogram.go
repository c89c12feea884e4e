package prefetch

import (
	"math"
	"time"
)

const (
	histogramLeast   = 100  // nanoseconds; what is less but not 0 counts as this
	histogramMost    = 1e12 // nanoseconds (1,000 s); what is more counts as this
	histogramOctave  = 24   // buckets for each factor of two: 2^(1/24) = 1.0293
	histogramWidth   = 0.03 // no bucket is wider, as a share of what it holds
	histogramBuckets = 799  // one for 0, and 24 log2(1,000 s / 100 ns) = 797.3
	histogramHeavy   = 1e15 // the most that one Add may weigh: no sum overflows
	histogramNothing = 1e-9 // a bucket that decayed to less is empty
)

// Histogram counts durations from 100 ns to 1,000 s in buckets that are 3 % wide, and 0
// in one of its own. What it says is exact where buckets meet, because each keeps the
// mean of what it holds. Its zero value is empty and ready. It holds no pointers, 12.8 kB.
//
// Of an empty histogram every duration is 0.
type Histogram struct {
	buckets     [histogramBuckets]histogramBucket
	weight, sum float64 // of all buckets
	top         int     // no bucket above it holds anything
}

type histogramBucket struct {
	weight float64
	sum    float64 // of nanoseconds times weight
}

// Add counts a duration. A negative one counts as 0.
func (h *Histogram) Add(d time.Duration) { h.AddWeight(d, 1) }

// AddWeight counts a duration w times. A weight that is not a positive number counts
// nothing; an infinite one counts as 1e15.
func (h *Histogram) AddWeight(d time.Duration, w float64) {
	if !(w > 0) {
		return
	}
	w = min(w, histogramHeavy)
	i, ns := 0, 0.0
	if d > 0 {
		ns = min(max(float64(d), histogramLeast), histogramMost)
		i = min(1+int(histogramOctave*math.Log2(ns/histogramLeast)), histogramBuckets-1)
	}
	h.buckets[i].weight += w
	h.buckets[i].sum += w * ns
	h.weight += w
	h.sum += w * ns
	h.top = max(h.top, i)
}

// Weight is how many durations were counted, less what decayed.
func (h *Histogram) Weight() float64 { return h.weight }

// Mean returns the mean.
func (h *Histogram) Mean() time.Duration { return histogramDuration(h.mean()) }

func (h *Histogram) mean() float64 {
	if h.weight == 0 {
		return 0
	}
	return h.sum / h.weight
}

// Quantile returns the least duration that the share q of all does not exceed. A q that
// is not within [0, 1] counts as the nearer of the two, NaN as 1.
func (h *Histogram) Quantile(q float64) time.Duration {
	if math.IsNaN(q) {
		q = 1
	}
	rest := (1 - min(max(q, 0), 1)) * h.weight // may lie above
	above, at := histogramTail{h: h, next: h.top}, 0.0
	for above.settle(); above.next >= 0 && above.weight <= rest; {
		at = above.at
		above.descend(at)
	}
	return histogramDuration(at)
}

// Excess returns E[(L-d)+]: by how much a duration exceeds d, 0 where it does not, in
// the mean. As a function of d it falls and is convex.
func (h *Histogram) Excess(d time.Duration) time.Duration {
	_, area := h.tail(math.Inf(1), float64(d), math.Inf(1))
	return histogramDuration(area)
}

// Least returns the least d >= 0, in whole nanoseconds, with E[(L-d)+] <= limit.
func (h *Histogram) Least(limit time.Duration) time.Duration {
	at, _ := h.tail(math.Inf(1), 0, float64(max(limit, 0)))
	return histogramDuration(math.Ceil(at))
}

// HedgedExcess is Excess of min(L, after+L'), where L' is an independent copy of L: what
// is left of the tail when a second attempt begins after so long and the first of the
// two to end counts. A negative after counts as 0.
func (h *Histogram) HedgedExcess(d, after time.Duration) time.Duration {
	_, area := h.tail(float64(max(after, 0)), float64(d), math.Inf(1))
	return histogramDuration(area)
}

// LeastHedged is Least of min(L, after+L'): see HedgedExcess.
func (h *Histogram) LeastHedged(limit, after time.Duration) time.Duration {
	at, _ := h.tail(float64(max(after, 0)), 0, float64(max(limit, 0)))
	return histogramDuration(math.Ceil(at))
}

// Decay multiplies all weights by a factor. One below 0 counts as 0, one above 1 or NaN
// as 1.
func (h *Histogram) Decay(factor float64) {
	if !(factor < 1) {
		return
	}
	factor = max(factor, 0)
	top := h.top
	h.weight, h.sum, h.top = 0, 0, 0 // anew, so that no error of rounding piles up
	for i := range h.buckets[:top+1] {
		b := &h.buckets[i]
		b.weight *= factor
		b.sum *= factor
		if b.weight < histogramNothing {
			*b = histogramBucket{}
			continue
		}
		h.weight += b.weight
		h.sum += b.sum
		h.top = i
	}
}

// tail integrates P(min(L, after+L') > x) over x from infinity down to floor, or to where
// the integral reaches limit: it returns where it stopped and the integral from there.
// All is in nanoseconds. With after infinite it is L alone. What lies above the tail that
// was asked for is all that it looks at.
func (h *Histogram) tail(after, floor, limit float64) (at, area float64) {
	if h.weight == 0 {
		return max(floor, 0), max(-floor, 0)
	}
	first, second := h.pair(after)
	x := max(first.at, floor)
	for x > floor {
		first.descend(x)
		second.descend(x)
		share := first.weight / h.weight * (second.weight / h.weight)
		next := max(first.at, second.at, floor)
		if piece := share * (x - next); area+piece <= limit {
			area, x = area+piece, next
			continue
		}
		return max(x-(limit-area)/share, next), limit
	}
	return x, area
}

// above returns the share of what was counted that lies at x nanoseconds or above.
func (h *Histogram) above(x float64) float64 {
	if h.weight == 0 {
		return 0
	}
	t := histogramTail{h: h, next: h.top}
	t.settle()
	t.descend(x)
	return t.weight / h.weight
}

// pair returns the tails of L and of after+L', both from the top. The tail of a second
// attempt that never begins lies beyond any x.
func (h *Histogram) pair(after float64) (first, second histogramTail) {
	first = histogramTail{h: h, next: h.top}
	first.settle()
	if math.IsInf(after, 1) {
		return first, histogramTail{h: h, next: -1, weight: h.weight, at: math.Inf(-1)}
	}
	second = histogramTail{h: h, next: h.top, shift: after}
	second.settle()
	return first, second
}

// histogramTail goes down the buckets of a histogram.
type histogramTail struct {
	h      *Histogram
	shift  float64 // added to what the buckets hold
	weight float64 // of the buckets it has passed
	next   int     // the bucket below them; -1: none
	at     float64 // where the next bucket is; -Inf: nowhere
}

// descend passes all buckets at x and above.
func (t *histogramTail) descend(x float64) {
	for t.at >= x && t.next >= 0 {
		t.weight += t.h.buckets[t.next].weight
		t.next--
		t.settle()
	}
	if t.next < 0 {
		t.weight = t.h.weight // as it was added up in another order
	}
}

// settle passes empty buckets.
func (t *histogramTail) settle() {
	for t.next >= 0 && t.h.buckets[t.next].weight == 0 {
		t.next--
	}
	t.at = math.Inf(-1)
	if t.next >= 0 {
		b := &t.h.buckets[t.next]
		t.at = b.sum/b.weight + t.shift
	}
}

// histogramDuration rounds nanoseconds.
func histogramDuration(ns float64) time.Duration {
	if ns >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(math.Round(ns))
}
