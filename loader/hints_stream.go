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

// A hint that waits for fetches under way hears of their ends, and looks again by itself
// after hintPatience. With none under way nobody tells it what the planner finds out, such
// as that samples have no bytes: it looks after hintGlance, and then less and less often.
const (
	hintPatience = time.Second
	hintGlance   = time.Millisecond
)

// hintDepthTime bounds the window of a hint with a clock by what the clock takes in such a
// time. Samples that were there are taken quicker than the clock goes, and the planner
// believes that the next will be as well.
const hintDepthTime = 10 * time.Second

// hintSearched is how many places are searched at most for those of one fetch. Those of a
// fetch that has just ended are among the first that are not ready.
const hintSearched = 1 << 14

// hintStream is a hint as a stream of the planner. Its consumer is the clock: it takes
// samples at the rate at which they will be used, and none before it is there. Samples that
// were there already it takes at once: only what must be fetched is worth spreading.
//
// Its methods are for the goroutine that drives the planner, but progress and those of the
// purse.
type hintStream struct {
	order  *hintOrder
	files  *fileLayout // of files; nil: of samples, whose layout is the view's
	layout prefetch.Layout
	view   dataset.View
	store  backend.Store
	rate   float64 // samples/s that the clock takes; 0: as soon as they are there
	weight float64
	purse

	planner *prefetch.Planner
	dataset prefetch.DatasetID
	job     prefetch.JobID
	stream  prefetch.StreamID
	begun   prefetch.Time
	flights int // fetches under way
	over    bool
	spent   bool          // a fetch was refused: no other is made
	spentAt int64         // the first place that one was refused for
	cold    placeSet      // not taken yet, that were not there
	lost    placeSet      // not taken yet, whose fetches failed
	pause   time.Duration // before the next look with nothing under way
	name    []byte        // scratch

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
	ready   int64 // places that were taken, lost ones too
	lost    int64 // of them, those whose fetches failed
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
		MinDepth: 2 * h.batch(), MaxDepth: h.mostDepth(), Rank: h.rank(),
	})
	if err != nil {
		return errors.Join(err, p.EndJob(now, h.job), p.EndDataset(now, h.dataset))
	}
	return nil
}

// turn implements reader: it takes what is due and there.
func (h *hintStream) turn(now prefetch.Time) (wake prefetch.Time, over bool) {
	if h.over {
		return prefetch.Never, true
	}
	taken, due := h.progress().ready, h.due(now)
	to := max(taken, min(h.ready(), due))
	h.take(now, to)
	switch {
	case to == h.order.length:
		h.complete()
		return prefetch.Never, true
	case h.spent && h.flights == 0:
		h.finish(api.HintSpent, h.progress().problem)
		return prefetch.Never, true
	case due > to: // it waits for fetches, after which readers with a clock have their turns
		return now.Add(h.patience(to > taken)), false
	}
	return h.dueAt(min(to+h.batch(), h.order.length)), false
}

// take takes the places before one.
func (h *hintStream) take(now prefetch.Time, to int64) {
	if to == h.progress().ready {
		return
	}
	if !h.spent { // else the planner would only ask for more
		h.planner.Consumed(now, h.stream, 0, to, 0)
	}
	h.cold.before(to)
	lost := h.lost.before(to)
	h.change(func(p *hintProgress) {
		p.ready = to
		p.lost += lost
	})
}

// patience is after how long a hint looks again by itself that waits.
func (h *hintStream) patience(moved bool) time.Duration {
	switch {
	case h.flights > 0:
		h.pause = 0
		return hintPatience
	case moved || h.pause == 0:
		h.pause = hintGlance
	default:
		h.pause = min(2*h.pause, hintPatience)
	}
	return h.pause
}

// batch is how many samples the clock takes at once.
func (h *hintStream) batch() int64 {
	if h.rate == 0 {
		return hintBatch
	}
	return int64(max(1, math.Min(h.rate*hintBatchTime.Seconds(), hintBatch)))
}

// mostDepth bounds the window; 0: only the planner does.
func (h *hintStream) mostDepth() int64 {
	if h.rate == 0 {
		return 0
	}
	return 2*h.batch() + int64(math.Min(h.rate*hintDepthTime.Seconds(), 1<<40))
}

// rank puts a hint that nobody waits for at any time behind the sessions.
func (h *hintStream) rank() uint8 {
	if h.rate == 0 {
		return 1
	}
	return 0
}

// ready is the first place that is not ready. The planner takes what was refused for ready.
func (h *hintStream) ready() int64 {
	most := h.order.length
	if h.spent {
		most = h.spentAt
	}
	epoch, place := h.planner.Ready(h.stream)
	if epoch > 0 {
		return most
	}
	return min(place, most)
}

