package prefetch

import (
	"math"
	"time"
)

// missingSamples is over how many samples the share of missing ones is averaged: so many
// that a cache which hits all but one in a hundred does not look like one that hits all.
const missingSamples = 4096

// missingWeight is what the newest batch of misses, and the newest fetch, count in the
// other averages of a stream.
const missingWeight = 1.0 / 8

// leastMissing is the share of missing samples below which nothing is planned.
const leastMissing = 1.0 / 1024

// Done tells how a fetch ended. Of two attempts the first that brings the bytes counts.
// The driver should let the other go on to its end: one that was cancelled (an error)
// only tells that it would have taken longer.
func (p *Planner) Done(now Time, id FetchID, r Result) {
	p.advance(now)
	f := p.flights[id]
	if f == nil {
		return // of a driver that says it twice
	}
	delete(p.flights, id)
	switch {
	case f.Far:
		p.fars--
	case !f.Hedge:
		p.near--
	}
	s := p.stream(f.Stream)
	p.observe(s, f, &r)
	var late Metrics // of a stream that has ended
	m := &late
	if s != nil {
		m = &s.metrics
	}
	switch {
	case f.ended:
		m.HedgedBytes += r.Bytes
	case r.Err != nil && f.twin != nil: // the other attempt goes on
		f.twin.take(f)
		m.Failed++
	default:
		p.arrived(s, m, f, &r)
	}
	if s == nil {
		p.totals.add(&late)
		if j := p.jobs[f.Job]; j != nil {
			j.totals.add(&late)
		}
	}
	if f.twin != nil {
		f.twin.twin = nil
	}
	p.putFlight(f)
}

// observe takes a latency in. What was resident is none of its source. An attempt that was
// given up counts as one that takes as long as those do on average that take longer.
func (p *Planner) observe(s *stream, f *flight, r *Result) {
	source := r.Source
	if source >= Sources || r.Err != nil {
		source = f.Source
	}
	switch {
	case r.Took < 0 || r.Err != nil && !f.ended:
	case r.Err != nil:
		p.latencies.Observe(source, f.Bytes, p.longer(source, f.Bytes, r.Took))
	default:
		p.latencies.Observe(source, f.Bytes, r.Took)
		if s != nil && source != Resident {
			s.from = source
			s.fetch += missingWeight * (float64(f.Bytes) - s.fetch)
		}
	}
}

// longer is the mean of the latencies beyond took.
func (p *Planner) longer(source Source, bytes int64, took time.Duration) time.Duration {
	h := p.latencies.For(source, bytes)
	if h == nil {
		return took
	}
	step := max(took/64, time.Microsecond)
	beyond, further := h.Excess(took), h.Excess(took+step)
	if share := float64(beyond-further) / float64(step); share > 0 { // that takes longer
		return took + time.Duration(float64(beyond)/share)
	}
	return took + step
}

// take makes an attempt the one that counts.
func (f *flight) take(other *flight) {
	f.waiters, f.hold = other.waiters, other.hold
	other.waiters, other.hold = 0, nil
	if f.hold != nil {
		f.hold.flight = f.ID
	}
}

// arrived ends a fetch: its bytes are there, or will not come.
func (p *Planner) arrived(s *stream, m *Metrics, f *flight, r *Result) {
	if f.twin != nil {
		if f.Hedge {
			m.HedgesWon++
			f.take(f.twin)
		}
		f.twin.ended = true
	}
	if r.Err != nil {
		m.Failed++
	} else {
		m.FetchedBytes += r.Bytes
	}
	if r.Kept && r.Err == nil {
		p.keeper.Stored(f.Chunk, r.Bytes)
		m.KeptBytes += r.Bytes
	}
	if f.hold != nil {
		p.holdArrived(m, f, r)
		return
	}
	if r.Err == nil {
		m.GapBytes += max(0, r.Bytes-f.Needed)
	}
	if (s == nil || s.seeks != f.seeks) && r.Err == nil {
		m.UnusedBytes += min(f.Needed, r.Bytes)
	}
	p.wakeAll(&f.waiters, r)
}

// holdArrived ends the wait for a whole chunk. What the cache has of it will be asked for;
// what only windows hold is judged when they let it go.
func (p *Planner) holdArrived(m *Metrics, f *flight, r *Result) {
	h := f.hold
	p.wakeAll(&h.waiters, r)
	h.ready, h.flight = true, 0
	if r.Err == nil && !r.Kept {
		h.moved = r.Bytes
	}
	if len(h.uses) == 0 {
		m.UnusedBytes += min(h.needed, h.moved)
		m.GapBytes += h.moved - min(h.needed, h.moved)
		h.moved = 0
	}
	if len(h.uses) == 0 || r.Kept || r.Err != nil { // nobody's, the cache's, or not there at all
		p.forget(h)
	}
}

