package loader

import (
	"context"
	"errors"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/prefetch"
)

// errNotAdmitted is why a fetch was not made.
var errNotAdmitted = errors.New("the fetch was not admitted")

// tasksMost is how many tasks may wait for a worker: as many fetches as the planner has
// under way at most, and second attempts.
func (o *PrefetchOptions) tasksMost() int { return max(1, 2*o.planned().MaxFlights) }

// give hands a task to a worker. It does not wait; false if too many wait already.
func (f *foresight) give(t task) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case f.tasks <- t:
	default:
		return false
	}
	f.mu.given++
	if f.mu.workers < f.options.Workers && f.mu.given > f.mu.workers && !f.mu.closed {
		f.mu.workers++
		go labelled(context.Background(), "warm", "", f.work)
	}
	return true
}

// take returns the next task; false when it is time to end.
func (f *foresight) take() (t task, ok bool) {
	select {
	case <-f.driver.closing: // whatever waits is not worth it any more
	default:
		select {
		case t = <-f.tasks:
			return t, true
		case <-f.driver.closing:
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.workers--
	f.mu.idle.Broadcast()
	return t, false
}

// worker is a worker's scratch.
type worker struct {
	object backend.Object
	name   []byte
}

// work makes fetches until close.
func (f *foresight) work() {
	var w worker
	for {
		t, ok := f.take()
		if !ok {
			return
		}
		r := w.warm(&t)
		at := f.now()
		r.Took = at.Sub(t.begun)
		f.mu.Lock()
		f.mu.given--
		f.mu.done = append(f.mu.done, ended{t, at, r})
		f.mu.Unlock()
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// warm makes one fetch.
func (w *worker) warm(t *task) prefetch.Result {
	x, r := t.to, prefetch.Result{Source: t.fetch.Source}
	if r.Err = x.ctx.Err(); r.Err != nil {
		return r
	}
	if w.object, r.Err = x.view.Object(t.fetch.Chunk.Number, &w.name); r.Err != nil {
		return r
	}
	resident, ok, err := backend.Warm(x.ctx, x.store, &w.object, t.fetch.Offset, t.fetch.Bytes)
	switch {
	case err != nil:
		r.Err = err
	case !ok:
		r.Err = backend.ErrCannotWarm
	default:
		if r.Bytes = t.fetch.Bytes; resident {
			r.Source = prefetch.Resident
		}
	}
	return r
}
