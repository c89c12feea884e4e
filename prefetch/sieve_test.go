package prefetch

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// sieveModel is SIEVE as its paper tells it, over a slice: the newest first.
type sieveModel struct {
	capacity, bytes int64
	list            []sieveModelEntry
	hand            int // index of the entry to look at next; -1: begin at the oldest
}

type sieveModelEntry struct {
	number, size int64
	visited      bool
}

// access says whether it hit.
func (m *sieveModel) access(number, size int64) bool {
	for i := range m.list {
		if m.list[i].number == number {
			m.list[i].visited = true
			return true
		}
	}
	if size > m.capacity {
		return false
	}
	for m.bytes+size > m.capacity {
		m.evict()
	}
	m.list = append([]sieveModelEntry{{number: number, size: size}}, m.list...)
	if m.hand >= 0 {
		m.hand++
	}
	m.bytes += size
	return false
}

func (m *sieveModel) evict() {
	if m.hand < 0 {
		m.hand = len(m.list) - 1
	}
	for m.list[m.hand].visited {
		m.list[m.hand].visited = false
		if m.hand--; m.hand < 0 {
			m.hand = len(m.list) - 1
		}
	}
	m.bytes -= m.list[m.hand].size
	m.list = append(m.list[:m.hand], m.list[m.hand+1:]...)
	m.hand--
}

func TestWithoutLeasesItIsSieve(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.Int64Range(1, 40).Draw(t, "capacity")
		k, model := NewKeeper(capacity), &sieveModel{capacity: capacity, hand: -1}
		biggest := rapid.Int64Range(1, 5).Draw(t, "biggest")
		for _, number := range rapid.SliceOfN(rapid.Int64Range(0, 60), 1, 300).Draw(t, "accesses") {
			c, size := Chunk{0, number}, 1+number%biggest
			hit := k.Has(c)
			k.Access(c, size)
			keepObey(t, k)
			if want := model.access(number, size); hit != want {
				t.Fatalf("access of %d: hit %v, want %v", number, hit, want)
			}
			if k.Used() != model.bytes {
				t.Fatalf("%d bytes stored, want %d", k.Used(), model.bytes)
			}
		}
	})
}

func TestSieveHitsPermutedEpochsAsOthersFound(t *testing.T) {
	const chunks = 4000
	for c, want := range map[float64]float64{.10: .032, .25: .139, .50: .389, .75: .681, .90: .870} {
		random, k := rand.New(rand.NewPCG(1, 2)), NewKeeper(int64(c*chunks))
		hits, epochs := 0, 23
		for epoch := range epochs {
			for _, number := range random.Perm(chunks) {
				if k.Has(Chunk{0, int64(number)}) && epoch >= 2 {
					hits++
				}
				k.Access(Chunk{0, int64(number)}, 1)
				keepObey(t, k)
			}
		}
		if got := float64(hits) / float64(chunks*(epochs-2)); got < want-.015 || got > want+.015 {
			t.Errorf("cached %.2f: hit ratio %.3f, want %.3f", c, got, want)
		}
	}
}

func TestSieveTakesOnlyWhatTheDatasetsLeave(t *testing.T) {
	k := NewKeeper(1000)
	k.Add(1, 1, 60, 600, 1)
	for i := range int64(60) {
		k.Stored(Chunk{1, i}, 10)
	}
	for i := range int64(1000) {
		if !k.Access(Chunk{9, i}, 10) {
			t.Fatalf("access %d was not kept, though 400 bytes are left", i)
		}
		for _, c := range keepObey(t, k) {
			if c.Dataset == 1 {
				t.Fatalf("%v was dropped for an access without a future", c)
			}
		}
	}
	if k.Used() != 1000 || k.Held(1) != 600 {
		t.Fatalf("%d bytes stored, %d of the dataset", k.Used(), k.Held(1))
	}
	if k.Access(Chunk{9, 5000}, 500) || k.Access(Chunk{9, 5001}, 0) || k.Access(Chunk{9, 5002}, -1) {
		t.Fatal("kept a chunk that there is no room for, or of no size")
	}
}

func TestWhatIsReadAfterItsLeaseBecomesSieves(t *testing.T) {
	k := NewKeeper(1000)
	k.Add(1, 1, 100, 1000, 1)
	for i := range int64(100) {
		k.Stored(Chunk{1, i}, 10)
	}
	k.Remove(1)
	k.Access(Chunk{1, 7}, 10)
	k.SetCapacity(10)
	keepObey(t, k)
	if !k.Has(Chunk{1, 7}) || k.Used() != 10 || k.Held(1) != 0 {
		t.Fatalf("%d bytes stored, want those of the chunk read last", k.Used())
	}
}

func BenchmarkSieveAccess(b *testing.B) {
	for _, entries := range []int64{1 << 10, 1 << 18} {
		b.Run(fmt.Sprintf("entries=%d", entries), func(b *testing.B) {
			random, k := rand.New(rand.NewPCG(1, 2)), NewKeeper(entries)
			b.ReportAllocs()
			for b.Loop() {
				k.Access(Chunk{0, random.Int64N(2 * entries)}, 1)
				k.Drop()
			}
		})
	}
}
