package flash_test

import (
	"context"
	"errors"
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
		t.Logf("%+v", s.Stats().Devices[0].Classes)
		armed.Store(true)
		began := time.Now()
		err := w.fill(ctx, s, 100, 65536, 0)
		t.Logf("after %v and %d writes: %v", time.Since(began), writes.Load(), err)
		armed.Store(false)
		if writes.Load() >= 5000 {
			t.Errorf("one fill: %d writes in %v of time, and no end", writes.Load(), time.Since(began))
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
		t.Logf("read: %v", s.ReadAt(ctx, c, p, 0))
		t.Logf("fill: %v", s.Fill(ctx, c, bytesOf(1, 60000)))
		if err := s.ReadAt(ctx, c, p, 0); err != nil {
			t.Errorf("read after a fill that succeeded: %v", err)
		}
		m, err := s.Missing(ctx, c, backend.Range{Length: 60000}, nil)
		t.Logf("missing: %v, %v", m, err)
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
		names, _ := files.List("segments")
		t.Logf("%v", names)
		report := checked(t, files, flash.CheckOptions{Repair: true})
		for _, f := range report.Findings {
			t.Logf("%+v", f)
		}
		left := files.Crash(flashtest.Nothing) // the machine is started again
		s = w.open(tiny(left))
		w.check(s)
		w.close(s)
	})
}

// A sync that fails as the device turns read-only leaves no mark: of two copies that are whole the later one is kept.
func TestWhatWasPutLastIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, devices := pair()
		w := newWitness(t)
		s := w.open(devices...)
		ctx := context.Background()
		w.must(w.put(ctx, s, 1, 20000))
		f := a.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Sync}, Err: unix.EROFS, Times: 1})
		w.must(w.put(ctx, s, 2, 20000)) // returns: it is durable on the other device
		t.Logf("fired %d, read-only %d, b took %d", f.Fired(), w.heard(flash.DeviceReadOnly), b.Taken())
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
		t.Logf("%d copies in %d spans, one of each held", before, len(holds))
		err := w.fill(ctx, s, 1000, 65536, 0)
		wait(10 * time.Second)
		after := entries(t, s)
		t.Logf("one fill of 64 KiB: %v; %d copies are left", err, after)
		if before-after > 200 {
			t.Errorf("to keep one chunk of 64 KiB, %d of %d copies were dropped", before-after, before)
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
		t.Logf("%d copies in %d segments, used %d of %d", before, r.Segments, r.Room.UsedBytes, r.LimitBytes)
		w.close(s)
		s = open()
		wait(10 * time.Second)
		after := entries(t, s)
		r = s.Stats().Devices[0]
		t.Logf("opened again: %d copies in %d segments, used %d", after, r.Segments, r.Room.UsedBytes)
		if after < before {
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
		t.Log(text)
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
		t.Logf("delete: %v", err)
		wait(time.Hour)
		_ = s.Close()
		f.End()
		s = w.open(tiny(files))
		if e := s.ReadAt(ctx, putOf(1, 20000), make([]byte, 1), 0); err == nil && e == nil {
			t.Error("deleted an hour before, and there again")
		}
		_ = s.Close()
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
			t.Logf("64 KiB: %v", w.fill(ctx, s, 100+round, 65536, 0))
			wait(5 * time.Second)
			for i := range uint64(8) {
				if err := w.fill(ctx, s, 1000+100*round+i, size, 0); err != nil {
					t.Logf("16 KiB: %v", err)
				}
			}
			wait(5 * time.Second)
			t.Logf("%+v", s.Stats().Devices[0].Classes)
		}
		_ = s.Close()
	})
}

// That there can be no more segments is no error of the device.
func TestASegmentTooManyIsNoErrorOfTheDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := flashtest.New()
		w := newWitness(t)
		s := w.open(tiny(files))
		ctx := context.Background()
		for i := range uint64(20) {
			w.must(w.fill(ctx, s, i, 20000, 0))
		}
		files.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Read}})
		for i := range uint64(20) {
			_ = s.ReadAt(ctx, filledOf(i, 20000), make([]byte, 10), 0)
			if w.heard(flash.DeviceFailed) > 0 {
				t.Logf("left out at error %d", i+1)
				break
			}
		}
		_ = s.Close()
	})
}

