package prefetch

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// keepObey drops what k names until that is all, and returns it.
func keepObey(t interface {
	Helper()
	Fatalf(string, ...any)
}, k *Keeper) (dropped []Chunk) {
	t.Helper()
	for calls := 0; ; {
		c, ok := k.Drop()
		switch {
		case !ok && k.Settled():
			return dropped
		case !ok:
			if calls++; calls > 1_000_000 {
				t.Fatalf("Drop does not come to an end: %d bytes over", k.Over())
			}
		case k.Pinned(c) || k.Keeps(c) || k.Has(c):
			t.Fatalf("%v was dropped: pinned %v, kept %v, still there %v", c, k.Pinned(c), k.Keeps(c), k.Has(c))
		default:
			dropped = append(dropped, c)
		}
	}
}

// keepEpoch reads a dataset once in a new order, as a job does: it keeps what Keeps says,
// drops what Drop says, and returns how many chunks it found stored.
func keepEpoch(t testing.TB, k *Keeper, id DatasetID, sizes []int64, random *rand.Rand) (hits int) {
	t.Helper()
	for _, i := range random.Perm(len(sizes)) {
		c := Chunk{id, int64(i)}
		if k.Has(c) {
			hits++
		} else if k.Keeps(c) {
			k.Stored(c, sizes[i])
		}
		for _, ok := k.Drop(); ok; _, ok = k.Drop() {
		}
	}
	keepObey(t, k)
	if k.Over() > 0 {
		t.Fatalf("%d bytes over after an epoch", k.Over())
	}
	return hits
}

func keepEqualSizes(chunks int, bytes int64) []int64 {
	sizes := make([]int64, chunks)
	for i := range sizes {
		sizes[i] = bytes
	}
	return sizes
}

func keepSum(sizes []int64) (sum int64) {
	for _, size := range sizes {
		sum += size
	}
	return sum
}

// keepSkewedSizes returns log-normal sizes with a coefficient of variation of 1.3.
func keepSkewedSizes(chunks int, random *rand.Rand) []int64 {
	sizes := make([]int64, chunks)
	for i := range sizes {
		sizes[i] = 1 + int64(100_000*math.Exp(random.NormFloat64()))
	}
	return sizes
}

func TestHitRatioIsTheCachedPart(t *testing.T) {
	const chunks = 40_000
	sizes := keepEqualSizes(chunks, 8<<20)
	for i := range 8 {
		part := []float64{.25, .50, .75, .90}[i%4]
		random := rand.New(rand.NewPCG(1, uint64(i)))
		k := NewKeeper(int64(part * float64(keepSum(sizes))))
		k.Add(1, uint64(i), chunks, keepSum(sizes), 1)
		if hits := keepEpoch(t, k, 1, sizes, random); hits != 0 {
			t.Errorf("cached %.2f: %d hits in the first epoch", part, hits)
		}
		for epoch := 1; epoch < 4; epoch++ {
			ratio := float64(keepEpoch(t, k, 1, sizes, random)) / chunks
			t.Logf("cached %.2f: epoch %d: hit ratio %.4f, %.4f of the share used", part, epoch, ratio, float64(k.Held(1))/float64(k.Share(1)))
			if math.Abs(ratio-part) > .01 {
				t.Errorf("cached %.2f: epoch %d: hit ratio %.4f", part, epoch, ratio)
			}
		}
		if used := float64(k.Held(1)) / float64(k.Share(1)); used < .995 {
			t.Errorf("cached %.2f: %.4f of the share is used", part, used)
		}
	}
}

func TestTheShareIsUsedWhateverTheSizes(t *testing.T) {
	for seed := range uint64(4) {
		for _, part := range []float64{.1, .5, .9} {
			random := rand.New(rand.NewPCG(seed, 7))
			sizes := keepSkewedSizes(10_000, random)
			k := NewKeeper(int64(part * float64(keepSum(sizes))))
			k.Add(1, seed, int64(len(sizes)), keepSum(sizes), 1)
			for range 5 {
				keepEpoch(t, k, 1, sizes, random)
			}
			used := float64(k.Held(1)) / float64(k.Share(1))
			t.Logf("seed %d, cached %.1f: %.4f of the share used", seed, part, used)
			if used < .995 || used > 1 {
				t.Errorf("seed %d, cached %.1f: %.4f of the share used", seed, part, used)
			}
		}
	}
}

