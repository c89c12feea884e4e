package object_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/internal/faultfs"
)

// chill takes a file out of the page cache, where the file system lets it. It says
// whether the kernel agrees that nothing is left.
func chill(t testing.TB, name string) (gone bool) {
	t.Helper()
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	must(t, f.Sync())
	must(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	var pages unix.Cachestat_t
	if unix.Cachestat(uint(f.Fd()), new(unix.CachestatRange), &pages, 0) != nil {
		return false
	}
	return pages.Cache == 0
}

// warmFixture is a directory with one file of that content.
func warmFixture(t testing.TB, content []byte, options object.Options) (string, *object.Dir, *backend.Object) {
	t.Helper()
	root := t.TempDir()
	write(t, filepath.Join(root, "data"), content)
	dir := openDir(t, root, options)
	return filepath.Join(root, "data"), dir, &list(t, dir)[0]
}

// waitedFor gathers a range and says how many of its reads had to wait.
func waitedFor(t rapid.TB, dir *object.Dir, o *backend.Object, off, n int64) int64 {
	t.Helper()
	var report backend.GatherReport
	r := whole(o, make([]byte, n))
	r.Offset = off
	if err := dir.Gather(context.Background(), []backend.Read{r}, &report); err != nil {
		t.Fatal(err)
	}
	return report.DiskReads
}

func TestWhatWasWarmedIsReadWithoutWaiting(t *testing.T) {
	for _, size := range []int{0, 1, 4096, 4097, 100_000, 3<<20 + 7} {
		name, dir, o := warmFixture(t, slices.Repeat([]byte{7}, size), object.Options{})
		gone := chill(t, name)
		resident, err := dir.Warm(context.Background(), o, 0, int64(size))
		if must(t, err); resident != (!gone || size == 0) {
			t.Errorf("%d bytes, out of the page cache %v: resident %v", size, gone, resident)
		}
		if waited := waitedFor(t, dir, o, 0, int64(size)); waited != 0 {
			t.Errorf("%d bytes: %d reads had to wait", size, waited)
		}
		if resident, err = dir.Warm(context.Background(), o, 0, int64(size)); err != nil || !resident {
			t.Errorf("%d bytes, again: %v, %v, want resident", size, resident, err)
		}
	}
}

func TestWarmedRangesOfASparseFileAreReadWithoutWaiting(t *testing.T) {
	const size = 5 << 20
	name, dir, _ := warmFixture(t, nil, object.Options{})
	must(t, os.Truncate(name, size))
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("an island"), 3<<20)
	must(t, errors.Join(err, f.Close()))
	o := &list(t, dir)[0]
	rapid.Check(t, func(rt *rapid.T) {
		chill(t, name)
		from := rapid.Int64Range(0, size).Draw(rt, "from")
		n := rapid.Int64Range(0, size-from).Draw(rt, "bytes")
		if _, err := dir.Warm(context.Background(), o, from, n); err != nil {
			rt.Fatal(err)
		}
		if waited := waitedFor(rt, dir, o, from, n); waited != 0 {
			rt.Fatalf("%d reads of [%d, %d) had to wait", waited, from, from+n)
		}
	})
}

// nothingCached makes cachestat say that the page cache has nothing.
func nothingCached() faultfs.Fault {
	return faultfs.Fault{Op: faultfs.Cachestat, Pages: func(p *unix.Cachestat_t) { p.Cache = 0 }}
}

// lazy is a kernel that takes requests to read ahead and forgets them.
type lazy struct{ object.System }

func (lazy) Fadvise(int, int64, int64, int) syscall.Errno { return 0 }

