package sim

import (
	"testing"
	"time"

	"github.com/stokerio/stoker/prefetch"
)

// hedger begins each fetch of a Decider a second time.
type hedger struct {
	*Fixed
	next prefetch.Fetch
	won  map[prefetch.FetchID]bool
}

const hedgeBit = prefetch.FetchID(1) << 40

func (d *hedger) Next(now prefetch.Time, f *prefetch.Fetch) (bool, error) {
	if d.next.ID != 0 {
		*f, d.next = d.next, prefetch.Fetch{}
		return true, nil
	}
	ok, err := d.Fixed.Next(now, f)
	if ok {
		d.next = *f
		d.next.ID, d.next.Hedge, d.next.Of = f.ID|hedgeBit, true, f.ID
	}
	return ok, err
}

func (d *hedger) Done(now prefetch.Time, id prefetch.FetchID, r prefetch.Result) {
	if first := id &^ hedgeBit; d.won[first] {
		delete(d.won, first)
	} else {
		d.won[first] = true
		d.Fixed.Done(now, first, r)
	}
}

func TestTheQuickerOfTwoAttemptsCountsAndTheOtherIsWaste(t *testing.T) {
	w := oneStream(Mixture{5 * time.Millisecond, 100 * time.Millisecond, .05}, 5000, time.Millisecond)
	plain := playFixed(t, w, 20)
	r, err := Run(w, func(int) Decider { return &hedger{Fixed: NewFixedDepth(20, 0), won: map[prefetch.FetchID]bool{}} })
	if err != nil {
		t.Fatal(err)
	}
	checkBytes(t, r)
	s := &r.Jobs[0]
	if s.Hedges != 5000 || s.Fetches != 10_000 || s.WindowBytes != 5000*1000 {
		t.Errorf("%+v", s.Usage)
	}
	// The last attempts may be under way when the last sample is taken.
	near(t, "lost", float64(s.HedgeLostBytes), 5000*1000, 30*1000)
	if s.StallShare() > plain.WorstStall()/5 {
		t.Errorf("stall share %.4f with hedges, %.4f without", s.StallShare(), plain.WorstStall())
	}
}

func TestStreamsReadWhatFetchesFailedToBring(t *testing.T) {
	w := oneStream(Constant(5*time.Millisecond), 2000, time.Millisecond)
	w.Nodes[0].Sources[prefetch.Origin].FailShare = 0.2
	r := playFixed(t, w, 20)
	checkBytes(t, r)
	j := &r.Jobs[0]
	if j.Samples != 2000 {
		t.Errorf("%d samples taken", j.Samples)
	}
	near(t, "missing", float64(j.Missing), 0.2*2000, 80)
	if j.DemandBytes != j.Missing*1000 {
		t.Errorf("%d samples missing, %d bytes read for them", j.Missing, j.DemandBytes)
	}
}

// keeper is a Decider that wants all in the cache and drops the oldest.
type keeper struct {
	*Fixed
	wants map[prefetch.FetchID]prefetch.Chunk
	kept  []prefetch.Chunk
	room  int
}

func (d *keeper) Next(now prefetch.Time, f *prefetch.Fetch) (bool, error) {
	ok, err := d.Fixed.Next(now, f)
	if ok {
		f.Keep, f.Whole = true, true
		d.wants[f.ID] = f.Chunk
	}
	return ok, err
}

func (d *keeper) Done(now prefetch.Time, id prefetch.FetchID, r prefetch.Result) {
	if r.Kept {
		d.kept = append(d.kept, d.wants[id])
	}
	delete(d.wants, id)
	d.Fixed.Done(now, id, r)
}

func (d *keeper) Drop(prefetch.Time) (c prefetch.Chunk, ok bool) {
	if len(d.kept) <= d.room {
		return c, false
	}
	c, d.kept = d.kept[0], d.kept[1:]
	return c, true
}

func (d *keeper) Evicted(_ prefetch.Time, c prefetch.Chunk) { d.kept = d.kept[:len(d.kept)-1] }

