package loader

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/shm"
)

// attribute divides a wait [asked, got] for an entry among the phases of its
// production, as the trainer's side does (python/stoker/stats.py): each cause gets
// the overlap of its phase with the wait. What is left was before production began.
func attribute(asked, got uint64, e *shm.Entry) shm.Waits {
	at := asked
	cut := func(mark uint64) uint64 {
		before := at
		at = min(max(at, mark), got)
		return at - before
	}
	w := shm.Waits{Total: got - asked}
	cut(e.WaitSlotAt)
	w.Ring = cut(e.OrderAt)
	w.Order = cut(e.IndexAt)
	w.Index = cut(e.ReadAt)
	w.Disk = cut(e.DoneAt)
	w.Wake = got - at
	return w
}

// waitLog keeps what the daemon itself saw a session wait over the copying transport,
// where the trainer asks for each batch, and what the trainer told of its own pool.
type waitLog struct {
	mu struct {
		sync.Mutex
		sum   shm.Waits
		worst []shm.WorstWait // at most shm.WorstWaits
	}
}

// add notes one wait.
func (l *waitLog) add(w shm.Waits, e *shm.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sum := &l.mu.sum
	sum.Total += w.Total
	sum.Disk += w.Disk
	sum.Index += w.Index
	sum.Order += w.Order
	sum.Ring += w.Ring
	sum.Wake += w.Wake
	sum.Transform += w.Transform
	l.keepLocked(&shm.WorstWait{Waits: w, Sequence: e.Sequence, Epoch: e.Epoch, Position: e.Position, Rows: uint64(e.Rows)})
}

// addTransform notes what the trainer says that it waited for its own pool, as far as that
// is possible of a session of this age.
func (l *waitLog) addTransform(w *shm.TransformWait, age time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	total := min(w.Total, uint64(age))
	l.mu.sum.Total += total
	l.mu.sum.Transform += total
	if longest := min(w.Longest, total); longest > 0 {
		waits := shm.Waits{Total: longest, Transform: longest}
		l.keepLocked(&shm.WorstWait{Waits: waits, Sequence: w.Sequence, Epoch: w.Epoch, Position: w.Position, Rows: uint64(w.Rows)})
	}
}

// keepLocked keeps a wait if it is one of the longest.
func (l *waitLog) keepLocked(wait *shm.WorstWait) {
	if len(l.mu.worst) < shm.WorstWaits {
		l.mu.worst = append(l.mu.worst, *wait)
		return
	}
	least := slices.MinFunc(l.mu.worst, func(a, b shm.WorstWait) int { return cmp.Compare(a.Total, b.Total) })
	if wait.Total > least.Total {
		l.mu.worst[slices.Index(l.mu.worst, least)] = *wait
	}
}

// waits is how long the session's trainer has waited so far.
func (s *session) waits() shm.Waits {
	if s.taker == nil {
		return s.ring.Waits()
	}
	s.waited.mu.Lock()
	defer s.waited.mu.Unlock()
	return s.waited.mu.sum
}

// worstWaits are the longest waits of the session's trainer, longest first.
func (s *session) worstWaits() []shm.WorstWait {
	var worst []shm.WorstWait
	if s.taker == nil {
		worst = s.ring.WorstWaits(nil)
	} else {
		s.waited.mu.Lock()
		worst = slices.Clone(s.waited.mu.worst)
		s.waited.mu.Unlock()
	}
	slices.SortFunc(worst, func(a, b shm.WorstWait) int { return cmp.Compare(b.Total, a.Total) })
	return worst
}

// slowRead is the slowest read from disk of one batch. The file's name is kept in
// place, so that noting it allocates nothing.
type slowRead struct {
	sequence      uint64
	ns            int64
	offset, bytes int64
	name          [240]byte
	nameBytes     int
}

// slowReads keeps the slowest reads of a session's batches: of as many batches as
// may well be among the ten that the trainer waited for longest.
type slowReads struct {
	mu struct {
		sync.Mutex
		kept []slowRead
	}
}

// slowReadsKept is a few times shm.WorstWaits: what was slow to read was not always
// waited for.
const slowReadsKept = 64

// note remembers the slowest read of the batch that will be published with sequence.
func (r *slowReads) note(sequence uint64, f *filler) {
	if f.report.SlowestNs == 0 || f.report.Slowest >= len(f.reads) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.kept == nil {
		r.mu.kept = make([]slowRead, 0, slowReadsKept)
	}
	place := len(r.mu.kept)
	if place == slowReadsKept {
		place = 0
		for i := range r.mu.kept {
			if r.mu.kept[i].ns < r.mu.kept[place].ns {
				place = i
			}
		}
		if r.mu.kept[place].ns >= f.report.SlowestNs {
			return
		}
	} else {
		r.mu.kept = r.mu.kept[:place+1]
	}
	read, kept := &f.reads[f.report.Slowest], &r.mu.kept[place]
	kept.sequence, kept.ns = sequence, f.report.SlowestNs
	kept.offset, kept.bytes = read.Chunk.Start+read.Offset, int64(len(read.P))
	kept.nameBytes = copy(kept.name[:], read.Chunk.Object.Name)
}

