package prefetch

import "fmt"

// stream is a stream and its window: the samples between what was taken last and what
// was staged last. Samples count from 0 at the place of the last Seek; these counts are
// called turns.
type stream struct {
	Stream
	id      StreamID
	job     *job
	dataset *dataset
	depth   *Depth
	metrics Metrics
	size    int64   // the depth now, within what memory allows
	missing float64 // share of samples that had to be fetched, of late
	bytes   float64 // that such a sample took, of late
	fetch   float64 // bytes of a fetch that came from somewhere, of late
	from    Source  // where it came from
	meets   float64 // samples of a stage that share a chunk, of late
	stages  uint32
	seeks   uint32 // so that fetches for an earlier window are known
	err     error  // nothing more is planned

	reported bool // Next has returned err

	stagedEpoch, stagedPlace int64 // the first sample that is not staged
	takenEpoch, takenPlace   int64 // the first that was not taken
	staged, taken, ready     int64 // turns; what lies before ready is there
	takenAt                  Time
	over                     bool // all epochs are staged

	farEpoch, farPlace int64       // where looking ahead for the cache goes on
	farAt              int64       // the turn of that sample
	farSeeks           uint32      // of the window that it belongs to
	farChunks          ring[int64] // found and not begun

	items      ring[item]      // of turns [taken, staged)
	candidates ring[candidate] // staged fetches that were not begun, the earliest need first
	holds      ring[listed]    // whole chunks that it needs, about in the order of their last use
	held       int64           // bytes that were begun for samples not yet taken
	promised   int64           // that it may always hold
	usual      int64           // that it held before batches were taken, of late
	taking     float64         // bytes that a batch lets go of when it is taken, of late; -1: not known
}

// item is a sample of a window.
type item struct {
	pending int32 // fetches that it waits for
	missed  bool  // one of them brought it from somewhere
	bytes   int64 // of its pieces that had to be fetched
	arrived int64 // of them, from somewhere
	kept    int64 // of these, those that are in the cache
	shared  int64 // bytes that another stream's fetch brings
	held    int64 // bytes of ranges that are there and let go of with it
	found   int64 // bytes that a fetch found resident, which may be gone again any time
	there   int64 // bytes of its pieces that were resident, and are counted on
	readyAt Time
}

// candidate is a fetch that is not begun.
type candidate struct {
	chunk         int64
	offset, bytes int64
	needed        int64
	first, last   int64 // turns of the samples that wait for it
	waiters       int32 // list of them
	epoch         int64
	hold          *hold // whole chunks
	serial        uint32
	keep          bool
}

// hold is a whole chunk that windows need: under way, or there and not to be forgotten
// before they have used it; or a chunk of the cache that they count on.
type hold struct {
	chunk   Chunk
	flight  FetchID // 0: not begun
	waiters int32
	ready   bool
	cached  bool     // it is of a chunk of the cache
	pinned  bool     // which is
	needed  int64    // bytes that samples of windows want
	found   bool     // its fetch found it resident
	moved   int64    // bytes that its fetch brought for windows alone
	creator StreamID // whose samples the fetch is for; others share it
	bytes   int64    // that windows take for it
	claim   claim    // once it is there
	uses    []use
	serial  uint32 // of its use for this chunk, as holds are used again
}

// listed is a hold in a stream's list, and its last use when it was put there.
type listed struct {
	*hold
	last int64
}

// use is how long a stream needs a hold.
type use struct {
	stream StreamID
	until  int64 // turn of its last sample
}

// holds reports whether a candidate of a whole chunk is still to be begun for a stream.
func (c *candidate) holds(s *stream) bool {
	h := c.hold
	return h.serial == c.serial && h.flight == 0 && !h.ready && h.until(s.id) >= s.taken
}

// use notes that a stream needs a hold up to a turn; it says whether that is news.
func (h *hold) use(id StreamID, until int64) bool {
	for i := range h.uses {
		if u := &h.uses[i]; u.stream == id {
			u.until = max(u.until, until)
			return false
		}
	}
	h.uses = append(h.uses, use{id, until})
	return true
}

// until is the last turn of a stream that needs the hold, -1 for none.
func (h *hold) until(id StreamID) int64 {
	for i := range h.uses {
		if h.uses[i].stream == id {
			return h.uses[i].until
		}
	}
	return -1
}

