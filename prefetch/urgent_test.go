package prefetch

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// newStreams plans streams of one dataset; each is of a job of its own, with that weight.
func newStreams(t testing.TB, o Options, weights []float64, change func(i int, s *Stream)) (*fakeDriver, []StreamID) {
	t.Helper()
	p := New(o)
	d := &fakeDriver{t: t, p: p, latency: func(*Fetch) time.Duration { return 10 * time.Millisecond }}
	dataset, err := p.AddDataset(0, Dataset{Layout: &fakeLayout{samples: 1 << 20, perChunk: 1, size: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]StreamID, len(weights))
	for i, weight := range weights {
		s := Stream{Job: p.AddJob(0, weight), Dataset: dataset, Order: fakeOrder{1 << 20, 2*int64(i) + 3}, Batch: 8, Source: Origin}
		if change != nil {
			change(i, &s)
		}
		if ids[i], err = p.AddStream(0, s); err != nil {
			t.Fatal(err)
		}
	}
	return d, ids
}

// takeAll lets the consumers of all streams take whatever is ready.
func takeAll(d *fakeDriver) {
	for _, s := range d.p.streams {
		if s.ready > s.taken {
			epoch, place := d.p.Ready(s.id)
			d.p.Consumed(d.now, s.id, epoch, place, time.Millisecond)
		}
	}
}

func TestWeightsDecideWhereFetchesUnderWayAreTheLimit(t *testing.T) {
	weights := []float64{1, 2, 4}
	d, _ := newStreams(t, Options{MinDepth: 64, MaxFlights: 28}, weights, nil)
	d.latency = exponential(10*time.Millisecond, 1)
	begun := map[JobID]float64{}
	d.seen = func(f *Fetch) { begun[f.Job]++ }
	for d.now < Time(20*time.Second) {
		d.until(d.now + Time(time.Millisecond))
		takeAll(d)
	}
	all := begun[1] + begun[2] + begun[3]
	for i, weight := range weights {
		if share := begun[JobID(i+1)] / all; math.Abs(share*7/weight-1) > 0.05 {
			t.Errorf("the job of weight %g of 7 had %.4f of the fetches", weight, share)
		}
	}
}

func TestAJobOfLittleDemandIsNotHeldToItsPart(t *testing.T) {
	d, _ := newStreams(t, Options{MaxFlights: 16}, []float64{1000, 1}, func(i int, s *Stream) {
		if s.Batch = 1; i == 1 {
			s.MinDepth = 512
		}
	})
	d.pump()
	if had := d.p.streams[1].job.flights; had != 14 {
		t.Errorf("it has %d of the 14 fetches that the other job does not want", had)
	}
}

func TestStreamsOfAHigherRankHaveWhatTheOthersLeave(t *testing.T) {
	d, ids := newStreams(t, Options{MinDepth: 64, MaxFlights: 64}, []float64{1, 1e9}, func(i int, s *Stream) { s.Rank = uint8(i) })
	d.seen = func(f *Fetch) {
		if f.Stream != ids[0] && d.p.near > 48 {
			t.Fatalf("it is one of %d fetches under way", d.p.near)
		}
	}
	d.pump()
	if first, second := d.p.streams[0].job.flights, d.p.streams[1].job.flights; first != 64 || second != 0 {
		t.Errorf("%d and %d fetches are under way, want 64 and 0", first, second)
	}
	if err := d.p.EndStream(d.now, ids[0]); err != nil {
		t.Fatal(err)
	}
	d.until(Time(15 * time.Millisecond))
	if n := d.p.streams[0].job.flights; n != 48 {
		t.Errorf("%d fetches are under way for what is left, want 48", n)
	}
}

func TestAHigherRankHasWhatNearFetchesLeaveOfALink(t *testing.T) {
	o := Options{MinDepth: 64, Links: [Sources]LinkOptions{Origin: {Rate: 1e6}}}
	d, _ := newStreams(t, o, []float64{1, 1}, func(i int, s *Stream) { s.Rank = uint8(i) })
	bytes := map[JobID]int64{}
	d.seen = func(f *Fetch) { bytes[f.Job] += f.Bytes }
	d.pump()
	d.until(Time(time.Second))
	for d.now < Time(11*time.Second) { // the first takes 500 samples a second, the other what it gets
		d.until(d.now + Time(16*time.Millisecond))
		first, second := d.p.streams[0], d.p.streams[1]
		if first.ready >= first.taken+8 {
			d.p.Consumed(d.now, first.id, 0, first.takenPlace+8, 0)
		} else {
			t.Fatalf("a stream of rank 0 waits at sample %d", first.taken)
		}
		if second.ready > second.taken {
			d.p.Consumed(d.now, second.id, 0, second.takenPlace+second.ready-second.taken, 0)
		}
	}
	if bytes[2] < 4e6 || bytes[1]+bytes[2] > 11.2e6 {
		t.Errorf("rank 0 had %d bytes, rank 1 %d of the 5 MB that were left", bytes[1], bytes[2])
	}
}

func TestALeastWindowLooksAheadOfWhatIsResident(t *testing.T) {
	order := fakeOrder{10_000, 7}
	d, id := newDriver(t, Options{MaxDepth: 100}, &fakeLayout{samples: 10_000, perChunk: 1, size: 1000}, order, 10, false)
	dataset := d.p.streams[0].Dataset
	second, err := d.p.AddStream(0, Stream{Job: d.p.AddJob(0, 1), Dataset: dataset, Order: order, Batch: 10, Source: Origin, MinDepth: 40})
	if err != nil {
		t.Fatal(err)
	}
	d.result = func(_ *Fetch, r *Result) { r.Source = Resident }
	d.latency = func(*Fetch) time.Duration { return time.Microsecond }
	for range 5000 {
		d.until(d.now + Time(time.Millisecond))
		takeAll(d)
	}
	first, _ := d.p.Metrics(id)
	if least, _ := d.p.Metrics(second); first.Depth != 0 || least.Depth != 40 {
		t.Errorf("windows of %d and %d, want 0 and 40", first.Depth, least.Depth)
	}
	third, err := d.p.AddStream(0, Stream{Job: d.p.AddJob(0, 1), Dataset: dataset, Order: order, Source: Origin, MinDepth: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	if m, _ := d.p.Metrics(third); m.Depth > 100 {
		t.Errorf("a least window of 2^40 is %d deep where 100 is the most", m.Depth)
	}
}

func TestAnErrorSaysOfWhichStream(t *testing.T) {
	layout := &fakeLayout{samples: 1000, perChunk: 1, size: 10, broken: func(int64) bool { return true }}
	d, id := newDriver(t, Options{MinDepth: 32}, layout, fakeOrder{1000, 1}, 10, false)
	var f Fetch
	_, err := d.p.Next(0, &f)
	if of := (*StreamError)(nil); !errors.As(err, &of) || of.Stream != id || !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
}

// TestNobodyIsLeftOutWhoMayBegin has jobs of random weights, ranks and demands on a link
// that may be too narrow.
func TestNobodyIsLeftOutWhoMayBegin(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		weights := rapid.SliceOfN(rapid.SampledFrom([]float64{0.001, 1, 2, 1e6}), 1, 12).Draw(rt, "weights")
		rate := rapid.SampledFrom([]float64{0, 1e5, 1e6, 1e7}).Draw(rt, "rate")
		d, _ := newStreams(t, Options{MinDepth: 32, MaxFlights: rapid.IntRange(1, 40).Draw(rt, "flights"),
			Links: [Sources]LinkOptions{Origin: {Rate: rate}}}, weights,
			func(_ int, s *Stream) { s.Rank = rapid.SampledFrom([]uint8{0, 0, 1, 2}).Draw(rt, "rank") })
		d.seen = func(f *Fetch) { checkRank(rt, d.p, f) }
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			d.until(d.now + Time(rapid.Int64Range(1, 30e6).Draw(rt, "step")))
			for _, s := range d.p.streams {
				if d.p.near < d.p.slots(s.Rank) && d.p.mayBegin(s, d.p.scarcity()) && d.p.links[s.Source].Open(d.now, s.job.id, s.Rank > 0) {
					rt.Fatalf("stream %d could begin a fetch at %d and was not asked to", s.id, d.now)
				}
			}
			if rapid.Bool().Draw(rt, "takes") {
				takeAll(d)
			}
		}
	})
}

