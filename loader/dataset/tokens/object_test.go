package tokens

import (
	"testing"

	"github.com/stokerio/stoker/loader/dataset/internal/viewcheck"
)

func TestTheObjectOfANumberIsTheOneThatIsPlanned(t *testing.T) {
	store := writeFiles(t, map[string][]byte{"a.bin": make([]byte, 200), "b.bin": make([]byte, 20), "c.bin": make([]byte, 2)})
	idx := scanIndex(t, store, Options{})
	for block, want := range map[int64]int{1: 2, 9: 2, 10: 1} { // the longest rows do not fit all files
		v := openRows(t, idx, block)
		if seen, err := viewcheck.Objects(v); err != nil || seen != want || v.Objects() != 3 {
			t.Errorf("block_size %d: %d objects of %d, %v", block, seen, v.Objects(), err)
		}
	}
}
