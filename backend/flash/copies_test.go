package flash_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/backend/flash/flashtest"
)

// A fill of what was put and is damaged mends it.
func TestAFillMendsAPut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := flashtest.New()
		w := newWitness(t)
		s := w.open(tiny(files))
		ctx := context.Background()
		w.must(w.put(ctx, s, 1, 60000))
		w.close(s)
		files.Flip(firstSegment, tinyPayload+777, 1)
		s = w.open(tiny(files))
		c := putOf(1, 60000)
		p := make([]byte, 60000)
		missing := func() int {
			m, err := s.Missing(ctx, c, backend.Range{Length: 60000}, nil)
			w.must(err)
			return len(m)
		}
		if err := s.ReadAt(ctx, c, p, 0); backend.KindOf(err) != backend.Corrupt || missing() != 1 {
			t.Errorf("a put that is damaged: %v, %d ranges are missing", err, missing())
		}
		if err := s.Fill(ctx, c, bytesOf(2, 60000)); backend.KindOf(err) != backend.Corrupt {
			t.Errorf("a fill with other bytes: %v", err)
		}
		w.must(s.Fill(ctx, c, bytesOf(1, 60000)))
		if missing() != 0 {
			t.Error("something is missing after a fill")
		}
		w.check(s)
		_ = s.Close()
		s = w.open(tiny(files.Crash(flashtest.Nothing))) // it is a put, as it was
		w.check(s)
		w.close(s)
	})
}

// Of two copies a repair keeps the one that is in no segment that failed.
func TestARepairRathersWhatIsOutsideOfARetiredSegment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := flashtest.New()
		w := newWitness(t)
		s := w.open(tiny(files))
		ctx := context.Background()
		w.must(w.put(ctx, s, 1, 20000))
		w.must(w.fill(ctx, s, 50, 20000, 0))
		wait(5 * time.Second)
		h := w.locate(s, 50, 20000)
		files.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Sync}, Name: firstSegment, Times: 1})
		w.must(w.put(ctx, s, 2, 20000)) // returns: it is durable in another segment
		wait(5 * time.Second)
		w.close(s)
		h.Release()
		if names, err := files.List("segments"); err != nil || !slices.Contains(names, "00000000.seg.retired") {
			t.Errorf("no segment is marked: %v, %v", names, err)
		}
		checked(t, files, flash.CheckOptions{Repair: true})
		left := files.Crash(flashtest.Nothing) // the machine is started again
		s = w.open(tiny(left))
		w.check(s)
		w.close(s)
	})
}

// A sync that fails as the device turns read-only leaves no mark: of two copies that are
// whole the later one is kept.
func TestWhatWasPutLastIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, devices := pair()
		w := newWitness(t)
		s := w.open(devices...)
		ctx := context.Background()
		f := a.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Sync}, Name: firstSegment, Err: unix.EROFS, Times: 1})
		w.must(w.put(ctx, s, 2, 20000)) // returns: it is durable on the other device
		if f.Fired() != 1 || w.heard(flash.DeviceReadOnly) != 1 {
			t.Errorf("%d syncs failed, the device turned read-only %d times", f.Fired(), w.heard(flash.DeviceReadOnly))
		}
		_ = s.Close()
		s = w.open(devices...) // remounted read-write, the daemon started again
		w.check(s)
		w.close(s)
		devices[0].Files, devices[1].Files = a.Crash(flashtest.Nothing), b.Crash(flashtest.Nothing)
		s = w.open(devices...)
		w.check(s)
		w.close(s)
	})
}

// A put under whose name something else was filled stores what it was given.
func TestAPutDoesNotTrustAFill(t *testing.T) {
	for name, wrong := range map[string][]byte{"shorter": bytesOf(5, 10), "other bytes": bytesOf(5, 20000)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				files := flashtest.New()
				w := newWitness(t)
				s := w.open(tiny(files))
				ctx := context.Background()
				c := putOf(1, 20000)
				w.must(s.Fill(ctx, backend.Chunk{ID: c.ID, Size: int64(len(wrong))}, wrong))
				w.must(w.put(ctx, s, 1, 20000))
				w.check(s)
				w.close(s)
			})
		})
	}
}

// Of two copies of which one is torn, the whole one is not forgotten for a read that fails
// at the start.
func TestAReadErrorAtTheStartIsNoVerdict(t *testing.T) {
	w, files := twice(t)
	files.Flip(firstSegment, extentOf(files, firstSegment, recordAt(t, files, firstSegment)), 1)
	files.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Read}, Name: secondSegment, Times: 1, Where: func(o flashtest.Operation) bool {
		return o.Offset >= tinyPayload && o.Offset < tinyLedger
	}})
	w.close(w.open(tiny(files)))
	s := w.open(tiny(files))
	w.check(s)
	w.close(s)
}

// What was filled is compared with its checksum until it is known to be on flash: a write
// that the kernel failed to bring there leaves other bytes, and is told with the next sync.
func TestWhatIsFilledIsNotBelievedBeforeItsSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := flashtest.New()
		w := newWitness(t)
		s := w.open(tiny(files))
		ctx := context.Background()
		w.must(w.fill(ctx, s, 1, 20000, 0))
		file, at := where(t, s, filledOf(1, 20000))
		files.Flip(file, at+77, 1)
		if err := s.ReadAt(ctx, filledOf(1, 20000), make([]byte, 20000), 0); backend.KindOf(err) != backend.Corrupt {
			t.Errorf("read: %v", err)
		}
		w.close(s)
	})
}
