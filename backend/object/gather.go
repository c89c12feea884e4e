package object

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

// file is one file of one gather: what of it is read, and by which descriptor.
type file struct {
	object  *backend.Object
	hash    uint64
	first   int32 // its first read; gather.next leads to the others
	last    int32
	reads   int32
	pending int32 // atomic: who still needs the descriptor
	fd      int
	handle  *handle // nil: the descriptor is not cached
}

// gather is one call's state and scratch. Reused from call to call, it allocates
// only while its slices grow to the largest call seen.
type gather struct {
	dir    *Dir
	ctx    context.Context
	reads  []backend.Read
	next   []int32 // next[i]: the read after read i of the same file, -1: none
	files  []file
	table  []int32 // open addressing: place -> index into files + 1, 0 if free
	single [1]backend.Read
	lane   lane

	cachedBytes atomic.Int64
	diskBytes   atomic.Int64
	diskReads   atomic.Int64
	slowestNs   atomic.Int64 // changed under mu

	jobs   sync.WaitGroup // reads that workers have
	failed atomic.Bool
	mu     struct {
		sync.Mutex
		err     error // the first
		slowest int32 // the read that took slowestNs
	}
}

func (d *Dir) takeGather() *gather {
	select {
	case g := <-d.idle:
		return g
	default:
		return &gather{dir: d}
	}
}

// putGather forgets everything that the call lent and keeps the scratch.
func (d *Dir) putGather(g *gather) {
	g.ctx, g.reads = nil, nil
	g.single[0] = backend.Read{}
	clear(g.files)
	g.files = g.files[:0]
	g.cachedBytes.Store(0)
	g.diskBytes.Store(0)
	g.diskReads.Store(0)
	g.slowestNs.Store(0)
	g.failed.Store(false)
	g.mu.err = nil
	select {
	case d.idle <- g:
	default:
	}
}

// Gather implements backend.Gatherer. All reads of one file are made between two
// checks of its version. Reads are made in the caller's goroutine as long as the
// page cache has the bytes; the others run in parallel in the Dir's goroutines.
// report, which may be nil, is added to.
func (d *Dir) Gather(ctx context.Context, reads []backend.Read, report *backend.GatherReport) error {
	if err := d.enter("gather"); err != nil {
		return err
	}
	defer d.leave()
	g := d.takeGather()
	err := g.run(ctx, reads)
	if report != nil {
		report.CachedBytes += g.cachedBytes.Load()
		report.DiskBytes += g.diskBytes.Load()
		report.DiskReads += g.diskReads.Load()
		if ns := g.slowestNs.Load(); ns > report.SlowestNs {
			report.SlowestNs, report.Slowest = ns, int(g.mu.slowest)
		}
	}
	d.putGather(g)
	return err
}

