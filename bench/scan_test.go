package bench

import (
	"slices"
	"testing"
)

func TestHeadersInOnePageAreReadTogether(t *testing.T) {
	members := []member{
		{0, 512, 10}, {0, 1536, 10}, {0, 4096, 10}, {0, 4608, 100_000}, {0, 105_472, 1}, {1, 512, 10},
	}
	want := [][]int64{{0, 4096, 102_400}, {0}}
	got := headerPages(members)
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %v, want %v", got, want)
	}
}
