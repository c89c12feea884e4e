package flash

import (
	"context"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

// TestADeviceThatRefusesDirectReadsIsReadThroughThePageCache has the kernel say so when the
// first read is made.
func TestADeviceThatRefusesDirectReadsIsReadThroughThePageCache(t *testing.T) {
	s := newStored(t, way{direct: true}, 1)
	s.kernel.fail = unix.EINVAL
	reads := []backend.Read{s.read(5, 0, 100, 0), s.read(6, 0, 100, 0), s.read(10, 5, 3<<20, 0)}
	for range 2 {
		var report backend.GatherReport
		if err := s.Gather(context.Background(), reads, &report); err != nil {
			t.Fatal(err)
		}
		s.want(t, reads, []int{5, 6, 10}, &report)
	}
	if s.kernel.failed.Load() == 0 || len(s.events) != 1 || s.events[0].Kind != DeviceWarning {
		t.Errorf("%d reads failed, events %+v", s.kernel.failed.Load(), s.events)
	}
}

// TestADeviceThatRefusesARead has the kernel refuse reads that are said to be aligned.
func TestADeviceThatRefusesARead(t *testing.T) {
	for _, goroutines := range []bool{false, true} {
		s := newStored(t, way{direct: true, goroutines: goroutines}, 1)
		reads := []backend.Read{s.read(5, 7, 100, 1), s.read(10, 5, 3<<20, 1), s.read(6, 7, 100, 0)}
		at, err := s.Locate(context.Background(), s.chunks[5], backend.Range{Length: 1})
		if err != nil {
			t.Fatal(err)
		}
		at.Release()
		held, _, err := s.acquire("look", &s.chunks[5], 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		b := held.span.segment.bypass()
		b.memory, b.offset = 1, 1
		held.release()
		if goroutines {
			if err := s.ReadAt(context.Background(), reads[0].Chunk, reads[0].P, reads[0].Offset); err != nil {
				t.Error(err)
			}
		}
		var report backend.GatherReport
		if err := s.Gather(context.Background(), reads, &report); err != nil {
			t.Fatal(err)
		}
		s.want(t, reads, []int{5, 10, 6}, &report)
		if len(s.events) != 1 || s.events[0].Kind != DeviceWarning {
			t.Errorf("events %+v", s.events)
		}
	}
}

func TestAFileThatCannotBeReadDirectlySaysSo(t *testing.T) {
	f, err := os.Open("/proc/self/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var b bypass
	if err := b.open(int(f.Fd())); err == nil {
		t.Error("it can")
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
}
