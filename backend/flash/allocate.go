package flash

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// classState is a size class of a device. The device's lock guards it.
type classState struct {
	spans   []*span
	at      int // no span before it has a free extent
	free    int // extents of spans that are not draining
	hand    hand
	asked   demand
	waiting int // calls that wait for room here
}

// demand is what is asked of a class, in bytes of its extents, by periods: a period is the
// time in which a part of the device, one in demandPart, is written.
type demand struct {
	now, before int64 // in this period, and in the one before
	since       int64 // when this one began, in bytes written to the device
}

const demandPart = 4

// hand goes round the extents of a class and finds what was not read since it came by
// last (CLOCK, Corbató 1968).
type hand struct {
	span   int
	extent int
}

// errFull says that there is no room and that none can be made.
var errFull = errors.New("all that could be dropped is dropped")

// errand is what a chunk gets room for.
type errand uint8

const (
	storing errand = iota // it is not there
	making                // it leaves a span that another class is to have
	leaving               // it leaves a segment that is to go away
)

// allocate takes an extent for a chunk of a class. It waits while room is made, but what
// makes room is not waited for by what moves so that there is some.
func (d *device) allocate(ctx context.Context, wanted uint8, e errand) (*span, uint32, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ask(wanted)
	for {
		c := d.home(wanted, e)
		if err := d.writable(); err != nil {
			return nil, 0, err
		}
		if d.mu.classes[c].free > 0 {
			x, extent := d.takeFrom(c)
			if e == storing {
				d.makeAhead(c)
			}
			return x, extent, nil
		}
		if d.mu.growing {
			if err := d.waitForRoom(ctx); err != nil {
				return nil, 0, err
			}
			continue
		}
		grown, err := d.grow(c, e)
		if err != nil {
			return nil, 0, err
		}
		if grown {
			continue
		}
		if d.removing[c].Load() == 0 {
			coming, now := d.evict(c, d.ahead(c)+d.mu.classes[c].waiting, e)
			if now {
				continue
			}
			if coming == 0 && d.syncer.removing.Load() == 0 && (e != storing || d.mu.donating == nil && !d.emptying()) {
				return d.lastResort(c, e)
			}
		}
		d.syncer.hurry()
		d.mu.classes[c].waiting++
		err = d.waitForRoom(ctx)
		d.mu.classes[c].waiting--
		if err != nil {
			return nil, 0, err
		}
	}
}

// takeFrom takes an extent of a class that has one.
func (d *device) takeFrom(c uint8) (*span, uint32) {
	x := d.mu.classes[c].withRoom()
	extent := x.take()
	d.mu.classes[c].free--
	d.mu.written += d.geometry.classes[c].bytes
	return x, extent
}

// ask counts that room is asked of a class. The lock is held, as for all below.
func (d *device) ask(c uint8) {
	q, period := &d.mu.classes[c].asked, d.mu.limit/demandPart
	switch past := d.mu.written - q.since; {
	case past > 2*period:
		*q = demand{since: d.mu.written}
	case past > period:
		*q = demand{before: q.now, since: q.since + period}
	}
	q.now += d.geometry.classes[c].bytes
}

// due is how many bytes of the device would be a class's if all chunks stayed equally long:
// its part of what is asked of all.
func (d *device) due(c uint8) int64 {
	q, period := &d.mu.classes[c].asked, d.mu.limit/demandPart
	past := d.mu.written - q.since
	if past > 2*period {
		return 0
	}
	return int64(float64(q.now+q.before) / float64(past+period) * float64(d.mu.limit))
}

// A chunk whose class is full may be kept in an extent that is larger by this part, one in
// so many.
const guestPart = 16

// home is the class whose extents a chunk of class c gets. It is c while the device can
// still grow. Then it is a larger one with free extents where c has none: the next if c has
// spans, and any where so few of its chunks come that they would not fill half a span even
// so. A span each for all rare sizes would leave much of the device empty. The lock is held.
func (d *device) home(c uint8, e errand) uint8 {
	if d.mu.classes[c].free > 0 || d.room(c, e) > 0 {
		return c
	}
	free := func(o uint8) bool { return d.mu.classes[o].free > 0 }
	if host := d.host(c, free); host >= 0 {
		return uint8(host)
	}
	if len(d.mu.classes[c].spans) > 0 || len(d.mu.freeSpans) > 0 {
		return c
	}
	if host := d.host(c, func(o uint8) bool { return len(d.mu.classes[o].spans) > 0 }); host >= 0 {
		return uint8(host)
	}
	return c
}

// lastResort is what is left where no room can be made.
func (d *device) lastResort(c uint8, e errand) (*span, uint32, error) {
	if e == leaving {
		if x, extent, ok := d.shelter(c); ok {
			return x, extent, nil
		}
	}
	return nil, 0, errFull
}

// shelter takes any extent that is large enough, for what would have to stay in a segment
// that failed otherwise; ok is false if there is none. The lock is held.
func (d *device) shelter(c uint8) (x *span, extent uint32, ok bool) {
	for o := int(c); o < len(d.mu.classes); o++ {
		if d.mu.classes[o].free > 0 {
			x, extent = d.takeFrom(uint8(o))
			return x, extent, true
		}
	}
	return nil, 0, false
}

