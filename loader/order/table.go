package order

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
)

// table is a sequence of samples that is written down.
type table struct {
	samples  []uint32                 // by position
	universe int64                    // samples are below it
	inverse  atomic.Pointer[[]uint32] // by sample: its first position, or any number; nil if not made
}

// find returns the first position of a sample below universe.
func (t *table) find(sample int64) (position int64, ok bool) {
	if inverse := t.inverse.Load(); inverse != nil {
		position = int64((*inverse)[sample])
		return position, position < int64(len(t.samples)) && int64(t.samples[position]) == sample
	}
	position = int64(slices.Index(t.samples, uint32(sample)))
	return position, position >= 0
}

// invert makes the inverse. Nothing is kept if ctx ends before.
func (t *table) invert(ctx context.Context) error {
	inverse := make([]uint32, t.universe)
	for end := len(t.samples); end > 0; end -= quantum { // backwards: the first position stays
		if err := ctx.Err(); err != nil {
			return err
		}
		start := max(0, end-quantum)
		for i, sample := range slices.Backward(t.samples[start:end]) {
			inverse[sample] = uint32(start + i)
		}
	}
	t.inverse.Store(&inverse)
	return nil
}

// MaxListed bounds the places of a List, which takes 4 bytes for each.
const MaxListed = 1 << 28

// List is an order that somebody wrote down: every epoch visits the same samples. It may
// repeat samples and leave some out. It is immutable and safe for parallel use.
type List struct{ table table }

// NewList copies indices, which are at least one and at most MaxListed numbers of a
// dataset's samples, each in [0, samples).
func NewList(samples int64, indices []int64) (*List, error) {
	switch {
	case samples < 1 || samples > MaxTableSamples:
		return nil, fmt.Errorf("list of a dataset of %d samples: need 1 to %d", samples, int64(MaxTableSamples))
	case len(indices) == 0 || len(indices) > MaxListed:
		return nil, fmt.Errorf("list of %d indices: need 1 to %d", len(indices), MaxListed)
	}
	l := &List{table{samples: make([]uint32, len(indices)), universe: samples}}
	for i, sample := range indices {
		if sample < 0 || sample >= samples {
			return nil, fmt.Errorf("index %d at place %d is not in [0, %d)", sample, i, samples)
		}
		l.table.samples[i] = uint32(sample)
	}
	return l, nil
}

// Len implements Order: the length of the list.
func (l *List) Len() int64 { return int64(len(l.table.samples)) }

// Epoch implements Order.
func (l *List) Epoch(int64) Permutation {
	return Permutation{kind: Listed, samples: l.Len(), table: &l.table}
}

// Invert makes PositionOf and Find of the list's permutations look positions up, for
// 4 bytes a sample of the dataset. Without it they search for them.
func (l *List) Invert(ctx context.Context) error {
	if l.table.inverse.Load() != nil {
		return nil
	}
	return l.table.invert(ctx)
}
