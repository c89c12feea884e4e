package prefetch

import "time"

// missingWeight is what the newest batch of misses, and the newest fetch, count in the
// other averages of a stream.
const missingWeight = 1.0 / 8

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
	p.ranges.remove(f)
	switch {
	case f.Far:
		p.fars--
	case !f.Hedge:
		p.near--
		if j := p.jobs[f.Job]; j != nil {
			j.flights--
		}
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
		p.release(&f.claim)
		m.HedgedBytes += r.moved()
	case r.Err != nil && f.twin != nil: // the other attempt goes on
		p.release(&f.claim)
		if !f.Hedge {
			p.handOver(f)
		}
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

// handOver makes the hedge the one that samples wait for, of a first attempt that failed.
func (p *Planner) handOver(f *flight) {
	f.twin.take(f)
	if d := p.datasets[f.Chunk.Dataset]; d != nil {
		p.listRange(f.twin, d)
	}
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
	f.waiters, f.hold, f.until = other.waiters, other.hold, other.until
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
	}
	m.FetchedBytes += r.moved()
	if r.Kept && r.Err == nil {
		p.keeper.Stored(f.Chunk, r.Bytes)
		m.KeptBytes += r.Bytes
	}
	if f.hold != nil {
		p.holdArrived(m, f, r)
		return
	}
	p.rangeArrived(f, r)
	moved := r.moved()
	m.GapBytes += max(0, moved-f.Needed)
	if !p.wakeAll(&f.waiters, r) {
		m.UnusedBytes += min(f.Needed, moved)
	}
}

// rangeArrived has the last sample that waits for a range hold its memory, which is one
// piece. Where all were taken meanwhile, or none will come, nobody holds it any more.
func (p *Planner) rangeArrived(f *flight, r *Result) {
	if s := p.claimant(&f.claim); s != nil && r.Err == nil && f.until >= s.taken {
		s.items.at(int(f.until - s.taken)).held += f.claim.bytes
		return
	}
	p.release(&f.claim)
}

// moved is how many bytes came from somewhere. What was found resident cost nothing, so it
// cannot be wasted either.
func (r *Result) moved() int64 {
	if r.Err != nil || r.Source == Resident {
		return 0
	}
	return max(0, r.Bytes)
}

// holdArrived ends the wait for a whole chunk. What the cache has of it will be asked for;
// what only windows hold is judged when they let it go.
func (p *Planner) holdArrived(m *Metrics, f *flight, r *Result) {
	h := f.hold
	p.wakeAll(&h.waiters, r)
	h.ready, h.flight = true, 0
	h.found = r.Err == nil && r.Source == Resident
	if !r.Kept {
		h.moved = r.moved()
	}
	if len(h.uses) == 0 {
		m.UnusedBytes += min(h.needed, h.moved)
		m.GapBytes += h.moved - min(h.needed, h.moved)
		h.moved = 0
	}
	if len(h.uses) == 0 || r.Kept || r.Err != nil { // nobody's, the cache's, or not there at all
		p.forget(h)
	}
	p.release(&f.claim)
	p.adopt(h)
	if r.Kept && r.Err == nil && len(h.uses) > 0 && p.cached[h.chunk] == nil && p.keeper.Has(h.chunk) {
		p.pinCached(h)
	}
}

// forget takes a hold off the planner's list. Streams that list it still let it go later.
func (p *Planner) forget(h *hold) {
	if h.cached {
		p.unpinCached(h)
	} else if p.whole[h.chunk] == h {
		delete(p.whole, h.chunk)
	}
	h.ready = true
	if len(h.uses) == 0 {
		p.idleHold = append(p.idleHold, h)
	}
}

// wakeAll lets the samples of a list go on that waited for a fetch. It reports whether there
// were any whose stream still reads them.
func (p *Planner) wakeAll(list *int32, r *Result) (wanted bool) {
	x := &p.scratch
	for at := *list; at != 0; {
		w := &x.waiters[at-1]
		s := p.stream(w.stream)
		switch {
		case s == nil || s.seeks != w.seeks:
		case w.turn < s.taken: // its reader could not wait
			wanted = true
			s.metrics.taken(w.bytes, r)
		default:
			wanted = true
			it := s.items.at(int(w.turn - s.taken))
			it.missed = it.missed || r.Err != nil || r.Source != Resident
			it.arrive(w.bytes, r)
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
	return wanted
}

// taken counts bytes that arrived for a sample which was taken before.
func (m *Metrics) taken(bytes int64, r *Result) {
	switch {
	case r.Err != nil:
	case r.Source == Resident:
		m.ResidentBytes += bytes
	default:
		m.UsedBytes += bytes
	}
}

// arrive counts bytes that a sample waited for.
func (it *item) arrive(bytes int64, r *Result) {
	switch {
	case r.Err != nil:
	case r.Source == Resident && r.Kept:
		it.there += bytes
	case r.Source == Resident:
		it.found += bytes
	default:
		it.arrived += bytes
		if r.Kept {
			it.kept += bytes
		}
	}
}

// abandon forgets a stream's window, and returns how many samples of it had been fetched.
// What was fetched for it alone is waste.
func (p *Planner) abandon(s *stream) (fetched int64) {
	for s.candidates.len() > 0 {
		p.discard(s, s.candidates.pop())
	}
	for i := range s.items.len() {
		it := s.items.at(i)
		s.metrics.UnusedBytes += it.arrived - it.kept
		if it.arrived > it.kept {
			fetched++
		}
	}
	s.items.clear()
	for s.holds.len() > 0 {
		p.leave(s, s.holds.pop().hold)
	}
	p.hold(s, -s.held)
	return fetched
}

// discard forgets a candidate that its stream no longer needs, or that another stream has
// begun. A whole chunk that others wait for is a candidate of theirs as well.
func (p *Planner) discard(s *stream, c candidate) {
	p.drop(&c.waiters)
	h := c.hold
	if h == nil || h.serial != c.serial || h.flight != 0 || h.ready || p.whole[h.chunk] != h {
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
