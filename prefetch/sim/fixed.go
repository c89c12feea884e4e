package sim

import (
	"fmt"
	"math"
	"time"

	"github.com/stokerio/stoker/prefetch"
)

// Fixed is a Decider that keeps the same number of samples ahead of each stream: fetches
// begun for samples not yet taken. It fetches exact ranges, in order, at once. With a
// cache it keeps what comes first, whole chunks, and never drops it.
type Fixed struct {
	depth    int64 // samples; 0: from the mean, see NewMeanDepth
	capacity int64
	stored   int64
	fetch    prefetch.FetchID
	job      prefetch.JobID
	turn     int // of the streams that Next asks in turn
	datasets []fixedDataset
	streams  []*fixedStream
	flights  map[prefetch.FetchID]fixedFlight
}

type fixedDataset struct {
	prefetch.Dataset
	state []uint8 // of each chunk: 0, or one of the below; nil without a cache
}

const (
	comes = iota + 1 // a fetch for the cache is under way
	stays
)

type fixedFlight struct {
	chunk  prefetch.Chunk
	bytes  int64
	stream prefetch.StreamID
	keep   bool
}

type fixedStream struct {
	prefetch.Stream
	id            prefetch.StreamID
	epoch, place  int64 // of the next sample to look up
	issued, taken int64 // samples
	at            [2]int64
	pieces        []prefetch.Piece
	ends          []int32
	samples       []int64
	next          int // of pieces
	ended         bool

	mean, tau float64 // of latency and of a sample's time, ns, of late; 0: not known
	last      prefetch.Time
	began     bool
}

// NewFixedDepth returns a Decider with windows of so many samples (torch has
// prefetch_factor·num_workers batches) and a cache of so many bytes.
func NewFixedDepth(samples, capacity int64) *Fixed {
	return &Fixed{depth: max(1, samples), capacity: capacity, flights: map[prefetch.FetchID]fixedFlight{}}
}

// NewMeanDepth returns a Decider whose windows are as long as fetches take on average:
// ceil(mean latency / time of a sample), both as it has seen them, and a batch at least.
func NewMeanDepth(capacity int64) *Fixed {
	return &Fixed{capacity: capacity, flights: map[prefetch.FetchID]fixedFlight{}}
}

// AddDataset implements Decider.
func (d *Fixed) AddDataset(_ prefetch.Time, added prefetch.Dataset) (prefetch.DatasetID, error) {
	f := fixedDataset{Dataset: added}
	if added.Keep && d.capacity > 0 {
		f.state = make([]uint8, added.Layout.Chunks())
	}
	d.datasets = append(d.datasets, f)
	return prefetch.DatasetID(len(d.datasets)), nil
}

// EndDataset implements Decider.
func (d *Fixed) EndDataset(prefetch.Time, prefetch.DatasetID) error { return nil }

// AddJob implements Decider.
func (d *Fixed) AddJob(prefetch.Time, float64) prefetch.JobID { d.job++; return d.job }

// EndJob implements Decider.
func (d *Fixed) EndJob(prefetch.Time, prefetch.JobID) error { return nil }

// AddStream implements Decider.
func (d *Fixed) AddStream(_ prefetch.Time, s prefetch.Stream) (prefetch.StreamID, error) {
	if s.Dataset == 0 || int(s.Dataset) > len(d.datasets) {
		return 0, fmt.Errorf("add stream: dataset %d is not known", s.Dataset)
	}
	added := &fixedStream{Stream: s, id: prefetch.StreamID(len(d.streams) + 1), epoch: s.Epoch, place: s.Place}
	added.at = [2]int64{s.Epoch, s.Place}
	d.streams = append(d.streams, added)
	return added.id, nil
}

// EndStream implements Decider.
func (d *Fixed) EndStream(_ prefetch.Time, id prefetch.StreamID) error {
	d.streams[id-1].ended = true
	return nil
}

// Seek implements Decider.
func (d *Fixed) Seek(_ prefetch.Time, id prefetch.StreamID, epoch, place int64) error {
	s := d.streams[id-1]
	s.epoch, s.place, s.at = epoch, place, [2]int64{epoch, place}
	s.issued, s.taken, s.next, s.pieces = 0, 0, 0, s.pieces[:0]
	return nil
}

// Consumed implements Decider.
func (d *Fixed) Consumed(now prefetch.Time, id prefetch.StreamID, epoch, place int64, waited time.Duration) {
	s := d.streams[id-1]
	n := -s.at[1] + place
	for e := s.at[0]; e < epoch; e++ {
		n += s.Order.Len(e)
	}
	s.at = [2]int64{epoch, place}
	s.taken += n
	if s.began && n > 0 {
		s.tau = follow(s.tau, float64(now.Sub(s.last)-waited)/float64(n))
	}
	s.last, s.began = now, true
	for s.issued < s.taken && s.lookUp(d) == nil { // what the consumer read itself
		s.next = len(s.pieces)
		s.issued++
	}
}

// follow is a mean that forgets: the weight of the news is a sixteenth.
func follow(mean, news float64) float64 {
	if mean == 0 {
		return news
	}
	return mean + (news-mean)/16
}

// Missed implements Decider.
func (d *Fixed) Missed(prefetch.Time, prefetch.StreamID, int64, int64, ...time.Duration) {}

