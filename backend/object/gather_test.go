package object_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/internal/faultfs"
)

// filesFixture is a directory of count files of size random bytes.
func filesFixture(t testing.TB, count, size int, options object.Options) (*object.Dir, []backend.Object) {
	root := t.TempDir()
	random := rand.NewChaCha8([32]byte{byte(count)})
	for i := range count {
		content := make([]byte, size)
		random.Read(content)
		write(t, filepath.Join(root, fmt.Sprintf("%d/%d", i%4, i)), content)
	}
	dir := openDir(t, root, options)
	return dir, list(t, dir)
}

// cold answers for a page cache that never has anything.
type cold struct{ object.System }

func (cold) Preadv2(int, []byte, int64, int) (int, syscall.Errno) { return -1, unix.EAGAIN }

// coldOpens moreover never has a name in its cache.
type coldOpens struct{ cold }

func (c coldOpens) Openat2(dirfd int, name []byte, how *unix.OpenHow) (int, syscall.Errno) {
	if how.Resolve&0x20 != 0 {
		return -1, unix.EAGAIN
	}
	return c.System.Openat2(dirfd, name, how)
}

func TestGatherAllocatesNothingInSteadyState(t *testing.T) {
	for name, options := range map[string]object.Options{
		"cached handles":             {},
		"no cached handles":          {OpenFiles: -1},
		"more files than handles":    {OpenFiles: 16},
		"reads that wait":            {System: cold{object.Kernel()}},
		"opens and reads that wait":  {System: coldOpens{cold{object.Kernel()}}, OpenFiles: -1},
		"one waiting read at a time": {System: coldOpens{cold{object.Kernel()}}, OpenFiles: -1, ColdReads: 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir, objects := filesFixture(t, 200, 5000, options)
			reads := make([]backend.Read, 64)
			buf := make([]byte, 64*5000)
			var report backend.GatherReport
			next := 0
			gather := func() {
				for i := range reads {
					reads[i] = whole(&objects[next%len(objects)], buf[i*5000:(i+1)*5000])
					next += 7
				}
				if err := dir.Gather(context.Background(), reads, &report); err != nil {
					t.Fatal(err)
				}
			}
			gather()
			if allocations := testing.AllocsPerRun(50, gather); allocations != 0 {
				t.Errorf("%v allocations a gather, want 0", allocations)
			}
			single := testing.AllocsPerRun(50, func() {
				if err := dir.ReadAt(context.Background(), reads[0].Chunk, reads[0].P, 0); err != nil {
					t.Fatal(err)
				}
			})
			if single != 0 {
				t.Errorf("%v allocations a ReadAt, want 0", single)
			}
		})
	}
}

func TestGatherReportSaysWhatHadToBeWaitedFor(t *testing.T) {
	for _, c := range []struct {
		system object.System
		want   backend.GatherReport
	}{
		{object.Kernel(), backend.GatherReport{CachedBytes: 8 * 5000}},
		{cold{object.Kernel()}, backend.GatherReport{DiskBytes: 8 * 5000, DiskReads: 8}},
		{coldOpens{cold{object.Kernel()}}, backend.GatherReport{DiskBytes: 8 * 5000, DiskReads: 8}},
	} {
		dir, objects := filesFixture(t, 8, 5000, object.Options{System: c.system})
		var reads []backend.Read
		for i := range objects {
			reads = append(reads, whole(&objects[i], make([]byte, 5000)))
		}
		var report backend.GatherReport
		must(t, dir.Gather(context.Background(), reads, &report))
		if waited := report.SlowestNs > 0; waited != (c.want.DiskReads > 0) || report.Slowest < 0 || report.Slowest >= len(reads) {
			t.Errorf("%T: the slowest is read %d with %d ns", c.system, report.Slowest, report.SlowestNs)
		}
		for i := range reads {
			if waited := reads[i].WaitNs > 0; waited != (c.want.DiskReads > 0) || reads[i].WaitNs > report.SlowestNs {
				t.Errorf("%T: read %d was waited for %d ns", c.system, i, reads[i].WaitNs)
			}
		}
		report.SlowestNs, report.Slowest = 0, 0
		if report != c.want {
			t.Errorf("%T: report %+v, want %+v", c.system, report, c.want)
		}
	}
}

