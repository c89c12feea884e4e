package sim

import (
	"math"
	"testing"
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
		var readers []Reader
		for i, rate := range row.rates {
			o := must(NewOrder(OrderSpec{Seed: uint64(i), Samples: samples}))
			place := int64(mix(uint64(i)) % samples) // a random phase
			readers = append(readers, Reader{Order: o, Rate: rate, Place: place, Epochs: epochs})
		}
		items := Interleave(readers)
		capacity, from := int64(row.c*samples), 2*samples*len(row.rates)
		near(t, "LRU", HitRatio(NewLRU(capacity), items, from), row.lru, 0.02)
		near(t, "S3-FIFO", HitRatio(NewS3FIFO(capacity), items, from), row.s3fifo, 0.02)
		near(t, "SIEVE", HitRatio(NewSIEVE(capacity), items, from), row.sieve, 0.02)
		near(t, "never-evict", HitRatio(NewNeverEvict(capacity), items, from), row.never, 0.02)
		near(t, "OPT", HitRatio(NewOPT(capacity, unit(items)), items, from), row.opt, 0.02)
	}
}
