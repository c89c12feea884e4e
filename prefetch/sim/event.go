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

func (e *event) before(other *event) bool {
	return e.at < other.at || e.at == other.at && e.turn < other.turn
}

// events is a binary heap, the first event on top.
type events struct {
	heap []event
	turn uint64
}

func (h *events) push(at prefetch.Time, kind eventKind, who int32, mark uint32) {
	h.turn++
	h.heap = append(h.heap, event{at: at, turn: h.turn, who: who, mark: mark, kind: kind})
	for i := len(h.heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if !h.heap[i].before(&h.heap[parent]) {
			break
		}
		h.heap[i], h.heap[parent] = h.heap[parent], h.heap[i]
		i = parent
	}
}

// pop takes the first event; the heap must not be empty.
func (h *events) pop() event {
	first, last := h.heap[0], len(h.heap)-1
	h.heap[0] = h.heap[last]
	h.heap = h.heap[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return first
		}
		if child+1 < last && h.heap[child+1].before(&h.heap[child]) {
			child++
		}
		if !h.heap[child].before(&h.heap[i]) {
			return first
		}
		h.heap[i], h.heap[child] = h.heap[child], h.heap[i]
		i = child
	}
}
