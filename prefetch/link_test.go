package prefetch

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const linkMiB = 1 << 20

// linkUser fetches over a link as fast as it wants and may.
type linkUser struct {
	id     JobID
	far    bool
	wants  float64 // bytes/s; +Inf: without end
	size   int64   // of a fetch
	begins Time    // wants nothing before

	taken  int64
	waited time.Duration // the longest from when a fetch was wanted to when it began
}

// nextWant is when the user wants its next fetch.
func (u *linkUser) nextWant() Time {
	if u.wants == 0 {
		return Never
	}
	return u.begins.Add(time.Duration(float64(u.taken) / u.wants * float64(time.Second)))
}

// linkRun drives a link until an end: users are always asked in the same order, which is
// the worst for fairness.
func linkRun(t rapid.TB, l *Link, from, to Time, users ...*linkUser) {
	t.Helper()
	for _, u := range users {
		u.begins, u.taken, u.waited = from, 0, 0
	}
	for now, rounds := from, 0; now < to; rounds++ {
		if rounds > 1e7 {
			t.Fatalf("at %d after %d rounds", now, rounds)
		}
		next := to
		for _, u := range users {
			for u.nextWant() <= now && l.Allow(now, u.id, u.size, u.far) {
				u.waited = max(u.waited, now.Sub(u.nextWant()))
				u.taken += u.size
			}
		}
		for _, u := range users {
			at := u.nextWant()
			if at <= now {
				at = l.NextAllowed(now, u.id, u.size, u.far)
			}
			next = min(next, at)
		}
		now = max(next, now) // the same time again if one's fetch let another's begin
	}
}

// linkRate is what a user had, in bytes per second of a run.
func linkRate(u *linkUser, took time.Duration) float64 { return float64(u.taken) / took.Seconds() }

// linkWithin reports whether got differs from want by no more than a part of it.
func linkWithin(got, want, part float64) bool { return math.Abs(got-want) <= part*want }

func TestBackloggedJobsConvergeToTheirMaxMinShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(50e6, 2e9).Draw(t, "rate")
		n := rapid.IntRange(2, 6).Draw(t, "jobs")
		l := NewLink(LinkOptions{Rate: rate, Reserve: rapid.SampledFrom([]float64{0, 0.2}).Draw(t, "reserve")})
		capacity := rate * (1 - l.options.Reserve)
		var users []*linkUser
		var demands, weights []float64
		for i := range n {
			id := JobID(i + 1)
			demand := rapid.Float64Range(0.5/float64(n), 2).Draw(t, "demand") * capacity
			weight := rapid.Float64Range(0.25, 4).Draw(t, "weight")
			l.Job(id, weight)
			l.Demand(id, demand)
			demands, weights = append(demands, demand), append(weights, weight)
			users = append(users, &linkUser{id: id, wants: demand, size: rapid.Int64Range(linkMiB, 8*linkMiB).Draw(t, "size")})
		}
		took := time.Duration(1500 * 8 * linkMiB / capacity * float64(time.Second))
		linkRun(t, l, 0, Time(took), users...)
		want := maxMin(capacity, demands, weights)
		for i, u := range users {
			one := float64(u.size) / took.Seconds()
			if got := linkRate(u, took); math.Abs(got-want[i]) > 0.01*want[i]+one {
				t.Errorf("job %d of weight %.2f, demand %.3g: %.4g bytes/s, want %.4g", u.id, weights[i], demands[i], got, want[i])
			}
			if got := l.Share(u.id); sumOf(demands) > capacity && !linkWithin(got, want[i], 1e-9) {
				t.Errorf("job %d: its share is said to be %.4g, want %.4g", u.id, got, want[i])
			}
		}
	})
}

func sumOf(x []float64) (sum float64) {
	for _, v := range x {
		sum += v
	}
	return sum
}

