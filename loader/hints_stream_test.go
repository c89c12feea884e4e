package loader

import (
	"cmp"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/prefetch"
)

// evenLayout has a chunk of so many bytes for each sample.
type evenLayout struct{ samples, bytes int64 }

func (l evenLayout) Chunks() int64          { return l.samples }
func (l evenLayout) Samples() int64         { return l.samples }
func (l evenLayout) Bytes() int64           { return l.samples * l.bytes }
func (l evenLayout) ChunkBytes(int64) int64 { return l.bytes }
func (l evenLayout) Pieces(samples []int64, pieces []prefetch.Piece, ends []int32) ([]prefetch.Piece, []int32, error) {
	for _, sample := range samples {
		pieces = append(pieces, prefetch.Piece{Chunk: sample, Bytes: l.bytes})
		ends = append(ends, int32(len(pieces)))
	}
	return pieces, ends, nil
}

// virtualDriver carries one hint out on a virtual clock: a fetch takes so long, and some
// samples are there already.
type virtualDriver struct {
	t        *rapid.T
	now      prefetch.Time
	planner  *prefetch.Planner
	stream   *hintStream
	took     time.Duration
	resident func(sample int64) bool
	failing  func(sample int64) error
	flights  []flight
	fetched  []int64 // samples that were not resident, in the order of their fetches
	firstAt  map[int64]prefetch.Time
	moved    int64
}

type flight struct {
	fetch   prefetch.Fetch
	ends    prefetch.Time
	refused bool
}

func newVirtualDriver(t *rapid.T, s *hintStream) *virtualDriver {
	d := &virtualDriver{t: t, planner: prefetch.New(prefetch.Options{Cut: prefetch.CutOptions{Billed: true}, MaxFlights: 64}), stream: s,
		took: 5 * time.Millisecond, resident: func(int64) bool { return false }, failing: func(int64) error { return nil }, firstAt: map[int64]prefetch.Time{}}
	s.mu.progress.state = api.HintActive
	if _, err := s.begin(d.planner, d.now); err != nil {
		t.Fatal(err)
	}
	return d
}

// run drives the planner until the hint is over, or a moment.
func (d *virtualDriver) run(until prefetch.Time) {
	for turns := 0; d.now <= until; turns++ {
		if turns > 1_000_000 {
			d.t.Fatal("the hint does not come to its end")
		}
		wake, over := d.stream.turn(d.now)
		if over && len(d.flights) == 0 {
			return
		}
		d.issue()
		wake = min(wake, d.planner.Wake(d.now))
		if len(d.flights) > 0 {
			wake = min(wake, d.flights[0].ends)
		}
		if wake == prefetch.Never {
			if !d.stream.over {
				d.t.Fatalf("nothing is under way at %v, and the hint is at %d of %d", d.now, d.stream.progress().ready, d.stream.order.length)
			}
			return
		}
		d.now = max(d.now+1, wake)
		d.land()
	}
}

// issue begins what the planner wants.
func (d *virtualDriver) issue() {
	var f prefetch.Fetch
	for {
		ok, err := d.planner.Next(d.now, &f)
		if err != nil {
			d.t.Fatal(err)
		}
		if !ok {
			break
		}
		if !d.stream.admits(&f) {
			d.planner.Done(d.now, f.ID, prefetch.Result{Err: errNotAdmitted})
			continue
		}
		took, refused := d.took, false
		if d.resident(f.Chunk.Number) {
			took = 0
		} else if refused = !d.stream.payLocked(f.Bytes); refused { // as budgeted does; nobody else is here
			took = 0
		}
		d.flights = append(d.flights, flight{f, d.now + prefetch.Time(took), refused})
	}
	slices.SortStableFunc(d.flights, func(a, b flight) int { return cmp.Compare(a.ends, b.ends) })
}

