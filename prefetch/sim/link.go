package sim

import (
	"math"
	"time"

	"github.com/stokerio/stoker/prefetch"
)

// link is a LinkSpec at work. Shared evenly, each of n transfers moves at the same rate
// min(RequestBytesPerSecond, BytesPerSecond/n): so one number, the bytes that a transfer
// present from the start would have moved, says for all when they are over.
type link struct {
	spec  LinkSpec
	flows []flow // a heap, the one that ends first on top
	moved float64
	since prefetch.Time // when moved was true
	mark  uint32        // of the event that counts
	free  prefetch.Time // first come, first served: when the next transfer may begin
	bytes int64         // of transfers that ended
}

// flow is a transfer, over when the link's moved has come to end.
type flow struct {
	end     float64
	attempt int32
}

func (f flow) before(g flow) bool {
	return f.end < g.end || f.end == g.end && f.attempt < g.attempt
}

// rate is what each of n transfers moves, bytes/s.
func (l *link) rate(n int) float64 {
	rate := math.Inf(1)
	if l.spec.BytesPerSecond > 0 {
		rate = l.spec.BytesPerSecond / float64(n)
	}
	if l.spec.RequestBytesPerSecond > 0 {
		rate = min(rate, l.spec.RequestBytesPerSecond)
	}
	return rate
}

// begin starts a transfer.
func (l *link) begin(h *events, now prefetch.Time, who, attempt int32, bytes int64) {
	switch {
	case math.IsInf(l.rate(1), 1):
		h.push(now, lastByte, attempt, 0)
	case l.spec.FIFO:
		l.free = later(max(now, l.free), float64(bytes)/l.rate(1))
		h.push(l.free, lastByte, attempt, 0)
	default:
		l.advance(now)
		l.push(flow{l.moved + float64(bytes), attempt})
		l.schedule(h, now, who)
	}
}

// advance moves the transfers under way up to now.
func (l *link) advance(now prefetch.Time) {
	if len(l.flows) > 0 {
		l.moved += l.rate(len(l.flows)) * now.Sub(l.since).Seconds()
	}
	l.since = now
}

// schedule makes an event of the end of the first transfer; any earlier one is void.
func (l *link) schedule(h *events, now prefetch.Time, who int32) {
	l.mark++
	if len(l.flows) > 0 {
		left := max(0, l.flows[0].end-l.moved)
		h.push(later(now, left/l.rate(len(l.flows))), linkMoves, who, l.mark)
	}
}

// over takes the transfers that are over out of the link and appends their attempts.
// At least one is: the event was for it.
func (l *link) over(now prefetch.Time, attempts []int32) []int32 {
	l.advance(now)
	l.moved = max(l.moved, l.flows[0].end) // times are rounded to nanoseconds
	for len(l.flows) > 0 && l.flows[0].end <= l.moved {
		attempts = append(attempts, l.pop().attempt)
	}
	if len(l.flows) == 0 {
		l.moved = 0 // so that it keeps its precision
	}
	return attempts
}

func (l *link) push(f flow) {
	l.flows = append(l.flows, f)
	for i := len(l.flows) - 1; i > 0; {
		parent := (i - 1) / 2
		if !l.flows[i].before(l.flows[parent]) {
			return
		}
		l.flows[i], l.flows[parent] = l.flows[parent], l.flows[i]
		i = parent
	}
}

func (l *link) pop() flow {
	first, last := l.flows[0], len(l.flows)-1
	l.flows[0] = l.flows[last]
	l.flows = l.flows[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return first
		}
		if child+1 < last && l.flows[child+1].before(l.flows[child]) {
			child++
		}
		if !l.flows[child].before(l.flows[i]) {
			return first
		}
		l.flows[i], l.flows[child] = l.flows[child], l.flows[i]
		i = child
	}
}

// later is the time so many seconds after t, rounded up to a nanosecond.
func later(t prefetch.Time, seconds float64) prefetch.Time {
	return t.Add(time.Duration(math.Ceil(seconds * float64(time.Second))))
}
