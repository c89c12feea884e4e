package loader

import (
	"context"
	"encoding/json"
	"strings"
	"sync"

	"github.com/stokerio/stoker/loader/order"
	"github.com/stokerio/stoker/shm"
)

// place is a position within a session's order, over all ranks.
type place struct{ epoch, consumed int64 }

// production fills a session's ring from one place on, until it is stopped or a
// batch fails. Its readers take jobs one by one under `assign`, fill them in
// parallel, and publish in the order in which the jobs were taken.
type production struct {
	session *session
	ctx     context.Context //nolint:containedctx // the production's own life
	cancel  context.CancelFunc
	readers sync.WaitGroup

	assign struct {
		sync.Mutex
		place  place
		ticket uint64
	}
	turn struct {
		sync.Mutex
		next  uint64 // ticket that may publish
		ended bool   // stopped, or an error was published: no later ticket publishes
	}
	turned *sync.Cond // on turn: next moved or ended
}

// job is one thing to publish: a batch, or the end of an epoch.
type job struct {
	ticket uint64
	epoch  int64
	step   order.Step
	order  order.Permutation
	err    error // why there is no order
	end    bool  // end of epoch: no slot, no step
	slot   uint32
	asked  uint64 // when the wait for the slot began
	got    uint64 // when it was over
}

// startProduction starts the readers of s at a place. stop ends and awaits them.
func startProduction(s *session, from place) *production {
	ctx, cancel := context.WithCancel(context.Background())
	p := &production{session: s, ctx: ctx, cancel: cancel}
	p.turned = sync.NewCond(&p.turn)
	p.assign.place = from
	s.ring.Restart()
	for range s.options.Readers {
		p.readers.Go(func() { labelled(ctx, "fill", s.id, p.run) })
	}
	return p
}

// stop ends production: nothing is published after it returns. Batches under way
// are given up and their slots are free again.
func (p *production) stop() {
	p.end() // first, so that no batch that fails for being cancelled is published
	p.cancel()
	p.session.ring.Stop()
	p.readers.Wait()
}

// end lets every reader that waits for its turn give up.
func (p *production) end() {
	p.turn.Lock()
	p.turn.ended = true
	p.turn.Unlock()
	p.turned.Broadcast()
}

func (p *production) run() {
	f := &filler{source: &p.session.source}
	for {
		j, ok := p.take()
		if !ok || !p.do(f, &j) {
			return
		}
	}
}

// take waits for a free slot and returns the next job.
func (p *production) take() (job, bool) {
	p.assign.Lock()
	defer p.assign.Unlock()
	if p.ctx.Err() != nil {
		return job{}, false
	}
	s, at := p.session, &p.assign.place
	j := job{ticket: p.assign.ticket, epoch: at.epoch, slot: shm.NoSlot, asked: s.clock.Now()}
	step, more := s.share.Next(s.source.view.Len(), at.consumed)
	if !more {
		j.end, j.got = true, j.asked
		*at = place{epoch: at.epoch + 1}
	} else {
		slot, ok := s.ring.Reserve()
		if !ok {
			return job{}, false
		}
		s.settle(slot, false)
		j.step, j.slot, j.got = step, slot, s.clock.Now()
		j.order, j.err = s.epochs.at(p.ctx, at.epoch)
		at.consumed = step.Consumed
	}
	p.assign.ticket++
	return j, true
}

// do carries a job out. It returns false when production is over.
func (p *production) do(f *filler, j *job) bool {
	entry := shm.Entry{
		Kind: shm.KindEndOfEpoch, Slot: j.slot, Epoch: uint64(j.epoch),
		SamplesConsumed: uint64(j.step.Consumed), Position: uint64(j.step.Start),
		WaitSlotAt: j.asked, OrderAt: j.got, IndexAt: j.got, ReadAt: j.got, DoneAt: j.got,
	}
	var err error
	if !j.end {
		entry.Kind = shm.KindBatch
		err = p.fill(f, j, &entry)
	}
	if !p.awaitTurn(j.ticket) {
		p.giveBack(j)
		return false
	}
	if err != nil {
		p.session.noteError(err)
		p.session.settle(j.slot, false)
		p.describeError(j, &entry, err)
	}
	if err == nil && !j.end { // noted first, so that whoever learns of the wait finds it
		p.session.slow.note(p.session.ring.NextSequence(), f)
		p.session.ahead.filled(j, f, entry.ReadAt)
		p.session.record(j, f, &entry)
	}
	published := p.publish(&entry)
	if !published {
		p.giveBack(j)
	}
	p.passTurn(published && err == nil)
	return published && err == nil
}

