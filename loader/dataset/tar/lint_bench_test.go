package tar

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/internal/dirstore"
)

// BenchmarkLint compares a lint with a scan of the same shards. An operation is all of
// them.
func BenchmarkLint(b *testing.B) {
	for _, sample := range []int{4 << 10, 100 << 10} {
		dir := b.TempDir()
		for i := range 4 {
			src, _ := benchArchive(b, 64<<20, sample)
			if err := os.Rename(src.Name(), filepath.Join(dir, fmt.Sprintf("%d.tar", i))); err != nil {
				b.Fatal(err)
			}
		}
		store := opener{dirstore.Store{Dir: dir}}
		label := fmt.Sprintf("sample=%dKiB", sample>>10)
		b.Run(label+"/of=scan", func(b *testing.B) {
			for range b.N {
				if _, err := Scan(context.Background(), store, Options{}, b.TempDir(), nil); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(label+"/of=lint", func(b *testing.B) {
			for range b.N {
				if _, err := Lint(context.Background(), store, Options{}, func(dataset.Finding) error { return nil }, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