// checkRank checks a fetch that was just begun.
func checkRank(rt *rapid.T, p *Planner, f *Fetch) {
	rank := p.stream(f.Stream).Rank
	if p.near > p.slots(rank) {
		rt.Fatalf("a fetch of rank %d is the one of number %d under way", rank, p.near)
	}
	for _, s := range p.streams {
		if s.Rank < rank && p.near <= p.slots(s.Rank) && p.mayBegin(s, p.scarcity()) && p.links[s.Source].Open(p.now, s.job.id, s.Rank > 0) {
			rt.Fatalf("a fetch of rank %d came before one of rank %d", rank, s.Rank)
		}
	}
}

// BenchmarkNextOnAFullLink asks for a fetch where the link has no room for any job.
func BenchmarkNextOnAFullLink(b *testing.B) {
	for _, jobs := range []int{1, 8, 64, 512} {
		b.Run(fmt.Sprintf("jobs=%d", jobs), func(b *testing.B) {
			weights := make([]float64, jobs)
			d, _ := newStreams(b, Options{MinDepth: 64, Links: [Sources]LinkOptions{Origin: {Rate: 1e6}}}, weights, nil)
			for range 3 {
				d.until(d.now + Time(100*time.Millisecond))
				takeAll(d)
			}
			var f Fetch
			for b.Loop() {
				d.now++ // the link is full for a millisecond after each fetch
				if ok, _ := d.p.Next(d.now, &f); ok {
					d.p.Done(d.now, f.ID, Result{Source: Origin, Took: time.Millisecond, Bytes: f.Bytes})
				}
				d.p.Wake(d.now)
			}
		})
	}
}
