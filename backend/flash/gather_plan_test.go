package flash

import (
	"bytes"
	"context"
	"testing"

	"github.com/stokerio/stoker/backend"
)

// TestNeighboursAreReadAtOnce counts the reads that a gather makes of a chunk.
func TestNeighboursAreReadAtOnce(t *testing.T) {
	const chunk = 10 // of 3 MiB and a bit
	type extent struct{ from, n int }
	for name, c := range map[string]struct {
		reads           []extent
		buffered, ditto int // reads by the page cache, and past it
	}{
		"nothing":                 {nil, 0, 0},
		"neighbours":              {[]extent{{100, 50}, {150, 50}, {200, 1000}}, 1, 1},
		"neighbours out of order": {[]extent{{200, 1000}, {100, 50}, {150, 50}}, 1, 1},
		"8 KiB between":           {[]extent{{0, 10}, {10 + 8192, 10}}, 1, 1},
		"more than 8 KiB":         {[]extent{{0, 10}, {10 + 8193, 10}}, 2, 1},
		"16 KiB between":          {[]extent{{0, 4096}, {20480, 10}}, 2, 1},
		"more than 16 KiB":        {[]extent{{0, 4096}, {24576, 10}}, 2, 2},
		"a ragged end":            {[]extent{{0, 53_148}, {53_248, 4096}}, 1, 2},
		"the same twice":          {[]extent{{0, 10}, {0, 10}}, 2, 1},
		"a block and a neighbour": {[]extent{{0, 1 << 20}, {1 << 20, 10}}, 2, 2},
		"two half blocks":         {[]extent{{0, 512 << 10}, {512 << 10, 512 << 10}}, 1, 1},
		"blocks of one read":      {[]extent{{0, 3 << 20}}, 3, 3},
	} {
		for _, direct := range []bool{false, true} {
			s := newStored(t, way{direct: direct, cold: true}, 1)
			want := c.buffered
			if direct {
				want = c.ditto
			}
			reads := []backend.Read{s.read(0, 0, 1, 0)} // a single read would not go by the ring
			chunks := []int{0}
			for _, e := range c.reads {
				reads, chunks = append(reads, s.read(chunk, e.from, e.n, 0)), append(chunks, chunk)
			}
			before := s.kernel.waited.Load()
			var report backend.GatherReport
			if err := s.Gather(context.Background(), reads, &report); err != nil {
				t.Fatal(err)
			}
			s.want(t, reads, chunks, &report)
			found := s.kernel.waited.Load() - before
			if found = max(0, found-1); len(c.reads) > 0 && found != int64(want) {
				t.Errorf("%s, direct %v: %d reads, want %d", name, direct, found, want)
			}
		}
	}
}

// TestABlockIsCheckedOnceForAllReadsOfACall reads many places of a block after a start.
func TestABlockIsCheckedOnceForAllReadsOfACall(t *testing.T) {
	for _, w := range ways() {
		s := newStored(t, w, 1)
		s.reopen()
		const chunk = 8 // of one block
		var reads []backend.Read
		var chunks []int
		for i := range 50 {
			reads, chunks = append(reads, s.read(chunk, i*20_000, 1000, i%3)), append(chunks, chunk)
		}
		var report backend.GatherReport
		for range 2 {
			if err := s.Gather(context.Background(), reads, &report); err != nil {
				t.Fatal(err)
			}
		}
		report = backend.GatherReport{CachedBytes: report.CachedBytes / 2, DiskBytes: report.DiskBytes / 2}
		s.want(t, reads, chunks, &report)
		if n := s.Stats().Devices[0].Reads.CheckedBytes; n != 1<<20 {
			t.Errorf("%s: %d bytes were checked, want one block", w.name, n)
		}
	}
}

// TestAGatherUsesFewLargeBuffers checks many blocks at once.
func TestAGatherUsesFewLargeBuffers(t *testing.T) {
	for _, w := range ways() {
		s := newStored(t, w, 1)
		var reads []backend.Read
		var chunks []int
		for i := range 20 {
			content := bytes.Repeat([]byte{byte(i)}, 1<<20)
			s.add(3*i+1, content)
			chunk := len(s.chunks) - 1
			reads, chunks = append(reads, s.read(chunk, 77, 100, 0)), append(chunks, chunk)
		}
		s.options.Reads = 32
		s.reopen()
		var report backend.GatherReport
		if err := s.Gather(context.Background(), reads, &report); err != nil {
			t.Fatal(err)
		}
		s.want(t, reads, chunks, &report)
		if n := len(s.buffers.sizes[1]); n == 0 || n > largeAtMost {
			t.Errorf("%s: %d large buffers", w.name, n)
		}
	}
}

func TestAQueueIsNeverGivenMoreThanItHolds(t *testing.T) {
	s := newStored(t, way{direct: true}, 2)
	s.kernel.room = 3
	reads, chunks := s.apart(40)
	var report backend.GatherReport
	if err := s.Gather(context.Background(), reads, &report); err != nil {
		t.Fatal(err)
	}
	s.want(t, reads, chunks, &report)
	if n := s.kernel.most.Load(); n != 3 {
		t.Errorf("%d reads were in the queue, want 3", n)
	}
}
