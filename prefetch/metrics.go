package prefetch

import "time"

// Metrics say how well a stream, a job or the node was foreseen. All but Depth and Tau
// are totals.
type Metrics struct {
	Depth int64         // samples that the window may hold, now
	Tau   time.Duration // that the consumer takes for a sample while it does not wait; 0: not known

	Fetches   int64 // begun, hedges included
	Failed    int64 // ended with an error; the reads that need the bytes say what of
	Hedges    int64 // begun a second time
	HedgesWon int64 // of them, those that ended before what they were to help

	FetchedBytes  int64 // moved by fetches that ended, hedges not counted; what was found resident moved nothing
	UsedBytes     int64 // of them, bytes of samples that were then taken
	SharedBytes   int64 // that samples took of what was fetched for another stream
	GapBytes      int64 // between ranges that were read in one
	UnusedBytes   int64 // of FetchedBytes, for samples that were not taken: after a seek, or when the stream ended
	HedgedBytes   int64 // moved by fetches that another attempt had made superfluous
	KeptBytes     int64 // that entered the cache
	ResidentBytes int64 // that samples needed and were there already, or were found there by a fetch
	ExcessBytes   int64 // begun for the next batch, or as a hedge, though the windows' memory was in use

	Samples   int64 // taken
	OnTime    int64 // of them, those that were ready when they were asked for
	Late      int64 // whose fetch was still under way, or had not begun
	Uncovered int64 // that the window did not reach
	Missed    int64 // samples that the reads themselves had to wait for, see Planner.Missed
	EarlyNs   int64 // for how long the samples on time had lain ready, all together
	LateNs    int64 // by how much the late ones were, all together
}

// MovedBytes is all that fetches moved. Where all fetches are ranges that are not shared, it
// is what was used, what was wasted and what windows still hold.
func (m *Metrics) MovedBytes() int64 { return m.FetchedBytes + m.HedgedBytes }

// WastedBytes is what fetches moved for nothing.
func (m *Metrics) WastedBytes() int64 { return m.GapBytes + m.UnusedBytes + m.HedgedBytes }

// Accuracy is the share of moved bytes that were used, 1 if nothing was moved.
func (m *Metrics) Accuracy() float64 { return ratio(m.UsedBytes, m.MovedBytes()) }

// Coverage is the share of samples that a window had come to.
func (m *Metrics) Coverage() float64 { return ratio(m.OnTime+m.Late, m.Samples) }

// Timeliness is the share of those that were ready when they were asked for.
func (m *Metrics) Timeliness() float64 { return ratio(m.OnTime, m.OnTime+m.Late) }

// Waste is the share of moved bytes that were moved for nothing.
func (m *Metrics) Waste() float64 {
	if m.MovedBytes() <= 0 {
		return 0
	}
	return ratio(m.WastedBytes(), m.MovedBytes())
}

func ratio(part, whole int64) float64 {
	if whole <= 0 {
		return 1
	}
	return float64(part) / float64(whole)
}

// add adds the totals of other.
func (m *Metrics) add(other *Metrics) {
	m.Fetches += other.Fetches
	m.Failed += other.Failed
	m.Hedges += other.Hedges
	m.HedgesWon += other.HedgesWon
	m.FetchedBytes += other.FetchedBytes
	m.UsedBytes += other.UsedBytes
	m.SharedBytes += other.SharedBytes
	m.GapBytes += other.GapBytes
	m.UnusedBytes += other.UnusedBytes
	m.HedgedBytes += other.HedgedBytes
	m.KeptBytes += other.KeptBytes
	m.ResidentBytes += other.ResidentBytes
	m.ExcessBytes += other.ExcessBytes
	m.Samples += other.Samples
	m.OnTime += other.OnTime
	m.Late += other.Late
	m.Uncovered += other.Uncovered
	m.Missed += other.Missed
	m.EarlyNs += other.EarlyNs
	m.LateNs += other.LateNs
}

// Metrics returns those of a stream; ok is false if it is not known.
func (p *Planner) Metrics(id StreamID) (m Metrics, ok bool) {
	s := p.stream(id)
	if s == nil {
		return m, false
	}
	m = s.metrics
	m.Depth, m.Tau = s.size, s.depth.Tau()
	return m, true
}

// JobMetrics adds up those of a job's streams, ended ones included. Depth is the sum of
// the windows, Tau that of the quickest stream.
func (p *Planner) JobMetrics(id JobID) (m Metrics, ok bool) {
	j := p.jobs[id]
	if j == nil {
		return m, false
	}
	m = j.totals
	for _, s := range p.streams {
		if s.job == j {
			p.addStream(&m, s)
		}
	}
	return m, true
}

// Totals adds up those of all streams that there ever were.
func (p *Planner) Totals() Metrics {
	m := p.totals
	for _, s := range p.streams {
		p.addStream(&m, s)
	}
	return m
}

func (p *Planner) addStream(m *Metrics, s *stream) {
	m.add(&s.metrics)
	m.Depth += s.size
	if tau := s.depth.Tau(); tau > 0 && (m.Tau == 0 || tau < m.Tau) {
		m.Tau = tau
	}
}
