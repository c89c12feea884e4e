package prefetch

import (
	"math"
	"time"
)

const (
	// linkSkew is how far the clock may go back before it is believed to have been set.
	// Less is taken for callers who read it in another order than they came.
	linkSkew = time.Second
	// linkSteady is the relative change of a demand that does not divide the link anew.
	linkSteady = 1.0 / 256
)

// LinkOptions says how wide a link is and who may have it.
type LinkOptions struct {
	// Rate is what the link carries, in bytes per second. Anything but a positive finite
	// number: not limited.
	Rate float64
	// Reserve is the part of Rate that is kept free for others, such as the jobs'
	// collectives: at least 0 (the default), at most 0.99.
	Reserve float64
	// FarShare is the largest part of what Reserve leaves that far fetches may have.
	// Anything not within (0, 1) is 1, the default.
	FarShare float64
	// Headroom is how far a job that demands less than its fair part may go above that,
	// as a part of the fair part: to fill its window, to catch up after a hiccup, and so
	// that a demand stated too low starves nobody. A job that demands more is held to its
	// share exactly. Default 1/8; negative: none.
	Headroom float64
	// Burst is how long a link, and a job, may have been idle and make up for it by being
	// faster than its rate. Default 100 ms, at most a minute.
	Burst time.Duration
}

// Link divides the bandwidth of a source between jobs.
//
// A fetch may begin when the link has paid for all before it, and puts the link in debt
// for its bytes: so a fetch of any size passes, and the link is ahead of its rate by no
// more than Burst and one fetch. While the demands of all jobs fit the link, nothing else
// holds near fetches. While they do not, each job has an account of its own, paid at its
// weighted max-min share, and who could have gone longest goes first; and when the link
// has been idle for Burst, those who ask have what it would lose, by weight. So what a
// job demands and does not use is not lost.
//
// Far fetches have one account for all jobs, paid at what the demands leave, and wait
// while the link has less than half of Burst at hand.
//
// Questions take time in proportion to the jobs while the demands do not fit, and
// n log n once after they changed.
type Link struct {
	options LinkOptions
	rate    float64 // bytes/s, without the reserve; +Inf: not limited

	now     Time    // the latest the driver told
	told    bool    // it did
	clock   int64   // nanoseconds that passed, however the driver's clock was set
	largest float64 // bytes of a large fetch of late

	whole linkAccount // of all fetches
	far   linkAccount // of far fetches
	jobs  []linkJob
	at    map[JobID]int // in jobs

	changed   bool    // rate, jobs or demands, since the link was divided
	contended bool    // the demands do not fit
	demanded  float64 // bytes/s by all jobs
	virtual   float64 // of the idle time given away: see comesBefore

	demands, weights, shares []float64 // as last divided, by place in jobs
	order                    []int
}

// linkJob is what the link knows of a job.
type linkJob struct {
	id      JobID
	weight  float64
	demand  float64 // bytes/s; +Inf: not known yet
	account linkAccount
	finish  float64 // bytes by weight, of the idle time given to it: see comesBefore
	waiting bool    // it was refused and has not been allowed since
	offered int64   // when another was refused to let it go first; math.MaxInt64: not yet
}

// NewLink returns a link with no jobs.
func NewLink(o LinkOptions) *Link {
	if !(o.Reserve > 0) {
		o.Reserve = 0
	}
	o.Reserve = min(o.Reserve, 0.99)
	if !(o.FarShare > 0 && o.FarShare < 1) {
		o.FarShare = 1
	}
	switch {
	case o.Headroom < 0:
		o.Headroom = 0
	case o.Headroom > 0:
		o.Headroom = min(o.Headroom, 1)
	default:
		o.Headroom = 1.0 / 8
	}
	if o.Burst <= 0 {
		o.Burst = 100 * time.Millisecond
	}
	o.Burst = min(o.Burst, time.Minute)

	l := &Link{options: o, at: make(map[JobID]int)}
	l.SetRate(o.Rate)
	return l
}

