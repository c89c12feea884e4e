package prefetch

import (
	"math"
	"time"
)

// missingSamples is over how many samples the share of missing ones is averaged: so many
// that a cache which hits all but one in a hundred does not look like one that hits all.
const missingSamples = 4096

// leastMissing is the share of missing samples below which nothing is planned.
const leastMissing = 1.0 / 1024

// Consumed tells that the consumer has taken all samples before place of epoch, for which
// it waited that long. What does not lie ahead of what was taken is ignored.
func (p *Planner) Consumed(now Time, id StreamID, epoch, place int64, waited time.Duration) {
	p.advance(now)
	s := p.stream(id)
	if s == nil {
		return
	}
	n, ok := s.turns(epoch, place)
	if !ok || n <= 0 {
		return
	}
	waited, held := max(0, waited), s.held
	s.depth.Consumed(p.now, n, waited)
	covered, missed := min(n, s.staged-s.taken), int64(0)
	asked := min(p.now, now+p.skew) - Time(waited) // the driver may tell of fetches first that ended later
	for range covered {
		if p.use(s, asked) {
			missed++
		}
	}
	s.taken += n - covered
	s.takenEpoch, s.takenPlace, s.takenAt = epoch, place, p.now
	if uncovered := n - covered; uncovered > 0 {
		s.metrics.Samples += uncovered
		if s.size > 0 {
			s.metrics.Uncovered += uncovered
		} else {
			s.metrics.OnTime += uncovered // resident, as far as is known; see Missed
		}
		s.staged, s.stagedEpoch, s.stagedPlace = s.taken, epoch, place
		s.normalize()
	}
	if covered > 0 {
		weight := math.Min(1, float64(covered)/missingSamples)
		s.missing += weight * (float64(missed)/float64(covered) - s.missing)
	}
	s.see()
	p.letGo(s)
	p.freed(s, n, held)
	p.sizeWindow(s)
	p.demand(s.job)
}

// use takes the first sample of a window, which was asked for at that time. It reports
// whether it had to be fetched from somewhere.
func (p *Planner) use(s *stream, asked Time) (missed bool) {
	it := s.items.pop()
	s.taken++
	p.hold(s, -it.held)
	m := &s.metrics
	m.Samples++
	m.UsedBytes += it.arrived
	m.SharedBytes += it.shared
	m.ResidentBytes += it.there + it.found
	missed = it.missed || it.pending > 0
	if it.pending == 0 && it.readyAt <= asked {
		m.OnTime++
		m.EarlyNs += int64(asked - it.readyAt)
		s.depth.Used(asked.Sub(it.readyAt), true)
	} else {
		ready := it.readyAt
		if it.pending > 0 {
			ready = p.now
		}
		m.Late++
		m.LateNs += int64(ready.Sub(asked))
		s.depth.Used(-ready.Sub(asked), false)
	}
	if missed && it.bytes > 0 {
		s.bytes += missingWeight / float64(s.Batch) * (float64(it.bytes) - s.bytes)
	}
	return missed
}

// letGo ends the use of whole chunks whose samples were taken.
func (p *Planner) letGo(s *stream) {
	for s.holds.len() > 0 && s.holds.at(0).last < s.taken {
		h := s.holds.pop().hold
		if until := h.until(s.id); until >= s.taken { // it was needed again since
			s.holds.push(listed{h, until})
			continue
		}
		p.leave(s, h)
	}
}

// leave ends a stream's use of a hold.
func (p *Planner) leave(s *stream, h *hold) {
	if h.claim.stream == s.id {
		p.release(&h.claim)
	}
	last := h.leave(s.id)
	p.adopt(h)
	if last && !h.ready && h.flight == 0 { // nobody has begun it
		p.drop(&h.waiters)
		p.forget(h)
		return
	}
	if last && h.ready {
		s.metrics.GapBytes += h.moved - min(h.needed, h.moved)
		p.forget(h)
	}
}

// sizeWindow asks for the depth of a stream's window.
func (p *Planner) sizeWindow(s *stream) {
	from, kind := s.from, int64(s.fetch)
	if kind == 0 { // nothing came from anywhere yet
		from, kind = s.Source, int64(s.bytesASample())
	}
	h, bound := p.latencies.For(from, kind), p.bound(s)
	switch {
	case s.missing < leastMissing && !(s.dataset.Keep && p.keeper.Held(s.dataset.id) < s.dataset.Layout.Bytes()):
		s.missing = 0
		s.size = min(s.depth.Set(p.now, h, 0, 0), bound)
	case h == nil:
		s.size = min(max(2*s.Batch, s.MinDepth), bound)
	default:
		// Less than a batch would never be ready, however much was fetched for nothing.
		s.size = min(max(s.depth.Set(p.now, h, s.missing, p.hedgeAfter(from, kind)), s.Batch), bound)
	}
}

// Missed tells what reads met that were made for a stream: of so many samples so many
// were not resident, and how long reads of those took: of all, or of some that were not
// chosen by that. So a stream whose samples were resident for long learns that they no
// longer are.
func (p *Planner) Missed(now Time, id StreamID, samples, missing int64, took ...time.Duration) {
	p.advance(now)
	s := p.stream(id)
	if s == nil || samples <= 0 || missing <= 0 {
		return
	}
	missing = min(missing, samples)
	s.metrics.Missed += missing
	s.missing += missingWeight * (1 - s.missing) * float64(missing) / float64(samples)
	s.missing = max(s.missing, leastMissing)
	for _, read := range took {
		if read > 0 {
			p.latencies.Observe(s.Source, int64(s.bytesASample()), read)
		}
	}
	p.sizeWindow(s)
}

// Ready is the first sample of a stream that is not ready; all before it are.
func (p *Planner) Ready(id StreamID) (epoch, place int64) {
	s := p.stream(id)
	if s == nil {
		return 0, 0
	}
	epoch, place = s.takenEpoch, s.takenPlace+s.ready-s.taken
	for n := s.Order.Len(epoch); n > 0 && place > n; n = s.Order.Len(epoch) {
		epoch, place = epoch+1, place-n
	}
	return epoch, place
}

// IsReady reports whether all samples before place of epoch are ready.
func (p *Planner) IsReady(id StreamID, epoch, place int64) bool {
	s := p.stream(id)
	if s == nil {
		return false
	}
	n, ok := s.turns(epoch, place)
	return !ok || s.taken+n <= s.ready
}
