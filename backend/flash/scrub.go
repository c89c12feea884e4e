package flash

import (
	"context"
	"fmt"
	"runtime/pprof"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/stokerio/stoker/backend"
)

// scrubber reads what a device holds, slowly, round and round, so that what has rotted is
// found before somebody needs it. It reads past the page cache where it can, and holds a
// chunk only while it reads a block of it.
type scrubber struct {
	device  *device
	ctx     context.Context //nolint:containedctx // ends with stop
	cancel  context.CancelFunc
	stopped chan struct{}
	limiter *rate.Limiter

	mu struct {
		sync.Mutex
		state   scrubState
		running bool      // a pass is going on
		saved   time.Time // when the state was written
		changed bool      // since then
		refused bool      // it could not be written, which was said
	}
}

// A pass begins when the store was open for scrubDelay, goes on where it was when it was
// interrupted, and the next begins scrubPause after its end. How far it is is written
// every scrubSave, and at the end.
const (
	scrubDelay = time.Minute
	scrubPause = time.Hour
	scrubSave  = time.Minute
)

// Unless told otherwise a pass reads what the device may hold within scrubWeek, and neither
// faster nor slower than this: 16 MiB/s is what a disk of 10 TB needs for that, and does
// not feel; 64 KiB/s is through a small one in hours.
const (
	scrubWeek    = 7 * 24 * time.Hour
	scrubFastest = 16 << 20
	scrubSlowest = 64 << 10
)

func (b *scrubber) init(d *device) {
	b.device = d
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.stopped = make(chan struct{})
	b.limiter = rate.NewLimiter(0, backend.BlockBytes)
	b.load()
}

func (b *scrubber) start() {
	if b.device.store.options.ScrubBytesPerSecond < 0 {
		close(b.stopped)
		return
	}
	go pprof.Do(b.ctx, pprof.Labels("stoker", "flash-scrub", "device", b.device.path), func(context.Context) { b.run() })
}

// stop ends the pass; the next store goes on with it.
func (b *scrubber) stop() {
	b.cancel()
	<-b.stopped
}

// bytesPerSecond is how fast a pass reads.
func (b *scrubber) bytesPerSecond() int64 {
	if set := b.device.store.options.ScrubBytesPerSecond; set != 0 {
		return max(0, set)
	}
	b.device.mu.Lock()
	defer b.device.mu.Unlock()
	return min(scrubFastest, max(scrubSlowest, b.device.mu.limit/int64(scrubWeek/time.Second)))
}

// run makes passes until stop.
func (b *scrubber) run() {
	defer close(b.stopped)
	if !b.wait(scrubDelay) {
		return
	}
	for {
		b.mu.Lock()
		due := min(scrubPause, time.Until(b.mu.state.Ended.Add(scrubPause))) // the clock may have been wrong then
		if b.mu.state.inPass() {
			due = 0
		}
		b.mu.Unlock()
		if !b.wait(due) || b.device.readable() != nil {
			return
		}
		b.limiter.SetLimit(rate.Limit(b.bytesPerSecond()))
		b.begin()
		for b.step() {
		}
		b.save(true)
		if b.ctx.Err() != nil || b.device.readable() != nil {
			return
		}
		b.done()
	}
}

// wait waits; it returns false if stop came.
func (b *scrubber) wait(d time.Duration) bool {
	if d <= 0 {
		return b.ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-b.ctx.Done():
		return false
	}
}

// begin begins a pass, or goes on with one.
func (b *scrubber) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.running = true
	if s := &b.mu.state; !s.inPass() {
		s.Began, s.At, s.This = time.Now(), scrubPlace{}, ScrubFindings{}
	}
}

