package flash_test

import (
	"context"
	"testing"
	"time"

	"github.com/stokerio/stoker/backend/flash/flashtest"
)

func TestChurnLosesLittle(t *testing.T) {
	for name, mix := range map[string]flashtest.Mix{
		"fixed": flashtest.Fixed, "images": flashtest.Images, "shards": flashtest.Shards, "shifting": flashtest.Shifting,
	} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			r, err := flashtest.Churn(context.Background(), flashtest.ChurnOptions{Mix: mix, Seed: 1})
			if err != nil {
				t.Fatal(err)
			}
			for h, u := range r.Hours {
				t.Logf("hour %d: live %.4f fits %.4f lost %.4f", h+1, float64(u.Live)/float64(u.Limit), float64(u.Fits)/float64(u.Limit), u.Lost())
			}
			t.Log(r.Arrivals, r.Refused, time.Since(begun))
		})
	}
}
