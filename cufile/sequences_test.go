//go:build cgo && linux

package cufile

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/cufile/stub"
)

var (
	sequences    = flag.Int("cufile.sequences", 2000, "how many random sequences of calls TestRandomSequencesLeaveNothing makes")
	sequenceSeed = flag.Uint64("cufile.seed", 1, "where their random numbers begin")
)

// sequence is one random sequence of calls on one Driver, right and wrong ones, with
// now and then a fault or two.
type sequence struct {
	r       *rig
	rng     *rand.Rand
	path    string
	content []byte
	memory  []byte // a mapping that may be registered
	d       *Driver
	devices []*Device
	slabs   []*Slab
	files   []*File
	hosts   []*HostMemory
	faulty  bool // calls may fail
}

// faulty are calls that may fail in a sequence.
var faulty = []stub.Fault{
	{Op: "cuInit", Value: 999}, {Op: "cuDevicePrimaryCtxRetain", Value: 2}, {Op: "cuStreamCreate", Value: 2},
	{Op: "cuMemCreate", Kind: stub.OOM}, {Op: "cuMemAddressReserve", Value: 2}, {Op: "cuMemMap", Value: 1},
	{Op: "cuMemSetAccess", Value: 1}, {Op: "cuMemsetD8Async", Value: 700}, {Op: "cuMemUnmap", Value: 999},
	{Op: "cuMemRelease", Value: 999}, {Op: "cuMemAddressFree", Value: 999}, {Op: "cuMemAlloc", Kind: stub.OOM},
	{Op: "cuMemFree", Value: 999}, {Op: "cuMemExportToShareableHandle", Value: 801}, {Op: "cuIpcGetMemHandle", Value: 801},
	{Op: "cuMemImportFromShareableHandle", Value: 999}, {Op: "cuMemHostRegister", Value: 2}, {Op: "cuMemHostUnregister", Value: 999},
	{Op: "cuMemcpyHtoDAsync", Value: 700}, {Op: "cuMemcpyDtoHAsync", Value: 700}, {Op: "cuCtxSetCurrent", Value: 201},
	{Op: "cuFileDriverOpen", Value: 5030}, {Op: "cuFileDriverClose", Value: 5030}, {Op: "cuFileHandleRegister", Value: 5008},
	{Op: "cuFileBufRegister", Value: 5036}, {Op: "cuFileBufDeregister", Value: 5030}, {Op: "cuFileStatsStart", Value: 5030},
	{Op: "cuFileRead", Kind: stub.EIO}, {Op: "cuFileRead", Kind: stub.EINTR, Times: 3}, {Op: "cuFileRead", Kind: stub.Short, Times: 2},
	{Op: "cuFileRead", Value: 5030}, {Op: "cuFileRead", Kind: stub.Latency, Value: 50},
}

func TestRandomSequencesLeaveNothing(t *testing.T) {
	r := newRig(t, stub.V1_15)
	path, content := randomFile(t, 1<<20)
	memory, err := unix.Mmap(-1, 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(memory); err != nil {
			t.Error(err)
		}
	}()
	settled := int64(0) // resident bytes once the libraries and the runtime have what they keep
	for i := range *sequences {
		if i == min(200, *sequences/2) {
			settled = residentBytes(t)
		}
		s := &sequence{r: r, rng: rand.New(rand.NewPCG(*sequenceSeed, uint64(i))), path: path, content: content, memory: memory}
		s.run()
		if i%100 == 0 || i == *sequences-1 {
			r.left(i)
		}
		if t.Failed() {
			t.Fatalf("sequence %d with -cufile.seed=%d", i, *sequenceSeed)
		}
	}
	// Go's collector and the race detector keep some; a leak grows with the number.
	grown := residentBytes(t) - settled
	t.Logf("%d KiB of memory more than after the first sequences", grown>>10)
	if grown > 32<<20 {
		t.Error("that is too much")
	}
}

// residentBytes is the memory that this process holds.
func residentBytes(t testing.TB) int64 {
	t.Helper()
	runtime.GC()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		t.Fatal(err)
	}
	return resident * int64(os.Getpagesize())
}

// left fails the test if anything lives now.
func (r *rig) left(i int) {
	r.t.Helper()
	if live, leaked := r.state.Live(""), r.state.Leaked(); live != 0 || leaked != 0 {
		r.t.Errorf("after sequence %d:%s live, %d leaked", i, r.living(), leaked)
	}
	if got := openDescriptors(r.t); got != r.descriptors {
		r.t.Errorf("after sequence %d: %d descriptors, %d before", i, got, r.descriptors)
	}
	if got := memoryMappings(r.t); got != r.mappings {
		r.t.Errorf("after sequence %d: %d mappings, %d before", i, got, r.mappings)
	}
}

// draw gives no fault, one, or two: the second may strike what undoes the first.
func (s *sequence) draw() []stub.Fault {
	faults := make([]stub.Fault, max(0, s.rng.IntN(5)-2))
	for i := range faults {
		faults[i] = faulty[s.rng.IntN(len(faulty))]
		faults[i].After = s.rng.IntN(3)
	}
	return faults
}

func (s *sequence) run() {
	s.r.t.Helper()
	drawn := s.draw()
	s.faulty = len(drawn) > 0
	s.r.faults(drawn...)
	options := s.r.options()
	options.NoStorage = s.rng.IntN(4) == 0
	d, err := Open(options)
	if s.check(err) {
		return
	}
	s.d = d
	steps := []func(){s.device, s.slab, s.slab, s.file, s.file, s.register, s.register, s.read, s.read, s.read, s.copy, s.export, s.host, s.closeSome, s.closeSome}
	for range s.rng.IntN(16) {
		steps[s.rng.IntN(len(steps))]()
	}
	if s.rng.IntN(500) == 0 {
		s.kill()
	}
	s.r.faults()
	s.closeAll()
}

