package flash

import (
	"context"
	"errors"
	"maps"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// syncer makes what was written to a device durable, for many at once. In a round
//
//  1. the records of chunks that were put, and of nothing for what was dropped, are
//     written to the ledgers,
//  2. every segment that was written to is synced, which makes these and all payload
//     written before the round durable,
//  3. the records of chunks that were filled are written: they are durable with the next
//     round, and never before what they tell of.
//
// After it, who waits for a put is told, and the extents of what was dropped are free.
type syncer struct {
	device   *device
	removing atomic.Int64 // extents that will be free after a round
	stopped  chan struct{}
	wake     chan struct{} // of one; sent to by anybody, never closed
	stopping chan struct{} // closed by stop
	rounds   sync.Mutex    // held by who makes a round

	mu struct {
		sync.Mutex
		items  map[extent]item
		dirty  map[*segment]struct{} // have records that are not synced
		bytes  int64                 // of payload that is not synced
		urgent bool
		since  time.Time // when the oldest of it was written; zero: there is none
	}
}

// extent names one of a device.
type extent struct {
	span   *span
	number uint32
}

// item is what is to be written to an extent's record.
type item struct {
	record record
	remove bool // nothing
	// settled is told when the record is durable, or why it cannot be; nil for what was
	// filled. It must not block.
	settled func(error)
}

func (y *syncer) init(d *device) {
	y.device = d
	y.stopped, y.stopping, y.wake = make(chan struct{}), make(chan struct{}), make(chan struct{}, 1)
	y.mu.items, y.mu.dirty = map[extent]item{}, map[*segment]struct{}{}
}

func (y *syncer) start() {
	labels := pprof.Labels("stoker", "flash-sync", "device", y.device.path)
	go pprof.Do(context.Background(), labels, func(context.Context) { y.run() })
}

// add queues a record, for payload of so many bytes that was written.
func (y *syncer) add(x *span, number uint32, i item, payload int64) {
	y.mu.Lock()
	defer y.mu.Unlock()
	at := extent{x, number}
	if before, found := y.mu.items[at]; found && before.settled != nil {
		settled, next := before.settled, i.settled
		i.settled = func(err error) {
			settled(err)
			if next != nil {
				next(err)
			}
		}
	}
	y.mu.items[at] = i
	y.mu.bytes += payload
	if y.mu.since.IsZero() {
		y.mu.since = time.Now()
	}
	if i.settled != nil || y.mu.bytes >= y.device.store.options.SyncBytes {
		y.mu.urgent = true
	}
	if y.mu.urgent || len(y.mu.items) == 1 {
		y.kick()
	}
}

// remove queues that an extent, which is doomed and that nobody holds, holds nothing.
func (y *syncer) remove(x *span, number uint32) {
	y.removing.Add(1)
	y.device.removing[x.class].Add(1)
	y.add(x, number, item{remove: true}, 0)
}

// hurry makes the next round begin at once.
func (y *syncer) hurry() {
	y.mu.Lock()
	y.mu.urgent = true
	y.mu.Unlock()
	y.kick()
}

func (y *syncer) kick() {
	select {
	case y.wake <- struct{}{}:
	default:
	}
}

// run makes rounds until stop.
func (y *syncer) run() {
	defer close(y.stopped)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(y.due())
		select {
		case <-y.wake:
		case <-timer.C:
		case <-y.stopping:
			return
		}
		if y.due() <= 0 {
			y.round()
		}
	}
}

// due is how long the next round has time.
func (y *syncer) due() time.Duration {
	y.mu.Lock()
	defer y.mu.Unlock()
	switch {
	case y.mu.urgent:
		return 0
	case y.mu.since.IsZero():
		return time.Hour
	}
	return max(0, y.device.store.options.SyncInterval-time.Since(y.mu.since))
}

// stop makes everything durable and ends the goroutine.
func (y *syncer) stop() error {
	close(y.stopping)
	<-y.stopped
	var failed error
	for y.pending() {
		failed = errors.Join(failed, y.round())
	}
	return failed
}

func (y *syncer) pending() bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	return len(y.mu.items)+len(y.mu.dirty) > 0
}

// has reports whether something is queued for a span.
func (y *syncer) has(x *span) bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	for at := range y.mu.items {
		if at.span == x {
			return true
		}
	}
	return false
}

// round makes what is queued durable. It returns what failed, which is dealt with.
func (y *syncer) round() error {
	y.rounds.Lock()
	defer y.rounds.Unlock()
	y.mu.Lock()
	items, segments := y.mu.items, y.mu.dirty
	y.mu.items, y.mu.dirty = map[extent]item{}, map[*segment]struct{}{}
	y.mu.bytes, y.mu.urgent, y.mu.since = 0, false, time.Time{}
	y.mu.Unlock()

	rounds := &y.device.health.rounds
	rounds.begin()
	defer rounds.end()
	failed := failures{}
	for at, i := range items {
		s := at.span.segment
		segments[s] = struct{}{}
		if (i.remove || i.settled != nil) && failed.goesOn(s) {
			failed.note(s, "write a record", y.write(at, &i))
		}
	}
	for s := range segments {
		if failed.goesOn(s) {
			begun := time.Now()
			failed.note(s, "sync", s.file.Sync())
			y.device.counters.syncs.observe(time.Since(begun))
		}
	}
	for at, i := range items {
		s := at.span.segment
		if !i.remove && i.settled == nil && failed.goesOn(s) {
			y.device.believe(at, &i.record)
			failed.note(s, "write a record", y.write(at, &i))
			y.soil(s)
		}
		y.settle(at, &i, failed[s])
	}
	maps.DeleteFunc(failed, func(_ *segment, err error) bool { return errors.Is(err, errRetired) }) // it was told before
	return errors.Join(slices.Collect(maps.Values(failed))...)
}

// soil notes that a segment has records that are not synced.
func (y *syncer) soil(s *segment) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.mu.dirty[s] = struct{}{}
	if y.mu.since.IsZero() {
		y.mu.since = time.Now()
	}
}

// failures are the segments for which a round came to nothing, and why.
type failures map[*segment]error

// goesOn reports whether the round goes on for a segment. What failed to be written, here
// or under another call meanwhile, is not synced: it would seem to be durable.
func (f failures) goesOn(s *segment) bool {
	switch err := s.device.writable(); {
	case f[s] != nil:
	case err != nil:
		f[s] = err
	case s.retired.Load():
		f[s] = errRetired
	}
	return f[s] == nil
}

func (f failures) note(s *segment, step string, err error) {
	if err != nil {
		f[s] = err
		s.device.retire(s, step, err)
	}
}

// write writes an item's record.
func (y *syncer) write(at extent, i *item) error {
	r := &i.record
	if i.remove {
		r = nil
	}
	y.device.counters.records.Add(1)
	return at.span.segment.writeRecord(at.span.place(at.number), r)
}

// settle ends an item.
func (y *syncer) settle(at extent, i *item, err error) {
	switch {
	case i.remove:
		if err == nil {
			y.device.release(at.span, at.number)
		} else {
			y.device.keep(at.span)
		}
	case err != nil && i.settled == nil:
		y.device.lose(at)
	}
	if i.settled != nil {
		i.settled(err)
	}
}

var errRetired = errors.New("nothing more is written to its segment")
