package prefetch

import (
	"math"
	"math/bits"
	"time"
)

const (
	latencyClasses  = 41     // size classes: 2^0 to 2^40 bytes
	latencyHalfLife = 50_000 // observations
	latencyEnough   = 16     // the weight from which on a histogram is believed
	latencySteps    = 32     // in which a half-life's decay is done
	latencyRecent   = 1_000  // observations that are compared with those before them
	latencySigmas   = 6      // how far the two must lie apart, in standard deviations
)

// Latencies learns how long fetches take, by source and by size: one histogram for each
// power of two of bytes. Its zero value is empty and ready. It takes 26 kB for each source
// and size class met.
//
// It remembers long, as a depth asks for the latency that one fetch in 37,000 exceeds
// (40 ms, lognormal with a deviation as large, 1 ms a sample). From a half-life of 2,000
// fetches the depth came out, nine times in ten, between .54 and 1.20 of the true one,
// with a mean excess of four times Epsilon; from 50,000 between .82 and 1.40, with one of
// Epsilon. It forgets at once when the last 1,000 fetches are clearly unlike those before.
type Latencies struct {
	// HalfLife is the number of observations of one source and size class after which
	// an older one counts half. Default 50,000.
	HalfLife int

	classes [Sources][latencyClasses]*latencyClass
}

type latencyClass struct {
	histogram Histogram
	recent    Histogram // the last observations, at most latencyRecent
	added     int       // since the last decay
}

// Observe counts a fetch of so many bytes. A source that does not exist counts nothing.
func (l *Latencies) Observe(source Source, bytes int64, took time.Duration) {
	if source >= Sources {
		return
	}
	at := &l.classes[source][latencyClassOf(bytes)]
	if *at == nil {
		*at = new(latencyClass)
	}
	(*at).add(took, l.halfLife())
}

// For returns the histogram of a source for fetches of so many bytes: that of their size
// class or, while too little is known of it, of the nearest class of the source of which
// enough is known, the larger of two. It is nil if there is none. It stays Latencies'
// own and changes with the next Observe.
func (l *Latencies) For(source Source, bytes int64) *Histogram {
	if source >= Sources {
		return nil
	}
	class := latencyClassOf(bytes)
	for away := range latencyClasses {
		for _, i := range [2]int{class + away, class - away} {
			if h := l.believed(source, i); h != nil {
				return h
			}
		}
	}
	return nil
}

// believed returns the histogram of a class if it exists and enough is known of it.
func (l *Latencies) believed(source Source, class int) *Histogram {
	if class < 0 || class >= latencyClasses || l.classes[source][class] == nil {
		return nil
	}
	h := &l.classes[source][class].histogram
	// With a short half-life no histogram ever weighs much.
	if h.Weight() < float64(min(latencyEnough, l.halfLife())) {
		return nil
	}
	return h
}

func (l *Latencies) halfLife() int {
	if l.HalfLife < 1 {
		return latencyHalfLife
	}
	return l.HalfLife
}

func (c *latencyClass) add(took time.Duration, halfLife int) {
	c.histogram.Add(took)
	c.recent.Add(took)
	c.added++
	// Seldom and by more: a decay touches all buckets.
	if step := max(1, halfLife/latencySteps); c.added >= step {
		c.histogram.Decay(math.Exp2(-float64(step) / float64(halfLife)))
		c.added = 0
	}
	if c.recent.Weight() < float64(min(latencyRecent, halfLife)) {
		return
	}
	if c.changed() {
		c.histogram, c.added = c.recent, 0
	}
	c.recent = Histogram{}
}

// changed reports whether clearly more or fewer of the recent observations than of all
// lie above the quarter that took longest, or above all but the quarter that took least.
func (c *latencyClass) changed() bool {
	for _, q := range [2]float64{.25, .75} {
		// A bucket aside, as means wander within theirs and many latencies may be equal.
		at := float64(c.histogram.Quantile(q))
		for _, x := range [2]float64{at * (1 - histogramWidth), at * (1 + histogramWidth)} {
			share, n := c.histogram.above(x), c.recent.Weight()
			sigma := math.Sqrt(share * (1 - share) / n)
			if math.Abs(c.recent.above(x)-share) > latencySigmas*sigma+1/math.Sqrt(n) {
				return true
			}
		}
	}
	return false
}

// latencyClassOf returns the size class: the power of two at or below bytes.
func latencyClassOf(bytes int64) int {
	return min(bits.Len64(uint64(max(bytes, 1)))-1, latencyClasses-1)
}
