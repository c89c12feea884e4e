package object

import (
	"context"
	"errors"
	"fmt"
	"runtime/pprof"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

// job is one read that has to wait for the device.
type job struct {
	gather *gather
	file   int32
	read   int32 // wholeFile: open the file as well, then make all its reads
	done   int64 // bytes that have been read
}

// wholeFile in job.read asks for opening the file and for all its reads.
const wholeFile = -1

// startWorkers starts the goroutines that wait for the device. Their number
// bounds the reads in flight; a full queue makes calls wait, which bounds the
// descriptors that waiting reads keep open. A Dir that is only registered, or
// that the page cache serves, has none: the first job starts them, within a call,
// so that they are all counted before Close, which waits for calls, waits for them.
func (d *Dir) startWorkers() {
	labels := pprof.WithLabels(context.Background(), pprof.Labels("stoker", "cold-read", "origin", d.origin))
	lanes := make([]lane, d.options.ColdReads)
	for i := range lanes {
		d.workers.Go(func() {
			pprof.SetGoroutineLabels(labels)
			d.work(&lanes[i])
		})
	}
}

// work serves jobs until Close closes the queue, which it does only when no call
// is in flight: the queue is empty then.
func (d *Dir) work(l *lane) {
	for j := range d.jobs {
		j.gather.wait(l, j)
		j.gather.jobs.Done()
	}
}

// submit queues a job, unless the call is cancelled first.
func (g *gather) submit(j job) {
	g.dir.started.Do(g.dir.startWorkers)
	g.jobs.Add(1)
	select {
	case g.dir.jobs <- j:
	case <-g.ctx.Done():
		g.fail(canceled("gather", g.ctx))
		if j.read != wholeFile {
			g.finish(&g.lane, &g.files[j.file])
		}
		g.jobs.Done()
	}
}

// wait does one job in a worker's goroutine.
func (g *gather) wait(l *lane, j job) {
	f, begin := &g.files[j.file], time.Now()
	if j.read != wholeFile {
		if !g.stopped() {
			g.readWaiting(f, j.read, j.done)
			ns := time.Since(begin).Nanoseconds()
			g.reads[j.read].WaitNs = ns
			g.took(j.read, ns)
		}
		g.finish(l, f)
		return
	}
	if g.stopped() {
		return
	}
	if _, err := g.dir.openFile(l, f, g.dir.howPlain); err != nil {
		g.fail(err)
		return
	}
	atomic.StoreInt32(&f.pending, 1)
	for i := f.first; i >= 0 && !g.stopped(); i = g.next[i] {
		if done, wait := g.readCached(f, i); wait {
			g.readWaiting(f, i, done)
			g.reads[i].WaitNs = time.Since(begin).Nanoseconds()
		}
	}
	g.took(f.first, time.Since(begin).Nanoseconds()) // such a file has one read; opening it counts
	g.finish(l, f)
}

// shortError tells of a file that ended within a read although its version says
// otherwise.
func (d *Dir) shortError(f *file, r *backend.Read, done int64) error {
	detail := fmt.Sprintf("expected %d bytes at %d of a file of %d, found its end after %d",
		len(r.P), r.Chunk.Start+r.Offset, f.object.Version.Size, done)
	var stat unix.Stat_t
	if d.system.Fstat(f.fd, &stat) == 0 && !isVersion(&f.object.Version, &stat) {
		detail += "; " + difference(&f.object.Version, &stat)
	}
	return d.changedError("read", f.object, detail)
}

func isErrno(err error, errno syscall.Errno) bool { return errors.Is(err, errno) }
