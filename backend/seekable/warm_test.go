package seekable

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/backendtest"
	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/internal/faultfs"
)

func TestWarmedFramesAreReadWithoutWaiting(t *testing.T) {
	dir := t.TempDir()
	content := mixed(5*FrameBytes+17, 5)
	o := put(t, dir, "shard", content)
	s := open(t, dir, Options{Pool: smallPool(t, 1, 1)})
	chill(t, fileOf(dir, &o))
	from, n := int64(FrameBytes-1), int64(3*FrameBytes)
	if _, err := s.Warm(context.Background(), &o, from, n); err != nil {
		t.Fatal(err)
	}
	if resident, err := s.Warm(context.Background(), &o, from, n); err != nil || !resident {
		t.Errorf("again: %v, %v, want resident", resident, err)
	}
	var report backend.GatherReport
	p := make([]byte, n)
	if err := s.Gather(context.Background(), []backend.Read{{Chunk: wholeOf(&o), Offset: from, P: p}}, &report); err != nil {
		t.Fatal(err)
	}
	if report.DiskReads != 0 || !bytes.Equal(p, content[from:from+n]) {
		t.Errorf("report %+v, equal bytes %v", report, bytes.Equal(p, content[from:from+n]))
	}
}

// chill takes a file out of the page cache, where the file system lets it.
func chill(t testing.TB, name string) {
	t.Helper()
	f, err := os.Open(name)
	if err == nil {
		err = errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestObjectsThatTheOriginCannotWarmAreSaidSo(t *testing.T) {
	s := open(t, t.TempDir(), Options{Pool: smallPool(t, 1, 0)})
	_, ok, err := backend.Warm(context.Background(), s, &backend.Object{Name: []byte("x")}, 0, 0)
	if ok || err != nil {
		t.Errorf("a store over %T: %v, %v, want that it cannot", backendtest.NewMemory(), ok, err)
	}
	if _, err := s.Warm(context.Background(), &backend.Object{}, 0, 0); !errors.Is(err, backend.ErrCannotWarm) {
		t.Errorf("%v, want ErrCannotWarm", err)
	}
}

func TestSystemCallsThatFailWhileWarming(t *testing.T) {
	dir := t.TempDir()
	o := put(t, dir, "shard", mixed(3*FrameBytes, 5))
	cold := faultfs.Fault{Op: faultfs.Preadv2, Errno: unix.EAGAIN}
	for _, c := range []struct {
		name   string
		faults []faultfs.Fault
		kind   backend.Kind // "": it succeeds all the same
	}{
		{"openat", []faultfs.Fault{{Op: faultfs.Openat, Errno: unix.EIO}}, backend.Unavailable},
		{"fstat", []faultfs.Fault{{Op: faultfs.Fstat, Errno: unix.EIO}}, backend.Unavailable},
		{"preadv2", []faultfs.Fault{{Op: faultfs.Preadv2, Errno: unix.EIO}}, ""},
		{"preadv2 is not known", []faultfs.Fault{{Op: faultfs.Preadv2, Errno: unix.ENOSYS}}, ""},
		{"pread of a frame", []faultfs.Fault{cold, {Op: faultfs.Pread, Nth: 4, Errno: unix.EIO}}, backend.Unavailable},
		{"pread of a frame interrupted", []faultfs.Fault{cold, {Op: faultfs.Pread, Nth: 4, Count: 3, Errno: unix.EINTR}}, ""},
		{"the file ends in a frame", []faultfs.Fault{cold, {Op: faultfs.Pread, Nth: 4, Short: -1}}, backend.Corrupt},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := faultfs.New(object.Kernel())
			for _, fault := range c.faults {
				fs.Inject(fault)
			}
			s := open(t, dir, Options{System: fs, Pool: smallPool(t, 1, 0)})
			resident, err := s.Warm(context.Background(), &o, 0, o.Version.Size)
			if c.kind != "" {
				wantKind(t, err, c.kind)
			} else if err != nil || resident {
				t.Errorf("%v, %v", resident, err)
			}
			fs.AssertFired(t)
		})
	}
}

func TestAWarmingOfFramesEndsBetweenTwo(t *testing.T) {
	dir := t.TempDir()
	o := put(t, dir, "shard", mixed(9*FrameBytes, 5))
	fs := faultfs.New(object.Kernel())
	s := open(t, dir, Options{System: fs, Pool: smallPool(t, 1, 0)})
	cause := fmt.Errorf("the test's cause")
	ctx, cancel := context.WithCancelCause(context.Background())
	reads := fs.Inject(faultfs.Fault{Op: faultfs.Preadv2, Nth: 2, Hook: func(string) { cancel(cause) }})
	if _, err := s.Warm(ctx, &o, 0, o.Version.Size); !errors.Is(err, cause) || fs.Fired(reads) != 1 {
		t.Errorf("%v after %d reads more", err, fs.Fired(reads)-1)
	}
}
