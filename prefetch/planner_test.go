package prefetch

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestAStreamIsServedWithoutWaiting(t *testing.T) {
	order := fakeOrder{10_000, 7}
	d, id := newDriver(t, Options{MinDepth: 32}, &fakeLayout{samples: 10_000, perChunk: 1, size: 1000}, order, 16, false)
	d.latency = exponential(20*time.Millisecond, 1)
	d.pump()
	epoch, place := int64(0), int64(0)
	d.consume(id, order, &epoch, &place, 16, 200, time.Millisecond) // until the depth is known
	waited := d.consume(id, order, &epoch, &place, 16, 2000, time.Millisecond)
	if share := waited.Seconds() / 32; share > 0.01 {
		t.Errorf("stalled for %.3f of the time", share)
	}
	m, _ := d.p.Metrics(id)
	if m.Samples != 16*2200 || m.OnTime+m.Late != m.Samples || m.Uncovered != 0 {
		t.Errorf("metrics %+v", m)
	}
	if m.UsedBytes != m.Samples*1000 || m.GapBytes != 0 || m.FetchedBytes < m.UsedBytes {
		t.Errorf("bytes: %+v", m)
	}
}

func TestEverySampleIsFetchedOnceAndExactly(t *testing.T) {
	order := fakeOrder{1000, 7}
	layout := &fakeLayout{samples: 1000, perChunk: 10, size: 100}
	d, id := newDriver(t, Options{MinDepth: 64, Cut: CutOptions{Billed: true}}, layout, order, 8, false)
	fetched := map[int64]int64{}
	d.seen = func(f *Fetch) {
		if f.Whole || f.Bytes%100 != 0 || f.Offset%100 != 0 {
			t.Fatalf("fetch %+v", f)
		}
		for at := f.Offset; at < f.Offset+f.Bytes; at += 100 {
			fetched[f.Chunk.Number*10+at/100]++
		}
	}
	d.p.streams[0].Epochs = 1
	d.pump()
	epoch, place := int64(0), int64(0)
	d.consume(id, order, &epoch, &place, 8, 125, time.Millisecond)
	for sample := range int64(1000) {
		if fetched[sample] != 1 {
			t.Fatalf("sample %d was fetched %d times", sample, fetched[sample])
		}
	}
	if m, _ := d.p.Metrics(id); m.Waste() != 0 || m.Accuracy() != 1 {
		t.Errorf("metrics %+v", m)
	}
	if d.flying.Len() > 0 || len(d.p.flights) > 0 || d.p.near != 0 {
		t.Errorf("%d fetches are under way behind the last epoch", d.flying.Len())
	}
}

func TestASequenceIsFetchedInWholeChunksOnce(t *testing.T) {
	order := fakeOrder{1000, 1}
	layout := &fakeLayout{samples: 1000, perChunk: 10, size: 100_000}
	d, id := newDriver(t, Options{MinDepth: 48}, layout, order, 8, false)
	d.p.streams[0].Epochs = 1
	d.pump()
	epoch, place := int64(0), int64(0)
	d.consume(id, order, &epoch, &place, 8, 125, time.Millisecond)
	m, _ := d.p.Metrics(id)
	if m.FetchedBytes != 1000*100_000 {
		t.Errorf("%d bytes were fetched of %d", m.FetchedBytes, 1000*100_000)
	}
	if len(d.p.whole) != 0 {
		t.Errorf("%d chunks are still held", len(d.p.whole))
	}
}

func TestWhatTheCacheHoldsIsNotFetched(t *testing.T) {
	order := fakeOrder{2000, 7}
	layout := &fakeLayout{samples: 2000, perChunk: 1, size: 1000}
	d, id := newDriver(t, Options{MinDepth: 64, Capacity: 1000 * 1000}, layout, order, 10, true)
	d.pump()
	epoch, place := int64(0), int64(0)
	d.consume(id, order, &epoch, &place, 10, 200, time.Millisecond)
	before, _ := d.p.Metrics(id)
	d.consume(id, order, &epoch, &place, 10, 200, time.Millisecond)
	after, _ := d.p.Metrics(id)
	if share := float64(after.ResidentBytes-before.ResidentBytes) / 2e6; math.Abs(share-0.5) > 0.02 {
		t.Errorf("%.3f of the second epoch came from a cache of half the dataset", share)
	}
}

