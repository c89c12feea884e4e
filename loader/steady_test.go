package loader

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stokerio/stoker/shm"
)

// tokenDirectory makes a sparse file of that many uint16 tokens.
func tokenDirectory(t testing.TB, tokens int64) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "train.bin")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 2*tokens); err != nil {
		t.Fatal(err)
	}
	return dir
}

// drain takes and releases entries.
func drain(t testing.TB, c *client, entries int) {
	for range entries {
		e, ok := c.consumer.Take(10 * time.Second)
		if !ok || e.Kind == shm.KindError {
			t.Fatalf("entry %+v, %v", e, ok)
		}
		if e.Slot != shm.NoSlot {
			c.consumer.Release(e)
		}
	}
}

func TestABatchAllocatesNothingInSteadyState(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir, _ := writeFiles(t, 300, func(i int) int { return 1000 + i })
	n.add("files", dir)
	n.add("tokens", tokenDirectory(t, 1<<20))
	for _, name := range []string{"files", "tokens"} {
		for _, order := range []string{"global", "windowed", "sequential"} {
			request := openRequest(name)
			request.Order, request.BatchSize, request.Window = order, 32, 64
			if name == "tokens" {
				request.BlockSize = 128
			}
			c := n.openSession(request)
			drain(t, c, 500) // scratch grows to its final size
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			const batches = 2000
			drain(t, c, batches)
			runtime.ReadMemStats(&after)
			// The test's own goroutine and the runtime allocate a little now and then.
			if mallocs := after.Mallocs - before.Mallocs; mallocs > batches/20 {
				t.Errorf("%s, %s: %d allocations in %d batches", name, order, mallocs, batches)
			}
			_ = c.Close()
		}
	}
}

// BenchmarkSession is the daemon's side alone: the consumer looks at nothing. All is in the
// page cache, where reading ahead must cost nothing.
func BenchmarkSession(b *testing.B) {
	for _, prefetch := range []string{"on", "off"} {
		b.Run("prefetch="+prefetch, func(b *testing.B) { benchSession(b, prefetch == "off") })
	}
}

func benchSession(b *testing.B, prefetchOff bool) {
	options := testOptions(b)
	options.Session.Readers, options.Session.RingBytesMax = 1, 256<<20
	options.Prefetch.Off = prefetchOff
	n := startNode(b, options)
	dir, _ := writeFiles(b, 2000, func(int) int { return 100_000 })
	n.add("files", dir)
	n.add("tokens", tokenDirectory(b, 64<<20))
	for _, name := range []string{"files", "tokens"} {
		b.Run("dataset="+name, func(b *testing.B) {
			request := openRequest(name)
			request.Order, request.BatchSize = "global", 64
			bytes := int64(64 * 100_000)
			if name == "tokens" {
				request.BlockSize, bytes = 2048, 64*2049*2
			}
			c := n.openSession(request)
			drain(b, c, 50)
			b.SetBytes(bytes)
			b.ReportAllocs()
			for b.Loop() {
				drain(b, c, 1)
			}
			_ = c.Close()
		})
	}
}
