package flash

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
)

// way is a way by which a gather may read.
type way struct {
	name       string
	direct     bool
	goroutines bool // not a ring
	cold       bool // the page cache has nothing
	rough      bool
}

func ways() []way {
	return []way{
		{name: "page cache"},
		{name: "cold", cold: true},
		{name: "cold and rough", cold: true, rough: true},
		{name: "rough", rough: true},
		{name: "direct by ring", direct: true},
		{name: "direct by rough ring", direct: true, rough: true},
		{name: "direct by goroutines", direct: true, goroutines: true},
		{name: "direct by rough goroutines", direct: true, goroutines: true, rough: true},
	}
}

// stored is a store and what is in it.
type stored struct {
	*Store
	t        testing.TB
	options  Options
	kernel   *faultyKernel
	way      way
	chunks   []backend.Chunk
	contents [][]byte
	events   []Event
}

// storedSizes are sizes of chunks, below, at and above pages and blocks.
var storedSizes = []int{1, 511, 4096, 5000, 20_000, 20_001, 100_000, 131_072, 1 << 20, 1<<20 + 1, 3<<20 + 777, 0}

func newStored(t testing.TB, w way, devices int) *stored {
	s := &stored{t: t, way: w, kernel: &faultyKernel{rough: w.rough, cold: w.cold}}
	s.options = Options{Direct: w.direct, NoUring: w.goroutines, Reads: 8, Event: func(e Event) {
		if e.Kind != DeviceWarning || !strings.Contains(e.Detail, "nearly full") { // as this machine may be
			s.events = append(s.events, e)
		}
	}}
	for range devices {
		s.options.Devices = append(s.options.Devices, Device{Path: t.TempDir(), LimitBytes: 64 << 20, SpanBytes: 4 << 20, SegmentSpans: 4})
	}
	s.open()
	t.Cleanup(s.close)
	random := rand.NewChaCha8([32]byte{3})
	for i, size := range storedSizes {
		content := make([]byte, size)
		_, _ = random.Read(content)
		s.add(i, content)
	}
	for s.Settle() { // else each read of what was filled would be checked
	}
	return s
}

// add puts every third chunk and fills the others.
func (s *stored) add(i int, content []byte) {
	c := backend.Chunk{ID: backend.ContentID(content), Size: int64(len(content))}
	if i%3 == 0 {
		if _, err := s.Put(context.Background(), content); err != nil {
			s.t.Fatal(err)
		}
	} else {
		c = backend.Chunk{Object: &backend.Object{Name: fmt.Appendf(nil, "object %d", i)}, Size: c.Size}
		if err := s.Fill(context.Background(), c, content); err != nil {
			s.t.Fatal(err)
		}
	}
	s.chunks, s.contents = append(s.chunks, c), append(s.contents, content)
}

func (s *stored) open() {
	var err error
	if s.Store, err = Open(context.Background(), s.options); err != nil {
		s.t.Fatal(err)
	}
	s.kernel.use(s.Store)
}

func (s *stored) close() {
	if err := s.Close(); err != nil {
		s.t.Error(err)
	}
}

// reopen makes all blocks be checked when they are read next.
func (s *stored) reopen() {
	s.close()
	s.open()
}

// read is a read of [from, from+n) of chunk i, to memory at some alignment.
func (s *stored) read(i, from, n, shift int) backend.Read {
	p := make([]byte, n+8192)
	at := (4096-int(address(p)&4095))&4095 + shift
	return backend.Read{Chunk: s.chunks[i], Offset: int64(from), P: p[at : at+n : at+n]}
}

// want checks what was read, and the report.
func (s *stored) want(t testing.TB, reads []backend.Read, chunks []int, report *backend.GatherReport) {
	t.Helper()
	total := int64(0)
	for i, r := range reads {
		total += int64(len(r.P))
		if !bytes.Equal(r.P, s.contents[chunks[i]][r.Offset:int(r.Offset)+len(r.P)]) {
			t.Fatalf("read %d, of %d bytes from %d of chunk %d: wrong bytes", i, len(r.P), r.Offset, chunks[i])
		}
	}
	if report.CachedBytes+report.DiskBytes != total {
		t.Fatalf("report %+v of %d bytes", report, total)
	}
}

