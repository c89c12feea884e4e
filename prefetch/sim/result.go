package sim

import (
	"time"

	"github.com/stokerio/stoker/prefetch"
)

// Result is what came of a run.
type Result struct {
	Jobs   []JobResult
	Nodes  []NodeResult
	Links  []LinkResult
	End    prefetch.Time
	Events int64 // how many things happened, for measuring the simulator itself
}

// Usage is what samples and bytes came to.
type Usage struct {
	Stall   time.Duration // asked for and not there, after the warm-up
	Compute time.Duration // after the warm-up

	Samples int64 // taken
	Hits    int64 // of them, those that the cache had and no fetch was made for
	Late    int64 // whose fetch was still under way when they were asked for
	Missing int64 // that no fetch covered, or whose fetch failed: the consumer read them itself

	Fetches, Hedges int64
	Cancelled       int64                   // attempts, see World.HedgeCancel
	Bytes           [prefetch.Sources]int64 // used, by where they were found; Resident is the cache

	// Of the bytes that fetches moved: those used from the window, those that entered the
	// cache, and what was for nothing: gaps between samples, samples that were not taken,
	// and second attempts (or the first, if the second won). Held is left in windows.
	FetchedBytes, WindowBytes, KeptBytes             int64
	GapBytes, UnusedBytes, HedgeLostBytes, HeldBytes int64
	DemandBytes                                      int64 // that the consumers read themselves
}

// StallShare is stall / (stall + compute).
func (u *Usage) StallShare() float64 { return share(float64(u.Stall), float64(u.Stall+u.Compute)) }

// UsedBytes is the size of the samples taken.
func (u *Usage) UsedBytes() (sum int64) {
	for _, bytes := range u.Bytes {
		sum += bytes
	}
	return sum
}

// WasteShare is bytes fetched for nothing by bytes used.
func (u *Usage) WasteShare() float64 {
	return share(float64(u.GapBytes+u.UnusedBytes+u.HedgeLostBytes), float64(u.UsedBytes()))
}

// HitRatio is the share of samples that the cache had.
func (u *Usage) HitRatio() float64 { return share(float64(u.Hits), float64(u.Samples)) }

func (u *Usage) add(v *Usage) {
	u.Stall += v.Stall
	u.Compute += v.Compute
	u.Samples += v.Samples
	u.Hits += v.Hits
	u.Late += v.Late
	u.Missing += v.Missing
	u.Fetches += v.Fetches
	u.Hedges += v.Hedges
	u.Cancelled += v.Cancelled
	for i := range u.Bytes {
		u.Bytes[i] += v.Bytes[i]
	}
	u.FetchedBytes += v.FetchedBytes
	u.WindowBytes += v.WindowBytes
	u.KeptBytes += v.KeptBytes
	u.GapBytes += v.GapBytes
	u.UnusedBytes += v.UnusedBytes
	u.HedgeLostBytes += v.HedgeLostBytes
	u.HeldBytes += v.HeldBytes
	u.DemandBytes += v.DemandBytes
}

func share(part, whole float64) float64 {
	if whole == 0 {
		return 0
	}
	return part / whole
}

// JobResult is a job's.
type JobResult struct {
	Usage   // of all streams
	Streams []StreamResult
	// From World.From on: the bytes/s that it took of the sources, what it would have
	// taken without stalls, and what weighted max-min fairness gives it. FairRate is 0 if
	// the job does not have one stream at least, or its streams use several links.
	Rate, Demand, FairRate float64
}

// StreamResult is a stream's.
type StreamResult struct {
	Usage
	Begin, End prefetch.Time
	// Bytes of its window, from when a fetch begins until the last sample that wanted it
	// is taken, and samples that fetches were begun for and that were not taken; a sample
	// of several pieces counts once a fetch. Means over time, after the warm-up.
	MeanWindow, MeanDepth float64
	MaxWindow, MaxDepth   int64
	Epochs                []EpochResult
	Timeline              []Point
}

// EpochResult is one epoch of a stream.
type EpochResult struct {
	Epoch         int64
	End           prefetch.Time
	Stall         time.Duration // warm-up included
	Samples, Hits int64
	ResidentBytes int64 // of the stream's dataset in the node's cache, at the end
}

// HitRatio is the share of the epoch's samples that the cache had.
func (e *EpochResult) HitRatio() float64 { return share(float64(e.Hits), float64(e.Samples)) }

// Point is a stream at one time of its timeline.
type Point struct {
	At          prefetch.Time
	Depth       int64         // samples
	WindowBytes int64         // see StreamResult
	Taken       int64         // samples until now
	Stall       time.Duration // until now, warm-up included
}

// NodeResult is a node's.
type NodeResult struct {
	StoredBytes  int64 // that entered the cache
	DroppedBytes int64 // that left it
	LostBytes    int64 // of them, by NodeSpec.Losses
	UnusedBytes  int64 // of those that left it, chunks that were not used while they were there
	RefusedBytes int64 // that the Decider wanted kept and there was no room for
	CacheBytes   int64 // in the cache at the end
	MaxWindow    int64 // of all streams together, from World.From on
}

// LinkResult is a link's.
type LinkResult struct {
	Bytes int64 // moved
	// From World.From on, bytes/s: what it moved on average, and in its busiest second (to
	// a tenth of one; a FIFO link and one without limits count what they take on).
	Rate, Peak float64
	// Unfairness is the greatest relative distance of a job's Rate from its FairRate.
	Unfairness float64
}
