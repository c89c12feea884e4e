package flash_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/backend/flash/flashtest"
)

// A chunk that cannot be read is one error of its device, however often it is asked for.
func TestOneUnreadableChunkIsOneError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := flashtest.New()
		w := newWitness(t)
		s := w.open(tiny(files))
		ctx := context.Background()
		for i := range uint64(3) {
			w.must(w.put(ctx, s, i, 60000))
		}
		files.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Read}, Name: firstSegment, Where: func(o flashtest.Operation) bool {
			return o.Offset >= 1<<20 && o.Offset < 1<<20+64<<10
		}})
		for i := range 40 {
			bad := 0
			for n := range uint64(3) {
				if s.ReadAt(ctx, putOf(n, 60000), make([]byte, 100), 0) != nil {
					bad++
				}
			}
			if bad > 1 {
				t.Errorf("after %d reads of one bad chunk %d of 3 chunks cannot be read; device_failed events: %d", i+1, bad, w.heard(flash.DeviceFailed))
				break
			}
			wait(time.Second)
		}
		_ = s.Close()
	})
}

// A clock that was wrong once does not stop the scrubber.
func TestAScrubThatEndedInTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, files := newWitness(t), flashtest.New()
		s := w.openScrubbed(files, 1<<20)
		w.must(w.put(t.Context(), s, 1, 20000))
		wait(5 * time.Minute)
		passes := scrubOf(s).Passes
		w.close(s)
		text := string(files.Content("scrub.json"))
		if !strings.Contains(text, `"ended":"2000`) {
			t.Fatal(text)
		}
		files.Unlink("scrub.json")
		f, err := files.Open("scrub.json", true)
		w.must(err)
		_, err = f.WriteAt([]byte(strings.Replace(text, `"ended":"2000`, `"ended":"2090`, 1)), 0)
		w.must(err)
		w.must(f.Close())
		s = w.openScrubbed(files, 1<<20)
		wait(14 * 24 * time.Hour)
		if now := scrubOf(s).Passes; now == passes {
			t.Errorf("no pass in a fortnight: %d", now)
		}
		w.close(s)
	})
}

// What was put is not deleted from a device that takes no writes.
func TestADeleteThatCannotLastIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := flashtest.New()
		w := newWitness(t)
		s := w.open(tiny(files))
		ctx := context.Background()
		w.must(w.put(ctx, s, 1, 20000))
		f := files.Inject(t, flashtest.Fault{Kinds: changes, Err: unix.EROFS})
		_, _ = s.Put(ctx, bytesOf(2, 20000))
		err := s.Delete(ctx, putOf(1, 20000))
		if backend.KindOf(err) != backend.Unavailable {
			t.Errorf("delete: %v", err)
		}
		_ = s.Close()
		f.End()
		s = w.open(tiny(files))
		w.check(s) // it is there
		w.must(w.delete(ctx, s, putOf(1, 20000)))
		w.close(s)
	})
}

// The sixteenth error within a minute leaves a device out, none before.
func TestSixteenErrorsLeaveADeviceOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := flashtest.New()
		w := newWitness(t)
		s := w.open(tiny(files))
		ctx := context.Background()
		for i := range uint64(16) {
			w.must(w.fill(ctx, s, i, 20000, 0))
		}
		files.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Read}})
		for i := range uint64(16) {
			if w.heard(flash.DeviceFailed) > 0 {
				t.Errorf("left out after %d errors", i)
			}
			_ = s.ReadAt(ctx, filledOf(i, 20000), make([]byte, 10), 0)
		}
		w.expect(flash.DeviceFailed)
		_ = s.Close()
	})
}

// That there are too few descriptors is no damage of a segment: the device is not opened,
// and has everything when there are enough.
func TestTooFewDescriptorsAtTheStart(t *testing.T) {
	w, files := stored(t)
	files.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Open}, Name: firstSegment, Times: 1, Err: unix.EMFILE})
	if _, err := flash.Open(context.Background(), w.options(tiny(files))); !errors.Is(err, flash.ErrNoDevice) || !errors.Is(err, unix.EMFILE) {
		t.Errorf("open: %v", err)
	}
	s := w.open(tiny(files))
	w.check(s)
	w.close(s)
}
