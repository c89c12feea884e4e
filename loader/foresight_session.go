package loader

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/prefetch"
	"github.com/stokerio/stoker/shm"
)

// sessionAhead is a session as a reader of the driver. A nil one is a session for which
// nothing is read ahead.
type sessionAhead struct {
	foreseen foreseen
	owner    *foresight
	epochs   *epochs
	job      string
	clock    shm.Clock
	batch    int64
	samples  int64

	// asleep says that all that is read was there: the planner is not told of it, and
	// only a read that had to wait is news.
	asleep atomic.Bool

	news  sessionNews // guarded by owner.mu
	shown *shownForesight

	// The driver's.
	planner *prefetch.Planner
	order   shiftingOrder
	at      place            // that was taken last, as the planner has it: a place of the rank
	found   int64            // bytes of fetches that were there already
	gone    int64            // samples that were on time and yet had to be read from the disk, at least
	last    prefetch.Metrics // at the end
	quiet   int64            // batches since a read had to wait, or a fetch brought something
	skipped bool             // the planner was not told of all that was read
	spare   []time.Duration  // for news to come
	begun   int64            // fetches, at the last turn
	anew    int64            // samples taken since the window last began anew
}

// quietBatches is after how many batches of which nothing had to be read from the disk
// no more is to be expected to.
const quietBatches = 32

// sessionNews is what a session has told since its last turn. What was read adds up; the
// place is the last.
type sessionNews struct {
	future  *future // it moved; what it read before counts no more
	read    bool
	epoch   int64
	taken   int64 // samples_consumed
	at      prefetch.Time
	waited  time.Duration
	batches int64
	samples int64
	missing int64
	took    []time.Duration // that reads had to wait, of at most tookKept of them
}

// tookKept is how many reads of a session the planner is told of at once.
const tookKept = 256

// shiftingOrder is the order of a session that may move.
type shiftingOrder struct{ *future }

// newAhead makes the session's reader, nil if nothing can be read ahead for it. It tells
// nothing yet.
func (s *session) newAhead() *sessionAhead {
	f := s.node.foresight
	if !f.able(s.source.store) {
		return nil
	}
	a := &sessionAhead{
		owner: f, epochs: s.epochs, job: s.request.JobID, clock: s.clock, batch: int64(s.share.BatchSize), samples: s.source.view.Len(),
		shown:    &shownForesight{owner: f},
		foreseen: foreseen{name: "session " + s.id, view: s.source.view, store: s.source.store},
	}
	if a.job == "" {
		a.job = "\x00" + s.id // of its own
	}
	a.foreseen.reader = a
	a.shown.is.Change(&api.Foresight{}, &api.Foresight{}) // nothing, of which the shares are known
	return a
}

// foresee tells that the session will read from a place on; production must be stopped.
func (s *session) foresee(from place) {
	a := s.ahead
	if a == nil {
		return
	}
	next := newFuture(s.epochs, s.share, a.samples, from)
	f := a.owner
	f.mu.Lock()
	added := a.foreseen.release != nil
	a.news = sessionNews{future: next, took: a.news.took[:0]}
	if added {
		f.tellLocked(&a.foreseen)
	}
	f.mu.Unlock()
	if !added {
		s.dataset.hold()
		s.dataset.watch()
		f.add(&a.foreseen, s.dataset.unwatch)
	}
}

// filled tells that a batch was read: that of a job, in order, whose reads began at a time
// of the session's clock. While all is in the page cache it does nothing.
func (a *sessionAhead) filled(j *job, f *filler, began uint64) {
	if a == nil || a.asleep.Load() && f.report.DiskReads == 0 {
		return
	}
	owner := a.owner
	now := owner.now() // first, so that the batch never seems to be asked for later than it was
	since := time.Duration(a.clock.Now() - began)
	owner.mu.Lock()
	defer owner.mu.Unlock()
	n := &a.news
	n.read, n.epoch, n.taken, n.at = true, j.epoch, j.step.Consumed, now
	n.batches++
	n.samples += int64(len(f.samples))
	if f.report.DiskReads > 0 {
		n.waited += since
		n.missing += min(f.report.DiskReads, int64(len(f.samples)))
		n.took = appendWaits(n.took, f.reads)
	}
	owner.tellLocked(&a.foreseen)
}

// appendWaits appends how long reads had to wait, up to tookKept. Which are left out has
// nothing to do with that.
func appendWaits(took []time.Duration, reads []backend.Read) []time.Duration {
	for i := range reads {
		if ns := reads[i].WaitNs; ns > 0 && len(took) < tookKept {
			took = append(took, time.Duration(ns))
		}
	}
	return took
}

// leave ends reading ahead for the session. It does not wait.
func (a *sessionAhead) leave() {
	if a != nil && a.foreseen.release != nil {
		a.owner.leave(&a.foreseen)
	}
}

// begin implements reader.
func (a *sessionAhead) begin(p *prefetch.Planner, now prefetch.Time) (prefetch.StreamID, error) {
	d := &a.owner.driver
	a.planner = p
	a.owner.mu.Lock()
	a.order.future, a.news.future = a.news.future, nil // what was read meanwhile is for the first turn
	a.owner.mu.Unlock()
	layout, err := d.layout(a.foreseen.view, now)
	if err != nil {
		return 0, err
	}
	a.at = place{epoch: a.order.epoch}
	id, err := p.AddStream(now, prefetch.Stream{
		Job: d.job(a.job, now), Dataset: layout, Order: &a.order, Batch: a.batch, Epoch: a.at.epoch, Source: prefetch.Origin,
		MaxDepth: a.order.whole.length, // a use that is further away follows another of the same bytes
	})
	if err != nil {
		err = errors.Join(err, d.leaveJob(a.job, now), d.leaveLayout(a.foreseen.view, now))
	}
	return id, err
}