func TestTwoStreamsShareAFetchOfAWholeChunk(t *testing.T) {
	layout := &fakeLayout{samples: 100, perChunk: 10, size: 100_000}
	order := fakeOrder{100, 1}
	d, first := newDriver(t, Options{MinDepth: 16}, layout, order, 10, false)
	s := d.p.streams[0].Stream
	s.Epochs = 1
	second, err := d.p.AddStream(0, s)
	if err != nil {
		t.Fatal(err)
	}
	d.p.streams[0].Epochs = 1
	d.pump()
	e1, p1, e2, p2 := int64(0), int64(0), int64(0), int64(0)
	for range 10 {
		d.consume(first, order, &e1, &p1, 10, 1, time.Millisecond)
		d.consume(second, order, &e2, &p2, 10, 1, time.Millisecond)
	}
	if m := d.p.Totals(); m.FetchedBytes != 100*100_000 {
		t.Errorf("%d bytes were fetched for two streams side by side, want each once: %d", m.FetchedBytes, 100*100_000)
	}
}

// TestAChunkOutlivesTheStreamThatAskedForItFirst ends the stream whose candidate or fetch
// another stream waits for.
func TestAChunkOutlivesTheStreamThatAskedForItFirst(t *testing.T) {
	for _, begun := range []bool{false, true} {
		layout := &fakeLayout{samples: 100, perChunk: 50, size: 100_000}
		order := fakeOrder{100, 1}
		o := Options{MinDepth: 16}
		if !begun {
			o.MaxFlights = 1
		}
		d, first := newDriver(t, o, layout, order, 10, false)
		s := d.p.streams[0].Stream
		d.pump()
		s.Place = 20
		second, err := d.p.AddStream(0, s)
		if err != nil {
			t.Fatal(err)
		}
		d.pump()
		if err := d.p.EndStream(d.now, first); err != nil {
			t.Fatal(err)
		}
		epoch, place := int64(0), int64(20)
		d.consume(second, order, &epoch, &place, 10, 8, time.Millisecond)
	}
}

func TestALateFetchIsHedgedAndTheQuickerCounts(t *testing.T) {
	order := fakeOrder{100_000, 7}
	d, id := newDriver(t, Options{MinDepth: 64, HedgeShare: 0.02}, &fakeLayout{samples: 100_000, perChunk: 1, size: 1000}, order, 10, false)
	n := 0
	d.latency = func(f *Fetch) time.Duration {
		if n++; !f.Hedge && n%100 == 0 {
			return time.Second
		}
		return 20 * time.Millisecond
	}
	d.pump()
	epoch, place := int64(0), int64(0)
	d.consume(id, order, &epoch, &place, 10, 1000, time.Millisecond)
	m, _ := d.p.Metrics(id)
	if m.Hedges == 0 || m.HedgesWon < m.Hedges*8/10 || float64(m.Hedges) > 0.025*float64(m.Fetches) {
		t.Errorf("%d hedges, %d of them won, of %d fetches", m.Hedges, m.HedgesWon, m.Fetches)
	}
	d.until(d.now.Add(2 * time.Second))
	if m, _ = d.p.Metrics(id); m.HedgedBytes != m.Hedges*1000 {
		t.Errorf("%d bytes of %d hedges", m.HedgedBytes, m.Hedges)
	}
}

// Whichever of two attempts fails, samples go on to wait for the other: for whole chunks
// and for ranges. Every 50th first attempt is slow, and every second of these fails where
// first attempts are to.
func TestOfTwoAttemptsEitherMayFail(t *testing.T) {
	for _, perChunk := range []int64{1, 1000} {
		for _, hedgesFail := range []bool{true, false} {
			order := fakeOrder{100_000, 1007}
			d, id := newDriver(t, Options{MinDepth: 64, MaxDepth: 64, HedgeShare: 0.05, Cut: CutOptions{Billed: true}},
				&fakeLayout{samples: 100_000, perChunk: perChunk, size: 1000}, order, 10, false)
			begun, slow, failed := 0, map[FetchID]bool{}, 0
			d.latency = func(f *Fetch) time.Duration {
				if begun++; f.Hedge && !hedgesFail {
					return time.Second // the first attempt ends before
				}
				if !f.Hedge && begun%50 == 0 {
					slow[f.ID] = len(slow)%2 == 0
					return 500 * time.Millisecond
				}
				return 20 * time.Millisecond
			}
			d.result = func(f *Fetch, r *Result) {
				if f.Hedge && hedgesFail || slow[f.ID] && !hedgesFail {
					failed++
					r.Err = errBroken
				}
			}
			d.pump()
			epoch, place := int64(0), int64(0)
			d.consume(id, order, &epoch, &place, 10, 1000, time.Millisecond)
			if m, _ := d.p.Metrics(id); m.Hedges < 50 || failed < 50 || m.Late == 0 {
				t.Errorf("%d hedges, %d attempts failed, %d samples were late", m.Hedges, failed, m.Late)
			}
		}
	}
}

