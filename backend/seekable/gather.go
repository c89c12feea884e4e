package seekable

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

// lane is the scratch of one goroutine at a time.
type lane struct {
	compressed []byte
}

// room returns n bytes of scratch, at most maxCompressed.
func (l *lane) room(n int) []byte {
	if cap(l.compressed) < n {
		l.compressed = make([]byte, maxCompressed)
	}
	return l.compressed[:n]
}

// piece is what one read wants of one frame.
type piece struct {
	p    []byte // part of the read's destination
	from int64  // offset in the frame
	next int32  // the next piece of the same frame, -1: none
}

// frame is one frame that a gather needs.
type frame struct {
	file  *openFile
	frame int64
	read  int32 // the first read that wants it
	first int32 // its first piece
}

// gather is one call's state and scratch. Reused from call to call, it allocates only
// while its slices grow to the largest call seen.
type gather struct {
	store  *Store
	ctx    context.Context //nolint:containedctx // of one call
	reads  []backend.Read
	others []backend.Read // those that the decorated store serves
	places []int32        // others[i] is reads[places[i]]
	pieces []piece
	frames []frame
	table  []int32 // open addressing: place -> index into frames + 1, 0 if free
	files  []*openFile
	single [1]backend.Read
	stat   unix.Stat_t
	lane   lane

	next    atomic.Int64 // the next of frames to serve
	helpers sync.WaitGroup

	cachedBytes atomic.Int64
	diskBytes   atomic.Int64
	diskReads   atomic.Int64

	failed atomic.Bool
	mu     struct {
		sync.Mutex
		err       error // the first
		slowestNs int64 // the longest wait for a frame
		slowest   int32 // the first read that wants that frame
	}
}

func (s *Store) takeGather() *gather {
	select {
	case g := <-s.idle:
		return g
	default:
		return &gather{store: s}
	}
}

// putGather forgets everything that the call lent and keeps the scratch.
func (s *Store) putGather(g *gather) {
	g.ctx, g.reads, g.single[0] = nil, nil, backend.Read{}
	clear(g.others)
	clear(g.pieces)
	clear(g.frames)
	clear(g.files)
	g.others, g.places, g.pieces, g.frames, g.files = g.others[:0], g.places[:0], g.pieces[:0], g.frames[:0], g.files[:0]
	g.next.Store(0)
	g.cachedBytes.Store(0)
	g.diskBytes.Store(0)
	g.diskReads.Store(0)
	g.failed.Store(false)
	g.mu.err, g.mu.slowestNs = nil, 0
	select {
	case s.idle <- g:
	default:
	}
}

// Gather implements backend.Gatherer. Every frame that the reads need is read and
// decompressed at most once, several at a time; reads of other objects are one Gather
// of the decorated store. report counts bytes of the reads: as DiskBytes where their
// frame had to be waited for, as CachedBytes where it was decompressed before or its
// compressed bytes were in the page cache; DiskReads counts frames waited for.
func (s *Store) Gather(ctx context.Context, reads []backend.Read, report *backend.GatherReport) error {
	if !anySeekable(reads) {
		return backend.Gather(ctx, s.origin, reads, report)
	}
	if err := s.enter("gather"); err != nil {
		return err
	}
	defer s.leave()
	return s.gather(ctx, reads, report)
}

func anySeekable(reads []backend.Read) bool {
	for i := range reads {
		if isSeekable(reads[i].Chunk.Object) {
			return true
		}
	}
	return false
}

// gather serves reads for a caller that has entered. Files of a call that failed are
// not trusted with further calls.
func (s *Store) gather(ctx context.Context, reads []backend.Read, report *backend.GatherReport) error {
	g := s.takeGather()
	err := g.run(ctx, reads, report)
	for _, f := range g.files {
		s.releaseFile(f, err != nil)
	}
	if report != nil {
		g.addTo(report)
	}
	s.putGather(g)
	return err
}

func (g *gather) addTo(report *backend.GatherReport) {
	report.CachedBytes += g.cachedBytes.Load()
	report.DiskBytes += g.diskBytes.Load()
	report.DiskReads += g.diskReads.Load()
	if g.mu.slowestNs > report.SlowestNs {
		report.SlowestNs, report.Slowest = g.mu.slowestNs, int(g.mu.slowest)
	}
}

// run serves reads and returns when nobody touches their buffers any more.
func (g *gather) run(ctx context.Context, reads []backend.Read, report *backend.GatherReport) error {
	g.ctx, g.reads = ctx, reads
	if ctx.Err() != nil {
		return canceled("gather", ctx)
	}
	if err := g.group(); err != nil {
		return err
	}
	if err := g.gatherOthers(report); err != nil {
		return err
	}
	for range min(len(g.frames), runtime.GOMAXPROCS(0)) - 1 {
		g.invite()
	}
	g.drain(&g.lane)
	g.helpers.Wait()
	if g.failed.Load() {
		return g.mu.err
	}
	return nil
}

