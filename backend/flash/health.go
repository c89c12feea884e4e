package flash

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

// DeviceState is what a device is good for.
type DeviceState uint32

// The states of a device. It only gets worse, until the store is opened again.
const (
	DeviceHealthy DeviceState = iota
	DeviceReads               // nothing more is written there
	DeviceGone                // it is not used at all
)

var deviceStates = [...]string{"healthy", "read_only", "failed"}

// String implements fmt.Stringer.
func (s DeviceState) String() string { return deviceStates[s] }

// A device that fails so often within a time is left out as a whole.
const (
	failuresAtMost = 16
	failuresWithin = time.Minute
)

// health is what a device has shown of itself.
type health struct {
	state    atomic.Uint32
	readErrs atomic.Int64
	distrust atomic.Bool // all that was checked is to be checked again
	writes   pending     // of payload
	rounds   pending     // of the syncer
	slow     atomic.Bool // it was told that it does not answer
	failures struct {
		at   [failuresAtMost - 1]atomic.Int64 // nanoseconds since 1970, of the last ones, round and round
		next atomic.Uint64
	}
}

// pending is calls that have not returned.
type pending struct {
	calls atomic.Int64
	since atomic.Int64 // when the last one returned, or the first began; nanoseconds since 1970
}

func (p *pending) begin() {
	if p.calls.Add(1) == 1 {
		p.since.Store(time.Now().UnixNano())
	}
}

func (p *pending) end() {
	p.since.Store(time.Now().UnixNano())
	p.calls.Add(-1)
}

// stalledAfter is for how long no call of several returns before a device is taken for one
// that hangs. A busy one needs a second or two for 64 MiB (Options.SyncBytes) at most.
const stalledAfter = 10 * time.Second

func (p *pending) stalled() bool {
	return p.calls.Load() > 0 && time.Now().UnixNano()-p.since.Load() > int64(stalledAfter)
}

// stalled reports whether the device hangs, and tells of it.
func (d *device) stalled() bool {
	if !d.health.writes.stalled() && !d.health.rounds.stalled() {
		d.health.slow.Store(false)
		return false
	}
	if !d.health.slow.Swap(true) {
		d.store.event(Event{Kind: DeviceWarning, Device: d.path, Detail: fmt.Sprintf("it has finished no write for %v: others are written first", stalledAfter)})
	}
	return true
}

var (
	errDeviceReads = errors.New("the device takes no more writes")
	errDeviceGone  = errors.New("the device failed")
	errStalled     = errors.New("the device does not answer")
)

// writable says why nothing can be written, nil if it can.
func (d *device) writable() error {
	switch DeviceState(d.health.state.Load()) {
	case DeviceHealthy:
		return nil
	case DeviceReads:
		return errDeviceReads
	}
	return errDeviceGone
}

// readable says why nothing can be read, nil if it can.
func (d *device) readable() error {
	if DeviceState(d.health.state.Load()) == DeviceGone {
		return errDeviceGone
	}
	return nil
}

// worsen moves a device to a worse state, and tells of it.
func (d *device) worsen(to DeviceState, detail string, err error) {
	for {
		now := d.health.state.Load()
		if now >= uint32(to) {
			return
		}
		if d.health.state.CompareAndSwap(now, uint32(to)) {
			break
		}
	}
	kind := DeviceReadOnly
	if to == DeviceGone {
		kind = DeviceFailed
	}
	d.store.event(Event{Kind: kind, Device: d.path, Detail: detail, Err: err})
}

// failing notes an error of a device, of a segment of it if s is not nil: the segment is
// not written any more, and a device that goes on failing is left out.
func (d *device) failing(s *segment, step string, err error) {
	d.counters.errors.add(step)
	switch { // what it had to write is lost with what it takes no more, so nothing is synced again
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ESHUTDOWN):
		d.worsen(DeviceGone, step+": it has vanished", err)
		return
	case errors.Is(err, unix.EROFS):
		d.worsen(DeviceReads, step+": it turned read-only", err)
		return
	}
	if s != nil && !s.retired.Swap(true) {
		d.mark(s)
		d.shut(s)
		d.store.event(Event{Kind: SegmentRetired, Device: d.path, Segment: s.path(), Detail: step, Err: err})
	}
	d.health.distrust.Store(true)
	d.mover.kick()
	if isFull(err) {
		return // it does not fail: others took its room
	}
	f := &d.health.failures
	now := time.Now().UnixNano()
	oldest := f.at[f.next.Add(1)%uint64(len(f.at))].Swap(now)
	if oldest != 0 && now-oldest < int64(failuresWithin) {
		d.worsen(DeviceGone, fmt.Sprintf("%s: %d errors within %v", step, failuresAtMost, failuresWithin), err)
	}
}

// shut lets nothing new into a segment.
func (d *device) shut(s *segment) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.draining, s.tried = true, false
	d.mu.freeSpans = slices.DeleteFunc(d.mu.freeSpans, func(p *spanPlace) bool { return p.segment == s })
	for _, x := range s.spans {
		if x != nil && !x.draining {
			x.draining = true
			d.mu.classes[x.class].free -= x.free
		}
	}
}

// isFull reports whether an error says that the file system has no room.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// retire is failing for a segment whose write or sync failed. A sync that failed is not
// tried again: the kernel may have dropped what it could not write, and say nothing the
// second time (https://wiki.postgresql.org/wiki/Fsync_Errors).
func (d *device) retire(s *segment, step string, err error) { d.failing(s, step, err) }

