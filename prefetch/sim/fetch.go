package sim

import (
	"fmt"
	"math"
	"slices"

	"github.com/stokerio/stoker/prefetch"
)

// positionBits is how many bits of a position count samples within an epoch; those above
// count epochs.
const positionBits = 40

func position(epoch, place int64) int64 { return epoch<<positionBits | place }

// epochsAhead is how many epochs after the current one a fetch may be for.
const epochsAhead = 4

// fetch begins a fetch of a node's Decider.
func (e *engine) fetch(who int32, f *prefetch.Fetch) error {
	n := &e.nodes[who]
	index, known := n.streams[f.Stream]
	if !known {
		return fmt.Errorf("fetch %d (hedge: %v) is for stream %d, which is not known", f.ID, f.Hedge, f.Stream)
	}
	s := &e.streams[index]
	dataset, known := n.byID[f.Chunk.Dataset]
	if !known {
		return fmt.Errorf("fetch %d is for dataset %d, which is not known", f.ID, f.Chunk.Dataset)
	}
	l := e.world.Datasets[dataset].Layout
	if f.Chunk.Number < 0 || f.Chunk.Number >= l.Chunks() || f.Offset < 0 || f.Bytes < 1 || f.Offset+f.Bytes > l.ChunkBytes(f.Chunk.Number) {
		return fmt.Errorf("fetch %d is of %d bytes from %d of chunk %d of %d", f.ID, f.Bytes, f.Offset, f.Chunk.Number, l.Chunks())
	}
	if _, twice := n.attempts[f.ID]; twice {
		return fmt.Errorf("fetch %d is begun twice", f.ID)
	}
	s.result.Fetches++
	e.grow(n, s, f.Bytes)
	at := int32(0)
	if f.Hedge {
		s.result.Hedges++
		at = e.attempts.at(n.attempts[f.Of]).hold
	}
	hedge := at != 0
	if !hedge {
		at = e.holds.add(hold{
			chunkKey: chunkKey{dataset, f.Chunk.Number}, node: who, stream: index,
			offset: f.Offset, bytes: f.Bytes, whole: f.Bytes == l.ChunkBytes(f.Chunk.Number), keep: f.Keep,
		})
		e.want(s, l, at, int64(f.Samples))
		e.chain(at)
	}
	e.request(attempt{id: f.ID, bytes: f.Bytes, hold: at, node: who, stream: index, source: s.spec.Source, hedge: hedge})
	return nil
}

// request sends an attempt on its way.
func (e *engine) request(a attempt) {
	n, h := &e.nodes[a.node], e.holds.at(a.hold)
	a.begun, a.next = e.now, h.attempts
	at := e.attempts.add(a)
	h.attempts = at
	if !a.demand {
		n.attempts[a.id] = at
	}
	latency := n.spec.Sources[a.source].Law.Draw(n.random[a.source])
	e.events.push(e.now.Add(max(0, latency)), firstByte, at, 0)
}

// want finds which samples of its stream a new hold is for: the next ones to be taken of
// those that lie in its bytes and that no other hold is for.
func (e *engine) want(s *stream, l *Layout, at int32, samples int64) {
	h := e.holds.at(at)
	if samples <= 0 || s.state != running {
		return
	}
	first, end := l.samplesIn(h.chunk, h.offset, h.bytes)
	s.wanted = s.wanted[:0]
	for epoch := s.epoch; epoch <= s.epoch+epochsAhead && int64(len(s.wanted)) < samples; epoch++ {
		if s.over(epoch) {
			break
		}
		from := len(s.wanted)
		for sample := first; sample < end; sample++ {
			place, ok := s.spec.Order.PositionOf(epoch, sample)
			if p := position(epoch, place); ok && p >= s.position() && !e.covered(s, l, h, sample, p) {
				s.wanted = append(s.wanted, want{p, l.overlap(sample, h.chunk, h.offset, h.bytes)})
			}
		}
		slices.SortFunc(s.wanted[from:], func(a, b want) int { return int(min(1, max(-1, a.position-b.position))) })
	}
	for _, w := range s.wanted[:min(int64(len(s.wanted)), samples)] {
		h.until = w.position
		h.need += w.bytes
		h.left++
	}
	s.move(e.now)
	s.depth += h.left
	s.result.MaxDepth = max(s.result.MaxDepth, s.depth)
}

// want is a sample that a hold is for.
type want struct{ position, bytes int64 }

// covered reports whether another hold of the stream is for that sample at that position.
func (e *engine) covered(s *stream, l *Layout, h *hold, sample, p int64) bool {
	for at := e.nodes[s.spec.Node].holds[h.chunkKey]; at != 0; at = e.holds.at(at).next {
		other := e.holds.at(at)
		if other.stream == s.index && !other.demand && !other.unwanted && other.until >= p &&
			l.overlap(sample, h.chunk, other.offset, other.bytes) == l.overlap(sample, h.chunk, 0, math.MaxInt64/4) {
			return true
		}
	}
	return false
}

// find returns the hold that has a piece for a stream, 0 if there is none: its own before
// others', one that is there before one under way.
func (e *engine) find(s *stream, p prefetch.Piece) (at int32, own bool) {
	best, rank := int32(0), 0
	for at := e.nodes[s.spec.Node].holds[chunkKey{int32(s.spec.Dataset), p.Chunk}]; at != 0; at = e.holds.at(at).next {
		h := e.holds.at(at)
		if !h.covers(p) {
			continue
		}
		r := 1
		if h.done {
			r++
		}
		if h.stream == s.index && !h.demand && h.until >= s.position() {
			r += 2
		}
		if r > rank {
			best, rank = at, r
		}
	}
	return best, rank > 2
}
