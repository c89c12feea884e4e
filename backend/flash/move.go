package flash

import (
	"context"
	"errors"
	"fmt"
	"runtime/pprof"
	"slices"
	"time"

	"github.com/stokerio/stoker/backend"
)

// mover empties segments and spans that are to go away: those that failed, those beyond a
// lower limit, and spans whose room another size class needs. What was filled is dropped,
// what was put moves.
type mover struct {
	device  *device
	ctx     context.Context //nolint:containedctx // ends with stop
	cancel  context.CancelFunc
	stopped chan struct{}
	wake    chan struct{} // of one; sent to by anybody, never closed
}

func (m *mover) init(d *device) {
	m.device = d
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.stopped, m.wake = make(chan struct{}), make(chan struct{}, 1)
}

func (m *mover) start() {
	go pprof.Do(m.ctx, pprof.Labels("stoker", "flash-move", "device", m.device.path), func(context.Context) { m.run() })
}

func (m *mover) stop() {
	m.cancel()
	<-m.stopped
}

// kick makes the mover look.
func (m *mover) kick() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// moveAgain is after how long what could not be emptied is tried again, at first; at last,
// and while nothing changes, moveAgainMax.
const (
	moveAgain    = time.Second
	moveAgainMax = time.Minute
)

func (m *mover) run() {
	defer close(m.stopped)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for again := moveAgain; ; {
		select {
		case <-m.wake:
			again = moveAgain
		case <-timer.C:
		case <-m.ctx.Done():
			return
		}
		if m.empty() {
			again = moveAgain
			timer.Reset(time.Hour)
			continue
		}
		timer.Reset(again)
		again = min(2*again, moveAgainMax)
	}
}

// empty empties what is to go away as far as that is possible now; done is false if
// something is left.
func (m *mover) empty() (done bool) {
	d := m.device
	done = true
	if d.health.distrust.Swap(false) {
		d.recheck()
	}
	for _, s := range *d.segments.Load() {
		if s == nil {
			continue
		}
		goes := d.leaves(s)
		for n := range s.spans {
			if m.ctx.Err() != nil {
				return false
			}
			if x := d.going(s, n, goes); x != nil && !m.emptySpan(x, goes) {
				done = false
			}
		}
		if goes && !m.drop(s) {
			done = false
			d.wasTried(s)
		}
	}
	return done
}

// wasTried tells who waits for room that all was done that can be for a segment now.
func (d *device) wasTried(s *segment) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !s.tried {
		s.tried = true
		d.broadcast()
	}
}

// going drops what was filled from a span that is to go away; it returns nil if there is
// none, or nothing is left of it.
func (d *device) going(s *segment, n int, goes bool) *span {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := s.spans[n]
	if x == nil || !goes && !x.draining {
		return nil
	}
	if _, gone := d.drain(x); gone {
		d.broadcast()
		return nil
	}
	return x
}

// emptySpan moves what was put out of a span, whose segment goes away or not; done is false
// if something stays.
func (m *mover) emptySpan(x *span, goes bool) (done bool) {
	d, e := m.device, making
	if goes {
		e = leaving
	}
	done = m.movePuts(x, e)
	d.mu.Lock()
	donating := d.mu.donating == x
	d.mu.Unlock()
	if donating {
		_ = d.syncer.round() // frees what was dropped and moved; what failed is dealt with
		d.endDonation(x, done)
		return true
	}
	return done
}

// leaves reports whether a segment is to go away, and keeps what is new out of it then.
func (d *device) leaves(s *segment) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.retired.Load() {
		s.draining = true
	}
	if s.draining {
		d.mu.freeSpans = slices.DeleteFunc(d.mu.freeSpans, func(p *spanPlace) bool { return p.segment == s })
	}
	return s.draining
}

