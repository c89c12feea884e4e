package sim

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// policies are the caches that need no future.
var policies = []struct {
	name string
	make func(capacity int64) Cache
}{
	{"lru", func(c int64) Cache { return NewLRU(c) }},
	{"sieve", func(c int64) Cache { return NewSIEVE(c) }},
	{"s3fifo", func(c int64) Cache { return NewS3FIFO(c) }},
	{"never-evict", func(c int64) Cache { return NewNeverEvict(c) }},
}

func cacheNamed(name string, capacity int64) Cache {
	for _, p := range policies {
		if p.name == name {
			return p.make(capacity)
		}
	}
	panic(name)
}

// unit is a sequence of items of one byte.
func unit(items []int64) []Access {
	sequence := make([]Access, len(items))
	for i, item := range items {
		sequence[i] = Access{item, 1}
	}
	return sequence
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s: %.4f, want %.4f within %.4f", what, got, want, tolerance)
	}
}

// play returns h for each hit of a sequence and . for each miss.
func play(c Cache, text string) string {
	var hits []byte
	for _, letter := range text {
		if c.Access(int64(letter), 1) {
			hits = append(hits, 'h')
		} else {
			hits = append(hits, '.')
		}
	}
	return string(hits)
}

func TestPoliciesFollowTheirTextbookTraces(t *testing.T) {
	for _, test := range []struct {
		name     string
		capacity int64
		trace    string
		want     string
	}{
		{"lru", 3, "abcabcdacb", "...hhh..h."},
		{"lru", 3, "abcadab", "...h.h."},
		{"lru", 3, "abcdabcd", "........"}, // a scan one larger than the cache
		{"never-evict", 3, "abcdabcd", "....hhh."},
		// The paper's figure 1 in small: a is asked for again, so the hand forgives it and
		// drops b; it stays where it is, so that c goes next and not a, which came before.
		{"sieve", 3, "abcadbab", "...h..h" + "h"},
		{"sieve", 3, "abcaadeaf", "...hh..h."},
		{"sieve", 2, "abcabc", "......"},
		// Ten slots, one of them small: what is asked for once goes through that one, and
		// its name is known when it comes back, so it enters the main queue.
		{"s3fifo", 10, "aaabbbcdefghijkalb", ".hh.hh.........h.h"},
		{"s3fifo", 2, "abab", "..hh"},
	} {
		if got := play(cacheNamed(test.name, test.capacity), test.trace); got != test.want {
			t.Errorf("%s of %d: %s\n got %s\nwant %s", test.name, test.capacity, test.trace, got, test.want)
		}
	}
}

func TestLRUEqualsItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.IntRange(1, 6).Draw(t, "capacity")
		items := rapid.SliceOf(rapid.Int64Range(0, 8)).Draw(t, "items")
		lru := NewLRU(int64(capacity))
		for i, item := range items {
			distinct := map[int64]bool{} // since the last access
			want := false
			for k := i - 1; k >= 0 && !want; k-- {
				distinct[items[k]] = true
				want = items[k] == item && len(distinct) <= capacity
				if items[k] == item {
					break
				}
			}
			if got := lru.Access(item, 1); got != want {
				t.Fatalf("access %d of %v with room for %d: hit %v, want %v", i, items, capacity, got, want)
			}
		}
	})
}

// bestBytes is the most bytes that any choice of what to hold could hit: a search through
// all of them.
func bestBytes(sequence []Access, capacity int64) int64 {
	known := map[string]int64{}
	var search func(i int, held []Access) int64
	search = func(i int, held []Access) int64 {
		if i == len(sequence) {
			return 0
		}
		key := fmt.Sprint(i, held)
		if best, ok := known[key]; ok {
			return best
		}
		a, gain := sequence[i], int64(0)
		at := slices.Index(held, a)
		if at >= 0 {
			gain = a.Bytes
			held = slices.Delete(slices.Clone(held), at, at+1)
		}
		all := append(slices.Clone(held), a)
		best := int64(0)
		for choice := range 1 << len(all) {
			var kept []Access
			var bytes int64
			for k, h := range all {
				if choice>>k&1 != 0 {
					kept = append(kept, h)
					bytes += h.Bytes
				}
			}
			if bytes <= capacity {
				slices.SortFunc(kept, func(a, b Access) int { return int(a.Item - b.Item) })
				best = max(best, search(i+1, kept))
			}
		}
		known[key] = gain + best
		return gain + best
	}
	return search(0, nil)
}

