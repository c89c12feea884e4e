package sim

import (
	"math"
	"testing"
	"time"

	"github.com/stokerio/stoker/prefetch"
	"pgregory.net/rapid"
)

func TestMetersFindTheBusiestSecond(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const ms = prefetch.Time(time.Millisecond)
		from := prefetch.Time(rapid.IntRange(0, 2000).Draw(t, "from")) * ms
		m := meter{from: from}
		tenths := make([]float64, 1000) // bytes of each tenth of a second
		total := 0.0
		for now := prefetch.Time(0); now < 20*prefetch.Time(time.Second); {
			begin := now + ms*prefetch.Time(rapid.IntRange(0, 2500).Draw(t, "idle"))
			now = begin + ms*prefetch.Time(rapid.IntRange(0, 1500).Draw(t, "busy"))
			bytes := float64(rapid.IntRange(0, 1e6).Draw(t, "bytes"))
			m.add(begin, now, bytes)
			for at := begin; at < now; at += ms {
				if at >= from {
					tenths[at/(100*ms)] += bytes / float64((now-begin)/ms)
					total += bytes / float64((now-begin)/ms)
				}
			}
			if begin == now && begin >= from {
				tenths[now/(100*ms)] += bytes
				total += bytes
			}
		}
		m.close()
		peak := 0.0
		for i := range tenths {
			sum := 0.0
			for _, bytes := range tenths[max(0, i-9) : i+1] {
				sum += bytes
			}
			peak = max(peak, sum)
		}
		if math.Abs(m.total-total) > 1 || math.Abs(m.peak-peak) > 1 {
			t.Fatalf("%.1f bytes, %.1f in a second; want %.1f and %.1f", m.total, m.peak, total, peak)
		}
	})
}
