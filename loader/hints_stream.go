package loader

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/prefetch"
)

// hintBatch is how many samples the clock of a hint takes at once at most, and
// hintBatchTime how long that is to last. The window holds at least so many.
const (
	hintBatch     = 64
	hintBatchTime = time.Second / 4
)

// hintPatience is after how long a hint that waits looks again by itself.
const hintPatience = time.Second

// hintStream is a hint as a stream of the planner. Its consumer is the clock: it takes
// samples at the rate at which they will be used, and none before it is there.
//
// Its methods are for the goroutine that drives the planner, but now and progress.
type hintStream struct {
	order  *hintOrder
	files  *fileLayout // of files; nil: of samples, whose layout is the view's
	layout prefetch.Layout
	view   dataset.View
	store  backend.Store
	rate   float64 // samples/s that the clock takes; 0: as soon as they are there
	weight float64
	budget int64 // bytes

	planner *prefetch.Planner
	dataset prefetch.DatasetID
	job     prefetch.JobID
	stream  prefetch.StreamID
	begun   prefetch.Time
	asked   int64 // bytes of fetches under way
	over    bool

	mu struct {
		sync.Mutex
		progress hintProgress
		carried  *foreseen
	}
}

// hintProgress is how far a hint is.
type hintProgress struct {
	state   string // one of api's
	problem string
	failed  int64 // fetches
	ready   int64 // places
	fetched int64 // bytes, fetches under way not counted
	begun   time.Time
	ended   time.Time // when state ceased to be api.HintActive
}

// progress is how far the hint is; safe for parallel use.
func (h *hintStream) progress() hintProgress {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.progress
}

func (h *hintStream) change(do func(*hintProgress)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	do(&h.mu.progress)
}

// begin implements reader.
func (h *hintStream) begin(p *prefetch.Planner, now prefetch.Time) (prefetch.StreamID, error) {
	h.planner, h.begun = p, now
	err := h.add(p, now)
	if err != nil {
		h.finish(api.HintFailed, err.Error())
	}
	return h.stream, err
}

// add adds the stream to a planner. After an error there is nothing to end.
func (h *hintStream) add(p *prefetch.Planner, now prefetch.Time) (err error) {
	if h.dataset, err = p.AddDataset(now, prefetch.Dataset{Layout: h.layout}); err != nil {
		return err
	}
	h.job = p.AddJob(now, h.weight)
	h.stream, err = p.AddStream(now, prefetch.Stream{
		Job: h.job, Dataset: h.dataset, Order: h.order, Batch: h.batch(), Epochs: 1, Source: prefetch.Origin,
		// Nobody reads on its behalf who would notice the first sample that is not resident.
		MinDepth: 2 * h.batch(), Rank: h.rank(),
	})
	if err != nil {
		return errors.Join(err, p.EndJob(now, h.job), p.EndDataset(now, h.dataset))
	}
	return nil
}

// turn implements reader: it lets the clock take what is due and there.
func (h *hintStream) turn(now prefetch.Time) (wake prefetch.Time, over bool) {
	if h.over {
		return prefetch.Never, true
	}
	taken := h.progress().ready
	ready := h.ready()
	due := h.due(now)
	if to := min(ready, due); to > taken {
		h.planner.Consumed(now, h.stream, 0, to, 0)
		taken = to
		h.change(func(p *hintProgress) { p.ready = to })
	}
	if taken == h.order.length {
		h.finish(api.HintComplete, h.progress().problem)
		return prefetch.Never, true
	}
	if due > taken { // it waits for fetches, after which readers with a clock have their turns
		return now.Add(hintPatience), false
	}
	return h.dueAt(min(taken+h.batch(), h.order.length)), false
}

// batch is how many samples the clock takes at once.
func (h *hintStream) batch() int64 {
	if h.rate == 0 {
		return hintBatch
	}
	return int64(max(1, math.Min(h.rate*hintBatchTime.Seconds(), hintBatch)))
}

