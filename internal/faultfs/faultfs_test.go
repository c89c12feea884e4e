package faultfs_test

import (
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/internal/faultfs"
)

// zeroes is a System whose reads give zeroes and whose other calls do nothing.
type zeroes struct{ next int }

func (z *zeroes) Openat2(int, []byte, *unix.OpenHow) (int, syscall.Errno) {
	z.next++
	return 1000 + z.next, 0
}
func (z *zeroes) Openat(int, []byte, int) (int, syscall.Errno) { return z.Openat2(0, nil, nil) }
func (*zeroes) Fstat(int, *unix.Stat_t) syscall.Errno          { return 0 }
func (*zeroes) Fstatat(int, []byte, *unix.Stat_t, int) syscall.Errno {
	return 0
}
func (*zeroes) Pread(_ int, p []byte, _ int64) (int, syscall.Errno)          { return len(p), 0 }
func (*zeroes) Preadv2(_ int, p []byte, _ int64, _ int) (int, syscall.Errno) { return len(p), 0 }
func (*zeroes) Getdents(int, []byte) (int, syscall.Errno)                    { return 0, 0 }
func (*zeroes) Fadvise(int, int64, int64, int) syscall.Errno                 { return 0 }
func (*zeroes) Cachestat(_ int, _ *unix.CachestatRange, p *unix.Cachestat_t) syscall.Errno {
	*p = unix.Cachestat_t{Cache: 1}
	return 0
}
func (*zeroes) Close(int) syscall.Errno { return 0 }

func TestFaultHitsTheCallsThatItNames(t *testing.T) {
	fs := faultfs.New(&zeroes{})
	fault := fs.Inject(faultfs.Fault{Op: faultfs.Pread, Name: "a/*", Nth: 2, Count: 1, Errno: unix.EIO})
	a, _ := fs.Openat2(3, []byte("a/b\x00"), nil)
	b, _ := fs.Openat(3, []byte("b\x00"), 0)
	p := make([]byte, 4)
	var got []syscall.Errno
	for _, fd := range []int{a, b, a, a} {
		_, errno := fs.Pread(fd, p, 0)
		got = append(got, errno)
	}
	if got[0] != 0 || got[1] != 0 || got[2] != unix.EIO || got[3] != 0 {
		t.Fatalf("errnos %v, want the third to be EIO", got)
	}
	if fs.Fired(fault) != 1 {
		t.Fatalf("fired %d times, want 1", fs.Fired(fault))
	}
	fs.AssertFired(t)
	fs.Close(a)
	fs.Close(b)
	fs.AssertClosed(t)
}

func TestShortReadsAndStatsAreChanged(t *testing.T) {
	fs := faultfs.New(&zeroes{})
	fs.Inject(faultfs.Fault{Op: faultfs.Pread, Short: 3})
	fs.Inject(faultfs.Fault{Op: faultfs.Preadv2, Short: -1})
	fs.Inject(faultfs.Fault{Op: faultfs.Fstat, Stat: func(s *unix.Stat_t) { s.Ino = 7 }})
	p := make([]byte, 4)
	if n, _ := fs.Pread(9, p, 0); n != 3 {
		t.Errorf("pread gave %d bytes, want 3", n)
	}
	if n, _ := fs.Preadv2(9, p, 0, 0); n != 0 {
		t.Errorf("preadv2 gave %d bytes, want 0", n)
	}
	var stat unix.Stat_t
	if fs.Fstat(9, &stat); stat.Ino != 7 {
		t.Errorf("inode %d, want 7", stat.Ino)
	}
	fs.AssertFired(t)
}

func TestAnswersOfThePageCacheAreChanged(t *testing.T) {
	fs := faultfs.New(&zeroes{})
	fs.Inject(faultfs.Fault{Op: faultfs.Fadvise, Errno: unix.EIO})
	fs.Inject(faultfs.Fault{Op: faultfs.Cachestat, Nth: 2, Pages: func(p *unix.Cachestat_t) { p.Cache = 0 }})
	fs.Inject(faultfs.Fault{Op: faultfs.Cachestat, Nth: 3, Errno: unix.ENOSYS})
	if errno := fs.Fadvise(9, 0, 1, unix.FADV_WILLNEED); errno != unix.EIO {
		t.Errorf("fadvise gave %v, want EIO", errno)
	}
	for nth, want := range []uint64{1, 0} {
		var pages unix.Cachestat_t
		if errno := fs.Cachestat(9, new(unix.CachestatRange), &pages); errno != 0 || pages.Cache != want {
			t.Errorf("call %d: %d pages, %v, want %d", nth+1, pages.Cache, errno, want)
		}
	}
	if errno := fs.Cachestat(9, new(unix.CachestatRange), new(unix.Cachestat_t)); errno != unix.ENOSYS {
		t.Errorf("cachestat gave %v, want ENOSYS", errno)
	}
	fs.AssertFired(t)
}

// recorder stands for a test that may fail.
type recorder struct {
	testing.TB
	failures int
}

func (*recorder) Helper()                 {}
func (r *recorder) Errorf(string, ...any) { r.failures++ }

func TestFaultsThatNeverFireAndLeaksFailTheTest(t *testing.T) {
	fs := faultfs.New(&zeroes{})
	fs.Inject(faultfs.Fault{Op: faultfs.Getdents, Errno: unix.EIO})
	fs.Openat2(3, []byte("a\x00"), nil)
	r := &recorder{TB: t}
	fs.AssertFired(r)
	fs.AssertClosed(r)
	if r.failures != 2 {
		t.Fatalf("%d failures, want 2", r.failures)
	}
}
