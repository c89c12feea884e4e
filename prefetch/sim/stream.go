package sim

import (
	"math/rand/v2"
	"time"

	"github.com/stokerio/stoker/prefetch"
)

// streamState is where a stream is in its life.
type streamState uint8

const (
	ahead streamState = iota // it has not begun
	running
	cut // ended by its Limit or by World.Until
	ended
)

// stream is a StreamSpec at work.
type stream struct {
	spec   *StreamSpec
	index  int32
	job    int
	id     prefetch.StreamID
	layout *Layout
	random *rand.Rand
	state  streamState
	phase  int // the next one of spec.Phases
	seeks  int // of spec.Seeks that were made
	tau    time.Duration

	epoch, place int64 // of the batch that is asked for next, or waited for
	batch        int64 // its samples
	asked        prefetch.Time
	pending      int             // pieces of it that are not there
	unfetched    int64           // its samples that no fetch was for
	missing      int64           // of them, those that were not in the cache
	reads        []time.Duration // of those, how long each took
	stalled      time.Duration

	depth, window         int64
	moved                 prefetch.Time
	depthTime, windowTime float64 // integrals over time
	counted               time.Duration
	taken, used           int64 // bytes from the sources, and in all, since World.From
	samples               []int64
	pieces                []prefetch.Piece
	ends                  []int32
	wanted                []want
	result                *StreamResult
}

func (e *engine) addStream(job, number int) {
	w := e.world
	spec := &w.Jobs[job].Streams[number]
	at := int32(len(e.streams))
	e.streams = append(e.streams, stream{
		spec: spec, index: at, job: job, layout: w.Datasets[spec.Dataset].Layout,
		random: rand.New(rand.NewPCG(w.Seed, mix(golden+uint64(at)))), tau: spec.PerSample,
		epoch: spec.Epoch, place: spec.Place, result: &e.result.Jobs[job].Streams[number],
	})
	e.running++
	e.events.push(spec.Start, streamBegins, at, 0)
}

func (s *stream) position() int64 { return position(s.epoch, s.place) }

// over reports whether a stream reads no such epoch any more.
func (s *stream) over(epoch int64) bool {
	return s.spec.Epochs > 0 && epoch >= s.spec.Epoch+s.spec.Epochs
}

// move brings the integrals over time up to now; the warm-up does not count.
func (s *stream) move(now prefetch.Time) {
	switch passed := now.Sub(s.moved); {
	case s.state != running:
	case s.result.Samples < s.spec.WarmUp:
		s.result.MaxDepth, s.result.MaxWindow = s.depth, s.window
	default:
		s.counted += passed
		s.depthTime += float64(s.depth) * float64(passed)
		s.windowTime += float64(s.window) * float64(passed)
	}
	s.moved = now
}

// begin tells the Decider of a stream, and asks for its first batch.
func (e *engine) begin(s *stream) error {
	spec, n := s.spec, &e.nodes[s.spec.Node]
	d := &n.datasets[spec.Dataset]
	if d.streams++; d.streams == 1 {
		e.forget(n, spec.Dataset)
		from := e.world.Datasets[spec.Dataset]
		id, err := n.decider.AddDataset(e.now, prefetch.Dataset{Layout: from.Layout, Seed: from.Seed, Weight: from.Weight, Keep: from.Keep})
		if err != nil {
			return err
		}
		d.id = id
		n.byID[id] = int32(spec.Dataset)
	}
	s.state, s.moved, s.result.Begin = running, e.now, e.now
	if !spec.Blind {
		if err := e.announce(s, n); err != nil {
			return err
		}
	}
	if err := e.pump(int32(spec.Node)); err != nil {
		return err
	}
	return e.ask(s)
}

func (e *engine) announce(s *stream, n *node) (err error) {
	j := &n.jobs[s.job]
	if j.streams++; j.streams == 1 {
		j.id = n.decider.AddJob(e.now, e.world.Jobs[s.job].weight())
	}
	spec := s.spec
	s.id, err = n.decider.AddStream(e.now, prefetch.Stream{
		Job: j.id, Dataset: n.datasets[spec.Dataset].id, Order: spec.Order, Batch: max(1, spec.Batch),
		Epoch: spec.Epoch, Place: spec.Place, Epochs: spec.Epochs, Source: spec.Source,
	})
	if err == nil {
		n.streams[s.id] = s.index
	}
	return err
}