// movePuts moves what was put out of a span; done is false if something stays. What cannot
// be moved does not keep the rest from moving.
func (m *mover) movePuts(x *span, e errand) (done bool) {
	done = true
	for from := uint32(0); m.ctx.Err() == nil; from++ {
		var chunk backend.Chunk
		m.device.withSpan(x.segment, int(x.number), func(now *span) bool {
			if now == x {
				chunk, from = x.nextPut(from)
			}
			return true
		})
		if chunk.ID == (backend.ChunkID{}) {
			return done
		}
		ctx, cancel := context.WithTimeout(m.ctx, stalledAfter) // another device may hang
		err := m.device.store.move(ctx, &chunk, x, e)
		late := ctx.Err() != nil
		cancel()
		if err == nil {
			continue
		}
		done = false
		if m.ctx.Err() == nil && !x.told && !errors.Is(err, errBusy) {
			x.told = true
			m.device.store.event(Event{Kind: DeviceWarning, Device: m.device.path, Segment: x.segment.path(), Chunk: chunk.ID, Err: err, Detail: "a chunk that was put cannot be moved to another place; it is tried again"})
		}
		if late || errors.Is(err, errFull) {
			return false // nor can the others
		}
	}
	return false
}

// errBusy says that somebody writes a chunk, so that it is moved later.
var errBusy = errors.New("the chunk is being written")

// nextPut is the first chunk of a span that was put, from an extent on, and its extent; the
// chunk is the zero one if there is none. Those that could not be read stay: they are an
// error until they are put again or deleted. The device's lock is held.
func (x *span) nextPut(from uint32) (c backend.Chunk, extent uint32) {
	d := x.segment.device
	for i := from; i < uint32(len(x.slots)); i++ {
		at := &x.slots[i]
		if at.is(live) && !d.withSlot(x, i, at, func(_ *span, _ uint32, s *slot) bool { return s.kind != put || s.flags&(bad|broken) != 0 }) {
			return chunkOf(at), i
		}
	}
	return c, from
}

// move writes a chunk that was put anew, away from a span that nothing new comes to.
func (s *Store) move(ctx context.Context, c *backend.Chunk, from *span, e errand) error {
	const op = "move"
	h, _ := s.index.shardOf(&c.ID)
	if !h.tryBegin(&c.ID) { // who writes it may be waiting for this room
		return errBusy
	}
	defer h.end(&c.ID)
	held, _, err := s.acquire(op, c, 0, c.Size)
	if backend.KindOf(err) == backend.NotFound {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	if held.span != from {
		held.release()
		return nil // put anew meanwhile
	}
	content := make([]byte, c.Size)
	err = held.read(op, c, content, 0, allBlocks(uint32(c.Size))) // its new checksums are made of what is read
	held.release()
	if err != nil {
		return err
	}
	return s.write(ctx, op, c, content, func(ctx context.Context, d *device) error {
		if d.stalled() {
			return errStalled
		}
		return d.put(ctx, c, content, e)
	})
}

// drop removes a segment that nobody uses any more; false if somebody does.
func (m *mover) drop(s *segment) bool {
	d := m.device
	_ = d.syncer.round() // nothing is queued for it afterwards
	if !d.forgetSegment(s) {
		return false
	}
	if s.unknown {
		d.store.event(Event{Kind: DeviceWarning, Device: d.path, Segment: s.path(), Err: s.file.Close(), Detail: "it is not used any more; it stays, since not all of its records could be read"})
		return true
	}
	closed, removed := s.file.Close(), d.files.Remove(s.name)
	err := errors.Join(closed, removed, d.files.SyncDirectory(segmentsFolder))
	if err == nil && s.retired.Load() {
		err = d.unmark(s.name)
	}
	if removed == nil {
		d.removed(s) // only now, as another segment may get its name
	}
	if err != nil {
		d.store.event(Event{Kind: DeviceWarning, Device: d.path, Segment: s.path(), Err: err, Detail: "it is not used any more and cannot be removed"})
	}
	return true
}

// removed notes that the file of a segment that was forgotten is gone: there is its room
// again, and its name.
func (d *device) removed(s *segment) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.bytes -= d.kept[s.name]
	delete(d.kept, s.name)
	d.mu.full = false // if it was others that took the room, there is some now
	d.broadcast()
}

