package prefetch

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// stageAtOnce bounds how many samples are looked up at once: as many as let the pieces of
// one chunk meet, and as few as keep planning from delaying the fetches that are due.
const stageAtOnce = 1024

// scratch is the memory of one stage call.
type scratch struct {
	samples []int64
	pieces  []Piece
	ends    []int32
	groups  []pieceGroup
	linked  []linkedPiece
	sorted  []int32
	fresh   []candidate
	table   []int32 // open addressing: chunk -> number of its group + 1

	waiters []waiter
	free    int32 // list of waiters that are not used
}

// leastMeets is how many samples of a stage share a chunk where peeking is worth it.
const leastMeets = 1.25

// peeked is how many samples behind those that are staged are counted where samples of
// one chunk lie close together, so that the first of a chunk's samples is not fetched
// alone and then again with the others.
const peeked = 64

// peekEvery is how often samples are looked at to learn whether they lie close together.
const peekEvery = 64

// pieceGroup is what a stage found of one chunk.
type pieceGroup struct {
	chunk       int64
	first, last int32 // of its pieces, linked
	count       int32
	needed      int64
	size        int64 // of the chunk
	more        int32 // pieces of samples that follow
	moreBytes   int64
}

// linkedPiece is a piece and its sample.
type linkedPiece struct {
	Piece
	turn int64
	next int32 // of the same chunk, -1: none
}

// waiter is a sample that waits for a fetch.
type waiter struct {
	stream StreamID
	seeks  uint32
	turn   int64
	bytes  int64 // that it waits for
	next   int32 // 0 ends the list; else one more than where it is
}

// addWaiter puts a sample on a list.
func (p *Planner) addWaiter(list *int32, s *stream, turn, bytes int64) {
	x := &p.scratch
	at := x.free
	if at == 0 {
		x.waiters = append(x.waiters, waiter{})
		at = int32(len(x.waiters))
	} else {
		x.free = x.waiters[at-1].next
	}
	x.waiters[at-1] = waiter{stream: s.id, seeks: s.seeks, turn: turn, bytes: bytes, next: *list}
	*list = at
	s.items.at(int(turn-s.taken)).pending++
}

// stage looks up the next n samples of a stream, or those up to the end of its epoch, and
// makes candidates of what must be fetched for them.
func (p *Planner) stage(s *stream, n int64) {
	left := s.Order.Len(s.stagedEpoch) - s.stagedPlace
	n = min(n, stageAtOnce, left)
	if n <= 0 { // the order is shorter than it was
		s.over = true
		return
	}
	asked := n
	if s.stages++; s.meets > leastMeets || s.stages%peekEvery == 1 {
		asked = min(n+peeked, left)
	}
	x := &p.scratch
	err := p.lookUp(s, s.stagedEpoch, s.stagedPlace, asked)
	if err != nil && asked > n { // what is only looked at may be what is broken
		err = p.lookUp(s, s.stagedEpoch, s.stagedPlace, n)
	}
	if err == nil {
		err = p.group(s, n)
	}
	if err != nil {
		s.err = fmt.Errorf("look up samples %d to %d of epoch %d: %w", s.stagedPlace, s.stagedPlace+n-1, s.stagedEpoch, err)
		return
	}
	for range n {
		s.items.push(item{readyAt: p.now})
	}
	s.staged += n
	s.stagedPlace += n
	x.fresh = x.fresh[:0]
	for i := range x.groups {
		p.stageGroup(s, &x.groups[i])
	}
	p.queue(s)
	s.normalize()
	s.see()
}

// lookUp fills the scratch with samples of a stream and their pieces.
func (p *Planner) lookUp(s *stream, epoch, place, n int64) (err error) {
	x := &p.scratch
	x.samples = s.Order.At(epoch, place, n, x.samples[:0])
	if int64(len(x.samples)) != n {
		return fmt.Errorf("the order gave %d of them", len(x.samples))
	}
	x.pieces, x.ends, err = s.dataset.Layout.Pieces(x.samples, x.pieces[:0], x.ends[:0])
	if err == nil && (len(x.ends) != len(x.samples) || int(x.ends[n-1]) != len(x.pieces) || !slices.IsSorted(x.ends)) {
		err = fmt.Errorf("the layout gave %d pieces of %d samples", len(x.pieces), len(x.ends))
	}
	return err
}

