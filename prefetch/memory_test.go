package prefetch

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// newWindows plans streams of samples that are a chunk each, in a memory of so many of them.
func newWindows(t testing.TB, chunks int64, streams int, batch int64) *fakeDriver {
	t.Helper()
	d, _ := newStreams(t, Options{WindowBytes: chunks * 1000, MinDepth: 64}, make([]float64, streams), func(i int, s *Stream) {
		s.Batch, s.Epoch = batch, int64(i) // so that they share no chunk
	})
	return d
}

func TestMemoryThatIsScarceIsDividedEvenly(t *testing.T) {
	d := newWindows(t, 12, 4, 1)
	d.latency = exponential(10*time.Millisecond, 1)
	d.pump()
	for range 3000 {
		d.until(d.now + Time(10*time.Millisecond))
		held := int64(0)
		for _, s := range d.p.streams {
			held += s.held
		}
		if held > 12_000 {
			t.Fatalf("all streams together hold %d bytes", held)
		}
		takeAll(d)
		d.pump()
	}
	for _, s := range d.p.streams {
		if share := float64(s.metrics.Samples) / float64(d.p.Totals().Samples); share < 0.24 || share > 0.26 {
			t.Errorf("stream %d had %.3f of the samples", s.id, share)
		}
	}
}

func TestOneThatLacksAFetchAheadComesBeforeOthersSecond(t *testing.T) {
	d := newWindows(t, 10, 4, 1)
	d.pump()
	for _, s := range d.p.streams {
		if s.held < 2000 {
			t.Errorf("a stream has %d bytes where all together may have 10,000", s.held)
		}
	}
}

func TestWhatAResidentStreamDoesNotUseOthersHave(t *testing.T) {
	d := newWindows(t, 64, 4, 4)
	for _, s := range d.p.streams[1:] {
		s.missing, s.MinDepth = 0, 0
		s.depth = NewDepth(DepthOptions{Batch: 4})
		d.p.Consumed(d.now, s.id, s.Epoch, 4, 0)
	}
	d.pump()
	if first := d.p.streams[0]; first.held != 52_000 { // all but a batch for each of the others, which fetch nothing ahead
		t.Errorf("the first stream has %d bytes of 64,000", first.held)
	}
	second := d.p.streams[1]
	d.p.Missed(d.now, second.id, 1, 1, 10*time.Millisecond)
	for range 30 {
		d.until(d.now + Time(20*time.Millisecond))
		takeAll(d)
		d.pump()
	}
	if second.held < 4000 || second.metrics.ExcessBytes > 0 {
		t.Errorf("a stream that misses holds %d bytes, %d too many at times", second.held, second.metrics.ExcessBytes)
	}
}

func TestABatchLargerThanItsPartGoesAheadAndIsCounted(t *testing.T) {
	d := newWindows(t, 8, 4, 4)
	d.pump()
	excess := int64(0)
	for _, s := range d.p.streams {
		if s.held != 4000 {
			t.Errorf("a stream has %d bytes of its batch of 4000", s.held)
		}
		excess += s.metrics.ExcessBytes
	}
	if excess < 8000 || d.p.Totals().ExcessBytes != excess {
		t.Errorf("%d bytes are counted that exceed the memory, want 8000 or more", excess)
	}
}

// Two samples that come by one range hold all of it until the later one is taken.
func TestARangeIsHeldUntilItsLastSampleIsTaken(t *testing.T) {
	const samples, step = 2000, 667 // samples 0, 667, 1334 and 1 come first
	p := New(Options{MinDepth: 4, MaxDepth: 4, Cut: CutOptions{Overhead: time.Millisecond, Bandwidth: 1e6, Billed: true}})
	d := &fakeDriver{t: t, p: p, latency: func(*Fetch) time.Duration { return time.Millisecond }}
	joined := 0
	d.seen = func(f *Fetch) {
		if f.Chunk.Number == 0 && f.Offset == 0 && f.Bytes == 200 {
			joined++
		}
	}
	dataset, err := p.AddDataset(0, Dataset{Layout: &fakeLayout{samples: samples, perChunk: 1000, size: 100}})
	if err != nil {
		t.Fatal(err)
	}
	id, err := p.AddStream(0, Stream{Job: p.AddJob(0, 1), Dataset: dataset, Order: fakeOrder{samples, step}, Batch: 1, Epochs: 1, Source: Origin})
	if err != nil {
		t.Fatal(err)
	}
	d.pump()
	if d.until(Time(time.Second)); joined != 1 || p.held != 400 {
		t.Fatalf("%d fetches have samples 0 and 1, want 1; %d bytes are held, want 400", joined, p.held)
	}
	for place, held := range []int64{400, 300, 200, 0} { // no more is fetched: nobody pumps
		p.Consumed(d.now, id, 0, int64(place)+1, 0)
		if p.held != held {
			t.Errorf("after %d samples %d bytes are held, want %d", place+1, p.held, held)
		}
	}
}

