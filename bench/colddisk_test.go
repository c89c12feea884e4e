package bench

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// onMemory reports whether a directory is one of memory, which nothing can be dropped from.
func onMemory(t *testing.T, dir string) bool {
	t.Helper()
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Type == unix.TMPFS_MAGIC || stat.Type == unix.RAMFS_MAGIC
}

func TestAConsumerOfAColdDiskIsMeasured(t *testing.T) {
	dir := t.TempDir()
	steps := 0
	o := ColdDiskOptions{DataDir: dir, Samples: 4 * coldBatch, Repeats: 2, WarmUp: 1, Progress: func(done, total int, _ string) {
		if steps++; done > total {
			t.Errorf("step %d of %d", done, total)
		}
	}}
	r, err := ColdDisk(t.Context(), o)
	if onMemory(t, dir) {
		if err == nil || !strings.Contains(err.Error(), "choose a data directory on a disk") {
			t.Errorf("files in memory: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 2*2*2 || steps < len(r.Rows) {
		t.Fatalf("%d rows, %d steps", len(r.Rows), steps)
	}
	for _, row := range r.Rows {
		if row.Batches != 3 || !(row.DeviceMBPS > 0) || math.Abs(row.NeededMBPS/row.DeviceMBPS-0.8) > 1e-9 || !(row.StallShare >= 0 && row.StallShare < 1) {
			t.Errorf("%+v", row)
		}
		if !row.Prefetch && (row.Depth != 0 || row.BroughtShare != 0) {
			t.Errorf("foresight that is off brought something: %+v", row)
		}
	}
	if r.Pattern == "" || r.UnforeseenPattern == "" || !(r.DeviceMBPS.Median > 0) || r.Stalled.Max < r.Stalled.Min {
		t.Errorf("summary: %+v", r)
	}
}

func TestOptionsThatMeasureNothingAreRefused(t *testing.T) {
	for _, o := range []ColdDiskOptions{{}, {DataDir: t.TempDir(), Samples: 100}} {
		if _, err := ColdDisk(t.Context(), o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}

func TestPagesOfAFileAreCounted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, make([]byte, 10_000), 0o600); err != nil {
		t.Fatal(err)
	}
	if cached, all, err := cachedPages(path); err != nil || all != 3 || cached != 3 {
		t.Errorf("%d of %d pages, %v", cached, all, err)
	}
	if _, _, err := cachedPages(filepath.Join(t.TempDir(), "nothing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestFilesThatAreShortAreNoMeasurement(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "data")
	if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, reopens := range []bool{false, true} {
		p := coldPattern{dir: dir, files: []string{path}, samples: []member{{size: 101}}, reopens: reopens}
		if _, err := p.deviceRate(t.Context(), 2, 1); err == nil {
			t.Error("no error")
		}
	}
}

func TestTheConsumersClockMakesSleepingGoodAndWaitingNot(t *testing.T) {
	var c coldPace
	at := time.Now().Add(-time.Hour) // all of it is over: nothing sleeps
	c.compute(at, 0, 10*time.Millisecond)
	c.compute(at.Add(12*time.Millisecond), time.Microsecond, 10*time.Millisecond) // 2 ms late
	if want := at.Add(20 * time.Millisecond); !c.free.Equal(want) {
		t.Errorf("free %v after its begin, want 20ms", c.free.Sub(at))
	}
	c.compute(at.Add(20*time.Millisecond), 5*time.Millisecond, 10*time.Millisecond)
	if want := at.Add(35 * time.Millisecond); !c.free.Equal(want) || c.waited != 5*time.Millisecond+time.Microsecond || c.computed != 30*time.Millisecond {
		t.Errorf("free %v after its begin, waited %v, computed %v", c.free.Sub(at), c.waited, c.computed)
	}
}