// giveBack undoes a job that will not be published.
func (p *production) giveBack(j *job) {
	if j.slot != shm.NoSlot {
		p.session.settle(j.slot, false)
		p.session.ring.Return(j.slot)
	}
}

// fill makes one batch in the job's slot, or in memory of its own if the slot is
// too small, and completes the entry.
func (p *production) fill(f *filler, j *job, entry *shm.Entry) error {
	if j.err != nil {
		return j.err
	}
	s := p.session
	f.choose(&j.order, &j.step)
	entry.IndexAt = s.clock.Now()
	entry.ReadAt, entry.DoneAt = entry.IndexAt, entry.IndexAt
	bytes, err := f.prepare()
	if err != nil {
		return err
	}
	entry.ReadAt = s.clock.Now()
	memory := s.ring.Slot(j.slot)
	if bytes > int64(len(memory)) {
		large, err := s.largeMemory(j.slot, bytes)
		if err != nil {
			return err
		}
		memory, entry.Flags = large.Bytes(), shm.FlagOversized
	}
	read, err := f.fill(p.ctx, memory)
	entry.DoneAt = s.clock.Now()
	entry.Bytes, entry.Rows = uint64(bytes), uint32(len(f.samples))
	entry.SourceBytes, entry.DiskBytes = uint64(read), uint64(f.report.DiskBytes)
	if err == nil {
		s.node.hints.read(s.dataset, f)
	}
	return err
}

// awaitTurn waits until every earlier job has been published.
func (p *production) awaitTurn(ticket uint64) bool {
	p.turn.Lock()
	defer p.turn.Unlock()
	for p.turn.next != ticket && !p.turn.ended {
		p.turned.Wait()
	}
	return !p.turn.ended
}

func (p *production) passTurn(goOn bool) {
	p.turn.Lock()
	p.turn.next++
	p.turn.ended = p.turn.ended || !goOn
	p.turn.Unlock()
	p.turned.Broadcast()
	if !goOn {
		p.cancel()
	}
}

// publish hands an entry to the trainer, its own memory first if it has some.
func (p *production) publish(entry *shm.Entry) bool {
	s := p.session
	if entry.Flags&shm.FlagOversized != 0 && !s.sendLarge(entry) {
		return false
	}
	if !s.ring.Publish(entry) {
		return false
	}
	s.count(entry)
	return true
}

// over says that nothing more will be published.
func (p *production) over() bool {
	p.turn.Lock()
	defer p.turn.Unlock()
	return p.turn.ended
}

// describeError turns the entry into an error entry whose text lies in its slot.
func (p *production) describeError(j *job, entry *shm.Entry, err error) {
	entry.Kind, entry.Flags, entry.Rows = shm.KindError, 0, 0
	entry.SourceBytes, entry.DiskBytes = 0, 0
	entry.Bytes = uint64(copy(p.session.ring.Slot(j.slot), encodeFailure(failureOf(err), int(p.session.ring.Geometry().SlotBytes))))
}

// encodeFailure encodes a failure in at most limit bytes. Long texts, which hold
// long paths, lose their middle: both ends of a path say more than the middle.
func encodeFailure(failure *shm.Failure, limit int) []byte {
	for longest := 4096; ; longest /= 2 {
		short := shm.Failure{
			Code: failure.Code, What: elide(failure.What, longest),
			Where: elide(failure.Where, longest), Remedy: elide(failure.Remedy, longest),
		}
		text, err := json.Marshal(short)
		if err != nil {
			panic("loader: a failure of strings does not encode: " + err.Error())
		}
		if len(text) <= limit || longest < 16 {
			return text
		}
	}
}

// elide cuts the middle out of a text longer than that.
func elide(text string, longest int) string {
	if len(text) <= longest {
		return text
	}
	half := longest/2 - 2
	return strings.ToValidUTF8(text[:half], "") + "..." + strings.ToValidUTF8(text[len(text)-half:], "")
}