// SetRate changes the rate, as LinkOptions.Rate. Bytes taken before count on. A rate
// below 1 byte/s counts as that.
func (l *Link) SetRate(bytesPerSecond float64) {
	rate := math.Inf(1)
	if bytesPerSecond > 0 {
		rate = max(1, bytesPerSecond*(1-l.options.Reserve))
	}
	if rate != l.rate {
		l.rate, l.changed = rate, true
	}
}

// Job adds a job or changes its weight: anything but a positive finite number counts as
// 1, and weights are kept within 1e-6 and 1e6. Until its first Demand a job counts as
// wanting all it can get.
func (l *Link) Job(id JobID, weight float64) {
	if !(weight > 0) || math.IsInf(weight, 1) {
		weight = 1
	}
	i, ok := l.at[id]
	if !ok {
		i = len(l.jobs)
		l.at[id] = i
		l.jobs = append(l.jobs, linkJob{id: id, demand: math.Inf(1)})
		l.demands, l.weights, l.shares = append(l.demands, 0), append(l.weights, 0), append(l.shares, 0)
	}
	l.jobs[i].weight, l.changed = min(max(weight, 1e-6), 1e6), true
}

// Demand tells what a job needs so as not to wait, in bytes per second of near fetches.
// Less than 0 is 0; NaN is not known, and like +Inf: all it can get. Jobs the link does
// not know are ignored. The link is divided anew with the next question, if the demand
// differs enough from what it was divided by.
func (l *Link) Demand(id JobID, bytesPerSecond float64) {
	i, ok := l.at[id]
	if !ok {
		return
	}
	demand := max(0, bytesPerSecond)
	if math.IsNaN(demand) {
		demand = math.Inf(1)
	}
	l.jobs[i].demand = demand
	if before := l.demands[i]; !(demand >= before*(1-linkSteady) && demand <= before*(1+linkSteady)) {
		l.changed = true
	}
}

// Remove forgets a job. The others have its share at once.
func (l *Link) Remove(id JobID) {
	i, ok := l.at[id]
	if !ok {
		return
	}
	last := len(l.jobs) - 1
	l.jobs[i], l.demands[i] = l.jobs[last], l.demands[last]
	l.at[l.jobs[i].id] = i
	delete(l.at, id)
	l.jobs, l.demands, l.weights, l.shares = l.jobs[:last], l.demands[:last], l.weights[:last], l.shares[:last]
	l.changed = true
}

// Share is what a job may have now, in bytes per second: +Inf if the link is not
// limited, what the demands of the others leave if all fit, else its weighted max-min
// share. A job the link does not know has what the others leave.
func (l *Link) Share(id JobID) float64 {
	l.divide()
	i, ok := l.at[id]
	switch {
	case math.IsInf(l.rate, 1):
		return l.rate
	case !ok:
		return max(0, l.rate-l.demanded)
	case l.contended:
		return l.shares[i]
	}
	return max(0, l.rate-(l.demanded-l.demands[i]))
}

// Allow reports whether a fetch of so many bytes may begin now, and if so takes them
// from the link. Jobs the link does not know are held by its rate alone.
func (l *Link) Allow(now Time, id JobID, bytes int64, far bool) bool {
	l.tick(now)
	if math.IsInf(l.rate, 1) {
		return true
	}
	size := float64(max(0, bytes))
	switch {
	case !far && !l.allowNear(id, size), far && l.waitFar() > 0:
		return false
	case far:
		l.far.take(size)
	}
	l.whole.take(size)
	l.largest = max(size, l.largest*0.999)
	return true
}

// Refund gives back what Allow has just taken for a fetch that is not made after all.
func (l *Link) Refund(now Time, id JobID, bytes int64, far bool) {
	if math.IsInf(l.rate, 1) {
		return
	}
	l.tick(now)
	size := -float64(max(0, bytes))
	l.whole.take(size)
	if far {
		l.far.take(size)
	} else if i, ok := l.at[id]; ok {
		l.jobs[i].account.take(size)
	}
}

// allowNear asks the job's account and the link's, and takes from the job's.
func (l *Link) allowNear(id JobID, size float64) bool {
	i, ok := l.at[id]
	if !ok {
		return l.whole.until(0) == 0
	}
	j := &l.jobs[i]
	if l.waitNear(id) > 0 || l.yields(j) {
		j.waiting, j.offered = true, math.MaxInt64
		return false
	}
	j.waiting = false
	if !l.contended || j.account.until(0) == 0 {
		j.account.take(size)
		return true
	}
	l.virtual = max(l.virtual, j.finish)
	j.finish = l.virtual + size/j.weight
	return true
}