// forget takes a hold off the planner's list. Streams that list it still let it go later.
func (p *Planner) forget(h *hold) {
	if p.whole[h.chunk] == h {
		delete(p.whole, h.chunk)
	}
	h.ready = true
	if len(h.uses) == 0 {
		p.idleHold = append(p.idleHold, h)
	}
}

// wakeAll lets the samples of a list go on that waited for a fetch.
func (p *Planner) wakeAll(list *int32, r *Result) {
	x := &p.scratch
	for at := *list; at != 0; {
		w := &x.waiters[at-1]
		s := p.stream(w.stream)
		switch {
		case s == nil || s.seeks != w.seeks:
		case w.turn < s.taken: // its reader could not wait
			if r.Err == nil {
				s.metrics.UsedBytes += w.bytes
			}
		default:
			it := s.items.at(int(w.turn - s.taken))
			it.missed = it.missed || r.Err != nil || r.Source != Resident
			if r.Err == nil {
				it.arrived += w.bytes
			}
			if r.Kept {
				it.kept += w.bytes
			}
			if it.pending--; it.pending == 0 {
				it.readyAt = p.now
				s.see()
			}
		}
		next := w.next
		w.next, x.free = x.free, at
		at = next
	}
	*list = 0
}

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
	waited = max(0, waited)
	s.depth.Consumed(p.now, n, waited)
	covered, missed := min(n, s.staged-s.taken), int64(0)
	for range covered {
		if p.use(s, p.now-Time(waited)) {
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
	p.sizeWindow(s)
	p.demand(s.job)
}

// use takes the first sample of a window, which was asked for at that time. It reports
// whether it had to be fetched from somewhere.
func (p *Planner) use(s *stream, asked Time) (missed bool) {
	it := s.items.pop()
	s.taken++
	s.held -= it.held
	m := &s.metrics
	m.Samples++
	m.UsedBytes += it.arrived
	m.SharedBytes += it.shared
	m.ResidentBytes += it.there
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
	if h.owner == s.id {
		s.held -= h.bytes
		h.owner = 0
	}
	if h.leave(s.id) && h.ready {
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
	h := p.latencies.For(from, kind)
	switch {
	case s.missing < leastMissing && !(s.dataset.Keep && p.keeper.Held(s.dataset.id) < s.dataset.Layout.Bytes()):
		s.missing = 0
		s.size = min(s.depth.Set(p.now, h, 0, 0), s.bound)
	case h == nil:
		s.size = min(max(2*s.Batch, p.options.MinDepth), s.bound)
	default:
		s.size = min(s.depth.Set(p.now, h, s.missing, p.hedgeAfter(from, kind)), s.bound)
	}
}

// Missed tells what reads met that were made for a stream: of so many samples so many
// were not resident, and the slowest took that long. That is how a stream whose samples
// were resident for long learns that they no longer are.
func (p *Planner) Missed(now Time, id StreamID, samples, missing int64, slowest time.Duration) {
	p.advance(now)
	s := p.stream(id)
	if s == nil || samples <= 0 || missing <= 0 {
		return
	}
	missing = min(missing, samples)
	s.metrics.Missed += missing
	s.missing += missingWeight * (1 - s.missing) * float64(missing) / float64(samples)
	s.missing = max(s.missing, leastMissing)
	if slowest > 0 {
		p.latencies.Observe(s.Source, int64(s.bytesASample()), slowest)
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

// abandon forgets a stream's window. What was fetched for it alone is waste.
func (p *Planner) abandon(s *stream) {
	for s.candidates.len() > 0 {
		p.discard(s, s.candidates.pop())
	}
	for i := range s.items.len() {
		it := s.items.at(i)
		s.metrics.UnusedBytes += it.arrived - it.kept
	}
	s.items.clear()
	for s.holds.len() > 0 {
		p.leave(s, s.holds.pop().hold)
	}
	s.held = 0
}

// discard forgets a candidate that its stream no longer needs, or that another stream has
// begun. A whole chunk that others wait for is a candidate of theirs as well.
func (p *Planner) discard(s *stream, c candidate) {
	p.drop(&c.waiters)
	h := c.hold
	if h == nil || h.flight != 0 || h.ready || p.whole[h.chunk] != h {
		return
	}
	for i := range h.uses {
		if h.uses[i].stream != s.id {
			return
		}
	}
	delete(p.whole, h.chunk)
	p.drop(&h.waiters)
	h.ready = true // for its last user to forget
	if len(h.uses) == 0 {
		p.idleHold = append(p.idleHold, h)
	}
}

// drop forgets a list of waiters.
func (p *Planner) drop(list *int32) {
	x := &p.scratch
	for at := *list; at != 0; {
		next := x.waiters[at-1].next
		x.waiters[at-1].next, x.free = x.free, at
		at = next
	}
	*list = 0
}
