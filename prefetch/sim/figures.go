package sim

import (
	"fmt"

	"github.com/stokerio/stoker/prefetch"
)

// Deciders makes the Decider of a node of a world.
type Deciders func(w *World, node int) Decider

// Of is what Run needs for a world.
func (d Deciders) Of(w *World) func(node int) Decider {
	return func(node int) Decider { return d(w, node) }
}

// Planners makes production planners that know how much their node's cache holds, how
// wide its links are and what is to be left of them. The rest of their options is o.
func Planners(o prefetch.Options) Deciders {
	return func(w *World, node int) Decider {
		n, of := &w.Nodes[node], o
		of.Capacity = n.CacheBytes
		for source, s := range n.Sources {
			if s.Law != nil {
				of.Links[source].Rate = w.Links[s.Link].BytesPerSecond
				of.Links[source].Reserve = w.Links[s.Link].Reserve
			}
		}
		return prefetch.New(of)
	}
}

// FixedDepths makes windows of so many samples, with the node's cache.
func FixedDepths(samples int64) Deciders {
	return func(w *World, node int) Decider { return NewFixedDepth(samples, w.Nodes[node].CacheBytes) }
}

// play runs a scenario with another seed.
func (d Deciders) play(w *World, seed uint64) (*Result, error) {
	w.Seed = seed
	return Run(w, d.Of(w))
}

// WeightsResult is what came of WeightsScenario.
type WeightsResult struct {
	Error            float64   // greatest relative distance of a job's rate from its fair one
	Rates, FairRates []float64 // bytes/s, by job
}

// Weights plays WeightsScenario.
func Weights(seed uint64, d Deciders) (WeightsResult, error) {
	r, err := d.play(WeightsScenario(), seed)
	if err != nil {
		return WeightsResult{}, err
	}
	out := WeightsResult{Error: r.Links[0].Unfairness}
	for i := range r.Jobs {
		out.Rates = append(out.Rates, r.Jobs[i].Rate)
		out.FairRates = append(out.FairRates, r.Jobs[i].FairRate)
	}
	return out, nil
}

// ReserveResult is what came of ReserveScenario, by the part of the link that is the jobs':
// 1 is all of it.
type ReserveResult struct {
	Used       float64 // on average
	Peak       float64 // in the busiest second
	StallShare float64 // of the worst job
}

// Reserve plays ReserveScenario.
func Reserve(seed uint64, reserve float64, d Deciders) (ReserveResult, error) {
	if !(reserve >= 0 && reserve < 1) {
		return ReserveResult{}, fmt.Errorf("sim: a reserve of %v: must be in [0, 1)", reserve)
	}
	w := ReserveScenario(reserve)
	r, err := d.play(w, seed)
	if err != nil {
		return ReserveResult{}, err
	}
	free := w.Links[0].BytesPerSecond * (1 - reserve)
	return ReserveResult{Used: r.Links[0].Rate / free, Peak: r.Links[0].Peak / free, StallShare: r.WorstStall()}, nil
}

// CacheResult is what came of CacheScenario, after the first epoch.
type CacheResult struct{ HitRatio, StallShare float64 }

// Cached plays CacheScenario.
func Cached(seed uint64, c float64, d Deciders) (CacheResult, error) {
	if !(c >= 0 && c <= 1) {
		return CacheResult{}, fmt.Errorf("sim: a cache of the share %v: must be in [0, 1]", c)
	}
	r, err := d.play(CacheScenario(c), seed)
	if err != nil {
		return CacheResult{}, err
	}
	s := &r.Jobs[0].Streams[0]
	last := &s.Epochs[len(s.Epochs)-1]
	return CacheResult{HitRatio: last.HitRatio(), StallShare: s.StallShare()}, nil
}

// ChunksResult is what came of ChunksScenario.
type ChunksResult struct {
	Amplification float64 // bytes moved by bytes needed
	StallShare    float64
}

// Chunks plays ChunksScenario.
func Chunks(seed uint64, kind OrderKind, d Deciders) (ChunksResult, error) {
	if kind > Windowed {
		return ChunksResult{}, fmt.Errorf("sim: order of kind %d is not known", kind)
	}
	r, err := d.play(ChunksScenario(kind), seed)
	if err != nil {
		return ChunksResult{}, err
	}
	return ChunksResult{Amplification: r.amplification(), StallShare: r.WorstStall()}, nil
}

// RanksResult is what came of RanksScenario.
type RanksResult struct {
	StallShare    float64 // of the worst rank
	Amplification float64 // bytes moved by bytes needed
	MaxWindow     int64   // bytes of all windows together
}

// Ranks plays RanksScenario.
func Ranks(seed uint64, perChunk int64, d Deciders) (RanksResult, error) {
	if perChunk < 1 || perChunk > ranksChunk {
		return RanksResult{}, fmt.Errorf("sim: %d samples in chunks of %d bytes", perChunk, int64(ranksChunk))
	}
	r, err := d.play(RanksScenario(perChunk), seed)
	if err != nil {
		return RanksResult{}, err
	}
	return RanksResult{StallShare: r.WorstStall(), Amplification: r.amplification(), MaxWindow: r.Nodes[0].MaxWindow}, nil
}

// amplification is what the sources moved by what consumers took.
func (r *Result) amplification() float64 {
	var moved, used int64
	for i := range r.Links {
		moved += r.Links[i].Bytes
	}
	for i := range r.Jobs {
		used += r.Jobs[i].UsedBytes()
	}
	return share(float64(moved), float64(used))
}
