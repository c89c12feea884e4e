//go:build cgo && linux

package cufile

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/stokerio/stoker/cufile/stub"
)

// Its memory is unmapped and still allocated: a read into it would go nowhere, and on
// a GPU take the context with it.
func TestASlabThatIsHalfClosedIsNotUsed(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	s := r.slab(g, 2<<20)
	f, _ := r.file(d, 4096)
	r.faults(stub.Fault{Op: "cuMemRelease", Value: 999})
	if err := s.Close(); errorOf(err) == nil || errorOf(err).CUDA != 999 {
		t.Errorf("Close: %v, want CUDA's 999", err)
	}
	r.fired(1)
	r.faults()
	second := func(_ any, err error) error { return err }
	closedAll(t, map[string]func() error{
		"Slab.CopyIn":     func() error { return s.CopyIn([]byte{1}, 0) },
		"Slab.CopyOut":    func() error { return s.CopyOut(make([]byte, 1), 0) },
		"Slab.Export":     func() error { return second(s.Export()) },
		"Slab.Register":   s.Register,
		"Slab.Unregister": s.Unregister,
		"File.ReadAt":     func() error { return second(f.ReadAt(s, 0, Alignment, 0)) },
	})
	if err := g.Close(); !errors.Is(err, ErrInUse) {
		t.Errorf("closing its device: %v, want ErrInUse", err)
	}
	r.close(f, s, g, d)
}

// The statistics are stopped and the library is still open.
func TestADriverThatIsHalfClosedIsNotUsed(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	r.faults(stub.Fault{Op: "cuFileDriverClose", Value: 5030})
	if err := d.Close(); errorOf(err) == nil || errorOf(err).Code != 5030 {
		t.Errorf("Close: %v, want 5030", err)
	}
	r.fired(1)
	r.faults()
	if _, err := d.Statistics(); !errors.Is(err, ErrClosed) {
		t.Errorf("Statistics: %v, want ErrClosed", err)
	}
	r.close(d)
}

// The race detector sees a field that Close writes and a question reads.
func TestWhatASlabIsCanBeAskedWhileItCloses(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	s := r.slab(g, 2<<20)
	address := s.Address()
	var group sync.WaitGroup
	group.Go(func() {
		for range 100 {
			if s.Address() != address || s.MappedBytes() != 2<<20 {
				t.Errorf("it lies at %#x with %d bytes", s.Address(), s.MappedBytes())
			}
		}
	})
	r.close(s)
	group.Wait()
	r.close(g, d)
}

// Of what could not be made and not be undone either nobody has a handle to close.
func TestWhatCouldNotBeUndoneIsClosedWithItsOwner(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	for _, test := range []struct {
		fails, undoing string
		make           func() error
	}{
		{"cuMemMap", "cuMemRelease", func() error { _, err := g.NewSlab(2 << 20); return err }},
		{"cuMemSetAccess", "cuMemUnmap", func() error { _, err := g.NewSlab(2 << 20); return err }},
		{"cuMemsetD8Async", "cuMemFree", func() error { _, err := g.NewLegacySlab(2 << 20); return err }},
		{"cuStreamCreate", "cuDevicePrimaryCtxRelease", func() error { _, err := d.Device(g.UUID()); return err }},
	} {
		r.faults(stub.Fault{Op: test.fails, Value: 2}, stub.Fault{Op: test.undoing, Value: 999})
		if err := test.make(); errorOf(err) == nil || errorOf(err).CUDA != 2 {
			t.Errorf("%s: %v, want CUDA's 2", test.fails, err)
		}
		r.fired(2)
	}
	r.faults(stub.Fault{Op: "cuMemRelease", Value: 999})
	if err := g.Close(); errorOf(err) == nil || errorOf(err).CUDA != 999 {
		t.Errorf("closing the device with a slab that still fails: %v, want CUDA's 999", err)
	}
	r.fired(1)
	r.faults()
	r.close(g, d)
}

func TestAnOpenThatFailsLateClosesTheLibrary(t *testing.T) {
	r := newRig(t, stub.V1_15)
	r.faults(stub.Fault{Op: "cuFileStatsStart", Value: 5030}, stub.Fault{Op: "cuFileDriverClose", Value: 5030})
	if _, err := Open(r.options()); errorOf(err) == nil || errorOf(err).Op != "cuFileStatsStart" {
		t.Errorf("Open: %v, want an error of cuFileStatsStart", err)
	}
	r.fired(2)
	r.faults()
	r.close(r.open())
}

func TestAnOpenThatCannotCloseTheLibrarySaysSo(t *testing.T) {
	r := newRig(t, stub.V1_15)
	r.faults(stub.Fault{Op: "cuFileStatsStart", Value: 5030}, stub.Fault{Op: "cuFileDriverClose", Value: 5030, Times: 2})
	if _, err := Open(r.options()); err == nil || !strings.Contains(err.Error(), "stays open until the process ends") {
		t.Errorf("Open: %v", err)
	}
	r.fired(2)
	r.faults()
	table, err := newTable()
	if err != nil {
		t.Fatal(err)
	}
	for which, path := range map[library]string{deviceLibrary: r.device, storageLibrary: r.storage} {
		if text, ok := table.load(which, path); !ok {
			t.Fatal(text)
		}
	}
	if err := table.closeStorage().err(r.storage); err != nil { // for the tests that follow
		t.Error(err)
	}
	table.free()
}
