package flash_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/backend/flash/flashtest"
)

// two is a device with room for exactly two spans of 64 KiB, in one segment.
func two(files *flashtest.Files) flash.Device {
	return flash.Device{Path: "/in-memory", LimitBytes: 1<<20 + 2*(64<<10+4096), SpanBytes: 64 << 10, SegmentSpans: 2, Files: files}
}

// Of two spans whose chunks cannot all leave, neither is tried for ever.
func TestChunksThatStayAreNotMovedToAndFro(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := flashtest.New()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var writes atomic.Int64
		var armed atomic.Bool
		files.Before = func(o flashtest.Operation) {
			if armed.Load() && o.Kind == flashtest.Write && writes.Add(1) == 5000 {
				cancel()
			}
		}
		w := newWitness(t)
		s := w.open(two(files))
		const size = 16384
		var holds []held
		for span := range uint64(2) {
			w.must(w.put(ctx, s, 10*span, size))
			w.must(w.put(ctx, s, 10*span+1, size))
			w.must(w.fill(ctx, s, 10*span+2, size, 0))
			at, err := s.Locate(ctx, filledOf(10*span+2, size), backend.Range{Length: size})
			w.must(err)
			holds = append(holds, held{at, nil})
			w.must(w.fill(ctx, s, 10*span+3, size, 0))
		}
		wait(5 * time.Second)
		armed.Store(true)
		err := w.fill(ctx, s, 100, 65536, 0)
		armed.Store(false)
		if backend.KindOf(err) != backend.NoSpace || writes.Load() > 100 {
			t.Errorf("a fill for which there is no room made %d writes and answers %v", writes.Load(), err)
		}
		for _, h := range holds {
			h.Release()
		}
		w.lenient = true
		_ = s.Close()
	})
}

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

func entries(t testing.TB, s *flash.Store) (n int) {
	t.Helper()
	if err := s.Entries(context.Background(), func(flash.Entry) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// Spans that are drained and held are few.
func TestHoldsDoNotDrainAClass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := flashtest.New()
		w := newWitness(t)
		d := tiny(files)
		d.LimitBytes = 6 << 20
		s := w.open(d)
		ctx := context.Background()
		const size = 4096
		for i := range uint64(600) {
			w.must(w.fill(ctx, s, i, size, 0))
		}
		wait(10 * time.Second)
		before := entries(t, s)
		segments := map[string]bool{}
		var holds []held
		for i := range uint64(600) {
			at, err := s.Locate(ctx, filledOf(i, size), backend.Range{Length: size})
			if err != nil {
				continue
			}
			key := at.Path + string(rune('a'+(at.Offset-1<<20)>>16))
			if segments[key] {
				at.Release()
				continue
			}
			segments[key] = true
			holds = append(holds, held{at, nil})
		}
		err := w.fill(ctx, s, 1000, 65536, 0)
		wait(10 * time.Second)
		const spans, perSpan = 16, 16 // an eighth of the class and one more may be drained
		if after := entries(t, s); len(holds) != spans || before-after > (spans/8+1)*perSpan {
			t.Errorf("for one chunk of 64 KiB (%v), %d of %d copies in %d spans were dropped", err, before-after, before, len(holds))
		}
		for _, h := range holds {
			h.Release()
		}
		_ = s.Close()
	})
}

// Records beyond the limit are no reason to drop anything at a start.
func TestOpenedAgainWithTheSameLimitNothingGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := flashtest.New()
		w := newWitness(t)
		d := blocks(files)
		d.LimitBytes = 3*(1<<20+4<<20+4096) + 4096
		open := func() *flash.Store { return w.open(d) }
		s := open()
		ctx := context.Background()
		for i := range uint64(3) {
			w.must(w.fill(ctx, s, i, 4<<20, 0))
		}
		for i := range uint64(1500) {
			w.must(w.fill(ctx, s, 100+i, 4096, 0))
		}
		wait(10 * time.Second)
		r := s.Stats().Devices[0]
		before := entries(t, s)
		if r.Room.UsedBytes <= r.LimitBytes {
			t.Errorf("%d bytes are used of %d: records are to be beyond the limit", r.Room.UsedBytes, r.LimitBytes)
		}
		w.close(s)
		s = open()
		wait(10 * time.Second)
		if after := entries(t, s); after < before {
			t.Errorf("opened again with the same limit: %d of %d copies are dropped", before-after, before)
		}
		w.close(s)
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

