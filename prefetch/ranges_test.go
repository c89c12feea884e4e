package prefetch

import (
	"fmt"
	"testing"
	"time"
)

// newPair plans two streams of one order that want ranges, of two jobs, and returns what
// is fetched.
func newPair(t *testing.T, o Options) (d *fakeDriver, fetched map[int64]int) {
	t.Helper()
	o.MinDepth, o.MaxDepth, o.ShareRanges, o.Cut = 32, 32, true, CutOptions{Billed: true}
	p := New(o)
	fetched = map[int64]int{}
	d = &fakeDriver{t: t, p: p, latency: func(*Fetch) time.Duration { return 10 * time.Millisecond }}
	d.seen = func(f *Fetch) {
		if !f.Hedge {
			fetched[f.Chunk.Number*10+f.Offset/100]++
		}
	}
	dataset, err := p.AddDataset(0, Dataset{Layout: &fakeLayout{samples: 1000, perChunk: 10, size: 100}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := p.AddStream(0, Stream{Job: p.AddJob(0, 1), Dataset: dataset, Order: fakeOrder{1000, 7}, Batch: 8, Epochs: 1, Source: Origin}); err != nil {
			t.Fatal(err)
		}
	}
	d.pump()
	return d, fetched
}

// takeTogether has both streams take batch by batch as soon as both have them.
func takeTogether(d *fakeDriver, batches int64) {
	d.t.Helper()
	for place := int64(8); place <= 8*batches; place += 8 {
		for _, s := range d.p.streams {
			for !d.p.IsReady(s.id, 0, place) {
				if d.now > Time(time.Hour) {
					d.t.Fatalf("sample %d of stream %d never comes", place, s.id)
				}
				d.until(d.now + Time(time.Millisecond))
			}
		}
		for _, s := range d.p.streams {
			d.p.Consumed(d.now, s.id, 0, place, 0)
		}
		d.pump()
	}
}

func TestTwoStreamsShareARange(t *testing.T) {
	for name, o := range map[string]Options{
		"": {}, "link": {Links: [Sources]LinkOptions{Origin: {Rate: 1e5}}}, "hedges": {HedgeShare: 0.1}, "one at a time": {MaxFlights: 1},
	} {
		t.Run(name, func(t *testing.T) {
			d, fetched := newPair(t, o)
			d.latency = exponential(10*time.Millisecond, 1)
			takeTogether(d, 125)
			for sample := range int64(1000) {
				if fetched[sample] != 1 {
					t.Fatalf("sample %d was fetched %d times", sample, fetched[sample])
				}
			}
			m := d.p.Totals()
			if m.FetchedBytes != 100_000 || m.UsedBytes != 100_000 || m.SharedBytes != 100_000 || m.Waste() > 0.1 {
				t.Errorf("metrics %+v", m)
			}
			if d.until(d.now + Time(10*time.Second)); d.p.ranges.places.used > 0 {
				t.Errorf("%d ranges are left behind", d.p.ranges.places.used)
			}
		})
	}
}

func TestARangeOutlivesTheStreamThatBeganIt(t *testing.T) {
	d, fetched := newPair(t, Options{})
	if err := d.p.EndStream(0, d.p.streams[0].id); err != nil {
		t.Fatal(err)
	}
	takeTogether(d, 125)
	for sample := range int64(1000) {
		if fetched[sample] != 1 {
			t.Fatalf("sample %d was fetched %d times", sample, fetched[sample])
		}
	}
	if m := d.p.Totals(); m.UnusedBytes != 0 || m.UsedBytes+m.SharedBytes != 100_000 {
		t.Errorf("metrics %+v", m)
	}
}

// BenchmarkPlanRanges plans for eight streams that share no range.
func BenchmarkPlanRanges(b *testing.B) {
	for _, share := range []bool{false, true} {
		b.Run(fmt.Sprintf("share=%v", share), func(b *testing.B) {
			d, _ := newStreams(b, Options{MinDepth: 512, MaxDepth: 512, ShareRanges: share, Cut: CutOptions{Billed: true}}, make([]float64, 8),
				func(i int, s *Stream) { s.Batch, s.Epoch = 64, int64(i) })
			d.p.datasets[1].Layout.(*fakeLayout).perChunk = 8 // so that samples are ranges
			var f Fetch
			var pending []Fetch
			for n := int64(0); n < int64(b.N); n += 64 * 8 {
				for {
					if ok, _ := d.p.Next(d.now, &f); !ok {
						break
					}
					pending = append(pending, f)
				}
				d.now += Time(64 * time.Millisecond)
				for i := range pending {
					d.p.Done(d.now, pending[i].ID, Result{Source: Origin, Took: 5 * time.Millisecond, Bytes: pending[i].Bytes})
				}
				pending = pending[:0]
				for _, s := range d.p.streams {
					d.p.Consumed(d.now, s.id, s.takenEpoch, s.takenPlace+64, 0)
				}
			}
		})
	}
}