// lose forgets a chunk that was filled and that cannot be made durable.
func (d *device) lose(at extent) {
	slot := &at.span.slots[at.number]
	if !slot.is(live) {
		return
	}
	index := &d.store.index
	h, hash := index.shardOf(&slot.id)
	h.mu.Lock()
	defer h.mu.Unlock()
	if slot.is(live) && slot.kind == filled {
		h.remove(index.find(h, hash, &slot.id))
		at.span.account(slot, -1)
		slot.become(doomed) // its extent is lost with its segment
	}
}

// believe notes that the blocks that a record tells of are on flash as they were written.
func (d *device) believe(at extent, r *record) {
	slot := &at.span.slots[at.number]
	h, _ := d.store.index.shardOf(&r.id)
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slot.is(live) || slot.id != r.id {
		return
	}
	if slot.checked |= r.blocks; slot.blocks == r.blocks {
		slot.flags &^= fresh
	}
}

// keep ends the removal of an extent's record that failed: its room does not come. Who
// waits for it must see both at once, hence the lock.
func (d *device) keep(x *span) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncer.removing.Add(-1)
	d.removing[x.class].Add(-1)
	d.broadcast()
}

// freeShare is the part of a device that is free, for choosing among devices; less than 0
// for one that cannot be written, and less than that for one where writing would hang.
func (d *device) freeShare() float64 {
	switch {
	case d.writable() != nil:
		return -1
	case d.stalled():
		return -2
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	unused := max(0, d.mu.limit-d.mu.bytes)
	for c := range d.mu.classes {
		unused += int64(d.mu.classes[c].free) * d.geometry.classes[c].bytes
	}
	unused += int64(len(d.mu.freeSpans)) * d.geometry.spanBytes
	return float64(unused) / float64(max(1, d.mu.limit))
}

// recheck makes everything on the device be checked again before it is believed.
func (d *device) recheck() {
	d.eachSlot(func(_ *span, _ uint32, slot *slot) bool {
		slot.checked = 0
		return true
	})
}

// unreadable is the error for what the device could not read. A copy is dropped, and its
// extent not used again.
func (h *hold) unreadable(op string, c *backend.Chunk, err error) error {
	x := h.span
	if errors.Is(err, io.ErrUnexpectedEOF) { // that is damage: the device does not fail
		return h.corrupt(op, c, blocksOf(x.slots[h.extent].size)-1, "the file ends before it")
	}
	d := x.segment.device
	d.health.readErrs.Add(1)
	kind, known := h.forget(bad)
	if !known { // a sector that cannot be read says nothing new each time
		d.store.event(Event{Kind: ChunkUnreadable, Device: d.path, Segment: x.segment.path(), Chunk: x.slots[h.extent].id, Err: err})
		d.failing(nil, "read", err)
	}
	e := &backend.Error{Kind: backend.Unavailable, Op: op, Object: nameOf(c), Err: err, Remedy: "look at the kernel's log for errors of the device of " + d.path}
	if kind == filled {
		e.Detail = "the copy on flash is dropped"
	}
	return e
}

// corrupt is the error for a block that is not what was stored. A copy is dropped; what
// was put stays, and goes on being an error.
func (h *hold) corrupt(op string, c *backend.Chunk, b int, detail string) error {
	x := h.span
	d := x.segment.device
	kind, known := h.forget(broken)
	detail = fmt.Sprintf("block %d: %s", b, detail)
	if !known {
		d.store.event(Event{Kind: ChunkCorrupt, Device: d.path, Segment: x.segment.path(), Chunk: x.slots[h.extent].id, Block: b, Detail: detail})
	}
	e := &backend.Error{Kind: backend.Corrupt, Op: op, Object: nameOf(c), Detail: detail}
	if kind == put {
		e.Remedy = "it was the only copy here: put the chunk again from elsewhere; stoker cache check tells what else is damaged"
		return e
	}
	e.Remedy = "the copy on flash is dropped: read it again from its origin"
	return e
}

// forget drops a held chunk that was filled, and marks one that was put; it returns what
// kind of chunk it is, and whether the same was found of it before.
func (h *hold) forget(flag uint8) (_ kind, known bool) {
	slot := &h.span.slots[h.extent]
	index := &h.store.index
	shard, hash := index.shardOf(&slot.id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	known = slot.flags&flag != 0
	if !slot.is(live) {
		return slot.kind, known
	}
	slot.flags |= flag
	slot.checked = 0 // what was believed of it is not any more
	if slot.kind == filled {
		shard.remove(index.find(shard, hash, &slot.id))
		h.span.account(slot, -1)
		slot.become(doomed) // freed with the last hold
	}
	return slot.kind, known
}

// eachSpan calls do for each span, with the device's lock held, until it returns false.
// The lock is given back between two.
func (d *device) eachSpan(do func(x *span) bool) {
	all := d.segments.Load()
	if all == nil {
		return
	}
	for _, s := range *all {
		if s == nil {
			continue
		}
		for n := range s.spans {
			if !d.withSpan(s, n, do) {
				return
			}
		}
	}
}

func (d *device) withSpan(s *segment, n int, do func(x *span) bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return s.spans[n] == nil || do(s.spans[n])
}

// eachSlot calls do for each live chunk, with the locks of the device and of the chunk's
// shard held, until it returns false.
func (d *device) eachSlot(do func(x *span, extent uint32, s *slot) bool) {
	d.eachSpan(func(x *span) bool {
		for i := range x.slots {
			if slot := &x.slots[i]; slot.is(live) && !d.withSlot(x, uint32(i), slot, do) {
				return false
			}
		}
		return true
	})
}

func (d *device) withSlot(x *span, extent uint32, slot *slot, do func(*span, uint32, *slot) bool) bool {
	h, _ := d.store.index.shardOf(&slot.id)
	h.mu.Lock()
	defer h.mu.Unlock()
	return !slot.is(live) || do(x, extent, slot)
}