// Files that are left alone take room.
func TestStatsCountFilesThatAreLeftAlone(t *testing.T) {
	w, files := stored(t)
	files.Restore("segments/00000007.seg", files.Copy(), firstSegment)
	s := w.open(tiny(files))
	counted(t, s)
	w.close(s)
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

// A put that is damaged does not keep others from a span.
func TestABrokenPutKeepsNoSpan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := flashtest.New()
		w := newWitness(t)
		s := w.open(two(files))
		ctx := context.Background()
		const size = 16384
		w.must(w.put(ctx, s, 1, size))
		w.close(s)
		files.Flip(firstSegment, tinyPayload+777, 1)
		s = w.open(two(files))
		if err := s.ReadAt(ctx, putOf(1, size), make([]byte, size), 0); backend.KindOf(err) != backend.Corrupt {
			t.Fatal(err)
		}
		for i := range uint64(8) {
			w.must(w.fill(ctx, s, 10+i, size, 0))
		}
		for round := range uint64(6) {
			w.must(w.fill(ctx, s, 100+round, 65536, 0))
			wait(5 * time.Second)
			for i := range uint64(8) {
				w.must(w.fill(ctx, s, 1000+100*round+i, size, 0))
			}
			wait(5 * time.Second)
		}
		_ = s.Close()
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

// What moves is compared with its checksums first: else it would get new ones for what it
// rotted to.
func TestWhatMovesIsCompared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := flashtest.New()
		w := newWitness(t)
		s := w.open(tiny(files))
		ctx := context.Background()
		for i := range uint64(7) {
			w.must(w.put(ctx, s, i, 60000))
		}
		c := putOf(6, 60000)
		file, at := where(t, s, c)
		for i := range uint64(4) {
			w.must(w.delete(ctx, s, putOf(i, 60000)))
		}
		wait(2 * time.Second)
		files.Flip(file, at+777, 1) // it rots
		w.must(s.SetLimit("/in-memory", 3<<20/2))
		wait(10 * time.Second)
		w.expect(flash.ChunkCorrupt)
		w.close(s)
		s = w.open(tiny(files))
		if err := s.ReadAt(ctx, c, make([]byte, 60000), 0); backend.KindOf(err) != backend.Corrupt {
			t.Errorf("what rotted before it moved: %v", err)
		}
		w.close(s)
	})
}

// A device that hangs holds up no other.
func TestAHungDeviceHoldsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := flashtest.New(), flashtest.New()
		w := newWitness(t)
		s := w.open(tiny(a))
		ctx := context.Background()
		w.must(w.put(ctx, s, 1, 20000)) // on a
		db := tiny(b)
		db.Path, db.LimitBytes = "/in-memory-2", 64<<20
		w.must(s.AddDevice(ctx, db))    // it has more room
		w.must(w.put(ctx, s, 5, 20000)) // on b, which has a segment then
		release := make(chan struct{})
		b.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Sync}, Name: "segments/*.seg*", Hang: release})
		w.must(s.SetLimit("/in-memory", 1<<20+1)) // a's segment is to go: its chunk moves to b, which hangs
		wait(time.Hour)
		w.must(s.SetLimit("/in-memory", 4<<20))
		wait(time.Hour)
		if file, at := where(t, s, putOf(1, 20000)); file == firstSegment && at == tinyPayload {
			t.Error("the mover of a still waits for b")
		}
		f := a.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Sync}, Times: 1})
		short, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		if err := w.put(short, s, 2, 20000); err != nil || f.Fired() != 1 {
			t.Errorf("a put where a segment fails, beside a device that hangs: %v, %d faults", err, f.Fired())
		}
		w.check(s)
		close(release)
		wait(time.Minute)
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

// The greatest limit is one.
func TestAGreatLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := flashtest.New()
		w := newWitness(t)
		s := w.open(tiny(files))
		w.must(s.SetLimit("/in-memory", 1<<63-1))
		w.must(w.fill(context.Background(), s, 1, 60000, 0))
		_ = s.Close()
	})
}

// Fills of a full device find room after each sync.
func TestFillsOfAFullDeviceGoOn(t *testing.T) {
	for _, size := range []int64{128 << 10, 1 << 20, 8 << 20} {
		synctest.Test(t, func(t *testing.T) {
			files := flashtest.NewHollow()
			slow := &slowSync{Files: files}
			w := newWitness(t)
			s := w.open(flash.Device{Path: "/in-memory", LimitBytes: 8*(64<<20+2<<20) + 1<<20, SpanBytes: 64 << 20, SegmentSpans: 8, Files: slow})
			ctx := context.Background()
			content := make([]byte, size)
			var next atomic.Int64
			fills := func(bytes int64) float64 {
				began, done := time.Now(), make(chan struct{})
				for range 16 {
					go func() {
						for n := next.Add(1); n*size < bytes; n = next.Add(1) {
							c := filledOf(uint64(n)+uint64(size)<<20, int(size))
							w.must(s.Fill(ctx, c, content))
						}
						done <- struct{}{}
					}()
				}
				for range 16 {
					<-done
				}
				return time.Since(began).Seconds()
			}
			fills(640 << 20)
			const more, atOnce = 1 << 30, 16
			rounds := float64(more) / float64(size) / atOnce
			if took := fills(640<<20 + more); took > rounds*2*slowly.Seconds() { // all that wait get room by one sync, or two
				t.Errorf("%d bytes in chunks of %d, %d at once, took %.2f s where a sync takes %v", more, size, atOnce, took, slowly)
			}
			w.close(s)
		})
	}
}

const slowly = 10 * time.Millisecond

// slowSync are files whose syncs take their time.
type slowSync struct{ *flashtest.Files }

