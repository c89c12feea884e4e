package prefetch

import (
	"math"
	"time"
)

// linkDebt is the most that a fetch makes others wait, so that a rate that was reported
// absurdly low does not stop a link for years.
const linkDebt = time.Hour

// linkAccount is a token bucket that counts in nanoseconds of its own rate: so credit
// grows by whole numbers, and the time at which a debt is paid is met exactly.
type linkAccount struct {
	rate   float64 // bytes/s, finite; 0: none was given yet
	credit float64 // nanoseconds; below 0: a debt, at most linkDebt
	seen   int64   // when the credit was that
	closed bool    // nothing is paid; rate is what was paid last
}

// settle adds what was paid since.
func (a *linkAccount) settle(clock int64, limit float64) {
	if !a.closed {
		a.credit = min(limit, a.credit+float64(clock-a.seen))
	}
	a.seen = clock
}

// pay changes the rate from now on: bytes owed and at hand stay the same. Less than
// 1 byte/s closes the account; +Inf forgets what is owed.
func (a *linkAccount) pay(rate float64) {
	switch {
	case math.IsInf(rate, 1):
		*a = linkAccount{seen: a.seen}
		return
	case !(rate >= 1):
		a.closed = true
		return
	case a.rate != 0:
		a.credit = max(a.credit*(a.rate/rate), -float64(linkDebt))
	}
	a.rate, a.closed = rate, false
}

// take takes bytes at the rate.
func (a *linkAccount) take(bytes float64) {
	a.credit = max(a.credit-bytes/a.rate*float64(time.Second), -float64(linkDebt))
}

// until is how many nanoseconds from now the credit reaches a level: math.MaxInt64 if
// nothing is paid. Half a nanosecond less is as good, as sums are rounded.
func (a *linkAccount) until(level float64) int64 {
	switch {
	case a.closed:
		return math.MaxInt64
	case a.credit > level-0.5:
		return 0
	}
	return int64(math.Ceil(level - a.credit))
}
