package bench

import (
	"context"
	"runtime"
	"time"

	"github.com/stokerio/stoker/loader/order"
	"github.com/stokerio/stoker/prefetch"
)

// CostRow is what planning for some jobs costs.
type CostRow struct {
	Samples       int64     `json:"samples"` // of the dataset
	PerChunk      int64     `json:"samples_a_chunk"`
	Jobs          int       `json:"jobs"`
	Planned       int64     `json:"planned"`       // samples
	UsPerSample   float64   `json:"us_per_sample"` // CPU, its order and its place included
	BytesPerChunk float64   `json:"bytes_per_chunk"`
	Calls         []CallRow `json:"calls"`
}

// CallRow is one kind of call of the planner, by the CPU time of the calling thread: the
// machine's other work takes no part but by what it pushes out of the caches.
type CallRow struct {
	Call    string  `json:"call"`
	Calls   int64   `json:"calls"`
	MeanUs  float64 `json:"mean_us"`
	P9999Us float64 `json:"p9999_us"`
	WorstUs float64 `json:"worst_us"`
}

const (
	// costBatch is how many samples a job takes at once.
	costBatch = 256
	// timedBatches is of how many batches of each job the calls are timed one by one:
	// reading the clock takes as long as they do.
	timedBatches = 512
)

// cost plans for eight jobs with orders of their own over 10^8 samples, of which a quarter
// is in the cache.
func (b *prefetchBench) cost(ctx context.Context) error {
	planned := int64(4 << 20)
	if b.o.Quick {
		planned = 1 << 20
	}
	for _, perChunk := range []int64{1, 64} {
		row, err := planCost(ctx, 100_000_000, perChunk, 8, planned)
		if err != nil {
			return err
		}
		b.report.Cost = append(b.report.Cost, row)
	}
	b.costFigures()
	bytes, err := tableBytes(ctx, tableSamples)
	if err != nil {
		return err
	}
	b.figure("plan_bytes_per_sample_torch_order", only(bytes), "")
	return nil
}

// costFigures are those of the worse case.
func (b *prefetchBench) costFigures() {
	var us, bytes float64
	var slow, worst CallRow
	for _, row := range b.report.Cost {
		us, bytes = max(us, row.UsPerSample), max(bytes, row.BytesPerChunk)
		for _, call := range row.Calls {
			if call.P9999Us > slow.P9999Us {
				slow = call
			}
			if call.WorstUs > worst.WorstUs {
				worst = call
			}
		}
	}
	b.figure("plan_us_per_sample", only(us), "")
	b.figure("plan_bytes_per_chunk", only(bytes), "")
	b.figure("plan_p9999_call_us", only(slow.P9999Us), slow.Call)
	b.figure("plan_worst_call_us", only(worst.WorstUs), worst.Call)
}

// planCost measures one case. Fetches end as soon as all that may begin have begun.
func planCost(ctx context.Context, samples, perChunk int64, jobs int, planned int64) (CostRow, error) {
	row := CostRow{Samples: samples, PerChunk: perChunk, Jobs: jobs, Planned: planned}
	layout := costLayout{samples: samples, perChunk: perChunk}
	before := heapBytes()
	c, err := newCostRun(layout, jobs)
	if err != nil {
		return row, err
	}
	if err := c.batches(ctx, 64); err != nil { // until its memory has grown
		return row, err
	}
	cpu := cpuNs()
	batches := max(1, planned/costBatch/int64(jobs))
	if err := c.batches(ctx, batches); err != nil {
		return row, err
	}
	row.UsPerSample = float64(cpuNs()-cpu) / 1e3 / float64(batches*costBatch*int64(jobs))
	row.BytesPerChunk = max(0, float64(heapBytes()-before)) / float64(layout.Chunks())
	row.Calls, err = c.timed(ctx, min(batches, timedBatches))
	return row, err
}

