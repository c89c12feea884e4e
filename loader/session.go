package loader

import (
	"context"
	"errors"
	"fmt"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/loader/order"
	"github.com/stokerio/stoker/shm"
)

// patience is how long a client may leave a message unread before its session is
// given up. Trainers read between steps, which may be long; so is this.
const patience = 30 * time.Second

// session is one rank's open dataset: an order, a place in it, and a ring.
type session struct {
	id      string
	number  int64  // of the session, from 1
	client  string // as it called itself
	node    *Node
	options SessionOptions
	request shm.Open
	conn    *shm.Conn
	peer    shm.Peer
	dataset *attached
	source  source
	ahead   *sessionAhead
	epochs  *epochs
	share   order.Share
	ring    *shm.Ring
	clock   shm.Clock
	opened  time.Time
	taker   *shm.Consumer // TransportSocket: the daemon takes for the trainer
	large   largeBatches
	waited  waitLog   // what the daemon saw itself: TransportSocket
	slow    slowReads // what it read slowest

	control    sync.Mutex  // seek and close
	production *production // guarded by control

	life struct { // looking at the ring from outside, against freeing it
		sync.RWMutex
		closed bool
	}

	counters counters
}

// counters are a session's running totals.
type counters struct {
	batches, samples, epochs             atomic.Int64
	epoch, consumed                      atomic.Int64 // of the last batch published
	sourceBytes, diskBytes               atomic.Int64
	oversized, errors                    atomic.Int64
	waitSlotNs, orderNs, indexNs, readNs atomic.Int64
}

// count adds a published entry to the totals.
func (s *session) count(e *shm.Entry) {
	c := &s.counters
	switch e.Kind {
	case shm.KindEndOfEpoch:
		c.epochs.Add(1)
	case shm.KindError:
		c.errors.Add(1)
	case shm.KindBatch:
		c.batches.Add(1)
		c.samples.Add(int64(e.Rows))
		c.epoch.Store(int64(e.Epoch))
		c.consumed.Store(int64(e.SamplesConsumed))
		c.sourceBytes.Add(int64(e.SourceBytes))
		c.diskBytes.Add(int64(e.DiskBytes))
		if e.Flags&shm.FlagOversized != 0 {
			c.oversized.Add(1)
		}
		c.waitSlotNs.Add(int64(e.OrderAt - e.WaitSlotAt))
		c.orderNs.Add(int64(e.IndexAt - e.OrderAt))
		c.indexNs.Add(int64(e.ReadAt - e.IndexAt))
		c.readNs.Add(int64(e.DoneAt - e.ReadAt))
	}
}

// newSession checks a request against the dataset and makes the ring. It starts
// nothing. The dataset is released by close.
func newSession(n *Node, conn *shm.Conn, peer shm.Peer, request shm.Open) (_ *session, err error) {
	if request.Transport != shm.TransportRing && request.Transport != shm.TransportSocket {
		return nil, invalid("transport", request.Transport, "use \"ring\" or \"socket\"")
	}
	if request.Epoch < 0 || request.SamplesConsumed < 0 || request.Slots < 0 {
		return nil, invalid("epoch, samples_consumed or slots", fmt.Sprint(request.Epoch, request.SamplesConsumed, request.Slots), "give none that is negative")
	}
	held, err := n.registry.acquire(request.Dataset)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			held.release()
		}
	}()
	s := &session{node: n, options: n.options.Session, request: request, conn: conn, peer: peer, dataset: held, clock: n.clock, opened: time.Now()}
	if err := s.resolve(); err != nil {
		return nil, err
	}
	if err := s.makeRing(); err != nil {
		return nil, err
	}
	s.number = n.nextSession.Add(1)
	s.id = fmt.Sprintf("s-%d", s.number)
	s.ahead = s.newAhead()
	return s, nil
}

// resolve turns the request into a view, an order and a share.
func (s *session) resolve() error {
	r := &s.request
	view, err := s.dataset.view(cut{blockSize: r.BlockSize, columns: r.Select, missing: r.Missing})
	if err != nil {
		return err
	}
	if r.IndexID != "" && r.IndexID != view.ID() {
		return &shm.Failure{
			Code: "changed", Where: "dataset " + r.Dataset,
			What:   fmt.Sprintf("its samples are no longer those of the saved state: index %s, expected %s", view.ID(), r.IndexID),
			Remedy: "restore the files and run `stoker dataset add --replace`, or start without the state",
		}
	}
	if r.OrderVersion != 0 && r.OrderVersion != order.Version {
		return &shm.Failure{
			Code: "version", Where: "dataset " + r.Dataset,
			What:   fmt.Sprintf("the saved state counts in order version %d, this daemon computes version %d", r.OrderVersion, order.Version),
			Remedy: "finish the epoch with the release that began it, or start without the state",
		}
	}
	spec := order.Spec{Kind: order.Kind(r.Order), Seed: r.Seed, Samples: view.Len(), Window: r.Window, Seeding: order.Seeding(r.Seeding)}
	s.epochs, err = newEpochs(s.node.tables, spec, func() string { return s.id }, s.node.log)
	if err != nil {
		return err
	}
	s.share = order.Share{Rank: r.Rank, WorldSize: r.WorldSize, BatchSize: r.BatchSize, DropLast: r.DropLast, Padded: spec.Kind.Padded()}
	if err := s.share.Validate(view.Len()); err != nil {
		return &shm.Failure{
			Code: "invalid", Where: "dataset " + r.Dataset, What: err.Error(),
			Remedy: "choose another world_size, rank, batch_size or drop_last",
		}
	}
	if err := s.share.Continues(view.Len(), r.SamplesConsumed); err != nil {
		return &shm.Failure{
			Code: "invalid", Where: "dataset " + r.Dataset, What: err.Error(),
			Remedy: "load a state that was saved for this dataset, with the same world_size if the order is \"torch\"",
		}
	}
	s.source = newSource(view, s.dataset.bytes)
	return nil
}