func TestFewChunksFillTheShareToTheLast(t *testing.T) {
	for chunks := 1; chunks <= 40; chunks++ {
		for fit := 0; fit <= chunks; fit++ {
			random := rand.New(rand.NewPCG(1, 7))
			sizes := keepEqualSizes(chunks, 10)
			k := NewKeeper(10*int64(fit) + 5)
			k.Add(1, uint64(fit), int64(chunks), keepSum(sizes), 1)
			for range 2 * chunks {
				keepEpoch(t, k, 1, sizes, random)
			}
			if k.Used() > k.Capacity() || int64(fit)-k.Used()/10 > 1 {
				t.Errorf("%d chunks, room for %d: %d stored", chunks, fit, k.Used()/10)
			}
		}
	}
}

func TestNodesAgreeWhateverTheOrder(t *testing.T) {
	sizes := keepSkewedSizes(3000, rand.New(rand.NewPCG(3, 3)))
	var nodes [3]*Keeper
	for n := range nodes {
		random := rand.New(rand.NewPCG(9, uint64(n)))
		nodes[n] = NewKeeper(keepSum(sizes) / 3)
		nodes[n].Add(1, 11, int64(len(sizes)), keepSum(sizes), 1)
		for range 8 {
			keepEpoch(t, nodes[n], 1, sizes, random)
		}
	}
	for i := range sizes {
		c := Chunk{1, int64(i)}
		for _, node := range nodes[1:] {
			if node.Keeps(c) != nodes[0].Keeps(c) || node.Has(c) != nodes[0].Has(c) {
				t.Fatalf("nodes disagree about chunk %d", i)
			}
		}
	}
}

func TestSeedsChooseIndependently(t *testing.T) {
	const chunks = 100_000
	k := NewKeeper(2 * chunks / 4)
	k.Add(1, 1, chunks, chunks, 1)
	k.Add(2, 2, chunks, chunks, 1)
	one, both := 0, 0
	for i := range int64(chunks) {
		if k.Keeps(Chunk{1, i}) {
			if one++; k.Keeps(Chunk{2, i}) {
				both++
			}
		}
	}
	if math.Abs(float64(one)/chunks-.25) > .005 || math.Abs(float64(both)/chunks-.0625) > .004 {
		t.Fatalf("%d of %d are kept, %d of both", one, chunks, both)
	}
}

func TestASecondDatasetReachesItsShareWithinAnEpoch(t *testing.T) {
	const chunks = 20_000
	sizes := keepEqualSizes(chunks, 8<<20)
	random := rand.New(rand.NewPCG(1, 5))
	k := NewKeeper(keepSum(sizes))
	k.Add(1, 1, chunks, keepSum(sizes), 1)
	keepEpoch(t, k, 1, sizes, random)
	if k.Held(1) != keepSum(sizes) {
		t.Fatalf("%d bytes held of a dataset that fits", k.Held(1))
	}
	k.Add(2, 2, chunks, keepSum(sizes), 3)
	keepEpoch(t, k, 2, sizes, random)
	one, two := float64(k.Held(1))/float64(k.Share(1)), float64(k.Held(2))/float64(k.Share(2))
	t.Logf("shares used: %.4f and %.4f", one, two)
	if k.Share(2) != keepSum(sizes)/4*3 || two < .98 || one < .98 {
		t.Fatalf("of its share of %d the second holds %.4f, the first %.4f", k.Share(2), two, one)
	}
	k.Remove(2)
	keepEpoch(t, k, 1, sizes, random)
	if k.Held(1) != keepSum(sizes) || k.Held(2) != 0 || k.Share(2) != 0 {
		t.Fatalf("after the second ended: %d and %d bytes held", k.Held(1), k.Held(2))
	}
}

