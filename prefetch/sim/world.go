package sim

import (
	"fmt"
	"time"

	"github.com/stokerio/stoker/prefetch"
)

// World is what a run plays. It is only read: one may be played again and again, with
// other Deciders.
type World struct {
	Seed     uint64 // of all that is drawn
	Links    []LinkSpec
	Nodes    []NodeSpec
	Datasets []DatasetSpec
	Jobs     []JobSpec
	// From is when links, fairness and the nodes' windows begin to be measured.
	From prefetch.Time
	// Until ends the run. 0: it ends when the last stream has read all its epochs.
	Until prefetch.Time
	// HedgeCancel gives up what else is under way for a fetch as soon as one attempt has
	// brought its bytes; what it has moved by then is lost. Without it, all attempts go on
	// to their end.
	HedgeCancel bool
	// Tick is the distance of the timelines' points. 0: there are none.
	Tick time.Duration
}

// LinkSpec is bandwidth, shared by the sources of any nodes. The transfers under way
// share it evenly (processor sharing), or, with FIFO, have it one after another in the
// order of their first bytes.
type LinkSpec struct {
	BytesPerSecond        float64 // of all transfers together; 0: not limited
	RequestBytesPerSecond float64 // of one transfer; 0: not limited
	FIFO                  bool
	Reserve               float64 // the share that the jobs are to leave free; only fairness looks at it
}

// NodeSpec is a node.
type NodeSpec struct {
	CacheBytes int64
	// Sources are where its fetches go; one without a law is not there.
	Sources [prefetch.Sources]SourceSpec
	// Losses is the mean time between chunks that the cache loses by itself, any of those
	// that it holds. 0: it loses none.
	Losses time.Duration
}

// SourceSpec is how a node reaches a source.
type SourceSpec struct {
	Law       Law
	Link      int     // in World.Links
	FailShare float64 // of requests, [0, 1), that end with ErrFailed in place of a first byte
}

// DatasetSpec is a dataset. Its lease on a node lasts while streams there read it.
type DatasetSpec struct {
	Layout *Layout
	Seed   uint64
	Weight float64
	Keep   bool
}

// JobSpec is a job. Its lease on a node lasts while streams of it run there.
type JobSpec struct {
	Weight  float64 // 0 counts as 1
	Streams []StreamSpec
}

// StreamSpec is a stream: one rank's session. Its consumer asks for a batch, waits until
// all of it is there, takes it, computes for PerSample times the batch's samples, and
// asks for the next.
type StreamSpec struct {
	Node    int
	Dataset int
	Order   prefetch.Order  // must know the place of each sample
	Source  prefetch.Source // of what is not in the cache
	Batch   int64           // samples; 0 counts as 1

	PerSample time.Duration
	Jitter    float64 // coefficient of variation of a batch's lognormal compute time
	Phases    []Phase // ascending
	Seeks     []Seek  // ascending

	Start        prefetch.Time
	Epoch, Place int64 // where it begins
	Epochs       int64 // how many it reads, the first included; 0: it goes on until World.Until
	Limit        int64 // samples, after which it is cut off, unforeseen; 0: none
	WarmUp       int64 // samples that stall, compute and the window's size leave out

	// Blind streams are not told to the Decider: nothing of them is foreseen, and it only
	// hears of each access.
	Blind bool
}

// Phase is a change of a stream's rate.
type Phase struct {
	At        prefetch.Time
	PerSample time.Duration // from then on; 0: as before
	Pause     time.Duration // the consumer asks for nothing so long; it is neither stall nor compute
}

// Seek is a consumer going on elsewhere, before it asks for its next batch.
type Seek struct {
	After        int64 // samples that it has taken, or more
	Epoch, Place int64
}

// Validate reports what is wrong with a world.
func (w *World) Validate() error {
	for i, l := range w.Links {
		if !(l.BytesPerSecond >= 0 && l.RequestBytesPerSecond >= 0 && l.Reserve >= 0 && l.Reserve < 1) {
			return fmt.Errorf("sim: link %d: rates and reserve must not be negative or NaN, and some must be left: %+v", i, l)
		}
	}
	for i, n := range w.Nodes {
		if n.Losses < 0 {
			return fmt.Errorf("sim: node %d: a chunk is lost each %v", i, n.Losses)
		}
		for source, s := range n.Sources {
			if s.Law != nil && (s.Link < 0 || s.Link >= len(w.Links) || !(s.FailShare >= 0 && s.FailShare < 1)) {
				return fmt.Errorf("sim: node %d: %v goes over link %d of %d and fails with share %v", i, prefetch.Source(source), s.Link, len(w.Links), s.FailShare)
			}
		}
	}
	for i, d := range w.Datasets {
		if d.Layout == nil {
			return fmt.Errorf("sim: dataset %d has no layout", i)
		}
	}
	for i := range w.Jobs {
		for k := range w.Jobs[i].Streams {
			if err := w.checkStream(&w.Jobs[i].Streams[k]); err != nil {
				return fmt.Errorf("sim: job %d, stream %d: %w", i, k, err)
			}
		}
	}
	return nil
}

func (w *World) checkStream(s *StreamSpec) error {
	switch {
	case s.Node < 0 || s.Node >= len(w.Nodes):
		return fmt.Errorf("node %d of %d", s.Node, len(w.Nodes))
	case s.Dataset < 0 || s.Dataset >= len(w.Datasets):
		return fmt.Errorf("dataset %d of %d", s.Dataset, len(w.Datasets))
	case s.Source >= prefetch.Sources || w.Nodes[s.Node].Sources[s.Source].Law == nil:
		return fmt.Errorf("node %d has no source %v", s.Node, s.Source)
	case s.Order == nil:
		return fmt.Errorf("no order")
	case s.PerSample < 0 || s.Batch < 0 || s.Start < 0 || s.Epochs < 0 || s.Limit < 0 || !(s.Jitter >= 0):
		return fmt.Errorf("time a sample, batch, start, epochs, limit and jitter must not be negative")
	case s.Epochs == 0 && s.Limit == 0 && w.Until == 0:
		return fmt.Errorf("it would never end: set Epochs, Limit or World.Until")
	case s.Epoch < 0 || s.Place < 0 || s.Place >= s.Order.Len(s.Epoch):
		return fmt.Errorf("it cannot begin at sample %d of epoch %d", s.Place, s.Epoch)
	}
	for _, to := range s.Seeks {
		if to.Epoch < 0 || to.Place < 0 || to.Place >= s.Order.Len(to.Epoch) {
			return fmt.Errorf("it cannot go on at sample %d of epoch %d", to.Place, to.Epoch)
		}
	}
	return nil
}
