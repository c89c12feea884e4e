package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/stokerio/stoker/prefetch"
)

// engine is a run.
type engine struct {
	world   *World
	now     prefetch.Time
	events  events
	nodes   []node
	links   []link
	streams []stream
	running int // streams that have not ended
	store
	result *Result
	watch  func(sight)    // nil: nobody does
	ended  []int32        // scratch: attempts
	next   prefetch.Fetch // scratch
}

// node is a NodeSpec at work.
type node struct {
	number    int32
	spec      *NodeSpec
	decider   Decider
	holder    Holder // the decider, if it is one; else nil
	datasets  []residency
	jobs      []lease[prefetch.JobID]
	byID      map[prefetch.DatasetID]int32
	streams   map[prefetch.StreamID]int32
	attempts  map[prefetch.FetchID]int32
	holds     map[chunkKey]int32 // the first of each chunk's list
	random    [prefetch.Sources]*rand.Rand
	losses    *rand.Rand
	wake      prefetch.Time // of the event that is pending, Never if there is none
	used      int64         // bytes in the cache
	window    int64
	lingering []int32        // holds, see look
	turn      int            // of looking at them
	latest    prefetch.Chunk // stored last
	result    *NodeResult
}

// lease counts the streams of a node that need what the Decider knows by that number.
type lease[ID any] struct {
	id      ID
	streams int
}

// Run plays a world. decide makes the Decider of each node.
func Run(w *World, decide func(node int) Decider) (*Result, error) {
	if err := w.Validate(); err != nil {
		return nil, err
	}
	return newEngine(w, decide).run()
}

func (e *engine) run() (*Result, error) {
	w := e.world
	for len(e.events.heap) > 0 && e.running > 0 {
		next := e.events.pop()
		if w.Until > 0 && next.at > w.Until {
			e.now = w.Until
			break
		}
		e.now = next.at
		e.result.Events++
		if err := e.happen(&next); err != nil {
			return nil, fmt.Errorf("sim: at %v: %w", time.Duration(e.now), err)
		}
	}
	e.finish()
	return e.result, nil
}

func newEngine(w *World, decide func(node int) Decider) *engine {
	e := &engine{world: w, store: newStore(), result: &Result{
		Jobs: make([]JobResult, len(w.Jobs)), Nodes: make([]NodeResult, len(w.Nodes)), Links: make([]LinkResult, len(w.Links)),
	}}
	for i := range w.Links {
		e.links = append(e.links, link{spec: w.Links[i], meter: meter{from: w.From}})
	}
	for i := range w.Nodes {
		e.nodes = append(e.nodes, newNode(w, i, decide(i), &e.result.Nodes[i]))
		e.nextLoss(int32(i))
	}
	for i := range w.Jobs {
		e.result.Jobs[i].Streams = make([]StreamResult, len(w.Jobs[i].Streams))
		for k := range w.Jobs[i].Streams {
			e.addStream(i, k)
		}
	}
	if w.Tick > 0 {
		e.events.push(0, ticks, 0, 0)
	}
	return e
}

func newNode(w *World, i int, d Decider, result *NodeResult) node {
	n := node{
		number: int32(i), spec: &w.Nodes[i], decider: d, datasets: make([]residency, len(w.Datasets)),
		jobs: make([]lease[prefetch.JobID], len(w.Jobs)), byID: map[prefetch.DatasetID]int32{},
		streams: map[prefetch.StreamID]int32{}, attempts: map[prefetch.FetchID]int32{}, holds: map[chunkKey]int32{},
		wake: prefetch.Never, result: result,
	}
	n.losses = rand.New(rand.NewPCG(w.Seed, mix(golden^uint64(i))))
	n.holder, _ = d.(Holder)
	for source := range n.random {
		n.random[source] = rand.New(rand.NewPCG(w.Seed, mix(uint64(i)*uint64(prefetch.Sources)+uint64(source)+1)))
	}
	return n
}

