package flash

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

// gather is one call's state and scratch. Reused from call to call, it allocates only
// while its slices grow to the largest call seen.
//
// A call takes holds of all chunks, divides its reads into pieces, sorts these by where
// they lie, and joins neighbours to runs. Every run is one read of a file: what the page
// cache has is read in the caller's goroutine, the rest by goroutines of the device, or,
// past the page cache, by io_uring: of 4 KiB it then reads 1.8 times as many a second as
// goroutines do with a third of the processor time, of 100 KiB as many with half. Through
// the page cache it reads fewer (0.7 to 0.96 times), as all copying is the caller's.
//
// Only the caller's goroutine touches the state, but for what a run's reader has of it
// until it landed.
type gather struct {
	store   *Store
	ctx     context.Context //nolint:containedctx // of the call
	reads   []backend.Read
	held    []hold // of each read
	pieces  []piece
	runs    []run
	vectors []unix.Iovec // of all runs
	lanes   []lane       // of each device that is read
	waits   []int64      // of each read: how long it had to be waited for, nanoseconds

	queue  queue      // nil: not opened, or refused
	queued int        // runs in the queue that the kernel was not told of
	landed chan int32 // runs that goroutines have made; they send, nobody closes it
	direct bool       // all is read past the page cache
	route  route      // of this call
	flying int        // runs that went by it and have not landed
	large  int        // of them and others, those with a large buffer

	report backend.GatherReport
	err    error // the first
}

// route is who makes the reads of a call that have to be waited for.
type route uint8

const (
	unknownRoute route = iota // there was none yet
	byQueue
	byReaders
)

// lane is what is read of one device: runs [next, end) are still to be begun.
type lane struct {
	device    *device
	next, end int32
	flying    int
}

// largeAtMost is how many large buffers a call uses at once: 8 MiB in flight keep any
// device busy (Little's law: 10 GB/s · 200 µs = 2 MB).
const largeAtMost = 8

// gathersKept is how many idle gathers are kept.
const gathersKept = 32

// gathers are those that nobody uses.
type gathers struct{ idle chan *gather }

func (s *Store) takeGather() *gather {
	select {
	case g := <-s.gathers.idle:
		return g
	default:
		return &gather{store: s}
	}
}

// giveGather forgets everything that the call lent and keeps the scratch.
func (s *Store) giveGather(g *gather) {
	g.ctx, g.reads, g.err, g.report, g.route = nil, nil, nil, backend.GatherReport{}, unknownRoute
	clear(g.held)
	clear(g.pieces)
	clear(g.runs)
	clear(g.vectors)
	clear(g.lanes)
	g.held, g.pieces, g.runs, g.vectors, g.lanes = g.held[:0], g.pieces[:0], g.runs[:0], g.vectors[:0], g.lanes[:0]
	select {
	case s.gathers.idle <- g:
	default:
		g.close()
	}
}

func (g *gather) close() {
	if g.queue != nil {
		g.queue.close()
	}
}

// close frees what idle gathers hold. No call is in progress.
func (i *gathers) close() {
	for {
		select {
		case g := <-i.idle:
			g.close()
		default:
			return
		}
	}
}

const gatherOp = "gather"

// Gather implements backend.Gatherer. Blocks that were not checked since the store was
// opened are read whole and checked, once for all reads of the call. A call that was
// cancelled, or that failed, returns when what the device was asked for has come.
func (s *Store) Gather(ctx context.Context, reads []backend.Read, report *backend.GatherReport) error {
	if err := s.enter(gatherOp, nil); err != nil {
		return err
	}
	defer s.leave()
	g := s.takeGather()
	defer s.giveGather(g)
	g.ctx, g.reads = ctx, reads
	defer g.release()
	if g.stopped() || !g.hold() {
		return g.err
	}
	g.plan()
	g.serve()
	g.tell(report)
	return g.err
}

