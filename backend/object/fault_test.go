package object_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/internal/faultfs"
)

// kinds says what an errno means for an indexed file; Unavailable if not listed.
var kinds = map[syscall.Errno]backend.Kind{
	unix.ENOENT: backend.Changed, unix.ENOTDIR: backend.Changed, unix.EISDIR: backend.Changed,
	unix.ESTALE: backend.Changed, unix.ENXIO: backend.Changed, unix.ENODEV: backend.Changed,
	unix.EACCES: backend.Permission, unix.EPERM: backend.Permission,
	unix.ELOOP: backend.Permission, unix.EXDEV: backend.Permission,
	unix.ENAMETOOLONG: backend.OutOfRange,
}

// harmless says which errnos of an operation the reader gets round.
func harmless(op faultfs.Op, errno syscall.Errno) bool {
	switch op {
	case faultfs.Preadv2:
		return errno == unix.EAGAIN || errno == unix.EOPNOTSUPP || errno == unix.ENOSYS
	case faultfs.Close:
		return true
	}
	return false
}

// TestEveryErrnoOfEveryCallIsAnErrorOrRightBytes goes through all errnos that
// Linux has, on every system call of a read, from the page cache or not.
func TestEveryErrnoOfEveryCallIsAnErrorOrRightBytes(t *testing.T) {
	for op, calls := range map[faultfs.Op]int{
		faultfs.Openat2: 1, faultfs.Openat: 1, faultfs.Fstat: 2, faultfs.Preadv2: 2, faultfs.Pread: 2, faultfs.Close: 1,
	} {
		for nth := 1; nth <= calls; nth++ {
			t.Run(fmt.Sprintf("%s call %d", op, nth), func(t *testing.T) {
				for errno := syscall.Errno(1); errno <= unix.EHWPOISON; errno++ {
					readWithErrno(t, op, nth, errno)
				}
			})
		}
	}
}

func readWithErrno(t *testing.T, op faultfs.Op, nth int, errno syscall.Errno) {
	fs := faultfs.New(object.Kernel())
	if op == faultfs.Openat {
		fs.Inject(faultfs.Fault{Op: faultfs.Openat2, Errno: unix.ENOSYS})
	}
	_, dir, objects := changeFixture(t, object.Options{System: fs, ColdReads: 1, OpenFiles: -1})
	if op == faultfs.Pread {
		fs.Inject(faultfs.Fault{Op: faultfs.Preadv2, Errno: unix.EAGAIN})
	}
	fault := faultfs.Fault{Op: op, Nth: nth, Errno: errno, Name: victim}
	if op == faultfs.Close {
		fault.Name = "*"
	}
	fs.Inject(fault)
	p := bytes.Repeat([]byte{0xA5}, 200_000)
	reads := []backend.Read{whole(objects["innocent"], p[100_000:]), whole(objects[victim], p[:50_000]), whole(objects[victim], p[50_000:100_000])}
	reads[2].Offset = 50_000
	err := dir.Gather(context.Background(), reads, nil)
	fs.AssertFired(t)
	switch {
	case err == nil:
		if !harmless(op, errno) {
			t.Errorf("%s: no error", errno)
		}
		if !bytes.Equal(p, append(bytes.Repeat([]byte{1}, 100_000), bytes.Repeat([]byte{2}, 100_000)...)) {
			t.Errorf("%s: wrong bytes", errno)
		}
	case harmless(op, errno):
		t.Errorf("%s: %v, want it got round", errno, err)
	default:
		checkErrnoError(t, err, errno)
	}
	fs.Clear()
	must(t, dir.Gather(context.Background(), reads, nil))
	must(t, dir.Close())
	fs.AssertClosed(t)
}

func checkErrnoError(t *testing.T, err error, errno syscall.Errno) {
	t.Helper()
	want, ok := kinds[errno]
	if !ok {
		want = backend.Unavailable
	}
	if backend.KindOf(err) != want {
		t.Errorf("%s: %v, want kind %s", errno, err, want)
	}
	if !errors.Is(err, errno) {
		t.Errorf("%s: %v does not wrap it", errno, err)
	}
	if !strings.Contains(err.Error(), victim) {
		t.Errorf("%s: %v does not name the file", errno, err)
	}
}

