package seekable

import (
	"context"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/internal/faultfs"
)

// somePages is a kernel that has only some pages of files cached.
type somePages struct {
	System
	has map[int64]bool // by number; nil: it does not tell
}

func (s somePages) Cachestat(_ int, asked *unix.CachestatRange, pages *unix.Cachestat_t) unix.Errno {
	if s.has == nil {
		return unix.ENOSYS
	}
	const page = 4096
	for at := int64(asked.Off) / page; at <= int64(asked.Off+asked.Len-1)/page; at++ {
		if s.has[at] {
			pages.Cache++
		}
	}
	return 0
}

// TestBytesAreResidentWhoseFramesAre compares with an oracle that goes byte by byte over
// the frames that the seek table names.
func TestBytesAreResidentWhoseFramesAre(t *testing.T) {
	dir := t.TempDir()
	content := mixed(5*FrameBytes+17, 5)
	o := put(t, dir, "shard", content)
	kernel := somePages{System: Kernel(), has: map[int64]bool{}}
	s := open(t, dir, Options{System: kernel, Pool: smallPool(t, 1, 1)})
	g := s.takeGather()
	f, err := s.acquireFile(&o, &g.stat)
	if err != nil {
		t.Fatal(err)
	}
	defer s.releaseFile(f, false)
	rapid.Check(t, func(t *rapid.T) {
		clear(kernel.has)
		last := f.offsets[len(f.offsets)-1] / 4096
		lacking := rapid.SliceOfN(rapid.Int64Range(0, last), 0, 4).Draw(t, "lacking")
		for page := range last + 1 {
			kernel.has[page] = true
		}
		for _, page := range lacking {
			kernel.has[page] = false
		}
		from := rapid.Int64Range(0, int64(len(content))).Draw(t, "from")
		n := rapid.Int64Range(0, int64(len(content))-from).Draw(t, "n")
		want := int64(0)
		for i := range len(f.offsets) - 1 {
			all := true
			for page := f.offsets[i] / 4096; page*4096 < f.offsets[i+1]; page++ {
				all = all && kernel.has[page]
			}
			if start := int64(i) * f.frameBytes; all {
				want += max(0, min(from+n, start+f.frameBytes)-max(from, start))
			}
		}
		bytes, known, err := s.Resident(context.Background(), &o, from, n)
		if err != nil || !known || bytes != want {
			t.Fatalf("%d bytes from %d without pages %v: %d, %v, %v, want %d", n, from, lacking, bytes, known, err, want)
		}
	})
}

func TestLookingAtFramesBringsNothing(t *testing.T) {
	dir := t.TempDir()
	o := put(t, dir, "shard", mixed(3*FrameBytes, 5))
	fs := faultfs.New(object.Kernel())
	s := open(t, dir, Options{System: fs, Pool: smallPool(t, 1, 0)})
	if _, _, err := s.Resident(context.Background(), &o, 0, 1); err != nil { // its seek table is read
		t.Fatal(err)
	}
	pread, preadv2 := fs.Inject(faultfs.Fault{Op: faultfs.Pread}), fs.Inject(faultfs.Fault{Op: faultfs.Preadv2})
	if _, _, err := s.Resident(context.Background(), &o, 0, o.Version.Size); err != nil || fs.Fired(pread)+fs.Fired(preadv2) > 0 {
		t.Errorf("%v after %d reads", err, fs.Fired(pread)+fs.Fired(preadv2))
	}
}

func TestLookingAtFramesThatCannotBeLookedAt(t *testing.T) {
	dir := t.TempDir()
	o := put(t, dir, "shard", mixed(2*FrameBytes, 5))
	blind := open(t, dir, Options{System: somePages{System: Kernel()}, Pool: smallPool(t, 1, 0)})
	if bytes, known, err := blind.Resident(context.Background(), &o, 0, 9); bytes != 0 || known || err != nil {
		t.Errorf("a kernel that does not tell: %d, %v, %v", bytes, known, err)
	}
	if _, known, err := blind.Resident(context.Background(), &backend.Object{Name: []byte("x")}, 0, 0); known || err != nil {
		t.Errorf("an object of a store that does not tell: %v, %v", known, err)
	}
	for _, look := range [][2]int64{{-1, 1}, {0, -1}, {0, o.Version.Size + 1}, {1, 1 << 62}} {
		_, _, err := blind.Resident(context.Background(), &o, look[0], look[1])
		wantKind(t, err, backend.OutOfRange)
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := blind.Resident(over, &o, 0, 1); err == nil {
		t.Error("a call that was cancelled works")
	}
}