func TestWarmingWorksWhereTheKernelLacksSomething(t *testing.T) {
	lacking := func(faults ...faultfs.Fault) func() object.System {
		return func() object.System {
			fs := faultfs.New(object.Kernel())
			for _, fault := range faults {
				fs.Inject(fault)
			}
			return fs
		}
	}
	noNowait := faultfs.Fault{Op: faultfs.Preadv2, Name: "data", Errno: unix.EOPNOTSUPP}
	noCachestat := faultfs.Fault{Op: faultfs.Cachestat, Errno: unix.ENOSYS}
	noAdvice := faultfs.Fault{Op: faultfs.Fadvise, Errno: unix.EINVAL}
	content := make([]byte, 700_000)
	rand.NewChaCha8([32]byte{3}).Read(content)
	for name, c := range map[string]struct {
		system func() object.System
		blind  bool // it cannot be told what is resident
	}{
		"cachestat":                       {lacking(noCachestat), false},
		"cachestat of files of others":    {lacking(faultfs.Fault{Op: faultfs.Cachestat, Errno: unix.EPERM}), false},
		"RWF_NOWAIT":                      {lacking(noNowait), false},
		"cachestat and RWF_NOWAIT":        {lacking(noCachestat, noNowait), true},
		"posix_fadvise":                   {lacking(noAdvice), false},
		"posix_fadvise and cachestat":     {lacking(noAdvice, noCachestat), false},
		"all three":                       {lacking(noAdvice, noCachestat, noNowait), true},
		"openat2":                         {lacking(faultfs.Fault{Op: faultfs.Openat2, Errno: unix.ENOSYS}), false},
		"RESOLVE_CACHED":                  {lacking(faultfs.Fault{Op: faultfs.Openat2, Name: "data", Nth: 1, Count: 1, Errno: unix.EINVAL}), false},
		"will to do what it was asked to": {func() object.System { return lazy{object.Kernel()} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, openFiles := range []int{-1, 4} {
				file, _, _ := warmFixture(t, content, object.Options{})
				dir := openDir(t, filepath.Dir(file), object.Options{System: c.system(), OpenFiles: openFiles})
				plain := openDir(t, filepath.Dir(file), object.Options{})
				o := &list(t, plain)[0]
				gone := chill(t, file)
				resident, err := dir.Warm(context.Background(), o, 1000, 600_000)
				if must(t, err); resident && gone {
					t.Error("resident, but it was not in the page cache")
				}
				if waited := waitedFor(t, plain, o, 1000, 600_000); waited != 0 {
					t.Errorf("%d reads had to wait", waited)
				}
				if resident, err = dir.Warm(context.Background(), o, 1000, 600_000); err != nil || resident == c.blind {
					t.Errorf("again: %v, %v", resident, err)
				}
			}
		})
	}
}

// TestEveryErrnoOfEveryCallOfAWarmingIsToldOrHarmless goes through all errnos that Linux
// has, on every system call.
func TestEveryErrnoOfEveryCallOfAWarmingIsToldOrHarmless(t *testing.T) {
	harmless := map[faultfs.Op]bool{faultfs.Preadv2: true, faultfs.Fadvise: true, faultfs.Cachestat: true, faultfs.Close: true}
	for op, calls := range map[faultfs.Op]int{
		faultfs.Openat2: 2, faultfs.Fstat: 2, faultfs.Preadv2: 1, faultfs.Pread: 1, faultfs.Fadvise: 1, faultfs.Cachestat: 2, faultfs.Close: 1,
	} {
		for nth := 1; nth <= calls; nth++ {
			t.Run(fmt.Sprintf("%s call %d", op, nth), func(t *testing.T) {
				fs := faultfs.New(object.Kernel())
				root, dir, objects := changeFixture(t, object.Options{System: fs, OpenFiles: -1})
				o := objects[victim]
				for errno := syscall.Errno(1); errno <= unix.EHWPOISON; errno++ {
					chill(t, filepath.Join(root, victim))
					if op == faultfs.Pread {
						fs.Inject(faultfs.Fault{Op: faultfs.Preadv2, Errno: unix.EAGAIN})
					}
					if op == faultfs.Openat2 && nth == 2 {
						fs.Inject(faultfs.Fault{Op: op, Count: 1, Errno: unix.EAGAIN, Name: victim})
					}
					fs.Inject(faultfs.Fault{Op: op, Nth: nth, Errno: errno, Name: victim})
					_, err := dir.Warm(context.Background(), o, 0, 100_000)
					switch {
					case err == nil && !harmless[op]:
						t.Errorf("%s: no error", errno)
					case err != nil && harmless[op]:
						t.Errorf("%s: %v, want it got round", errno, err)
					case err != nil:
						checkErrnoError(t, err, errno)
					}
					fs.Clear()
				}
				_, err := dir.Warm(context.Background(), o, 0, 100_000)
				must(t, err)
				must(t, dir.Close())
				fs.AssertClosed(t)
			})
		}
	}
}