// A fetch that begins when some of its samples were taken without it is for the others.
func TestAFetchIsForTheSamplesThatStillWantIt(t *testing.T) {
	p := New(Options{MinDepth: 5, MaxDepth: 5, MaxFlights: 1, Cut: CutOptions{Overhead: time.Millisecond, Bandwidth: 1e6, Billed: true}})
	d := &fakeDriver{t: t, p: p, latency: func(*Fetch) time.Duration { return time.Millisecond }}
	samples := map[int64]int32{} // by the range's first
	d.seen = func(f *Fetch) { samples[f.Chunk.Number*1000+f.Offset/100] = f.Samples }
	dataset, err := p.AddDataset(0, Dataset{Layout: &fakeLayout{samples: 2000, perChunk: 1000, size: 100}})
	if err != nil {
		t.Fatal(err)
	}
	// 0, 667, 1334, 1 and 668 come first.
	id, err := p.AddStream(0, Stream{Job: p.AddJob(0, 1), Dataset: dataset, Order: fakeOrder{2000, 667}, Batch: 1, Epochs: 1, Source: Origin})
	if err != nil {
		t.Fatal(err)
	}
	d.pump()
	p.Consumed(d.now, id, 0, 2, 0) // 667 was read by who wanted it
	d.until(Time(10 * time.Millisecond))
	if samples[0] != 2 || samples[667] != 1 {
		t.Errorf("a fetch for 0 and 1 is for %d samples, one for 668 for %d", samples[0], samples[667])
	}
}

// TestWindowsKeepToTheirMemory has streams of random orders come, take, seek and go.
func TestWindowsKeepToTheirMemory(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		window := rapid.Int64Range(1000, 100_000).Draw(rt, "memory")
		p := New(Options{
			WindowBytes: window, MinDepth: rapid.Int64Range(0, 64).Draw(rt, "depth"), HedgeShare: rapid.SampledFrom([]float64{0, 0.3}).Draw(rt, "hedges"),
		})
		d := &fakeDriver{t: t, p: p, latency: exponential(10*time.Millisecond, rapid.Uint64().Draw(rt, "seed"))}
		layout := &fakeLayout{samples: 3000, perChunk: rapid.Int64Range(1, 20).Draw(rt, "per chunk"), size: 100}
		dataset, err := p.AddDataset(0, Dataset{Layout: layout})
		if err != nil {
			rt.Fatal(err)
		}
		excess := int64(0)
		d.seen = func(f *Fetch) {
			held, allowed := int64(0), p.Totals().ExcessBytes
			for _, s := range p.streams {
				held += s.held
			}
			if held > window && allowed == excess {
				rt.Fatalf("windows hold %d bytes of %d behind a fetch of %d that is not counted", held, window, f.Bytes)
			}
			excess = allowed
		}
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			switch rapid.IntRange(0, 9).Draw(rt, "what") {
			case 0:
				_, err = p.AddStream(d.now, Stream{Job: p.AddJob(d.now, 1), Dataset: dataset, Source: Origin, Batch: rapid.Int64Range(1, 8).Draw(rt, "batch"),
					Order: fakeOrder{3000, rapid.SampledFrom([]int64{1, 7, 11}).Draw(rt, "order")}, Rank: rapid.SampledFrom([]uint8{0, 0, 1}).Draw(rt, "rank")})
			case 1:
				if n := len(p.streams); n > 0 {
					err = p.EndStream(d.now, p.streams[rapid.IntRange(0, n-1).Draw(rt, "stream")].id)
				}
			case 2:
				if n := len(p.streams); n > 0 {
					err = p.Seek(d.now, p.streams[rapid.IntRange(0, n-1).Draw(rt, "stream")].id, 0, rapid.Int64Range(0, 2999).Draw(rt, "place"))
				}
			case 3, 4, 5:
				takeAll(d)
			default:
				d.until(d.now + Time(rapid.Int64Range(1, 20e6).Draw(rt, "step")))
			}
			if err != nil {
				rt.Fatal(err)
			}
			d.pump()
			checkMemory(rt, p)
		}
	})
}