func TestJobsThatTakeMoreThanTheyDemandGetNoMoreThanHeadroom(t *testing.T) {
	for _, headroom := range []float64{-1, 0.05, 0} {
		l := NewLink(LinkOptions{Rate: 100e6, Headroom: headroom})
		honest := &linkUser{id: 1, wants: math.Inf(1), size: linkMiB}
		lying := &linkUser{id: 2, wants: math.Inf(1), size: linkMiB}
		l.Job(1, 1)
		l.Demand(1, 200e6)
		l.Job(2, 1)
		l.Demand(2, 10e6)
		const took = 100 * time.Second
		linkRun(t, l, 0, Time(took), lying, honest)
		limit := 10e6 + l.options.Headroom*90e6
		got := linkRate(lying, took)
		if got < 10e6*0.99 || got > limit*1.01 {
			t.Errorf("headroom %v: %.4g bytes/s, want 10e6 to %.4g", headroom, got, limit)
		}
		if other := linkRate(honest, took); !linkWithin(other, 100e6-got, 0.01) {
			t.Errorf("headroom %v: the honest one has %.4g bytes/s, want what is left", headroom, other)
		}
	}
}

func TestNobodyIsHeldToAShareWhileTheDemandsFit(t *testing.T) {
	l := NewLink(LinkOptions{Rate: 100e6})
	l.Job(1, 1)
	l.Demand(1, 10e6)
	l.Job(2, 1)
	l.Demand(2, 80e6)
	filling := &linkUser{id: 1, wants: math.Inf(1), size: linkMiB}
	linkRun(t, l, 0, Time(10*time.Second), filling)
	if got := linkRate(filling, 10*time.Second); !linkWithin(got, 100e6, 0.02) {
		t.Errorf("a window fills at %.4g bytes/s, want 100e6", got)
	}
	if got := l.Share(1); got != 20e6 {
		t.Errorf("share %v, want what the other leaves, 20e6", got)
	}
}

// A job that wants less than its fair part waits for no more than fetches that are under
// way: one of each of the others.
func TestAModestJobDoesNotWaitBehindGreedyOnes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const rate = 200e6
		l := NewLink(LinkOptions{Rate: rate})
		n := rapid.IntRange(1, 5).Draw(t, "greedy")
		modest := &linkUser{id: 100, size: rapid.Int64Range(linkMiB/16, linkMiB).Draw(t, "size"),
			wants: rapid.Float64Range(0.1, 0.9).Draw(t, "part") * rate / float64(n+1)}
		l.Job(modest.id, 1)
		l.Demand(modest.id, modest.wants)
		var users []*linkUser
		for i := range n {
			users = append(users, &linkUser{id: JobID(i + 1), wants: math.Inf(1), size: 2 * linkMiB})
			l.Job(JobID(i+1), 1)
		}
		const took = 20 * time.Second
		linkRun(t, l, 0, Time(took), append(users, modest)...)
		one := float64(modest.size) / took.Seconds()
		if got := linkRate(modest, took); math.Abs(got-modest.wants) > 0.01*modest.wants+one {
			t.Errorf("%.4g bytes/s, want %.4g", got, modest.wants)
		}
		limit := time.Duration(float64((n+1)*2*linkMiB+int(modest.size)) / rate * float64(time.Second))
		if modest.waited > limit {
			t.Errorf("it waited %v, want at most %v", modest.waited, limit)
		}
	})
}

// What a job demands and does not use goes to the others by their weights.
func TestALinkIsNotIdleWhileAnyoneWaits(t *testing.T) {
	for _, size := range []int64{linkMiB / 4, 8 * linkMiB, 64 * linkMiB} {
		l := NewLink(LinkOptions{Rate: 100e6})
		users := []*linkUser{{id: 1}, {id: 2, wants: math.Inf(1), size: size}, {id: 3, wants: math.Inf(1), size: size}}
		for i, weight := range []float64{4, 1, 3} {
			l.Job(users[i].id, weight)
			l.Demand(users[i].id, 300e6)
		}
		const took = 1000 * time.Second
		linkRun(t, l, 0, Time(took), users...)
		one, three := linkRate(users[1], took), linkRate(users[2], took)
		if !linkWithin(one+three, 100e6, 0.01) {
			t.Errorf("fetches of %d bytes: %.4g and %.4g bytes/s are not 100e6", size, one, three)
		}
		if !linkWithin(three/one, 3, 0.02) {
			t.Errorf("fetches of %d bytes: %.4g and %.4g bytes/s, want 1:3", size, one, three)
		}
	}
}

