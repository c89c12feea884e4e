package sim

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stokerio/stoker/prefetch"
	"pgregory.net/rapid"
)

func TestLawsHaveTheMeanAndTheTailTheyName(t *testing.T) {
	const draws = 400_000
	ms := time.Millisecond
	for _, test := range []struct {
		law    Law
		p99    float64 // ms
		within float64
	}{
		{Constant(40 * ms), 40, 0},
		{Lognormal{40 * ms, .5}, 107, 1}, // reference figures of the literature on tails
		{Lognormal{40 * ms, 1}, 198, 4},
		{Exponential(40 * ms), 40 * math.Log(100), 3},
		{Mixture{36 * ms, 400 * ms, .02}, 400, 0},
		{Measured{0, 40 * ms, 80 * ms}, 79.2, .5},
		{Measured{7 * ms}, 7, 0},
		{Measured{}, 0, 0},
	} {
		random := rand.New(rand.NewPCG(1, 1))
		drawn := make([]float64, draws)
		var sum float64
		for i := range drawn {
			drawn[i] = float64(test.law.Draw(random)) / float64(ms)
			sum += drawn[i]
		}
		slices.Sort(drawn)
		mean := float64(test.law.Mean()) / float64(ms)
		near(t, "mean", sum/draws, mean, 0.01*mean)
		near(t, "p99", drawn[draws*99/100], test.p99, test.within)
	}
}

// transfers plays transfers over a link, of which some are cancelled (quits, if not 0). It
// says when each was over, if it was not cancelled before, and what each has moved.
func transfers(spec LinkSpec, begins []prefetch.Time, bytes []int64, quits []prefetch.Time) (over []prefetch.Time, moved []int64) {
	var h events
	l := link{spec: spec}
	over, moved = make([]prefetch.Time, len(begins)), slices.Clone(bytes)
	for i, at := range begins {
		h.push(at, firstByte, int32(i), 0)
		if quits[i] > 0 {
			h.push(quits[i], streamAsks, int32(i), 0)
		}
	}
	for len(h.heap) > 0 {
		switch next := h.pop(); next.kind {
		case firstByte:
			l.begin(&h, next.at, 0, next.who, bytes[next.who])
		case streamAsks: // stands for cancelling here
			if over[next.who] == 0 {
				moved[next.who], _ = l.cancel(&h, next.at, 0, next.who, bytes[next.who])
			}
		case lastByte:
			over[next.who] = next.at
		case linkMoves:
			if next.mark != l.mark {
				continue
			}
			for _, i := range l.over(next.at, nil) {
				over[i] = next.at
			}
			l.schedule(&h, next.at, 0)
		}
	}
	return over, moved
}

func TestTransfersShareALink(t *testing.T) {
	second := seconds(1)
	for _, test := range []struct {
		name string
		spec LinkSpec
		want []prefetch.Time
	}{
		// The first has half its bytes when the second comes; both get 5 MB/s, and then the
		// second has 5 MB left for itself.
		{"shared", LinkSpec{BytesPerSecond: 10e6}, []prefetch.Time{second * 3 / 2, second * 2}},
		{"first come", LinkSpec{BytesPerSecond: 10e6, FIFO: true}, []prefetch.Time{second, second * 2}},
		{"capped", LinkSpec{BytesPerSecond: 10e6, RequestBytesPerSecond: 5e6}, []prefetch.Time{second * 2, second * 5 / 2}},
		{"not limited", LinkSpec{}, []prefetch.Time{0, second / 2}},
		{"requests only", LinkSpec{RequestBytesPerSecond: 20e6}, []prefetch.Time{second / 2, second}},
	} {
		got, _ := transfers(test.spec, []prefetch.Time{0, second / 2}, []int64{10e6, 10e6}, make([]prefetch.Time, 2))
		for i := range got {
			near(t, test.name, time.Duration(got[i]).Seconds(), time.Duration(test.want[i]).Seconds(), 1e-8)
		}
	}
}

