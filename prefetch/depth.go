package prefetch

import (
	"math"
	"time"
)

const (
	depthEpsilon   = 0.005
	depthUnbounded = 1 << 40 // samples
	depthKeep      = 0.917   // of a correction after each window: half after 8
	depthOccupied  = 0.8     // of the window ready: it is full
	depthIdle      = 4       // batches' time between ready and used: it was early
)

// DepthOptions bound the window of a stream.
type DepthOptions struct {
	// Epsilon is the share of the consumer's time that it may wait for latency's tail.
	// Default 0.005, also for what is not between 0 and 1.
	Epsilon float64
	// Min and Max bound the depth, in samples. Min is at least 0 and at most Max; a Max
	// below 1 is no bound.
	Min, Max int64
	// Batch is how many samples the consumer takes at once, at least 1.
	Batch int64
}

// Depth sizes one stream's window: how many samples ahead of the consumer are fetched. A
// sample fetched D samples ahead waits if its latency L exceeds D tau, where tau is the
// time a sample takes the consumer. So the depth is the least D with
//
//	missing E[(L-D tau)+] <= Epsilon tau
//
// and not less than Little's law asks for, and a batch more because samples are taken by
// the batch. What happens then corrects it, because latencies that come in runs, or that
// changed, are worse than their histogram says: a late sample makes the window a quarter
// deeper, samples dropped unused halve it, both at most once in the time a window takes.
// Such a correction fades, half of it in 8 windows, so that the few late samples which
// Epsilon allows cost little: at the depth above they are tens of windows apart.
type Depth struct {
	epsilon  float64
	min, max int64
	batch    int64
	pace     depthPace

	value   int64   // that Set last returned; at first two batches within the bounds
	floor   float64 // samples: the correction after late ones; 0: none
	ceiling float64 // samples: the correction after unused ones; infinite: none
	changed Time    // when a correction was last made
	steps   int64   // how often one was

	// Since the last Set.
	late, unused bool

	// Since the last window ended.
	taken       float64 // samples
	used, early int64   // samples whose slack is known; those of them that lay long
}

// NewDepth returns a depth for one stream, which knows neither latency nor consumer yet.
func NewDepth(o DepthOptions) *Depth {
	d := &Depth{epsilon: o.Epsilon, min: o.Min, max: o.Max, batch: max(o.Batch, 1), ceiling: math.Inf(1)}
	if !(d.epsilon > 0 && d.epsilon < 1) {
		d.epsilon = depthEpsilon
	}
	if d.max < 1 || d.max > depthUnbounded {
		d.max = depthUnbounded
	}
	d.min = min(max(d.min, 0), d.max)
	d.batch = min(d.batch, depthUnbounded)
	d.value = d.unknown()
	return d
}

// Consumed says that n samples were taken at now, for which the consumer had waited so
// long. What passed since the samples before them were taken, less the wait, is the time
// those took. An n below 1 says nothing.
func (d *Depth) Consumed(now Time, n int64, waited time.Duration) {
	if n < 1 {
		return
	}
	d.pace.taken(now, float64(n), waited)
	d.taken += float64(n)
}

// Tau is the time a sample takes the consumer while it does not wait; 0 while unknown,
// else at least 1 ns.
func (d *Depth) Tau() time.Duration { return histogramDuration(d.pace.tau) }

// Used says that a sample was used so long after it had become ready, or, if ready is
// false, that it was not there when asked for.
func (d *Depth) Used(slack time.Duration, ready bool) {
	d.used++
	if !ready {
		d.late = true
		return
	}
	// Ready for so much of the window's time is so much of the window ready (Little).
	idle := max(depthIdle*float64(d.batch), depthOccupied*float64(d.value))
	if float64(slack) > idle*d.pace.tau {
		d.early++
	}
}

// Unused says that n samples were fetched for the window and dropped before use.
func (d *Depth) Unused(n int64) {
	if n > 0 {
		d.unused = true
	}
}

// Set returns the depth from now on, in samples. The latency is h, of which a share
// missing of the samples feels anything; the others are resident. A hedgeAfter above 0 is
// when a late fetch gets a second attempt. While h is nil or empty, or tau unknown, it
// starts from two batches; it is Min if nothing is missing. A missing of NaN counts as 1.
func (d *Depth) Set(now Time, h *Histogram, missing float64, hedgeAfter time.Duration) int64 {
	if missing <= 0 {
		d.late, d.unused, d.value = false, false, d.min
		return d.value
	}
	if !(missing < 1) {
		missing = 1
	}
	after := math.Inf(1)
	if hedgeAfter > 0 {
		after = float64(hedgeAfter)
	}
	d.changed = min(d.changed, now) // the clock may have gone back
	base := float64(d.tail(h, missing, after))
	d.endWindow(base)
	d.correct(now, base)
	d.value = d.corrected(base)
	return d.value
}

// tail returns the depth that the tail of the latency asks for.
func (d *Depth) tail(h *Histogram, missing, after float64) int64 {
	tau := d.pace.tau
	if h == nil || h.weight == 0 || tau == 0 {
		return d.unknown()
	}
	lead, _ := h.tail(after, 0, d.epsilon*tau/missing)
	lead = max(lead, missing*h.mean()) / tau
	return d.bounded(math.Ceil(lead) + float64(d.batch))
}