// Next implements Decider.
func (d *Fixed) Next(_ prefetch.Time, f *prefetch.Fetch) (bool, error) {
	for range d.streams {
		s := d.streams[d.turn%len(d.streams)]
		d.turn++
		if ok, err := d.nextOf(s, f); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func (d *Fixed) nextOf(s *fixedStream, f *prefetch.Fetch) (bool, error) {
	for !s.ended {
		if s.next < len(s.pieces) {
			p := s.pieces[s.next]
			s.next++
			if d.begin(s, p, f) {
				return true, nil
			}
			continue
		}
		over := s.Epochs > 0 && s.epoch >= s.Epoch+s.Epochs
		if over || s.issued-s.taken >= d.window(s) {
			return false, nil
		}
		if err := s.lookUp(d); err != nil {
			return false, err
		}
		s.issued++
	}
	return false, nil
}

// window is how many samples may be ahead.
func (d *Fixed) window(s *fixedStream) int64 {
	if d.depth > 0 {
		return d.depth
	}
	if s.tau <= 0 || s.mean <= 0 {
		return max(1, s.Batch)
	}
	return max(s.Batch, int64(math.Ceil(min(s.mean/s.tau, 1<<20))))
}

// lookUp finds the pieces of the stream's next sample.
func (s *fixedStream) lookUp(d *Fixed) (err error) {
	s.samples = s.Order.At(s.epoch, s.place, 1, s.samples[:0])
	s.next = 0
	s.pieces, s.ends, err = d.datasets[s.Dataset-1].Layout.Pieces(s.samples, s.pieces[:0], s.ends[:0])
	if s.place++; s.place >= s.Order.Len(s.epoch) {
		s.epoch, s.place = s.epoch+1, 0
	}
	return err
}

// begin makes the fetch of a piece; there is none if the cache has it.
func (d *Fixed) begin(s *fixedStream, p prefetch.Piece, f *prefetch.Fetch) bool {
	from := &d.datasets[s.Dataset-1]
	c := prefetch.Chunk{Dataset: s.Dataset, Number: p.Chunk}
	d.fetch++
	*f = prefetch.Fetch{
		ID: d.fetch, Stream: s.id, Job: s.Job, Chunk: c, Offset: p.Offset, Bytes: p.Bytes,
		Needed: p.Bytes, Source: s.Source, Epoch: s.epoch, Samples: 1,
	}
	if from.state != nil {
		if from.state[p.Chunk] == stays {
			return false
		}
		size := from.Layout.ChunkBytes(p.Chunk)
		if from.state[p.Chunk] == 0 && d.stored+size <= d.capacity {
			d.stored += size
			from.state[p.Chunk] = comes
			f.Offset, f.Bytes, f.Whole, f.Keep = 0, size, true, true
		}
	}
	d.flights[f.ID] = fixedFlight{chunk: c, bytes: f.Bytes, stream: s.id, keep: f.Keep}
	return true
}

// Done implements Decider.
func (d *Fixed) Done(_ prefetch.Time, id prefetch.FetchID, r prefetch.Result) {
	f := d.flights[id]
	delete(d.flights, id)
	if r.Err == nil {
		s := d.streams[f.stream-1]
		s.mean = follow(s.mean, float64(r.Took))
	}
	if state := d.datasets[f.chunk.Dataset-1].state; f.keep && r.Kept {
		state[f.chunk.Number] = stays
	} else if f.keep {
		state[f.chunk.Number] = 0
		d.stored -= f.bytes
	}
}

// Wake implements Decider.
func (d *Fixed) Wake(prefetch.Time) prefetch.Time { return prefetch.Never }

// Drop implements Decider.
func (d *Fixed) Drop(prefetch.Time) (c prefetch.Chunk, ok bool) { return c, false }

// Evicted implements Decider.
func (d *Fixed) Evicted(_ prefetch.Time, c prefetch.Chunk) {
	from := &d.datasets[c.Dataset-1]
	if from.state != nil && from.state[c.Number] == stays {
		from.state[c.Number] = 0
		d.stored -= from.Layout.ChunkBytes(c.Number)
	}
}

// Access implements Decider.
func (d *Fixed) Access(prefetch.Time, prefetch.Chunk, int64) (keep bool) { return false }

// LeastDepth finds the best that a fixed depth can do, in hindsight: the least depth up to
// most with which the worst stream's stall share is goal or less. It plays the world about
// log2(most) times. ok is false if not even most is enough; the result is that of most
// then.
func LeastDepth(w *World, goal float64, most int64) (depth int64, r *Result, ok bool, err error) {
	play := func(depth int64) (*Result, bool, error) {
		r, err := Run(w, func(node int) Decider { return NewFixedDepth(depth, w.Nodes[node].CacheBytes) })
		return r, err == nil && r.WorstStall() <= goal, err
	}
	low, high := int64(0), max(1, most) // low is not enough
	if r, ok, err = play(high); err != nil || !ok {
		return high, r, ok, err
	}
	for high-low > 1 {
		middle := low + (high-low)/2
		tried, enough, err := play(middle)
		if err != nil {
			return 0, nil, false, err
		}
		if enough {
			high, r = middle, tried
		} else {
			low = middle
		}
	}
	return high, r, true, nil
}

// WorstStall is the greatest stall share of all streams.
func (r *Result) WorstStall() (worst float64) {
	for i := range r.Jobs {
		for k := range r.Jobs[i].Streams {
			worst = max(worst, r.Jobs[i].Streams[k].StallShare())
		}
	}
	return worst
}
