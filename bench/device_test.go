package bench

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestADiskIsMeasuredInEveryPattern(t *testing.T) {
	dir := t.TempDir()
	r, err := Device(t.Context(), DeviceOptions{Dir: dir, FileBytes: 5<<20 + 1, SyncBytes: 1 << 20, Depth: 4, Section: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if r.FileBytes != 5<<20 || len(r.Rows) != 1+len(devicePatterns()) || r.Direct == (r.Refused != "") {
		t.Fatalf("%+v", r)
	}
	if onMemory(t, dir) && r.Direct {
		t.Error("reads from memory pass for direct ones")
	}
	for i, row := range r.Rows {
		if row.Bytes == 0 || row.Bytes%row.BlockBytes != 0 || !(row.MBPS > 0) || !near(row.PerSecond*float64(row.BlockBytes)/1e6/row.MBPS, 1) {
			t.Errorf("%+v", row)
		}
		if i == 0 && (row.Pattern != deviceWrites || row.Bytes != r.FileBytes || row.Depth != 1) {
			t.Errorf("%+v", row)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestReadsThroughThePageCacheAreMadeOnceAndSaid(t *testing.T) {
	d, err := openDevice(DeviceOptions{Dir: t.TempDir(), FileBytes: 1 << 20, SyncBytes: 1 << 20, Section: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	d.refused = "the test wants it so"
	if _, err := d.write(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range devicePatterns() {
		row, err := d.read(t.Context(), p, 1)
		if blocks := int64(1<<20) / p.block; err != nil || row.Bytes != blocks*p.block {
			t.Errorf("%+v, %v", row, err)
		}
	}
}

func TestBytesThatWereNotWrittenAreNoMeasurement(t *testing.T) {
	d, err := openDevice(DeviceOptions{Dir: t.TempDir(), FileBytes: 1 << 20, SyncBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if _, err := d.read(t.Context(), devicePatterns()[2], 1); err == nil || !strings.Contains(err.Error(), "was written") {
		t.Errorf("a file without content: %v", err)
	}
}

func TestDevicesThatCannotBeMeasured(t *testing.T) {
	for _, o := range []DeviceOptions{
		{Dir: filepath.Join(t.TempDir(), "nothing")},
		{Dir: t.TempDir(), FileBytes: 1 << 20, SyncBytes: 2 << 20},
		{Dir: t.TempDir(), FileBytes: 1 << 20, SyncBytes: 1000},
	} {
		if _, err := Device(t.Context(), o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
	cancelled, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if _, err := Device(cancelled, DeviceOptions{Dir: t.TempDir(), FileBytes: 1 << 20, SyncBytes: 1 << 20}); !errors.Is(err, enough) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestTurnsAreTakenOnceEach(t *testing.T) {
	const count = 1000
	var taken [count]atomic.Int32
	done, err := turns{flights: 7, count: count}.run(t.Context(), func(flight int, turn int64) (int64, error) {
		if flight < 0 || flight >= 7 {
			t.Errorf("flight %d of 7", flight)
		}
		taken[turn].Add(1)
		return 3, nil
	})
	if err != nil || done.turns != count || done.bytes != 3*count || !(done.perSecond() > 0) {
		t.Errorf("%+v, %v", done, err)
	}
	for turn := range taken {
		if n := taken[turn].Load(); n != 1 {
			t.Errorf("turn %d was taken %d times", turn, n)
		}
	}
}

func TestTurnsEndWithTheFirstErrorOrTheTime(t *testing.T) {
	broken := errors.New("broken")
	done, err := turns{flights: 2}.run(t.Context(), func(_ int, turn int64) (int64, error) {
		if turn == 10 {
			return 0, broken
		}
		return 1, nil
	})
	if !errors.Is(err, broken) || done.turns < 9 {
		t.Errorf("%+v, %v", done, err)
	}
	done, err = turns{flights: 2, within: time.Nanosecond}.run(t.Context(), func(int, int64) (int64, error) { return 1, nil })
	if err != nil || done.turns > 2 {
		t.Errorf("the time was up: %+v, %v", done, err)
	}
}