// makeRing sizes the ring by the dataset's samples, within the limits.
func (s *session) makeRing() error {
	slots, slotBytes := s.options.ringShape(&s.source, s.request.BatchSize, s.request.Slots)
	total := shm.NewGeometry(slots, slotBytes).TotalBytes
	if err := s.node.budget.take(total); err != nil {
		return err
	}
	ring, err := shm.NewRing(slots, slotBytes)
	if err != nil {
		s.node.budget.give(total)
		return ringFailure(err, total)
	}
	s.ring = ring
	if s.request.Transport == shm.TransportSocket {
		s.taker = shm.NewConsumer(ring)
	}
	return nil
}

// noteError counts and logs what ended production.
func (s *session) noteError(err error) {
	failure := failureOf(err)
	s.node.countError(failure.Code)
	s.node.log.Warn("batch failed", "session", s.id, "dataset", s.request.Dataset, "code", failure.Code, "error", err)
}

// answer describes the open session to its trainer.
func (s *session) answer() shm.Opened {
	g, view := s.ring.Geometry(), s.source.view
	info := s.dataset.info
	mean, _ := view.SampleBytes()
	return shm.Opened{
		Type: shm.TypeOpened, Session: s.id, Transport: s.request.Transport, IndexID: view.ID(),
		OrderVersion: order.Version, Samples: view.Len(), Format: info.Format, TokensDType: info.DType,
		BlockSize: s.request.BlockSize, Columns: columnSpecs(&s.source), Classes: info.Classes, SampleBytesMean: mean,
		Ring: shm.RingSpec{TotalBytes: g.TotalBytes, Slots: g.Slots, SlotBytes: g.SlotBytes, QueueEntries: g.QueueEntries},
	}
}

// seek moves the session: what was made for the old place has sequences below the
// one returned.
func (s *session) seek(to place) (fromSequence uint64) {
	s.control.Lock()
	defer s.control.Unlock()
	if s.production != nil {
		s.production.stop()
	}
	fromSequence = s.ring.NextSequence()
	s.foresee(to)
	s.production = startProduction(s, to)
	return fromSequence
}

// over says that production has ended with an error and nothing more will come.
func (s *session) over() bool {
	s.control.Lock()
	defer s.control.Unlock()
	return s.production == nil || s.production.over()
}

// close stops production and gives everything back. reason is one of
// api.LeaseReasons.
func (s *session) close(reason string) {
	s.node.totals.keepStalls(s.describeStalls(), s.ahead.shownOf()) // first, so that it is always in one of both lists
	s.node.sessions.remove(s)
	s.control.Lock()
	defer s.control.Unlock()
	if s.production != nil {
		s.production.stop()
	}
	s.ahead.leave()
	s.node.totals.sessionEnded(s.describe(), reason)
	s.epochs.close()
	total := s.ring.Geometry().TotalBytes
	for slot := range s.ring.Geometry().Slots {
		s.settle(uint32(slot), reason != endExit)
	}
	s.life.Lock()
	defer s.life.Unlock()
	s.life.closed = true
	if reason == endExit { // a fork of the trainer may live on with the ring mapped
		if err := s.ring.Memory().Discard(); err != nil {
			s.node.log.Error("discard ring", "session", s.id, "error", err)
		}
	}
	if err := s.ring.Close(); err != nil {
		s.node.log.Error("close ring", "session", s.id, "error", err)
	}
	s.node.budget.give(total)
	s.dataset.release()
}

// describeOpen describes the session unless its ring is gone.
func (s *session) describeOpen() (api.Session, bool) {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.life.closed {
		return api.Session{}, false
	}
	return s.describe(), true
}

// ringFailure explains why shared memory could not be had.
func ringFailure(err error, bytes int64) error {
	remedy := "see the daemon's log"
	if errors.Is(err, shm.ErrNoMemory) {
		remedy = "free memory, lower batch_size or slots, or raise the memory limit of stokerd's cgroup"
	}
	return &shm.Failure{Code: "no_space", Where: "shared memory", What: fmt.Sprintf("%d bytes: %v", bytes, err), Remedy: remedy}
}

// labelled runs do with pprof labels, so that profiles tell sessions apart.
func labelled(ctx context.Context, role, id string, do func()) {
	pprof.Do(ctx, pprof.Labels("role", role, "session", id), func(context.Context) { do() })
}