// leave ends a stream's use; it says whether nobody is left.
func (h *hold) leave(id StreamID) bool {
	for i := range h.uses {
		if h.uses[i].stream == id {
			last := len(h.uses) - 1
			h.uses[i] = h.uses[last]
			h.uses = h.uses[:last]
			break
		}
	}
	return len(h.uses) == 0
}

// checkPlace says what is wrong with a place to go on from.
func (s *stream) checkPlace(epoch, place int64) error {
	if epoch < 0 || place < 0 {
		return fmt.Errorf("stream %d cannot begin at sample %d of epoch %d", s.id, place, epoch)
	}
	if n := s.Order.Len(epoch); place > n {
		return fmt.Errorf("stream %d cannot begin at sample %d of epoch %d, which has %d", s.id, place, epoch, n)
	}
	return nil
}

// place moves a stream whose window was abandoned.
func (s *stream) place(epoch, place int64) {
	s.seeks++
	s.err, s.over, s.reported = nil, false, false
	s.stagedEpoch, s.stagedPlace = epoch, place
	s.takenEpoch, s.takenPlace = epoch, place
	s.staged, s.taken, s.ready = 0, 0, 0
	s.items.clear()
	s.candidates.clear()
	s.holds.clear()
	s.normalize()
}

// normalize moves the end of an epoch to the start of the next.
func (s *stream) normalize() {
	for !s.over {
		n := s.Order.Len(s.stagedEpoch)
		if n <= 0 || s.beyond(s.stagedEpoch) {
			s.over = true
			return
		}
		if s.stagedPlace < n {
			return
		}
		s.stagedEpoch, s.stagedPlace = s.stagedEpoch+1, 0
	}
}

// beyond reports whether the stream does not read an epoch any more.
func (s *stream) beyond(epoch int64) bool { return s.Epochs > 0 && epoch-s.Epoch >= s.Epochs }

// turns counts the samples from what was taken last to a place ahead of it; false if the
// place is none, or lies behind.
func (s *stream) turns(epoch, place int64) (int64, bool) {
	if epoch < s.takenEpoch || place < 0 || epoch == s.takenEpoch && place < s.takenPlace || epoch-s.takenEpoch > 1<<20 {
		return 0, false
	}
	n := -s.takenPlace
	for e := s.takenEpoch; e < epoch; e++ {
		n += s.Order.Len(e)
	}
	if place > s.Order.Len(epoch) {
		return 0, false
	}
	return n + place, true
}

// needBy is when the sample of a turn will be asked for.
func (s *stream) needBy(turn int64) Time {
	ahead := float64(turn-s.taken) * float64(s.depth.Tau())
	if ahead > 1e18 {
		return Never
	}
	return s.takenAt + Time(ahead)
}

// bytesASample is what fetching a sample takes, as far as is known.
func (s *stream) bytesASample() float64 {
	if s.bytes > 0 {
		return s.bytes
	}
	return s.dataset.mean
}

// see moves the mark of what is ready.
func (s *stream) see() {
	s.ready = max(s.ready, s.taken)
	for s.ready < s.staged && s.items.at(int(s.ready-s.taken)).pending == 0 {
		s.ready++
	}
}

// ring is a queue in one slice.
type ring[T any] struct {
	slots []T // a power of two of them, or none
	head  int
	n     int
}

func (r *ring[T]) len() int { return r.n }

func (r *ring[T]) at(i int) *T { return &r.slots[(r.head+i)&(len(r.slots)-1)] }

func (r *ring[T]) push(v T) {
	if r.n == len(r.slots) {
		grown := make([]T, max(16, 2*len(r.slots)))
		for i := range r.n {
			grown[i] = *r.at(i)
		}
		r.slots, r.head = grown, 0
	}
	r.n++
	*r.at(r.n - 1) = v
}

func (r *ring[T]) pop() (v T) {
	first := r.at(0)
	v, *first = *first, v
	r.head = (r.head + 1) & (len(r.slots) - 1)
	r.n--
	return v
}

// clear forgets what is queued and keeps the memory.
func (r *ring[T]) clear() {
	clear(r.slots)
	r.head, r.n = 0, 0
}
