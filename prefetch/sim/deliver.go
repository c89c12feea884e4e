package sim

import (
	"time"

	"github.com/stokerio/stoker/prefetch"
)

// deliver is the consumer taking a batch that is all there.
func (e *engine) deliver(s *stream) error {
	e.seeStream(takes, s)
	n := &e.nodes[s.spec.Node]
	stall, compute := e.now.Sub(s.asked), s.compute()
	s.move(e.now)
	for _, p := range s.pieces {
		if at, own := e.find(s, p); own && e.holds.at(at).left > 0 {
			e.holds.at(at).left--
			s.depth--
		}
	}
	if s.result.Samples >= s.spec.WarmUp {
		s.result.Stall += stall
		s.result.Compute += compute
	}
	s.stalled += stall
	s.result.Samples += s.batch
	epoch, place := s.advance(stall)
	if !s.spec.Blind {
		if s.unfetched > 0 {
			n.decider.Missed(e.now, s.id, s.unfetched, s.missing, s.reads...)
		}
		n.decider.Consumed(e.now, s.id, epoch, place, stall)
	}
	if place == s.spec.Order.Len(epoch) {
		s.closeEpoch(e.now, n.datasets[s.spec.Dataset].bytes)
	}
	for _, p := range s.pieces {
		e.leave(s, p.Chunk)
	}
	e.look(n)
	e.events.push(s.pause(e.now.Add(compute)), streamAsks, s.index, 0)
	return nil
}

// compute is how long the batch keeps the consumer busy.
func (s *stream) compute() time.Duration {
	d := float64(s.tau) * float64(s.batch)
	if s.spec.Jitter > 0 {
		d *= lognormal(s.random, s.spec.Jitter)
	}
	return time.Duration(d)
}

// advance moves the stream behind its batch. It returns where that is, as the end of the
// epoch rather than the start of the next.
func (s *stream) advance(stall time.Duration) (epoch, place int64) {
	r := s.epochResult()
	r.Samples += s.batch
	r.Stall += stall
	s.place += s.batch
	epoch, place = s.epoch, s.place
	if s.place == s.spec.Order.Len(s.epoch) {
		s.epoch, s.place = s.epoch+1, 0
	}
	return epoch, place
}

// epochResult is what has come of the current epoch.
func (s *stream) epochResult() *EpochResult {
	if n := len(s.result.Epochs); n > 0 && s.result.Epochs[n-1].Epoch == s.epoch {
		return &s.result.Epochs[n-1]
	}
	s.result.Epochs = append(s.result.Epochs, EpochResult{Epoch: s.epoch})
	return &s.result.Epochs[len(s.result.Epochs)-1]
}

func (s *stream) closeEpoch(now prefetch.Time, resident int64) {
	last := &s.result.Epochs[len(s.result.Epochs)-1]
	last.End, last.ResidentBytes = now, resident
}

// pause is when the consumer asks next, if it would at next: phases that begin before
// change its rate, and make it wait.
func (s *stream) pause(next prefetch.Time) prefetch.Time {
	for ; s.phase < len(s.spec.Phases) && s.spec.Phases[s.phase].At <= next; s.phase++ {
		p := s.spec.Phases[s.phase]
		next = next.Add(max(0, p.Pause))
		if p.PerSample > 0 {
			s.tau = p.PerSample
		}
	}
	return next
}

// leave gives back the holds of a chunk that have done their duty.
func (e *engine) leave(s *stream, chunk int64) {
	n := &e.nodes[s.spec.Node]
	for at := n.holds[chunkKey{int32(s.spec.Dataset), chunk}]; at != 0; {
		h := e.holds.at(at)
		next := h.next
		if passed := h.stream == s.index && h.until < s.position(); !h.demand && !h.unwanted {
			e.leaveHold(n, at, passed)
		}
		at = next
	}
}