var _ = errors.Is

// What moves is compared with its checksums first.
func TestWhatMovesIsCompared(t *testing.T) {
	for name, move := range map[string]func(w *witness, s *flash.Store){
		"a lower limit": func(w *witness, s *flash.Store) { w.must(s.SetLimit("/in-memory", 3<<20/2)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				files := flashtest.New()
				w := newWitness(t)
				s := w.open(tiny(files))
				ctx := context.Background()
				for i := range uint64(7) {
					w.must(w.put(ctx, s, i, 60000))
				}
				file, at := where(t, s, putOf(6, 60000))
				for i := range uint64(4) {
					w.must(w.delete(ctx, s, putOf(i, 60000)))
				}
				wait(2 * time.Second)
				files.Flip(file, at+777, 1) // it rots
				move(w, s)
				wait(10 * time.Second)
				to, now := where(t, s, putOf(6, 60000))
				t.Logf("from %s %d to %s %d; corrupt events: %d", file, at, to, now, w.heard(flash.ChunkCorrupt))
				w.close(s)
				s = w.open(tiny(files)) // nothing is believed that was not checked now
				w.read(s)               // fails for wrong bytes
				w.close(s)
				d := tiny(files)
				d.LimitBytes = 3 << 20 / 2
				o := w.options(d)
				o.ScrubBytesPerSecond = 1 << 20
				s, err := flash.Open(ctx, o)
				w.must(err)
				wait(5 * time.Minute)
				t.Logf("scrubbed: %+v", scrubOf(s).Last)
				w.close(s)
			})
		})
	}
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
		w.must(s.AddDevice(ctx, db)) // it has more room
		release := make(chan struct{})
		b.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Sync}, Name: "segments/*.seg*", Hang: release})
		w.must(s.SetLimit("/in-memory", 1<<20+1)) // a's segment is to go: its chunk moves to b, which hangs
		wait(time.Hour)
		w.must(s.SetLimit("/in-memory", 4<<20))
		wait(time.Hour)
		file, at := where(t, s, putOf(1, 20000))
		t.Logf("after two hours it is in %s at %d, and a has %d files", file, at, func() int { n, _ := a.List("segments"); return len(n) }())
		f := a.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Sync}, Times: 1})
		short, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		t.Logf("put: %v", w.put(short, s, 2, 20000))
		wait(time.Hour)
		t.Logf("%d faults, retired: %+v", f.Fired(), s.Stats().Devices[0].Retired)
		close(release)
		wait(time.Minute)
		w.close(s)
	})
}

// A put under whose name something else was filled stores what it was given.
func TestAPutDoesNotTrustAFill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := flashtest.New()
		w := newWitness(t)
		s := w.open(tiny(files))
		ctx := context.Background()
		c := putOf(1, 20000)
		w.must(s.Fill(ctx, backend.Chunk{ID: c.ID, Size: 10}, bytesOf(5, 10)))
		id, err := s.Put(ctx, bytesOf(1, 20000))
		t.Logf("put: %v, %v", id == c.ID, err)
		if e := s.ReadAt(ctx, c, make([]byte, 20000), 0); err == nil && e != nil {
			t.Errorf("put returned, and: %v", e)
		}
		_ = s.Close()
	})
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
			files.Before = nil
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
			t.Logf("chunks of %d KiB, 16 at once: 448 MiB into an empty device in %.2f s of virtual time", size>>10, fills(448<<20))
			fills(640 << 20)
			took := fills(1664 << 20)
			t.Logf("1024 MiB into a full one in %.2f s: %.0f MiB/s, where a sync takes 10 ms", took, 1024/took)
			_ = s.Close()
		})
	}
}

// slowSync are files whose syncs take 10 ms.
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
	time.Sleep(10 * time.Millisecond)
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
		files.Before = nil
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
			t.Errorf("%d fallocate in %v, by two who wait for a sync", n, 10*time.Second)
		}
		f.End()
		counter.End()
		close(release)
		t.Log(<-done, <-done)
		w.lenient = true
		_ = s.Close()
	})
}