// of returns the slowest read of a batch, nil if it is not known.
func (r *slowReads) of(sequence uint64) *api.SlowRead {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.mu.kept {
		if k := &r.mu.kept[i]; k.sequence == sequence {
			name := string(bytes.ToValidUTF8(k.name[:k.nameBytes], []byte("?")))
			return &api.SlowRead{File: name, Offset: k.offset, Bytes: k.bytes, Seconds: float64(k.ns) / 1e9}
		}
	}
	return nil
}

// filesNamed is how many files of a batch are named.
const filesNamed = 4

// describeStalls tells what the session's trainer waited on. The ring must be there.
func (s *session) describeStalls() api.SessionStalls {
	wall := time.Since(s.opened)
	d := api.SessionStalls{
		ID: s.id, Dataset: s.request.Dataset, JobID: s.request.JobID, Client: s.describeClient(), StartedAt: s.opened,
		WallSeconds: wall.Seconds(), Stall: stallOf(s.waits(), wall), Worst: []api.SlowBatch{},
		Foresight: s.ahead.shownOf().describe(),
	}
	d.Share = min(1, d.Stall.TotalSeconds/max(d.WallSeconds, 1e-9))
	for _, w := range s.worstWaits() {
		if w.Epoch <= math.MaxInt64 && w.Position < uint64(s.source.view.Len()) {
			d.Worst = append(d.Worst, s.describeWorst(&w, wall))
		}
	}
	return d
}

// describeWorst names what was in a batch that was waited for. The position is the
// trainer's word, within the dataset.
func (s *session) describeWorst(w *shm.WorstWait, age time.Duration) api.SlowBatch {
	stall := stallOf(w.Waits, age)
	b := api.SlowBatch{
		Seconds: stall.TotalSeconds, Epoch: int64(w.Epoch), Position: int64(w.Position),
		Causes: api.Causes{
			DiskSeconds: stall.DiskSeconds, IndexSeconds: stall.IndexSeconds, OrderSeconds: stall.OrderSeconds,
			RingSeconds: stall.RingSeconds, WakeSeconds: stall.WakeSeconds, TransformSeconds: stall.TransformSeconds,
		},
		Files: []string{}, Slowest: s.slow.of(w.Sequence),
	}
	named := stall.DiskSeconds + stall.IndexSeconds + stall.OrderSeconds + stall.RingSeconds + stall.WakeSeconds + stall.TransformSeconds
	b.Causes.OtherSeconds = max(0, stall.TotalSeconds-named)
	order, ok := s.epochs.held(b.Epoch)
	if !ok {
		return b // the table of an epoch that is over
	}
	step, samples := s.share.StepAt(b.Position), s.source.view.Len()
	for i := range min(int64(w.Rows), int64(s.request.BatchSize)) {
		file, key, err := s.source.view.Key(order.At(step.Position(i, samples)))
		if err != nil {
			break // names are for people; the stall is told without them
		}
		file = strings.ToValidUTF8(file, "?")
		if i == 0 {
			b.FirstKey = strings.ToValidUTF8(key, "?")
		}
		if !slices.Contains(b.Files, file) {
			b.Files = append(b.Files, file)
		}
		if len(b.Files) == filesNamed {
			break
		}
	}
	return b
}

// Stalls implements api.Node.
func (n *Node) Stalls() []api.SessionStalls {
	open := n.sessions.all()
	stalls := make([]api.SessionStalls, 0, len(open)+api.StallsKept)
	for _, s := range open {
		if described, ok := s.stallsOpen(); ok {
			stalls = append(stalls, described)
		}
	}
	n.totals.mu.Lock()
	defer n.totals.mu.Unlock()
	stalls = slices.DeleteFunc(stalls, func(s api.SessionStalls) bool { // it has ended meanwhile
		return slices.ContainsFunc(n.totals.mu.stalls, func(ended endedStalls) bool { return ended.ID == s.ID })
	})
	for _, ended := range n.totals.mu.stalls {
		ended.Foresight = ended.shown.describe()
		stalls = append(stalls, ended.SessionStalls)
	}
	return stalls
}

// endedStalls is what a session that has ended waited on, and where what was read ahead
// for it is shown, which ends a little later.
type endedStalls struct {
	api.SessionStalls
	shown *shownForesight
}

// stallsOpen describes the session's stalls unless its ring is gone.
func (s *session) stallsOpen() (api.SessionStalls, bool) {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.life.closed {
		return api.SessionStalls{}, false
	}
	return s.describeStalls(), true
}

// keepStalls remembers what an ended session's trainer waited on.
func (t *totals) keepStalls(last api.SessionStalls, shown *shownForesight) {
	now := time.Now().UTC()
	last.EndedAt = &now
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.mu.stalls) == api.StallsKept {
		t.mu.stalls = slices.Delete(t.mu.stalls, 0, 1)
	}
	t.mu.stalls = append(t.mu.stalls, endedStalls{last, shown})
}