// leaveHold gives a hold back if the Decider, or else its own stream's passing by, says
// that it is over.
func (e *engine) leaveHold(n *node, at int32, passed bool) {
	h := e.holds.at(at)
	asked := h.whole && !h.kept && n.holder != nil
	switch {
	case asked && !e.held(h), !asked && passed:
		e.release(at)
	case asked && passed:
		e.linger(at)
	}
}

// linger notes a hold that its own stream has passed by and the Decider still needs.
func (e *engine) linger(at int32) {
	if h := e.holds.at(at); !h.lingers {
		h.lingers = true
		n := &e.nodes[h.node]
		n.lingering = append(n.lingering, at)
	}
}

// lingerersLooked bounds how many holds are looked at, a batch, that the Decider still
// needed when their last sample was taken.
const lingerersLooked = 64

// look gives back those of them that it no longer needs: all, if they are few.
func (e *engine) look(n *node) {
	if len(n.lingering) <= lingerersLooked {
		n.turn = 0
	}
	for range min(len(n.lingering), lingerersLooked) {
		n.turn %= len(n.lingering)
		at := n.lingering[n.turn]
		h := e.holds.at(at)
		if h.lingers && e.held(h) {
			n.turn++
			continue
		}
		last := len(n.lingering) - 1
		n.lingering[n.turn] = n.lingering[last]
		n.lingering = n.lingering[:last]
		if h.lingers && !h.unwanted { // else its number is another's by now
			e.release(at)
		}
		if last == 0 {
			return
		}
	}
}

// end is a stream that asks for no more.
func (e *engine) end(s *stream) error {
	n := &e.nodes[s.spec.Node]
	s.move(e.now)
	s.state, s.result.End = ended, e.now
	if !s.over(s.epoch) {
		s.state = cut
	}
	e.running--
	if !s.spec.Blind {
		if err := n.decider.EndStream(e.now, s.id); err != nil {
			return err
		}
		delete(n.streams, s.id)
		if j := &n.jobs[s.job]; j.release() {
			if err := n.decider.EndJob(e.now, j.id); err != nil {
				return err
			}
		}
	}
	e.abandon(s)
	if d := &n.datasets[s.spec.Dataset]; d.release() {
		if err := n.decider.EndDataset(e.now, d.id); err != nil {
			return err
		}
	}
	return e.pump(int32(s.spec.Node))
}

func (l *lease[ID]) release() bool {
	l.streams--
	return l.streams == 0
}

// abandon gives back what is held for a stream that has ended, or goes on elsewhere. What
// the Decider still needs for others stays.
func (e *engine) abandon(s *stream) {
	s.move(e.now)
	for at := range e.holds.values {
		h := e.holds.at(int32(at))
		if h.bytes == 0 || h.stream != s.index || h.demand || h.unwanted {
			continue
		}
		s.depth -= h.left
		h.left, h.until = 0, -1
		if !e.held(h) {
			e.release(int32(at))
		} else if !h.kept {
			e.linger(int32(at))
		}
	}
	e.look(&e.nodes[s.spec.Node])
}

// finish ends what runs still, and adds up.
func (e *engine) finish() {
	e.result.End = e.now
	for i := range e.streams {
		s := &e.streams[i]
		s.move(e.now)
		if s.state == running {
			s.state, s.result.End = cut, e.now
		}
		if s.counted > 0 {
			s.result.MeanDepth = s.depthTime / float64(s.counted)
			s.result.MeanWindow = s.windowTime / float64(s.counted)
		}
	}
	for i := range e.holds.values {
		if h := &e.holds.values[i]; h.done && !h.demand && !h.kept {
			e.spent(h, &e.streams[h.stream])
		}
	}
	for i := range e.result.Jobs {
		j := &e.result.Jobs[i]
		for k := range j.Streams {
			j.add(&j.Streams[k].Usage)
		}
	}
	for i := range e.nodes {
		e.result.Nodes[i].CacheBytes = e.nodes[i].used
	}
	e.compareRates()
}