func TestRoomIsMadeInTurn(t *testing.T) {
	k := NewKeeper(4000)
	k.Add(1, 1, 100, 1000, 1)
	k.Add(2, 2, 100, 1000, 1)
	for i := range int64(100) {
		k.Stored(Chunk{1, i}, 10)
		k.Stored(Chunk{2, i}, 10)
		k.Access(Chunk{3, i}, 10)
	}
	k.Remove(1)
	if dropped := keepObey(t, k); len(dropped) != 0 {
		t.Fatalf("%v was dropped while there is room", dropped[0])
	}
	k.SetCapacity(2500) // 1500 for the ended, 500 for the one in training
	k.Add(4, 4, 100, 1000, 2)
	k.SetCapacity(900)
	turn := map[DatasetID]int{1: 0, 2: 1, 3: 2}
	last := 0
	for _, c := range keepObey(t, k) {
		if turn[c.Dataset] < last {
			t.Fatalf("%v was dropped too late", c)
		}
		last = turn[c.Dataset]
	}
	if k.Held(1) != 0 || k.Held(2) == 0 || k.Used() > 900 {
		t.Fatalf("held %d and %d, %d bytes stored", k.Held(1), k.Held(2), k.Used())
	}
}

func TestALeaseThatBeginsAgainFindsWhatWasNotDropped(t *testing.T) {
	sizes := keepEqualSizes(1000, 10)
	random := rand.New(rand.NewPCG(1, 5))
	k := NewKeeper(5000)
	k.Add(1, 1, 1000, 10_000, 1)
	keepEpoch(t, k, 1, sizes, random)
	held := k.Held(1)
	k.Remove(1)
	k.Add(1, 1, 1000, 10_000, 1)
	if hits := keepEpoch(t, k, 1, sizes, random); int64(hits)*10 < held*99/100 {
		t.Fatalf("%d hits, %d bytes were held", hits, held)
	}
}

func TestWhatCameBeforeTheLeaseIsKept(t *testing.T) {
	k := NewKeeper(1000)
	for i := range int64(100) {
		k.Access(Chunk{1, i}, 10)
	}
	k.Add(1, 1, 100, 1000, 1)
	if k.Access(Chunk{2, 0}, 10); k.Has(Chunk{2, 0}) {
		if dropped := keepObey(t, k); len(dropped) != 1 || dropped[0].Dataset != 2 {
			t.Fatalf("%v was dropped", dropped)
		}
	}
	if k.Held(1)+k.sieve.bytes != 1000 {
		t.Fatalf("%d bytes held", k.Held(1))
	}
}

func TestOneCallExaminesLittle(t *testing.T) {
	const chunks = 500_000
	k := NewKeeper(chunks)
	k.Add(1, 1, chunks, chunks, 1)
	for i := range int64(chunks) {
		k.Stored(Chunk{1, i}, 1)
	}
	k.SetCapacity(chunks - 1) // hardly any chunk is to go, so it takes long to find one
	calls := 0
	for d := k.datasets[1]; !k.Settled(); calls++ {
		before, full := d.left, d.full
		k.Drop()
		if before-d.left > keepWork || d.full-full > keepWork {
			t.Fatalf("call %d passed %d chunks, and %d of the check", calls, before-d.left, d.full-full)
		}
	}
	if t.Logf("%d calls", calls); k.Over() > 0 || calls > 4*chunks/keepWork {
		t.Fatalf("%d bytes over after %d calls", k.Over(), calls)
	}
}

func TestMemoryIsABitAChunk(t *testing.T) {
	const chunks = 1_000_000
	k := NewKeeper(chunks << 20)
	k.Add(1, 1, chunks, chunks<<23, 1)
	for i := range int64(chunks) {
		if c := (Chunk{1, i}); k.Keeps(c) {
			k.Stored(c, 8<<20)
		}
	}
	d := k.datasets[1]
	if bytes := 8*len(d.stored.words) + 8*len(d.sizes.pages) + len(k.sieve.nodes) + len(k.pins.slots); bytes > chunks/8 {
		t.Fatalf("%d bytes for %d chunks", bytes, chunks)
	}
}

