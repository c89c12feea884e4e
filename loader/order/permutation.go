package order

import "fmt"

// Permutation is one epoch's order: a bijection between positions and samples, both
// in [0, Len). It is a value of fixed size that may be copied and used in parallel.
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
	p.check("position", position)
	switch p.kind {
	case Global:
		return int64(p.outer.forward(uint64(position)))
	case Windowed:
		slot, offset := p.slotOf(position)
		window := int64(p.outer.forward(uint64(slot)))
		inner := p.insideOf(window)
		return window*p.window + int64(inner.forward(uint64(offset)))
	}
	return position
}

// PositionOf returns the position of a sample: At(PositionOf(s)) == s. It panics if
// sample is not in [0, Len).
func (p Permutation) PositionOf(sample int64) (position int64) {
	p.check("sample", sample)
	switch p.kind {
	case Global:
		return int64(p.outer.backward(uint64(sample)))
	case Windowed:
		window, offset := sample/p.window, sample%p.window
		inner := p.insideOf(window)
		slot := int64(p.outer.backward(uint64(window)))
		return p.startOf(slot) + int64(inner.backward(uint64(offset)))
	}
	return sample
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

func (p *Permutation) check(what string, n int64) {
	if n < 0 || n >= p.samples {
		panic(fmt.Sprintf("order: %s %d is not in [0, %d)", what, n, p.samples))
	}
}