func TestOPTHitsAsMuchAsAnyChoiceCould(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.Int64Range(0, 3).Draw(t, "capacity")
		items := rapid.SliceOfN(rapid.Int64Range(0, 4), 0, 9).Draw(t, "items")
		sequence := unit(items)
		o := NewOPT(capacity, sequence)
		hits := int64(0)
		for _, a := range sequence {
			if o.Access(a.Item, a.Bytes) {
				hits++
			}
		}
		if best := bestBytes(sequence, capacity); hits != best || o.HitBytes() != best {
			t.Fatalf("%v with room for %d: %d hits, %d bytes; the best is %d", items, capacity, hits, o.HitBytes(), best)
		}
	})
}

func TestOPTOfUnequalSizesIsABound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.Int64Range(0, 8).Draw(t, "capacity")
		sizes := rapid.SliceOfN(rapid.Int64Range(1, 4), 4, 4).Draw(t, "sizes")
		var sequence []Access
		for _, item := range rapid.SliceOfN(rapid.Int64Range(0, 3), 0, 9).Draw(t, "items") {
			sequence = append(sequence, Access{item, sizes[item]})
		}
		o := NewOPT(capacity, sequence)
		for _, a := range sequence {
			o.Access(a.Item, a.Bytes)
			if o.used > capacity {
				t.Fatalf("%d bytes held with room for %d", o.used, capacity)
			}
		}
		if best := bestBytes(sequence, capacity); o.HitBytes() < best && !equal(sequence) {
			t.Fatalf("%v with room for %d: %d bytes, and %d can be had", sequence, capacity, o.HitBytes(), best)
		}
	})
}

func equal(sequence []Access) bool {
	return equalSize(foreseen{accesses: sequence}) > 0 || len(sequence) == 0
}

func TestNoPolicyHitsMoreThanOPT(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.Int64Range(1, 40).Draw(t, "capacity")
		items := rapid.SliceOfN(rapid.Int64Range(0, 60), 1, 400).Draw(t, "items")
		best := HitRatio(NewOPT(capacity, unit(items)), items, 0)
		for _, p := range policies {
			if got := HitRatio(p.make(capacity), items, 0); got > best {
				t.Fatalf("%s: %v, OPT %v", p.name, got, best)
			}
		}
	})
}

func TestNoPolicyHoldsMoreThanItMay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.Int64Range(1, 30).Draw(t, "capacity")
		sizes := rapid.SliceOfN(rapid.Int64Range(1, 12), 16, 16).Draw(t, "sizes")
		lru, sieve, s3 := NewLRU(capacity), NewSIEVE(capacity), NewS3FIFO(capacity)
		never := NewNeverEvict(capacity)
		for _, item := range rapid.SliceOf(rapid.Int64Range(0, 15)).Draw(t, "items") {
			for _, c := range []Cache{lru, sieve, s3, never} {
				c.Access(item, sizes[item])
			}
			held := []int64{lru.recent.bytes, sieve.arrived.bytes, s3.queues[small].bytes + s3.queues[main].bytes, never.used}
			if slices.Max(held) > capacity {
				t.Fatalf("%v bytes held with room for %d", held, capacity)
			}
		}
	})
}

func TestOPTPanicsForAnotherSequence(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("it took an access that is not the sequence's")
		}
	}()
	NewOPT(1, unit([]int64{1, 2})).Access(2, 1)
}
