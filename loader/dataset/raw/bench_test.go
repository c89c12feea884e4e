package raw

import (
	"context"
	"fmt"
	"testing"

	"github.com/stokerio/stoker/loader/dataset"
)

func BenchmarkPlan(b *testing.B) {
	for _, files := range []int{10_485, 1_000_000} {
		b.Run(fmt.Sprintf("files=%d/batch=64", files), func(b *testing.B) {
			_, v := scanOpen(b, synthetic{files: files}, Options{})
			var p dataset.Plan
			samples := make([]int64, 64)
			round := int64(0)
			for b.Loop() {
				for i := range samples {
					samples[i] = (round*64 + int64(i)) * 79_190_911 % v.Len()
				}
				round++
				if err := v.Plan(&p, samples); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkScan(b *testing.B) {
	const files = 1_000_000
	for b.Loop() {
		if _, err := Scan(context.Background(), synthetic{files: files}, Options{}, b.TempDir(), nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/files, "ns/file")
}
