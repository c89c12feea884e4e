package order

import "fmt"

// Permutation is one epoch's order: a bijection between positions and samples, both
// in [0, Len); a List's only, which may repeat samples and leave some out, is none. It is
// a value of fixed size that may be copied and used in parallel.
type Permutation struct {
	kind    Kind
	samples int64
	outer   feistel // global: of samples; windowed: of windows

	// Windowed only. The samples' last window holds short < window samples when
	// window does not divide samples; its place among the windows is shortSlot.
	window    int64
	inner     uint64 // key from which each window's own key is made
	short     int64  // samples of the last window if it is short, else 0
	shortSlot int64  // place of the short window in this epoch's order of windows

	table *table // of the kinds that have one, else nil
}

// setWindows prepares a windowed permutation, whose samples and window are set.
func (p *Permutation) setWindows(key uint64) {
	full := p.samples / p.window
	p.short = p.samples % p.window
	p.inner = mix(key + twoGolden + golden)
	windows := full
	if p.short > 0 {
		windows++
	}
	p.outer = newFeistel(uint64(windows), mix(key+twoGolden))
	if p.short > 0 {
		p.shortSlot = int64(p.outer.backward(uint64(full)))
	}
}

// Len is the number of positions.
func (p Permutation) Len() int64 { return p.samples }

// At returns the sample at a position. It panics if position is not in [0, Len).
func (p Permutation) At(position int64) (sample int64) {
	check("position", position, p.samples)
	switch p.kind {
	case Global:
		return int64(p.outer.forward(uint64(position)))
	case Windowed:
		slot, offset := p.slotOf(position)
		window := int64(p.outer.forward(uint64(slot)))
		inner := p.insideOf(window)
		return window*p.window + int64(inner.forward(uint64(offset)))
	}
	if p.table != nil {
		return int64(p.table.samples[position])
	}
	return position
}

// PositionOf returns the position of a sample: At(PositionOf(s)) == s. It panics if
// sample is not in [0, Len), or not in a List's permutation. A table is searched,
// unless it was inverted (Table.Invert, List.Invert).
func (p Permutation) PositionOf(sample int64) (position int64) {
	position, ok := p.Find(sample)
	if !ok {
		panic(fmt.Sprintf("order: the list lacks sample %d", sample))
	}
	return position
}

// Find is PositionOf for a List that may lack the sample; ok is false if it does. Of a
// sample that comes repeatedly it gives the first position.
func (p Permutation) Find(sample int64) (position int64, ok bool) {
	if p.table != nil {
		check("sample", sample, p.table.universe)
		return p.table.find(sample)
	}
	check("sample", sample, p.samples)
	switch p.kind {
	case Global:
		return int64(p.outer.backward(uint64(sample))), true
	case Windowed:
		window, offset := sample/p.window, sample%p.window
		inner := p.insideOf(window)
		slot := int64(p.outer.backward(uint64(window)))
		return p.startOf(slot) + int64(inner.backward(uint64(offset))), true
	}
	return sample, true
}

// slotOf returns the place among the windows, and the place within that window, of
// a position.
func (p *Permutation) slotOf(position int64) (slot, offset int64) {
	start := p.shortSlot * p.window // of the short window
	if p.short == 0 || position < start {
		return position / p.window, position % p.window
	}
	if position < start+p.short {
		return p.shortSlot, position - start
	}
	position -= p.short // as if the short window were not there
	return position/p.window + 1, position % p.window
}

// startOf returns the first position of the window at a slot.
func (p *Permutation) startOf(slot int64) int64 {
	if p.short > 0 && slot > p.shortSlot {
		return (slot-1)*p.window + p.short
	}
	return slot * p.window
}

// insideOf returns the permutation of the samples within a window.
func (p *Permutation) insideOf(window int64) feistel {
	size := min(p.window, p.samples-window*p.window)
	return newFeistel(uint64(size), mix(p.inner+uint64(window)))
}

func check(what string, n, end int64) {
	if n < 0 || n >= end {
		panic(fmt.Sprintf("order: %s %d is not in [0, %d)", what, n, end))
	}
}