// host is the smallest class from c on that will do and is not too large for it; -1 if there
// is none.
func (d *device) host(c uint8, will func(uint8) bool) int {
	state, bytes := &d.mu.classes[c], d.geometry.classes[c].bytes
	most := bytes + bytes/guestPart
	if len(state.spans) == 0 {
		most = max(bytes, d.geometry.spanBytes/2/max(1, d.due(c)/bytes))
	}
	for o := int(c); o < len(d.mu.classes) && d.geometry.classes[o].bytes <= most; o++ {
		if will(uint8(o)) {
			return o
		}
	}
	return -1
}

// withRoom returns a span with a free extent; there must be one.
func (s *classState) withRoom() *span {
	for ; s.at < len(s.spans); s.at++ {
		if x := s.spans[s.at]; x.free > 0 && !x.draining {
			return x
		}
	}
	panic(fmt.Sprintf("flash: %d extents of a class are free, and none was found", s.free))
}

// waitForRoom waits until something changed. The lock is held, but while it waits.
func (d *device) waitForRoom(ctx context.Context) error {
	changed := d.mu.changed
	d.mu.Unlock()
	defer d.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Of a class that is full, so many extents are made free at once, ahead of need: they can
// only be used after a sync.
const (
	aheadPart = 32 // of a span
	aheadMax  = 64
)

func (d *device) ahead(c uint8) int {
	return max(1, min(aheadMax, int(d.geometry.classes[c].extents)/aheadPart))
}

// makeAhead drops chunks before their room is needed, where a class can only grow so.
func (d *device) makeAhead(c uint8) {
	want := d.ahead(c) + d.mu.classes[c].waiting
	if d.mu.classes[c].free+int(d.removing[c].Load()) >= want || d.mu.growing || d.room(c, storing) > 0 || len(d.mu.freeSpans) > 0 {
		return
	}
	if coming, _ := d.evict(c, want, storing); coming > 0 {
		d.syncer.hurry()
	}
}

// room is how many spans more a new segment would have, for that class.
func (d *device) room(c uint8, e errand) int64 {
	if d.mu.full {
		return 0
	}
	left := d.mu.limit - d.mu.bytes - headBytes
	if e == leaving {
		left += d.beyond()
	}
	return max(0, min(int64(d.geometry.segmentSpans), left/(d.geometry.spanBytes+d.ledgerOf(c))))
}

// beyond is how much more than its limit a device may take while segments that failed are
// emptied, for what is in them: as much as they take, and a whole segment at most. Else what
// was put would have to stay in them where everything else is full.
func (d *device) beyond() (bytes int64) {
	for _, s := range *d.segments.Load() {
		if s != nil && s.retired.Load() {
			bytes += d.geometry.ledgerAt(s.count(), 0)
		}
	}
	return min(bytes, d.geometry.ledgerAt(uint32(d.geometry.segmentSpans), 0))
}

// emptying reports whether a segment failed that the mover has not yet tried to empty: there
// may be room after it has.
func (d *device) emptying() bool {
	for _, s := range *d.segments.Load() {
		if s != nil && s.retired.Load() && !s.tried {
			return true
		}
	}
	return false
}

// staying is what segments take that are not to go away.
func (d *device) staying() int64 {
	bytes := d.mu.bytes
	for _, s := range *d.segments.Load() {
		if s != nil && s.draining {
			bytes -= d.geometry.ledgerAt(s.count(), 0)
		}
	}
	return bytes
}

// ledgerOf is what the records of a span of a class take.
func (d *device) ledgerOf(c uint8) int64 {
	return (int64(d.geometry.classes[c].extents)*recordBytes + pageBytes - 1) &^ (pageBytes - 1)
}

// grow gives a class a span more, of a new segment if there is none. The lock is held, but
// while files are changed.
func (d *device) grow(c uint8, e errand) (grown bool, err error) {
	if len(d.mu.freeSpans) == 0 && d.room(c, e) == 0 {
		return false, nil // and nobody is woken: those who wait would wake one another for ever
	}
	ledger := d.ledgerOf(c)
	if used := d.staying(); used <= d.mu.limit && used+ledger > d.mu.limit+d.mu.limit/recordsPart { // what is over it anyhow can only get better
		return false, nil
	}
	if len(d.mu.freeSpans) > 0 && !d.bringForward(ledger) {
		return false, nil
	}
	d.mu.growing = true
	defer func() {
		d.mu.growing = false
		d.broadcast()
	}()
	if len(d.mu.freeSpans) == 0 {
		if err := d.addSegment(int(d.room(c, e))); err != nil {
			return d.noRoom(err)
		}
	}
	last := len(d.mu.freeSpans) - 1
	at := d.mu.freeSpans[last]
	d.mu.freeSpans = d.mu.freeSpans[:last]
	d.unlocked(func() {
		err = at.segment.file.Allocate(d.geometry.ledgerAt(at.segment.count(), at.number), ledger)
	})
	if err != nil {
		if !at.segment.draining { // else its file may be closed next
			if isFull(err) {
				at.refused = ledger
			}
			d.mu.freeSpans = append(d.mu.freeSpans, at)
		}
		return d.noRoom(err)
	}
	d.adopt(newSpan(at.segment, at.number, c))
	return true, nil
}

// bringForward makes a free span the last one whose records the file system may have room
// for; false if there is none: those who wait would try in turn for ever.
func (d *device) bringForward(ledger int64) bool {
	all := d.mu.freeSpans
	last := len(all) - 1
	for i := last; i >= 0; i-- {
		if !d.mu.full || all[i].refused == 0 || ledger < all[i].refused {
			all[i], all[last] = all[last], all[i]
			return true
		}
	}
	return false
}

// unlocked changes files without the lock, as what may hang.
func (d *device) unlocked(change func()) {
	d.mu.Unlock()
	defer d.mu.Lock()
	d.health.writes.begin()
	defer d.health.writes.end()
	change()
}

// noRoom takes an error of making room: if the file system has none, nothing more is made.
func (d *device) noRoom(err error) (bool, error) {
	if !isFull(err) && !errors.Is(err, errFull) {
		d.failing(nil, "make room", err)
		return false, err
	}
	d.filledUp(err)
	return false, nil
}

// filledUp notes that the file system has no room. The lock is held.
func (d *device) filledUp(err error) {
	if !d.mu.full {
		d.mu.full = true
		d.store.event(Event{Kind: DeviceFull, Device: d.path, Err: err, Detail: fmt.Sprintf("%d bytes of %d are in use: no more is taken from the file system", d.mu.bytes, d.mu.limit)})
	}
}

// addSegment makes a segment whose spans are free. The lock is held, but while its file is
// made.
func (d *device) addSegment(spans int) error {
	number, ok := d.unusedNumber()
	if !ok {
		return fmt.Errorf("%w: a device has %d segments at most, give its directory larger ones", errFull, maxSegments)
	}
	var s *segment
	var err error
	d.unlocked(func() { s, err = d.newSegment(number, spans) })
	if err != nil {
		return err
	}
	grown := slices.Clone(*d.segments.Load())
	for int(number) >= len(grown) {
		grown = append(grown, nil)
	}
	grown[number] = s
	d.segments.Store(&grown)
	d.mu.bytes += d.geometry.ledgerAt(s.count(), 0)
	if d.staying() > d.mu.limit { // it was lowered meanwhile
		s.draining = true
		d.mover.kick()
	}
	for n := range s.count() {
		d.mu.freeSpans = append(d.mu.freeSpans, &spanPlace{segment: s, number: s.count() - 1 - n})
	}
	return nil
}

// adopt gives a span to its class.
func (d *device) adopt(x *span) {
	x.segment.spans[x.number] = x
	d.mu.bytes += d.ledgerOf(x.class)
	state := &d.mu.classes[x.class]
	x.order, x.born = len(state.spans), d.mu.written
	state.spans = append(state.spans, x)
	if x.draining = x.draining || x.segment.draining || x.segment.retired.Load(); !x.draining {
		state.free += x.free
	}
}

// release frees an extent that no record names any more: syncer.remove was called for it.
func (d *device) release(x *span, extent uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.broadcast()
	d.syncer.removing.Add(-1)
	d.removing[x.class].Add(-1)
	d.giveBack(x, extent)
}

// untake frees an extent whose record was not written since it was taken.
func (d *device) untake(x *span, extent uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.broadcast()
	d.giveBack(x, extent)
}

// giveBack makes an extent free. The lock is held.
func (d *device) giveBack(x *span, extent uint32) {
	state := &d.mu.classes[x.class]
	if x.slots[extent].flags&bad != 0 {
		x.lost++ // never again
	} else {
		x.giveBack(extent)
		if !x.draining {
			state.free++
			state.at = min(state.at, x.order)
		}
	}
	if x.empty() && (x.draining || state.free > len(x.slots)) {
		d.disband(x)
	}
}

// disband takes an empty span from its class.
func (d *device) disband(x *span) {
	s, number := x.segment, x.number
	if !x.draining {
		d.mu.classes[x.class].free -= x.free
	}
	d.removeSpan(x)
	if !s.draining && !s.retired.Load() && x.lost == 0 {
		d.mu.freeSpans = append(d.mu.freeSpans, &spanPlace{segment: s, number: number})
	}
}

// removeSpan forgets a span that nobody uses any more; its free extents are not counted
// among its class's.
func (d *device) removeSpan(x *span) {
	state := &d.mu.classes[x.class]
	last := len(state.spans) - 1
	state.spans[x.order] = state.spans[last]
	state.spans[x.order].order = x.order
	state.spans[last] = nil
	state.spans = state.spans[:last]
	state.at = min(state.at, x.order)
	if d.mu.donating == x {
		d.mu.donating = nil
	}
	d.mu.bytes -= d.ledgerOf(x.class)
	x.segment.spans[x.number] = nil
	x.release()
}
