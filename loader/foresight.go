package loader

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/prefetch"
)

// PrefetchOptions say how files are brought into the page cache before sessions read
// them. Zero values take the default given here.
type PrefetchOptions struct {
	Off         bool
	WindowBytes int64   // of all sessions together that are brought ahead of their reads. Default 256 MiB
	Workers     int     // files that are brought at once, of the node. Default 32, as object.Options.ColdReads
	Epsilon     float64 // share of its time that a session may wait for late fetches. Default 0.005
	HedgeShare  float64 // share of fetches that may be made twice when they are late. Default 0: a disk does not get quicker
}

// EnsureDefaults puts the documented defaults in place of zero values.
func (o *PrefetchOptions) EnsureDefaults() {
	setDefault(&o.WindowBytes, 256<<20)
	setDefault(&o.Workers, 32)
}

// planned returns the planner's options.
func (o *PrefetchOptions) planned() prefetch.Options {
	return prefetch.Options{
		WindowBytes: o.WindowBytes, Epsilon: o.Epsilon, HedgeShare: o.HedgeShare,
		// Bytes of a local disk cost what they take; so exact ranges. What no worker is free
		// for waits in the planner, where the most urgent goes first; one fetch more for each
		// worker is ready for it when it has ended the one before.
		Cut: prefetch.CutOptions{Billed: true}, MaxFlights: 2 * o.Workers,
	}
}

// reader is whose future the driver plans for: a session or a hint. The driver's
// goroutine calls its methods.
type reader interface {
	// begin adds a stream to the planner and says which. After an error there is nothing
	// to end.
	begin(p *prefetch.Planner, now prefetch.Time) (prefetch.StreamID, error)
	// turn tells the planner what is new. It returns when it wants its next turn though
	// nothing has happened; over says that nothing more is to be fetched.
	turn(now prefetch.Time) (wake prefetch.Time, over bool)
	// fail tells that nothing more is planned until the reader moves, as its samples cannot
	// be looked up; over says that it never does.
	fail(err error) (over bool)
	// admits says whether a fetch may be made.
	admits(f *prefetch.Fetch) bool
	// done tells how one that was admitted ended.
	done(f *prefetch.Fetch, r *prefetch.Result)
	// end takes the stream from the planner.
	end(now prefetch.Time) error
}

// foreseen is a reader as the driver has it.
type foreseen struct {
	reader
	name    string // for the log
	view    dataset.View
	store   backend.Store
	ctx     context.Context //nolint:containedctx // of its fetches
	cancel  context.CancelFunc
	release func() // called when nothing of its dataset is in use any more

	listed, ended bool // guarded by foresight.mu: it is in news; nobody wants it any more

	// The driver's.
	stream  prefetch.StreamID
	begun   bool
	over    bool // its stream was taken from the planner, or could not be added
	timed   bool // it wants turns at times
	wake    prefetch.Time
	flights int
}

// foresight brings files into the page cache before they are read. It drives one planner
// for the node: sessions and hints tell what is new, which takes one short lock and never
// waits; a goroutine applies that and asks for fetches; workers make them. The goroutines
// start with the first reader and the first fetch, and end with close.
//
// Whatever fails here is only not brought: reads go to the files as without foresight.
type foresight struct {
	options PrefetchOptions
	log     *slog.Logger
	started time.Time
	// patience is how long close waits for workers that hang in the kernel.
	patience time.Duration

	wake    chan struct{} // of one place: something is new for the driver
	stopped chan struct{} // closed by the driver when it has ended
	tasks   chan task     // for the workers; never closed

	mu struct {
		sync.Mutex
		news    []*foreseen
		done    []ended
		idle    *sync.Cond // workers fell
		driving bool
		workers int
		given   int // tasks that wait for a worker, or have one
		closed  bool
		totals  api.Foresight // of all sessions
	}

	driver driver
}

// task is a fetch for a worker.
type task struct {
	to    *foreseen
	fetch prefetch.Fetch
	begun prefetch.Time
}

// ended is a task and how it ended.
type ended struct {
	task
	at     prefetch.Time
	result prefetch.Result
}

const foresightPatience = 2 * time.Second

// newForesight starts nothing yet.
func newForesight(options PrefetchOptions, log *slog.Logger) *foresight {
	f := &foresight{
		options: options, log: log, started: time.Now(), patience: foresightPatience,
		wake: make(chan struct{}, 1), stopped: make(chan struct{}),
	}
	f.mu.idle = sync.NewCond(&f.mu)
	f.tasks = make(chan task, f.options.tasksMost())
	f.driver.init(f)
	return f
}

// now is the planner's time.
func (f *foresight) now() prefetch.Time { return prefetch.Time(time.Since(f.started)) }

// able says whether anything can be brought nearer for a store.
func (f *foresight) able(store backend.Store) bool {
	_, ok := store.(backend.Warmer)
	return ok && !f.options.Off
}

// add lets the driver plan for x, whose reader is set. release is called once nothing
// of the dataset is in use any more, after leave; at once if it is too late.
func (f *foresight) add(x *foreseen, release func()) {
	x.ctx, x.cancel = context.WithCancel(context.Background())
	x.release = release
	f.mu.Lock()
	if f.mu.closed {
		f.mu.Unlock()
		x.cancel()
		release()
		return
	}
	if !f.mu.driving {
		f.mu.driving = true
		go labelled(context.Background(), "foresight", "", f.driver.run)
	}
	f.tellLocked(x)
	f.mu.Unlock()
}

// leave ends planning for x. It does not wait.
func (f *foresight) leave(x *foreseen) {
	x.cancel()
	f.mu.Lock()
	defer f.mu.Unlock()
	x.ended = true
	if !f.mu.closed {
		f.tellLocked(x)
	}
}

// tellLocked gives x a turn soon.
func (f *foresight) tellLocked(x *foreseen) {
	if !x.listed {
		x.listed = true
		f.mu.news = append(f.mu.news, x)
	}
	f.poke()
}

// poke lets the driver look for what is new.
func (f *foresight) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// close ends driver and workers. A worker that the kernel does not let go of is left
// behind; what it uses is released when it comes back.
func (f *foresight) close() {
	f.mu.Lock()
	first, driving := !f.mu.closed, f.mu.driving
	f.mu.closed = true
	f.mu.Unlock()
	if first && driving {
		close(f.driver.closing)
	}
	if !driving {
		return
	}
	select {
	case <-f.stopped:
	case <-time.After(f.patience):
		f.log.Warn("a read ahead hangs in the kernel; going on without it")
	}
}