// group links the pieces of each chunk for the first n samples, and counts those of the
// samples that follow.
func (p *Planner) group(s *stream, n int64) error {
	x, chunks := &p.scratch, s.dataset.Layout.Chunks()
	size := 16
	for size < 2*len(x.pieces) {
		size *= 2
	}
	if cap(x.table) < size {
		x.table = make([]int32, size)
	}
	x.table = x.table[:size]
	clear(x.table)
	x.groups, x.linked = x.groups[:0], x.linked[:0]
	at := int32(0)
	for i, end := range x.ends {
		for ; at < end; at++ {
			piece := x.pieces[at]
			if int64(i) >= n {
				x.count(&piece)
				continue
			}
			if piece.Chunk < 0 || piece.Chunk >= chunks || piece.Bytes < 0 || piece.Offset < 0 {
				return fmt.Errorf("a sample lies in chunk %d of %d, %d bytes from %d", piece.Chunk, chunks, piece.Bytes, piece.Offset)
			}
			x.linked = append(x.linked, linkedPiece{Piece: piece, turn: s.staged + int64(i), next: -1})
			x.link(at)
		}
	}
	for i := range x.groups {
		g := &x.groups[i]
		g.size = s.dataset.Layout.ChunkBytes(g.chunk)
		for at := g.first; at >= 0; at = x.linked[at].next {
			if l := &x.linked[at]; l.Bytes > g.size || l.Offset > g.size-l.Bytes {
				return fmt.Errorf("a sample lies at %d of chunk %d, with %d bytes; the chunk has %d", l.Offset, g.chunk, l.Bytes, g.size)
			}
		}
	}
	if len(x.groups) > 0 && len(x.ends) > int(n) {
		together := 0
		for i := range x.groups {
			together += int(x.groups[i].count + x.groups[i].more)
		}
		s.meets += (float64(together)/float64(len(x.groups)) - s.meets) / 4
	}
	return nil
}

// count notes a piece that is not staged yet with the group of its chunk, if there is one.
func (x *scratch) count(piece *Piece) {
	mask := uint64(len(x.table) - 1)
	for slot := mixChunk(uint64(piece.Chunk)) & mask; x.table[slot] != 0; slot = (slot + 1) & mask {
		if g := &x.groups[x.table[slot]-1]; g.chunk == piece.Chunk {
			g.more++
			g.moreBytes += max(0, piece.Bytes)
			return
		}
	}
}

// link adds a piece to the group of its chunk.
func (x *scratch) link(at int32) {
	piece, mask := &x.linked[at], uint64(len(x.table)-1)
	for slot := mixChunk(uint64(piece.Chunk)) & mask; ; slot = (slot + 1) & mask {
		number := x.table[slot]
		if number == 0 {
			x.groups = append(x.groups, pieceGroup{chunk: piece.Chunk, first: at, last: at, count: 1, needed: piece.Bytes})
			x.table[slot] = int32(len(x.groups))
			return
		}
		if g := &x.groups[number-1]; g.chunk == piece.Chunk {
			x.linked[g.last].next = at
			g.last = at
			g.count++
			g.needed += piece.Bytes
			return
		}
	}
}

// mixChunk spreads chunk numbers (the finalizer of SplitMix64).
func mixChunk(n uint64) uint64 {
	n = (n ^ n>>30) * 0xBF58476D1CE4E5B9
	n = (n ^ n>>27) * 0x94D049BB133111EB
	return n ^ n>>31
}

// stageGroup decides what becomes of the pieces of one chunk.
func (p *Planner) stageGroup(s *stream, g *pieceGroup) {
	c := Chunk{s.dataset.id, g.chunk}
	if p.keeper.Has(c) {
		p.resident(s, g)
		p.needCached(s, c, g.size, p.scratch.linked[g.last].turn)
		return
	}
	if h := p.whole[c]; h != nil {
		if h.until(s.id) < 0 && h.flight == 0 && !h.ready { // whoever needs it first begins it
			p.candidateOf(s, g, h, s.dataset.Keep && p.keeper.Keeps(c))
		}
		p.join(s, g, h)
		return
	}
	keep := s.dataset.Keep && p.keeper.Keeps(c)
	if !keep && !p.wantsWhole(s, g) {
		p.stageRanges(s, g)
		return
	}
	h := p.takeHold(c)
	h.creator = s.id
	p.whole[c] = h
	p.candidateOf(s, g, h, keep)
	p.join(s, g, h)
}