// happen carries an event out.
func (e *engine) happen(next *event) error {
	switch next.kind {
	case streamBegins:
		return e.begin(&e.streams[next.who])
	case streamAsks:
		return e.ask(&e.streams[next.who])
	case firstByte:
		return e.firstByte(next.who)
	case lastByte:
		return e.over(next.who, nil)
	case linkMoves:
		return e.linkMoves(next)
	case nodeWakes:
		n := &e.nodes[next.who]
		if n.wake != e.now {
			return nil // a later or earlier one took its place
		}
		n.wake = prefetch.Never
		return e.pump(next.who)
	case cacheLoses:
		return e.lose(next.who)
	case ticks:
		e.tick()
	}
	return nil
}

// maxAtOnce is how many fetches a Decider may begin at one time; more are a fault of it.
const maxAtOnce = 1 << 24

// pump lets a node's Decider decide.
func (e *engine) pump(who int32) error {
	n := &e.nodes[who]
	f := &e.next
	for count := 0; ; count++ {
		*f = prefetch.Fetch{}
		ok, err := n.decider.Next(e.now, f)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if count == maxAtOnce {
			return fmt.Errorf("node %d begins %d fetches at once and more", who, count)
		}
		if err := e.fetch(who, f); err != nil {
			return fmt.Errorf("node %d: %w", who, err)
		}
	}
	e.drop(who)
	if at := n.decider.Wake(e.now); at != prefetch.Never {
		at = max(at, e.now+minWake)
		if at < n.wake {
			n.wake = at
			e.events.push(at, nodeWakes, who, 0)
		}
	}
	return nil
}

// minWake keeps a Decider that wants to be woken at once from stopping the clock.
const minWake = prefetch.Time(time.Microsecond)

// firstByte begins the transfer of a fetch whose latency is over.
func (e *engine) firstByte(who int32) error {
	a := e.attempts.at(who)
	if a.given {
		e.attempts.drop(who)
		return nil
	}
	n := &e.nodes[a.node]
	source := &n.spec.Sources[a.source]
	if source.FailShare > 0 && n.random[a.source].Float64() < source.FailShare {
		return e.over(who, ErrFailed)
	}
	a.moving = true
	e.links[source.Link].begin(&e.events, e.now, int32(source.Link), who, a.bytes)
	return nil
}

func (e *engine) linkMoves(next *event) error {
	l := &e.links[next.who]
	if l.mark != next.mark {
		return nil
	}
	e.ended = l.over(e.now, e.ended[:0])
	l.schedule(&e.events, e.now, next.who)
	for _, attempt := range e.ended {
		if err := e.over(attempt, nil); err != nil {
			return err
		}
	}
	return nil
}

// over ends an attempt: tells the Decider, and those who wait for it.
func (e *engine) over(who int32, failed error) error {
	a := *e.attempts.at(who)
	if a.given {
		e.attempts.drop(who)
		return nil
	}
	n := &e.nodes[a.node]
	s := &e.streams[a.stream]
	e.retire(who)
	e.attempts.drop(who)
	result := prefetch.Result{Source: a.source, Took: e.now.Sub(a.begun), Err: failed}
	if failed == nil {
		result.Bytes = a.bytes
		e.links[n.spec.Sources[a.source].Link].bytes += a.bytes
	}
	kept := e.arrived(&a, n, s, failed == nil)
	result.Kept = kept
	if !a.demand {
		n.decider.Done(e.now, a.id, result)
	} else if s.spec.Blind && failed == nil {
		e.offer(n, &a)
	}
	if e.world.HedgeCancel && failed == nil {
		e.cancelOthers(a.hold)
	}
	if err := e.settle(a.hold); err != nil {
		return err
	}
	return e.pump(a.node)
}

// tick appends the points of the timelines.
func (e *engine) tick() {
	for i := range e.streams {
		s := &e.streams[i]
		if s.state == running {
			s.result.Timeline = append(s.result.Timeline, Point{e.now, s.depth, s.window, s.result.Samples, s.stalled})
		}
	}
	e.events.push(e.now.Add(e.world.Tick), ticks, 0, 0)
}
