package prefetch

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// maxMin calls MaxMin with memory of its own.
func maxMin(capacity float64, demands, weights []float64) []float64 {
	out := make([]float64, len(demands))
	MaxMin(capacity, demands, weights, out, nil)
	return out
}

// shareByLevel is max-min fairness by its definition: the level is searched for.
func shareByLevel(capacity float64, demands, weights []float64) []float64 {
	out := make([]float64, len(demands))
	fill := func(level float64) (sum float64) {
		for i := range demands {
			out[i] = min(demands[i], weights[i]*level)
			sum += out[i]
		}
		return sum
	}
	low, high := 0.0, 1e18
	if fill(high) <= capacity {
		return out
	}
	for range 300 {
		if mid := low + (high-low)/2; fill(mid) <= capacity {
			low = mid
		} else {
			high = mid
		}
	}
	fill(low)
	return out
}

// shareClose reports whether x and y are equal but for rounding.
func shareClose(x, y float64) bool {
	return x == y || math.Abs(x-y) <= 1e-9*max(1, math.Abs(x), math.Abs(y))
}

func TestMaxMinFindsTheLevel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 12).Draw(t, "jobs")
		demands := rapid.SliceOfN(rapid.Float64Range(0, 1000), n, n).Draw(t, "demands")
		weights := rapid.SliceOfN(rapid.Float64Range(0.01, 100), n, n).Draw(t, "weights")
		capacity := rapid.Float64Range(0.001, 5000).Draw(t, "capacity")
		want := shareByLevel(capacity, demands, weights)
		for i, got := range maxMin(capacity, demands, weights) {
			if !shareClose(got, want[i]) {
				t.Errorf("share %d of %v by %v of %v: %v, want %v", i, demands, weights, capacity, got, want[i])
			}
		}
	})
}

// anyShare draws numbers of which every kind is likely.
func anyShare() *rapid.Generator[float64] {
	return rapid.OneOf(
		rapid.Float64Range(0, 100),
		rapid.Float64(),
		rapid.SampledFrom([]float64{0, 1, -1, math.Inf(1), math.Inf(-1), math.NaN(), math.MaxFloat64, math.SmallestNonzeroFloat64}))
}

func TestMaxMinOfAnyNumbersDividesNoMoreThanThereIsAndAllOfIt(t *testing.T) {
	var scratch []int
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 8).Draw(t, "jobs")
		demands := rapid.SliceOfN(anyShare(), n, n).Draw(t, "demands")
		weights := rapid.SliceOfN(anyShare(), n, n).Draw(t, "weights")
		capacity := anyShare().Draw(t, "capacity")
		out := make([]float64, n)
		MaxMin(capacity, demands, weights, out, &scratch)
		limit := 0.0
		if capacity > 0 {
			limit = capacity
		}
		divided, demanded := 0.0, 0.0
		for i, share := range out {
			demand := 0.0
			if demands[i] > 0 {
				demand = demands[i]
			}
			if !(share >= 0 && share <= demand) {
				t.Fatalf("share %d is %v of a demand of %v", i, share, demand)
			}
			// As parts of the limit, which sums do not overflow.
			if limit > 0 && !math.IsInf(limit, 1) {
				divided += share / limit
				demanded += min(demand, limit) / limit
			} else if limit > 0 && share != demand {
				t.Fatalf("share %d is %v of an endless capacity, want the demand %v", i, share, demand)
			}
		}
		if limit == 0 && divided != 0 {
			t.Fatalf("%v of nothing", out)
		}
		if math.Abs(divided-min(1, demanded)) > 1e-6 {
			t.Fatalf("shares %v of demands %v by %v: %v of capacity %v, demanded %v of it", out, demands, weights, divided, capacity, demanded)
		}
	})
}

func TestMaxMinTable(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	for _, c := range []struct {
		name                   string
		capacity               float64
		demands, weights, want []float64
	}{
		{"all fit", 10, []float64{1, 2, 3}, []float64{1, 1, 1}, []float64{1, 2, 3}},
		{"the small one fits", 10, []float64{2, 8, 8}, []float64{1, 1, 1}, []float64{2, 4, 4}},
		{"by weight", 12, []float64{inf, inf, inf}, []float64{1, 2, 3}, []float64{2, 4, 6}},
		{"no weight gets what is left", 12, []float64{4, 6, 6}, []float64{1, 0, 0}, []float64{4, 4, 4}},
		{"no weight, nothing left", 12, []float64{20, 6, 6}, []float64{1, nan, -1}, []float64{12, 0, 0}},
		{"endless weight first", 12, []float64{20, 5, inf}, []float64{1, inf, inf}, []float64{0, 5, 7}},
		{"demands that are none", 12, []float64{nan, -3, inf}, []float64{1, 1, 1}, []float64{0, 0, 12}},
		{"no capacity", 0, []float64{1, inf}, []float64{1, inf}, []float64{0, 0}},
		{"capacity is not a number", nan, []float64{1, inf}, []float64{1, inf}, []float64{0, 0}},
		{"endless capacity", inf, []float64{1, inf, nan}, []float64{0, 1, 1}, []float64{1, inf, 0}},
		{"huge weights", 12, []float64{inf, inf}, []float64{math.MaxFloat64, math.MaxFloat64}, []float64{6, 6}},
		{"nobody", 12, nil, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i, got := range maxMin(c.capacity, c.demands, c.weights) {
				if !shareClose(got, c.want[i]) {
					t.Errorf("share %d is %v, want %v", i, got, c.want[i])
				}
			}
		})
	}
}

func TestMaxMinAllocatesNothing(t *testing.T) {
	demands, weights, out := []float64{5, 1, 7, 3}, []float64{1, 2, 3, 0}, make([]float64, 4)
	var scratch []int
	if n := testing.AllocsPerRun(100, func() { MaxMin(10, demands, weights, out, &scratch) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkMaxMin(b *testing.B) {
	demands, weights, out := make([]float64, 8), make([]float64, 8), make([]float64, 8)
	for i := range demands {
		demands[i], weights[i] = float64(i*37%11), float64(i%3+1)
	}
	var scratch []int
	for b.Loop() {
		MaxMin(20, demands, weights, out, &scratch)
	}
}