func TestAGatherReadsWhatWasStored(t *testing.T) {
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			s := newStored(t, w, 2)
			rapid.Check(t, func(r *rapid.T) {
				if rapid.IntRange(0, 9).Draw(r, "reopen") == 0 {
					s.reopen()
				}
				var reads []backend.Read
				var chunks []int
				for range rapid.SampledFrom([]int{1, 2, 5, 60}).Draw(r, "reads") {
					i := rapid.IntRange(0, len(s.chunks)-1).Draw(r, "chunk")
					size := len(s.contents[i])
					from := rapid.IntRange(0, size).Draw(r, "from")
					if rapid.Bool().Draw(r, "at a page") {
						from &^= 4095
					}
					n := rapid.IntRange(0, size-from).Draw(r, "bytes")
					switch rapid.IntRange(0, 3).Draw(r, "how long") {
					case 0:
						n = min(n, 600)
					case 1:
						n = size - from
					case 2:
						n &^= 4095
					}
					reads = append(reads, s.read(i, from, n, rapid.SampledFrom([]int{0, 0, 1, 64, 512}).Draw(r, "shift")))
					chunks = append(chunks, i)
				}
				var report backend.GatherReport
				if err := s.Gather(context.Background(), reads, &report); err != nil {
					r.Fatal(err)
				}
				s.want(t, reads, chunks, &report)
				if report.DiskBytes > 0 != (report.DiskReads > 0) || report.DiskReads > int64(len(reads)) {
					r.Fatalf("report %+v of %d reads", report, len(reads))
				}
			})
			s.wantNoHolds(t)
			if w.rough != (s.kernel.cut.Load() > 0) {
				t.Errorf("%d reads were cut", s.kernel.cut.Load())
			}
			if (w.direct && !w.goroutines) != (s.kernel.queues.Load() > 0) {
				t.Errorf("%d rings were opened", s.kernel.queues.Load())
			}
			for _, e := range s.events {
				t.Errorf("event %+v", e)
			}
		})
	}
}

func (s *stored) wantNoHolds(t testing.TB) {
	t.Helper()
	for d := range s.all() {
		d.eachSlot(func(x *span, extent uint32, slot *slot) bool {
			if slot.holds != 0 {
				t.Errorf("chunk %s has %d holds", slot.id, slot.holds)
			}
			return true
		})
	}
}

func TestAGatherAllocatesNothingInSteadyState(t *testing.T) {
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			s := newStored(t, w, 2)
			random := rand.New(rand.NewPCG(1, 2))
			reads := make([]backend.Read, 64)
			for i := range reads {
				chunk := random.IntN(len(s.chunks) - 1)
				from := random.IntN(storedSizes[chunk])
				reads[i] = s.read(chunk, from, random.IntN(min(100_000, storedSizes[chunk]-from)+1), i%2)
			}
			for _, n := range []int{1, len(reads)} {
				var report backend.GatherReport
				gather := func() {
					if err := s.Gather(context.Background(), reads[:n], &report); err != nil {
						t.Fatal(err)
					}
				}
				for range 5 {
					gather()
				}
				if allocations := testing.AllocsPerRun(50, gather); allocations != 0 {
					t.Errorf("%d reads: %v allocations", n, allocations)
				}
			}
			allocations := testing.AllocsPerRun(50, func() {
				if err := s.ReadAt(context.Background(), reads[0].Chunk, reads[0].P, reads[0].Offset); err != nil {
					t.Fatal(err)
				}
			})
			if allocations != 0 {
				t.Errorf("%v allocations a ReadAt", allocations)
			}
		})
	}
}

// apart are n reads of a chunk that are too far from one another to be joined.
func (s *stored) apart(n int) (reads []backend.Read, chunks []int) {
	const chunk = 10
	for i := range n {
		reads, chunks = append(reads, s.read(chunk, i*50_000, 100, 0)), append(chunks, chunk)
	}
	return reads, chunks
}

func TestReadsThatWaitRunInParallelWithinTheirBound(t *testing.T) {
	s := newStored(t, way{cold: true}, 1) // 8 reads at once
	var running, most atomic.Int32
	full := make(chan struct{})
	var once sync.Once
	s.kernel.hook = func() {
		now := running.Add(1)
		for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
		}
		if now == 8 {
			once.Do(func() { close(full) })
		}
		<-full // so that the test hangs if fewer ever run at once
		running.Add(-1)
	}
	reads, chunks := s.apart(60)
	var report backend.GatherReport
	if err := s.Gather(context.Background(), reads, &report); err != nil {
		t.Fatal(err)
	}
	s.want(t, reads, chunks, &report)
	if most.Load() != 8 {
		t.Errorf("%d reads at once, want 8", most.Load())
	}
}

