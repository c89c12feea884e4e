package sim

import (
	"time"

	"github.com/stokerio/stoker/prefetch"
)

// meter measures what a link moves: how much in all, and in its busiest second, to a tenth
// of a second.
type meter struct {
	from   prefetch.Time // when it begins to
	total  float64       // bytes
	peak   float64       // bytes of the busiest second that is over
	tenths [10]float64   // bytes of the latest ones, by number modulo 10
	at     int64         // number of the latest one
}

const tenth = prefetch.Time(time.Second / 10)

// add counts bytes that moved evenly between two times, or all at one.
func (m *meter) add(from, to prefetch.Time, bytes float64) {
	if to < m.from {
		return
	}
	rate := 0.0 // bytes/ns
	if to > from {
		rate = bytes / float64(to-from)
	}
	for from = max(from, m.from); from < to; {
		next := min(to, (from/tenth+1)*tenth)
		m.count(int64(from/tenth), rate*float64(next-from))
		from = next
	}
	if rate == 0 {
		m.count(int64(to/tenth), bytes)
	}
}

// count adds bytes to a tenth, which is not before the latest.
func (m *meter) count(at int64, bytes float64) {
	for ; m.at < at; m.at++ {
		m.close()
		if at-m.at > int64(len(m.tenths)) { // nothing moved for longer than is looked at
			m.at, m.tenths = at-1, [len(m.tenths)]float64{}
		}
		m.tenths[(m.at+1)%int64(len(m.tenths))] = 0
	}
	m.tenths[at%int64(len(m.tenths))] += bytes
	m.total += bytes
}

// close looks at the second that ends with the latest tenth.
func (m *meter) close() {
	sum := 0.0
	for _, bytes := range m.tenths {
		sum += bytes
	}
	m.peak = max(m.peak, sum)
}