func TestAJobThatLeavesFreesItsShareAtOnce(t *testing.T) {
	l := NewLink(LinkOptions{Rate: 100e6})
	for id := range JobID(4) {
		l.Job(id, 1)
	}
	user := &linkUser{id: 3, wants: math.Inf(1), size: linkMiB}
	busy := &linkUser{id: 1, wants: math.Inf(1), size: linkMiB}
	linkRun(t, l, 0, Time(10*time.Second), busy, user)
	if got := l.Share(3); got != 25e6 {
		t.Fatalf("share %v of four, want 25e6", got)
	}
	l.Remove(0)
	l.Remove(1)
	l.Remove(2)
	l.Remove(2)
	if got := l.Share(3); got != 100e6 {
		t.Errorf("share %v of the last one, want 100e6", got)
	}
	linkRun(t, l, Time(10*time.Second), Time(12*time.Second), user)
	if got := linkRate(user, 2*time.Second); !linkWithin(got, 100e6, 0.1) {
		t.Errorf("%.4g bytes/s in the two seconds after, want 100e6", got)
	}
}

func TestFarFetchesTakeWhatNearDemandLeaves(t *testing.T) {
	const rate, took = 100e6, 200 * time.Second
	for _, c := range []struct {
		name            string
		demand, share   float64
		uses, far, near float64
	}{
		{"alone", 0, 0, 0, 100e6, 0},
		{"beside a job", 60e6, 0, 60e6, 40e6, 60e6},
		{"beside a job that rests", 60e6, 0, 0, 40e6, 0},
		{"at most its share", 60e6, 0.25, 60e6, 25e6, 60e6},
		{"the demands fill the link", 100e6, 0, 90e6, 0, 90e6},
		{"the demands exceed the link", 150e6, 0, 150e6, 0, 100e6},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := NewLink(LinkOptions{Rate: rate, FarShare: c.share})
			l.Job(1, 1)
			l.Demand(1, c.demand)
			near := &linkUser{id: 1, wants: c.uses, size: linkMiB}
			far := &linkUser{id: 1, far: true, wants: math.Inf(1), size: linkMiB}
			linkRun(t, l, 0, Time(took), far, near)
			if got := linkRate(far, took); !linkWithin(got, c.far, 0.01) {
				t.Errorf("far fetches have %.4g bytes/s, want %.4g", got, c.far)
			}
			if got := linkRate(near, took); !linkWithin(got, c.near, 0.01) {
				t.Errorf("near fetches have %.4g bytes/s, want %.4g", got, c.near)
			}
			if c.near < rate && near.waited > 2*linkMiB*time.Second/rate {
				t.Errorf("a near fetch waited %v", near.waited)
			}
			if at := l.NextAllowed(Time(took), 1, 1, true); (at == Never) != (c.far == 0) {
				t.Errorf("the next far fetch may begin at %d", at)
			}
		})
	}
}

func TestFarFetchesWaitWhileAWindowFills(t *testing.T) {
	l := NewLink(LinkOptions{Rate: 100e6})
	l.Job(1, 1)
	l.Demand(1, 10e6)
	filling := &linkUser{id: 1, wants: math.Inf(1), size: linkMiB}
	far := &linkUser{id: 1, far: true, wants: math.Inf(1), size: linkMiB}
	linkRun(t, l, 0, Time(10*time.Second), far, filling)
	if got := linkRate(far, 10*time.Second); got > 2e6 {
		t.Errorf("far fetches have %.4g bytes/s of a link that near ones want all of", got)
	}
}