func (f *slowSync) Open(name string, create bool) (flash.File, error) {
	x, err := f.Files.Open(name, create)
	if err != nil {
		return nil, err
	}
	return slowFile{x}, nil
}

type slowFile struct{ flash.File }

func (f slowFile) Sync() error {
	time.Sleep(slowly) // of a bubble
	return f.File.Sync()
}

// Where the file system is full and spans are free, who waits is answered.
func TestWhoWaitsForRoomIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := flashtest.New()
		w := newWitness(t)
		s := w.open(tiny(files))
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		w.must(w.fill(ctx, s, 1, 65536, 0)) // the first segment, of four spans, and a ledger
		wait(10 * time.Second)
		files.SetCapacity(files.Taken()) // others take the rest
		var allocations atomic.Int64
		release := make(chan struct{})
		f := files.Add(flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Sync}, Hang: release}) // or takes long
		counter := files.Add(flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Allocate}, Times: 1, After: 1 << 40, Where: func(flashtest.Operation) bool {
			if allocations.Add(1) == 5000 {
				cancel()
			}
			return true
		}})
		done := make(chan error, 2)
		for i := range uint64(2) {
			go func() { done <- w.fill(ctx, s, 10+i, 65536, 0) }()
		}
		wait(10 * time.Second)
		if n := allocations.Load(); n > 100 {
			t.Errorf("%d fallocate in 10 s, by two who wait for a sync", n)
		}
		f.End()
		counter.End()
		close(release)
		for range 2 {
			if err := <-done; err != nil && backend.KindOf(err) != backend.NoSpace {
				t.Error(err)
			}
		}
		w.close(s)
	})
}

// Who puts a damaged chunk again waits for room, the mover does not wait for the chunk.
func TestWhoPutsAgainDoesNotWaitForTheMover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := flashtest.New()
		w := newWitness(t)
		s := w.open(two(files))
		ctx := context.Background()
		const size = 16384
		w.must(w.put(ctx, s, 1, size)) // span 0, extent 0
		for i := range uint64(3) {
			w.must(w.fill(ctx, s, 50+i, size, 0))
		}
		for i := range uint64(3) {
			w.must(w.put(ctx, s, 10+i, size))
		}
		w.must(w.fill(ctx, s, 60, size, 0))
		wait(5 * time.Second)
		w.close(s)
		files.Flip(firstSegment, tinyPayload+777, 1)
		s = w.open(two(files))
		at, err := s.Locate(ctx, filledOf(60, size), backend.Range{Length: size})
		w.must(err)
		release := make(chan struct{})
		files.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Read}, Name: firstSegment, Times: 1, Hang: release,
			Where: func(o flashtest.Operation) bool { return o.Offset == tinyPayload }})
		again, asked := make(chan error, 1), make(chan error, 1)
		short, cancel := context.WithTimeout(ctx, 24*time.Hour)
		defer cancel()
		began := time.Now()
		go func() { again <- w.put(short, s, 1, size) }() // as the error says
		wait(time.Second)
		go func() { asked <- w.fill(short, s, 100, 65536, 0) }()
		wait(time.Second)
		close(release)
		if err := <-again; err != nil && backend.KindOf(err) != backend.NoSpace {
			t.Errorf("put again: %v", err)
		}
		if err := <-asked; err != nil && backend.KindOf(err) != backend.NoSpace {
			t.Errorf("fill: %v", err)
		}
		if time.Since(began) > time.Hour {
			t.Error("they waited for one another until their contexts ended")
		}
		at.Release()
		_ = s.Close()
	})
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

// The name of a segment that goes is given to another only when its mark is gone: else that
// of the other would be taken away.
func TestANameIsGivenAwayAfterItsMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := flashtest.New()
		w := newWitness(t)
		s := w.open(roomy(files))
		ctx := context.Background()
		w.must(w.put(ctx, s, 1, 20000))
		release := make(chan struct{})
		var removed atomic.Bool
		files.Before = func(o flashtest.Operation) {
			if o.Kind == flashtest.Remove && o.Name == firstSegment {
				removed.Store(true)
			}
		}
		files.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Sync}, Name: firstSegment, Times: 1})
		files.Inject(t, flashtest.Fault{
			Kinds: []flashtest.Kind{flashtest.SyncDirectory}, Name: "segments", Times: 1, Hang: release,
			Where: func(flashtest.Operation) bool { return removed.Load() },
		})
		w.must(w.put(ctx, s, 2, 20000)) // the first segment is retired, moved from, and removed; that hangs in the directory
		wait(time.Minute)
		w.lenient = true // the room of the segment that goes is not there yet
		for i := range uint64(50) {
			w.must(w.put(ctx, s, 100+i, 60000))
		}
		names, err := files.List("segments")
		w.must(err)
		if slices.Contains(names, "00000000.seg") || !slices.Contains(names, "00000000.seg.retired") {
			t.Errorf("while it goes: %v", names)
		}
		close(release)
		wait(time.Minute)
		if names, err = files.List("segments"); err != nil || slices.Contains(names, "00000000.seg.retired") {
			t.Errorf("after it went: %v, %v", names, err)
		}
		w.check(s)
		w.close(s)
	})
}