// takeNews returns what is new, until the next call.
func (a *sessionAhead) takeNews() sessionNews {
	a.owner.mu.Lock()
	defer a.owner.mu.Unlock()
	n := a.news
	a.news = sessionNews{took: a.spare[:0]}
	a.spare = n.took
	return n
}

// turn implements reader.
func (a *sessionAhead) turn(now prefetch.Time) (wake prefetch.Time, over bool) {
	p, id, n := a.planner, a.foreseen.stream, a.takeNews()
	var err error
	if n.future != nil {
		a.order.future = n.future
		a.at = place{epoch: n.future.epoch}
		err = p.Seek(now, id, a.at.epoch, 0)
	}
	if n.read {
		a.at = place{n.epoch, a.order.placeOf(place{n.epoch, n.taken})}
		a.order.reached = max(a.order.reached, n.epoch)
		err = errors.Join(err, a.read(&n))
		a.order.forget(n.epoch)
	}
	if a.order.short && a.order.longer() {
		err = errors.Join(err, p.Seek(now, id, a.at.epoch, a.at.consumed)) // the next epoch is there now
	}
	if err != nil {
		a.owner.log.Error("plan what is read ahead", "for", a.foreseen.name, "error", err)
	}
	a.publish()
	return prefetch.Never, false
}

// read tells the planner what was read. Where most of it had to be waited for though the
// planner took it for there, the page cache has lost it, and with it what lies ahead: the
// window begins anew, once in the time that a window takes at most.
func (a *sessionAhead) read(n *sessionNews) error {
	p, id := a.planner, a.foreseen.stream
	if a.quiet += n.batches; n.missing > 0 {
		a.quiet = 0
	}
	if a.isQuiet() {
		a.skipped = true
		return nil
	}
	if a.skipped {
		a.skipped = false
		if err := p.Seek(n.at, id, a.at.epoch, a.at.consumed); err != nil {
			return err
		}
	}
	before, _ := p.Metrics(id)
	p.Missed(n.at, id, n.samples, n.missing, n.took...)
	p.Consumed(n.at, id, a.at.epoch, a.at.consumed, n.waited)
	after, _ := p.Metrics(id)
	a.gone += n.gone(&before, &after)
	a.anew += n.samples
	if a.anew > before.Depth && n.lost(&before, &after) {
		a.anew = 0
		return p.Seek(n.at, id, a.at.epoch, a.at.consumed)
	}
	return nil
}

// lost reports whether most of one batch was read from the disk though it was brought
// before it was asked for. Of several batches it is not known which were.
func (n *sessionNews) lost(before, after *prefetch.Metrics) bool {
	there := after.OnTime - before.OnTime
	return n.batches == 1 && before.Depth > 0 && 2*(there+n.missing-n.samples) > n.samples
}

// gone is how many samples at least were read from the disk though they had been brought
// in time: those that waited for it beyond the late ones and those that no window had come to.
func (n *sessionNews) gone(before, after *prefetch.Metrics) int64 {
	if before.Depth == 0 {
		return 0 // nothing was brought, so nothing is gone
	}
	expected := after.Late - before.Late + after.Uncovered - before.Uncovered
	return min(max(0, n.missing-expected), after.OnTime-before.OnTime)
}

// isQuiet reports whether all that is read is in the page cache. A planner that found so
// before plans nothing either, and is quick to believe it again.
func (a *sessionAhead) isQuiet() bool { return a.quiet >= quietBatches }

// publish shows what the planner counts, and falls asleep where nothing is to be planned,
// nothing is under way and nothing was begun since the last turn.
func (a *sessionAhead) publish() {
	m, ok := a.planner.Metrics(a.foreseen.stream)
	if !ok {
		return
	}
	if a.isQuiet() {
		m.Depth = 0
	}
	a.show(&m)
	a.asleep.Store(a.isQuiet() && a.foreseen.flights == 0 && m.Fetches == a.begun)
	a.begun = m.Fetches
}

// admits implements reader.
func (a *sessionAhead) admits(*prefetch.Fetch) bool { return true }

// fail implements reader: whoever reads those samples says what is wrong.
func (a *sessionAhead) fail(error) (over bool) { return false }

// done implements reader.
func (a *sessionAhead) done(_ *prefetch.Fetch, r *prefetch.Result) {
	switch {
	case r.Err != nil: // whoever reads it says what is wrong
	case r.Source == prefetch.Resident:
		a.found += r.Bytes
	case a.foreseen.over: // nobody is there any more to use it
		a.last.FetchedBytes += r.Bytes
		a.last.UnusedBytes += r.Bytes
		a.show(&a.last)
	default:
		a.quiet = 0
		a.asleep.Store(false)
	}
}

// end implements reader.
func (a *sessionAhead) end(now prefetch.Time) error {
	d, p := &a.owner.driver, a.planner
	last, _ := p.Metrics(a.foreseen.stream)
	before := p.Totals().UnusedBytes
	err := p.EndStream(now, a.foreseen.stream)
	last.UnusedBytes += p.Totals().UnusedBytes - before
	last.Depth = 0
	a.last = last
	a.show(&a.last)
	return errors.Join(err, d.leaveJob(a.job, now), d.leaveLayout(a.foreseen.view, now))
}
