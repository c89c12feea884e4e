package loader

import (
	"github.com/stokerio/stoker/loader/order"
	"github.com/stokerio/stoker/prefetch"
)

var _ prefetch.Order = (*future)(nil)

// future is what one session reads from a place on: its order and its rank's share. Its
// places count the rank's own samples of an epoch; in the first epoch, from where it
// begins. placeOf may be called by anybody, the rest by one goroutine.
type future struct {
	samples int64 // of the dataset
	share   order.Share
	orders  func(epoch int64) (order.Permutation, bool) // false: not to be had yet
	inverse bool                                        // looking a sample up is quick
	epoch   int64                                       // where it begins
	first   stretch                                     // what is read of that epoch
	whole   stretch                                     // of all later ones

	kept    [2]keptOrder // of even and odd epochs
	reached int64        // an epoch whose order could be had, and those before could
	short   bool         // the order of epoch missing could not
	missing int64
}

type keptOrder struct {
	order.Permutation
	epoch int64
	is    bool
}

// newFuture returns what a session reads from a place on.
func newFuture(e *epochs, share order.Share, samples int64, from place) *future {
	f := &future{
		samples: samples, share: share, orders: e.foreseen, inverse: e.computed != nil, epoch: from.epoch,
		first: newStretch(share, samples, from.consumed), whole: newStretch(share, samples, 0),
	}
	if f.first.length == 0 {
		f.epoch, f.first = f.epoch+1, f.whole
	}
	f.reached = f.epoch - 1
	return f
}

// stretch is what one rank reads of an epoch from a position on: steps that all are of
// the share's full size, and the last few, of which some are not.
type stretch struct {
	share   order.Share
	samples int64
	start   int64 // positions that all ranks have read before it
	steps   int64 // of full size
	last    [lastSteps]order.Step
	lasts   int
	length  int64 // samples of the rank
}

// lastSteps is how many steps at the end of an epoch Share.Next may make smaller.
const lastSteps = 2

func newStretch(share order.Share, samples, start int64) stretch {
	s := stretch{share: share, samples: samples, start: start, steps: max(0, share.Steps(samples, start)-lastSteps)}
	s.length = s.steps * int64(share.BatchSize)
	at := start + s.steps*s.group()
	for {
		step, more := share.Next(samples, at)
		if !more {
			return s
		}
		s.last[s.lasts] = step
		s.lasts++
		s.length += step.Length
		at = step.Consumed
	}
}

// group is how many positions a full step of all ranks takes.
func (s *stretch) group() int64 { return int64(s.share.WorldSize) * int64(s.share.BatchSize) }

// find returns the step that the rank's sample at a place below length is in, and which
// of the step's samples it is.
func (s *stretch) find(place int64) (step order.Step, i int64) {
	batch := int64(s.share.BatchSize)
	if place < s.steps*batch {
		step, _ = s.share.Next(s.samples, s.start+place/batch*s.group())
		return step, place % batch
	}
	place -= s.steps * batch
	for _, step := range s.last[:s.lasts] {
		if place < step.Length {
			return step, place
		}
		place -= step.Length
	}
	return order.Step{}, 0
}

// placeOf counts the rank's samples up to the end of a step.
func (s *stretch) placeOf(consumed int64) int64 {
	if done := max(0, consumed-s.start); done <= s.steps*s.group() {
		return done / s.group() * int64(s.share.BatchSize)
	}
	place := s.steps * int64(s.share.BatchSize)
	for _, step := range s.last[:s.lasts] {
		if step.Consumed <= consumed {
			place += step.Length
		}
	}
	return place
}

// of returns what is read of an epoch.
func (f *future) of(epoch int64) *stretch {
	if epoch == f.epoch {
		return &f.first
	}
	return &f.whole
}

// placeOf is the place in an epoch after a step, told by how many positions all ranks
// have read then.
func (f *future) placeOf(at place) int64 { return f.of(at.epoch).placeOf(at.consumed) }

// Len implements prefetch.Order. It is 0 for an epoch whose order is not to be had yet.
func (f *future) Len(epoch int64) int64 {
	if epoch > f.reached {
		if _, ok := f.order(epoch); !ok {
			return 0
		}
		f.reached = epoch
	}
	return f.of(epoch).length
}

// longer reports whether there is more to be read ahead than when an order was not to be
// had: it is now, or the session has passed it.
func (f *future) longer() bool {
	_, ok := f.order(f.missing)
	ok = ok || f.missing < f.reached
	f.short = !ok
	return ok
}

// order returns the order of an epoch.
func (f *future) order(epoch int64) (order.Permutation, bool) {
	kept := &f.kept[epoch&1]
	if kept.is && kept.epoch == epoch {
		return kept.Permutation, true
	}
	p, ok := f.orders(epoch)
	if !ok {
		f.short, f.missing = true, epoch
		return p, false
	}
	*kept = keptOrder{p, epoch, true}
	return p, true
}

// forget lets go of the orders of epochs that are over.
func (f *future) forget(epoch int64) {
	for i := range f.kept {
		if f.kept[i].epoch < epoch {
			f.kept[i] = keptOrder{}
		}
	}
}

// At implements prefetch.Order.
func (f *future) At(epoch, from, n int64, samples []int64) []int64 {
	p, ok := f.order(epoch)
	s := f.of(epoch)
	for end := min(from+n, s.length); ok && from < end; {
		step, i := s.find(from)
		for ; i < step.Length && from < end; i++ {
			samples = append(samples, p.At(step.Position(i, f.samples)))
			from++
		}
	}
	return samples
}

// PositionOf implements prefetch.Order. It does not say where drawn orders have a sample:
// they would have to be searched.
func (f *future) PositionOf(epoch, sample int64) (place int64, ok bool) {
	p, ok := f.order(epoch)
	if !ok || !f.inverse || f.share.Padded || sample < 0 || sample >= f.samples {
		return 0, false
	}
	position, s := p.PositionOf(sample), f.of(epoch)
	if position < s.start {
		return 0, false
	}
	if steps := (position - s.start) / s.group(); steps < s.steps {
		step, _ := f.share.Next(f.samples, s.start+steps*s.group())
		within := position - step.Start
		return steps*int64(f.share.BatchSize) + within, within >= 0 && within < step.Length
	}
	place = s.steps * int64(f.share.BatchSize)
	for _, step := range s.last[:s.lasts] {
		if within := position - step.Start; within >= 0 && within < step.Length {
			return place + within, true
		}
		place += step.Length
	}
	return 0, false
}