func TestWaitingReadsRunInParallelWithinTheirBound(t *testing.T) {
	const bound = 4
	fs := faultfs.New(cold{object.Kernel()})
	dir, objects := filesFixture(t, 1, 100_000, object.Options{System: fs, ColdReads: bound})
	var running, most atomic.Int32
	full := make(chan struct{})
	var once sync.Once
	fs.Inject(faultfs.Fault{Op: faultfs.Pread, Hook: func(string) {
		now := running.Add(1)
		for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
		}
		if now == bound {
			once.Do(func() { close(full) })
		}
		<-full // so that the test hangs if fewer ever run at once
		running.Add(-1)
	}})
	var reads []backend.Read
	for i := range 40 {
		r := whole(&objects[0], make([]byte, 100))
		r.Offset = int64(i * 100)
		reads = append(reads, r)
	}
	must(t, dir.Gather(context.Background(), reads, nil))
	if most.Load() != bound {
		t.Errorf("%d reads at once, want %d", most.Load(), bound)
	}
	fs.AssertFired(t)
}

// TestCancellingEndsAGatherBetweenItsReads cancels in the first read, with the
// queue to the workers full.
func TestCancellingEndsAGatherBetweenItsReads(t *testing.T) {
	for _, system := range []object.System{object.Kernel(), cold{object.Kernel()}, coldOpens{cold{object.Kernel()}}} {
		fs := faultfs.New(system)
		dir, objects := filesFixture(t, 50, 100, object.Options{System: fs, ColdReads: 1, OpenFiles: -1})
		ctx, cancel := context.WithCancelCause(context.Background())
		cause := errors.New("the session ended")
		op := faultfs.Pread
		if system == object.Kernel() {
			op = faultfs.Preadv2
		}
		reads := fs.Inject(faultfs.Fault{Op: op, Hook: func(string) { cancel(cause) }})
		var batch []backend.Read
		for i := range objects {
			batch = append(batch, whole(&objects[i], make([]byte, 100)))
		}
		if err := dir.Gather(ctx, batch, nil); !errors.Is(err, cause) {
			t.Errorf("%T: %v, want the cause", system, err)
		}
		if n := fs.Fired(reads); n > 2 {
			t.Errorf("%T: %d reads were made after the end", system, n-1)
		}
		must(t, dir.Gather(context.Background(), batch, nil))
		must(t, dir.Close())
		fs.AssertClosed(t)
	}
}

func TestCloseStopsEveryGoroutineAndClosesEveryDescriptor(t *testing.T) {
	before := goleak.IgnoreCurrent()
	fs := faultfs.New(cold{object.Kernel()})
	dir, objects := filesFixture(t, 20, 100, object.Options{System: fs})
	for i := range objects {
		must(t, dir.ReadAt(context.Background(), whole(&objects[i], nil).Chunk, make([]byte, 100), 0))
	}
	must(t, dir.Close())
	fs.AssertClosed(t)
	goleak.VerifyNone(t, before)
}

func TestALocationOutlivesNameAndDir(t *testing.T) {
	fs := faultfs.New(object.Kernel())
	root, dir, objects := changeFixture(t, object.Options{System: fs})
	o := objects[victim]
	at, err := dir.Locate(context.Background(), backend.Chunk{Object: o, Start: 0, Size: o.Version.Size}, backend.Range{Offset: 5, Length: 5})
	must(t, err)
	if at.Path != filepath.Join(root, victim) || at.Offset != 5 {
		t.Errorf("located at %s, %d", at.Path, at.Offset)
	}
	must(t, os.Remove(at.Path))
	must(t, dir.Close())
	at.Release()
	at.Release() // the second does nothing
	fs.AssertClosed(t)
}

func TestLocateRefusesWhatIsNotAtItsVersion(t *testing.T) {
	for _, c := range changes() {
		fs := faultfs.New(object.Kernel())
		root, dir, objects := changeFixture(t, object.Options{System: fs})
		c.apply(t, root)
		o := objects[victim]
		_, err := dir.Locate(context.Background(), backend.Chunk{Object: o, Size: o.Version.Size}, backend.Range{Length: 5})
		if backend.KindOf(err) != c.kind {
			t.Errorf("%s: %v, want kind %s", c.name, err, c.kind)
		}
		must(t, dir.Close())
		fs.AssertClosed(t)
	}
}