// forgetSegment takes a segment out of the device if none of its chunks is found, held or
// being written, and no round is about to say so of any.
func (d *device) forgetSegment(s *segment) bool {
	d.syncer.rounds.Lock()
	defer d.syncer.rounds.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.growing {
		return false // it may be growing into this one
	}
	for _, x := range s.spans {
		if x != nil && (x.used() || d.syncer.has(x)) {
			return false
		}
	}
	for n, x := range s.spans {
		if x == nil {
			continue
		}
		if !x.draining {
			panic(fmt.Sprintf("flash: span %d of %s leaves and is not draining", n, s.name))
		}
		d.removeSpan(x)
	}
	all := slices.Clone(*d.segments.Load())
	all[s.number] = nil
	d.segments.Store(&all)
	d.kept[s.name] = d.geometry.ledgerAt(s.count(), 0) // else a new segment's file would be removed in its place
	d.broadcast()                                      // who waits for it need not any more
	return true
}

// used reports whether a chunk of the span is found, held or being written. The device's
// lock is held.
func (x *span) used() bool {
	index := &x.segment.device.store.index
	for i := range x.slots {
		s := &x.slots[i]
		switch {
		case s.is(free):
		case s.is(taken), s.is(live):
			return true
		case s.isHeld(index):
			return true
		}
	}
	return false
}

// isHeld reports whether any chunk of the span is held. The device's lock is held, or
// nobody takes extents any more.
func (x *span) isHeld() bool {
	for i := range x.slots {
		if s := &x.slots[i]; !s.is(free) && !s.is(taken) && s.isHeld(&x.segment.device.store.index) {
			return true
		}
	}
	return false
}

func (s *slot) isHeld(i *index) bool {
	h, _ := i.shardOf(&s.id)
	h.mu.Lock()
	defer h.mu.Unlock()
	return s.holds > 0
}

// SetLimit changes what a device's files may take together, bytes. Where that is less than
// they take, segments are emptied: what was filled is dropped, what was put moves, or stays
// and is tried again where there is no room for it elsewhere. It does not wait for that.
// Errors: NotFound (the device), OutOfRange, Unavailable.
func (s *Store) SetLimit(path string, bytes int64) error {
	const op = "set limit"
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.enter(op, nil); err != nil {
		return err
	}
	defer s.leave()
	if bytes <= 0 {
		return &backend.Error{Kind: backend.OutOfRange, Op: op, Object: path, Detail: fmt.Sprintf("%d bytes is no limit", bytes)}
	}
	for d := range s.all() {
		if d.path == path {
			d.setLimit(bytes)
			return nil
		}
	}
	return &backend.Error{Kind: backend.NotFound, Op: op, Object: path, Detail: "the store has no such device"}
}

// beyondLimit is how much must go away: what is more than the limit without records, which
// may take recordsPart of it more. The lock is held.
func (d *device) beyondLimit() int64 {
	segments, records := int64(0), int64(0)
	for _, s := range *d.segments.Load() {
		if s == nil || s.draining {
			continue
		}
		segments += d.geometry.ledgerAt(s.count(), 0)
		for _, x := range s.spans {
			if x != nil {
				records += d.ledgerOf(x.class)
			}
		}
	}
	return max(segments-d.mu.limit, segments+records-d.mu.limit-d.mu.limit/recordsPart)
}

func (d *device) setLimit(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.limit, d.mu.full = min(bytes, Unlimited), false
	over, all := d.beyondLimit(), *d.segments.Load()
	for n := len(all) - 1; n >= 0 && over > 0; n-- { // from the end, so that files with low numbers stay
		if s := all[n]; s != nil && !s.draining {
			s.draining = true
			over -= d.geometry.ledgerAt(s.count(), 0)
		}
	}
	d.broadcast()
	d.mover.kick()
}