func TestNothingIsAllocatedInSteadyState(t *testing.T) {
	const chunks = 4096
	random, k := rand.New(rand.NewPCG(1, 1)), NewKeeper(2*chunks)
	k.Add(1, 1, chunks, 2*chunks, 1)
	k.Add(2, 2, chunks, 2*chunks, 1)
	step := func() {
		for range 1000 {
			c := Chunk{DatasetID(1 + random.IntN(3)), random.Int64N(chunks)}
			k.Pin(c)
			switch {
			case c.Dataset == 3:
				k.Access(c, 1+c.Number%3)
			case random.IntN(50) == 0:
				k.Dropped(c)
			default:
				k.Stored(c, 1+c.Number%3)
			}
			k.Unpin(c)
			for _, ok := k.Drop(); ok; _, ok = k.Drop() {
			}
		}
		k.SetCapacity(2*chunks + random.Int64N(100))
	}
	for range 100 {
		step()
	}
	if allocs := testing.AllocsPerRun(20, step); allocs != 0 {
		t.Fatalf("%v allocations", allocs)
	}
}

func TestBadInputDoesNoHarm(t *testing.T) {
	bad := []int64{math.MinInt64, -1, 0, 1, math.MaxInt64}
	for _, capacity := range bad {
		k := NewKeeper(capacity)
		for i, weight := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), 0, -1, math.MaxFloat64} {
			for j, bytes := range bad {
				id := DatasetID(10*i + j)
				k.Add(id, 1, int64(j)-1, bytes, weight)
				for _, number := range bad {
					c := Chunk{id, number}
					k.Pin(c)
					k.Access(c, bytes)
					k.Stored(c, bytes)
					k.Drop()
					k.Unpin(c)
					k.Unpin(c)
					if share := k.Share(id); share < 0 || share > max(0, capacity) {
						t.Fatalf("share %d of %d", share, capacity)
					}
				}
			}
		}
		if keepObey(t, k); k.Used() > max(0, capacity) {
			t.Fatalf("%d of %d bytes stored", k.Used(), capacity)
		}
		for id := range DatasetID(60) {
			k.Remove(id)
			k.Remove(id)
		}
		k.SetCapacity(-5)
		if keepObey(t, k); k.Used() != 0 || len(k.datasets) != 0 {
			t.Fatalf("%d bytes, %d datasets after the end", k.Used(), len(k.datasets))
		}
	}
}

func BenchmarkKeeps(b *testing.B) {
	k := NewKeeper(1 << 20)
	k.Add(1, 1, 1<<20, 1<<22, 1)
	kept, i := 0, int64(0)
	for b.Loop() {
		if k.Keeps(Chunk{1, i & (1<<20 - 1)}) {
			kept++
		}
		i++
	}
}

// BenchmarkArrival is a second dataset that takes half of the cache from the first: one
// chunk stored and one dropped for it.
func BenchmarkArrival(b *testing.B) {
	for _, chunks := range []int64{1 << 14, 1 << 20} {
		b.Run(fmt.Sprintf("chunks=%d", chunks), func(b *testing.B) {
			b.ReportAllocs()
			k, next := NewKeeper(chunks), chunks
			id := DatasetID(1)
			for b.Loop() {
				if next == chunks {
					b.StopTimer()
					k, next = NewKeeper(chunks), 0
					k.Add(1, 1, chunks, chunks, 1)
					for i := range chunks {
						k.Stored(Chunk{1, i}, 1)
					}
					id = 2
					k.Add(id, 2, chunks, chunks, 1)
					b.StartTimer()
				}
				if c := (Chunk{id, next}); k.Keeps(c) {
					k.Stored(c, 1)
				}
				for _, ok := k.Drop(); ok; _, ok = k.Drop() {
				}
				next++
			}
		})
	}
}
