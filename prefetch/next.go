package prefetch

import (
	"math"
	"math/bits"
	"time"
)

// maxHedging bounds how many hedges may be begun at once after a time without need.
const maxHedging = 16

// hedgeWorth says how much of the mean latency must lie behind the time of hedging for
// hedges to be worth their bytes: one part in so many.
const hedgeWorth = 200

// flight is a fetch under way.
type flight struct {
	Fetch
	seeks   uint32 // of its stream when it was begun
	begun   Time
	waiters int32 // ranges; those of a whole chunk are its hold's
	listed  int32 // where in the table of ranges, plus one; 0: nowhere
	hold    *hold
	claim   claim   // the memory that it fills
	until   int64   // the turn of the last sample that waits for a range
	twin    *flight // the other attempt, while both are under way
	ended   bool    // another attempt was quicker, or all of them failed
}

// Next returns the next fetch that should begin now; ok is false if there is none. The
// driver carries it out and calls Done, or asks again after Wake or any other call.
//
// The error is a *StreamError: samples of the stream cannot be looked up. It is returned
// once; the stream is planned for no more until it is moved by Seek.
func (p *Planner) Next(now Time, f *Fetch) (ok bool, err error) {
	p.advance(now)
	if p.hedge(f) {
		return true, nil
	}
	for _, s := range p.streams {
		if err := p.fillWindow(s); err != nil {
			return false, err
		}
	}
	for p.near < p.options.MaxFlights {
		s := p.mostUrgent()
		if s == nil {
			break
		}
		if bytes := s.candidates.at(0).bytes; p.shareRange(s) {
			p.links[s.Source].Refund(p.now, s.job.id, bytes, s.Rank > 0)
			continue
		}
		p.begin(s, f)
		return true, nil
	}
	return p.options.Far && p.fars < p.options.MaxFlights/4+1 && p.far(f), nil
}

// stagesAtOnce bounds how often one call of Next looks samples of one stream up.
const stagesAtOnce = 8

// fillWindow stages samples until the stream has a candidate or its window is full.
func (p *Planner) fillWindow(s *stream) error {
	for range stagesAtOnce {
		room := s.size - (s.staged - s.taken)
		if room <= 0 || s.over || s.err != nil || s.candidates.len() > 0 {
			break
		}
		p.stage(s, room)
	}
	if s.err != nil && !s.reported {
		s.reported = true
		return &StreamError{s.id, s.err}
	}
	return nil
}

// unfinished reports whether fillWindow has more to look up.
func (s *stream) unfinished() bool {
	return s.err == nil && !s.over && s.candidates.len() == 0 && s.staged-s.taken < s.size
}

// begin makes a fetch of a stream's next candidate.
func (p *Planner) begin(s *stream, f *Fetch) {
	c := s.candidates.pop()
	p.last.fetch++
	n := p.takeFlight()
	n.Fetch = Fetch{
		ID: p.last.fetch, Stream: s.id, Job: s.job.id, Chunk: Chunk{s.dataset.id, c.chunk}, Offset: c.offset, Bytes: c.bytes,
		Needed: c.needed, Whole: c.hold != nil, Keep: c.keep, Source: s.Source, NeedBy: p.told(s.needBy(c.first)), Epoch: c.epoch,
	}
	n.seeks, n.begun, n.waiters, n.hold = s.seeks, p.now, c.waiters, c.hold
	if h := c.hold; h != nil {
		h.flight, h.bytes = n.ID, c.bytes
		n.claim, n.Samples = p.claim(s, c.bytes), p.waiting(s, h.waiters).samples
	} else {
		w := p.waiting(s, c.waiters)
		n.claim, n.Samples, n.until = p.claim(s, w.bytes), w.samples, w.last
	}
	p.listRange(n, s.dataset)
	s.metrics.Fetches++
	s.job.flights++
	p.near++
	p.hedging = math.Min(p.hedging+p.options.HedgeShare, maxHedging)
	p.start(n)
	*f = n.Fetch
}

// awaited is what samples of a stream wait for on a list.
type awaited struct {
	bytes   int64 // of all, also of those that were taken by a reader that did not wait
	last    int64 // turn
	samples int32 // that are not taken yet
}

func (p *Planner) waiting(s *stream, list int32) awaited {
	a := awaited{last: -1}
	for at := list; at != 0; at = p.scratch.waiters[at-1].next {
		w := &p.scratch.waiters[at-1]
		if w.stream != s.id || w.seeks != s.seeks {
			continue
		}
		a.bytes, a.last = a.bytes+w.bytes, max(a.last, w.turn)
		if w.turn >= s.taken {
			a.samples++
		}
	}
	return a
}

func (p *Planner) start(n *flight) {
	p.flights[n.ID] = n
	if p.options.HedgeShare == 0 {
		return
	}
	begun := &p.begun[sizeClass(n.Bytes)]
	if begun.len() > 2*len(p.flights)+64 { // one that takes for ever keeps those behind it
		for range begun.len() {
			if id := begun.pop(); p.hedgeable(id) {
				begun.push(id)
			}
		}
	}
	begun.push(n.ID)
}

