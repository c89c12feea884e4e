package flash_test

import (
	"context"
	"testing"

	"github.com/stokerio/stoker/backend/flash/flashtest"
)

// After a simulated day at 95 % full, little room neither holds chunks nor takes those that
// come next; and what was kept did not have to give way much, which it would if room were
// free where nothing comes.
func TestADayOfChurnLosesLittle(t *testing.T) {
	for name, mix := range map[string]flashtest.Mix{
		"fixed": flashtest.Fixed, "images": flashtest.Images, "shards": flashtest.Shards, "shifting": flashtest.Shifting,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := flashtest.Churn(context.Background(), flashtest.ChurnOptions{Mix: mix, Seed: 1, Turnover: 0.25})
			if err != nil {
				t.Fatal(err)
			}
			for h, u := range r.Hours {
				t.Logf("hour %d: %.4f hold chunks, %.4f take what comes, %.4f are lost", h+1, float64(u.Live)/float64(u.Limit), float64(u.Fits)/float64(u.Limit), u.Lost())
			}
			if lost := r.Lost(); lost > 0.05 {
				t.Errorf("%.4f of the capacity is lost, more than 0.05", lost)
			}
			last := r.Hours[len(r.Hours)-1]
			if live := float64(last.Live) / float64(last.Limit); live < 0.88 {
				t.Errorf("only %.4f of the capacity hold chunks", live)
			}
			if r.Refused > 0 {
				t.Errorf("%d of %d chunks were refused", r.Refused, r.Arrivals)
			}
		})
	}
}