// land ends what is due.
func (d *virtualDriver) land() {
	for len(d.flights) > 0 && d.flights[0].ends <= d.now {
		f, refused := d.flights[0].fetch, d.flights[0].refused
		d.flights = d.flights[1:]
		r := prefetch.Result{Source: prefetch.Origin, Took: d.took, Bytes: f.Bytes, Err: d.failing(f.Chunk.Number)}
		switch {
		case refused:
			r.Err, r.Bytes = errOverBudget, 0
		case r.Err != nil:
			r.Bytes = 0
			d.stream.giveBack(f.Bytes)
		case d.resident(f.Chunk.Number):
			r.Source, r.Took = prefetch.Resident, 0
		default:
			d.moved += f.Bytes
			d.fetched = append(d.fetched, f.Chunk.Number)
			d.firstAt[f.Chunk.Number] = d.now
		}
		d.stream.done(&f, &r)
		d.planner.Done(d.now, f.ID, r)
	}
}

func evenHint(samples, bytes, budget int64, rate float64) *hintStream {
	return &hintStream{order: &hintOrder{places: numbered(samples), length: samples}, layout: evenLayout{samples, bytes}, rate: rate, weight: 1, purse: purse{budget: budget}}
}

const anHour = prefetch.Time(time.Hour)

func TestAHintFetchesWhatIsNotResidentAndNoMoreThanItsBudget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		samples := rapid.Int64Range(1, 1500).Draw(t, "samples")
		bytes := rapid.Int64Range(1, 1<<20).Draw(t, "bytes")
		budget := rapid.Int64Range(0, samples*bytes*5/4).Draw(t, "budget")
		rate := rapid.SampledFrom([]float64{0, 10, 1000, 1e9}).Draw(t, "rate")
		there := rapid.Int64Range(1, 5).Draw(t, "there")
		from := rapid.Int64Range(0, samples).Draw(t, "from") // resident up to it, then every there-th
		d := newVirtualDriver(t, evenHint(samples, bytes, budget, rate))
		d.resident = func(sample int64) bool { return sample < from || sample%there == 0 }
		d.run(anHour)
		missing := int64(0)
		for sample := range samples {
			if !d.resident(sample) {
				missing += bytes
			}
		}
		p := d.stream.progress()
		if d.moved != p.fetched || d.moved > budget || d.stream.paid.bytes != d.moved {
			t.Fatalf("%d bytes were fetched, %d are said and %d paid for, with a budget of %d", d.moved, p.fetched, d.stream.paid.bytes, budget)
		}
		first := int64(0) // that the budget does not cover
		for left := budget; first < samples && (d.resident(first) || left >= bytes); first++ {
			if !d.resident(first) {
				left -= bytes
			}
		}
		switch {
		case p.state == api.HintComplete && (d.moved != missing || p.ready != samples):
			t.Fatalf("complete at %d of %d with %d of %d bytes", p.ready, samples, d.moved, missing)
		case p.state == api.HintSpent && (budget >= missing || p.ready != first):
			t.Fatalf("spent at %d, not at %d, with a budget of %d for %d bytes", p.ready, first, budget, missing)
		case p.state != api.HintComplete && p.state != api.HintSpent:
			t.Fatalf("state %q after an hour: %d of %d", p.state, p.ready, samples)
		}
		if err := d.stream.end(d.now); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAHintIsFetchedInTimeForItsRateAndNotLongBefore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(50, 1000).Draw(t, "rate")
		samples := int64(rate * 6)
		d := newVirtualDriver(t, evenHint(samples, 1000, samples*1000, rate))
		d.took = time.Duration(rapid.Int64Range(1, 25).Draw(t, "ms")) * time.Millisecond
		d.run(anHour)
		if p := d.stream.progress(); p.state != api.HintComplete {
			t.Fatalf("%+v", p)
		}
		late, early := 0, 0
		for sample, at := range d.firstAt {
			use := prefetch.Time(float64(sample) / rate * 1e9)
			if at > use+prefetch.Time(2*d.took)+prefetch.Time(time.Second) {
				late++
			}
			if at < use-prefetch.Time(3*time.Second) {
				early++
			}
		}
		if late > 0 || early > 0 {
			t.Fatalf("of %d samples %d came late and %d more than half the time early", samples, late, early)
		}
	})
}