// check answers whether a call failed, and fails the test if its error is none that
// a caller can understand. Misuse does not get as far as a library: that complains of
// nothing but faults.
func (s *sequence) check(err error) bool {
	s.r.t.Helper()
	if err == nil {
		return false
	}
	known := []error{ErrClosed, ErrInUse, ErrNoStorage, ErrReadOnly, ErrRange, errTwice, io.EOF}
	understood := slices.ContainsFunc(known, func(k error) bool { return errors.Is(err, k) })
	if !understood && (errorOf(err) == nil || !s.faulty) {
		s.r.t.Errorf("unknown error: %v", err)
	}
	return true
}

// pick takes one of a list at random; false where there is none.
func pick[T any](s *sequence, list []T) (T, bool) {
	if len(list) == 0 {
		var none T
		return none, false
	}
	return list[s.rng.IntN(len(list))], true
}

func (s *sequence) device() {
	all, err := s.d.Devices()
	if s.check(err) {
		return
	}
	if g, err := s.d.Device(all[s.rng.IntN(len(all))].UUID); !s.check(err) {
		s.devices = append(s.devices, g)
	}
}

func (s *sequence) slab() {
	g, ok := pick(s, s.devices)
	if !ok {
		return
	}
	build := g.NewSlab
	if s.rng.IntN(4) == 0 {
		build = g.NewLegacySlab
	}
	if slab, err := build(int64(1 + s.rng.IntN(2<<20))); !s.check(err) {
		s.slabs = append(s.slabs, slab)
	}
}

func (s *sequence) file() {
	if f, err := s.d.OpenFile(s.path, FileOptions{Buffered: s.rng.IntN(2) == 0}); !s.check(err) {
		s.files = append(s.files, f)
	}
}

func (s *sequence) register() {
	if slab, ok := pick(s, s.slabs); ok {
		if s.rng.IntN(3) == 0 {
			s.check(slab.Unregister())
		} else {
			s.check(slab.Register())
		}
	}
}

func (s *sequence) read() {
	slab, ok := pick(s, s.slabs)
	f, ok2 := pick(s, s.files)
	if !ok || !ok2 {
		return
	}
	slabOffset, n, offset := s.rng.Int64N(1<<15), s.rng.IntN(1<<15), s.rng.Int64N(1<<20+1<<14)
	got, err := f.ReadAt(slab, slabOffset, n, offset)
	s.check(err)
	back := make([]byte, got)
	if !s.check(slab.CopyOut(back, slabOffset)) && got > 0 && firstDifference(back, s.content[offset:offset+int64(got)]) >= 0 {
		s.r.t.Errorf("wrong bytes: %d at %d", got, offset)
	}
}

func (s *sequence) copy() {
	slab, ok := pick(s, s.slabs)
	if !ok {
		return
	}
	offset := s.rng.Int64N(slab.Bytes() + 1)
	s.check(slab.CopyIn(s.content[:s.rng.IntN(1<<12)], offset))
	if h, ok := pick(s, s.hosts); ok {
		s.check(slab.CopyFromHost(h, s.rng.Int64N(1<<16), offset, s.rng.Int64N(1<<12)))
	}
}

// export maps a slab a second time, as another process would.
func (s *sequence) export() {
	slab, ok := pick(s, s.slabs)
	if !ok || slab.Kind() == SlabLegacy {
		return // CUDA refuses to open its own legacy handle in the same process
	}
	e, err := slab.Export()
	if s.check(err) {
		return
	}
	defer s.r.close(e)
	if again, err := slab.device.Import(e, s.rng.IntN(2) == 0); !s.check(err) {
		s.slabs = append(s.slabs, again)
	}
}

func (s *sequence) host() {
	g, ok := pick(s, s.devices)
	if !ok || len(s.hosts) > 0 {
		return
	}
	if h, err := g.RegisterHost(s.memory); !s.check(err) {
		s.hosts = append(s.hosts, h)
	}
}

// closeSome closes anything, in any order.
func (s *sequence) closeSome() {
	switch s.rng.IntN(8) {
	case 0:
		s.check(s.d.Close())
	case 1:
		if g, ok := pick(s, s.devices); ok {
			s.check(g.Close())
		}
	case 2:
		if h, ok := pick(s, s.hosts); ok {
			s.check(h.Close())
		}
	case 3, 4:
		if f, ok := pick(s, s.files); ok {
			s.check(f.Close())
		}
	default:
		if slab, ok := pick(s, s.slabs); ok {
			s.check(slab.Close())
		}
	}
}

// closeAll closes what is open in the right order, which must succeed.
func (s *sequence) closeAll() {
	s.r.t.Helper()
	finish := func(c interface{ Close() error }) {
		if err := c.Close(); err != nil && !errors.Is(err, ErrClosed) {
			s.r.t.Errorf("%T: %v", c, err)
		}
	}
	for _, f := range s.files {
		finish(f)
	}
	for _, h := range s.hosts {
		finish(h)
	}
	for _, slab := range s.slabs {
		finish(slab)
	}
	for _, g := range s.devices {
		finish(g)
	}
	finish(s.d)
}

// kill sends a slab to another process and kills that.
func (s *sequence) kill() {
	slab, ok := pick(s, s.slabs)
	if !ok || slab.Kind() == SlabLegacy || slab.device.info.Ordinal != 0 {
		return
	}
	reader, c := child(s.r.t, "importer", s.r.device)
	defer s.r.close(c)
	s.check(SendSlab(c, slab))
	kill(s.r.t, reader)
}
