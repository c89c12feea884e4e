package sim

import "github.com/stokerio/stoker/prefetch"

// eventKind is what happens.
type eventKind uint8

const (
	streamBegins eventKind = iota // who: stream
	streamAsks                    // who: stream; its consumer wants the next batch
	firstByte                     // who: attempt; its latency is over
	lastByte                      // who: attempt
	linkMoves                     // who: link; a transfer may be over
	nodeWakes                     // who: node; its Decider asked for it
	cacheLoses                    // who: node; a chunk is gone
	ticks                         // the timelines have their next points
)

// event is something that happens at a time. Of two at one time, the one pushed first
// comes first.
type event struct {
	at   prefetch.Time
	turn uint64
	who  int32
	mark uint32 // links: it counts only if the link still has this mark
	kind eventKind
}

func (e event) Before(other event) bool {
	return e.at < other.at || e.at == other.at && e.turn < other.turn
}

// events are what is to come, the first on top.
type events struct {
	heap[event]
	turn uint64
}

func (h *events) push(at prefetch.Time, kind eventKind, who int32, mark uint32) {
	h.turn++
	h.heap.push(event{at: at, turn: h.turn, who: who, mark: mark, kind: kind})
}
