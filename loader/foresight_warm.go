package loader

import (
	"context"
	"errors"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/prefetch"
)

// errNotAdmitted is why a fetch was not made.
var errNotAdmitted = errors.New("the fetch was not admitted")

// give hands a task to a worker. It does not wait: the planner bounds how many there are.
func (f *foresight) give(t task) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.tasks.push(t)
	if f.mu.workers < f.options.Workers && f.mu.running+f.mu.tasks.len() > f.mu.workers && !f.mu.closed {
		f.mu.workers++
		go labelled(context.Background(), "warm", "", f.work)
	}
	f.mu.work.Signal()
}

// take returns the next task; false when it is time to end.
func (f *foresight) take() (task, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.mu.tasks.len() == 0 && !f.mu.closed {
		f.mu.work.Wait()
	}
	if f.mu.closed {
		f.mu.workers--
		f.mu.idle.Broadcast()
		return task{}, false
	}
	f.mu.running++
	return f.mu.tasks.pop(), true
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
		f.mu.running--
		f.mu.done = append(f.mu.done, ended{t, at, r})
		f.mu.idle.Broadcast()
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

// ring is a queue in one slice.
type ring[T any] struct {
	slots []T // a power of two of them, or none
	head  int
	n     int
}

func (r *ring[T]) len() int { return r.n }

func (r *ring[T]) push(v T) {
	if r.n == len(r.slots) {
		grown := make([]T, max(16, 2*len(r.slots)))
		for i := range r.n {
			grown[i] = r.slots[(r.head+i)&(len(r.slots)-1)]
		}
		r.slots, r.head = grown, 0
	}
	r.slots[(r.head+r.n)&(len(r.slots)-1)] = v
	r.n++
}

func (r *ring[T]) pop() (v T) {
	v, r.slots[r.head] = r.slots[r.head], v
	r.head = (r.head + 1) & (len(r.slots) - 1)
	r.n--
	return v
}