// wantsWhole decides by how many samples of the window want the chunk: those of the stage,
// those behind it, or, in a shuffle, as many as a window of such a size will hold.
func (p *Planner) wantsWhole(s *stream, g *pieceGroup) bool {
	count, bytes := float64(g.count+g.more), float64(g.needed+g.moreBytes)
	if chunks := s.dataset.Layout.Chunks(); s.meets <= leastMeets && chunks > 0 {
		length := max(1, s.Order.Len(s.stagedEpoch))
		expected := float64(s.dataset.Layout.Samples()) / float64(chunks) * math.Min(1, float64(s.size)/float64(length))
		if expected > count {
			bytes, count = math.Min(bytes/count*expected, float64(g.size)), expected
		}
	}
	return p.options.Cut.whole(count, bytes, float64(g.size))
}

// candidateOf makes a candidate of a whole chunk for a stream that needs it.
func (p *Planner) candidateOf(s *stream, g *pieceGroup, h *hold, keep bool) {
	x := &p.scratch
	x.fresh = append(x.fresh, candidate{
		chunk: g.chunk, bytes: g.size, needed: min(g.needed, g.size), first: x.linked[g.first].turn, last: x.linked[g.last].turn,
		hold: h, serial: h.serial, keep: keep, epoch: s.stagedEpoch,
	})
}

// resident notes that the cache has a group's bytes.
func (p *Planner) resident(s *stream, g *pieceGroup) {
	x := &p.scratch
	for at := g.first; at >= 0; at = x.linked[at].next {
		s.items.at(int(x.linked[at].turn - s.taken)).there += x.linked[at].Bytes
	}
}

// join makes a group's samples wait for a whole chunk that is under way, or use one that
// is there.
func (p *Planner) join(s *stream, g *pieceGroup, h *hold) {
	x := &p.scratch
	for at := g.first; at >= 0; at = x.linked[at].next {
		l := &x.linked[at]
		it := s.items.at(int(l.turn - s.taken))
		own := l.Bytes
		if h.creator != s.id {
			it.shared += l.Bytes
			own = 0
		}
		it.bytes += own
		switch {
		case h.ready && h.found:
			it.found += own
		case h.ready:
			it.arrived += own
		default:
			p.addWaiter(&h.waiters, s, l.turn, own)
		}
	}
	h.needed += g.needed
	if h.use(s.id, x.linked[g.last].turn) {
		s.holds.push(listed{h, x.linked[g.last].turn})
	}
}

// stageRanges makes candidates of exact ranges, those that lie close together in one.
func (p *Planner) stageRanges(s *stream, g *pieceGroup) {
	x := &p.scratch
	x.sorted = x.sorted[:0]
	for at := g.first; at >= 0; at = x.linked[at].next {
		x.sorted = append(x.sorted, at)
	}
	if len(x.sorted) > 1 {
		slices.SortFunc(x.sorted, func(a, b int32) int { return cmp.Compare(x.linked[a].Offset, x.linked[b].Offset) })
	}
	var c candidate
	for i, at := range x.sorted {
		l := &x.linked[at]
		end := c.offset + c.bytes
		if i == 0 || !p.options.Cut.joins(l.Offset-end) {
			if i > 0 {
				x.fresh = append(x.fresh, c)
			}
			c = candidate{chunk: g.chunk, offset: l.Offset, first: l.turn, last: l.turn, epoch: s.stagedEpoch}
			end = l.Offset
		}
		own := max(0, l.Offset+l.Bytes-max(end, l.Offset)) // bytes that samples have in common are one's alone, as they are moved once
		c.needed += own
		c.bytes = max(end, l.Offset+l.Bytes) - c.offset
		c.first, c.last = min(c.first, l.turn), max(c.last, l.turn)
		it := s.items.at(int(l.turn - s.taken))
		it.bytes += own
		p.addWaiter(&c.waiters, s, l.turn, own)
	}
	x.fresh = append(x.fresh, c)
}

// queue puts the fresh candidates in the order of their need and queues them.
func (p *Planner) queue(s *stream) {
	x := &p.scratch
	byNeed := func(a, b candidate) int { return cmp.Compare(a.first, b.first) }
	if !slices.IsSortedFunc(x.fresh, byNeed) {
		slices.SortStableFunc(x.fresh, byNeed)
	}
	for _, c := range x.fresh {
		s.candidates.push(c)
	}
}

func (p *Planner) takeHold(c Chunk) *hold {
	var h *hold
	if n := len(p.idleHold); n > 0 {
		h = p.idleHold[n-1]
		p.idleHold = p.idleHold[:n-1]
	} else {
		h = new(hold)
	}
	*h = hold{chunk: c, uses: h.uses[:0], serial: h.serial + 1}
	return h
}