func TestInterruptedCallsOfAWarmingAreBegunAgain(t *testing.T) {
	for _, op := range []faultfs.Op{faultfs.Openat2, faultfs.Fstat, faultfs.Preadv2, faultfs.Pread} {
		fs := faultfs.New(object.Kernel())
		root, dir, objects := changeFixture(t, object.Options{System: fs})
		chill(t, filepath.Join(root, victim))
		if op == faultfs.Pread {
			fs.Inject(nothingCached())
		}
		if op == faultfs.Preadv2 { // asked only when cachestat does not say no
			fs.Inject(faultfs.Fault{Op: faultfs.Cachestat, Errno: unix.ENOSYS})
		}
		fs.Inject(faultfs.Fault{Op: op, Name: victim, Count: 3, Errno: unix.EINTR})
		if _, err := dir.Warm(context.Background(), objects[victim], 0, 100_000); err != nil {
			t.Errorf("%s: %v", op, err)
		}
		fs.AssertFired(t)
	}
}

func TestAFileThatChangedIsNotWarmed(t *testing.T) {
	for _, openFiles := range []int{-1, 16} {
		for _, c := range changes() {
			t.Run(c.name, func(t *testing.T) {
				root, dir, objects := changeFixture(t, object.Options{OpenFiles: openFiles})
				_, err := dir.Warm(context.Background(), objects[victim], 0, 100_000)
				must(t, err)
				c.apply(t, root)
				resident, err := dir.Warm(context.Background(), objects[victim], 0, 100_000)
				if resident || backend.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v, %v; want kind %s, saying %q", resident, err, c.kind, c.says)
				}
				wantGoodError(t, err)
				_, err = dir.Warm(context.Background(), objects["innocent"], 0, 100_000)
				must(t, err)
			})
		}
	}
}

func TestAFileThatChangesWhileItIsWarmedIsChanged(t *testing.T) {
	for _, c := range changes() {
		for _, op := range []faultfs.Op{faultfs.Cachestat, faultfs.Fadvise, faultfs.Pread} {
			fs := faultfs.New(object.Kernel())
			root, dir, objects := changeFixture(t, object.Options{System: fs})
			fs.Inject(nothingCached())
			fs.Inject(faultfs.Fault{Op: op, Name: victim, Count: 1, Hook: func(string) { c.apply(t, root) }})
			resident, err := dir.Warm(context.Background(), objects[victim], 0, 100_000)
			if resident || backend.KindOf(err) != backend.Changed {
				t.Errorf("%s, at %s: %v, %v, want Changed", c.name, op, resident, err)
			}
			wantGoodError(t, err)
			fs.AssertFired(t)
		}
	}
}

func TestAWarmingEndsBetweenTwoPieces(t *testing.T) {
	const size = 4 << 20
	for op, most := range map[faultfs.Op]int{faultfs.Fadvise: 3, faultfs.Pread: 3} {
		for _, advice := range []syscall.Errno{0, unix.EINVAL} {
			if op == faultfs.Fadvise && advice != 0 {
				continue
			}
			fs := faultfs.New(object.Kernel())
			_, dir, o := warmFixture(t, make([]byte, size), object.Options{System: fs})
			cause := errors.New("the test's cause")
			ctx, cancel := context.WithCancelCause(context.Background())
			fs.Inject(faultfs.Fault{Op: faultfs.Preadv2, Errno: unix.EAGAIN})
			if advice != 0 {
				fs.Inject(faultfs.Fault{Op: faultfs.Fadvise, Errno: advice})
			}
			calls := fs.Inject(faultfs.Fault{Op: op, Name: "data", Hook: func(string) {}})
			fs.Inject(faultfs.Fault{Op: op, Name: "data", Nth: most, Hook: func(string) { cancel(cause) }})
			resident, err := dir.Warm(ctx, o, 0, size)
			if resident || !errors.Is(err, cause) {
				t.Errorf("%s: %v, %v, want the context's cause", op, resident, err)
			}
			if fired := fs.Fired(calls); fired != most {
				t.Errorf("%s: called %d times, cancelled at the %d.", op, fired, most)
			}
		}
	}
}

