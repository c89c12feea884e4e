package prefetch

// Far fetches fill the cache from what near fetches leave of a link: chunks that will be
// kept and that no window has come to yet.

// farAtOnce is how many samples one look ahead covers.
const farAtOnce = 256

// farLooks bounds the looks ahead of one call.
const farLooks = 16

// far begins a fetch for the cache beyond a window, the streams in turn.
func (p *Planner) far(f *Fetch) bool {
	for range p.streams {
		p.farTurn++
		s := p.streams[p.farTurn%len(p.streams)]
		if s.err == nil && p.lacks(s.dataset) && p.farOf(s, f) {
			return true
		}
	}
	return false
}

// lacks reports whether the cache should hold more of a dataset than it does.
func (p *Planner) lacks(d *dataset) bool {
	return d.Keep && p.keeper.Held(d.id) < p.keeper.Share(d.id)/200*199
}

// farOf begins a fetch for the cache beyond the window of one stream.
func (p *Planner) farOf(s *stream, f *Fetch) bool {
	s.syncFar()
	for range farLooks {
		if s.farChunks.len() == 0 && !p.lookAhead(s) {
			return false
		}
		for s.farChunks.len() > 0 {
			c := Chunk{s.dataset.id, *s.farChunks.at(0)}
			if p.wantsFar(c) {
				return p.beginFar(s, c, f)
			}
			s.farChunks.pop()
		}
	}
	return false // Wake says that there is more to look at
}

// wantsFar reports whether a chunk belongs into the cache and is not on its way.
func (p *Planner) wantsFar(c Chunk) bool {
	return p.keeper.Keeps(c) && !p.keeper.Has(c) && p.whole[c] == nil
}

// lookAhead finds chunks that belong into the cache among the samples of the next epoch's
// length. It reports whether there is more to look at, or something was found.
func (p *Planner) lookAhead(s *stream) bool {
	if !s.seesFar() {
		return false
	}
	x := &p.scratch
	length := s.Order.Len(s.farEpoch)
	n := min(farAtOnce, length-s.farPlace)
	x.samples = s.Order.At(s.farEpoch, s.farPlace, n, x.samples[:0])
	var err error
	if x.pieces, x.ends, err = s.dataset.Layout.Pieces(x.samples, x.pieces[:0], x.ends[:0]); err != nil {
		return false // the window comes to it, and says so
	}
	for i := range x.pieces {
		if c := (Chunk{s.dataset.id, x.pieces[i].Chunk}); p.wantsFar(c) {
			s.farChunks.push(c.Number)
		}
	}
	s.farPlace += n
	s.farAt += n
	if s.farPlace >= length {
		s.farEpoch, s.farPlace = s.farEpoch+1, 0
	}
	return true
}

// beginFar makes a fetch for the cache, if near fetches leave so much of the link.
func (p *Planner) beginFar(s *stream, c Chunk, f *Fetch) bool {
	size := s.dataset.Layout.ChunkBytes(c.Number)
	if !p.links[s.Source].Allow(p.now, s.job.id, size, true) {
		return false
	}
	s.farChunks.pop()
	h := p.takeHold(c)
	p.whole[c] = h
	p.last.fetch++
	n := p.takeFlight()
	n.Fetch = Fetch{ID: p.last.fetch, Stream: s.id, Job: s.job.id, Chunk: c, Bytes: size, Whole: true, Keep: true, Far: true,
		Source: s.Source, NeedBy: Never, Epoch: s.farEpoch}
	n.seeks, n.begun, n.hold = s.seeks, p.now, h
	h.flight = n.ID
	s.metrics.Fetches++
	p.fars++
	p.flights[n.ID] = n // no hedges: nobody waits for it
	*f = n.Fetch
	return true
}

// seesFar reports whether there are samples to look at within the next epoch's length.
func (s *stream) seesFar() bool {
	length := s.Order.Len(s.farEpoch)
	return !s.over && !s.beyond(s.farEpoch) && length > s.farPlace && s.farAt-s.staged < length
}

// syncFar moves the far mark ahead of the window.
func (s *stream) syncFar() {
	if s.farEpoch < s.stagedEpoch || s.farEpoch == s.stagedEpoch && s.farPlace < s.stagedPlace || s.farSeeks != s.seeks {
		s.farEpoch, s.farPlace, s.farAt, s.farSeeks = s.stagedEpoch, s.stagedPlace, s.staged, s.seeks
	}
}

// farWake is when a far fetch may begin.
func (p *Planner) farWake() Time {
	at := Never
	if p.fars >= p.options.MaxFlights/4+1 {
		return at
	}
	for _, s := range p.streams {
		if s.err != nil || !p.lacks(s.dataset) {
			continue
		}
		for s.farChunks.len() > 0 && !p.wantsFar(Chunk{s.dataset.id, *s.farChunks.at(0)}) {
			s.farChunks.pop()
		}
		if s.farChunks.len() > 0 {
			size := s.dataset.Layout.ChunkBytes(*s.farChunks.at(0))
			at = min(at, p.links[s.Source].NextAllowed(p.now, s.job.id, size, true))
		} else if s.seesFar() {
			at = p.now
		}
	}
	return at
}