func TestCachesDropWhatTheDeciderNamesAndHoldNoMoreThanFits(t *testing.T) {
	for _, room := range []int{50, 500} { // the cache has room for 100
		w := oneStream(Constant(5*time.Millisecond), 2000, time.Millisecond)
		w.Nodes[0].CacheBytes = 100 * 1000
		w.Jobs[0].Streams[0].Epochs = 2
		r, err := Run(w, func(int) Decider {
			return &keeper{Fixed: NewFixedDepth(20, 0), wants: map[prefetch.FetchID]prefetch.Chunk{}, room: room}
		})
		if err != nil {
			t.Fatal(err)
		}
		checkBytes(t, r)
		n := &r.Nodes[0]
		if want := int64(min(room, 100)) * 1000; n.CacheBytes != want || n.StoredBytes < 1900*1000 {
			t.Errorf("room %d: %+v", room, *n)
		}
		if refused := n.RefusedBytes > 0; refused != (room > 100) {
			t.Errorf("room %d: %d bytes refused", room, n.RefusedBytes)
		}
	}
}

func TestBlindStreamsHitWhatThePlannerKeeps(t *testing.T) {
	w := oneStream(Constant(time.Millisecond), 1000, time.Millisecond)
	s := &w.Jobs[0].Streams[0]
	s.Blind, s.Epochs = true, 4
	w.Nodes[0].CacheBytes = 1000 * 1000 // all of it
	r, err := Run(w, func(int) Decider { return prefetch.New(prefetch.Options{Capacity: 1000 * 1000}) })
	if err != nil {
		t.Fatal(err)
	}
	for _, epoch := range r.Jobs[0].Streams[0].Epochs {
		near(t, "hit ratio", epoch.HitRatio(), float64(min(1, epoch.Epoch)), 0)
	}
}

func TestTimelinesAreTaken(t *testing.T) {
	w := oneStream(Constant(5*time.Millisecond), 1000, time.Millisecond)
	w.Tick = 10 * time.Millisecond
	r := playFixed(t, w, 20)
	line := r.Jobs[0].Streams[0].Timeline
	if len(line) < 95 || len(line) > 105 {
		t.Fatalf("%d points", len(line))
	}
	for i, p := range line[2:50] {
		if p.At != prefetch.Time(i+2)*prefetch.Time(w.Tick) || p.Depth != 20 || p.WindowBytes != 20_000 {
			t.Errorf("%+v", p)
		}
	}
}

func TestTheSlowerOfTwoAttemptsIsCancelled(t *testing.T) {
	law := Exponential(5 * time.Millisecond)
	for _, spec := range []LinkSpec{{}, {BytesPerSecond: 4e6}, {RequestBytesPerSecond: 1e6}, {BytesPerSecond: 4e6, FIFO: true}} {
		play := func(cancel bool) *Result {
			w := oneStream(law, 5000, time.Millisecond)
			w.Links[0], w.HedgeCancel = spec, cancel
			r, err := Run(w, func(int) Decider { return &hedger{Fixed: NewFixedDepth(20, 0), won: map[prefetch.FetchID]bool{}} })
			if err != nil {
				t.Fatal(err)
			}
			checkBytes(t, r)
			return r
		}
		waited, cancelled := play(false), play(true)
		s := &cancelled.Jobs[0]
		if s.Samples != 5000 || s.Hedges != 5000 || s.Cancelled != 5000 || waited.Jobs[0].Cancelled != 0 {
			t.Errorf("%+v: %+v", spec, s.Usage)
		}
		if lost := waited.Jobs[0].HedgeLostBytes; s.HedgeLostBytes > lost/2 {
			t.Errorf("%+v: %d bytes lost, %d without cancelling", spec, s.HedgeLostBytes, lost)
		}
		if stall := waited.WorstStall(); cancelled.WorstStall() > stall+0.01 {
			t.Errorf("%+v: stall share %.4f, %.4f without cancelling", spec, cancelled.WorstStall(), stall)
		}
	}
}
