package prefetch

import "math"

// Open reports whether the link and the job's own account would let a fetch begin now. A
// near one for which they do not waits from now on: others let it go first, see Allow.
func (l *Link) Open(now Time, id JobID, far bool) bool {
	if math.IsInf(l.rate, 1) {
		return true
	}
	l.tick(now)
	switch {
	case far:
		return l.waitFar() == 0
	case l.waitNear(id) == 0:
		return true
	}
	if i, ok := l.at[id]; ok {
		l.jobs[i].waiting, l.jobs[i].offered = true, math.MaxInt64
	}
	return false
}

// Precedent returns the job that goes first of those for which Allow refused a near fetch
// of this one; ok is false if there is none.
func (l *Link) Precedent(id JobID) (other JobID, ok bool) {
	if i, known := l.at[id]; known && l.contended {
		if first := l.precedent(&l.jobs[i]); first != nil {
			return first.id, true
		}
	}
	return 0, false
}

// precedent returns the first of the jobs that wait and come before one.
func (l *Link) precedent(j *linkJob) (first *linkJob) {
	before := j
	for i := range l.jobs {
		if other := &l.jobs[i]; other.waiting && other.offered >= l.clock && l.comesBefore(other, before) {
			first, before = other, other
		}
	}
	return first
}

// Waive says that a job that was refused wants nothing any more: it loses its turn.
func (l *Link) Waive(id JobID) {
	if i, ok := l.at[id]; ok {
		l.jobs[i].waiting = false
	}
}

// yields reports whether the job must let another go first. The other was refused before
// and is expected to ask again before time goes on: if not, it has lost its turn.
func (l *Link) yields(j *linkJob) (yes bool) {
	if !l.contended {
		return false
	}
	for i := range l.jobs {
		if other := &l.jobs[i]; other.waiting && other.offered >= l.clock && l.comesBefore(other, j) {
			other.offered, yes = l.clock, true
		}
	}
	return yes
}

// comesBefore reports whether of two jobs that wait for the link alone, a goes first.
// Those whose accounts allow it go by how long they have, or the one who asks first would
// starve others for as long as it has credit. Then those to whom the link gives what it
// would lose otherwise, who had the least of that for their weight: start-time fair
// queueing (Goyal, Vin and Cheng, SIGCOMM 1996), with l.virtual as the virtual time.
func (l *Link) comesBefore(a, b *linkJob) bool {
	a.account.settle(l.clock, l.patience())
	if a.account.until(0) == 0 || b.account.until(0) == 0 {
		return a.account.credit > b.account.credit
	}
	return max(l.virtual, a.finish) < max(l.virtual, b.finish)
}
