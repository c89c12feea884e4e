package bench

import (
	"os"
	"strings"
	"testing"
	"time"
)

// withRing returns a device that was written, and whether the kernel has io_uring for us.
func withRing(t *testing.T, o DeviceOptions) (*device, bool) {
	t.Helper()
	o.Dir = t.TempDir()
	d, err := openDevice(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.close() })
	if _, err := d.write(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := newRing(4)
	if err != nil {
		if _, failed := d.readByRing(t.Context(), devicePatterns()[0], 1); failed == nil {
			t.Error("a kernel without io_uring reads by it")
		}
		return d, false
	}
	return d, r.close() == nil
}

func TestARingReadsWhatPreadsRead(t *testing.T) {
	d, ok := withRing(t, DeviceOptions{FileBytes: 4 << 20, SyncBytes: 1 << 20, Depth: 5, Section: 20 * time.Millisecond})
	for _, p := range devicePatterns() {
		if !ok {
			break
		}
		row, err := d.readByRing(t.Context(), p, 1)
		if err != nil || row.Bytes == 0 || row.Bytes%p.block != 0 || row.Depth != 5 || !(row.MBPS > 0) {
			t.Errorf("%+v, %v", row, err)
		}
	}
	d.refused, d.o.Section = "the test wants each block once", time.Hour
	for _, p := range devicePatterns() {
		if !ok {
			break
		}
		row, err := d.readByRing(t.Context(), p, 1)
		if blocks := d.size / p.block; err != nil || row.Bytes != blocks*p.block {
			t.Errorf("%+v, %v", row, err)
		}
	}
}

func TestARingNoticesWrongBytes(t *testing.T) {
	d, ok := withRing(t, DeviceOptions{FileBytes: 1 << 20, SyncBytes: 1 << 20, Section: time.Hour})
	d.refused = "the test wants each block once"
	f, err := os.OpenFile(d.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte{1, 2, 3}, 8*deviceBlock)
	if err == nil {
		err = f.Sync()
	}
	if err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	if _, err := d.readByRing(t.Context(), devicePatterns()[2], 1); ok && (err == nil || !strings.Contains(err.Error(), "was written")) {
		t.Errorf("wrong bytes: %v", err)
	}
	if err := os.Truncate(d.path, 4*deviceBlock); err != nil {
		t.Fatal(err)
	}
	if _, err := d.readByRing(t.Context(), devicePatterns()[2], 1); ok && err == nil {
		t.Error("a file that ends early")
	}
}
