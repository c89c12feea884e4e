package flash

import (
	"context"
	"testing"

	"github.com/stokerio/stoker/backend"
)

// That a device can have no more segments is no error of it: it is full.
func TestASegmentTooManyIsNoErrorOfTheDevice(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(context.Background(), Options{Devices: []Device{{Path: dir, LimitBytes: 8 << 20, SpanBytes: 64 << 10, SegmentSpans: 4}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	d := s.devices[1].Load()
	d.mu.Lock()
	for n := range uint32(maxSegments) { // names of files that are left alone
		d.kept[segmentName(n)] = 0
	}
	d.mu.Unlock()
	for range failuresAtMost + 1 {
		if _, err := s.Put(context.Background(), []byte("text")); backend.KindOf(err) != backend.NoSpace {
			t.Fatalf("put: %v", err)
		}
	}
	if err := d.writable(); err != nil {
		t.Error(err)
	}
}