// stopped says whether the call is over before its end: failed or cancelled.
func (g *gather) stopped() bool {
	if g.err == nil && g.ctx.Err() != nil {
		g.err = cancelled(gatherOp, nil, g.ctx)
	}
	return g.err != nil
}

// hold takes the holds of all reads and divides these into pieces; false if one is
// refused.
func (g *gather) hold() bool {
	var id backend.ChunkID
	for i := range g.reads {
		r := &g.reads[i]
		if i == 0 || r.Chunk != g.reads[i-1].Chunk {
			id = r.Chunk.Identity()
		}
		held, unchecked, err := g.store.acquireID(gatherOp, &r.Chunk, &id, r.Offset, int64(len(r.P)))
		if err != nil {
			g.err = err
			return false
		}
		g.held = append(g.held, held)
		g.divide(int32(i), unchecked)
	}
	return true
}

// release gives all holds back.
func (g *gather) release() {
	for i := range g.held {
		g.held[i].release()
	}
}

// serve makes all runs and returns when nobody touches their memory any more. Devices take
// turns, so that all of them are busy.
func (g *gather) serve() {
	for {
		for more := true; more && !g.stopped(); {
			more = false
			for l := range g.lanes {
				more = g.begin(&g.lanes[l]) || more
			}
		}
		if g.flying == 0 {
			return
		}
		g.await()
	}
}

// begin begins the next run of a device; false if there is none, or others must end first.
func (g *gather) begin(l *lane) bool {
	if l.next == l.end || l.flying >= g.ahead() || g.stopped() {
		return false
	}
	r := &g.runs[l.next]
	if r.isLarge() && g.large >= largeAtMost || g.route == byQueue && g.flying >= g.queue.room() {
		return false
	}
	number := l.next
	l.next++
	g.aim(r)
	switch {
	case r.bypass == nil && g.readCached(r):
		g.finish(r)
	case len(g.runs) == 1:
		r.begun = time.Now()
		r.readWhole()
		g.finish(r)
	default:
		l.flying++
		g.flying++
		r.begun = time.Now()
		g.launch(l.device, number)
	}
	return true
}

// ahead is how many runs of a device are given away at most: for readers as many more as
// they make at once, so that they find work when they are done.
func (g *gather) ahead() int {
	if g.route == byQueue {
		return g.store.options.Reads
	}
	return 2 * g.store.options.Reads
}

// launch gives a run to who waits for the device.
func (g *gather) launch(d *device, number int32) {
	if g.route == unknownRoute {
		g.route = byReaders
		if g.direct && g.openQueue() {
			g.route = byQueue
		}
	}
	if g.route == byQueue {
		g.enqueue(number)
		return
	}
	if g.landed == nil {
		g.landed = make(chan int32, maxDevices*g.ahead()) // never full
	}
	if !d.readers.read(g, number) {
		g.stopped() // as its context ended
		g.land(number)
	}
}

// await waits until a run has landed.
func (g *gather) await() {
	if g.route == byQueue {
		g.reap()
		return
	}
	g.land(<-g.landed)
}

// land ends a run that was waited for.
func (g *gather) land(number int32) {
	r := &g.runs[number]
	g.flying--
	g.lanes[r.lane].flying--
	g.finish(r)
}

// tell adds up what was done.
func (g *gather) tell(report *backend.GatherReport) {
	for i, ns := range g.waits {
		if ns == 0 {
			continue
		}
		g.reads[i].WaitNs = ns
		g.report.DiskReads++
		if ns > g.report.SlowestNs {
			g.report.SlowestNs, g.report.Slowest = ns, i
		}
	}
	if report == nil {
		return
	}
	report.CachedBytes += g.report.CachedBytes
	report.DiskBytes += g.report.DiskBytes
	report.DiskReads += g.report.DiskReads
	if g.report.SlowestNs > report.SlowestNs {
		report.SlowestNs, report.Slowest = g.report.SlowestNs, g.report.Slowest
	}
}