func TestAFetchOfAnySizePasses(t *testing.T) {
	for _, rate := range []float64{0, -1, math.NaN(), math.Inf(1), math.SmallestNonzeroFloat64, 1e-9, 1, 1e6, 1e300, math.MaxFloat64} {
		l := NewLink(LinkOptions{Rate: rate})
		l.Job(1, 1)
		l.Job(2, 1)
		now := Time(0)
		for _, bytes := range []int64{8 * linkMiB, math.MaxInt64, 0, math.MinInt64, 1} {
			at := l.NextAllowed(now, 1, bytes, false)
			if at < now || at.Sub(now) > 2*linkDebt {
				t.Fatalf("rate %v: the next fetch may begin %v from now", rate, at.Sub(now))
			}
			if now = at; !l.Allow(now, 1, bytes, false) {
				t.Fatalf("rate %v: refused when it said it would allow", rate)
			}
		}
	}
}

func TestARateThatChangesKeepsTheBytesThatAreOwed(t *testing.T) {
	l := NewLink(LinkOptions{Rate: 10e6})
	if !l.Allow(0, 1, 1e9, false) {
		t.Fatal("the first fetch is refused")
	}
	l.SetRate(100e6)
	if got, want := l.NextAllowed(0, 1, 1, false), Time(10*time.Second); got != want {
		t.Errorf("next at %v, want %v: 1e9 bytes at 100e6 bytes/s", got, want)
	}
	l.SetRate(0)
	if got := l.NextAllowed(5, 1, 1, false); got != 5 {
		t.Errorf("next at %v of a link without limit, want now", got)
	}
	if got := l.Share(1); !math.IsInf(got, 1) {
		t.Errorf("share %v of a link without limit", got)
	}
}

// Whatever is asked and told, the link gives what its rate and bursts allow, and keeps
// its word.
func TestLinkKeepsItsWordAndItsRateOnAnyClock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const rate = 100e6
		l := NewLink(LinkOptions{Rate: rate})
		now := Time(rapid.Int64().Draw(t, "begin"))
		allowed, elapsed, jumps, largest := 0.0, 0.0, 1.0, 0.0
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			id := JobID(rapid.IntRange(0, 3).Draw(t, "job"))
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				l.Job(id, anyShare().Draw(t, "weight"))
			case 1:
				l.Demand(id, anyShare().Draw(t, "demand")*1e6)
			case 2:
				l.Remove(id)
			case 3:
				now = Time(rapid.Int64().Draw(t, "jump"))
				jumps++
			case 4:
				now -= min(Time(rapid.Int64Range(0, int64(linkSkew)).Draw(t, "back")), now-math.MinInt64)
			default:
				step := Time(rapid.Int64Range(0, int64(20*time.Millisecond)).Draw(t, "time"))
				if now < math.MaxInt64-step {
					now, elapsed = now+step, elapsed+float64(step)
				}
			}
			bytes, far := rapid.Int64Range(0, linkMiB).Draw(t, "bytes"), rapid.Bool().Draw(t, "far")
			at := l.NextAllowed(now, id, bytes, far)
			if at < now || at == Never && !far && now != Never {
				t.Fatalf("at %d: the next is allowed at %d", now, at)
			}
			if at != now && l.Allow(now, id, bytes, far) {
				t.Fatalf("at %d: allowed, but said to be at %d", now, at)
			}
			if share := l.Share(id); !(share >= 0 && share <= rate*(1+1e-9)) {
				t.Fatalf("share %v", share)
			}
			if at == Never || at >= Never-1 || !rapid.Bool().Draw(t, "wait") && at != now {
				continue
			}
			if at != now {
				elapsed += float64(at - now + Time(linkSkew)) // the clock may have been behind
				now = at
			}
			if !l.Allow(now, id, bytes, far) {
				// Another may come first, once.
				if at = l.NextAllowed(now, id, bytes, far); far || at != now+1 || !l.Allow(at, id, bytes, far) {
					t.Fatalf("at %d: refused, but said to be allowed then; now at %d", now, at)
				}
				now = at
			}
			allowed, largest = allowed+float64(bytes), max(largest, float64(bytes))
		}
		if limit := rate*(elapsed/1e9+jumps*l.options.Burst.Seconds()) + largest + 1; allowed > limit {
			t.Errorf("%.4g bytes in %.3g s with %v jumps, want at most %.4g", allowed, elapsed/1e9, jumps, limit)
		}
	})
}