func TestAFailedFetchBlocksNobody(t *testing.T) {
	order := fakeOrder{1000, 7}
	d, id := newDriver(t, Options{MinDepth: 64, HedgeShare: 0.05}, &fakeLayout{samples: 1000, perChunk: 2, size: 100_000}, order, 10, true)
	n := 0
	d.result = func(_ *Fetch, r *Result) {
		if n++; n%3 == 0 {
			*r = Result{Source: Origin, Took: time.Millisecond, Err: errBroken}
		}
	}
	d.pump()
	epoch, place := int64(0), int64(0)
	d.consume(id, order, &epoch, &place, 10, 300, time.Millisecond)
	if m, _ := d.p.Metrics(id); m.Failed == 0 {
		t.Error("no fetch failed")
	}
}

func TestAnIndexThatCannotBeReadIsSaidOnce(t *testing.T) {
	layout := &fakeLayout{samples: 1000, perChunk: 1, size: 10, broken: func(sample int64) bool { return sample >= 100 }}
	d, id := newDriver(t, Options{MinDepth: 32}, layout, fakeOrder{1000, 1}, 10, false)
	var f Fetch
	if ok, err := d.p.Next(0, &f); !ok || err != nil {
		t.Fatal(ok, err)
	}
	said := 0
	for place := int64(10); place <= 300; place += 10 {
		d.p.Consumed(d.now, id, 0, place, 0)
		for {
			ok, err := d.p.Next(d.now, &f)
			if errors.Is(err, errBroken) && strings.Contains(err.Error(), "epoch 0") {
				said++
			} else if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
		}
	}
	if said != 1 {
		t.Errorf("said %d times", said)
	}
}

func TestAResidentStreamPlansNothingUntilItMisses(t *testing.T) {
	order := fakeOrder{100_000, 7}
	d, id := newDriver(t, Options{}, &fakeLayout{samples: 100_000, perChunk: 1, size: 1000}, order, 10, false)
	d.latency = func(*Fetch) time.Duration { return 2 * time.Microsecond }
	d.result = func(_ *Fetch, r *Result) { r.Source = Resident }
	d.pump()
	epoch, place := int64(0), int64(0)
	for m, _ := d.p.Metrics(id); m.Depth > 0 && place < 60_000; m, _ = d.p.Metrics(id) {
		d.consume(id, order, &epoch, &place, 10, 1, time.Millisecond)
	}
	before := d.pumped
	for range 100 {
		place += 10
		d.p.Consumed(d.now, id, epoch, place, 0)
		d.until(d.now.Add(10 * time.Millisecond))
	}
	if d.pumped != before {
		t.Errorf("%d fetches of what is resident", d.pumped-before)
	}
	d.result = nil
	d.latency = func(*Fetch) time.Duration { return 3 * time.Millisecond }
	d.p.Missed(d.now, id, 10, 10, 3*time.Millisecond)
	place += 10
	d.p.Consumed(d.now, id, epoch, place, 3*time.Millisecond)
	d.pump()
	if d.pumped == before {
		t.Error("nothing is fetched ahead of a stream that misses")
	}
}