// sizeClass is the class of fetches that are late after the same time.
func sizeClass(bytes int64) int { return bits.Len64(uint64(max(0, bytes))) }

// hedge begins a fetch a second time that is later than all but a few are.
func (p *Planner) hedge(f *Fetch) bool {
	if p.hedging < 1 {
		return false
	}
	for class := range p.begun {
		late := p.oldest(class)
		if late == nil || p.now < p.hedgeAt(late) || !p.links[late.Source].Allow(p.now, late.Job, late.Bytes, false) {
			continue
		}
		p.hedging--
		p.last.fetch++
		n := p.takeFlight()
		n.Fetch = late.Fetch
		n.ID, n.Hedge, n.Of = p.last.fetch, true, late.ID
		n.seeks, n.begun = late.seeks, p.now
		n.twin, late.twin = late, n
		if s := p.stream(late.Stream); s != nil {
			s.metrics.Fetches++
			s.metrics.Hedges++
			n.claim = p.claim(s, late.claim.bytes) // it fills memory of its own
		}
		p.flights[n.ID] = n
		*f = n.Fetch
		return true
	}
	return false
}

// oldest returns the fetch of a class that has been under way for longest and may be
// hedged, nil if there is none.
func (p *Planner) oldest(class int) *flight {
	begun := &p.begun[class]
	for begun.len() > 0 {
		if id := *begun.at(0); p.hedgeable(id) {
			return p.flights[id]
		}
		begun.pop()
	}
	return nil
}

func (p *Planner) hedgeable(id FetchID) bool {
	f := p.flights[id]
	return f != nil && p.mayHedge(f)
}

// mayHedge reports whether a fetch is a first attempt that its stream still waits for.
func (p *Planner) mayHedge(f *flight) bool {
	if f.ended || f.twin != nil || f.Hedge {
		return false
	}
	s := p.stream(f.Stream)
	return s != nil && s.seeks == f.seeks
}

// hedgeAt is when a fetch is late.
func (p *Planner) hedgeAt(f *flight) Time {
	after := p.hedgeAfter(f.Source, f.Bytes)
	if after <= 0 {
		return Never
	}
	return f.begun.Add(after)
}

// hedgeMemo remembers an answer of hedgeAfter for some questions: working it out takes a
// walk through a histogram, and it changes slowly.
type hedgeMemo struct {
	after time.Duration
	left  int32
}

// How often an answer is used: one that no hedge is worth it, or not yet, is asked for anew
// sooner.
const (
	hedgeMemoUses = 1024
	noHedgeUses   = 64
)

// hedgeAfter is how long all but HedgeShare of the fetches of that kind take, 0 if that is
// not known.
func (p *Planner) hedgeAfter(source Source, bytes int64) time.Duration {
	if p.options.HedgeShare == 0 {
		return 0
	}
	memo := &p.hedgeMemos[source][sizeClass(bytes)]
	if memo.left--; memo.left < 0 {
		memo.after, memo.left = p.hedgeTime(source, bytes), hedgeMemoUses
		if memo.after == 0 {
			memo.left = noHedgeUses
		}
	}
	return memo.after
}

func (p *Planner) hedgeTime(source Source, bytes int64) time.Duration {
	h := p.latencies.For(source, bytes)
	if h == nil || h.Weight() < 1/p.options.HedgeShare {
		return 0
	}
	after := h.Quantile(1 - p.options.HedgeShare)
	if h.Excess(after) < h.Mean()/hedgeWorth {
		return 0 // hardly anything takes longer: nothing is won
	}
	return after
}

// Wake is when Next may have another answer though nothing is told to the planner until
// then; Never if there is no such time.
func (p *Planner) Wake(now Time) Time {
	p.advance(now)
	at := Never
	if p.hedging >= 1 {
		for class := range p.begun {
			if f := p.oldest(class); f != nil {
				at = min(at, max(p.hedgeAt(f), p.links[f.Source].NextAllowed(p.now, f.Job, f.Bytes, false)))
			}
		}
	}
	if p.near < p.options.MaxFlights {
		least := p.scarcity()
		for _, s := range p.streams {
			if s.unfinished() {
				at = p.now
			}
			if p.near < p.slots(s.Rank) && p.mayBegin(s, least) {
				at = min(at, p.links[s.Source].NextAllowed(p.now, s.job.id, s.candidates.at(0).bytes, s.Rank > 0))
			}
		}
	}
	if p.options.Far {
		at = min(at, p.farWake())
	}
	if at == Never {
		return Never
	}
	return p.told(max(at, p.now))
}

func (p *Planner) takeFlight() *flight {
	if n := len(p.idle); n > 0 {
		f := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return f
	}
	return new(flight)
}

func (p *Planner) putFlight(f *flight) {
	*f = flight{}
	p.idle = append(p.idle, f)
}