// seek moves a stream that has taken as many samples as its next Seek says.
func (e *engine) seek(s *stream) error {
	to := &s.spec.Seeks[s.seeks]
	s.seeks++
	s.epoch, s.place = to.Epoch, to.Place
	if !s.spec.Blind {
		if err := e.nodes[s.spec.Node].decider.Seek(e.now, s.id, to.Epoch, to.Place); err != nil {
			return err
		}
	}
	e.abandon(s)
	return nil
}

// ask is the consumer asking for its next batch.
func (e *engine) ask(s *stream) (err error) {
	for s.seeks < len(s.spec.Seeks) && s.spec.Seeks[s.seeks].After <= s.result.Samples {
		if err := e.seek(s); err != nil {
			return err
		}
	}
	if s.over(s.epoch) || s.spec.Limit > 0 && s.result.Samples >= s.spec.Limit {
		return e.end(s)
	}
	s.batch = min(max(1, s.spec.Batch), s.spec.Order.Len(s.epoch)-s.place)
	if s.spec.Limit > 0 {
		s.batch = min(s.batch, s.spec.Limit-s.result.Samples)
	}
	s.samples = s.spec.Order.At(s.epoch, s.place, s.batch, s.samples[:0])
	if s.pieces, s.ends, err = s.layout.Pieces(s.samples, s.pieces[:0], s.ends[:0]); err != nil {
		return err
	}
	e.seeStream(asks, s)
	s.asked, s.pending, s.unfetched, s.missing, s.reads = e.now, 0, 0, 0, s.reads[:0]
	for i, end := range s.ends {
		from := int32(0)
		if i > 0 {
			from = s.ends[i-1]
		}
		worst := hit
		for _, p := range s.pieces[from:end] {
			worst = max(worst, e.need(s, p))
		}
		s.count(worst)
	}
	if s.pending == 0 {
		if err := e.deliver(s); err != nil {
			return err
		}
	}
	return e.pump(int32(s.spec.Node))
}

// found is how a piece is come by, the best first.
type found uint8

const (
	hit     found = iota // in the cache
	fetched              // in a window
	late                 // its fetch is under way
	missing              // the consumer must read it
)

func (s *stream) count(f found) {
	switch f {
	case hit:
		s.result.Hits++
		s.unfetched++
		s.epochResult().Hits++
	case late:
		s.result.Late++
	case missing:
		s.result.Missing++
		s.missing++
		s.unfetched++
	}
}

// need finds a piece of the batch, or makes the stream wait for it.
func (e *engine) need(s *stream, p prefetch.Piece) found {
	n := &e.nodes[s.spec.Node]
	r := &n.datasets[s.spec.Dataset]
	measured := e.now >= e.world.From
	if measured {
		s.used += p.Bytes
	}
	if r.has(p.Chunk) {
		r.touch(p.Chunk)
		if _, own := e.find(s, p); !own {
			if s.spec.Blind {
				n.decider.Access(e.now, prefetch.Chunk{Dataset: r.id, Number: p.Chunk}, s.layout.ChunkBytes(p.Chunk))
			}
			s.result.Bytes[prefetch.Resident] += p.Bytes
			return hit
		}
	}
	s.result.Bytes[s.spec.Source] += p.Bytes
	if measured {
		s.taken += p.Bytes
	}
	return e.get(s, p)
}

// get finds the hold that a piece of the batch comes from, or reads the piece.
func (e *engine) get(s *stream, p prefetch.Piece) found {
	at, _ := e.find(s, p)
	if at == 0 {
		e.read(s, p)
		return missing
	}
	h := e.holds.at(at)
	h.used += p.Bytes
	if h.done {
		return fetched
	}
	s.pending++
	e.wait(h, s.index, p)
	return late
}

// read is the consumer reading a piece by itself; without a future, its whole chunk.
func (e *engine) read(s *stream, p prefetch.Piece) {
	offset, bytes := p.Offset, p.Bytes
	if s.spec.Blind {
		offset, bytes = 0, s.layout.ChunkBytes(p.Chunk)
	}
	at := e.holds.add(hold{
		chunkKey: chunkKey{int32(s.spec.Dataset), p.Chunk}, node: int32(s.spec.Node), stream: s.index,
		offset: offset, bytes: bytes, whole: s.spec.Blind, demand: true,
	})
	e.chain(at)
	s.pending++
	e.wait(e.holds.at(at), s.index, p)
	e.request(attempt{bytes: bytes, hold: at, node: int32(s.spec.Node), stream: s.index, source: s.spec.Source, demand: true})
}
