package prefetch

// Chunks of the cache that staged samples need are pinned until these were taken, so that
// what a window counts on is not dropped: as many bytes as windows may hold, and half the
// cache at most. One that is dropped all the same, because it was not pinned or the cache
// lost it, is staged again.

// pinMost is how many bytes windows may pin.
func (p *Planner) pinMost() int64 { return min(p.options.WindowBytes, p.keeper.Capacity()/2) }

// needCached notes that a stream needs a chunk of the cache up to a turn.
func (p *Planner) needCached(s *stream, c Chunk, bytes, until int64) {
	h := p.cached[c]
	if h == nil {
		h = p.takeHold(c)
		h.ready, h.bytes = true, bytes
		p.pinCached(h)
	}
	if h.use(s.id, until) {
		s.holds.push(listed{h, until})
	}
}

// pinCached makes a hold one of a chunk of the cache.
func (p *Planner) pinCached(h *hold) {
	p.cached[h.chunk], h.cached = h, true
	if h.bytes <= p.pinMost()-p.pinnedBytes {
		h.pinned = true
		p.pinnedBytes += h.bytes
		p.keeper.Pin(h.chunk)
	}
}

// unpinCached ends what pinCached began.
func (p *Planner) unpinCached(h *hold) {
	delete(p.cached, h.chunk)
	h.cached = false
	if h.pinned {
		h.pinned = false
		p.pinnedBytes -= h.bytes
		p.keeper.Unpin(h.chunk)
	}
}

// lost stages again what windows need of a chunk that the cache has no longer.
func (p *Planner) lost(c Chunk) {
	h := p.cached[c]
	if h == nil {
		return
	}
	p.unpinCached(h)
	for _, u := range h.uses {
		if s := p.stream(u.stream); s != nil {
			p.stageLost(s, c, min(u.until, s.staged-1))
		}
	}
}

// stageLost stages the samples of a window up to a turn again that counted on a chunk of
// the cache.
func (p *Planner) stageLost(s *stream, c Chunk, until int64) {
	x, epoch, place := &p.scratch, s.takenEpoch, s.takenPlace
	for turn := s.taken; turn <= until; {
		n := min(stageAtOnce, s.Order.Len(epoch)-place, until+1-turn)
		if n <= 0 {
			if epoch, place = epoch+1, 0; s.beyond(epoch) || s.Order.Len(epoch) <= 0 {
				return
			}
			continue
		}
		if p.lookUp(s, epoch, place, n) != nil {
			return // whoever reads it says what is wrong
		}
		if g := p.groupLost(s, c, turn); g.count > 0 {
			x.fresh = x.fresh[:0]
			p.stageGroup(s, &g)
			s.ready = min(s.ready, x.linked[g.first].turn)
			for _, fresh := range x.fresh {
				fresh.epoch = epoch
				s.insert(fresh)
			}
		}
		turn, place = turn+n, place+n
	}
	s.see()
}

// groupLost links the pieces in a chunk of the samples looked up that counted on the cache
// for them; the first of these samples is of that turn.
func (p *Planner) groupLost(s *stream, c Chunk, turn int64) pieceGroup {
	x := &p.scratch
	x.linked = x.linked[:0]
	g := pieceGroup{chunk: c.Number, size: s.dataset.Layout.ChunkBytes(c.Number)}
	at := int32(0)
	for i, end := range x.ends {
		it := s.items.at(int(turn + int64(i) - s.taken))
		for ; at < end; at++ {
			piece := x.pieces[at]
			if piece.Chunk != c.Number || !p.forgo(s, it, piece.Bytes) {
				continue
			}
			last := int32(len(x.linked))
			if g.count++; g.count > 1 {
				x.linked[g.last].next = last
			}
			g.last = last
			g.needed += piece.Bytes
			x.linked = append(x.linked, linkedPiece{Piece: piece, turn: turn + int64(i), next: -1})
		}
	}
	return g
}

// forgo takes bytes from what a sample has in the cache; false if it has not so many.
func (p *Planner) forgo(s *stream, it *item, bytes int64) bool {
	switch {
	case bytes <= 0:
		return false
	case it.there >= bytes:
		it.there -= bytes
	case it.kept >= bytes: // fetched for nothing
		it.kept -= bytes
		it.arrived -= bytes
		it.bytes -= bytes
		s.metrics.UnusedBytes += bytes
		s.depth.Unused(1)
	case it.shared >= bytes:
		it.shared -= bytes
	default:
		return false
	}
	return true
}

// insert queues a candidate where its need puts it.
func (s *stream) insert(c candidate) {
	s.candidates.push(c)
	for i := s.candidates.len() - 1; i > 0 && s.candidates.at(i-1).first > c.first; i-- {
		before, at := s.candidates.at(i-1), s.candidates.at(i)
		*before, *at = *at, *before
	}
}