func TestWhatIsThereIsReadyAtOnceWhateverTheDeadline(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(5, 200).Draw(t, "rate")
		there := rapid.Int64Range(1, 3000).Draw(t, "there")
		missing := rapid.Int64Range(0, int64(rate)*60).Draw(t, "missing")
		samples := there + missing
		d := newVirtualDriver(t, evenHint(samples, 1000, samples*1000, rate))
		d.resident = func(sample int64) bool { return sample < there }
		d.run(prefetch.Time(5 * time.Second))
		if p := d.stream.progress(); p.ready < there || missing == 0 && p.state != api.HintComplete {
			t.Fatalf("%d were there: %+v", there, p)
		}
		d.run(anHour)
		if p := d.stream.progress(); p.state != api.HintComplete || p.fetched != missing*1000 {
			t.Fatalf("%+v", p)
		}
		for sample, at := range d.firstAt { // a window of them may come at once
			use := prefetch.Time(float64(sample) / rate * 1e9)
			if at > use+prefetch.Time(time.Second) || sample > there+d.stream.mostDepth() && at < use-prefetch.Time(hintDepthTime+3*time.Second) {
				t.Fatalf("sample %d, used at %v, came at %v", sample, time.Duration(use), time.Duration(at))
			}
		}
	})
}

// emptyLayout is one of samples without bytes.
type emptyLayout struct{ evenLayout }

func (emptyLayout) Pieces(samples []int64, pieces []prefetch.Piece, ends []int32) ([]prefetch.Piece, []int32, error) {
	for range samples {
		ends = append(ends, int32(len(pieces)))
	}
	return pieces, ends, nil
}

func TestAHintOfEmptySamplesWaitsForNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := evenHint(rapid.Int64Range(1, 1000).Draw(t, "samples"), 0, 1, rapid.SampledFrom([]float64{0, 10}).Draw(t, "rate"))
		h.layout = emptyLayout{evenLayout{1000, 0}}
		d := newVirtualDriver(t, h)
		d.run(anHour)
		if p := h.progress(); p.state != api.HintComplete || d.now > prefetch.Time(hintPatience/4) {
			t.Fatalf("after %v: %+v", time.Duration(d.now), p)
		}
	})
}

func TestSamplesWhoseFetchesFailAreNotReady(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const samples = 1000
		d := newVirtualDriver(t, evenHint(samples, 100, 1<<20, rapid.SampledFrom([]float64{0, 500}).Draw(t, "rate")))
		every, lost := rapid.Int64Range(1, 50).Draw(t, "every"), int64(0)
		d.failing = func(sample int64) error {
			if sample%every == 0 {
				return errors.New("it is gone")
			}
			return nil
		}
		for sample := range int64(samples) {
			if d.failing(sample) != nil {
				lost++
			}
		}
		d.run(anHour)
		if p := d.stream.progress(); p.state != api.HintIncomplete || p.lost != lost || p.failed != lost || p.fetched != 100*(samples-lost) {
			t.Fatalf("%d of %d failed: %+v", lost, int64(samples), p)
		}
	})
}

func TestOneBrokenFileDoesNotEndAHint(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newVirtualDriver(t, evenHint(500, 100, 1<<20, 0))
		broken := rapid.Int64Range(0, 499).Draw(t, "broken")
		d.failing = func(sample int64) error {
			if sample == broken {
				return errors.New("it is gone")
			}
			return nil
		}
		d.run(anHour)
		if p := d.stream.progress(); p.state != api.HintIncomplete || p.problem != "it is gone" || p.failed != 1 || p.lost != 1 || p.ready != 500 || p.fetched != 49900 {
			t.Fatalf("%+v", p)
		}
	})
}

