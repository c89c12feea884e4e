package prefetch

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// wideLayout has samples of two pieces in files that are never fetched whole. Samples that
// follow one another have bytes in common, or none between them.
type wideLayout struct{ samples, apart, size int64 }

func (l *wideLayout) Samples() int64         { return l.samples }
func (l *wideLayout) Chunks() int64          { return 2 }
func (l *wideLayout) Bytes() int64           { return 2 * l.samples * l.size }
func (l *wideLayout) ChunkBytes(int64) int64 { return math.MaxInt64 }

func (l *wideLayout) Pieces(samples []int64, pieces []Piece, ends []int32) ([]Piece, []int32, error) {
	for _, x := range samples {
		for chunk := range int64(2) {
			pieces = append(pieces, Piece{Chunk: chunk, Offset: x * l.apart, Bytes: l.size})
		}
		ends = append(ends, int32(len(pieces)))
	}
	return pieces, ends, nil
}

// ledger makes calls as the daemon does, and counts what it said that fetches moved.
type ledger struct {
	p       *Planner
	now     Time
	job     JobID
	dataset DatasetID
	streams []StreamID
	flying  []Fetch
	moved   int64
}

func newLedger(rt *rapid.T) *ledger {
	l := &ledger{p: New(Options{
		HedgeShare: rapid.SampledFrom([]float64{0, 0.5}).Draw(rt, "hedges"), WindowBytes: rapid.Int64Range(0, 40_000).Draw(rt, "memory"),
		Cut: CutOptions{Billed: rapid.Bool().Draw(rt, "billed"), MaxGap: 200}, MaxFlights: rapid.SampledFrom([]int{1, 3, 64}).Draw(rt, "flights"),
	})}
	l.job = l.p.AddJob(0, 1)
	var err error
	l.dataset, err = l.p.AddDataset(0, Dataset{Layout: &wideLayout{samples: 100, apart: rapid.SampledFrom([]int64{0, 50, 100, 150}).Draw(rt, "apart"), size: 100}})
	if err != nil {
		rt.Fatal(err)
	}
	return l
}

func (l *ledger) pick(rt *rapid.T) *stream {
	if len(l.streams) == 0 {
		return nil
	}
	return l.p.stream(rapid.SampledFrom(l.streams).Draw(rt, "which stream"))
}

func (l *ledger) add(rt *rapid.T) {
	id, err := l.p.AddStream(l.now, Stream{Job: l.job, Dataset: l.dataset, Source: Origin, Batch: rapid.Int64Range(1, 20).Draw(rt, "batch"),
		Order: fakeOrder{100, rapid.SampledFrom([]int64{1, 7}).Draw(rt, "step")}})
	if err != nil {
		rt.Fatal(err)
	}
	l.streams = append(l.streams, id)
}

func (l *ledger) end(rt *rapid.T) {
	if s := l.pick(rt); s != nil {
		_ = l.p.EndStream(l.now, s.id)
	}
}

func (l *ledger) seek(rt *rapid.T) {
	if s := l.pick(rt); s != nil {
		_ = l.p.Seek(l.now, s.id, rapid.Int64Range(0, 2).Draw(rt, "epoch"), rapid.Int64Range(0, 100).Draw(rt, "place"))
	}
}

func (l *ledger) consume(rt *rapid.T) {
	if s := l.pick(rt); s != nil {
		l.p.Consumed(l.now, s.id, s.takenEpoch, s.takenPlace+rapid.Int64Range(1, 40).Draw(rt, "samples"), time.Millisecond)
		l.p.Missed(l.now, s.id, 1, 1)
	}
}

func (l *ledger) next(rt *rapid.T) {
	var f Fetch
	for range 20 {
		ok, err := l.p.Next(l.now, &f)
		if err != nil {
			rt.Fatal(err)
		}
		if !ok {
			return
		}
		l.flying = append(l.flying, f)
	}
}

// done ends a fetch: it fails, finds the bytes there, or brings them.
func (l *ledger) done(rt *rapid.T) {
	if len(l.flying) == 0 {
		return
	}
	i := rapid.IntRange(0, len(l.flying)-1).Draw(rt, "which fetch")
	f := l.flying[i]
	l.flying = append(l.flying[:i], l.flying[i+1:]...)
	r := Result{Source: Origin, Took: time.Duration(rapid.IntRange(1, 1000).Draw(rt, "took")) * time.Microsecond, Bytes: f.Bytes}
	switch rapid.SampledFrom([]string{"brought", "brought", "found", "failed"}).Draw(rt, "ended") {
	case "brought":
		l.moved += f.Bytes
	case "found":
		r.Source = Resident
	case "failed":
		r.Bytes, r.Err = 0, errBroken
	}
	l.p.Done(l.now, f.ID, r)
}

// check balances the books.
func (l *ledger) check(rt *rapid.T) {
	held := int64(0)
	for _, s := range l.p.streams {
		for i := range s.items.len() {
			held += s.items.at(i).arrived
		}
	}
	m := l.p.Totals()
	if m.MovedBytes() != l.moved || m.UsedBytes+m.WastedBytes()+held != l.moved {
		rt.Fatalf("%d bytes were moved; %d are held: %+v", l.moved, held, m)
	}
	if m.Accuracy()+m.Waste() > 1+1e-9 || m.Waste() < 0 || m.UsedBytes < 0 || m.UnusedBytes < 0 || m.GapBytes < 0 {
		rt.Fatalf("accuracy %g, waste %g: %+v", m.Accuracy(), m.Waste(), m)
	}
}

// TestEachByteThatWasMovedIsUsedWastedOrHeld balances the books of fetches as the daemon
// makes them: ranges, of which any may turn out to be in the page cache.
func TestEachByteThatWasMovedIsUsedWastedOrHeld(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := newLedger(rt)
		l.add(rt)
		rt.Repeat(map[string]func(*rapid.T){
			"stream": l.add, "end": l.end, "seek": l.seek, "consume": l.consume, "next": l.next, "done": l.done,
			"time": func(rt *rapid.T) { l.now += Time(rapid.Int64Range(0, 1e8).Draw(rt, "jump")) },
			"":     l.check,
		})
	})
}

// TestWhatWasFoundIsNotWasted has whole chunks and ranges that a fetch finds in the page
// cache, and nobody who uses them.
func TestWhatWasFoundIsNotWasted(t *testing.T) {
	for name, billed := range map[string]bool{"ranges": true, "whole chunks": false} {
		t.Run(name, func(t *testing.T) {
			d, id := newDriver(t, Options{Cut: CutOptions{Billed: billed}, MinDepth: 50}, &fakeLayout{samples: 1000, perChunk: 10, size: 100}, fakeOrder{1000, 7}, 10, false)
			d.result = func(_ *Fetch, r *Result) { r.Source = Resident }
			var epoch, place int64
			d.pump()
			d.consume(id, d.p.stream(id).Order, &epoch, &place, 10, 5, time.Millisecond)
			if err := d.p.EndStream(d.now, id); err != nil {
				t.Fatal(err)
			}
			m := d.p.Totals()
			if m.MovedBytes() != 0 || m.WastedBytes() != 0 || m.Waste() != 0 || m.Accuracy() != 1 || m.UsedBytes != 0 || m.ResidentBytes != 50*100 {
				t.Errorf("metrics %+v", m)
			}
		})
	}
}
