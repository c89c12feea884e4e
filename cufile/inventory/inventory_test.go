package inventory

import "testing"

func TestALinkOfUnknownKindHasNoRate(t *testing.T) {
	for link, want := range map[Link]int64{
		{}:                                0,
		{GenerationMax: 99, WidthMax: 16}: 0,
		{GenerationMax: 1, WidthMax: 1}:   250_000_000,
		{GenerationMax: 4, WidthMax: 16}:  31_507_692_307,
	} {
		if got := link.BytesPerSecondMax(); got != want {
			t.Errorf("%+v: %d, want %d", link, got, want)
		}
	}
}