// done ends a pass that came to the end.
func (b *scrubber) done() {
	b.mu.Lock()
	s := &b.mu.state
	s.Passes++
	s.Ended, s.Last = time.Now(), s.This
	took := s.Ended.Sub(s.Began)
	s.Began, s.At, s.This = time.Time{}, scrubPlace{}, ScrubFindings{}
	found := s.Last
	b.mu.running, b.mu.changed = false, true
	b.mu.Unlock()
	b.save(true)
	if found.Blocks > 0 {
		b.device.store.event(Event{Kind: ScrubDone, Device: b.device.path, Detail: fmt.Sprintf("%d bytes of %d blocks in %v: %s", found.Bytes, found.Blocks, took.Round(time.Second), found)})
	}
}

// step looks at the next chunk; false: there is none, or the pass cannot go on.
func (b *scrubber) step() bool {
	b.mu.Lock()
	at := b.mu.state.At
	b.mu.Unlock()
	t, found := b.next(at)
	if !found || b.device.readable() != nil {
		return false
	}
	if at.Segment != t.at.segment || at.Span != t.at.span || at.Extent == 0 {
		b.checkLedger(&t)
	}
	for n := range blocksOf(t.size) {
		if t.blocks&(1<<n) != 0 && !b.checkBlock(&t, n) {
			break
		}
	}
	if b.ctx.Err() != nil {
		return false
	}
	b.mu.Lock()
	b.mu.state.At = scrubPlace{t.at.segment, t.at.span, t.at.extent + 1}
	b.mu.state.This.Chunks++
	b.mu.changed = true
	b.mu.Unlock()
	b.save(false)
	return true
}

// target is a chunk that is to be read. It may be gone meanwhile.
type target struct {
	at     place
	id     backend.ChunkID
	size   uint32
	blocks uint8
}

// next is the first chunk from a place on.
func (b *scrubber) next(from scrubPlace) (t target, found bool) {
	for _, s := range *b.device.segments.Load() {
		if s == nil || s.number < from.Segment {
			continue
		}
		for n := range s.spans {
			at := scrubPlace{s.number, uint32(n), 0}
			if at.Segment == from.Segment {
				if at.Span < from.Span {
					continue
				}
				if at.Span == from.Span {
					at.Extent = from.Extent
				}
			}
			b.device.withSpan(s, n, func(x *span) bool {
				t, found = x.nextTarget(at.Extent)
				return true
			})
			if found {
				return t, true
			}
		}
	}
	return t, false
}

// nextTarget is the first chunk of a span from an extent on. The device's lock is held.
func (x *span) nextTarget(from uint32) (t target, found bool) {
	for i := from; int64(i) < int64(len(x.slots)) && !found; i++ {
		if !x.slots[i].is(live) {
			continue
		}
		x.segment.device.withSlot(x, i, &x.slots[i], func(_ *span, _ uint32, s *slot) bool {
			t, found = target{at: x.place(i), id: s.id, size: s.size, blocks: s.blocks}, true
			return true
		})
	}
	return t, found
}

// hold holds a chunk that is still what it was; ok is false if it is not.
func (b *scrubber) hold(t *target) (held hold, ok bool) {
	all := *b.device.segments.Load()
	if int(t.at.segment) >= len(all) || all[t.at.segment] == nil {
		return held, false
	}
	b.device.withSpan(all[t.at.segment], int(t.at.span), func(x *span) bool {
		if int64(t.at.extent) >= int64(len(x.slots)) {
			return true
		}
		return x.segment.device.withSlot(x, t.at.extent, &x.slots[t.at.extent], func(_ *span, _ uint32, s *slot) bool {
			if s.is(live) && s.id == t.id {
				s.holds++
				held, ok = hold{store: b.device.store, span: x, extent: t.at.extent}, true
			}
			return true
		})
	})
	return held, ok
}