// TestNoCallOrderBreaksThePlanner makes random calls, sensible and not.
func TestNoCallOrderBreaksThePlanner(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := New(Options{
			MinDepth: rapid.Int64Range(-1, 64).Draw(rt, "min"), MaxDepth: rapid.Int64Range(-1, 300).Draw(rt, "max"),
			HedgeShare: rapid.SampledFrom([]float64{0, 0.1, math.NaN(), -1}).Draw(rt, "hedges"), Far: rapid.Bool().Draw(rt, "far"),
			Capacity: rapid.Int64Range(-1, 50_000).Draw(rt, "capacity"), WindowBytes: rapid.Int64Range(0, 20_000).Draw(rt, "memory"),
			ShareRanges: rapid.Bool().Draw(rt, "share"), Cut: CutOptions{Billed: rapid.Bool().Draw(rt, "billed")},
			MaxFlights: rapid.SampledFrom([]int{0, 1, 3, 8}).Draw(rt, "flights"),
			Links:      [Sources]LinkOptions{Origin: {Rate: rapid.SampledFrom([]float64{0, 1e5, math.Inf(1), math.NaN()}).Draw(rt, "rate")}},
		})
		now, flying := Time(0), []Fetch{}
		var datasets []DatasetID
		var streams []StreamID
		var jobs []JobID
		for range 2 {
			jobs = append(jobs, p.AddJob(0, rapid.SampledFrom([]float64{0, 1, 1e-9, math.NaN(), math.Inf(1)}).Draw(rt, "weight")))
		}
		layout := &fakeLayout{samples: 100, perChunk: rapid.Int64Range(1, 20).Draw(rt, "per chunk"), size: 100}
		for range rapid.IntRange(1, 2).Draw(rt, "datasets") {
			id, err := p.AddDataset(0, Dataset{Layout: layout, Keep: rapid.Bool().Draw(rt, "keep"), Weight: math.NaN()})
			if err != nil {
				rt.Fatal(err)
			}
			datasets = append(datasets, id)
		}
		pick := func(ids []StreamID) StreamID {
			if len(ids) == 0 {
				return 99
			}
			return rapid.SampledFrom(ids).Draw(rt, "stream")
		}
		rt.Repeat(map[string]func(*rapid.T){
			"stream": func(rt *rapid.T) {
				id, err := p.AddStream(now, Stream{Job: rapid.SampledFrom(jobs).Draw(rt, "job"), Dataset: rapid.SampledFrom(datasets).Draw(rt, "dataset"), Source: Origin,
					Order: fakeOrder{100, rapid.SampledFrom([]int64{1, 7}).Draw(rt, "step")}, Batch: rapid.Int64Range(0, 30).Draw(rt, "batch"),
					Place: rapid.Int64Range(0, 100).Draw(rt, "place"), Epochs: rapid.Int64Range(0, 3).Draw(rt, "epochs"),
					MinDepth: rapid.Int64Range(-1, 40).Draw(rt, "least"), Rank: rapid.SampledFrom([]uint8{0, 0, 1, 255}).Draw(rt, "rank")})
				if err != nil {
					rt.Fatal(err)
				}
				streams = append(streams, id)
			},
			"end": func(rt *rapid.T) {
				id := pick(streams)
				_ = p.EndStream(now, id)
			},
			"seek": func(rt *rapid.T) {
				_ = p.Seek(now, pick(streams), rapid.Int64Range(-1, 3).Draw(rt, "epoch"), rapid.Int64Range(-1, 101).Draw(rt, "place"))
			},
			"consume": func(rt *rapid.T) {
				id := pick(streams)
				if s := p.stream(id); s != nil {
					p.Consumed(now, id, s.takenEpoch+rapid.Int64Range(-1, 1).Draw(rt, "epoch"), s.takenPlace+rapid.Int64Range(-5, 40).Draw(rt, "place"),
						time.Duration(rapid.Int64().Draw(rt, "waited")))
				}
			},
			"next": func(rt *rapid.T) {
				var f Fetch
				for range 20 {
					ok, err := p.Next(now, &f)
					if err != nil {
						rt.Fatal(err)
					}
					if !ok {
						break
					}
					if f.Bytes < 0 || f.Offset < 0 || f.Offset+f.Bytes > layout.ChunkBytes(f.Chunk.Number) {
						rt.Fatalf("fetch of nothing that there is: %+v", f)
					}
					flying = append(flying, f)
				}
			},
			"done": func(rt *rapid.T) {
				if len(flying) == 0 {
					return
				}
				i := rapid.IntRange(0, len(flying)-1).Draw(rt, "which")
				f := flying[i]
				flying = append(flying[:i], flying[i+1:]...)
				r := Result{Source: Source(rapid.IntRange(0, 9).Draw(rt, "source")), Took: time.Duration(rapid.Int64().Draw(rt, "took")), Bytes: f.Bytes, Kept: f.Keep}
				if rapid.IntRange(0, 4).Draw(rt, "fails") == 0 {
					r = Result{Err: errBroken}
				}
				p.Done(now, f.ID, r)
				p.Done(now, f.ID, r)
			},
			"missed": func(rt *rapid.T) {
				p.Missed(now, pick(streams), rapid.Int64Range(-1, 9).Draw(rt, "samples"), rapid.Int64Range(-1, 20).Draw(rt, "missing"), time.Duration(rapid.Int64().Draw(rt, "slowest")))
			},
			"time": func(rt *rapid.T) { now += Time(rapid.Int64Range(-1e9, 1e10).Draw(rt, "jump")) },
			"evicted": func(rt *rapid.T) {
				p.Evicted(now, Chunk{rapid.SampledFrom(datasets).Draw(rt, "dataset"), rapid.Int64Range(0, layout.Chunks()-1).Draw(rt, "chunk")})
			},
			"access": func(rt *rapid.T) {
				c := Chunk{rapid.SampledFrom(datasets).Draw(rt, "dataset"), rapid.Int64Range(0, layout.Chunks()-1).Draw(rt, "chunk")}
				p.Access(now, c, layout.ChunkBytes(c.Number))
			},
			"cache": func(rt *rapid.T) {
				p.SetCapacity(rapid.Int64Range(-1, 50_000).Draw(rt, "capacity"))
				for range 10 {
					if _, ok := p.Drop(now); !ok {
						break
					}
				}
			},
			"": func(rt *rapid.T) {
				checkPlanner(rt, p, now, flying)
				checkMemory(rt, p)
				checkCached(rt, p, layout)
			},
		})
		now = drain(p, max(now, p.now), flying)
		for _, s := range p.streams {
			if s.Rank > 0 && p.options.Links[Origin].Rate == 1e5 {
				continue // the demands of the others may leave it nothing
			}
			for i := range min(s.Batch, int64(s.items.len())) {
				if it := s.items.at(int(i)); it.pending > 0 {
					rt.Fatalf("sample %d of the next batch of stream %d never comes", i, s.id)
				}
			}
		}
		for _, id := range streams {
			_ = p.EndStream(now, id)
		}
		if len(p.cached) > 0 || p.pinnedBytes != 0 || p.keeper.pins.used > 0 {
			rt.Fatalf("%d chunks of the cache, and %d pinned bytes, are left behind all streams", len(p.cached), p.pinnedBytes)
		}
		if len(p.flights) > 0 || p.near != 0 || len(p.whole) > 0 {
			rt.Fatalf("%d fetches, %d of them near, and %d chunks are left behind all streams", len(p.flights), p.near, len(p.whole))
		}
		free := 0
		for at := p.scratch.free; at != 0; at = p.scratch.waiters[at-1].next {
			free++
		}
		if free != len(p.scratch.waiters) {
			rt.Fatalf("%d of %d waiters are lost", len(p.scratch.waiters)-free, len(p.scratch.waiters))
		}
	})
}

