package flashtest_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/backend/flash/flashtest"
)

const sector = 512

// A file reads as a flat one; after a crash each sector is one that it was since the last
// sync, and without a loss the last one.
func TestFileKeepsWhatWasSynced(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := flashtest.New()
		file, err := f.Open("a", true)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.SyncDirectory("."); err != nil {
			t.Fatal(err)
		}
		const size = 16 * sector
		now := make([]byte, size)
		if err := errors.Join(file.Allocate(0, size), file.Sync()); err != nil {
			t.Fatal(err)
		}
		since := [][]byte{bytes.Clone(now)}
		for range rapid.IntRange(0, 12).Draw(t, "writes") {
			off := rapid.IntRange(0, size-1).Draw(t, "at")
			p := rapid.SliceOfN(rapid.Byte(), 1, size-off).Draw(t, "bytes")
			if _, err := file.WriteAt(p, int64(off)); err != nil {
				t.Fatal(err)
			}
			copy(now[off:], p)
			since = append(since, bytes.Clone(now))
			if rapid.Bool().Draw(t, "sync") {
				if err := file.Sync(); err != nil {
					t.Fatal(err)
				}
				since = [][]byte{bytes.Clone(now)}
			}
		}
		if !bytes.Equal(f.Content("a"), now) || !bytes.Equal(f.Copy().Content("a"), now) {
			t.Fatal("it reads otherwise than it was written")
		}
		if !bytes.Equal(f.Crash(flashtest.Nothing).Content("a"), since[0]) {
			t.Fatal("what was synced is not there after a crash, or what was not is")
		}
		left := f.Crash(flashtest.Some(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "loss"), 0)))).Content("a")
		for at := 0; at < size; at += sector {
			found := false
			for _, v := range since {
				found = found || bytes.Equal(left[at:at+sector], v[at:at+sector])
			}
			if !found {
				t.Fatalf("the sector at %d is none that was written", at)
			}
		}
	})
}

func TestNamesLastOnceTheirDirectoryIsSynced(t *testing.T) {
	f := flashtest.New()
	names := func(f *flashtest.Files) int {
		all, err := f.List("d")
		if err != nil {
			return -1
		}
		return len(all)
	}
	if err := f.MakeDirectory("d"); err != nil {
		t.Fatal(err)
	}
	if n := names(f.Crash(flashtest.Nothing)); n != -1 {
		t.Errorf("a directory that was not synced has %d names after a crash", n)
	}
	if err := f.SyncDirectory("."); err != nil {
		t.Fatal(err)
	}
	file, err := f.Open("d/a", true)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		t.Fatal(err)
	}
	if n := names(f.Crash(flashtest.Nothing)); n != 0 {
		t.Errorf("%d names are there after a crash before their directory was synced", n)
	}
	if err := errors.Join(f.SyncDirectory("d"), f.Rename("d/a", "d/b")); err != nil {
		t.Fatal(err)
	}
	if n := names(f.Crash(flashtest.Nothing)); n != 1 {
		t.Errorf("%d names are there after a crash in a rename, of 1", n)
	}
	if _, err := f.Crash(flashtest.Nothing).Open("d/a", false); err != nil {
		t.Errorf("the old name after a rename that was not synced: %v", err)
	}
	if _, err := f.Crash(flashtest.Everything).Open("d/a", false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old name after a rename: %v", err)
	}
}

func TestWhatASyncFailedToWriteIsNotWrittenByTheNext(t *testing.T) {
	f := flashtest.New()
	file, err := f.Open("a", true)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(file.Allocate(0, sector), file.Sync(), f.SyncDirectory(".")); err != nil {
		t.Fatal(err)
	}
	f.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Sync}, Times: 1})
	if _, err := file.WriteAt([]byte("lost"), 0); err != nil {
		t.Fatal(err)
	}
	if err := file.Sync(); !errors.Is(err, unix.EIO) {
		t.Fatalf("the sync that should fail: %v", err)
	}
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	if p := f.Crash(flashtest.Nothing).Content("a"); !bytes.Equal(p, make([]byte, sector)) {
		t.Errorf("after a failed sync, a good one and a crash: %q", p[:4])
	}
	if p := f.Content("a"); !bytes.HasPrefix(p, []byte("lost")) {
		t.Errorf("before the crash: %q", p[:4])
	}
}

func TestCapacityIsWhatFilesTake(t *testing.T) {
	f := flashtest.New()
	f.SetCapacity(3 * 4096)
	file, err := f.Open("a", true)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Allocate(0, 2*4096); err != nil {
		t.Fatal(err)
	}
	if err := file.Allocate(4096, 2*4096); err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt([]byte("x"), 3*4096); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a page more than there is: %v", err)
	}
	if err := errors.Join(f.Remove("a"), file.Close()); err != nil {
		t.Fatal(err)
	}
	if n := f.Taken(); n != 0 {
		t.Errorf("%d bytes are taken once the file is gone", n)
	}
}

func TestLockIsTakenOnce(t *testing.T) {
	f := flashtest.New()
	l, err := f.Lock("LOCK", "process 7")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Lock("LOCK", "process 8"); !errors.Is(err, flash.ErrLocked) {
		t.Errorf("the second: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Lock("LOCK", "process 8"); err != nil {
		t.Errorf("after the first let go: %v", err)
	}
}
