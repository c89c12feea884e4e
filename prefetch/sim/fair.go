package sim

import "math"

// compareRates holds what jobs had of each link against weighted max-min fairness.
func (e *engine) compareRates() {
	for i := range e.links {
		e.result.Links[i].Bytes = e.links[i].bytes
		e.links[i].advance(e.now)
		e.links[i].meter.close()
	}
	seconds := e.now.Sub(e.world.From).Seconds()
	if seconds <= 0 {
		return
	}
	for i := range e.streams {
		s := &e.streams[i]
		j := &e.result.Jobs[s.job]
		j.Rate += float64(s.taken) / seconds
		if s.spec.PerSample > 0 && s.used > 0 {
			asks := float64(s.layout.bytes) / float64(s.layout.spec.Samples) / s.spec.PerSample.Seconds()
			j.Demand += asks * float64(s.taken) / float64(s.used)
		}
	}
	for i := range e.links {
		m := &e.links[i].meter
		e.result.Links[i].Rate, e.result.Links[i].Peak = m.total/seconds, m.peak
		e.compareLink(i)
	}
}

// compareLink does so for one link, and the jobs whose streams all use it.
func (e *engine) compareLink(index int) {
	spec := &e.world.Links[index]
	if spec.BytesPerSecond == 0 {
		return
	}
	var jobs []*JobResult
	var demands, weights []float64
	for i := range e.world.Jobs {
		if j := &e.world.Jobs[i]; e.usesOnly(j, index) {
			jobs = append(jobs, &e.result.Jobs[i])
			demands = append(demands, e.result.Jobs[i].Demand)
			weights = append(weights, j.weight())
		}
	}
	for i, fair := range fill(spec.BytesPerSecond*(1-spec.Reserve), demands, weights) {
		jobs[i].FairRate = fair
		if fair > 0 {
			worst := &e.result.Links[index].Unfairness
			*worst = max(*worst, math.Abs(jobs[i].Rate-fair)/fair)
		}
	}
}

func (e *engine) usesOnly(j *JobSpec, link int) bool {
	for i := range j.Streams {
		s := &j.Streams[i]
		if e.world.Nodes[s.Node].Sources[s.Source].Link != link {
			return false
		}
	}
	return len(j.Streams) > 0
}

func (j *JobSpec) weight() float64 {
	if j.Weight == 0 {
		return 1
	}
	return j.Weight
}

// fill divides capacity by weighted max-min fairness: all have demand or less, and who
// has less has as much a weight as anybody. Demands and weights are finite and positive,
// or 0.
func fill(capacity float64, demands, weights []float64) []float64 {
	out, full := make([]float64, len(demands)), make([]bool, len(demands))
	for {
		var weight float64
		for i := range demands {
			if !full[i] {
				weight += weights[i]
			}
		}
		if weight <= 0 {
			return out
		}
		level, settled := capacity/weight, false
		for i := range demands {
			if !full[i] && demands[i] <= level*weights[i] {
				out[i], full[i], settled = demands[i], true, true
				capacity = max(0, capacity-demands[i])
			}
		}
		if settled {
			continue
		}
		for i := range demands {
			if !full[i] {
				out[i] = level * weights[i]
			}
		}
		return out
	}
}