// checkBlock reads a block and compares it with its checksum; false if the chunk is gone,
// or stop came.
func (b *scrubber) checkBlock(t *target, n int) bool {
	size := blockBytes(t.size, n)
	if b.limiter.WaitN(b.ctx, size) != nil {
		return false
	}
	held, ok := b.hold(t)
	if !ok {
		return false
	}
	defer held.release()
	d := b.device
	lent := d.store.buffers.take(size)
	defer d.store.buffers.give(lent)
	block, c := lent.p[:size], backend.Chunk{ID: t.id, Size: int64(t.size)}
	x := held.span
	at := d.geometry.extentAt(x.class, t.at) + int64(n)*backend.BlockBytes
	err := readUncached(&d.store.buffers, x.segment.file, block, at)
	d.counters.read(size)
	if err != nil {
		err = held.unreadable("scrub", &c, err)
	} else {
		err = held.check("scrub", &c, block, n)
	}
	b.note(t, held.kind(), n, size, err)
	return err == nil
}

// kind is the kind of a held chunk.
func (h *hold) kind() kind {
	slot := &h.span.slots[h.extent]
	shard, _ := h.store.index.shardOf(&slot.id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	return slot.kind
}

// note counts a block, and what was wrong with it.
func (b *scrubber) note(t *target, k kind, block, size int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &b.mu.state
	s.This.Blocks++
	s.This.Bytes += int64(size)
	if err == nil {
		return
	}
	damage := ScrubDamage{Chunk: t.id, Put: k == put, Segment: t.at.segment, Block: block, Found: time.Now()}
	switch corrupt := backend.KindOf(err) == backend.Corrupt; {
	case !corrupt:
		s.This.Unreadable++
		damage.Unreadable = true
	case k == put:
		s.This.CorruptPuts++
	default:
		s.This.CorruptCopies++
	}
	s.add(damage)
}

// checkLedger reads the records of a chunk's span, and writes those anew that are damaged:
// memory knows what they have to say.
func (b *scrubber) checkLedger(t *target) {
	held, ok := b.hold(t) // keeps the span and its file
	if !ok {
		return
	}
	defer held.release()
	d, x := b.device, held.span
	ledger := make([]byte, len(x.slots)*recordBytes)
	if b.limiter.WaitN(b.ctx, min(len(ledger), backend.BlockBytes)) != nil {
		return
	}
	if err := readUncached(&d.store.buffers, x.segment.file, ledger, d.geometry.ledgerAt(x.segment.count(), x.number)); err != nil {
		d.failing(x.segment, "read records", err)
		return
	}
	for i := range uint32(len(x.slots)) {
		if p := ledger[int(i)*recordBytes:][:recordBytes]; b.isDamaged(x, i, p) {
			b.rewrite(x, i)
		}
	}
}

// isDamaged reports whether p is no record of an extent, nor that of nothing.
func (b *scrubber) isDamaged(x *span, extent uint32, p []byte) bool {
	var r record
	return !isNothing(p) && r.decode(p, b.device.id, x.place(extent)) != nil
}

// rewrite writes the record of a live chunk anew, if it is still damaged while nobody
// writes records.
func (b *scrubber) rewrite(x *span, extent uint32) {
	d, s := b.device, b.device.store
	t, found := target{}, false
	d.withSpan(x.segment, int(x.number), func(x *span) bool {
		t, found = x.nextTarget(extent)
		return true
	})
	if !found || t.at.extent != extent {
		return // nothing is there that would be lost
	}
	h, _ := s.index.shardOf(&t.id)
	if s.begin(b.ctx, h, &t.id) != nil {
		return
	}
	defer h.end(&t.id)
	held, ok := b.hold(&t)
	if !ok {
		return
	}
	defer held.release()
	p := make([]byte, recordBytes)
	d.syncer.rounds.Lock()
	n, _ := x.segment.file.ReadAt(p, d.geometry.recordAt(x.segment.count(), t.at))
	d.syncer.rounds.Unlock()
	if n == len(p) && !b.isDamaged(x, extent, p) {
		return // somebody wrote it just then
	}
	d.store.event(Event{Kind: RecordDamaged, Device: d.path, Segment: x.segment.path(), Chunk: t.id, Detail: "it is written anew: nothing is lost"})
	b.mu.Lock()
	b.mu.state.This.Records++
	b.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if x.slots[extent].is(live) {
		d.syncer.add(x, extent, item{record: d.recordOf(x, extent)}, 0)
	}
}
