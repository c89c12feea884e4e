package prefetch

import "math"

// mostUrgent returns the stream whose next candidate begins now; nil if there is none. It
// takes the bytes from the link.
func (p *Planner) mostUrgent() *stream {
	able := p.able()
	if len(able) == 0 {
		return nil
	}
	s := p.first(able)
	link := p.links[s.Source]
	for !p.allow(s) {
		// Its own accounts let it go, so another job that waits for longer goes first;
		// unless that one wants nothing any more.
		other, ok := link.Precedent(s.job.id)
		if !ok {
			return nil
		}
		if t := earliestOf(able, other, s.Source); t != nil && p.allow(t) {
			return t
		}
		link.Waive(other)
	}
	return s
}

func (p *Planner) allow(s *stream) bool {
	return p.links[s.Source].Allow(p.now, s.job.id, s.candidates.at(0).bytes, s.Rank > 0)
}

// able lists the streams that could begin a fetch now if they were alone.
func (p *Planner) able() []*stream {
	p.ables = p.ables[:0]
	short := false
	for _, s := range p.streams {
		if s.Rank > 0 && p.near >= p.slots(s.Rank) {
			continue
		}
		if c := p.candidate(s); c != nil {
			p.ables = append(p.ables, s)
			short = short || !s.urgent(c) && !p.fits(s, c.bytes)
		}
	}
	if short {
		p.ables = p.withMemory(p.ables)
	}
	able := p.ables[:0]
	for _, s := range p.ables {
		if p.links[s.Source].Open(p.now, s.job.id, s.Rank > 0) {
			able = append(able, s)
		}
	}
	return able
}

// slots is how many fetches may be under way for streams of a rank to begin one.
func (p *Planner) slots(rank uint8) int {
	n := p.options.MaxFlights
	if rank > 0 {
		return max(1, n-max(1, n/4))
	}
	return n
}

// first returns the stream that goes first: of the lowest rank, the one with the earliest
// need. Once half of the fetches that may be are under way, those come before whose job
// has, by weight, no more than its part of them; if all have more, those of the job that
// has least.
func (p *Planner) first(able []*stream) (best *stream) {
	rank := able[0].Rank
	for _, s := range able[1:] {
		rank = min(rank, s.Rank)
	}
	part := math.Inf(1)
	if slots := p.slots(rank); 2*p.near >= slots {
		part = float64(slots) / p.weigh(able, rank)
	}
	least, need := 0.0, Never
	for _, s := range able {
		if s.Rank != rank {
			continue
		}
		load := 0.0
		if has := float64(s.job.flights); has+1 > s.job.weight*part {
			load = has / s.job.weight
		}
		if best != nil && load > least {
			continue
		}
		if by := s.needBy(s.candidates.at(0).first); best == nil || load < least || by < need {
			best, least, need = s, load, by
		}
	}
	return best
}

// weigh returns the sum of the weights of the jobs of a rank.
func (p *Planner) weigh(able []*stream, rank uint8) (weights float64) {
	p.round++
	for _, s := range able {
		if s.Rank == rank && s.job.counted != p.round {
			s.job.counted = p.round
			weights += s.job.weight
		}
	}
	return weights
}

// earliestOf returns the stream of a job that needs a source first, of those of rank 0.
func earliestOf(able []*stream, id JobID, source Source) (best *stream) {
	need := Never
	for _, s := range able {
		if s.job.id != id || s.Source != source || s.Rank > 0 {
			continue
		}
		if by := s.needBy(s.candidates.at(0).first); best == nil || by < need {
			best, need = s, by
		}
	}
	return best
}