// NextAllowed is when Allow would say yes if nothing else happened, no earlier than now.
// Allow may refuse once more then, to let a job go first that has waited longer; it is
// not refused for the same one again at a later time. NextAllowed is Never only for a far fetch while the demands leave nothing: one of them must
// change first.
func (l *Link) NextAllowed(now Time, id JobID, bytes int64, far bool) Time {
	l.tick(now)
	wait := int64(0)
	switch {
	case math.IsInf(l.rate, 1):
	case far:
		wait = l.waitFar()
	default:
		wait = l.waitNear(id)
		if i, ok := l.at[id]; ok && wait == 0 && l.yields(&l.jobs[i]) {
			wait = 1
		}
	}
	switch {
	case wait == 0:
		return now
	case wait == math.MaxInt64:
		return Never
	}
	return max(now, min(l.now, Never-1-Time(wait))+Time(wait))
}

// waitNear is how many nanoseconds from now a near fetch would be allowed: when the link
// is free, and while it is divided, when the job's account is too or the link has been
// idle for Burst.
func (l *Link) waitNear(id JobID) int64 {
	wait := l.whole.until(0)
	i, ok := l.at[id]
	if !ok {
		return wait
	}
	j := &l.jobs[i]
	j.account.settle(l.clock, l.patience())
	if l.contended {
		wait = max(wait, min(j.account.until(0), l.whole.until(float64(l.options.Burst))))
	}
	return wait
}

// waitFar is how many nanoseconds from now a far fetch would be allowed.
func (l *Link) waitFar() int64 {
	l.far.settle(l.clock, l.patience())
	return max(l.far.until(0), l.whole.until(float64(l.options.Burst)/2))
}

// patience is how much unused time, in nanoseconds, a job's account keeps: Burst, plus a
// large fetch of each job, as it may have to wait for one of all the others.
func (l *Link) patience() float64 {
	busy := float64(len(l.jobs)+1) * l.largest / l.rate * float64(time.Second)
	return min(float64(l.options.Burst)+busy, float64(linkDebt))
}

// tick brings the link to the driver's time.
func (l *Link) tick(now Time) {
	switch {
	case !l.told:
		l.now, l.told = now, true
	case now >= l.now:
		// The difference may be more than Time holds.
		l.clock += int64(min(uint64(now)-uint64(l.now), uint64(2*linkDebt)))
		l.now = now
	case uint64(l.now)-uint64(now) > uint64(linkSkew):
		l.now = now
	}
	l.divide()
	l.whole.settle(l.clock, float64(l.options.Burst))
}

// divide gives each account its rate, if anything changed.
func (l *Link) divide() {
	if !l.changed {
		return
	}
	l.changed = false
	l.demanded = 0
	for i := range l.jobs {
		l.demands[i], l.weights[i] = l.jobs[i].demand, l.jobs[i].weight
		l.demanded += l.demands[i]
	}
	held := l.contended
	l.contended = l.demanded > l.rate
	l.whole.settle(l.clock, float64(l.options.Burst))
	l.whole.pay(l.rate)
	l.far.settle(l.clock, l.patience())
	// Not a number without a limit, when nothing asks this account.
	l.far.pay(min(l.rate-l.demanded, l.rate*l.options.FarShare))
	level := 0.0 // bytes/s by weight, of who wants more
	if l.contended {
		MaxMin(l.rate, l.demands, l.weights, l.shares, &l.order)
		for i, share := range l.shares {
			level = max(level, share/l.weights[i])
		}
	}
	for i := range l.jobs {
		j, rate := &l.jobs[i], l.rate
		if l.contended {
			fair := level * j.weight
			rate = min(fair, l.shares[i]+l.options.Headroom*fair)
		}
		j.account.settle(l.clock, l.patience())
		if !held { // what was not used while nobody was held is not due to anybody
			j.account.credit = min(j.account.credit, 0)
		}
		j.account.pay(rate)
	}
}