// newCostRun is a planner whose cache is full, with jobs that begin.
func newCostRun(layout costLayout, jobs int) (*costRun, error) {
	p := prefetch.New(prefetch.Options{Capacity: layout.Bytes() / 4, MinDepth: 2 * costBatch})
	c := &costRun{planner: p, streams: make([]prefetch.StreamID, jobs)}
	dataset, err := p.AddDataset(0, prefetch.Dataset{Layout: layout, Seed: 1, Keep: true})
	if err != nil {
		return nil, err
	}
	for i := range c.streams {
		o, err := order.New(order.Spec{Kind: order.Global, Seed: uint64(i), Samples: layout.samples})
		if err != nil {
			return nil, err
		}
		s := prefetch.Stream{Job: p.AddJob(0, 1), Dataset: dataset, Order: costOrder{o}, Batch: costBatch, Source: prefetch.Origin}
		if c.streams[i], err = p.AddStream(0, s); err != nil {
			return nil, err
		}
	}
	for chunk := range layout.Chunks() {
		if kept := (prefetch.Chunk{Dataset: dataset, Number: chunk}); p.Keeps(kept) {
			p.Stored(0, kept, layout.ChunkBytes(chunk))
		}
	}
	return c, nil
}

// costRun takes batch after batch of each stream.
type costRun struct {
	planner *prefetch.Planner
	streams []prefetch.StreamID
	now     prefetch.Time
	taken   int64 // samples, of each stream
	ending  []prefetch.Fetch
	clock   *callClock // nil: calls are not timed
}

// batches takes n batches of each stream, and calls the planner as the daemon does.
func (c *costRun) batches(ctx context.Context, n int64) error {
	for range n {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c.clock.begin()
		if err := c.plan(); err != nil {
			return err
		}
		c.now = c.now.Add(5 * time.Millisecond)
		for i := range c.ending {
			f := &c.ending[i]
			c.planner.Done(c.now, f.ID, prefetch.Result{Source: f.Source, Took: 5 * time.Millisecond, Bytes: f.Bytes, Kept: f.Keep})
			c.clock.note(callDone)
		}
		c.ending = c.ending[:0]
		c.taken += costBatch
		c.consume()
	}
	return nil
}

// plan begins all fetches that may begin.
func (c *costRun) plan() error {
	for {
		var f prefetch.Fetch
		ok, err := c.planner.Next(c.now, &f)
		c.clock.note(callNext)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		c.ending = append(c.ending, f)
	}
	c.planner.Wake(c.now)
	c.clock.note(callWake)
	return nil
}

// consume takes a batch of each stream, and drops what the cache has no room for.
func (c *costRun) consume() {
	for _, id := range c.streams {
		c.planner.IsReady(id, 0, c.taken)
		c.clock.note(callIsReady)
		c.planner.Consumed(c.now, id, 0, c.taken, 0)
		c.clock.note(callConsumed)
	}
	for ok := true; ok; c.clock.note(callDrop) {
		_, ok = c.planner.Drop(c.now)
	}
}

// costLayout has samples of 100 KB, as many a chunk.
type costLayout struct{ samples, perChunk int64 }

const costSampleBytes = 100_000

func (l costLayout) Samples() int64 { return l.samples }
func (l costLayout) Chunks() int64  { return (l.samples + l.perChunk - 1) / l.perChunk }
func (l costLayout) Bytes() int64   { return l.samples * costSampleBytes }

func (l costLayout) ChunkBytes(chunk int64) int64 {
	return min(l.perChunk, l.samples-chunk*l.perChunk) * costSampleBytes
}

func (l costLayout) Pieces(samples []int64, pieces []prefetch.Piece, ends []int32) ([]prefetch.Piece, []int32, error) {
	for _, x := range samples {
		pieces = append(pieces, prefetch.Piece{Chunk: x / l.perChunk, Offset: x % l.perChunk * costSampleBytes, Bytes: costSampleBytes})
		ends = append(ends, int32(len(pieces)))
	}
	return pieces, ends, nil
}

// costOrder is an order of Stoker's own as the planner sees it.
type costOrder struct{ order order.Order }

func (o costOrder) Len(int64) int64 { return o.order.Len() }

func (o costOrder) At(epoch, from, n int64, samples []int64) []int64 {
	p := o.order.Epoch(epoch)
	for i := range n {
		samples = append(samples, p.At(from+i))
	}
	return samples
}

func (o costOrder) PositionOf(epoch, sample int64) (int64, bool) {
	return o.order.Epoch(epoch).PositionOf(sample), true
}

// heapBytes is what the heap holds, garbage collected.
func heapBytes() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what a pool or a finalizer let go of
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
