package loader

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/prefetch/trace"
	"github.com/stokerio/stoker/shm"
)

const (
	// recordingsMax bounds the recordings under way at once.
	recordingsMax = 4
	// recordedPiecesMax bounds what waits to be written of one recording: 8 MiB.
	recordedPiecesMax = 1 << 18
)

// recordings are those of a node. While nobody records, a batch costs one look at active.
type recordings struct {
	active   atomic.Pointer[[]*recording] // nil: none; what it points to is never changed
	accesses atomic.Int64                 // written since the start
	lost     atomic.Int64                 // samples that could not be

	changing sync.Mutex // of active
}

// recording takes what sessions read and writes it as a trace. Sessions add batches,
// which takes one short lock and never waits: what finds no room is lost, and counted.
// Whoever runs the recording writes.
type recording struct {
	node    *Node
	request api.TraceRequest
	began   time.Time
	clock   uint64        // when it began, of the node's clock
	wake    chan struct{} // of one place: something is there to be written
	room    int           // for pieces that wait

	mu struct {
		sync.Mutex
		closed bool
		known  map[int64]struct{} // numbers of the sessions that are in news, or were
		news   []*recordedSession
		ready  []*recordedBatch
		free   []*recordedBatch
		pieces int // of the batches that are ready, or being filled
		lost   trace.Lost
	}
}

// recordedBatch is a batch that waits to be written.
type recordedBatch struct {
	session  int64 // its number in the node
	epoch    int64
	position int64
	at       uint64 // of the node's clock
	room     int    // that it takes
	samples  []int64
	pieces   []recordedPiece // in the order of columns, then of rows
}

// recordedPiece is one read, or a part without bytes.
type recordedPiece struct {
	row    int32
	bytes  int32
	object int64
	offset int64 // in the object
	waitNs int64
}

// Trace implements api.Node.
func (n *Node) Trace(request api.TraceRequest) (api.Recording, error) {
	for _, name := range request.Datasets {
		if _, err := n.Dataset(name); err != nil {
			return nil, err
		}
	}
	for _, id := range request.Sessions {
		if _, err := n.Session(id); err != nil {
			return nil, err
		}
	}
	r := &recording{node: n, request: request, began: time.Now(), clock: n.clock.Now(), wake: make(chan struct{}, 1), room: recordedPiecesMax}
	r.mu.known = map[int64]struct{}{}
	all := &n.recordings
	all.changing.Lock()
	defer all.changing.Unlock()
	active := all.list()
	if len(active) >= recordingsMax {
		return nil, &api.Error{
			Code: api.CodeLimit, Where: "traces", What: "as many recordings are under way as this daemon makes at once",
			Remedy: "end one of them (Ctrl-C in its stoker trace record)",
		}
	}
	active = append(slices.Clone(active), r)
	all.active.Store(&active)
	return r, nil
}

// list are the recordings under way.
func (a *recordings) list() []*recording {
	if active := a.active.Load(); active != nil {
		return *active
	}
	return nil
}

// stats counts what has been recorded.
func (a *recordings) stats() api.TraceStats {
	return api.TraceStats{Recordings: int64(len(a.list())), Accesses: a.accesses.Load(), LostSamples: a.lost.Load()}
}

// end takes a recording out and forgets what it holds.
func (r *recording) end() {
	all := &r.node.recordings
	all.changing.Lock()
	active := slices.DeleteFunc(slices.Clone(all.list()), func(other *recording) bool { return other == r })
	if len(active) == 0 {
		all.active.Store(nil)
	} else {
		all.active.Store(&active)
	}
	all.changing.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.closed = true
	for _, s := range r.mu.news {
		s.release()
	}
	r.mu.news, r.mu.ready, r.mu.free = nil, nil, nil
}

// record adds a batch that was filled to the recordings that want it.
func (s *session) record(j *job, f *filler, e *shm.Entry) {
	for _, r := range s.node.recordings.list() {
		if r.wants(s) {
			r.add(s, j, f, e.DoneAt)
		}
	}
}

// wants says whether a session is to be recorded.
func (r *recording) wants(s *session) bool {
	named := func(names []string, name string) bool { return len(names) == 0 || slices.Contains(names, name) }
	return named(r.request.Datasets, s.request.Dataset) && named(r.request.Sessions, s.id)
}

// add copies a batch, or counts it as lost.
func (r *recording) add(s *session, j *job, f *filler, at uint64) {
	b := r.take(s, f)
	if b == nil {
		return
	}
	b.session, b.epoch, b.position, b.at = s.number, j.epoch, j.step.Start, at
	b.fill(f)
	r.mu.Lock()
	r.mu.ready = append(r.mu.ready, b)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// take returns room for a batch, nil if there is none. A batch larger than all that may
// wait is taken where nothing does.
func (r *recording) take(s *session, f *filler) *recordedBatch {
	room := len(f.reads) + len(f.plan.Parts)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.closed {
		return nil
	}
	if r.mu.pieces > 0 && r.mu.pieces+room > r.room {
		r.mu.lost.Reads++
		r.mu.lost.Samples += int64(len(f.samples))
		return nil
	}
	if _, known := r.mu.known[s.number]; !known {
		r.mu.known[s.number] = struct{}{}
		r.mu.news = append(r.mu.news, newRecordedSession(s))
	}
	var b *recordedBatch
	if last := len(r.mu.free) - 1; last >= 0 {
		b, r.mu.free = r.mu.free[last], r.mu.free[:last]
	} else {
		b = &recordedBatch{}
	}
	b.room = room
	r.mu.pieces += room
	return b
}

// fill copies what the filler has just read.
func (b *recordedBatch) fill(f *filler) {
	b.samples, b.pieces = append(b.samples[:0], f.samples...), b.pieces[:0]
	columns, next := len(f.source.columns), 0
	for c := range columns {
		for row := range f.samples {
			part := &f.plan.Parts[row*columns+c]
			object := f.plan.Objects[part.Object].Number
			if part.Length == 0 {
				b.pieces = append(b.pieces, recordedPiece{row: int32(row), object: object, offset: part.Offset})
			}
			for rest := part.Length; rest > 0; next++ { // as addReads has cut it
				read := &f.reads[next]
				b.pieces = append(b.pieces, recordedPiece{
					row: int32(row), bytes: int32(len(read.P)), object: object,
					offset: read.Chunk.Start + read.Offset, waitNs: read.WaitNs,
				})
				rest -= int64(len(read.P))
			}
		}
	}
}
