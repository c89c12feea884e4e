package prefetch

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// MaxMin divides capacity between demands by weighted max-min fairness, also called
// water filling: nobody gets more than his demand, and whoever gets less has, for his
// weight, no less than anybody else.
//
//	out[i] = min(demands[i], weights[i]·level), with the level at which
//	out sums to min(capacity, sum of demands)
//
// Weights of +Inf are served first, alike among themselves; those that are not above 0,
// or NaN, get, alike, what the others leave. Finite weights count as at least 1e-12 of
// the largest. A demand that is not above 0, or NaN, is 0; one of +Inf is never met. A
// capacity that is not above 0, or NaN, gives nothing; one of +Inf gives everybody his
// demand, which may be +Inf. Nothing else is infinite, and nothing is NaN.
//
// The slices are as long as each other, and out overlaps neither of the others. scratch
// is memory to work in that grows as needed: with one that is kept, nothing is
// allocated. It may be nil. Takes O(n log n).
func MaxMin(capacity float64, demands, weights, out []float64, scratch *[]int) {
	if len(weights) != len(demands) || len(out) != len(demands) {
		panic(fmt.Sprintf("prefetch: %d demands, %d weights, %d shares", len(demands), len(weights), len(out)))
	}
	if !(capacity > 0) {
		clear(out)
		return
	}
	if math.IsInf(capacity, 1) {
		for i, demand := range demands {
			out[i] = shareDemand(demand, capacity)
		}
		return
	}
	var none []int
	if scratch == nil {
		scratch = &none
	}
	order := (*scratch)[:0]
	for i := range demands {
		order = append(order, i)
	}
	*scratch = order

	largest := shareLargest(weights)
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(
			cmp.Compare(shareClass(weights[a]), shareClass(weights[b])),
			cmp.Compare(shareDemand(demands[a], capacity)/shareWeight(weights[a], largest),
				shareDemand(demands[b], capacity)/shareWeight(weights[b], largest)),
			cmp.Compare(a, b))
	})
	for len(order) > 0 {
		class, n := shareClass(weights[order[0]]), 1
		for n < len(order) && shareClass(weights[order[n]]) == class {
			n++
		}
		capacity = shareFill(capacity, largest, demands, weights, out, order[:n])
		order = order[n:]
	}
}

// shareFill divides capacity between those of one class, who come in the order in which
// a rising level meets their demands, and returns what is left.
func shareFill(capacity, largest float64, demands, weights, out []float64, order []int) float64 {
	// Weights are summed from the end, so that the sums of small ones stay exact, and
	// stand in out until the shares replace them.
	sum := 0.0
	for _, i := range slices.Backward(order) {
		sum += shareWeight(weights[i], largest)
		out[i] = sum
	}
	for _, i := range order {
		out[i] = min(shareDemand(demands[i], capacity), capacity*(shareWeight(weights[i], largest)/out[i]))
		capacity = max(0, capacity-out[i])
	}
	return capacity
}

// shareDemand is what is asked for of capacity.
func shareDemand(demand, capacity float64) float64 {
	if !(demand > 0) {
		return 0
	}
	return min(demand, capacity)
}

// shareClass is 0 for those who are served first, 1 for those by weight, 2 for the rest.
func shareClass(weight float64) int {
	switch {
	case math.IsInf(weight, 1):
		return 0
	case weight > 0:
		return 1
	}
	return 2
}

// shareLargest is the largest weight that is finite, 0 if none is above that.
func shareLargest(weights []float64) float64 {
	largest := 0.0
	for _, weight := range weights {
		if shareClass(weight) == 1 {
			largest = max(largest, weight)
		}
	}
	return largest
}

// shareWeight is the weight among those of its class, in (0, 1]: sums of such weights
// do not overflow, nor do demands divided by them.
func shareWeight(weight, largest float64) float64 {
	if shareClass(weight) != 1 {
		return 1
	}
	return max(weight/largest, 1e-12)
}
