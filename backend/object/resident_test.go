package object_test

import (
	"context"
	"os"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/object"
)

func TestWhatIsResidentIsCountedAndNotBrought(t *testing.T) {
	const size = 1<<20 + 100
	name, dir, o := warmFixture(t, slices.Repeat([]byte{7}, size), object.Options{})
	gone := chill(t, name)
	for _, look := range []struct{ off, n, want int64 }{{0, size, 0}, {0, 0, 0}, {size, 0, 0}, {4096, 8192, 0}} {
		bytes, known, err := dir.Resident(t.Context(), o, look.off, look.n)
		if must(t, err); known && (gone && bytes != look.want || bytes < 0 || bytes > look.n) {
			t.Errorf("%d bytes from %d of a cold file: %d are resident", look.n, look.off, bytes)
		}
	}
	if gone && !chill(t, name) {
		t.Error("looking brought it into the page cache")
	}
	_, err := dir.Warm(t.Context(), o, 0, size)
	must(t, err)
	for _, look := range []struct{ off, n int64 }{{0, size}, {1, size - 1}, {4095, 2}, {size - 1, 1}} {
		if bytes, known, err := dir.Resident(t.Context(), o, look.off, look.n); err != nil || known && bytes != look.n {
			t.Errorf("%d bytes from %d of a warm file: %d are resident, %v", look.n, look.off, bytes, err)
		}
	}
}

// blind is a kernel that does not tell what it has cached.
type blind struct{ object.System }

func (blind) Cachestat(int, *unix.CachestatRange, *unix.Cachestat_t) syscall.Errno {
	return unix.ENOSYS
}

func TestAKernelThatDoesNotTellIsNoError(t *testing.T) {
	_, dir, o := warmFixture(t, []byte("content"), object.Options{System: blind{object.Kernel()}})
	if bytes, known, err := dir.Resident(t.Context(), o, 0, 7); bytes != 0 || known || err != nil {
		t.Errorf("%d, %v, %v", bytes, known, err)
	}
}

func TestLookingAtWhatIsNotThereIsRefused(t *testing.T) {
	name, dir, o := warmFixture(t, []byte("content"), object.Options{})
	for _, look := range [][2]int64{{-1, 1}, {0, -1}, {0, 8}, {8, 0}, {1, 1 << 62}} {
		if _, _, err := dir.Resident(t.Context(), o, look[0], look[1]); backend.KindOf(err) != backend.OutOfRange {
			t.Errorf("%d bytes from %d: %v", look[1], look[0], err)
		}
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := dir.Resident(over, o, 0, 1); err == nil {
		t.Error("a call that was cancelled works")
	}
	if _, _, err := dir.Resident(t.Context(), nil, 0, 0); backend.KindOf(err) != backend.NotFound {
		t.Errorf("no object: %v", err)
	}
	must(t, os.WriteFile(name, []byte("another content"), 0o644))
	if _, _, err := dir.Resident(t.Context(), o, 0, 1); backend.KindOf(err) != backend.Changed {
		t.Errorf("a file that changed: %v", err)
	}
	must(t, dir.Close())
	if _, _, err := dir.Resident(t.Context(), o, 0, 1); backend.KindOf(err) != backend.Unavailable {
		t.Errorf("after Close: %v", err)
	}
}