// TestParallelGathers has more of them at once than are kept idle.
func TestParallelGathers(t *testing.T) {
	for _, w := range ways() {
		s := newStored(t, w, 2)
		s.reopen()
		var group sync.WaitGroup
		for worker := range gathersKept + 8 {
			group.Go(func() {
				random := rand.New(rand.NewPCG(uint64(worker), 4))
				for range 4 {
					var reads []backend.Read
					var chunks []int
					for range 20 {
						chunk := random.IntN(len(s.chunks))
						from := random.IntN(storedSizes[chunk] + 1)
						n := random.IntN(min(50_000, storedSizes[chunk]-from+1))
						reads, chunks = append(reads, s.read(chunk, from, n, 0)), append(chunks, chunk)
					}
					var report backend.GatherReport
					if err := s.Gather(context.Background(), reads, &report); err != nil {
						t.Error(err)
						return
					}
					s.want(t, reads, chunks, &report)
				}
			})
		}
		group.Wait()
		s.wantNoHolds(t)
	}
}

func TestCloseStopsTheReadersAndClosesEveryDescriptor(t *testing.T) {
	for _, w := range ways() {
		before, descriptors := goleak.IgnoreCurrent(), countDescriptors(t)
		t.Run(w.name, func(t *testing.T) {
			s := newStored(t, w, 2)
			reads, _ := s.apart(20)
			if err := s.Gather(context.Background(), reads, nil); err != nil {
				t.Fatal(err)
			}
		})
		goleak.VerifyNone(t, before)
		if after := countDescriptors(t); after != descriptors {
			t.Errorf("%s: %d descriptors are open, %d were before", w.name, after, descriptors)
		}
	}
}

func countDescriptors(t *testing.T) int {
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestAReportTellsTheSlowestRead makes one read of several wait.
func TestAReportTellsTheSlowestRead(t *testing.T) {
	s := newStored(t, way{cold: true}, 1)
	reads, _ := s.apart(5)
	release := make(chan struct{})
	var made atomic.Int32
	s.kernel.hook = func() {
		switch made.Add(1) {
		case 1:
			<-release
		case int32(len(reads)):
			close(release)
		}
	}
	report := backend.GatherReport{DiskReads: 1}
	if err := s.Gather(context.Background(), reads, &report); err != nil {
		t.Fatal(err)
	}
	slowest := 0
	for i := range reads {
		if reads[i].WaitNs > reads[slowest].WaitNs {
			slowest = i
		}
	}
	if report.DiskReads != 6 || report.SlowestNs != reads[slowest].WaitNs || report.Slowest != slowest || report.CachedBytes != 0 {
		t.Errorf("report %+v; the slowest is %d with %d ns", report, slowest, reads[slowest].WaitNs)
	}
}

// TestAReportTellsWhatThePageCacheHad has the first of two neighbours in the page cache.
func TestAReportTellsWhatThePageCacheHad(t *testing.T) {
	s := newStored(t, way{}, 1)
	s.kernel.has = 1500
	reads := []backend.Read{s.read(10, 100, 1000, 0), s.read(10, 1100, 1000, 0)}
	var report backend.GatherReport
	if err := s.Gather(context.Background(), reads, &report); err != nil {
		t.Fatal(err)
	}
	s.want(t, reads, []int{10, 10}, &report)
	if report.CachedBytes != 1000 || report.DiskReads != 1 || reads[0].WaitNs != 0 || reads[1].WaitNs == 0 {
		t.Errorf("report %+v, waits of %d and %d ns", report, reads[0].WaitNs, reads[1].WaitNs)
	}
}

// BenchmarkGather reads pieces from everywhere that the page cache has, or the ring brings.
func BenchmarkGather(b *testing.B) {
	for _, w := range []way{{name: "cached"}, {name: "direct", direct: true}} {
		for _, n := range []int{4096, 100_000} {
			b.Run(fmt.Sprintf("way=%s/read_bytes=%d", w.name, n), func(b *testing.B) {
				s := newStored(b, w, 1)
				random := rand.New(rand.NewPCG(1, 2))
				reads := make([]backend.Read, 128)
				for i := range reads {
					reads[i] = s.read(10, random.IntN((3<<20-n)/4096)*4096, n, 0)
				}
				b.SetBytes(int64(n * len(reads)))
				b.ReportAllocs()
				for b.Loop() {
					if err := s.Gather(context.Background(), reads, nil); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
