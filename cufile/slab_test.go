//go:build cgo && linux

package cufile

import (
	"bytes"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/cufile/stub"
)

func TestANewSlabIsZeroAndWhole(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	for _, kind := range []SlabKind{SlabVMM, SlabLegacy} {
		build := g.NewSlab
		if kind == SlabLegacy {
			build = g.NewLegacySlab
		}
		s, err := build(3<<20 + 1)
		if err != nil {
			t.Fatal(err)
		}
		if s.Kind() != kind || s.Bytes() != 3<<20+1 || s.MappedBytes() != 4<<20 || s.Device() != g.UUID() || !s.Writable() || s.Address() == 0 {
			t.Errorf("%s slab of %d bytes, %d mapped, at %#x", s.Kind(), s.Bytes(), s.MappedBytes(), s.Address())
		}
		expect(t, s, 0, make([]byte, s.Bytes()))
		data := bytes.Repeat([]byte("stoker"), 1000)
		if err := s.CopyIn(data, 12345); err != nil {
			t.Fatal(err)
		}
		expect(t, s, 12345, data)
		expect(t, s, 12345-100, make([]byte, 100))
		r.close(s)
	}
	r.close(g, d)
}

func TestSlabsTakeMemoryAndGiveItBack(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	before, total, err := g.Memory()
	if err != nil || before <= 0 || total < before {
		t.Fatalf("memory %d of %d, %v", before, total, err)
	}
	s := r.slab(g, 64<<20)
	if free, _, err := g.Memory(); err != nil || before-free != 64<<20 {
		t.Errorf("a slab of 64 MiB takes %d bytes, %v", before-free, err)
	}
	r.close(s)
	if free, _, err := g.Memory(); err != nil || free != before {
		t.Errorf("%d bytes are missing afterwards, %v", before-free, err)
	}
	r.close(g, d)
}

func TestASlabThatDoesNotFitIsAnError(t *testing.T) {
	t.Setenv("STOKER_STUB_DEVICES", "bytes=64M")
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	for _, bytes := range []int64{0, -1, 1 << 40} {
		if _, err := g.NewSlab(bytes); !errors.Is(err, ErrRange) {
			t.Errorf("%d bytes: %v, want ErrRange", bytes, err)
		}
	}
	s := r.slab(g, 40<<20)
	if _, err := g.NewSlab(40 << 20); errorOf(err) == nil || errorOf(err).CUDA != 2 {
		t.Errorf("a slab too many: %v, want CUDA's 2", err)
	}
	r.close(s)
	r.close(r.slab(g, 40<<20))
	r.close(g, d)
}

// Every step of making a slab may fail, and leaves nothing: newRig counts.
func TestASlabThatCannotBeMadeLeavesNothing(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	for _, test := range []struct {
		op   string
		make func(int64) (*Slab, error)
	}{
		{"cuCtxSetCurrent", g.NewSlab}, {"cuMemGetAllocationGranularity", g.NewSlab}, {"cuMemCreate", g.NewSlab},
		{"cuMemAddressReserve", g.NewSlab}, {"cuMemMap", g.NewSlab}, {"cuMemSetAccess", g.NewSlab},
		{"cuMemsetD8Async", g.NewSlab}, {"cuStreamSynchronize", g.NewSlab},
		{"cuMemAlloc", g.NewLegacySlab}, {"cuMemsetD8Async", g.NewLegacySlab},
	} {
		r.faults(stub.Fault{Op: test.op, Value: 999})
		if s, err := test.make(2 << 20); s != nil || errorOf(err) == nil || errorOf(err).CUDA != 999 || !strings.HasPrefix(errorOf(err).Op, test.op) {
			t.Errorf("%s: %v", test.op, err)
		}
		r.fired(1)
	}
	r.faults()
	r.close(g, d)
}

func TestACloseThatFailsCanBeRepeated(t *testing.T) {
	r := newRig(t, stub.V1_15)
	for _, op := range []string{
		"cuFileBufDeregister", "cuMemUnmap", "cuMemRelease", "cuMemAddressFree",
		"cuStreamDestroy", "cuDevicePrimaryCtxRelease", "cuFileStatsStop", "cuFileDriverClose",
	} {
		d := r.open()
		g := r.gpu(d)
		s := r.slab(g, 2<<20)
		if err := s.Register(); err != nil {
			t.Fatal(err)
		}
		code := 999
		if strings.HasPrefix(op, "cuFile") {
			code = 5030
		}
		r.faults(stub.Fault{Op: op, Value: code})
		failures := 0
		for _, c := range []interface{ Close() error }{s, g, d} {
			if err := c.Close(); err != nil {
				failures++
				r.close(c)
			}
		}
		r.fired(1)
		if failures != 1 {
			t.Errorf("%s: %d failures, want 1", op, failures)
		}
		r.faults()
	}
}

