package sim

import (
	"reflect"
	"testing"
	"time"

	"github.com/stokerio/stoker/prefetch"
	"pgregory.net/rapid"
)

var (
	_ Decider = (*prefetch.Planner)(nil)
	_ Holder  = (*prefetch.Planner)(nil)
	_ Decider = (*Fixed)(nil)
)

func TestPlannersPlayAnyWorldAndLoseNoByte(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := anyWorld(rt)
		options := prefetch.Options{
			WindowBytes: rapid.SampledFrom([]int64{0, 20_000}).Draw(rt, "window"),
			HedgeShare:  rapid.SampledFrom([]float64{0, .1}).Draw(rt, "hedges"),
			Far:         rapid.Bool().Draw(rt, "far"),
			MaxFlights:  rapid.SampledFrom([]int{0, 3}).Draw(rt, "flights"),
			Cut:         prefetch.CutOptions{Overhead: time.Millisecond, Bandwidth: 1e6, Billed: rapid.Bool().Draw(rt, "billed")},
		}
		options.Links[prefetch.Origin].Rate = w.Links[0].BytesPerSecond
		play := func() *Result {
			r, err := Run(w, func(node int) Decider {
				o := options
				o.Capacity = w.Nodes[node].CacheBytes
				return prefetch.New(o)
			})
			if err != nil {
				rt.Fatal(err)
			}
			return r
		}
		first, second := play(), play()
		if !reflect.DeepEqual(first, second) {
			rt.Fatalf("%+v\n%+v", first, second)
		}
		if checkBytes(t, first); t.Failed() {
			rt.FailNow()
		}
		for i, n := range first.Nodes {
			if n.CacheBytes > w.Nodes[i].CacheBytes {
				rt.Fatalf("node %d holds %d bytes with room for %d", i, n.CacheBytes, w.Nodes[i].CacheBytes)
			}
		}
	})
}
