package prefetch

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Stream is what a Planner is told of a stream.
type Stream struct {
	Job     JobID
	Dataset DatasetID
	Order   Order
	Batch   int64 // samples that the consumer takes at once; less than 1 counts as 1
	Epoch   int64 // where it begins
	Place   int64
	Epochs  int64  // how many it reads, the first included; 0: it goes on for ever
	Source  Source // of what is not resident

	// MinDepth is the least window, samples; Options.MinDepth if that is more. A stream
	// with one looks ahead though all its samples were resident so far.
	MinDepth int64
	// MaxDepth is the largest, if it is above 0 and below Options.MaxDepth: such as an
	// epoch where what was fetched once is found again for a while.
	MaxDepth int64
	// Rank puts streams behind others, whatever they need: one of a higher rank begins a
	// fetch only if none of a lower one wants to, leaves the last quarter of
	// Options.MaxFlights to rank 0, and has of a link what far fetches may have.
	Rank uint8
}

// StreamError is why a stream is planned for no more.
type StreamError struct {
	Stream StreamID
	Err    error
}

// Error implements error.
func (e *StreamError) Error() string { return fmt.Sprintf("stream %d: %v", e.Stream, e.Err) }

// Unwrap returns Err.
func (e *StreamError) Unwrap() error { return e.Err }

// AddStream begins to plan for a stream.
func (p *Planner) AddStream(now Time, s Stream) (StreamID, error) {
	p.advance(now)
	d, j := p.datasets[s.Dataset], p.jobs[s.Job]
	switch {
	case d == nil:
		return 0, fmt.Errorf("add stream: dataset %d is not known", s.Dataset)
	case j == nil:
		return 0, fmt.Errorf("add stream: job %d is not known", s.Job)
	case s.Order == nil:
		return 0, fmt.Errorf("add stream: it has no order")
	case s.Source <= Resident || s.Source >= Sources:
		return 0, fmt.Errorf("add stream: %v is no source to fetch from", s.Source)
	}
	s.Batch = max(1, min(s.Batch, maxBatch, s.Order.Len(max(0, s.Epoch))))
	p.last.stream++
	if s.MaxDepth < 1 || s.MaxDepth > p.options.MaxDepth {
		s.MaxDepth = p.options.MaxDepth
	}
	s.MinDepth = min(max(s.MinDepth, p.options.MinDepth), s.MaxDepth)
	added := &stream{
		Stream: s, id: p.last.stream, job: j, dataset: d,
		depth: NewDepth(DepthOptions{Epsilon: p.options.Epsilon, Min: s.MinDepth, Max: max(s.MaxDepth, s.Batch), Batch: s.Batch}),
	}
	added.Epochs = max(0, added.Epochs)
	added.missing, added.taking = 1, -1 // until something is known
	if err := added.checkPlace(s.Epoch, s.Place); err != nil {
		return 0, err
	}
	added.place(s.Epoch, s.Place)
	d.streams++
	j.streams++
	p.streams = append(p.streams, added)
	added.takenAt = p.now
	p.resize()
	p.sizeWindow(added)
	p.demand(j)
	return added.id, nil
}

// EndStream ends a stream: what was fetched for it alone and not used is waste.
func (p *Planner) EndStream(now Time, id StreamID) error {
	p.advance(now)
	i := p.find(id)
	if i < 0 {
		return fmt.Errorf("end stream %d: it is not known", id)
	}
	s := p.streams[i]
	p.abandon(s)
	s.dataset.streams--
	s.job.streams--
	s.job.totals.add(&s.metrics)
	p.totals.add(&s.metrics)
	p.promise(s, 0)
	p.account(s, 0)
	p.streams = slices.Delete(p.streams, i, i+1)
	p.demand(s.job)
	p.resize()
	return nil
}

// seekOften is in how many windows a stream must seek twice for its window to become
// shallower: as many as Depth takes to forget half of that.
const seekOften = 8

// Seek moves a stream to another place. Its window begins anew, and is shallower where what
// was fetched is dropped often.
func (p *Planner) Seek(now Time, id StreamID, epoch, place int64) error {
	p.advance(now)
	s := p.stream(id)
	if s == nil {
		return fmt.Errorf("seek in stream %d: it is not known", id)
	}
	if err := s.checkPlace(epoch, place); err != nil {
		return err
	}
	fetched, often := p.abandon(s), s.taken > 0 && s.taken < seekOften*s.size
	if often {
		s.depth.Unused(fetched)
	}
	s.place(epoch, place)
	s.takenAt = p.now
	p.sizeWindow(s)
	return nil
}

// find returns where a stream is, -1 if it is not known.
func (p *Planner) find(id StreamID) int {
	i, found := slices.BinarySearchFunc(p.streams, id, func(s *stream, id StreamID) int { return int(s.id) - int(id) })
	if !found {
		return -1
	}
	return i
}

func (p *Planner) stream(id StreamID) *stream {
	if i := p.find(id); i >= 0 {
		return p.streams[i]
	}
	return nil
}

// demand tells the links what a job needs.
func (p *Planner) demand(j *job) {
	var needs [Sources]float64
	for _, s := range p.streams {
		if s.job != j || s.Rank > 0 { // who has only what is left demands nothing
			continue
		}
		if tau := s.depth.Tau(); tau > 0 {
			needs[s.Source] += s.missing * s.bytesASample() * float64(time.Second) / float64(tau)
		} else {
			needs[s.Source] = math.Inf(1) // not known yet: none of what the others want is his
		}
	}
	for source, link := range p.links {
		link.Demand(j.id, needs[source])
	}
}