// drain lets all fetches end that are under way or that the planner wants.
func drain(p *Planner, now Time, flying []Fetch) Time {
	for idle := 0; idle < 3; now += Time(10 * time.Second) {
		idle++
		for _, f := range flying {
			p.Done(now, f.ID, Result{Source: Origin, Bytes: f.Bytes})
			idle = 0
		}
		flying = flying[:0]
		var f Fetch
		for {
			if ok, _ := p.Next(now, &f); !ok {
				break
			}
			flying = append(flying, f)
		}
	}
	return now
}

// checkPlanner holds what must be true between any two calls.
func checkPlanner(rt *rapid.T, p *Planner, now Time, flying []Fetch) {
	if len(p.flights) != len(flying) {
		rt.Fatalf("the planner has %d fetches under way, its driver %d", len(p.flights), len(flying))
	}
	for _, s := range p.streams {
		if int64(s.items.len()) != s.staged-s.taken || s.ready < s.taken || s.ready > s.staged || s.held < 0 {
			rt.Fatalf("stream %d: %d items, taken %d, ready %d, staged %d, held %d", s.id, s.items.len(), s.taken, s.ready, s.staged, s.held)
		}
		for i := range s.items.len() {
			if it := s.items.at(i); it.pending < 0 {
				rt.Fatalf("sample %d waits for %d fetches", s.taken+int64(i), it.pending)
			}
		}
	}
	if n := p.Wake(now); n < now {
		rt.Fatalf("wake at %d, now %d", n, now)
	}
}

