package raw

import (
	"testing"

	"github.com/stokerio/stoker/loader/dataset/internal/viewcheck"
)

func TestTheObjectOfANumberIsTheOneThatIsPlanned(t *testing.T) {
	_, v := scanOpen(t, writeTree(t, map[string]string{"a/1": "one", "b/2": "", "b/33": "three", "4": "f"}), Options{})
	if seen, err := viewcheck.Objects(v); err != nil || seen != 4 {
		t.Errorf("%d objects, %v", seen, err)
	}
	var scratch []byte
	allocations := testing.AllocsPerRun(100, func() {
		if _, err := v.Object(2, &scratch); err != nil {
			t.Fatal(err)
		}
	})
	if allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
}