// endWindow lets the corrections fade when as many samples were taken as the window
// holds, the floor by one sample at least if half of them lay ready for long.
func (d *Depth) endWindow(base float64) {
	if d.taken < float64(d.corrected(base)) {
		return
	}
	floor := base + (d.floor-base)*depthKeep
	if 2*d.early > d.used {
		floor = min(floor, d.floor-1)
	}
	// A correction that the tail has overtaken is over.
	if d.floor = floor; floor <= base {
		d.floor = 0
	}
	if d.ceiling = base + (d.ceiling-base)*depthKeep; d.ceiling >= base {
		d.ceiling = math.Inf(1)
	}
	d.taken, d.used, d.early = 0, 0, 0
}

// correct changes the correction by what was reported since the last Set.
func (d *Depth) correct(now Time, base float64) {
	late, unused := d.late, d.unused
	d.late, d.unused = false, false
	current := d.corrected(base)
	switch {
	case !late && !unused, d.tooSoon(now, current):
		return
	case unused: // and late: what was dropped must be fetched again
		d.floor, d.ceiling = 0, float64(current/2)
	default:
		d.floor = float64(d.bounded(float64(current + max(1, (current+3)/4))))
		d.ceiling = max(d.ceiling, d.floor)
	}
	d.changed = now
	d.steps++
}

// tooSoon reports whether the last change cannot have shown yet: a window's time must
// pass first.
func (d *Depth) tooSoon(now Time, window int64) bool {
	return d.steps > 0 && float64(now.Sub(d.changed)) < float64(window)*d.pace.tau
}

func (d *Depth) corrected(base float64) int64 {
	return d.bounded(math.Round(min(max(base, d.floor), d.ceiling)))
}

// unknown is the depth of which neither latency nor consumer are known.
func (d *Depth) unknown() int64 { return d.bounded(2 * float64(d.batch)) }

func (d *Depth) bounded(samples float64) int64 {
	return int64(min(max(samples, float64(d.min)), float64(d.max)))
}

const (
	paceMemory = 16 // takes: the time constant of the mean
	paceJump   = 4  // a factor beyond which a take is unlike those before
	pacePause  = 64 // takes in which one may be a pause
	pacePauses = 2  // that may follow each other
	paceLeap   = 64 // a factor beyond which no take counts, pause or not
	paceRun    = 32 // fast takes in a row that are a new pace
)

// depthPace learns the time a sample takes a consumer: the mean over recent takes. A
// pause (a checkpoint, a clock that jumps) counts as no more than a few takes. Takes that
// follow each other at once, as when a ring is filled, are made good by the long one
// after them. A faster pace replaces the old one after as many takes as that had, at most
// paceRun: so a slow first step is soon forgotten.
type depthPace struct {
	tau   float64 // nanoseconds a sample; 0: unknown
	last  Time    // of the last take
	count float64 // samples of the last take; 0: none yet

	spent, samples float64 // sums over recent takes
	takes          int
	ahead          float64 // nanoseconds that recent takes came before their time
	pauses         float64 // long takes that may be pauses

	run                  int // fast takes in a row
	runSpent, runSamples float64
}

// taken notes a take of n samples, n > 0.
func (p *depthPace) taken(now Time, n float64, waited time.Duration) {
	if p.count > 0 && now >= p.last {
		spent := now.Sub(p.last) - max(waited, 0)
		p.observe(float64(max(spent, 0)), p.count)
	}
	p.last, p.count = now, n
}

// observe notes that n samples took so many nanoseconds.
func (p *depthPace) observe(spent, n float64) {
	if due := p.tau * n; due > 0 {
		if p.faster(spent, n) {
			p.spent, p.samples, p.takes = p.runSpent, p.runSamples, p.run
			p.run, p.ahead = 0, 0
			p.tau = max(1, p.spent/p.samples)
			return
		}
		spent = p.withoutPause(spent, due)
	}
	p.spent = p.spent*(1-1./paceMemory) + spent
	p.samples = p.samples*(1-1./paceMemory) + n
	p.takes++
	p.tau = max(1, p.spent/p.samples)
}

// faster reports whether a take ends a run of fast ones that outlasts what came before.
func (p *depthPace) faster(spent, n float64) bool {
	if paceJump*spent >= p.tau*n {
		p.run, p.runSpent, p.runSamples = 0, 0, 0
		return false
	}
	before := p.takes - p.run // the run's takes are among them
	p.run++
	p.runSpent += spent
	p.runSamples += n
	return p.run > min(before, paceRun)
}

// withoutPause returns as how long a take counts that was due to take so long.
func (p *depthPace) withoutPause(spent, due float64) float64 {
	p.pauses = min(p.pauses+1./pacePause, pacePauses)
	if limit := p.ahead + paceJump*due; spent > limit {
		if p.pauses >= 1 {
			p.pauses--
		} else {
			limit = p.ahead + paceLeap*due
		}
		spent = min(spent, limit)
	}
	p.ahead = min(max(p.ahead+due-spent, 0), paceMemory*due)
	return spent
}