// checkMemory adds up what the planner keeps sums of.
func checkMemory(rt *rapid.T, p *Planner) {
	held, usual, pledged, promised := int64(0), int64(0), int64(0), int64(0)
	for _, s := range p.streams {
		held += s.held
		usual += s.usual
		pledged += max(s.held, s.promised)
		promised += s.promised
		if s.held < 0 || s.promised < 0 || s.promised > p.part() {
			rt.Fatalf("stream %d holds %d bytes, is promised %d, and has a part of %d", s.id, s.held, s.promised, p.part())
		}
	}
	if held != p.held || usual != p.usual || pledged != p.pledged || promised != p.promised {
		rt.Fatalf("%d bytes are held, %d usually, %d pledged and %d promised, by sums %d, %d, %d and %d", held, usual, pledged, promised, p.held, p.usual, p.pledged, p.promised)
	}
	for _, h := range p.whole {
		if c := h.claim; c.stream != 0 && (p.claimant(&c) == nil || h.until(c.stream) < 0) {
			rt.Fatalf("chunk %d counts for stream %d, which does not use it", h.chunk.Number, c.stream)
		}
	}
	for _, s := range p.streams {
		if held := heldBy(p, s); s.held != held {
			rt.Fatalf("stream %d holds %d bytes, by its samples, chunks and fetches %d", s.id, s.held, held)
		}
	}
}

// heldBy adds up what a stream holds: samples that are there, whole chunks, and what is
// under way for samples.
func heldBy(p *Planner, s *stream) (bytes int64) {
	for i := range s.items.len() {
		bytes += s.items.at(i).held
	}
	holds := map[*hold]bool{}
	for _, h := range p.whole {
		holds[h] = true
	}
	for i := range s.holds.len() {
		holds[s.holds.at(i).hold] = true
	}
	for h := range holds {
		if p.claimant(&h.claim) == s {
			bytes += h.claim.bytes
		}
	}
	for _, f := range p.flights {
		if p.claimant(&f.claim) == s {
			bytes += f.claim.bytes
		}
	}
	return bytes
}

// What a reader could not wait for is held until it is there: whole chunks of a sample
// each, and ranges of larger ones.
func TestWhatIsUnderWayIsHeldThoughItsSampleWasTaken(t *testing.T) {
	for _, perChunk := range []int64{1, 1000} {
		p := New(Options{MinDepth: 4, MaxDepth: 4, Cut: CutOptions{Overhead: time.Millisecond, Bandwidth: 1e6, Billed: true}})
		d := &fakeDriver{t: t, p: p, latency: func(f *Fetch) time.Duration { return time.Duration(f.ID) * time.Millisecond }}
		d.seen = func(f *Fetch) {
			if whole := perChunk == 1; f.Whole != whole || f.Bytes != 100 {
				t.Errorf("fetch %d of %d bytes, of a whole chunk: %v", f.ID, f.Bytes, f.Whole)
			}
		}
		dataset, err := p.AddDataset(0, Dataset{Layout: &fakeLayout{samples: 4000, perChunk: perChunk, size: 100}})
		if err != nil {
			t.Fatal(err)
		}
		id, err := p.AddStream(0, Stream{Job: p.AddJob(0, 1), Dataset: dataset, Order: fakeOrder{4000, 1001}, Batch: 4, Source: Origin})
		if err != nil {
			t.Fatal(err)
		}
		d.pump()
		d.until(Time(time.Millisecond)) // the first of four is there
		p.Consumed(d.now, id, 0, 4, 0)
		held := int64(300)
		for i := range d.flying { // nothing more is begun
			if p.held != held {
				t.Errorf("%d bytes are held, want the %d that are under way", p.held, held)
			}
			p.Done(d.now, d.flying[i].fetch.ID, Result{Source: Origin, Bytes: 100})
			held -= 100
		}
		if p.held != 0 || held != 0 {
			t.Errorf("%d bytes are held after %d of 3 fetches ended", p.held, 3-held/100)
		}
	}
}