func TestAStoreThatCannotWarmEndsAHint(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newVirtualDriver(t, evenHint(500, 100, 1<<20, 0))
		d.failing = func(int64) error { return backend.ErrCannotWarm }
		d.run(anHour)
		if p := d.stream.progress(); p.state != api.HintFailed || p.problem == "" || p.fetched != 0 {
			t.Fatalf("%+v", p)
		}
	})
}

func TestClocksThatJumpDoNotEndAHintBefore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := evenHint(1000, 100, 1<<20, 100)
		d := newVirtualDriver(t, s)
		d.run(prefetch.Time(time.Second))
		for range rapid.IntRange(1, 5).Draw(t, "jumps") {
			d.now = max(0, d.now+prefetch.Time(rapid.Int64Range(-5e9, 5e9).Draw(t, "by")))
			d.run(d.now + prefetch.Time(100*time.Millisecond))
		}
		d.run(anHour)
		if p := s.progress(); p.state != api.HintComplete || p.fetched != 100_000 {
			t.Fatalf("%+v", p)
		}
	})
}

// TestHintsWithoutADeadlineWaitForSessions has a session and a hint that want all there
// is of a node's fetches.
func TestHintsWithoutADeadlineWaitForSessions(t *testing.T) {
	for rate, behind := range map[float64]bool{0: true, 1e6: false} {
		p := prefetch.New(prefetch.Options{Cut: prefetch.CutOptions{Billed: true}, MaxFlights: 64})
		h := evenHint(1000, 100, 1<<30, rate)
		if _, err := h.begin(p, 0); err != nil {
			t.Fatal(err)
		}
		dataset, err := p.AddDataset(0, prefetch.Dataset{Layout: evenLayout{1000, 100}})
		if err != nil {
			t.Fatal(err)
		}
		order := &hintOrder{places: numbered(1000), length: 1000}
		session, err := p.AddStream(0, prefetch.Stream{Job: p.AddJob(0, 1), Dataset: dataset, Order: order, Batch: 16, Source: prefetch.Origin})
		if err != nil {
			t.Fatal(err)
		}
		var begun []prefetch.StreamID
		var f prefetch.Fetch
		for {
			ok, err := p.Next(0, &f)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			begun = append(begun, f.Stream)
		}
		last, first := len(begun)-1, slices.Index(begun, h.stream)
		for begun[last] != session {
			last--
		}
		if len(begun) < 32 || first < 0 || behind != (first > last) {
			t.Errorf("rate %v: the session's last fetch is the %d-th, the hint's first the %d-th of %d", rate, last, first, len(begun))
		}
	}
}

// brokenLayout is one of samples that cannot be looked up.
type brokenLayout struct{ evenLayout }

func (brokenLayout) Pieces([]int64, []prefetch.Piece, []int32) ([]prefetch.Piece, []int32, error) {
	return nil, nil, io.ErrUnexpectedEOF
}

func TestAHintWhoseSamplesCannotBeLookedUpFails(t *testing.T) {
	var log lockedBuffer
	c := newColdFiles(t, 20, 5000, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	client := c.openSession(openRequest("files"))
	source := c.session().source
	h := evenHint(1000, 100, 1<<30, 0)
	h.layout, h.view, h.store = brokenLayout{evenLayout{1000, 100}}, source.view, source.store
	h.mu.progress.state = api.HintActive
	let := make(chan struct{})
	if err := (hintsAhead{c.foresight}).carry(h, func() { close(let) }); err != nil {
		t.Fatal(err)
	}
	<-let
	if p := h.progress(); p.state != api.HintFailed || !strings.Contains(p.problem, "unexpected EOF") || p.ended.IsZero() {
		t.Errorf("%+v", p)
	}
	if text := log.String(); strings.Count(text, "unexpected EOF") != 1 || !strings.Contains(text, "a hint") {
		t.Errorf("logged %q", text)
	}
	drain(t, client, 5)
}
