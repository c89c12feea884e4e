package flash

import (
	"testing"

	"pgregory.net/rapid"
)

// Pieces never overlap, are zero when they are lent, and cost no mapping once all are back.
func TestSlabsLendEachPieceOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s slabs
		type lent struct {
			loan
			stamp uint64
		}
		var all []lent
		stamp := uint64(0)
		sizes := []int{1, 55, 80, 4096, slabWords/2 + 1, slabWords + 1}
		t.Repeat(map[string]func(*rapid.T){
			"lend": func(t *rapid.T) {
				n := rapid.SampledFrom(sizes).Draw(t, "words")
				l := lent{s.lend(n), stamp + 1}
				stamp++
				words := l.words()
				if len(words) != n {
					t.Fatalf("%d words for %d", len(words), n)
				}
				for i := range words {
					if words[i] != 0 {
						t.Fatalf("word %d of %d is %d", i, n, words[i])
					}
					words[i] = l.stamp
				}
				all = append(all, l)
			},
			"give back": func(t *rapid.T) {
				if len(all) == 0 {
					t.Skip("nothing is lent")
				}
				i := rapid.IntRange(0, len(all)-1).Draw(t, "which")
				l := all[i]
				for _, w := range l.words() {
					if w != l.stamp {
						t.Fatalf("somebody else wrote %d to the piece of %d", w, l.stamp)
					}
				}
				s.giveBack(l.loan)
				all[i] = all[len(all)-1]
				all = all[:len(all)-1]
			},
		})
		for _, l := range all {
			s.giveBack(l.loan)
		}
		for words, open := range s.open {
			if len(open) > 0 {
				t.Fatalf("%d mappings of pieces of %d words are left", len(open), words)
			}
		}
	})
}

// Spans of the largest chunks share mappings: a process has few.
func TestSmallSpansShareMappings(t *testing.T) {
	const spans = 4096
	var s slabs
	words := 8*slotWords + crcWords(8*maxBlocks)
	used := map[*slab]bool{}
	for range spans {
		used[s.lend(words).slab] = true
	}
	if most := spans*words/slabWords + 2; len(used) > most {
		t.Errorf("%d mappings for %d spans, %d would do", len(used), spans, most)
	}
}
