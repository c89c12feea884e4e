package flash

import (
	"context"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

func TestARingThatIsRefusedIsNotAskedForAgain(t *testing.T) {
	for _, c := range []struct {
		errno unix.Errno
		asked int
	}{
		{unix.EPERM, 1}, {unix.ENOSYS, 1}, {unix.EMFILE, 3}, {unix.ENOMEM, 3},
	} {
		s := newStored(t, way{direct: true}, 1)
		asked := 0
		s.newQueue = func(int) (queue, error) {
			asked++
			return nil, os.NewSyscallError("io_uring_setup", c.errno)
		}
		for range 3 {
			reads := []backend.Read{s.read(5, 0, 100, 0), s.read(6, 0, 100, 0), s.read(10, 5, 3<<20, 0)}
			var report backend.GatherReport
			if err := s.Gather(context.Background(), reads, &report); err != nil {
				t.Fatal(err)
			}
			s.want(t, reads, []int{5, 6, 10}, &report)
		}
		if asked != c.asked {
			t.Errorf("%v: a ring was asked for %d times, want %d", c.errno, asked, c.asked)
		}
	}
}

// TestAFileThatIsCutShort ends below a running store, within a chunk.
func TestAFileThatIsCutShort(t *testing.T) {
	for _, w := range ways() {
		for _, left := range []int64{0, 5000, 8192} {
			s := newStored(t, w, 1)
			at, err := s.Locate(context.Background(), s.chunks[10], backend.Range{Length: 1})
			if err != nil {
				t.Fatal(err)
			}
			at.Release()
			if err := os.Truncate(at.Path, at.Offset+left); err != nil {
				t.Fatal(err)
			}
			there := []backend.Read{s.read(10, 0, int(left)&^511, 0), s.read(10, 1, max(0, int(left)-1), 1)}
			var report backend.GatherReport
			if err := s.Gather(context.Background(), there, &report); err != nil {
				t.Errorf("%s, %d bytes are left: %v", w.name, left, err)
			}
			s.want(t, there, []int{10, 10}, &report)
			gone := []backend.Read{s.read(10, 4000, 10_000, 0), s.read(10, 20_000, 4096, 0)}
			if err := s.ReadAt(context.Background(), gone[0].Chunk, gone[0].P, 4000); backend.KindOf(err) != backend.Corrupt {
				t.Errorf("%s: read what is cut off: %v", w.name, err)
			}
			s.wantNoHolds(t)
		}
	}
}

func TestAGatherOfAFileThatIsCutShort(t *testing.T) {
	for _, w := range ways() {
		s := newStored(t, w, 1)
		at, err := s.Locate(context.Background(), s.chunks[10], backend.Range{Length: 1})
		if err != nil {
			t.Fatal(err)
		}
		at.Release()
		if err := os.Truncate(at.Path, at.Offset+5000); err != nil {
			t.Fatal(err)
		}
		gone := []backend.Read{s.read(10, 4000, 10_000, 0), s.read(10, 20_000, 4096, 0), s.read(10, 1<<20, 1<<20, 0)}
		if err := s.Gather(context.Background(), gone, nil); backend.KindOf(err) != backend.Corrupt {
			t.Errorf("%s: gather what is cut off: %v", w.name, err)
		}
		s.wantNoHolds(t)
	}
}

// TestAReadThatFailsOnceIsMadeAgain has the device fail within runs of several chunks.
func TestAReadThatFailsOnceIsMadeAgain(t *testing.T) {
	s := newStored(t, way{direct: true}, 1)
	s.kernel.fail = unix.EIO
	reads := []backend.Read{s.read(5, 0, 100, 0), s.read(6, 0, 100, 0), s.read(10, 5, 3<<20, 0)}
	var report backend.GatherReport
	if err := s.Gather(context.Background(), reads, &report); err != nil {
		t.Fatal(err)
	}
	s.want(t, reads, []int{5, 6, 10}, &report)
	if s.kernel.failed.Load() == 0 {
		t.Error("nothing failed")
	}
	s.wantNoHolds(t)
}

func TestAChunkThatCannotBeReadIsTold(t *testing.T) {
	s := newStored(t, way{cold: true}, 1)
	s.kernel.fail = unix.EIO
	reads := []backend.Read{s.read(5, 0, 100, 0), s.read(10, 5, 3<<20, 0)}
	err := s.Gather(context.Background(), reads, nil)
	if backend.KindOf(err) != backend.Unavailable || len(s.events) == 0 || s.events[0].Kind != ChunkUnreadable {
		t.Errorf("%v, events %+v", err, s.events)
	}
	s.wantNoHolds(t)
}

// TestABlockThatIsNotWhatWasStoredIsNotServed flips a bit of a put and of a filled chunk.
func TestABlockThatIsNotWhatWasStoredIsNotServed(t *testing.T) {
	for _, w := range ways() {
		for _, chunk := range []int{6, 10} { // put, and filled
			s := newStored(t, w, 1)
			at, err := s.Locate(context.Background(), s.chunks[chunk], backend.Range{Offset: 50_000, Length: 1})
			if err != nil {
				t.Fatal(err)
			}
			at.Release()
			s.close()
			flip(t, at.Path, at.Offset)
			s.open()
			reads := []backend.Read{s.read(chunk, 70_000, 100, 0), s.read(chunk, 10, 100, 0), s.read(2, 0, 10, 0)}
			err = s.Gather(context.Background(), reads, nil)
			if backend.KindOf(err) != backend.Corrupt || len(s.events) != 1 || s.events[0].Kind != ChunkCorrupt {
				t.Errorf("%s: %v, events %+v", w.name, err, s.events)
			}
			want := backend.Corrupt // it was the only copy
			if chunk%3 != 0 {
				want = backend.NotFound
			}
			if err := s.Gather(context.Background(), reads[1:], nil); backend.KindOf(err) != want {
				t.Errorf("%s: chunk %d again: %v, want %s", w.name, chunk, err, want)
			}
			if err := s.Gather(context.Background(), reads[2:], nil); err != nil {
				t.Error(err)
			}
			s.wantNoHolds(t)
		}
	}
}

func flip(t *testing.T, path string, off int64) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var p [1]byte
	if _, err = f.ReadAt(p[:], off); err == nil {
		p[0] ^= 4
		_, err = f.WriteAt(p[:], off)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCancellingEndsAGatherBetweenItsReads cancels in the first read that waits.
func TestCancellingEndsAGatherBetweenItsReads(t *testing.T) {
	s := newStored(t, way{cold: true}, 1)
	ctx, cancel := context.WithCancelCause(context.Background())
	cause := errors.New("the session ended")
	s.kernel.hook = func() { cancel(cause) }
	reads, chunks := s.apart(60)
	if err := s.Gather(ctx, reads, nil); !errors.Is(err, cause) || backend.KindOf(err) != backend.Unavailable {
		t.Errorf("%v, want the cause", err)
	}
	if n := s.kernel.waited.Load(); n > 3*8 { // those of the readers, and two for each of them
		t.Errorf("%d reads were made", n)
	}
	s.wantNoHolds(t)
	var report backend.GatherReport
	if err := s.Gather(context.Background(), reads, &report); err != nil {
		t.Fatal(err)
	}
	s.want(t, reads, chunks, &report)
}
