package bench

import (
	"math"
	"slices"
	"testing"
)

func TestMedianAndSpreadOfOddEvenAndNoValues(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   Spread
	}{
		{nil, Spread{}},
		{[]float64{7}, Spread{7, 7, 7}},
		{[]float64{9, 1, 5}, Spread{5, 1, 9}},
		{[]float64{4, 1, 3, 2}, Spread{2.5, 1, 4}},
		{[]float64{2, math.NaN(), 4}, Spread{3, 2, 4}},
	} {
		before := slices.Clone(test.values)
		if got := spreadOf(test.values); got != test.want {
			t.Errorf("spread of %v: got %v, want %v", test.values, got, test.want)
		}
		for i, v := range before {
			if v != test.values[i] && !math.IsNaN(v) {
				t.Errorf("spreadOf reordered its argument: %v", test.values)
			}
		}
	}
}

func TestRatiosPairRepeatsAndLeaveOutZeroes(t *testing.T) {
	got := ratios([]float64{2, 4, 6, 8}, []float64{1, 0, 3})
	if !slices.Equal(got, []float64{2, 2}) {
		t.Errorf("got %v, want [2 2]", got)
	}
}

func TestPercentileTakesTheRankAndNeverLeavesTheSlice(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3}
	for p, want := range map[float64]float64{0: 1, 0.5: 3, 0.99: 5, 1: 5} {
		if got := percentile(values, p); got != want {
			t.Errorf("percentile %g: got %g, want %g", p, got, want)
		}
	}
	if percentile(nil, 0.5) != 0 {
		t.Error("the percentile of nothing is not 0")
	}
}
