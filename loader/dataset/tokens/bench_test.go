package tokens

import (
	"fmt"
	"testing"

	"github.com/stokerio/stoker/loader/dataset"
)

func BenchmarkPlan(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("files=%d/batch=64", n), func(b *testing.B) {
			files := map[string][]byte{}
			for i := range n {
				files[fmt.Sprintf("%05d.bin", i)] = make([]byte, 2*10_001)
			}
			v := openRows(b, scanIndex(b, writeFiles(b, files), Options{}), 10)
			var p dataset.Plan
			rows, round := make([]int64, 64), int64(0)
			for b.Loop() {
				for i := range rows {
					rows[i] = (round*64 + int64(i)) * 79_190_911 % v.Len()
				}
				round++
				if err := v.Plan(&p, rows); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
