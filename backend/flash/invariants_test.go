package flash

import (
	"errors"
	"fmt"
	"math/bits"
)

// Settle makes what is pending durable; more may be pending then.
func (s *Store) Settle() (more bool) {
	for d := range s.all() {
		_ = d.syncer.round() // what failed is dealt with
	}
	for d := range s.all() {
		more = more || d.syncer.pending()
	}
	return more
}

// Invariants checks that the store's memory agrees with itself: every extent of every span
// is free, found, held or lost, and counted as what it is. Nobody may use the store
// meanwhile, and nothing may be pending.
func (s *Store) Invariants() error {
	var failed []error
	found := 0
	for d := range s.all() {
		n, errs := d.invariants()
		found += n
		failed = append(failed, errs...)
	}
	chunks := 0
	for i := range s.index.shards {
		h := &s.index.shards[i]
		h.mu.Lock()
		chunks += h.chunks
		if len(h.writing) > 0 {
			failed = append(failed, fmt.Errorf("shard %d: %d chunks are being written", i, len(h.writing)))
		}
		h.mu.Unlock()
	}
	if chunks != found {
		failed = append(failed, fmt.Errorf("the index has %d chunks, the spans have %d", chunks, found))
	}
	return errors.Join(failed...)
}

// invariants checks a device and counts the chunks that are found on it.
func (d *device) invariants() (found int, failed []error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	wrong := func(format string, values ...any) { failed = append(failed, fmt.Errorf(format, values...)) }
	if n := d.syncer.removing.Load(); n != 0 {
		wrong("%d extents are being freed, and nothing is pending", n)
	}
	unused := map[spanPlace]bool{}
	for _, p := range d.mu.freeSpans {
		if unused[spanPlace{segment: p.segment, number: p.number}] {
			wrong("span %d of %s is free twice", p.number, p.segment.name)
		}
		unused[spanPlace{segment: p.segment, number: p.number}] = true
		if p.segment.spans[p.number] != nil {
			wrong("span %d of %s is free and of a class", p.number, p.segment.name)
		}
	}
	bytes := int64(0)
	of := map[*span]bool{}
	for _, s := range *d.segments.Load() {
		if s == nil {
			continue
		}
		bytes += d.geometry.ledgerAt(s.count(), 0)
		for n, x := range s.spans {
			if x == nil {
				continue
			}
			if x.segment != s || int(x.number) != n {
				wrong("span %d of %s thinks that it is another", n, s.name)
			}
			of[x] = true
			bytes += d.ledgerOf(x.class)
			found += x.invariants(wrong)
		}
	}
	for _, taken := range d.kept {
		bytes += taken
	}
	if bytes != d.mu.bytes {
		wrong("%d bytes are in use, %d are counted", bytes, d.mu.bytes)
	}
	for c := range d.mu.classes {
		free := 0
		for order, x := range d.mu.classes[c].spans {
			if !of[x] || int(x.class) != c || x.order != order {
				wrong("class %d has a span at %d that is not its", c, order)
			}
			delete(of, x)
			if !x.draining {
				free += x.free
			}
			if x.free > 0 && !x.draining && order < d.mu.classes[c].at {
				wrong("class %d: span %d has free extents, and %d is the first that is thought to", c, order, d.mu.classes[c].at)
			}
		}
		if state := &d.mu.classes[c]; free != state.free {
			wrong("class %d has %d free extents and counts %d", c, free, state.free)
		}
	}
	if len(of) > 0 {
		wrong("%d spans are of no class", len(of))
	}
	return found, failed
}

// invariants checks a span and counts the chunks that are found in it. Its device's lock
// is held.
func (x *span) invariants(wrong func(string, ...any)) (found int) {
	name := fmt.Sprintf("span %d of %s", x.number, x.segment.name)
	index := &x.segment.device.store.index
	free, puts, lost := 0, int32(0), 0
	for i := range x.slots {
		slot := &x.slots[i]
		marked := x.unused[i/64]&(1<<(i%64)) != 0
		switch state := slot.state; {
		case marked != (state == 0):
			wrong("%s: extent %d is in state %d, and free is %v", name, i, state, marked)
		case state == 0:
			free++
		case slot.is(live):
			found++
			if slot.kind == put {
				puts++
			}
			h, hash := index.shardOf(&slot.id)
			h.mu.Lock()
			if r := index.lookup(h, hash, &slot.id); r != newRef(x.segment.device.number, x.place(uint32(i))) {
				wrong("%s: extent %d is found as %x", name, i, r)
			}
			h.mu.Unlock()
		case slot.is(doomed) && slot.flags&bad != 0:
			lost++
		case slot.is(doomed) && (slot.holds > 0 || x.segment.retired.Load() || x.segment.device.writable() != nil):
		default:
			wrong("%s: extent %d is in state %d, with %d holds: it has leaked", name, i, state, slot.holds)
		}
	}
	words := 0
	for _, w := range x.unused {
		words += bits.OnesCount64(w)
	}
	if free != x.free || words != x.free {
		wrong("%s: %d extents are free, %d in the map, %d counted", name, free, words, x.free)
	}
	if puts != x.puts.Load() {
		wrong("%s: %d chunks were put, %d counted", name, puts, x.puts.Load())
	}
	if lost > 0 && lost != x.lost && x.lost != 0 {
		wrong("%s: %d extents are lost, %d counted", name, lost, x.lost)
	}
	return found
}

// Spans is how many spans of the store's devices are in use by a class with chunks in it,
// and how many there are.
func (s *Store) Spans() (used, all int) {
	for d := range s.all() {
		d.mu.Lock()
		for _, seg := range *d.segments.Load() {
			if seg == nil {
				continue
			}
			all += len(seg.spans)
			for _, x := range seg.spans {
				if x != nil && !x.empty() {
					used++
				}
			}
		}
		d.mu.Unlock()
	}
	return used, all
}
