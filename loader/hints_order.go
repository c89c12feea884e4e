package loader

import (
	"github.com/stokerio/stoker/loader/order"
	"github.com/stokerio/stoker/prefetch"
)

// hintOrder is the future that a hint announces: length places, from a first one on, as
// the one epoch of a stream of the planner.
type hintOrder struct {
	places places
	from   int64
	length int64
}

var _ prefetch.Order = (*hintOrder)(nil)

// places are samples in the order of their use.
type places interface {
	// len is how many there are.
	len() int64
	// at appends the samples at places [from, from+n).
	at(from, n int64, samples []int64) []int64
}

// Len implements prefetch.Order.
func (o *hintOrder) Len(epoch int64) int64 {
	if epoch != 0 {
		return 0
	}
	return o.length
}

// At implements prefetch.Order.
func (o *hintOrder) At(_, from, n int64, samples []int64) []int64 {
	return o.places.at(o.from+from, n, samples)
}

// PositionOf implements prefetch.Order: nobody asks it of a hint.
func (o *hintOrder) PositionOf(int64, int64) (int64, bool) { return 0, false }

// listed are samples that were written down.
type listed struct{ list order.Permutation }

func (l listed) len() int64 { return l.list.Len() }

func (l listed) at(from, n int64, samples []int64) []int64 {
	for i := range n {
		samples = append(samples, l.list.At(from+i))
	}
	return samples
}

// numbered are the numbers from 0 on.
type numbered int64

func (n numbered) len() int64 { return int64(n) }

func (n numbered) at(from, count int64, samples []int64) []int64 {
	for i := range count {
		samples = append(samples, from+i)
	}
	return samples
}

// shared are the samples that one rank reads in some epochs, one after another.
type shared struct {
	order  func(epoch int64) order.Permutation
	epoch  int64 // the first
	epochs int64
	stretch
}

// newShared prepares what an epoch's steps are. The share must be valid.
func newShared(of func(epoch int64) order.Permutation, samples int64, share order.Share, epoch, epochs int64) *shared {
	return &shared{order: of, epoch: epoch, epochs: epochs, stretch: newStretch(share, samples, 0)}
}

func (s *shared) len() int64 { return s.length * s.epochs }

func (s *shared) at(from, n int64, samples []int64) []int64 {
	for n > 0 && s.length > 0 {
		epoch, place := from/s.length, from%s.length
		count := min(n, s.length-place)
		samples = s.inEpoch(s.order(s.epoch+epoch), place, count, samples)
		from, n = from+count, n-count
	}
	return samples
}

// inEpoch appends the samples at places [from, from+n) of one epoch.
func (s *shared) inEpoch(p order.Permutation, from, n int64, samples []int64) []int64 {
	for n > 0 {
		step, skip := s.find(from)
		count := min(n, step.Length-skip)
		for i := range count {
			samples = append(samples, p.At(step.Position(skip+i, s.samples)))
		}
		from, n = from+count, n-count
	}
	return samples
}
