package flash

// evict begins to take a span from another class, if that has one to spare, else it drops
// up to n chunks of the class. For what moves it is the other way round, and only a span
// that nothing has to move out of is taken: else one would wait for the other. coming is
// how many extents will be free once that is durable, of whatever class; now says that a
// span is free already. The device's lock is held.
func (d *device) evict(c uint8, n int, e errand) (coming int, now bool) {
	if len(d.mu.freeSpans) > 0 { // what they lack is room for records
		return d.turn(c, n), false
	}
	if e != storing {
		if coming = d.turn(c, n); coming > 0 {
			return coming, false
		}
	}
	x := d.donor(c)
	switch {
	case e != storing && (x == nil || x.puts.Load() > 0 || d.mu.donating != nil):
		return 0, false
	case x == nil:
		return d.turn(c, n), false
	case d.mu.donating != nil: // one is taken already, and waited for
		return 0, false
	}
	d.mu.donating = x
	if coming, now = d.drain(x); !now {
		d.mover.kick() // for what was put, and for what is being written
	}
	return coming, now
}

// chances is how many chunks that were read lately the hand passes in one call at most.
const chances = 4096

// turn moves the hand of a class until n chunks are dropped, at most twice round.
func (d *device) turn(c uint8, n int) (dropped int) {
	state := &d.mu.classes[c]
	h := &state.hand
	passed := 0
	for spans := 2 * len(state.spans); dropped < n && spans > 0; {
		if h.span >= len(state.spans) {
			h.span, h.extent = 0, 0
		}
		x := state.spans[h.span]
		if h.extent >= len(x.slots) || int(x.puts.Load()) == len(x.slots)-x.free {
			h.span, h.extent = h.span+1, 0
			spans--
			continue
		}
		extent := uint32(h.extent)
		h.extent++
		switch d.drop(x, extent, passed < chances, false) {
		case droppedNow:
			dropped++
		case passedOver:
			passed++
		}
	}
	return dropped
}

// What drop did.
type dropResult uint8

const (
	notDropped dropResult = iota
	passedOver            // it was read lately
	droppedNow
	droppedHeld // its extent is free when who holds it releases it
)

// drop drops a chunk that was filled; if chance is set, not one that was read since it was
// last passed over; one that somebody holds only if held is set.
func (d *device) drop(x *span, extent uint32, chance, held bool) dropResult {
	slot := &x.slots[extent]
	if !slot.is(live) {
		return notDropped
	}
	index := &d.store.index
	h, hash := index.shardOf(&slot.id)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case !slot.is(live), slot.kind != filled, slot.holds > 0 && !held:
		return notDropped
	case chance && slot.flags&visited != 0:
		slot.flags &^= visited
		return passedOver
	}
	h.remove(index.find(h, hash, &slot.id))
	d.evicted(x, extent)
	if slot.holds > 0 {
		return droppedHeld
	}
	return droppedNow
}

// longer is how much longer chunks of a class stay before it gives a span to another.
const longer = 2

// donor returns the span that class c may have from another: an empty one, else one that
// stays nearly empty, else one of the class whose chunks stay longest. It is nil if none
// stay much longer than those of c.
func (d *device) donor(c uint8) (donor *span) {
	mine := d.stay(c)
	most := mine * longer
	var idlest *span
	for other := range d.mu.classes {
		state := &d.mu.classes[other]
		if other == int(c) || len(state.spans) == 0 {
			continue
		}
		if state.drained() > len(state.spans)/drainedPart {
			continue
		}
		stay := d.stay(uint8(other))
		if stay <= most && 2*state.free < int(d.geometry.classes[other].extents) {
			continue
		}
		switch x := d.cheapest(state); {
		case x == nil:
		case x.empty():
			return x
		case d.idle(x) && (idlest == nil || d.used(x) < d.used(idlest)):
			idlest = x
		case stay > most:
			donor, most = x, stay
		}
	}
	if idlest != nil {
		return idlest
	}
	return donor
}

// drainedPart is which part of a class, one span in so many, and one more, may be drained and
// not free yet: somebody holds chunks in it. Else who asks for a span would have all of
// them drained meanwhile.
const drainedPart = 8

// drained is how many spans of a class are drained and not free yet.
func (s *classState) drained() (n int) {
	for _, x := range s.spans {
		if x.draining && !x.segment.draining {
			n++
		}
	}
	return n
}

// idleAfter is after what part of the device was written, one in so many, a span that is
// still nearly empty is thought to stay so.
const idleAfter = 4

// idle reports whether a span holds little, and that not only because it is new.
func (d *device) idle(x *span) bool {
	return d.used(x) <= d.geometry.spanBytes/4 && d.mu.written-x.born > d.mu.limit/idleAfter
}

// used is how many bytes of a span are in use.
func (d *device) used(x *span) int64 {
	return int64(len(x.slots)-x.free) * d.geometry.classes[x.class].bytes
}

// A span is not tried again, while no put of those that could not be moved went, until such
// a part of the device was written, one in so many: of two such spans each would take what
// moves out of the other for ever.
const stuckFor = 16

// cheapest is the span that is taken from a class with the least loss: with the fewest
// chunks that were put, which must move, then the fewest chunks. It is nil if there is none,
// or if what was put there would not find room in the others: it would be moved from one to
// the other for ever.
func (d *device) cheapest(s *classState) (best *span) {
	fewest, room := int32(0), 0
	for _, x := range s.spans {
		if x.draining {
			continue
		}
		puts := x.puts.Load()
		room += len(x.slots) - x.lost - int(puts)
		if x.stuck > 0 && puts >= x.stuck && d.mu.written-x.stuckAt < d.mu.limit/stuckFor {
			continue
		}
		if best == nil || puts < fewest || puts == fewest && x.free > best.free {
			best, fewest = x, puts
		}
	}
	if fewest > 0 && room < len(best.slots) {
		return nil
	}
	return best
}

// stay is how long a chunk of a class stays that nobody reads, in turns of the device; -1
// for a class without spans.
func (d *device) stay(c uint8) float64 {
	spans := len(d.mu.classes[c].spans)
	if spans == 0 {
		return -1
	}
	return float64(spans) * float64(d.geometry.spanBytes) / float64(max(1, d.due(c)))
}

// drain lets nothing new into a span and drops what was filled. coming is how many extents
// will be free soon; gone says that the span was empty, and is no class's any more.
func (d *device) drain(x *span) (coming int, gone bool) {
	if !x.draining {
		x.draining = true
		d.mu.classes[x.class].free -= x.free
	}
	for extent := range uint32(len(x.slots)) {
		if d.drop(x, extent, false, true) == droppedNow {
			coming++
		}
	}
	if x.empty() {
		d.disband(x)
		return 0, true
	}
	return coming, false
}

// endDonation ends the time in which a span that was drained is waited for. moved is false
// if something that was put stays in it: it is its class's again then.
func (d *device) endDonation(x *span, moved bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.donating != x {
		return
	}
	defer d.broadcast()
	d.mu.donating = nil
	if moved && x.puts.Load() == 0 || x.segment.draining || x.segment.retired.Load() {
		return // what holds or writes keep there goes by itself
	}
	x.draining, x.stuck, x.stuckAt = false, x.puts.Load(), d.mu.written
	state := &d.mu.classes[x.class]
	state.free += x.free
	state.at = min(state.at, x.order)
}