func TestAWarmingAsksAheadWithinItsBound(t *testing.T) {
	const size = 32 << 20
	fs := faultfs.New(object.Kernel())
	name, dir, _ := warmFixture(t, nil, object.Options{System: fs})
	must(t, os.Truncate(name, size))
	o := &list(t, dir)[0]
	fs.Inject(faultfs.Fault{Op: faultfs.Fstat, Stat: func(s *unix.Stat_t) { s.Blocks = size / 512 }}) // as if it had no holes
	fs.Inject(faultfs.Fault{Op: faultfs.Preadv2, Errno: unix.EAGAIN})
	asked := fs.Inject(faultfs.Fault{Op: faultfs.Fadvise, Hook: func(string) {}})
	var waited, most int
	fs.Inject(faultfs.Fault{Op: faultfs.Pread, Hook: func(string) {
		most = max(most, fs.Fired(asked)-waited)
		waited++
	}})
	_, err := dir.Warm(context.Background(), o, 0, size)
	must(t, err)
	if pieces := size / (128 << 10); waited != pieces || fs.Fired(asked) != pieces {
		t.Errorf("asked for %d pieces and waited for %d of %d", fs.Fired(asked), waited, pieces)
	}
	if most > 64 {
		t.Errorf("asked for %d pieces ahead", most)
	}
}

func TestWarmingAllocatesNothingInSteadyState(t *testing.T) {
	for name, system := range map[string]object.System{"resident": object.Kernel(), "cold": cold{object.Kernel()}} {
		dir, objects := filesFixture(t, 100, 5000, object.Options{System: system})
		next := 0
		warm := func() {
			if _, err := dir.Warm(context.Background(), &objects[next%len(objects)], 0, 5000); err != nil {
				t.Fatal(err)
			}
			next++
		}
		for range objects {
			warm()
		}
		if allocations := testing.AllocsPerRun(200, warm); allocations != 0 {
			t.Errorf("%s: %v allocations a call", name, allocations)
		}
	}
}

func TestCloseWaitsForAWarming(t *testing.T) {
	fs := faultfs.New(object.Kernel())
	root := t.TempDir()
	write(t, filepath.Join(root, "data"), make([]byte, 5000))
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	dir, err := object.OpenDir(fd, object.Options{System: fs})
	must(t, err)
	o := &list(t, dir)[0]
	inside, goOn := make(chan struct{}), make(chan struct{})
	var ended atomic.Bool
	fs.Inject(faultfs.Fault{Op: faultfs.Cachestat, Hook: func(string) { close(inside); <-goOn; ended.Store(true) }})
	warmed, closed := make(chan error, 1), make(chan error, 1)
	go func() { _, err := dir.Warm(context.Background(), o, 0, 5000); warmed <- err }()
	<-inside
	go func() { closed <- dir.Close() }()
	close(goOn)
	must(t, <-closed)
	if !ended.Load() {
		t.Error("Close did not wait")
	}
	must(t, <-warmed)
	fs.AssertClosed(t)
}

// BenchmarkWarm asks for what is in the page cache: what foresight costs where most of a
// dataset is.
func BenchmarkWarm(b *testing.B) {
	for _, size := range []int{4096, 100_000, 4 << 20} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			_, dir, o := warmFixture(b, make([]byte, size), object.Options{})
			b.ReportAllocs()
			for b.Loop() {
				if resident, err := dir.Warm(context.Background(), o, 0, int64(size)); err != nil || !resident {
					b.Fatal(resident, err)
				}
			}
		})
	}
}
