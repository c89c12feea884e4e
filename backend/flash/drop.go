package flash

import (
	"context"

	"github.com/stokerio/stoker/backend"
)

// Evict says which copies are to be dropped. One of Chunks, Bytes and All is set.
type Evict struct {
	Device string            `json:"path,omitempty"`   // of a device; empty: all
	Chunks []backend.ChunkID `json:"chunks,omitempty"` // these
	Bytes  int64             `json:"bytes,omitempty"`  // so much room at least, first of what was not read lately, of all sizes alike
	All    bool              `json:"all,omitempty"`
}

// Evicted is what was dropped.
type Evicted struct {
	Chunks  int64 `json:"chunks"`
	Bytes   int64 `json:"bytes"`   // their room: it is free within SyncInterval, or when who reads them is done
	Put     int64 `json:"put"`     // of the chunks that were named: those that were put, which only Delete drops
	Missing int64 `json:"missing"` // of the chunks that were named: those that are not there
}

// Evict drops copies of what origins hold; what was put stays. It is no error if there is
// less to be dropped than was asked for. Errors: OutOfRange, NotFound (the device),
// Unavailable.
func (s *Store) Evict(ctx context.Context, e Evict) (done Evicted, err error) {
	const op = "evict"
	if err := s.enter(op, nil); err != nil {
		return done, err
	}
	defer s.leave()
	if !e.asksForOne() {
		return done, &backend.Error{Kind: backend.OutOfRange, Op: op, Object: "copies", Detail: "give chunks, a number of bytes, or all"}
	}
	known := e.Device == ""
	for d := range s.all() {
		if e.Device != "" && d.path != e.Device {
			continue
		}
		if known = true; ctx.Err() != nil {
			return done, cancelled(op, nil, ctx)
		}
		switch {
		case e.All:
			d.evictAll(&done)
		case e.Bytes > done.Bytes:
			d.evictBytes(e.Bytes-done.Bytes, &done)
		}
	}
	if !known {
		return done, &backend.Error{Kind: backend.NotFound, Op: op, Object: e.Device, Detail: "the store has no such device"}
	}
	for i := range e.Chunks {
		s.evictChunk(&e.Chunks[i], e.Device, &done)
	}
	return done, nil
}

func (e *Evict) asksForOne() bool {
	asked := 0
	for _, is := range []bool{len(e.Chunks) > 0, e.Bytes > 0, e.All} {
		if is {
			asked++
		}
	}
	return asked == 1 && e.Bytes >= 0
}

// evictChunk drops a chunk if it is a copy.
func (s *Store) evictChunk(id *backend.ChunkID, device string, done *Evicted) {
	h, hash := s.index.shardOf(id)
	h.mu.Lock()
	defer h.mu.Unlock()
	at := s.index.find(h, hash, id)
	if at < 0 {
		done.Missing++
		return
	}
	r := ref(h.cells[at] & refMask)
	x, slot := s.slotOf(r)
	d := x.segment.device
	switch {
	case device != "" && d.path != device:
		done.Missing++
	case slot.kind == put:
		done.Put++
	default:
		h.remove(at)
		d.evicted(x, r.place().extent)
		done.add(d, x, 1)
	}
}

func (e *Evicted) add(d *device, x *span, chunks int64) {
	e.Chunks += chunks
	e.Bytes += chunks * d.geometry.classes[x.class].bytes
}

// evictAll drops every copy.
func (d *device) evictAll(done *Evicted) {
	d.eachSpan(func(x *span) bool {
		for i := range uint32(len(x.slots)) {
			if r := d.drop(x, i, false, true); r == droppedNow || r == droppedHeld {
				done.add(d, x, 1)
			}
		}
		return true
	})
}

// evictBytes drops copies that take so much room, of every class its share.
func (d *device) evictBytes(n int64, done *Evicted) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := int64(0)
	for c := range d.mu.classes {
		all += d.roomOfCopies(uint8(c))
	}
	if all == 0 {
		return
	}
	for c := range d.mu.classes {
		if d.roomOfCopies(uint8(c)) == 0 {
			continue
		}
		want := int64(float64(n) / float64(all) * float64(d.roomOfCopies(uint8(c))))
		class := &d.geometry.classes[c]
		dropped := d.turn(uint8(c), int((want+class.bytes-1)/class.bytes))
		done.Chunks += int64(dropped)
		done.Bytes += int64(dropped) * class.bytes
	}
	d.syncer.hurry()
}

// roomOfCopies is what the copies of a class take.
func (d *device) roomOfCopies(c uint8) int64 {
	return d.counters.live[c].kinds[filled].chunks.Load() * d.geometry.classes[c].bytes
}

// evicted dooms a copy that was taken from the index. The lock of its shard is held.
func (d *device) evicted(x *span, extent uint32) {
	d.counters.evicted.Add(1)
	d.counters.evictedBytes.Add(int64(x.slots[extent].size))
	d.doom(x, extent)
}