func TestInterruptedCallsAreBegunAgain(t *testing.T) {
	for _, op := range []faultfs.Op{faultfs.Openat2, faultfs.Fstat, faultfs.Preadv2, faultfs.Pread} {
		fs := faultfs.New(object.Kernel())
		_, dir, objects := changeFixture(t, object.Options{System: fs})
		if op == faultfs.Pread {
			fs.Inject(faultfs.Fault{Op: faultfs.Preadv2, Errno: unix.EAGAIN})
		}
		fs.Inject(faultfs.Fault{Op: op, Name: victim, Count: 3, Errno: unix.EINTR})
		p := make([]byte, 100_000)
		if err := dir.Gather(context.Background(), []backend.Read{whole(objects[victim], p)}, nil); err != nil {
			t.Errorf("%s: %v", op, err)
		}
		if !bytes.Equal(p, bytes.Repeat([]byte{1}, len(p))) {
			t.Errorf("%s: wrong bytes", op)
		}
		fs.AssertFired(t)
	}
}

func TestShortReadsAreCompletedAndAnEarlyEndIsChanged(t *testing.T) {
	for _, c := range []struct {
		name string
		nth  int
		fail bool
		op   faultfs.Op
		n    int
	}{
		{"the page cache has a part", 1, false, faultfs.Preadv2, 4096},
		{"the page cache has a part of the second half", 2, false, faultfs.Preadv2, 1},
		{"the device gives a part each time", 1, false, faultfs.Pread, 30_000},
		{"the file ends before its first byte", 1, true, faultfs.Pread, -1},
		{"the file ends in the second half", 2, true, faultfs.Pread, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := faultfs.New(object.Kernel())
			_, dir, objects := changeFixture(t, object.Options{System: fs})
			if c.op == faultfs.Pread {
				fs.Inject(faultfs.Fault{Op: faultfs.Preadv2, Errno: unix.EAGAIN})
			}
			fs.Inject(faultfs.Fault{Op: c.op, Name: victim, Nth: c.nth, Short: c.n})
			p := make([]byte, 100_000)
			reads := []backend.Read{whole(objects[victim], p[:50_000]), whole(objects[victim], p[50_000:])}
			reads[1].Offset = 50_000
			var report backend.GatherReport
			err := dir.Gather(context.Background(), reads, &report)
			fs.AssertFired(t)
			if c.fail {
				if backend.KindOf(err) != backend.Changed {
					t.Errorf("%v, want Changed", err)
				}
				wantGoodError(t, err)
				return
			}
			must(t, err)
			if !bytes.Equal(p, bytes.Repeat([]byte{1}, len(p))) {
				t.Error("wrong bytes")
			}
			if report.CachedBytes+report.DiskBytes != 100_000 || report.DiskReads == 0 {
				t.Errorf("report %+v", report)
			}
		})
	}
}

func TestAReplacedFileBehindEqualNamesIsChanged(t *testing.T) {
	for field, alter := range map[string]func(*unix.Stat_t){
		"device":         func(s *unix.Stat_t) { s.Dev++ },
		"inode":          func(s *unix.Stat_t) { s.Ino++ },
		"size":           func(s *unix.Stat_t) { s.Size++ },
		"modified":       func(s *unix.Stat_t) { s.Mtim.Nsec ^= 1 },
		"status changed": func(s *unix.Stat_t) { s.Ctim.Nsec ^= 1 },
	} {
		for nth := 1; nth <= 2; nth++ {
			fs := faultfs.New(object.Kernel())
			_, dir, objects := changeFixture(t, object.Options{System: fs})
			fs.Inject(faultfs.Fault{Op: faultfs.Fstat, Name: victim, Nth: nth, Stat: alter})
			err := dir.Gather(context.Background(), []backend.Read{whole(objects[victim], make([]byte, 10))}, nil)
			if backend.KindOf(err) != backend.Changed || !strings.Contains(err.Error(), field) {
				t.Errorf("%s at check %d: %v, want Changed naming it", field, nth, err)
			}
			wantGoodError(t, err)
			fs.AssertFired(t)
		}
	}
}