func TestRegistrationIsBounded(t *testing.T) {
	for _, test := range []struct {
		variable string
		code     int
	}{{"STOKER_STUB_PINNED", 5016}, {"STOKER_STUB_BAR", 5036}} {
		t.Run(test.variable, func(t *testing.T) {
			t.Setenv(test.variable, "4194304")
			r := newRig(t, stub.V1_15)
			d := r.open()
			g := r.gpu(d)
			a, b := r.slab(g, 4<<20), r.slab(g, 4<<20)
			if err := a.Register(); err != nil {
				t.Fatal(err)
			}
			if err := b.Register(); errorOf(err) == nil || errorOf(err).Code != test.code {
				t.Errorf("a registration too many: %v, want %d", err, test.code)
			}
			if err := a.Unregister(); err != nil {
				t.Fatal(err)
			}
			if err := b.Register(); err != nil {
				t.Errorf("there is room again: %v", err)
			}
			r.close(a, b, g, d)
		})
	}
}

func TestHostMemoryIsCopiedFromWhereItLies(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	memory, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	copy(memory[4096:], "from the host")
	h, err := g.RegisterHost(memory)
	if err != nil {
		t.Fatal(err)
	}
	s := r.slab(g, 1<<20)
	if err := s.CopyFromHost(h, 4096, 8192, 13); err != nil {
		t.Fatal(err)
	}
	expect(t, s, 8192, []byte("from the host"))
	for _, c := range []struct{ host, slab, n int64 }{{-1, 0, 1}, {0, -1, 1}, {0, 0, -1}, {1 << 20, 0, 1}, {0, 1 << 20, 1}, {1, 0, 1<<63 - 1}} {
		if err := s.CopyFromHost(h, c.host, c.slab, c.n); !errors.Is(err, ErrRange) {
			t.Errorf("%+v: %v, want ErrRange", c, err)
		}
	}
	if err := g.Close(); !errors.Is(err, ErrInUse) {
		t.Errorf("closing the device first: %v", err)
	}
	r.close(h)
	if err := s.CopyFromHost(h, 0, 0, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("copy from memory that was given back: %v", err)
	}
	if err := unix.Munmap(memory); err != nil {
		t.Fatal(err)
	}
	if _, err := g.RegisterHost(nil); !errors.Is(err, ErrRange) {
		t.Errorf("no memory: %v", err)
	}
	r.close(s, g, d)
}

func TestSlabsWithoutDescriptorsAreLegacyOnes(t *testing.T) {
	for _, missing := range []string{"vmm=0", "fd=0"} {
		t.Setenv("STOKER_STUB_DEVICES", missing)
		r := newRig(t, stub.V1_15)
		d := r.open()
		g := r.gpu(d)
		s := r.slab(g, 2<<20)
		if s.Kind() != SlabLegacy || g.Info().Exportable() {
			t.Errorf("%s: a %s slab", missing, s.Kind())
		}
		r.close(s, g, d)
	}
}

// As in a sandbox that lets no descriptor out of the driver.
func TestSlabsWhoseExportIsRefusedAreLegacyOnes(t *testing.T) {
	for code, kind := range map[int]SlabKind{800: SlabLegacy, 801: SlabLegacy, 999: SlabVMM} {
		r := newRig(t, stub.V1_15)
		d := r.open()
		g := r.gpu(d)
		r.faults(stub.Fault{Op: "cuMemExportToShareableHandle", Value: code})
		s := r.slab(g, 2<<20)
		r.fired(1)
		if s.Kind() != kind || !g.Info().Exportable() {
			t.Errorf("after code %d a %s slab, want a %s one", code, s.Kind(), kind)
		}
		e, err := s.Export()
		if err != nil {
			t.Fatal(err)
		}
		r.close(e, s, g, d)
	}
}

// As a driver before CUDA 10.2, which says of itself that it could.
func TestSlabsOfAnOldDriverAreLegacyOnes(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d, err := Open(Options{Device: libraries(t, stub.NoStorage, "cuMemCreate").CUDA, NoStorage: true})
	if err != nil {
		t.Fatal(err)
	}
	g := r.gpu(d)
	s := r.slab(g, 2<<20)
	if s.Kind() != SlabLegacy || !g.Info().Exportable() {
		t.Errorf("a %s slab", s.Kind())
	}
	r.close(s, g, d)
}

