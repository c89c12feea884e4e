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

// hold is what a fetch is for, from its beginning until its last sample is taken. Each of
// its attempts fills memory of its own; that of the first one to end well is the hold's.
type hold struct {
	chunkKey
	node, stream  int32
	offset, bytes int64
	need, used    int64 // bytes of samples that it is for, and of those that used it
	until         int64 // position of the last of these
	left          int64 // of these, not taken yet
	next          int32 // of the chunk's list
	waiters       int32 // streams that wait for it
	attempts      int32 // the first of those under way
	whole         bool  // the whole chunk
	keep          bool  // the Decider wants it in the cache
	done          bool  // the bytes are there
	kept          bool  // in the cache
	demand        bool  // the consumer's own read, which no Decider knows
	lingers       bool  // its stream has passed by, the Decider still needs it
	unwanted      bool  // nobody holds it any more; it ends with its attempts
	freed         bool  // its memory was given back
}

// attempt is a request under way for a hold.
type attempt struct {
	id     prefetch.FetchID
	begun  prefetch.Time
	bytes  int64
	hold   int32
	node   int32
	stream int32
	next   int32 // of the hold's
	source prefetch.Source
	demand bool
	hedge  bool
	moving bool // its transfer has begun
	given  bool // up: it only waits for its event
}

// waiter is a stream that waits for a hold, with one piece of its batch.
type waiter struct {
	stream, next int32
	piece        prefetch.Piece
}

// store has what runs keep by number.
type store struct {
	holds    pool[hold]
	attempts pool[attempt]
	waiters  pool[waiter]
}

func newStore() store {
	return store{newPool[hold](), newPool[attempt](), newPool[waiter]()}
}

func (p *store) wait(h *hold, stream int32, piece prefetch.Piece) {
	h.waiters = p.waiters.add(waiter{stream, h.waiters, piece})
}

// covers reports whether a hold has, or will have, all of a piece.
func (h *hold) covers(p prefetch.Piece) bool {
	return p.Offset >= h.offset && p.Offset+p.Bytes <= h.offset+h.bytes
}

// chain puts a hold on its chunk's list, behind those before it.
func (e *engine) chain(at int32) {
	h := e.holds.at(at)
	n := &e.nodes[h.node]
	first := n.holds[h.chunkKey]
	if first == 0 {
		n.holds[h.chunkKey] = at
		return
	}
	for e.holds.at(first).next != 0 {
		first = e.holds.at(first).next
	}
	e.holds.at(first).next = at
}

func (e *engine) unchain(at int32) {
	h := e.holds.at(at)
	n := &e.nodes[h.node]
	if first := n.holds[h.chunkKey]; first != at {
		for e.holds.at(first).next != at {
			first = e.holds.at(first).next
		}
		e.holds.at(first).next = h.next
	} else if h.next != 0 {
		n.holds[h.chunkKey] = h.next
	} else {
		delete(n.holds, h.chunkKey)
	}
	h.next = 0
}

// arrived takes in what an attempt brought, and says whether it is in the cache now.
func (e *engine) arrived(a *attempt, n *node, s *stream, ok bool) (kept bool) {
	h := e.holds.at(a.hold)
	if !ok {
		return false
	}
	if !h.done {
		e.seeHold(arrives, a.hold)
	}
	if a.demand {
		h.done = true
		s.reads = append(s.reads, e.now.Sub(a.begun))
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
		return true
	}
	e.grow(n, s, h.bytes)
	return false
}

// settle serves those who wait for a hold, once it is there or has failed.
func (e *engine) settle(at int32) error {
	h := e.holds.at(at)
	if !h.done && h.attempts != 0 {
		return nil
	}
	served := h.waiters
	h.waiters = 0
	failed, demand := !h.done, h.demand
	if failed || h.demand || h.unwanted || h.left == 0 && !e.held(h) {
		e.release(at)
	}
	for served != 0 {
		w := *e.waiters.at(served)
		e.waiters.drop(served)
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

// release gives a hold's memory back. The hold is gone now, or when its attempts have ended.
func (e *engine) release(at int32) {
	h := e.holds.at(at)
	s := &e.streams[h.stream]
	if h.done && !h.demand && !h.kept && !h.freed {
		h.freed = true
		e.grow(&e.nodes[h.node], s, -h.bytes)
	}
	if h.attempts != 0 || h.waiters != 0 {
		h.unwanted = true
		return
	}
	s.move(e.now)
	s.depth -= h.left
	if h.done && !h.demand && !h.kept {
		e.spent(h, s)
	}
	e.seeHold(frees, at)
	e.unchain(at)
	e.holds.drop(at)
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
	if e.now < e.world.From {
		n.result.MaxWindow = 0
	}
	n.result.MaxWindow = max(n.result.MaxWindow, n.window)
}
