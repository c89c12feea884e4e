package prefetch

// The windows' memory is one pot. What a batch of a stream needs, up to an even part of the
// pot, is promised to it whether it uses it or not; what is left goes to whoever wants it.
// Where that does not do for all, the stream that holds least has the next room: so the
// memory fills up evenly (max-min fair), and no small fetch takes the room that a large
// one waits for.

// claim is a piece of memory that a window counts: of a fetch under way, whether its samples
// are still waited for or not, and of a whole chunk that is there. One of a window that was
// left by a seek counts no more.
type claim struct {
	stream StreamID // 0: nobody counts it
	seeks  uint32
	bytes  int64
}

// claim has a window count memory that is taken for it, and says where it goes beyond what
// there is.
func (p *Planner) claim(s *stream, bytes int64) claim {
	if !p.fits(s, bytes) {
		s.metrics.ExcessBytes += bytes
	}
	p.hold(s, bytes)
	return claim{s.id, s.seeks, bytes}
}

// claimant is whose window counts a claim, nil if none does.
func (p *Planner) claimant(c *claim) *stream {
	if s := p.stream(c.stream); s != nil && s.seeks == c.seeks {
		return s
	}
	return nil
}

// release gives memory back.
func (p *Planner) release(c *claim) {
	if s := p.claimant(c); s != nil {
		p.hold(s, -c.bytes)
	}
	*c = claim{}
}

// adopt has the window of the first stream that needs a chunk which is there count it, if
// none does.
func (p *Planner) adopt(h *hold) {
	if h.claim.stream != 0 || len(h.uses) == 0 || h.bytes == 0 || !h.ready || p.whole[h.chunk] != h {
		return
	}
	if s := p.stream(h.uses[0].stream); s != nil {
		p.hold(s, h.bytes)
		h.claim = claim{s.id, s.seeks, h.bytes}
	}
}

// hold changes the bytes that are under way or ready for a stream's window.
func (p *Planner) hold(s *stream, bytes int64) {
	p.pledged -= s.pledge()
	s.held += bytes
	p.held += bytes
	p.pledged += s.pledge()
}

// promise changes the bytes that a stream may always hold.
func (p *Planner) promise(s *stream, bytes int64) {
	p.pledged -= s.pledge()
	p.promised += bytes - s.promised
	s.promised = bytes
	p.pledged += s.pledge()
}

// pledge is what the others cannot have.
func (s *stream) pledge() int64 { return max(s.held, s.promised) }

// part is an even part of the memory.
func (p *Planner) part() int64 { return p.options.WindowBytes / int64(max(1, len(p.streams))) }

// resize divides the windows' memory anew among the streams.
func (p *Planner) resize() {
	for _, s := range p.streams {
		p.pledgeBatch(s)
	}
}

// pledgeBatch pledges a stream what its batches need, as far as is known.
func (p *Planner) pledgeBatch(s *stream) {
	needs := float64(p.part())
	if s.taking >= 0 {
		needs = min(needs, max(s.taking, s.dataset.mean*float64(s.Batch)))
	}
	p.promise(s, int64(needs))
}

// freed learns from so many samples that were taken, before which the stream held so much.
func (p *Planner) freed(s *stream, samples, held int64) {
	p.account(s, s.usual+(held-s.usual)/usualBatches)
	batch := float64(held-s.held) * float64(s.Batch) / float64(samples)
	if s.taking < 0 {
		s.taking = batch
	}
	s.taking += missingWeight * (batch - s.taking)
	p.pledgeBatch(s)
}

// usualBatches is over how many batches what a stream holds is averaged.
const usualBatches = 8

// account changes what a stream usually holds.
func (p *Planner) account(s *stream, bytes int64) {
	p.usual += bytes - s.usual
	s.usual = bytes
}

// bound is how many samples the window of a stream may hold: as many as fit what the
// others usually leave, and a batch, as less would never be ready.
func (p *Planner) bound(s *stream) int64 {
	bound := s.MaxDepth
	if s.dataset.mean > 0 {
		room := max(p.part(), p.options.WindowBytes-(p.usual-s.usual))
		bound = int64(min(float64(bound), float64(room)/s.dataset.mean))
	}
	return max(bound, s.Batch)
}

// fits reports whether there is memory for so many bytes more of a stream: what is promised
// to it, or to nobody.
func (p *Planner) fits(s *stream, bytes int64) bool {
	if s.held+bytes <= s.promised {
		return p.held+bytes <= p.options.WindowBytes
	}
	return p.pledged-s.pledge()+max(s.held+bytes, s.promised) <= p.options.WindowBytes
}

// urgent reports whether a candidate is of the batch that is taken next: it must not wait
// for memory.
func (s *stream) urgent(c *candidate) bool { return c.first < s.taken+s.Batch }

// scarcity says who has the next room, where there is not enough of it for all.
type scarcity struct {
	any  bool
	rank uint8
	held int64 // by the stream that has it
}

// scarcity looks for the stream of the lowest rank that holds least, of those that have to
// wait for memory, and could have it if all others held no more than is promised to them.
func (p *Planner) scarcity() (least scarcity) {
	for _, s := range p.streams {
		c := p.candidate(s)
		if c == nil || s.urgent(c) || p.fits(s, c.bytes) || least.before(s) || p.promised-s.promised+s.held+c.bytes > p.options.WindowBytes {
			continue
		}
		least = scarcity{any: true, rank: s.Rank, held: s.held}
	}
	return least
}

// before reports whether a stream comes behind the one that has the next room.
func (l scarcity) before(s *stream) bool {
	return l.any && (s.Rank > l.rank || s.Rank == l.rank && s.held > l.held)
}

// withMemory keeps, of streams with candidates, those that may begin theirs.
func (p *Planner) withMemory(streams []*stream) []*stream {
	least := p.scarcity()
	kept := streams[:0]
	for _, s := range streams {
		if p.mayBegin(s, least) {
			kept = append(kept, s)
		}
	}
	return kept
}

// mayBegin reports whether a stream has a candidate within its window, and memory for it.
func (p *Planner) mayBegin(s *stream, least scarcity) bool {
	c := p.candidate(s)
	return c != nil && (s.urgent(c) || p.fits(s, c.bytes) && !least.before(s))
}

// candidate returns a stream's next candidate within its window, nil if there is none.
func (p *Planner) candidate(s *stream) *candidate {
	for s.candidates.len() > 0 {
		c := s.candidates.at(0)
		if c.hold == nil && c.last >= s.taken || c.hold != nil && c.holds(s) {
			if c.first < s.taken+max(s.size, s.Batch) {
				return c
			}
			return nil
		}
		// The consumer was quicker, or another stream has begun it.
		p.discard(s, s.candidates.pop())
	}
	return nil
}
