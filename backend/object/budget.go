package object

import "sync/atomic"

// Budget is how many descriptors several Dirs may keep cached together, so that
// whoever needs descriptors besides (sockets, memory files) finds some. It is
// first come, first served. A nil Budget is without bound.
type Budget struct{ left atomic.Int64 }

// NewBudget returns a budget of so many descriptors.
func NewBudget(files int) *Budget {
	b := new(Budget)
	b.left.Store(int64(files))
	return b
}

// Left is how many descriptors may still be cached.
func (b *Budget) Left() int64 { return b.left.Load() }

// take asks for one descriptor more.
func (b *Budget) take() bool {
	if b == nil {
		return true
	}
	if b.left.Add(-1) < 0 {
		b.left.Add(1)
		return false
	}
	return true
}

// give returns n descriptors.
func (b *Budget) give(n int) {
	if b != nil {
		b.left.Add(int64(n))
	}
}
