package sim

import (
	"math"
	"testing"

	"github.com/stokerio/stoker/prefetch"
)

// permutedEpochs is several epochs of one job, each in an order of its own.
func permutedEpochs(samples, epochs int64, seed uint64) []int64 {
	o := must(NewOrder(OrderSpec{Seed: seed, Samples: samples}))
	var items []int64
	for epoch := range epochs {
		items = o.At(epoch, 0, samples, items)
	}
	return items
}

func TestPermutedEpochsOfOneJobMeetTheClosedForms(t *testing.T) {
	const samples, epochs = 10_000, 6
	items := permutedEpochs(samples, epochs, 1)
	for _, c := range []float64{.1, .25, .5, .75, .9} {
		capacity := int64(c * samples)
		near(t, "never-evict", HitRatio(NewNeverEvict(capacity), items, samples), c, 1e-9)
		opt := HitRatio(NewOPT(capacity, unit(items)), items, samples)
		near(t, "OPT", opt, c, 0.002)
		near(t, "LRU", HitRatio(NewLRU(capacity), items, samples), c+(1-c)*math.Log(1-c), 0.01)
	}
}

func TestPermutedEpochsOfOneJobMeetTheTable(t *testing.T) {
	const samples, epochs = 4_000, 20 // SIEVE gets better with each epoch
	items := permutedEpochs(samples, epochs, 2)
	for _, row := range []struct{ c, lru, s3fifo, sieve, never float64 }{
		{.10, .005, .070, .032, .100},
		{.25, .034, .168, .139, .250},
		{.50, .153, .186, .389, .500},
		{.75, .405, .472, .681, .750},
		{.90, .670, .754, .870, .900},
	} {
		capacity := int64(row.c * samples)
		near(t, "LRU", HitRatio(NewLRU(capacity), items, samples), row.lru, 0.02)
		near(t, "S3-FIFO", HitRatio(NewS3FIFO(capacity), items, samples), row.s3fifo, 0.02)
		near(t, "SIEVE", HitRatio(NewSIEVE(capacity), items, samples), row.sieve, 0.02)
		near(t, "never-evict", HitRatio(NewNeverEvict(capacity), items, samples), row.never, 0.02)
		near(t, "OPT", HitRatio(NewOPT(capacity, unit(items)), items, samples), row.never, 0.02)
	}
}

func TestRepeatedScansHitOnlyWhatIsNeverEvicted(t *testing.T) {
	o := must(NewOrder(OrderSpec{Kind: Sequential, Samples: 1000}))
	var items []int64
	for epoch := range int64(8) {
		items = o.At(epoch, 0, 1000, items)
	}
	for _, c := range []int64{100, 250, 500, 750} {
		near(t, "LRU", HitRatio(NewLRU(c), items, 1000), 0, 0)
		near(t, "SIEVE", HitRatio(NewSIEVE(c), items, 1000), 0, 0)
		if c <= 500 {
			near(t, "S3-FIFO", HitRatio(NewS3FIFO(c), items, 1000), 0, 0)
		}
		near(t, "never-evict", HitRatio(NewNeverEvict(c), items, 1000), float64(c)/1000, 0)
		near(t, "OPT", HitRatio(NewOPT(c, unit(items)), items, 1000), float64(c)/1000, 0.001)
	}
}

func TestSeveralJobsOnOneDatasetMeetTheTable(t *testing.T) {
	const samples, epochs = 4_000, 10
	for _, row := range []struct {
		rates                          []float64
		c                              float64
		lru, s3fifo, sieve, never, opt float64
	}{
		{[]float64{1, 1}, .25, .141, .095, .238, .250, .512},
		{[]float64{1, 1, 1, 1}, .10, .076, .056, .092, .100, .365},
		{[]float64{1, 1, 1, 1}, .25, .196, .155, .234, .250, .566},
		{[]float64{1, 1, 1, 1}, .50, .413, .381, .487, .500, .771},
		{[]float64{1, .83, .61, .37}, .25, .189, .147, .241, .250, .557},
		{[]float64{1, 1, 1, 1, 1, 1, 1, 1}, .25, .224, .199, .236, .250, .591},
	} {
		var readers []reader
		for i, rate := range row.rates {
			o := must(NewOrder(OrderSpec{Seed: uint64(i), Samples: samples}))
			place := int64(mix(uint64(i)) % samples) // a random phase
			readers = append(readers, reader{Order: o, Rate: rate, Place: place, Epochs: epochs})
		}
		items := interleave(readers)
		capacity, from := int64(row.c*samples), 2*samples*len(row.rates)
		near(t, "LRU", HitRatio(NewLRU(capacity), items, from), row.lru, 0.02)
		near(t, "S3-FIFO", HitRatio(NewS3FIFO(capacity), items, from), row.s3fifo, 0.02)
		near(t, "SIEVE", HitRatio(NewSIEVE(capacity), items, from), row.sieve, 0.02)
		near(t, "never-evict", HitRatio(NewNeverEvict(capacity), items, from), row.never, 0.02)
		near(t, "OPT", HitRatio(NewOPT(capacity, unit(items)), items, from), row.opt, 0.02)
	}
}

// reader is one of several that share a cache: its order, how fast it goes against the
// others, and where it begins.
type reader struct {
	Order  prefetch.Order
	Rate   float64 // above 0; only the ratio to the others' counts
	Place  int64   // in epoch 0
	Epochs int64   // how many it reads, the first, which may be a part, included
}

// interleave is the accesses of several readers in the order of time: each takes a
// sample every 1/Rate, until the first of them has read its epochs.
func interleave(readers []reader) []int64 {
	type cursor struct {
		epoch, place int64
		at           float64
		batch        []int64 // the epoch's samples
	}
	cursors := make([]cursor, len(readers))
	for i, r := range readers {
		cursors[i] = cursor{place: r.Place, at: (float64(i) + 0.5) / float64(len(readers)) / r.Rate}
		cursors[i].batch = r.Order.At(0, 0, r.Order.Len(0), nil)
	}
	var items []int64
	for len(readers) > 0 {
		first := 0
		for i := range cursors {
			if cursors[i].at < cursors[first].at {
				first = i
			}
		}
		c, r := &cursors[first], &readers[first]
		if c.place == int64(len(c.batch)) {
			if c.epoch++; c.epoch >= r.Epochs {
				return items
			}
			c.place, c.batch = 0, r.Order.At(c.epoch, 0, r.Order.Len(c.epoch), c.batch[:0])
		}
		items = append(items, c.batch[c.place])
		c.place++
		c.at += 1 / r.Rate
	}
	return items
}