func TestMIGRefusesLegacyExports(t *testing.T) {
	t.Setenv("STOKER_STUB_DEVICES", "mig=1")
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	s, err := g.NewLegacySlab(2 << 20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Export(); errorOf(err) == nil || errorOf(err).CUDA != 801 {
		t.Errorf("export: %v, want CUDA's 801", err)
	}
	r.close(s, g, d)
}

// socketPair gives the two ends of a Unix socket.
func socketPair(t testing.TB, kind int) (a, b *net.UnixConn) {
	t.Helper()
	descriptors, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return unixConn(t, descriptors[0]), unixConn(t, descriptors[1])
}

func unixConn(t testing.TB, descriptor int) *net.UnixConn {
	t.Helper()
	file := os.NewFile(uintptr(descriptor), "socket")
	defer file.Close()
	c, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn)
}

func TestASlabThatIsReceivedIsTheSameMemory(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_SEQPACKET} {
		a, b := socketPair(t, kind)
		s := r.slab(g, 3<<20)
		if err := s.CopyIn([]byte("here"), 1<<20); err != nil {
			t.Fatal(err)
		}
		if err := SendSlab(a, s); err != nil {
			t.Fatal(err)
		}
		other, err := ReceiveSlab(b, g, false)
		if err != nil {
			t.Fatal(err)
		}
		if other.Bytes() != s.Bytes() || other.MappedBytes() != s.MappedBytes() || other.Writable() {
			t.Errorf("received %d bytes, %d mapped, writable %v", other.Bytes(), other.MappedBytes(), other.Writable())
		}
		expect(t, other, 1<<20, []byte("here"))
		if err := s.CopyIn([]byte("there"), 2<<20); err != nil {
			t.Fatal(err)
		}
		expect(t, other, 2<<20, []byte("there"))
		if err := other.CopyIn([]byte{1}, 0); !errors.Is(err, ErrReadOnly) {
			t.Errorf("a write into a read-only slab: %v", err)
		}
		if err := other.Register(); !errors.Is(err, ErrReadOnly) {
			t.Errorf("a read-only slab registered: %v", err)
		}
		r.close(s)
		expect(t, other, 2<<20, []byte("there"))
		r.close(other, a, b)
	}
	r.close(g, d)
}

// What Go refuses is one thing: the mapping itself must not be writable either, as it
// is for whatever else runs on the device.
func TestASlabReceivedToBeReadIsMappedSo(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	s := r.slab(g, 2<<20)
	for _, writable := range []bool{false, true} {
		e, err := s.Export()
		if err != nil {
			t.Fatal(err)
		}
		other, err := g.Import(e, writable)
		if err != nil {
			t.Fatal(err)
		}
		if st := d.table.copyIn(g.handle, other.Address(), []byte{1}); st.failed() == writable {
			t.Errorf("writable %v: a write gives %v", writable, st.err(""))
		}
		r.close(other, e)
	}
	r.close(s, g, d)
}

func TestReceiveSlabRefusesWhatIsNone(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	all, err := d.Devices()
	if err != nil {
		t.Fatal(err)
	}
	good := Export{Kind: SlabVMM, Bytes: 1, MappedBytes: 2 << 20, Granularity: 2 << 20, Device: g.UUID()}
	elsewhere := good
	elsewhere.Device = all[1].UUID
	legacy := good
	legacy.Kind = SlabLegacy
	for _, test := range []struct {
		name        string
		message     Export
		cut         int
		descriptors int
		want        error
	}{
		{"no descriptor", good, 0, 0, ErrMessage},
		{"two descriptors", good, 0, 2, ErrMessage},
		{"more descriptors than fit", good, 0, 9, ErrMessage},
		{"a legacy slab with a descriptor", legacy, 0, 1, ErrMessage},
		{"half a message", good, 80, 1, ErrMessage},
		{"another GPU's", elsewhere, 0, 1, nil},
		{"a descriptor of something else", good, 0, 1, nil},
	} {
		a, b := socketPair(t, unix.SOCK_STREAM)
		message := test.message.encode()
		sendRights(t, a, message[:len(message)-test.cut], test.descriptors)
		r.close(a)
		s, err := ReceiveSlab(b, g, true)
		if err == nil || s != nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		r.close(b)
	}
	r.close(g, d)
}

// sendRights sends a message with descriptors that are no device memory.
func sendRights(t *testing.T, c *net.UnixConn, message []byte, n int) {
	t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	var rights []byte
	if n > 0 {
		rights = unix.UnixRights(slices.Repeat([]int{int(null.Fd())}, n)...)
	}
	if _, _, err := c.WriteMsgUnix(message, rights, nil); err != nil {
		t.Fatal(err)
	}
}
