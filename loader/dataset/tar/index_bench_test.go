package tar

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/internal/dirstore"
)

func BenchmarkPlan(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} { // in memory, mapped
		b.Run(fmt.Sprintf("samples=%d", n), func(b *testing.B) {
			s := manySamples(b, 10, n/10)
			v := s.view(b, ViewOptions{})
			var p dataset.Plan
			batch := make([]int64, 256)
			r := rand.New(rand.NewPCG(1, 2))
			b.ResetTimer()
			for i := 0; i < b.N; i += len(batch) {
				for k := range batch {
					batch[k] = r.Int64N(v.Len())
				}
				if err := v.Plan(&p, batch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkScanMillionSamples(b *testing.B) {
	for range b.N {
		s := manySamples(b, 1, 1_000_000)
		b.ReportMetric(float64(s.info.Samples)*float64(b.N)/b.Elapsed().Seconds(), "samples/s")
	}
}

// BenchmarkScanFiles compares the scan of shards in the page cache with preads of 4 KiB
// at the same headers.
func BenchmarkScanFiles(b *testing.B) {
	const count, samples, size = 4, 2000, 100_000
	dir := b.TempDir()
	store := &synthetic{shards: count, samples: samples, size: size}
	for i := range count {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%d.tar", i)))
		if err != nil {
			b.Fatal(err)
		}
		block, r := make([]byte, 1<<20), synthReader{store, new([blockBytes]byte)}
		for at := int64(0); at < store.bytes(); at += int64(len(block)) {
			n := min(int64(len(block)), store.bytes()-at)
			if err := r.ReadAt(block[:n], at); err != nil {
				b.Fatal(err)
			}
			if _, err := f.Write(block[:n]); err != nil {
				b.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("scan", func(b *testing.B) {
		for b.Loop() {
			if _, err := Scan(context.Background(), opener{dirstore.Store{Dir: dir}}, Options{}, b.TempDir(), nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bare", func(b *testing.B) {
		page := make([]byte, 4096)
		for b.Loop() {
			for i := range count {
				f, err := os.Open(filepath.Join(dir, fmt.Sprintf("%d.tar", i)))
				if err != nil {
					b.Fatal(err)
				}
				for n := range int64(samples) {
					// The header of the image, and that of the class with the next image's.
					for _, at := range []int64{n * synthStride(size), n*synthStride(size) + blockBytes + padded(size)} {
						if _, err := f.ReadAt(page, at); err != nil {
							break
						}
					}
				}
				_ = f.Close()
			}
		}
	})
}

// opener is a directory whose files stay open while they are scanned.
type opener struct{ dirstore.Store }

func (o opener) OpenObject(_ context.Context, object *backend.Object) (backend.Reader, error) {
	f, err := os.Open(filepath.Join(o.Dir, string(object.Name)))
	return openFile{f}, err
}

type openFile struct{ *os.File }

func (f openFile) ReadAt(p []byte, off int64) error {
	_, err := f.File.ReadAt(p, off)
	return err
}