// TestGatherEqualsSlicesOfFiles compares random gathers with os.ReadFile, for any
// sizes, chunkings, overlaps, repetitions, cache sizes and missing page cache.
func TestGatherEqualsSlicesOfFiles(t *testing.T) {
	outer := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		root, err := os.MkdirTemp(outer, "")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(root)
		contents := map[string][]byte{}
		for i := range rapid.IntRange(1, 12).Draw(t, "files") {
			content := make([]byte, rapid.IntRange(0, 20_000).Draw(t, "size"))
			rand.NewChaCha8([32]byte{byte(i)}).Read(content)
			name := fmt.Sprintf("d%d/%d", i%3, i)
			os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o700)
			if err := os.WriteFile(filepath.Join(root, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
			contents[name] = content
		}
		compareGathers(t, root, contents)
	})
}

func compareGathers(t *rapid.T, root string, contents map[string][]byte) {
	system := rapid.SampledFrom([]object.System{object.Kernel(), cold{object.Kernel()}, coldOpens{cold{object.Kernel()}}}).Draw(t, "system")
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := object.OpenDir(fd, object.Options{
		System: system, ColdReads: rapid.IntRange(1, 3).Draw(t, "cold"), OpenFiles: rapid.IntRange(-1, 9).Draw(t, "open"),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	var objects []backend.Object
	dir.Objects(context.Background(), func(o backend.Object) error {
		o.Name = bytes.Clone(o.Name)
		o.Number = rapid.Int64Range(0, 3).Draw(t, "number") // a hint: may be wrong
		objects = append(objects, o)
		return nil
	}, nil)
	for range 3 {
		var reads []backend.Read
		for range rapid.IntRange(0, 40).Draw(t, "reads") {
			o := &objects[rapid.IntRange(0, len(objects)-1).Draw(t, "object")]
			reads = append(reads, randomRead(t, o))
		}
		if err := dir.Gather(context.Background(), reads, nil); err != nil {
			t.Fatal(err)
		}
		for i, r := range reads {
			from := r.Chunk.Start + r.Offset
			if !bytes.Equal(r.P, contents[string(r.Chunk.Object.Name)][from:from+int64(len(r.P))]) {
				t.Fatalf("read %d of %q at %d: wrong bytes", i, r.Chunk.Object.Name, from)
			}
		}
	}
}

func randomRead(t *rapid.T, o *backend.Object) backend.Read {
	start := rapid.Int64Range(0, o.Version.Size).Draw(t, "start")
	size := rapid.Int64Range(0, o.Version.Size-start).Draw(t, "size")
	off := rapid.Int64Range(0, size).Draw(t, "offset")
	length := rapid.Int64Range(0, size-off).Draw(t, "length")
	return backend.Read{
		Chunk: backend.Chunk{Object: o, Start: start, Size: size}, Offset: off, P: bytes.Repeat([]byte{0xA5}, int(length)),
	}
}

func TestParallelGathersOfFewHandlesStayRight(t *testing.T) {
	dir, objects := filesFixture(t, 40, 3000, object.Options{OpenFiles: 8, System: cold{object.Kernel()}, ColdReads: 4})
	want := make([][]byte, len(objects))
	for i := range objects {
		want[i] = make([]byte, 3000)
		must(t, dir.ReadAt(context.Background(), whole(&objects[i], nil).Chunk, want[i], 0))
	}
	var group sync.WaitGroup
	for seed := range uint64(4) {
		group.Go(func() {
			random := rand.New(rand.NewPCG(seed, 0))
			reads := make([]backend.Read, 16)
			chosen := make([]int, len(reads))
			for range 40 {
				for i := range reads {
					chosen[i] = random.IntN(len(objects))
					reads[i] = whole(&objects[chosen[i]], make([]byte, 3000))
				}
				if err := dir.Gather(context.Background(), reads, nil); err != nil {
					t.Error(err)
					return
				}
				for i := range reads {
					if !bytes.Equal(reads[i].P, want[chosen[i]]) {
						t.Error("wrong bytes")
					}
				}
				dir.EvictIdle()
			}
		})
	}
	group.Wait()
}

func TestDirsKeepNoMoreDescriptorsThanTheirBudget(t *testing.T) {
	budget := object.NewBudget(10)
	var dirs []*object.Dir
	for range 3 {
		dir, objects := filesFixture(t, 8, 100, object.Options{Budget: budget, OpenFiles: 64})
		dirs = append(dirs, dir)
		for range 2 {
			for i := range objects {
				must(t, dir.ReadAt(context.Background(), whole(&objects[i], nil).Chunk, make([]byte, 100), 0))
			}
		}
	}
	if left := budget.Left(); left != 0 {
		t.Errorf("%d descriptors are left of the budget, want 0", left)
	}
	kept := dirs[0].EvictIdle() + dirs[1].EvictIdle() + dirs[2].EvictIdle()
	if kept != 10 || budget.Left() != 10 {
		t.Errorf("%d descriptors were kept and %d are left after closing them, want 10 and 10", kept, budget.Left())
	}
}

// TestHandlesOfManyFilesKeepServingTheFirst reads more files than there are
// places, again and again: the places stay useful.
func TestHandlesOfManyFilesKeepServingTheFirst(t *testing.T) {
	fs := faultfs.New(object.Kernel())
	dir, objects := filesFixture(t, 400, 10, object.Options{System: fs, OpenFiles: 64})
	read := func() {
		for i := range objects {
			must(t, dir.ReadAt(context.Background(), whole(&objects[i], nil).Chunk, make([]byte, 10), 0))
		}
	}
	read()
	opens := fs.Inject(faultfs.Fault{Op: faultfs.Openat2})
	read()
	if n := fs.Fired(opens); n > 400-48 {
		t.Errorf("%d of 400 files were opened again with 64 places", n)
	}
}

// workersOf counts the goroutines that wait for the device.
func workersOf(t *testing.T) int {
	t.Helper()
	var stacks bytes.Buffer
	must(t, pprof.Lookup("goroutine").WriteTo(&stacks, 2))
	return strings.Count(stacks.String(), "object.(*Dir).work(")
}

func TestGoroutinesBeginWithTheFirstReadThatWaits(t *testing.T) {
	dir, objects := filesFixture(t, 2, 100, object.Options{System: cold{object.Kernel()}, ColdReads: 3})
	if n := workersOf(t); n != 0 {
		t.Errorf("%d goroutines of a Dir that was only listed", n)
	}
	want, err := os.ReadFile(filepath.Join(dir.Path(), string(objects[0].Name)))
	must(t, err)
	p := make([]byte, 100)
	must(t, dir.ReadAt(context.Background(), whole(&objects[0], nil).Chunk, p, 0))
	if !bytes.Equal(p, want) {
		t.Error("wrong bytes")
	}
	begun := time.Now()
	for workersOf(t) != 3 { // the others may not have run yet
		if time.Since(begun) > 10*time.Second {
			t.Fatalf("%d goroutines after a read that waited, want 3", workersOf(t))
		}
		time.Sleep(time.Millisecond)
	}
	must(t, dir.Close())
	if n := workersOf(t); n != 0 {
		t.Errorf("%d goroutines after Close", n)
	}
}

// TestClosingRacesWithTheFirstReadsThatWait closes while several calls try to start
// the goroutines: each call is served or refused whole.
func TestClosingRacesWithTheFirstReadsThatWait(t *testing.T) {
	for range 50 {
		dir, objects := filesFixture(t, 4, 100, object.Options{System: coldOpens{cold{object.Kernel()}}, ColdReads: 2})
		var group sync.WaitGroup
		begin := make(chan struct{})
		for i := range objects {
			group.Go(func() {
				<-begin
				err := dir.ReadAt(context.Background(), whole(&objects[i], nil).Chunk, make([]byte, 100), 0)
				if err != nil && backend.KindOf(err) != backend.Unavailable {
					t.Error(err)
				}
			})
		}
		for range 2 {
			group.Go(func() {
				<-begin
				if err := dir.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		close(begin)
		group.Wait()
		if n := workersOf(t); n != 0 {
			t.Fatalf("%d goroutines after Close", n)
		}
	}
}
