package sim

import (
	"errors"

	"github.com/stokerio/stoker/prefetch"
)

// ErrCancelled is how an attempt ends that another was quicker than (World.HedgeCancel).
var ErrCancelled = errors.New("sim: another attempt was quicker")

// retire takes an attempt off its hold's list: it ends.
func (e *engine) retire(who int32) {
	a := e.attempts.at(who)
	n := &e.nodes[a.node]
	link := &e.holds.at(a.hold).attempts
	for *link != who {
		link = &e.attempts.at(*link).next
	}
	*link = a.next
	if !a.demand {
		e.grow(n, &e.streams[a.stream], -a.bytes) // what it brought is the hold's
		delete(n.attempts, a.id)
	}
}

// cancelOthers gives up what is still under way for a hold that is there.
func (e *engine) cancelOthers(hold int32) {
	for who := e.holds.at(hold).attempts; who != 0; who = e.holds.at(hold).attempts {
		e.cancel(who)
	}
}

// cancel gives an attempt up. What it has moved is lost.
func (e *engine) cancel(who int32) {
	e.retire(who)
	a := e.attempts.at(who)
	n, s := &e.nodes[a.node], &e.streams[a.stream]
	moved, expected := int64(0), true // is its event
	if at := n.spec.Sources[a.source].Link; a.moving {
		moved, expected = e.links[at].cancel(&e.events, e.now, int32(at), who, a.bytes)
		e.links[at].bytes += moved
	}
	s.result.FetchedBytes += moved
	s.result.HedgeLostBytes += moved
	s.result.Cancelled++
	n.decider.Done(e.now, a.id, prefetch.Result{Source: a.source, Took: e.now.Sub(a.begun), Err: ErrCancelled})
	if a.given = expected; !expected {
		e.attempts.drop(who)
	}
}
