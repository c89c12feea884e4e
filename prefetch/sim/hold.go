package sim

import (
	"github.com/stokerio/stoker/prefetch"
)

// Holder is what a Decider may be as well: it says which chunks that were fetched whole,
// and not kept, its windows still need. Of other Deciders' the simulator goes by
// prefetch.Fetch.Samples: a fetch is held until as many samples of its stream, those
// that lie in its bytes and come next, were taken.
type Holder interface {
	Holds(c prefetch.Chunk) bool
}

// chunkKey is a chunk of a dataset of the world.
type chunkKey struct {
	dataset int32
	chunk   int64
}

// hold is memory that a fetch fills, from its beginning until its last sample is taken.
type hold struct {
	chunkKey
	node, stream  int32
	offset, bytes int64
	need, used    int64 // bytes of samples that it is for, and of those that used it
	until         int64 // position of the last of these
	left          int64 // of these, not taken yet
	next          int32 // of the chunk's list
	waiters       int32 // streams that wait for it
	attempts      int32 // under way
	whole         bool  // the whole chunk
	keep          bool  // the Decider wants it in the cache
	done          bool  // the bytes are there
	kept          bool  // in the cache
	demand        bool  // the consumer's own read, which no Decider knows
	lingers       bool  // its stream has passed by, the Decider still needs it
	unwanted      bool  // nobody holds it any more; it ends with its attempts
}

// attempt is a request under way for a hold.
type attempt struct {
	id     prefetch.FetchID
	begun  prefetch.Time
	bytes  int64
	hold   int32
	node   int32
	stream int32
	next   int32 // free list
	source prefetch.Source
	demand bool
	hedge  bool
}

// waiter is a stream that waits for a hold, with one piece of its batch.
type waiter struct {
	stream, next int32
	piece        prefetch.Piece
}

// store has the pools; number 0 of each stands for none.
type store struct {
	holds    []hold
	attempts []attempt
	waiters  []waiter
	free     struct{ hold, attempt, waiter int32 }
}

func newStore() store {
	return store{holds: make([]hold, 1), attempts: make([]attempt, 1), waiters: make([]waiter, 1)}
}

func (p *store) newHold(h hold) int32 {
	at := p.free.hold
	if at == 0 {
		at = int32(len(p.holds))
		p.holds = append(p.holds, h)
		return at
	}
	p.free.hold = p.holds[at].next
	p.holds[at] = h
	return at
}

func (p *store) freeHold(at int32) {
	p.holds[at] = hold{next: p.free.hold}
	p.free.hold = at
}

func (p *store) newAttempt(a attempt) int32 {
	at := p.free.attempt
	if at == 0 {
		at = int32(len(p.attempts))
		p.attempts = append(p.attempts, a)
		return at
	}
	p.free.attempt = p.attempts[at].next
	p.attempts[at] = a
	return at
}

func (p *store) freeAttempt(at int32) {
	p.attempts[at] = attempt{next: p.free.attempt}
	p.free.attempt = at
}

func (p *store) wait(h *hold, stream int32, piece prefetch.Piece) {
	at := p.free.waiter
	if at == 0 {
		at = int32(len(p.waiters))
		p.waiters = append(p.waiters, waiter{})
	} else {
		p.free.waiter = p.waiters[at].next
	}
	p.waiters[at] = waiter{stream, h.waiters, piece}
	h.waiters = at
}

// covers reports whether a hold has, or will have, all of a piece.
func (h *hold) covers(p prefetch.Piece) bool {
	return p.Offset >= h.offset && p.Offset+p.Bytes <= h.offset+h.bytes
}

// chain puts a hold on its chunk's list, behind those before it.
func (e *engine) chain(at int32) {
	h := &e.holds[at]
	n := &e.nodes[h.node]
	first := n.holds[h.chunkKey]
	if first == 0 {
		n.holds[h.chunkKey] = at
		return
	}
	for e.holds[first].next != 0 {
		first = e.holds[first].next
	}
	e.holds[first].next = at
}