// rank puts a hint that nobody waits for at any time behind the sessions.
func (h *hintStream) rank() uint8 {
	if h.rate == 0 {
		return 1
	}
	return 0
}

// ready is the first place that is not ready.
func (h *hintStream) ready() int64 {
	epoch, place := h.planner.Ready(h.stream)
	if epoch > 0 {
		return h.order.length
	}
	return min(place, h.order.length)
}

// due is how many places the clock has come to.
func (h *hintStream) due(now prefetch.Time) int64 {
	if h.rate == 0 {
		return h.order.length
	}
	places := float64(h.batch()) + now.Sub(h.begun).Seconds()*h.rate
	return int64(math.Min(places, float64(h.order.length)))
}

// dueAt is when the clock comes to a place.
func (h *hintStream) dueAt(place int64) prefetch.Time {
	if h.rate == 0 {
		return prefetch.Never
	}
	return h.begun + prefetch.Time(math.Min(math.Ceil(float64(place-h.batch())/h.rate*1e9), 1e18)) + 1
}

// admits implements reader: a fetch that is not admitted was the hint's last.
func (h *hintStream) admits(f *prefetch.Fetch) bool {
	if h.over {
		return false
	}
	if h.progress().fetched+h.asked+f.Bytes > h.budget {
		h.finish(api.HintSpent, "")
		return false
	}
	h.asked += f.Bytes
	return true
}

// fail implements reader.
func (h *hintStream) fail(err error) (over bool) {
	h.finish(api.HintFailed, err.Error())
	return true
}

// done implements reader. What was there already costs nothing.
func (h *hintStream) done(f *prefetch.Fetch, r *prefetch.Result) {
	h.asked -= f.Bytes
	if r.Err == nil && r.Source != prefetch.Resident {
		h.change(func(p *hintProgress) { p.fetched += f.Bytes })
	}
	switch {
	case r.Err == nil || h.over || errors.Is(r.Err, context.Canceled):
	case errors.Is(r.Err, backend.ErrCannotWarm):
		h.finish(api.HintFailed, r.Err.Error())
	default: // the others may be there; whoever reads this one learns what is wrong with it
		h.change(func(p *hintProgress) {
			if p.failed++; p.problem == "" {
				p.problem = r.Err.Error()
			}
		})
	}
}

// finish says that nothing more is fetched.
func (h *hintStream) finish(state, problem string) {
	h.over = true
	h.change(func(p *hintProgress) { p.state, p.problem, p.ended = state, problem, time.Now() })
}

// end implements reader. Fetches may still be under way.
func (h *hintStream) end(now prefetch.Time) error {
	h.over = true
	err := h.planner.EndStream(now, h.stream)
	return errors.Join(err, h.planner.EndJob(now, h.job), h.planner.EndDataset(now, h.dataset))
}

// fileLayout are ranges of files as samples: sample i is ranges[i].
type fileLayout struct {
	objects int64 // of the dataset
	size    func(object int64) int64
	ranges  []prefetch.Piece // Chunk is the object's number
	bytes   int64
}

var _ prefetch.Layout = (*fileLayout)(nil)

// Chunks implements prefetch.Layout.
func (l *fileLayout) Chunks() int64 { return l.objects }

// Samples implements prefetch.Layout.
func (l *fileLayout) Samples() int64 { return int64(len(l.ranges)) }

// Bytes implements prefetch.Layout.
func (l *fileLayout) Bytes() int64 { return l.bytes }

// ChunkBytes implements prefetch.Layout.
func (l *fileLayout) ChunkBytes(chunk int64) int64 { return l.size(chunk) }

// Pieces implements prefetch.Layout.
func (l *fileLayout) Pieces(samples []int64, pieces []prefetch.Piece, ends []int32) ([]prefetch.Piece, []int32, error) {
	for _, sample := range samples {
		pieces = append(pieces, l.ranges[sample])
		ends = append(ends, int32(len(pieces)))
	}
	return pieces, ends, nil
}
