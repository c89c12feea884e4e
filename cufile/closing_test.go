//go:build cgo && linux

package cufile

import (
	"errors"
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
