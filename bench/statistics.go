package bench

import (
	"math"
	"slices"
)

// Spread is a median with the smallest and the largest of what it is the median of.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf summarises values; of none it is all zeros. NaNs are left out.
func spreadOf(values []float64) Spread {
	sorted := make([]float64, 0, len(values))
	for _, v := range values {
		if !math.IsNaN(v) {
			sorted = append(sorted, v)
		}
	}
	if len(sorted) == 0 {
		return Spread{}
	}
	slices.Sort(sorted)
	middle := len(sorted) / 2
	median := sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return Spread{Median: median, Min: sorted[0], Max: sorted[len(sorted)-1]}
}

// only is the spread of a single value: what is simulated is equal in each repeat.
func only(value float64) Spread { return Spread{Median: value, Min: value, Max: value} }

// ratios divides repeat by repeat: what was measured close in time is compared,
// so that a slow moment of the machine falls on both sides.
func ratios(above, below []float64) []float64 {
	n := min(len(above), len(below))
	out := make([]float64, 0, n)
	for i := range n {
		if below[i] != 0 {
			out = append(out, above[i]/below[i])
		}
	}
	return out
}

// percentile returns the p-th percentile (0..1) of values, 0 of none.
func percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	return sorted[min(int(p*float64(len(sorted))), len(sorted)-1)]
}
