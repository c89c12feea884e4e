package sim

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/stokerio/stoker/prefetch"
	"pgregory.net/rapid"
)

var (
	_ Decider = (*prefetch.Planner)(nil)
	_ Holder  = (*prefetch.Planner)(nil)
	_ Decider = (*Fixed)(nil)
)

func TestPlannersPlayAnyWorldAndLoseNoByte(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := anyWorld(rt)
		options := prefetch.Options{
			WindowBytes: rapid.SampledFrom([]int64{0, 20_000}).Draw(rt, "window"),
			HedgeShare:  rapid.SampledFrom([]float64{0, .1}).Draw(rt, "hedges"),
			Far:         rapid.Bool().Draw(rt, "far"),
			MaxFlights:  rapid.SampledFrom([]int{0, 3}).Draw(rt, "flights"),
			Cut:         prefetch.CutOptions{Overhead: time.Millisecond, Bandwidth: 1e6, Billed: rapid.Bool().Draw(rt, "billed")},
		}
		planners := make([]*gapCounter, len(w.Nodes))
		decide := func(node int) Decider {
			planners[node] = &gapCounter{Planner: Planners(options)(w, node).(*prefetch.Planner)}
			return planners[node]
		}
		first, oracle, err := runWatched(w, decide)
		if err != nil {
			rt.Fatal(err)
		}
		if err := errors.Join(oracle.check(w, first), sameAccounts(w, first, planners), withinMemory(w, first, &options, planners)); err != nil {
			rt.Fatal(err)
		}
		second, err := Run(w, decide)
		if err != nil {
			rt.Fatal(err)
		}
		if !reflect.DeepEqual(first, second) {
			rt.Fatalf("%+v\n%+v", first, second)
		}
		if checkBytes(t, first); t.Failed() {
			rt.FailNow()
		}
	})
}

// gapCounter counts the bytes of fetches that no sample is known to want.
type gapCounter struct {
	*prefetch.Planner
	gaps int64
}

func (g *gapCounter) Next(now prefetch.Time, f *prefetch.Fetch) (ok bool, err error) {
	if ok, err = g.Planner.Next(now, f); ok && !f.Whole {
		g.gaps += f.Bytes - f.Needed
	}
	return ok, err
}

// sameAccounts holds the planners' own accounts against those of the run.
func sameAccounts(w *World, r *Result, planners []*gapCounter) error {
	for node, p := range planners {
		var taken, moved, fetches, hedges int64
		for i := range w.Jobs {
			for k := range w.Jobs[i].Streams {
				if s := &r.Jobs[i].Streams[k]; w.Jobs[i].Streams[k].Node == node && !w.Jobs[i].Streams[k].Blind {
					taken += s.Samples
					moved += s.FetchedBytes
					fetches += s.Fetches
					hedges += s.Hedges
				}
			}
		}
		m := p.Totals()
		if m.Samples != taken || m.OnTime+m.Late+m.Uncovered != taken || m.Fetches != fetches || m.Hedges != hedges {
			return fmt.Errorf("node %d: %d samples were taken, %d fetches begun, %d of them hedges: %+v", node, taken, fetches, hedges, m)
		}
		// What a cancelled attempt moved no planner is told.
		if told := m.FetchedBytes + m.HedgedBytes; told > moved || told < moved && !w.HedgeCancel {
			return fmt.Errorf("node %d: fetches moved %d bytes, the planner knows of %d", node, moved, told)
		}
	}
	return nil
}

// withinMemory holds the windows of each node to their bound, and what a planner says that
// it had to go beyond it. Gaps between ranges are in no window, and what is under way when a
// stream seeks or is cut off goes on to its end. Far fetches, which are for no window, are
// bounded by their number.
func withinMemory(w *World, r *Result, o *prefetch.Options, planners []*gapCounter) error {
	if o.WindowBytes == 0 || o.Far {
		return nil
	}
	for node := range w.Nodes {
		most := o.WindowBytes + planners[node].Totals().ExcessBytes + planners[node].gaps
		for i := range w.Jobs {
			for k := range w.Jobs[i].Streams {
				if s := &w.Jobs[i].Streams[k]; s.Node == node {
					most += int64(len(s.Seeks)) * o.WindowBytes
					if s.Limit > 0 {
						most += o.WindowBytes
					}
				}
			}
		}
		if got := r.Nodes[node].MaxWindow; got > most {
			return fmt.Errorf("node %d: windows of %d bytes, want at most %d", node, got, most)
		}
	}
	return nil
}