// slowly plays a shared link in small steps.
func slowly(spec LinkSpec, begins []prefetch.Time, bytes []int64, quits []prefetch.Time) (over, moved []float64) {
	const step = 1e-4
	moved = make([]float64, len(bytes))
	left, over := make([]float64, len(bytes)), make([]float64, len(bytes))
	for i := range bytes {
		left[i] = float64(bytes[i])
	}
	for now := 0.0; slices.Max(left) > 0; now += step {
		var moving []int
		for i := range left {
			if quit := time.Duration(quits[i]).Seconds(); left[i] > 0 && quit > 0 && quit <= now {
				left[i] = 0
			}
			if left[i] > 0 && time.Duration(begins[i]).Seconds() <= now {
				moving = append(moving, i)
			}
		}
		l := link{spec: spec}
		for _, i := range moving {
			moved[i] += min(left[i], step*l.rate(len(moving)))
			if left[i] -= step * l.rate(len(moving)); left[i] <= 0 {
				over[i] = now
			}
		}
	}
	return over, moved
}

func TestSharedLinksEqualSmallSteps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "transfers")
		spec := LinkSpec{BytesPerSecond: 1e6, RequestBytesPerSecond: rapid.SampledFrom([]float64{0, 4e5}).Draw(t, "cap")}
		begins, quits, bytes := make([]prefetch.Time, n), make([]prefetch.Time, n), make([]int64, n)
		for i := range n {
			begins[i] = prefetch.Time(rapid.IntRange(0, 1e8).Draw(t, "begin"))
			bytes[i] = rapid.Int64Range(1, 100_000).Draw(t, "bytes")
			if rapid.Bool().Draw(t, "cancelled") {
				quits[i] = begins[i] + prefetch.Time(rapid.IntRange(1, 2e8).Draw(t, "quit"))
			}
		}
		got, gotMoved := transfers(spec, begins, bytes, quits)
		want, wantMoved := slowly(spec, begins, bytes, quits)
		for i := range got {
			if d := float64(gotMoved[i]) - wantMoved[i]; math.Abs(d) > 1500 {
				t.Fatalf("transfer %d of %v from %v until %v: moved %d bytes, want %.0f", i, bytes, begins, quits, gotMoved[i], wantMoved[i])
			}
			if (got[i] == 0) != (want[i] == 0) && math.Abs(float64(gotMoved[i]-bytes[i])) < 1500 {
				continue // cancelled as it ended
			}
			if d := time.Duration(got[i]).Seconds() - want[i]; math.Abs(d) > 2e-3 {
				t.Fatalf("transfer %d of %v from %v: over at %v, want %v", i, bytes, begins, time.Duration(got[i]), want[i])
			}
		}
	})
}

func TestEventsComeInTheOrderOfTimeAndThenOfPushing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h events
		times := rapid.SliceOf(rapid.Int64Range(0, 20)).Draw(t, "times")
		for i, at := range times {
			h.push(prefetch.Time(at), ticks, int32(i), 0)
		}
		last := event{at: -1}
		for range times {
			next := h.pop()
			if next.at < last.at || next.at == last.at && next.who < last.who || int64(next.at) != times[next.who] {
				t.Fatalf("%+v after %+v", next, last)
			}
			last = next
		}
	})
}

func TestEventsAndTransfersAllocateNothingOnceWarm(t *testing.T) {
	var h events
	l := link{spec: LinkSpec{BytesPerSecond: 1e6}}
	now, ended := prefetch.Time(0), make([]int32, 0, 16)
	step := func() {
		for i := range int32(8) {
			l.begin(&h, now, 0, i, 1000)
		}
		for len(h.heap) > 0 {
			if next := h.pop(); next.mark == l.mark {
				now = next.at
				ended = l.over(now, ended[:0])
				l.schedule(&h, now, 0)
			}
		}
	}
	if allocs := testing.AllocsPerRun(100, step); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestCapacityIsFilledFairly(t *testing.T) {
	for _, test := range []struct {
		capacity               float64
		demands, weights, want []float64
	}{
		{150, []float64{100, 50, 25, 12.5}, []float64{1, 1, 1, 1}, []float64{62.5, 50, 25, 12.5}},
		{300, []float64{100, 50}, []float64{1, 1}, []float64{100, 50}},
		{90, []float64{100, 100}, []float64{2, 1}, []float64{60, 30}},
		{90, []float64{10, 100, 100}, []float64{1, 3, 1}, []float64{10, 60, 20}},
		{10, []float64{5, 5}, []float64{0, 1}, []float64{0, 5}},
		{10, nil, nil, nil},
	} {
		for i, got := range fill(test.capacity, test.demands, test.weights) {
			near(t, "share", got, test.want[i], 1e-9)
		}
	}
}
