package sim

import (
	"math"
	"slices"
	"time"

	"github.com/stokerio/stoker/prefetch"
)

// link is a LinkSpec at work. Shared evenly, each of n transfers moves at the same rate
// min(RequestBytesPerSecond, BytesPerSecond/n): so one number, the bytes that a transfer
// present from the start would have moved, says for all when they are over.
type link struct {
	spec  LinkSpec
	flows heap[flow] // the one that ends first on top
	moved float64
	since prefetch.Time // when moved was true
	mark  uint32        // of the event that counts
	free  prefetch.Time // first come, first served: when the next transfer may begin
	bytes int64         // of transfers that ended
	meter meter
}

// flow is a transfer, over when the link's moved has come to end.
type flow struct {
	end     float64
	attempt int32
}

func (f flow) Before(g flow) bool {
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
		l.meter.add(now, now, float64(bytes))
		h.push(now, lastByte, attempt, 0)
	case l.spec.FIFO:
		start := max(now, l.free)
		l.free = later(start, float64(bytes)/l.rate(1))
		l.meter.add(start, l.free, float64(bytes))
		h.push(l.free, lastByte, attempt, 0)
	default:
		l.advance(now)
		l.flows.push(flow{l.moved + float64(bytes), attempt})
		l.schedule(h, now, who)
	}
}

// advance moves the transfers under way up to now.
func (l *link) advance(now prefetch.Time) {
	if len(l.flows) > 0 {
		moved := l.rate(len(l.flows)) * now.Sub(l.since).Seconds()
		l.moved += moved
		l.meter.add(l.since, now, moved*float64(len(l.flows)))
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
		attempts = append(attempts, l.flows.pop().attempt)
	}
	if len(l.flows) == 0 {
		l.moved = 0 // so that it keeps its precision
	}
	return attempts
}

// cancel takes a transfer out of a link and returns what it has moved. What a FIFO link
// has taken on, or is over already, it carries to its end: then an event is to come.
func (l *link) cancel(h *events, now prefetch.Time, who, attempt int32, bytes int64) (moved int64, expected bool) {
	i := slices.IndexFunc(l.flows, func(f flow) bool { return f.attempt == attempt })
	if i < 0 {
		return bytes, true
	}
	l.advance(now)
	left := l.flows.remove(i).end - l.moved
	if len(l.flows) == 0 {
		l.moved = 0
	}
	l.schedule(h, now, who)
	return bytes - min(bytes, max(0, int64(math.Ceil(left)))), false
}

// later is the time so many seconds after t, rounded up to a nanosecond.
func later(t prefetch.Time, seconds float64) prefetch.Time {
	return t.Add(time.Duration(math.Ceil(seconds * float64(time.Second))))
}