// gatherOthers has the decorated store serve its reads.
func (g *gather) gatherOthers(report *backend.GatherReport) error {
	if len(g.others) == 0 {
		return nil
	}
	if report == nil {
		return backend.Gather(g.ctx, g.store.origin, g.others, nil)
	}
	before := report.SlowestNs
	err := backend.Gather(g.ctx, g.store.origin, g.others, report)
	if report.SlowestNs > before {
		report.Slowest = int(g.places[report.Slowest])
	}
	for i := range g.others {
		g.reads[g.places[i]].WaitNs = g.others[i].WaitNs
	}
	return err
}

// invite lets one more goroutine of the Pool help, if one is free.
func (g *gather) invite() {
	g.helpers.Add(1)
	select {
	case g.store.pool.work <- g:
	default:
		g.helpers.Done()
	}
}

// stopped says whether the call is over before its end: failed or cancelled.
func (g *gather) stopped() bool {
	if g.failed.Load() {
		return true
	}
	if g.ctx.Err() != nil {
		g.fail(canceled("gather", g.ctx))
		return true
	}
	return false
}

// fail ends the call with err unless it has failed before.
func (g *gather) fail(err error) {
	g.mu.Lock()
	if g.mu.err == nil {
		g.mu.err = err
	}
	g.mu.Unlock()
	g.failed.Store(true)
}

// drain serves frames until none is left. Several goroutines do so at once.
func (g *gather) drain(l *lane) {
	for {
		i := g.next.Add(1) - 1
		if i >= int64(len(g.frames)) || g.stopped() {
			return
		}
		g.serve(l, &g.frames[i])
	}
}

// serve fills the pieces of one frame.
func (g *gather) serve(l *lane, u *frame) {
	pool := g.store.pool
	slot, isFilled := pool.acquire(frameKey{u.file.number, u.frame})
	waited := false
	if !isFilled {
		var err error
		waited, err = g.fill(l, u, pool.bytes(slot))
		pool.filled(slot, err == nil)
		if err != nil {
			g.fail(err)
			return
		}
	}
	content, bytes := pool.bytes(slot), int64(0)
	for i := u.first; i >= 0; i = g.pieces[i].next {
		bytes += int64(copy(g.pieces[i].p, content[g.pieces[i].from:]))
	}
	pool.release(slot)
	if waited {
		g.diskBytes.Add(bytes)
	} else {
		g.cachedBytes.Add(bytes)
	}
}

// fill reads and decompresses a frame into dst. waited says whether the page cache
// lacked some of it.
func (g *gather) fill(l *lane, u *frame, dst []byte) (waited bool, err error) {
	s, f := g.store, u.file
	start := f.offsets[u.frame]
	n := int(f.offsets[u.frame+1] - start)
	b := l.room(n)
	object := g.reads[u.read].Chunk.Object
	done := s.readCached(f, b, start)
	if done < n {
		if err := g.wait(u, b[done:], start+int64(done)); err != nil {
			return true, err
		}
	}
	length := f.length(u.frame)
	content, err := s.pool.decoder.DecodeAll(b, dst[:0:length])
	switch {
	case err != nil:
		return false, s.frameError(u, object, "it cannot be decompressed", err)
	case int64(len(content)) != length:
		return false, s.frameError(u, object, fmt.Sprintf("it holds %d bytes, expected %d", len(content), length), nil)
	case uint32(xxhash.Sum64(content)) != f.checksums[u.frame]:
		return false, s.frameError(u, object, fmt.Sprintf("checksum %08x, expected %08x", uint32(xxhash.Sum64(content)), f.checksums[u.frame]), nil)
	}
	return done < n, nil
}

// wait reads a frame's bytes at off, however long it takes.
func (g *gather) wait(u *frame, p []byte, off int64) error {
	if int64(len(g.frames)) > g.next.Load() {
		g.invite() // in place of this goroutine
	}
	began := time.Now()
	err := g.store.pread(u.file, string(g.reads[u.read].Chunk.Object.Name), p, off)
	ns := time.Since(began).Nanoseconds()
	g.diskReads.Add(1)
	g.mu.Lock()
	defer g.mu.Unlock()
	if ns > g.mu.slowestNs {
		g.mu.slowestNs, g.mu.slowest = ns, u.read
	}
	r := &g.reads[u.read] // of the reads that wanted the frame, it counts for the first
	r.WaitNs = max(r.WaitNs, ns)
	return err
}

func (s *Store) frameError(u *frame, o *backend.Object, detail string, cause error) error {
	return s.corrupt(u.file.name, string(o.Name), u.file.offsets[u.frame], fmt.Sprintf("frame %d: %s", u.frame, detail), cause)
}

// readCached reads what the page cache has of the bytes at off. Whatever goes wrong
// is left to the read that waits.
func (s *Store) readCached(f *openFile, p []byte, off int64) (done int) {
	if s.noNowait.Load() {
		return 0
	}
	n, errno := s.system.Preadv2(f.fd, p, off, unix.RWF_NOWAIT)
	if errno == unix.EOPNOTSUPP || errno == unix.ENOSYS {
		s.noNowait.Store(true)
	}
	if errno != 0 {
		return 0
	}
	return n
}