func TestPlanningAllocatesNothingInSteadyState(t *testing.T) {
	order := fakeOrder{1 << 20, 7}
	d, id := newDriver(t, Options{MinDepth: 256, HedgeShare: 0.01}, &fakeLayout{samples: 1 << 20, perChunk: 4, size: 1000}, order, 64, false)
	epoch, place := int64(0), int64(0)
	var f Fetch
	var pending []FetchID
	step := func() {
		for {
			if ok, _ := d.p.Next(d.now, &f); !ok {
				break
			}
			pending = append(pending, f.ID)
		}
		d.now = d.now.Add(64 * time.Millisecond)
		for _, id := range pending {
			d.p.Done(d.now, id, Result{Source: Origin, Took: 5 * time.Millisecond, Bytes: 1000})
		}
		pending = pending[:0]
		place += 64
		d.p.Consumed(d.now, id, epoch, place, 0)
	}
	for range 2000 {
		step()
	}
	if n := testing.AllocsPerRun(500, step); n > 0 {
		t.Errorf("%v allocations a batch", n)
	}
}

func BenchmarkPlan(b *testing.B) {
	const samples = 1 << 24
	order := fakeOrder{samples, 7}
	d, id := newDriver(b, Options{MinDepth: 512}, &fakeLayout{samples: samples, perChunk: 8, size: 100_000}, order, 64, false)
	epoch, place := int64(0), int64(0)
	var f Fetch
	var pending []FetchID
	for n := 0; n < b.N; n += 64 {
		for {
			if ok, _ := d.p.Next(d.now, &f); !ok {
				break
			}
			pending = append(pending, f.ID)
		}
		d.now = d.now.Add(64 * time.Millisecond)
		for _, id := range pending {
			d.p.Done(d.now, id, Result{Source: Origin, Took: 5 * time.Millisecond, Bytes: 100_000})
		}
		pending = pending[:0]
		if place += 64; place+64 > samples {
			epoch, place = epoch+1, 0
		}
		d.p.Consumed(d.now, id, epoch, place, 0)
	}
}

func TestAWindowIsNoDeeperThanItsStreamWantsIt(t *testing.T) {
	for most, want := range map[int64]int64{0: 1000, -1: 1000, 64: 64, 3: 8, 1 << 40: 1000} {
		p := New(Options{MaxDepth: 1000})
		dataset, err := p.AddDataset(0, Dataset{Layout: &fakeLayout{samples: 1 << 20, perChunk: 1, size: 100}})
		if err != nil {
			t.Fatal(err)
		}
		id, err := p.AddStream(0, Stream{Job: p.AddJob(0, 1), Dataset: dataset, Order: fakeOrder{1 << 20, 1}, Batch: 8, Source: Origin, MaxDepth: most})
		if err != nil {
			t.Fatal(err)
		}
		p.Missed(0, id, 8, 8, time.Hour)
		for i := range int64(40) {
			p.Consumed(Time(i)*Time(time.Millisecond), id, 0, 8*(i+1), 0)
			p.Missed(Time(i)*Time(time.Millisecond), id, 8, 8, time.Hour)
		}
		if m, _ := p.Metrics(id); m.Depth != want {
			t.Errorf("of at most %d: %d, want %d", most, m.Depth, want)
		}
	}
}

// TestWhatWasAskedForBeforeItCameIsLate has a driver that tells of a fetch first and then
// of a batch that was taken before the fetch had ended.
func TestWhatWasAskedForBeforeItCameIsLate(t *testing.T) {
	p := New(Options{})
	dataset, err := p.AddDataset(0, Dataset{Layout: &fakeLayout{samples: 64, perChunk: 1, size: 100}})
	if err != nil {
		t.Fatal(err)
	}
	id, err := p.AddStream(0, Stream{Job: p.AddJob(0, 1), Dataset: dataset, Order: fakeOrder{64, 1}, Batch: 1, Source: Origin})
	if err != nil {
		t.Fatal(err)
	}
	var f Fetch
	for range 2 {
		if ok, err := p.Next(0, &f); !ok || err != nil {
			t.Fatal(ok, err)
		}
		p.Done(Time(4+f.ID), f.ID, Result{Source: Origin, Took: time.Nanosecond, Bytes: f.Bytes})
	}
	p.Consumed(3, id, 0, 1, 1)
	if m, _ := p.Metrics(id); m.OnTime != 0 || m.Late != 1 {
		t.Errorf("%+v", m)
	}
}