func TestRunningOutOfDescriptorsEvictsHandlesThenIsUnavailable(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.EMFILE, unix.ENFILE} {
		fs := faultfs.New(object.Kernel())
		_, dir, objects := changeFixture(t, object.Options{System: fs})
		p := make([]byte, 100_000)
		must(t, dir.Gather(context.Background(), []backend.Read{whole(objects["innocent"], p)}, nil))
		evicted := fs.Inject(faultfs.Fault{Op: faultfs.Close, Name: "innocent"})
		fs.Inject(faultfs.Fault{Op: faultfs.Openat2, Name: victim, Count: 1, Errno: errno})
		must(t, dir.Gather(context.Background(), []backend.Read{whole(objects[victim], p)}, nil))
		if fs.Fired(evicted) != 1 {
			t.Errorf("%s: the cached handle was closed %d times, want once", errno, fs.Fired(evicted))
		}
		fs.AssertFired(t)
		fs.Clear()
		dir.EvictIdle()
		fs.Inject(faultfs.Fault{Op: faultfs.Openat2, Name: victim, Errno: errno})
		err := dir.Gather(context.Background(), []backend.Read{whole(objects[victim], p)}, nil)
		if backend.KindOf(err) != backend.Unavailable || !strings.Contains(err.Error(), "may have") {
			t.Errorf("%s: %v, want Unavailable naming the limit", errno, err)
		}
		wantGoodError(t, err)
		fs.AssertFired(t)
	}
}

// TestAnOpenThatWouldWaitGoesToTheWorkers lets every open miss the kernel's name
// cache, so that workers open, check, read and check again.
func TestAnOpenThatWouldWaitGoesToTheWorkers(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault faultfs.Fault
		kind  backend.Kind
	}{
		{"and is read there", faultfs.Fault{Op: faultfs.Openat2, Name: victim, Count: 1, Errno: unix.EAGAIN}, ""},
		{"and fails there", faultfs.Fault{Op: faultfs.Fstat, Name: victim, Errno: unix.EIO}, backend.Unavailable},
		{"and fails the second check there", faultfs.Fault{Op: faultfs.Fstat, Name: victim, Nth: 2, Errno: unix.EIO}, backend.Unavailable},
		{"and its read fails there", faultfs.Fault{Op: faultfs.Preadv2, Name: victim, Errno: unix.EIO}, backend.Unavailable},
		{"before Linux 5.12 is made at once", faultfs.Fault{Op: faultfs.Openat2, Name: victim, Nth: 2, Count: 1, Errno: unix.EINVAL}, backend.Unavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := faultfs.New(object.Kernel())
			_, dir, objects := changeFixture(t, object.Options{System: fs})
			fs.Inject(faultfs.Fault{Op: faultfs.Openat2, Name: victim, Count: 1, Errno: unix.EAGAIN})
			fs.Inject(c.fault)
			p := make([]byte, 100_000)
			err := dir.Gather(context.Background(), []backend.Read{whole(objects[victim], p)}, nil)
			fs.AssertFired(t)
			if backend.KindOf(err) != c.kind {
				t.Fatalf("%v, want kind %q", err, c.kind)
			}
			if err == nil && !bytes.Equal(p, bytes.Repeat([]byte{1}, len(p))) {
				t.Error("wrong bytes")
			}
			must(t, dir.Close())
			fs.AssertClosed(t)
		})
	}
}

func TestKernelsWithoutResolveCachedOpenAtOnce(t *testing.T) {
	fs := faultfs.New(object.Kernel())
	_, dir, objects := changeFixture(t, object.Options{System: fs})
	fs.Inject(faultfs.Fault{Op: faultfs.Openat2, Name: victim, Count: 1, Errno: unix.EINVAL})
	p := make([]byte, 100_000)
	must(t, dir.Gather(context.Background(), []backend.Read{whole(objects[victim], p)}, nil))
	if !bytes.Equal(p, bytes.Repeat([]byte{1}, len(p))) {
		t.Error("wrong bytes")
	}
	fs.AssertFired(t)
}
