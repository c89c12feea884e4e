package order

import (
	"math"
	"testing"
)

// chiSquareLimit is where a chi-square value with that many degrees of freedom lies
// beyond six standard deviations of its normal approximation. All seeds here are
// fixed, so these tests give the same answer every time.
func chiSquareLimit(freedom int) float64 {
	return float64(freedom) + 6*math.Sqrt(2*float64(freedom))
}

// chiSquare returns the statistic of counts against equal expectation.
func chiSquare(counts []int, total int) float64 {
	expected, sum := float64(total)/float64(len(counts)), 0.0
	for _, c := range counts {
		d := float64(c) - expected
		sum += d * d / expected
	}
	return sum
}

func TestEachSampleIsEquallyLikelyAtEachPosition(t *testing.T) {
	for _, spec := range []Spec{
		{Kind: Global, Samples: 2}, {Kind: Global, Samples: 3}, {Kind: Global, Samples: 10},
		{Kind: Global, Samples: 65}, {Kind: Global, Samples: 70000},
		{Kind: Windowed, Samples: 64, Window: 8}, {Kind: Windowed, Samples: 12, Window: 12},
	} {
		const epochs = 200000
		bins := int(min(spec.Samples, 50))
		for _, position := range []int64{0, 1, spec.Samples / 2, spec.Samples - 1} {
			counts := make([]int, bins)
			o := mustNew(t, spec)
			for epoch := range int64(epochs) {
				counts[o.Epoch(epoch).At(position)*int64(bins)/spec.Samples]++
			}
			weights(counts, spec.Samples)
			if x := chiSquare(counts, epochs); x > chiSquareLimit(bins-1) {
				t.Errorf("%+v: position %d: chi-square %.1f over %d epochs, limit %.1f", spec, position, x, epochs, chiSquareLimit(bins-1))
			}
		}
	}
}

// weights scales counts of bins that hold different numbers of samples to the mean.
func weights(counts []int, samples int64) {
	bins := int64(len(counts))
	sizes := make([]int64, bins)
	if samples > 1<<20 {
		return
	}
	for s := range samples {
		sizes[s*bins/samples]++
	}
	for i := range counts {
		counts[i] = int(math.Round(float64(counts[i]) * float64(samples) / float64(bins) / float64(sizes[i])))
	}
}

func TestAllPermutationsOfFewSamplesAreEquallyLikely(t *testing.T) {
	for _, n := range []int64{2, 3, 4, 5} {
		counts, total := map[int64]int{}, 240000
		o := mustNew(t, Spec{Kind: Global, Seed: 11, Samples: n})
		for epoch := range int64(total) {
			code, p := int64(0), o.Epoch(epoch)
			for i := range n {
				code = code*n + p.At(i)
			}
			counts[code]++
		}
		factorial := 1
		for i := 2; i <= int(n); i++ {
			factorial *= i
		}
		all := make([]int, 0, factorial)
		for _, c := range counts {
			all = append(all, c)
		}
		if len(all) != factorial {
			t.Errorf("%d samples: %d different permutations in %d epochs, want %d", n, len(all), total, factorial)
			continue
		}
		if x := chiSquare(all, total); x > chiSquareLimit(factorial-1) {
			t.Errorf("%d samples: chi-square %.1f, limit %.1f", n, x, chiSquareLimit(factorial-1))
		}
	}
}

func TestNeighboursAreSpreadOverTheDataset(t *testing.T) {
	for _, n := range []int64{1000, 65536, 65537, 1e8, 1e12} {
		p := mustNew(t, Spec{Kind: Global, Seed: 5, Samples: n}).Epoch(0)
		const pairs, bins = 50000, 40
		counts := make([]int, bins) // of the distance between neighbours, modulo the size
		for i := range int64(pairs) {
			a, b := p.At(i%(n-1)), p.At(i%(n-1)+1)
			d := (b - a + n) % n // never 0
			counts[int(float64(d-1)/float64(n-1)*bins)]++
		}
		// Short datasets repeat their pairs, which multiplies the statistic.
		repeats := max(1, float64(pairs)/float64(n-1))
		if x := chiSquare(counts, pairs) / repeats; x > chiSquareLimit(bins-1) {
			t.Errorf("%d samples: distances of neighbours: chi-square %.1f, limit %.1f", n, x, chiSquareLimit(bins-1))
		}
	}
}

func TestEpochsAndSeedsShareNoStructure(t *testing.T) {
	const n, pairs = 10000, 40
	fixed, sameStep := 0, 0
	for k := range int64(pairs) {
		a := mustNew(t, Spec{Kind: Global, Seed: 21, Samples: n}).Epoch(k)
		b := mustNew(t, Spec{Kind: Global, Seed: 21, Samples: n}).Epoch(k + 1)
		if k%2 == 1 {
			b = mustNew(t, Spec{Kind: Global, Seed: 22, Samples: n}).Epoch(k)
		}
		for i := range int64(n - 1) {
			if a.At(i) == b.At(i) {
				fixed++
			}
			if a.At(i+1)-a.At(i) == b.At(i+1)-b.At(i) {
				sameStep++
			}
		}
	}
	// Chance gives one equal place a pair of permutations (Poisson with mean `pairs`
	// over all), and about 2/3 of that for equal steps.
	limit := pairs + 6*int(math.Sqrt(pairs))
	if fixed > limit || sameStep > limit {
		t.Errorf("over %d pairs of epochs: %d equal places and %d equal steps, want about %d (limit %d)", pairs, fixed, sameStep, pairs, limit)
	}
	if fixed == 0 {
		t.Errorf("over %d pairs of epochs no place is equal: chance gives about %d", pairs, pairs)
	}
}
