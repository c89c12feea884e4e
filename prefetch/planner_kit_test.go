package prefetch

import (
	"container/heap"
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

// fakeLayout has perChunk samples of size bytes in each chunk.
type fakeLayout struct {
	samples, perChunk, size int64
	broken                  func(sample int64) bool
}

func (l *fakeLayout) Samples() int64 { return l.samples }
func (l *fakeLayout) Chunks() int64  { return (l.samples + l.perChunk - 1) / l.perChunk }
func (l *fakeLayout) Bytes() int64   { return l.samples * l.size }
func (l *fakeLayout) ChunkBytes(chunk int64) int64 {
	return min(l.perChunk, l.samples-chunk*l.perChunk) * l.size
}

var errBroken = errors.New("the index is broken here")

func (l *fakeLayout) Pieces(samples []int64, pieces []Piece, ends []int32) ([]Piece, []int32, error) {
	for _, x := range samples {
		if l.broken != nil && l.broken(x) {
			return pieces, ends, errBroken
		}
		pieces = append(pieces, Piece{Chunk: x / l.perChunk, Offset: x % l.perChunk * l.size, Bytes: l.size})
		ends = append(ends, int32(len(pieces)))
	}
	return pieces, ends, nil
}

// fakeOrder shuffles by an odd multiplier, anew in each epoch; step 1 leaves the order.
type fakeOrder struct{ samples, step int64 }

func (o fakeOrder) Len(int64) int64 { return o.samples }

func (o fakeOrder) At(epoch, from, n int64, to []int64) []int64 {
	for i := range n {
		to = append(to, o.at(epoch, from+i))
	}
	return to
}

func (o fakeOrder) at(epoch, place int64) int64 {
	if o.step == 1 {
		return place
	}
	return (place*o.step + epoch*7919) % o.samples
}

func (o fakeOrder) PositionOf(int64, int64) (int64, bool) { return 0, false }

// arrival is a fetch that a fakeDriver has under way.
type arrival struct {
	at    Time
	fetch Fetch
	begun Time
}

type arrivals []arrival

func (a arrivals) Len() int           { return len(a) }
func (a arrivals) Less(i, k int) bool { return a[i].at < a[k].at }
func (a arrivals) Swap(i, k int)      { a[i], a[k] = a[k], a[i] }
func (a *arrivals) Push(x any)        { *a = append(*a, x.(arrival)) }
func (a *arrivals) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}

// fakeDriver carries fetches out in virtual time.
type fakeDriver struct {
	t       testing.TB
	p       *Planner
	now     Time
	flying  arrivals
	latency func(f *Fetch) time.Duration
	result  func(f *Fetch, r *Result)
	seen    func(f *Fetch)
	pumped  int // fetches that were begun
}

// pump begins what the planner wants begun.
func (d *fakeDriver) pump() {
	d.t.Helper()
	var f Fetch
	for {
		ok, err := d.p.Next(d.now, &f)
		if err != nil {
			d.t.Fatal(err)
		}
		if !ok {
			break
		}
		if d.seen != nil {
			d.seen(&f)
		}
		d.pumped++
		heap.Push(&d.flying, arrival{d.now.Add(d.latency(&f)), f, d.now})
	}
	for c, ok := d.p.Drop(d.now); ok; c, ok = d.p.Drop(d.now) {
		_ = c
	}
}

// until moves the time on to at, ending the fetches that are due.
func (d *fakeDriver) until(at Time) {
	d.t.Helper()
	for {
		next := at
		if d.flying.Len() > 0 {
			next = min(next, d.flying[0].at)
		}
		if wake := d.p.Wake(d.now); wake > d.now {
			next = min(next, wake)
		}
		d.now = max(d.now, next)
		for d.flying.Len() > 0 && d.flying[0].at <= d.now {
			a := heap.Pop(&d.flying).(arrival)
			r := Result{Source: a.fetch.Source, Took: d.now.Sub(a.begun), Bytes: a.fetch.Bytes, Kept: a.fetch.Keep}
			if d.result != nil {
				d.result(&a.fetch, &r)
			}
			d.p.Done(d.now, a.fetch.ID, r)
		}
		d.pump()
		if d.now >= at {
			return
		}
	}
}

// consume takes batches of a stream, each of which takes tau a sample, and returns the time
// that it waited. Samples that are not ready are waited for.
func (d *fakeDriver) consume(id StreamID, o Order, epoch, place *int64, batch, batches int64, tau time.Duration) (waited time.Duration) {
	d.t.Helper()
	for range batches {
		n := min(batch, o.Len(*epoch)-*place)
		to := *place + n
		asked := d.now
		for !d.p.IsReady(id, *epoch, to) {
			if d.flying.Len() == 0 && d.p.Wake(d.now) == Never {
				d.t.Fatalf("sample %d of epoch %d never becomes ready", to, *epoch)
			}
			next := d.p.Wake(d.now)
			if d.flying.Len() > 0 {
				next = min(next, d.flying[0].at)
			}
			d.until(max(next, d.now+1))
		}
		waited += d.now.Sub(asked)
		d.p.Consumed(d.now, id, *epoch, to, d.now.Sub(asked))
		d.pump()
		if *place = to; to == o.Len(*epoch) {
			*epoch, *place = *epoch+1, 0
		}
		d.until(d.now.Add(time.Duration(n) * tau))
	}
	return waited
}

// newDriver plans one dataset and one stream.
func newDriver(t testing.TB, o Options, l Layout, order Order, batch int64, keep bool) (*fakeDriver, StreamID) {
	t.Helper()
	p := New(o)
	d := &fakeDriver{t: t, p: p, latency: func(*Fetch) time.Duration { return 10 * time.Millisecond }}
	dataset, err := p.AddDataset(0, Dataset{Layout: l, Keep: keep})
	if err != nil {
		t.Fatal(err)
	}
	id, err := p.AddStream(0, Stream{Job: p.AddJob(0, 1), Dataset: dataset, Order: order, Batch: batch, Source: Origin})
	if err != nil {
		t.Fatal(err)
	}
	return d, id
}

// exponential draws latencies by a seed.
func exponential(mean time.Duration, seed uint64) func(*Fetch) time.Duration {
	r := rand.New(rand.NewPCG(seed, 1))
	return func(*Fetch) time.Duration { return time.Duration(r.ExpFloat64() * float64(mean)) }
}