func TestAClockThatJumpsNeitherFloodsNorStarves(t *testing.T) {
	l := NewLink(LinkOptions{Rate: 100e6})
	burst := func(now Time) (bytes int64) {
		for l.Allow(now, 1, linkMiB, false) {
			bytes += linkMiB
		}
		return bytes
	}
	const most = 10e6 + linkMiB // a burst, and the fetch that ends it
	for _, now := range []Time{0, Time(24 * 365 * time.Hour), Time(time.Hour), -Time(time.Hour), Never, math.MinInt64} {
		if got := burst(now); got > most {
			t.Errorf("jump to %d: %d bytes at once", now, got)
		}
		if got := burst(now + min(Time(time.Second), Never-now)); now != Never && (got < 5e6 || got > most) {
			t.Errorf("a second after the jump to %d: %d bytes", now, got)
		}
	}
	// Calls in another order than the clock was read in do not make time.
	var sum int64
	for i := range Time(1000) {
		sum += burst(Time(time.Hour) - i%2*Time(100*time.Millisecond))
	}
	if sum > 2*most {
		t.Errorf("%d bytes while the time went to and fro", sum)
	}
}

func TestLinkOptionsThatMakeNoSense(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, o := range []LinkOptions{
		{Rate: 1e6, Reserve: nan, FarShare: nan, Headroom: nan, Burst: -1},
		{Rate: 1e6, Reserve: inf, FarShare: inf, Headroom: inf, Burst: math.MaxInt64},
		{Rate: 1e6, Reserve: -inf, FarShare: -inf, Headroom: -inf, Burst: 1},
	} {
		l := NewLink(o)
		for id := range JobID(3) {
			l.Job(id, nan)
			l.Demand(id, []float64{nan, 5e5, -1}[id])
		}
		for id := range JobID(3) {
			user := &linkUser{id: id, wants: inf, size: linkMiB / 8}
			from := Time(id) * Time(time.Hour)
			linkRun(t, l, from, from.Add(time.Hour), user)
			if user.taken < linkMiB {
				t.Errorf("%+v: job %d had %d bytes in an hour", o, id, user.taken)
			}
		}
	}
}

func TestLinkAllocatesNothing(t *testing.T) {
	l, now := linkOfEight(), Time(0)
	if n := testing.AllocsPerRun(1000, func() { linkStep(l, &now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// linkOfEight is a link with eight jobs that want too much.
func linkOfEight() *Link {
	l := NewLink(LinkOptions{Rate: 1e9})
	for id := range JobID(8) {
		l.Job(id, float64(id%3+1))
		l.Demand(id, 2e8)
	}
	return l
}

// linkStep is what a planner asks for a fetch, with a demand that changed.
func linkStep(l *Link, now *Time) {
	id := JobID(*now/1000) % 8
	*now += 1001
	l.Demand(id, 2e8+float64(*now%7)*1e7)
	if !l.Allow(*now, id, 100e3, false) {
		l.NextAllowed(*now, id, 100e3, false)
	}
}

func BenchmarkLink(b *testing.B) {
	l, now := linkOfEight(), Time(0)
	for b.Loop() {
		linkStep(l, &now)
	}
}