func (e *engine) unchain(at int32) {
	h := &e.holds[at]
	n := &e.nodes[h.node]
	if first := n.holds[h.chunkKey]; first != at {
		for e.holds[first].next != at {
			first = e.holds[first].next
		}
		e.holds[first].next = h.next
	} else if h.next != 0 {
		n.holds[h.chunkKey] = h.next
	} else {
		delete(n.holds, h.chunkKey)
	}
	h.next = 0
}

// arrived takes in what an attempt brought, and says whether it is in the cache now.
func (e *engine) arrived(a *attempt, n *node, s *stream, ok bool) (kept bool) {
	h := &e.holds[a.hold]
	h.attempts--
	if a.hedge {
		e.grow(n, s, -a.bytes)
	}
	if !ok {
		return false
	}
	if a.demand {
		h.done = true
		s.slowest = max(s.slowest, e.now.Sub(a.begun))
		s.result.DemandBytes += a.bytes
		return false
	}
	s.result.FetchedBytes += a.bytes
	if h.done {
		s.result.HedgeLostBytes += a.bytes
		return h.kept
	}
	h.done = true
	if h.keep && h.whole && e.cache(n, h.dataset, h.chunk, h.bytes) {
		h.kept = true
		s.result.KeptBytes += h.bytes
		e.grow(n, s, -h.bytes)
	}
	return h.kept
}

// settle serves those who wait for a hold, once it is there or has failed.
func (e *engine) settle(at int32) error {
	h := &e.holds[at]
	if !h.done && h.attempts > 0 {
		return nil
	}
	served := h.waiters
	h.waiters = 0
	failed, demand := !h.done, h.demand
	if failed || h.demand || h.unwanted || h.left == 0 && !e.held(h) {
		e.release(at)
	}
	for served != 0 {
		w := e.waiters[served]
		e.waiters[served].next, e.free.waiter = e.free.waiter, served
		served = w.next
		s := &e.streams[w.stream]
		s.pending--
		if failed {
			e.again(s, w.piece, demand)
		}
		if s.pending == 0 {
			if err := e.deliver(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// again looks for a piece whose fetch, or demand read, has failed.
func (e *engine) again(s *stream, p prefetch.Piece, demand bool) {
	if e.nodes[s.spec.Node].datasets[s.spec.Dataset].has(p.Chunk) {
		return
	}
	if e.get(s, p) == missing && !demand {
		s.count(missing)
	}
}

// held reports whether the Decider says that it still needs a hold.
func (e *engine) held(h *hold) bool {
	n := &e.nodes[h.node]
	return h.whole && n.holder != nil && n.holder.Holds(prefetch.Chunk{Dataset: n.datasets[h.dataset].id, Number: h.chunk})
}

// release gives a hold's memory back, now or when its attempts have ended.
func (e *engine) release(at int32) {
	h := &e.holds[at]
	s := &e.streams[h.stream]
	if h.attempts > 0 || h.waiters != 0 {
		h.unwanted = true
		return
	}
	s.move(e.now)
	s.depth -= h.left
	if !h.demand && !h.kept {
		e.grow(&e.nodes[h.node], s, -h.bytes)
	}
	if h.done && !h.demand && !h.kept {
		e.spent(h, s)
	}
	e.unchain(at)
	e.freeHold(at)
}

// spent accounts for the bytes of a hold that was in a window.
func (e *engine) spent(h *hold, s *stream) {
	used := min(h.used, h.bytes)
	s.result.WindowBytes += used
	switch rest := h.bytes - used; {
	case s.state == cut:
		s.result.HeldBytes += rest
	default:
		gap := h.bytes - max(used, min(h.need, h.bytes))
		s.result.GapBytes += gap
		s.result.UnusedBytes += rest - gap
	}
}

// grow changes the memory that a stream's window takes.
func (e *engine) grow(n *node, s *stream, bytes int64) {
	s.move(e.now)
	s.window += bytes
	s.result.MaxWindow = max(s.result.MaxWindow, s.window)
	n.window += bytes
	n.result.MaxWindow = max(n.result.MaxWindow, n.window)
}
