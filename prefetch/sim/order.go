package sim

import "fmt"

// OrderKind names how an epoch's order is made.
type OrderKind uint8

const (
	// Permuted is a random permutation of all samples, another in each epoch.
	Permuted OrderKind = iota
	// Sequential is the samples in turn, equal in each epoch.
	Sequential
	// Windowed cuts the samples into windows, and permutes the windows and the samples
	// within each.
	Windowed
)

// OrderSpec describes an order. The part of one rank of several is what loader/order
// gives it: rank r takes Batch positions from (step·Ranks + r)·Batch on; steps that are
// not full are left out if there are several ranks.
type OrderSpec struct {
	Kind    OrderKind
	Seed    uint64
	Samples int64
	Window  int64 // samples; only Windowed looks at it
	Rank    int64
	Ranks   int64 // 0 counts as 1
	Batch   int64 // samples a rank and step; 0 counts as 1; only several ranks look at it
}

// Order implements prefetch.Order. It is immutable.
type Order struct {
	spec OrderSpec
	len  int64
}

// NewOrder checks spec and returns its order.
func NewOrder(spec OrderSpec) (*Order, error) {
	spec.Ranks, spec.Batch = max(1, spec.Ranks), max(1, spec.Batch)
	switch {
	case spec.Samples < 1:
		return nil, fmt.Errorf("order of %d samples: need at least 1", spec.Samples)
	case spec.Rank < 0 || spec.Rank >= spec.Ranks:
		return nil, fmt.Errorf("order of rank %d: need one of [0, %d)", spec.Rank, spec.Ranks)
	case spec.Kind == Windowed && spec.Window < 1:
		return nil, fmt.Errorf("order with windows of %d samples: need at least 1", spec.Window)
	case spec.Kind > Windowed:
		return nil, fmt.Errorf("order of kind %d is not known", spec.Kind)
	}
	o := &Order{spec: spec, len: spec.Samples}
	if spec.Ranks > 1 {
		o.len = spec.Samples / (spec.Ranks * spec.Batch) * spec.Batch
	}
	if o.len == 0 {
		return nil, fmt.Errorf("order of %d samples for %d ranks of batch %d: no step is full", spec.Samples, spec.Ranks, spec.Batch)
	}
	return o, nil
}

// Len implements prefetch.Order.
func (o *Order) Len(epoch int64) int64 { return o.len }

// At implements prefetch.Order.
func (o *Order) At(epoch, from, n int64, samples []int64) []int64 {
	p := o.epoch(epoch)
	for place := from; place < from+n; place++ {
		samples = append(samples, p.at(o.position(place)))
	}
	return samples
}

// PositionOf implements prefetch.Order.
func (o *Order) PositionOf(epoch, sample int64) (place int64, ok bool) {
	if sample < 0 || sample >= o.spec.Samples {
		return 0, false
	}
	p := o.epoch(epoch)
	position := p.from(sample)
	if o.spec.Ranks == 1 {
		return position, true
	}
	b := o.spec.Batch
	step, rest := position/(o.spec.Ranks*b), position%(o.spec.Ranks*b)
	place = step*b + rest%b
	return place, rest/b == o.spec.Rank && place < o.len
}

// position is where in the order of all ranks a place of this one is.
func (o *Order) position(place int64) int64 {
	if o.spec.Ranks == 1 {
		return place
	}
	b := o.spec.Batch
	return (place/b*o.spec.Ranks+o.spec.Rank)*b + place%b
}

// epochOrder is the bijection between positions and samples of one epoch.
type epochOrder struct {
	kind    OrderKind
	samples int64
	window  int64
	key     uint64
	outer   permutation // of samples, or of whole windows; a short one comes last
}

func (o *Order) epoch(epoch int64) epochOrder {
	e := epochOrder{kind: o.spec.Kind, samples: o.spec.Samples, window: o.spec.Window}
	e.key = mix(mix(o.spec.Seed+golden) + uint64(epoch))
	switch whole := o.spec.Samples / max(1, o.spec.Window); {
	case e.kind == Permuted:
		e.outer = newPermutation(o.spec.Samples, e.key)
	case e.kind == Windowed && whole > 0:
		e.outer = newPermutation(whole, e.key)
	}
	return e
}

// inner is the permutation within a window.
func (e *epochOrder) inner(window int64) permutation {
	size := min(e.window, e.samples-window*e.window)
	return newPermutation(size, mix(e.key+uint64(window)+1))
}

func (e *epochOrder) at(position int64) int64 {
	switch e.kind {
	case Permuted:
		return e.outer.at(position)
	case Windowed:
		window := position / e.window
		if window < int64(e.outer.size) {
			window = e.outer.at(window)
		}
		inner := e.inner(window)
		return window*e.window + inner.at(position%e.window)
	}
	return position
}

func (e *epochOrder) from(sample int64) int64 {
	switch e.kind {
	case Permuted:
		return e.outer.from(sample)
	case Windowed:
		window := sample / e.window
		inner := e.inner(window)
		offset := inner.from(sample % e.window)
		if window < int64(e.outer.size) {
			window = e.outer.from(window)
		}
		return window*e.window + offset
	}
	return sample
}
