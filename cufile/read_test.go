//go:build cgo && linux

package cufile

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/cufile/stub"
)

// reading is a machine with one GPU, one slab that is registered and one file.
type reading struct {
	*rig
	driver  *Driver
	device  *Device
	slab    *Slab
	file    *File
	content []byte
}

func newReading(t testing.TB, slabBytes int64, fileBytes int) *reading {
	t.Helper()
	r := newRig(t, stub.V1_15)
	v := &reading{rig: r, driver: r.open()}
	v.device = r.gpu(v.driver)
	v.slab = r.slab(v.device, slabBytes)
	if err := v.slab.Register(); err != nil {
		t.Fatal(err)
	}
	v.file, v.content = r.file(v.driver, fileBytes)
	t.Cleanup(func() { r.close(v.file, v.slab, v.device, v.driver) })
	return v
}

func TestReadAtAnswersWhatAFileAnswers(t *testing.T) {
	v := newReading(t, 1<<20, 300_001)
	plain, err := os.Open(v.file.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	rapid.Check(t, func(rt *rapid.T) {
		v.drawFaults(rt)
		offset := rapid.Int64Range(0, 310_000).Draw(rt, "offset")
		n := rapid.IntRange(0, 1<<19).Draw(rt, "n")
		slabOffset := rapid.Int64Range(0, 1<<19).Draw(rt, "slabOffset")
		if rapid.Bool().Draw(rt, "aligned") {
			offset, n, slabOffset = offset&^(Alignment-1), n&^(Alignment-1), slabOffset&^(Alignment-1)
		}
		want := make([]byte, n)
		wantN, wantErr := plain.ReadAt(want, offset)
		n, err := v.file.ReadAt(v.slab, slabOffset, n, offset)
		if n != wantN || err != wantErr {
			rt.Fatalf("ReadAt: %d, %v, want %d, %v", n, err, wantN, wantErr)
		}
		got := make([]byte, n)
		if err := v.slab.CopyOut(got, slabOffset); err != nil {
			rt.Fatal(err)
		}
		if i := firstDifference(got, want[:n]); i >= 0 {
			rt.Fatalf("byte %d is %#x, want %#x", i, got[i], want[i])
		}
	})
	v.faults()
}

// drawFaults makes reads short or interrupted, which nobody may notice.
func (v *reading) drawFaults(rt *rapid.T) {
	kinds := []stub.Kind{stub.Short, stub.EINTR}
	times := rapid.IntRange(0, 4).Draw(rt, "times")
	if times == 0 {
		v.faults()
		return
	}
	v.faults(stub.Fault{Op: "cuFileRead", Kind: rapid.SampledFrom(kinds).Draw(rt, "kind"), Times: times})
}

func TestReadAtGivesTheReasonOfAFailure(t *testing.T) {
	v := newReading(t, 1<<20, 1<<20)
	for _, test := range []struct {
		fault stub.Fault
		want  Error
	}{
		{stub.Fault{Kind: stub.EIO}, Error{Op: "cuFileRead", Errno: syscall.EIO}},
		{stub.Fault{Kind: stub.Errno, Value: int(syscall.ENODEV)}, Error{Op: "cuFileRead", Errno: syscall.ENODEV}},
		{stub.Fault{Value: 5030}, Error{Op: "cuFileRead", Code: 5030}},
		{stub.Fault{Value: 5044}, Error{Op: "cuFileRead", Code: 5044}},
		{stub.Fault{Value: 5999}, Error{Op: "cuFileRead", Code: 5999}},
		{stub.Fault{Op: "cuCtxSetCurrent", Value: 201}, Error{Op: "cuCtxSetCurrent", CUDA: 201}},
		{stub.Fault{Kind: stub.EINTR, Times: stub.Always}, Error{Op: "cuFileRead", Errno: syscall.EINTR}},
	} {
		if test.fault.Op == "" {
			test.fault.Op = "cuFileRead"
		}
		v.faults(test.fault)
		n, err := v.file.ReadAt(v.slab, 0, 1<<20, 0)
		v.fired(1)
		test.want.Object = v.file.Path()
		if got := errorOf(err); n != 0 || got == nil || *got != test.want {
			t.Errorf("%s: %d, %v, want %v", test.fault, n, err, &test.want)
		}
	}
	v.faults()
}

// Only interruptions in a row are too many: a long read under a profiler has more.
func TestReadAtCountsInterruptionsFromWhereItCame(t *testing.T) {
	v := newReading(t, 1<<20, 1<<20)
	const many = maxInterruptions - 1
	v.faults(
		stub.Fault{Op: "cuFileRead", Kind: stub.EINTR, Times: many},
		stub.Fault{Op: "cuFileRead", Kind: stub.EINTR, After: 1, Times: many}, // counts what the first lets through
		stub.Fault{Op: "cuFileRead", Kind: stub.Short},
	)
	if n, err := v.file.ReadAt(v.slab, 0, 1<<20, 0); n != 1<<20 || err != nil {
		t.Errorf("ReadAt: %d, %v", n, err)
	}
	v.fired(3)
	if got := v.state.Fired(0) + v.state.Fired(1); got != 2*many {
		t.Errorf("%d interruptions, want %d", got, 2*many)
	}
	expect(t, v.slab, 0, v.content)
	v.faults()
}

func TestReadAtSaysHowFarItCame(t *testing.T) {
	v := newReading(t, 1<<20, 1<<20)
	v.faults(stub.Fault{Op: "cuFileRead", Kind: stub.Short}, stub.Fault{Op: "cuFileRead", Kind: stub.EIO, After: 1})
	n, err := v.file.ReadAt(v.slab, 0, 1<<20, 0)
	if n != 1<<19 || !errors.Is(err, syscall.EIO) {
		t.Errorf("ReadAt: %d, %v, want half and EIO", n, err)
	}
	v.fired(2)
	expect(t, v.slab, 0, v.content[:n])
	v.faults()
}

func TestAFileThatShrinksUnderItsHandleEndsEarly(t *testing.T) {
	v := newReading(t, 1<<20, 1<<20)
	if err := os.Truncate(v.file.Path(), 1<<18); err != nil {
		t.Fatal(err)
	}
	n, err := v.file.ReadAt(v.slab, 0, 1<<20, 0)
	if n != 1<<18 || err != io.EOF {
		t.Errorf("ReadAt: %d, %v, want %d, EOF", n, err, 1<<18)
	}
	expect(t, v.slab, 0, v.content[:n])
	if n, err := v.file.ReadAt(v.slab, 0, Alignment, 1<<19); n != 0 || err != io.EOF {
		t.Errorf("ReadAt past the end: %d, %v", n, err)
	}
}

func TestUnalignedReadsAreRightAndCounted(t *testing.T) {
	v := newReading(t, 1<<20, 1<<20)
	before, err := v.driver.routes(v.device.UUID())
	if err != nil {
		t.Fatal(err)
	}
	for _, read := range []struct {
		slabOffset int64
		n          int
		offset     int64
	}{{0, Alignment, 1}, {0, Alignment - 1, 0}, {1, Alignment, 0}, {4095, 4097, 4095}} {
		if n, err := v.file.ReadAt(v.slab, read.slabOffset, read.n, read.offset); n != read.n || err != nil {
			t.Errorf("%+v: %d, %v", read, n, err)
		}
		expect(t, v.slab, read.slabOffset, v.content[read.offset:read.offset+int64(read.n)])
	}
	after, err := v.driver.routes(v.device.UUID())
	if err != nil || after.UnalignedReads-before.UnalignedReads != 4 {
		t.Errorf("%d unaligned reads counted, %v, want 4", after.UnalignedReads-before.UnalignedReads, err)
	}
}

// To see that the file ends takes no second read, which would be an unaligned one.
func TestAnAlignedReadOverTheEndStaysAligned(t *testing.T) {
	v := newReading(t, 1<<20, 2*Alignment+100)
	before := v.state.Reads(stub.PCIP2PDMA)
	if n, err := v.file.ReadAt(v.slab, 0, 4*Alignment, 0); n != 2*Alignment+100 || err != io.EOF {
		t.Errorf("ReadAt: %d, %v, want %d, EOF", n, err, 2*Alignment+100)
	}
	if reads, unaligned := v.state.Reads(stub.PCIP2PDMA)-before, v.state.Reads(stub.Unaligned); reads != 1 || unaligned != 0 {
		t.Errorf("%d reads, %d of them unaligned, want one that is aligned", reads, unaligned)
	}
}

func TestReadAtRefusesRangesOutsideOfTheSlab(t *testing.T) {
	v := newReading(t, 1<<20, 1<<20)
	for _, read := range []struct {
		slabOffset int64
		n          int
		offset     int64
	}{
		{-1, 1, 0}, {0, -1, 0}, {0, 1, -1}, {1 << 20, 1, 0}, {1<<20 - 1, 2, 0}, {0, 1<<20 + 1, 0},
		{1<<63 - 1, 1, 0}, {0, 2, 1<<63 - 2}, {1, 1<<63 - 1, 0},
	} {
		if n, err := v.file.ReadAt(v.slab, read.slabOffset, read.n, read.offset); n != 0 || !errors.Is(err, ErrRange) {
			t.Errorf("%+v: %d, %v, want ErrRange", read, n, err)
		}
	}
	if n, err := v.file.ReadAt(v.slab, 1<<20, 0, 0); n != 0 || err != nil {
		t.Errorf("no bytes at the end: %d, %v", n, err)
	}
}

func TestReadAtWorksFromManyGoroutines(t *testing.T) {
	v := newReading(t, 8<<20, 8<<20)
	const pieces = 32
	var group sync.WaitGroup
	for i := range pieces {
		group.Go(func() {
			size := len(v.content) / pieces
			if n, err := v.file.ReadAt(v.slab, int64(i*size), size, int64(i*size)); n != size || err != nil {
				t.Errorf("piece %d: %d, %v", i, n, err)
			}
		})
	}
	group.Wait()
	expect(t, v.slab, 0, v.content)
}

func TestCloseWaitsForReadsInFlight(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	for i := range 20 {
		s := r.slab(g, 1<<20)
		if err := s.Register(); err != nil {
			t.Fatal(err)
		}
		f, _ := r.file(d, 1<<20)
		r.faults(stub.Fault{Op: "cuFileRead", Kind: stub.Latency, Value: 500, Times: stub.Always})
		var group sync.WaitGroup
		started := make(chan struct{}, 4) // each reader sends one; nobody closes it
		for range 4 {
			group.Go(func() {
				started <- struct{}{}
				for {
					// The stand-in aborts where a handle or a buffer goes under a read.
					if _, err := f.ReadAt(s, 0, 1<<20, 0); errors.Is(err, ErrClosed) {
						return
					} else if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for range 4 {
			<-started
		}
		if i%2 == 0 {
			r.close(s, f)
		} else {
			r.close(f, s)
		}
		group.Wait()
	}
	r.close(g, d)
}

func TestReadAtAllocatesNothing(t *testing.T) {
	v := newReading(t, 1<<20, 1<<20)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := v.file.ReadAt(v.slab, 0, Alignment, Alignment); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a read, want none", n)
	}
}