// run serves reads and returns when nobody touches their buffers any more.
func (g *gather) run(ctx context.Context, reads []backend.Read) error {
	g.ctx, g.reads = ctx, reads
	if err := g.group(); err != nil {
		return err
	}
	for i := range g.files {
		if g.stopped() {
			break
		}
		g.serve(int32(i))
	}
	g.jobs.Wait()
	if g.failed.Load() {
		return g.mu.err
	}
	return nil
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

// group checks all reads and links those of equal files.
func (g *gather) group() error {
	g.prepareTable()
	var previous *backend.Object
	current := int32(-1)
	for i := range g.reads {
		r := &g.reads[i]
		if r.Chunk.Object == nil || r.Chunk.Object != previous {
			if err := g.dir.checkChunk("read", r.Chunk); err != nil {
				return err
			}
			previous = r.Chunk.Object
			current = g.fileOf(previous)
		} else if r.Chunk.Start < 0 || r.Chunk.Size < 0 || r.Chunk.Start > previous.Version.Size ||
			r.Chunk.Size > previous.Version.Size-r.Chunk.Start {
			return rangeError("read", r.Chunk, 0, 0, "the chunk is not within the object")
		}
		length := int64(len(r.P))
		if r.Offset < 0 || r.Offset > r.Chunk.Size || length > r.Chunk.Size-r.Offset {
			return rangeError("read", r.Chunk, r.Offset, length, "the range is not within the chunk")
		}
		g.link(current, int32(i))
	}
	return nil
}

// prepareTable makes room for at most as many files as there are reads.
func (g *gather) prepareTable() {
	count := len(g.reads)
	if cap(g.next) < count {
		g.next = make([]int32, count)
	}
	g.next = g.next[:count]
	size := 16
	for size < 2*count {
		size *= 2
	}
	if cap(g.table) < size {
		g.table = make([]int32, size)
	}
	g.table = g.table[:size]
	clear(g.table)
}

// fileOf returns the number of o's file in this call, a new one if it is new.
func (g *gather) fileOf(o *backend.Object) int32 {
	hash := (uint64(o.Number)*0x9E3779B97F4A7C15 ^ o.Version.Inode) * 0xFF51AFD7ED558CCD
	mask := uint64(len(g.table) - 1)
	for place := (hash >> 32) & mask; ; place = (place + 1) & mask {
		number := g.table[place]
		if number == 0 {
			g.files = append(g.files, file{object: o, hash: hash, first: -1, last: -1, fd: -1})
			g.table[place] = int32(len(g.files))
			return int32(len(g.files) - 1)
		}
		if f := &g.files[number-1]; f.hash == hash && sameObject(f.object, o) {
			return number - 1
		}
	}
}

func sameObject(a, b *backend.Object) bool {
	return a == b || a.Number == b.Number && a.Version == b.Version && bytes.Equal(a.Name, b.Name)
}

// link appends read i to the reads of a file.
func (g *gather) link(number, i int32) {
	f := &g.files[number]
	g.next[i] = -1
	if f.last < 0 {
		f.first = i
	} else {
		g.next[f.last] = i
	}
	f.last = i
	f.reads++
}

// serve makes the reads of one file that need no waiting and gives the others to
// the workers. A file of one read that cannot even be opened without waiting
// goes to them as a whole; a file of many is opened here, so that its reads may
// run in parallel.
func (g *gather) serve(number int32) {
	d, f := g.dir, &g.files[number]
	how := d.howPlain
	if f.reads == 1 && !d.noOpenat2 && !d.noCachedOpen.Load() {
		how = d.howCached
	}
	wait, err := d.openFile(&g.lane, f, how)
	if err != nil && how == d.howCached && isErrno(err, unix.EINVAL) {
		d.noCachedOpen.Store(true)
		wait, err = d.openFile(&g.lane, f, d.howPlain)
	}
	if err != nil {
		g.fail(err)
		return
	}
	if wait {
		g.submit(job{gather: g, file: number, read: wholeFile})
		return
	}
	atomic.StoreInt32(&f.pending, 1)
	for i := f.first; i >= 0 && !g.stopped(); i = g.next[i] {
		done, wait := g.readCached(f, i)
		if wait {
			atomic.AddInt32(&f.pending, 1)
			g.submit(job{gather: g, file: number, read: i, done: done})
		}
	}
	g.finish(&g.lane, f)
}

// readCached reads what the page cache has of read i: done bytes from its start.
// wait is true if the rest has to be waited for.
func (g *gather) readCached(f *file, i int32) (done int64, wait bool) {
	d, r := g.dir, &g.reads[i]
	length := int64(len(r.P))
	if length == 0 {
		return 0, false
	}
	if d.noNowait.Load() {
		if len(g.reads) > 1 {
			return 0, true
		}
		g.readWaiting(f, i, 0)
		return length, false
	}
	for attempt := 0; ; attempt++ {
		n, errno := d.system.Preadv2(f.fd, r.P, r.Chunk.Start+r.Offset, unix.RWF_NOWAIT)
		switch errno {
		case 0:
			g.cachedBytes.Add(int64(n))
			return int64(n), int64(n) < length
		case unix.EAGAIN:
			return 0, true
		case unix.EOPNOTSUPP, unix.ENOSYS:
			d.noNowait.Store(true)
			return 0, true
		case unix.EINTR:
			if attempt < maxRestarts {
				continue
			}
		}
		g.fail(d.errnoError("read", f.object.Name, errno))
		return 0, false
	}
}

// readWaiting reads the rest of read i, from done bytes on, however long it takes.
func (g *gather) readWaiting(f *file, i int32, done int64) {
	d, r := g.dir, &g.reads[i]
	restarts := 0
	for length := int64(len(r.P)); done < length; {
		n, errno := d.system.Pread(f.fd, r.P[done:], r.Chunk.Start+r.Offset+done)
		switch {
		case errno == unix.EINTR && restarts < maxRestarts:
			restarts++
		case errno != 0:
			g.fail(d.errnoError("read", f.object.Name, errno))
			return
		case n == 0:
			g.fail(d.shortError(f, r, done))
			return
		default:
			done += int64(n)
			g.diskBytes.Add(int64(n))
		}
	}
	g.diskReads.Add(1)
}

// took notes how long a read made its call wait, if no other took longer.
func (g *gather) took(read int32, ns int64) {
	if ns <= g.slowestNs.Load() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if ns > g.slowestNs.Load() {
		g.slowestNs.Store(ns)
		g.mu.slowest = read
	}
}

// finish ends one use of the file in this call; the last one checks its version
// again and gives the descriptor back. After an error there is nothing to check,
// and the descriptor is not trusted with further calls.
func (g *gather) finish(l *lane, f *file) {
	if atomic.AddInt32(&f.pending, -1) > 0 {
		return
	}
	failed := g.failed.Load()
	if !failed {
		if err := g.dir.checkVersion(l, f); err != nil {
			g.fail(err)
			failed = true
		}
	}
	g.dir.releaseFile(f, failed)
}
