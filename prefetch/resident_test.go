package prefetch

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// checkCached checks that what windows count on is in the cache.
func checkCached(rt *rapid.T, p *Planner, layout *fakeLayout) {
	pinned := int64(0)
	for c, h := range p.cached {
		if !p.keeper.Has(c) || len(h.uses) == 0 || h.pinned != p.keeper.Pinned(c) {
			rt.Fatalf("chunk %d: stored %v, %d uses, pinned %v", c.Number, p.keeper.Has(c), len(h.uses), h.pinned)
		}
		if h.pinned {
			pinned += h.bytes
		}
	}
	if pinned != p.pinnedBytes {
		rt.Fatalf("%d bytes are pinned, by sum %d", pinned, p.pinnedBytes)
	}
	for _, s := range p.streams {
		epoch, place := s.takenEpoch, s.takenPlace
		for i := range s.items.len() {
			if place == s.Order.Len(epoch) {
				epoch, place = epoch+1, 0
			}
			it, c := s.items.at(i), Chunk{s.dataset.id, s.Order.At(epoch, place, 1, nil)[0] / layout.perChunk}
			if it.there+it.kept > 0 && (!p.keeper.Has(c) || p.cached[c] == nil) {
				rt.Fatalf("sample %d of epoch %d counts on chunk %d, which the cache has not", place, epoch, c.Number)
			}
			place++
		}
	}
}

// newCached plans one stream of 100 samples, each a chunk, all of which SIEVE holds.
func newCached(t *testing.T, window int64) (*fakeDriver, *stream) {
	t.Helper()
	d, id := newDriver(t, Options{Capacity: 100_000, WindowBytes: window, MinDepth: 20},
		&fakeLayout{samples: 100, perChunk: 1, size: 1000}, fakeOrder{100, 1}, 4, false)
	s := d.p.stream(id)
	for number := range int64(100) {
		if !d.p.Access(0, Chunk{s.dataset.id, number}, 1000) {
			t.Fatalf("chunk %d is not kept", number)
		}
	}
	d.pump()
	if s.ready != s.staged || s.staged < 20 {
		t.Fatalf("%d samples are ready and %d staged", s.ready, s.staged)
	}
	return d, s
}

func TestWhatAWindowCountsOnIsNoVictim(t *testing.T) {
	d, s := newCached(t, 1<<20)
	d.p.SetCapacity(50_000) // of which windows may pin half
	for c, ok := d.p.Drop(0); ok; c, ok = d.p.Drop(0) {
		if c.Number < 20 {
			t.Errorf("chunk %d, which the window needs, is dropped", c.Number)
		}
	}
	if s.ready != s.staged || d.pumped > 0 {
		t.Errorf("%d of %d samples are ready", s.ready, s.staged)
	}
	d.p.Consumed(0, s.id, 0, 4, 0)
	d.p.SetCapacity(0)
	dropped := map[int64]bool{}
	for c, ok := d.p.Drop(0); ok; c, ok = d.p.Drop(0) {
		dropped[c.Number] = true
	}
	for number := range int64(20) {
		if dropped[number] != (number < 4) {
			t.Errorf("chunk %d dropped: %v; 4 samples were taken", number, dropped[number])
		}
	}
}

func TestWindowsPinNoMoreThanTheyMayHold(t *testing.T) {
	d, s := newCached(t, 20_000)
	d.p.SetCapacity(0)
	if d.p.pinnedBytes > 20_000 {
		t.Errorf("%d bytes are pinned", d.p.pinnedBytes)
	}
	if _, err := d.p.AddStream(0, Stream{Job: s.Job, Dataset: s.Dataset, Order: fakeOrder{100, 7}, Batch: 20, Source: Origin}); err != nil {
		t.Fatal(err)
	}
	d.pump()
	if d.p.pinnedBytes > 20_000 {
		t.Errorf("%d bytes are pinned for two", d.p.pinnedBytes)
	}
}

func TestWhatTheCacheLosesIsFetchedAgain(t *testing.T) {
	d, s := newCached(t, 1<<20)
	d.p.Evicted(0, Chunk{s.dataset.id, 7})
	if s.ready != 7 {
		t.Errorf("%d samples are ready before the one that was lost, want 7", s.ready)
	}
	d.seen = func(f *Fetch) {
		if f.Chunk.Number != 7 || f.Bytes != 1000 {
			t.Errorf("fetch %+v", f)
		}
	}
	d.pump()
	if d.pumped != 1 {
		t.Fatalf("%d fetches for one chunk", d.pumped)
	}
	d.until(Time(20 * time.Millisecond))
	if s.ready != s.staged {
		t.Errorf("%d of %d samples are ready", s.ready, s.staged)
	}
}