// due is how many places may be taken: those that the clock has come to, and those before
// the first that was not there. A hint that fetches no more has no clock.
func (h *hintStream) due(now prefetch.Time) int64 {
	if h.rate == 0 || h.spent || len(h.cold) == 0 {
		return h.order.length
	}
	places := float64(h.batch()) + now.Sub(h.begun).Seconds()*h.rate
	return max(h.cold[0], int64(math.Min(places, float64(h.order.length))))
}

// dueAt is when the clock comes to a place.
func (h *hintStream) dueAt(place int64) prefetch.Time {
	if h.rate == 0 {
		return prefetch.Never
	}
	return h.begun + prefetch.Time(math.Min(math.Ceil(float64(place-h.batch())/h.rate*1e9), 1e18)) + 1
}

// admits implements reader. What a fetch costs is known where it is made: see budgeted. A
// second attempt is none of a hint that has to count its bytes.
func (h *hintStream) admits(f *prefetch.Fetch) bool {
	if h.over || h.spent || h.probed && f.Hedge {
		return false
	}
	if h.probed {
		if o, err := h.view.Object(f.Chunk.Number, &h.name); err == nil { // else the fetch fails as well
			h.enter(inLine{id: f.ID, name: string(o.Name), off: f.Offset, bytes: f.Bytes})
		}
	}
	h.flights++
	return true
}

// fail implements reader.
func (h *hintStream) fail(err error) (over bool) {
	h.finish(api.HintFailed, err.Error())
	return true
}

// done implements reader. What was there already costs nothing.
func (h *hintStream) done(f *prefetch.Fetch, r *prefetch.Result) {
	h.flights--
	h.leave(f.ID)
	found := r.Err == nil && r.Source == prefetch.Resident
	if r.Err == nil && !found {
		h.change(func(p *hintProgress) { p.fetched += f.Bytes })
	}
	switch {
	case h.over || found || errors.Is(r.Err, context.Canceled):
	case errors.Is(r.Err, errOverBudget):
		h.refused(f)
	case errors.Is(r.Err, backend.ErrCannotWarm):
		h.finish(api.HintFailed, r.Err.Error())
	case r.Err != nil: // the others may be there; whoever reads this one learns what is wrong with it
		h.broken(f, r.Err)
	case h.rate > 0:
		h.cold.add(h.placesOf(f)...)
	}
}

// refused ends fetching: the budget does not cover a fetch. Those under way go on to their
// ends, and what they bring counts.
func (h *hintStream) refused(f *prefetch.Fetch) {
	if f.Hedge { // the first attempt goes on
		return
	}
	at := h.placesOf(f)[0]
	if h.spent {
		at = min(at, h.spentAt)
	}
	h.spent, h.spentAt = true, at
}

// broken notes a fetch that failed.
func (h *hintStream) broken(f *prefetch.Fetch, err error) {
	h.change(func(p *hintProgress) {
		if p.failed++; p.problem == "" {
			p.problem = err.Error()
		}
	})
	if f.Hedge { // the samples may come yet
		return
	}
	places := h.placesOf(f)
	h.lost.add(places...)
	if h.rate > 0 { // else a store that fails would be asked for everything at once
		h.cold.add(places...)
	}
}

// placesOf are the places that wait for a fetch, of which the planner has not been told yet
// that it ended. It is one at least.
func (h *hintStream) placesOf(f *prefetch.Fetch) (places []int64) {
	from := h.ready()
	var samples []int64
	var pieces []prefetch.Piece
	var ends []int32
	var err error
	wanted := f.Samples // pieces of samples
	for place := from; wanted > 0 && place < min(h.order.length, from+hintSearched); place += int64(len(samples)) {
		samples = h.order.At(0, place, min(hintBatch, h.order.length-place), samples[:0])
		if pieces, ends, err = h.layout.Pieces(samples, pieces[:0], ends[:0]); err != nil || len(samples) == 0 {
			break // it could be looked up before
		}
		start := int32(0)
		for i, end := range ends {
			if n := piecesIn(f, pieces[start:end]); n > 0 && wanted > 0 {
				places = append(places, place+int64(i))
				wanted -= n
			}
			start = end
		}
	}
	if len(places) == 0 {
		places = append(places, from)
	}
	return places
}

// piecesIn counts the pieces that a fetch brings.
func piecesIn(f *prefetch.Fetch, pieces []prefetch.Piece) (n int32) {
	for _, p := range pieces {
		if p.Chunk == f.Chunk.Number && p.Offset >= f.Offset && p.Offset+p.Bytes <= f.Offset+f.Bytes {
			n++
		}
	}
	return n
}

// complete ends a hint of which everything was asked for.
func (h *hintStream) complete() {
	p := h.progress()
	if p.failed > 0 {
		h.finish(api.HintIncomplete, p.problem)
		return
	}
	h.finish(api.HintComplete, "")
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
