package flash_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/backend/flash/flashtest"
)

// roomy is tiny with room for four segments.
func roomy(files *flashtest.Files) flash.Device {
	d := tiny(files)
	d.LimitBytes = 6 << 20
	return d
}

// everyday is a workload in which everything happens once: segments are made and emptied,
// chunks are put, filled in part, put after they were filled, dropped, deleted, moved.
func everyday(ctx context.Context, w *witness, s *flash.Store) {
	for i, size := range []int{0, 5000, 60000, 65536} {
		w.must(w.put(ctx, s, uint64(i), size))
	}
	c := putOf(5, 20000)
	w.set(5, c, false)
	w.must(s.Fill(ctx, c, bytesOf(5, 20000)))
	w.must(w.put(ctx, s, 5, 20000))
	for i := range uint64(12) {
		w.must(w.fill(ctx, s, 10+i, 60000, 0))
	}
	wait(2 * time.Second)
	w.must(w.delete(ctx, s, putOf(2, 60000)))
	w.must(w.put(ctx, s, 6, 4000))
	w.must(w.delete(ctx, s, putOf(3, 65536)))
	_ = s.SetLimit("/in-memory", 4<<20) // there may be no such device any more
	wait(10 * time.Second)
	w.must(w.put(ctx, s, 7, 50000))
}

var changes = []flashtest.Kind{
	flashtest.Create, flashtest.Remove, flashtest.Rename, flashtest.MakeDirectory, flashtest.SyncDirectory, flashtest.Write, flashtest.Allocate, flashtest.Sync,
}

// At each step of a workload an operation fails, once or from then on. What was put before
// or meanwhile is whole, also if the power goes then; the store goes on where the fault is
// over.
func TestFaultAtEachStep(t *testing.T) {
	for name, fault := range map[string]flashtest.Fault{
		"a write fails":                      {Kinds: []flashtest.Kind{flashtest.Write}, Times: 1},
		"a write is short":                   {Kinds: []flashtest.Kind{flashtest.Write}, Times: 1, Short: 100},
		"writes fail":                        {Kinds: []flashtest.Kind{flashtest.Write}},
		"a sync fails":                       {Kinds: []flashtest.Kind{flashtest.Sync}, Times: 1},
		"syncs fail":                         {Kinds: []flashtest.Kind{flashtest.Sync}},
		"a sync of a directory fails":        {Kinds: []flashtest.Kind{flashtest.SyncDirectory}, Times: 1},
		"a name cannot be changed":           {Kinds: []flashtest.Kind{flashtest.Create, flashtest.Rename, flashtest.Remove, flashtest.MakeDirectory}, Times: 1},
		"names cannot be changed":            {Kinds: []flashtest.Kind{flashtest.Create, flashtest.Rename, flashtest.Remove, flashtest.MakeDirectory}},
		"room cannot be had":                 {Kinds: []flashtest.Kind{flashtest.Allocate}, Times: 1},
		"no room is left":                    {Kinds: []flashtest.Kind{flashtest.Allocate, flashtest.Create}, Err: unix.ENOSPC},
		"writes find no room":                {Kinds: []flashtest.Kind{flashtest.Allocate, flashtest.Create, flashtest.Write}, Err: unix.ENOSPC},
		"a write finds no room":              {Kinds: []flashtest.Kind{flashtest.Write}, Err: unix.ENOSPC, Times: 1, Short: 512},
		"a sync finds no room":               {Kinds: []flashtest.Kind{flashtest.Sync}, Err: unix.ENOSPC, Times: 1},
		"a read fails":                       {Kinds: []flashtest.Kind{flashtest.Read}, Times: 1},
		"reads fail":                         {Kinds: []flashtest.Kind{flashtest.Read}},
		"the device vanishes":                {Err: unix.ENODEV},
		"the device vanishes for a moment":   {Err: unix.ENODEV, Times: 1},
		"the file system turns read-only":    {Kinds: changes, Err: unix.EROFS},
		"it is read-only for a single write": {Kinds: changes, Err: unix.EROFS, Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			for step := 0; ; step++ {
				fault.After = step
				fired := false
				synctest.Test(t, func(t *testing.T) { fired = faultAtStep(t, fault) })
				if t.Failed() {
					t.Fatalf("with the fault at step %d", step)
				}
				if !fired {
					t.Logf("%d steps", step)
					return
				}
			}
		})
	}
}

// faultAtStep does everyday with a fault, and checks what is there then and after crashes.
func faultAtStep(t *testing.T, fault flashtest.Fault) (fired bool) {
	files := flashtest.New()
	w := newWitness(t)
	w.lenient = true
	f := files.Add(fault)
	s, err := flash.Open(context.Background(), w.options(roomy(files)))
	if err != nil && f.Fired() == 0 {
		t.Errorf("open: %v", err)
	}
	if err == nil {
		everyday(context.Background(), w, s)
		over := f.Fired() >= fault.Times && fault.Times > 0
		gone := w.heard(flash.DeviceFailed) > 0
		w.readAfterFault(s, !over || gone)
		if over && !gone && w.heard(flash.DeviceReadOnly) == 0 {
			wait(10 * time.Second)
			w.goesOn(s)
		}
		if err := s.Close(); err != nil && f.Fired() == 0 {
			t.Errorf("close: %v", err)
		}
	}
	fired = f.Fired() > 0
	losses := []flashtest.Loss{flashtest.Nothing, flashtest.Everything, flashtest.Some(rand.New(rand.NewPCG(uint64(fault.After), 3)))}
	afterwards(w.copy(), files.Crash(losses[fault.After%len(losses)]), roomy, fault.After%2 == 0)
	return fired
}

// readAfterFault reads all chunks: those that were put are whole, or, where reads may fail,
// the error says that they cannot be read.
func (w *witness) readAfterFault(s *flash.Store, mayFail bool) {
	w.t.Helper()
	for _, v := range w.read(s) {
		if v.err != nil && v.put && !(mayFail && backend.KindOf(v.err) == backend.Unavailable) {
			w.t.Errorf("chunk %d, which was put: %v", v.number, v.err)
		}
	}
	w.list(s)
}

// A segment whose sync failed is not synced again; what was put there moves, and its file
// goes.
func TestSegmentIsRetired(t *testing.T) {
	for name, fault := range map[string]flashtest.Fault{
		"a sync fails":   {Kinds: []flashtest.Kind{flashtest.Sync}, Name: "segments/00000000.seg"},
		"a write fails":  {Kinds: []flashtest.Kind{flashtest.Write}, Name: "segments/00000000.seg"},
		"a record fails": {Kinds: []flashtest.Kind{flashtest.Write}, Name: "segments/00000000.seg", Where: func(o flashtest.Operation) bool { return o.Bytes == 128 }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				files := flashtest.New()
				w := newWitness(t)
				s := w.open(tiny(files))
				ctx := context.Background()
				w.must(w.put(ctx, s, 1, 60000))
				w.must(w.fill(ctx, s, 2, 60000, 0))
				wait(5 * time.Second)
				f := files.Inject(t, fault)
				before, err := files.Open("segments/00000000.seg", false)
				w.must(err)
				w.must(before.Close())
				w.must(w.put(ctx, s, 3, 60000)) // in another segment
				wait(5 * time.Second)
				if n := f.Fired(); n != 1 {
					t.Errorf("after it failed, the segment was written or synced %d times more", n-1)
				}
				w.expect(flash.SegmentRetired)
				w.check(s)
				if err := s.ReadAt(ctx, putOf(1, 60000), make([]byte, 10), 0); err != nil {
					t.Error(err)
				}
				if _, err := files.Open("segments/00000000.seg", false); err == nil {
					t.Error("the file of the segment is still there")
				}
				f.End()
				w.goesOn(s)
				w.close(s)
				afterwards(w, files.Crash(flashtest.Nothing), tiny, true)
			})
		})
	}
}

// While a retired segment's file is being removed, others are made: none of them is taken
// for it.
func TestRemovalTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := flashtest.New()
		w := newWitness(t)
		s := w.open(roomy(files))
		ctx := context.Background()
		w.must(w.put(ctx, s, 1, 60000))
		release := make(chan struct{})
		files.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Sync}, Name: firstSegment, Times: 1})
		files.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Remove}, Name: firstSegment, Times: 1, Hang: release})
		w.must(w.put(ctx, s, 2, 60000))
		wait(time.Minute)
		for i := range uint64(8) {
			w.must(w.put(ctx, s, 10+i, 60000))
		}
		close(release)
		wait(time.Minute)
		w.goesOn(s)
		w.close(s)
		afterwards(w, files.Crash(flashtest.Nothing), roomy, true)
	})
}

// pair is two devices, of which the first has more room.
func pair() (a, b *flashtest.Files, devices []flash.Device) {
	a, b = flashtest.New(), flashtest.New()
	devices = []flash.Device{tiny(a), tiny(b)}
	devices[0].LimitBytes, devices[1].Path = 8<<20, "/in-memory-2"
	return a, b, devices
}

// putOnEach puts a chunk on each of two devices, the first on the first.
func (w *witness) putOnEach(s *flash.Store, a, b *flashtest.Files) {
	w.t.Helper()
	ctx := context.Background()
	w.must(w.put(ctx, s, 1, 60000))
	f := a.Add(flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Allocate}, Err: unix.ENOSPC})
	for i := uint64(0); b.Taken() < 1<<20 && i < 100; i++ {
		w.must(w.put(ctx, s, 100+i, 60000))
	}
	f.End()
	if a.Taken() < 1<<20 || b.Taken() < 1<<20 {
		w.t.Fatal("both devices should be in use")
	}
}

// What fails on one device leaves the other as it is.
func TestOtherDeviceGoesOn(t *testing.T) {
	type after struct {
		event  flash.EventKind
		lost   bool // what was on the first cannot be read
		faults []flashtest.Fault
	}
	for name, c := range map[string]after{
		"vanishes":        {flash.DeviceFailed, true, []flashtest.Fault{{Err: unix.ENODEV}}},
		"turns read-only": {flash.DeviceReadOnly, false, []flashtest.Fault{{Kinds: changes, Err: unix.EROFS}}},
		"fails":           {flash.DeviceFailed, true, []flashtest.Fault{{}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b, devices := pair()
				w := newWitness(t)
				s := w.open(devices...)
				w.putOnEach(s, a, b)
				for _, f := range c.faults {
					a.Inject(t, f)
				}
				ctx := context.Background()
				w.lenient = true
				for i := range uint64(40) {
					w.must(w.put(ctx, s, 200+i, 3000))
					w.must(w.fill(ctx, s, 300+i, 3000, 0))
					if err := s.ReadAt(ctx, putOf(1, 60000), make([]byte, 100), 0); err != nil && backend.KindOf(err) != backend.Unavailable {
						t.Error(err)
					}
				}
				w.expect(c.event)
				w.lenient = false
				err := s.ReadAt(ctx, putOf(1, 60000), make([]byte, 60000), 0)
				if c.lost != (backend.KindOf(err) == backend.Unavailable) {
					t.Errorf("a chunk on the device: %v", err)
				}
				w.must(w.put(ctx, s, 400, 60000))
				w.must(w.put(ctx, s, 1, 60000))
				w.must(s.ReadAt(ctx, putOf(1, 60000), make([]byte, 60000), 0))
				w.must(w.fill(ctx, s, 401, 60000, 0))
				w.must(s.ReadAt(ctx, filledOf(401, 60000), make([]byte, 60000), 0))
				w.readAfterFault(s, true)
				_ = s.Close()
				devices[0].Files, devices[1].Files = a.Crash(flashtest.Nothing), b.Crash(flashtest.Nothing)
				again := w.open(devices...)
				w.check(again)
				w.close(again)
			})
		})
	}
}

// While a device hangs, chunks on the other are read and written; calls that wait for its
// sync end with their context; once it answers again, all is as it was.
func TestDeviceHangs(t *testing.T) {
	for _, kind := range []flashtest.Kind{flashtest.Sync, flashtest.Write} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b, devices := pair()
				w := newWitness(t)
				s := w.open(devices...)
				w.putOnEach(s, a, b)
				ctx := context.Background()
				c := putOf(7, 60000)
				w.set(7, c, false)
				w.must(s.Fill(ctx, c, bytesOf(7, 60000)))
				wait(5 * time.Second)
				release := make(chan struct{})
				a.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{kind}, Hang: release})

				stuck := make(chan error, 2)
				short, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				go func() { stuck <- w.put(short, s, 2, 60000) }()
				go func() { stuck <- w.put(short, s, 7, 60000) }() // it is there, but not durable
				wait(2 * time.Second)
				if kind == flashtest.Sync {
					for range 2 {
						if err := <-stuck; !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("a put on the device that hangs: %v", err)
						}
					}
				}
				wait(time.Minute)
				for i := range uint64(3) { // the device is passed over by now
					w.must(w.put(ctx, s, 500+i, 60000))
					w.must(w.fill(ctx, s, 510+i, 60000, 0))
				}
				w.expect(flash.DeviceWarning)
				w.check(s)
				close(release)
				wait(time.Minute)
				w.goesOn(s)
				w.close(s)
			})
		})
	}
}

// A chunk that cannot be read is an error or not there; others are read.
func TestReadFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := flashtest.New()
		w := newWitness(t)
		s := w.open(tiny(files))
		ctx := context.Background()
		for i := range uint64(3) {
			w.must(w.put(ctx, s, i, 20000))
			w.must(w.fill(ctx, s, 10+i, 20000, 0))
		}
		f := files.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Read}, Times: 2})
		if err := s.ReadAt(ctx, putOf(1, 20000), make([]byte, 20000), 0); backend.KindOf(err) != backend.Unavailable {
			t.Errorf("what was put: %v", err)
		}
		if err := s.ReadAt(ctx, filledOf(11, 20000), make([]byte, 20000), 0); backend.KindOf(err) != backend.Unavailable {
			t.Errorf("what was filled: %v", err)
		}
		if err := s.ReadAt(ctx, filledOf(11, 20000), make([]byte, 20000), 0); backend.KindOf(err) != backend.NotFound {
			t.Errorf("what was filled, once more: %v", err)
		}
		if f.Fired() != 2 || w.heard(flash.ChunkUnreadable) != 2 {
			t.Errorf("%d reads failed, %d events", f.Fired(), w.heard(flash.ChunkUnreadable))
		}
		w.check(s)
		w.goesOn(s)
		w.close(s)
		afterwards(w, files.Crash(flashtest.Nothing), tiny, true)
	})
}

// One chunk that cannot be read in a segment that is to go away takes nothing else with it.
func TestUnreadableChunkInARetiredSegment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := flashtest.New()
		w := newWitness(t)
		s := w.open(tiny(files))
		ctx := context.Background()
		for i := range uint64(3) {
			w.must(w.put(ctx, s, i, 60000))
		}
		files.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Read}, Name: "segments/00000000.seg", Where: func(o flashtest.Operation) bool {
			return o.Offset >= 1<<20 && o.Offset < 1<<20+64<<10 // the first span
		}})
		files.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Sync}, Name: "segments/00000000.seg", Times: 1})
		w.must(w.put(ctx, s, 3, 60000))
		wait(time.Hour)
		if w.heard(flash.DeviceFailed) > 0 {
			t.Error("the device is left out for one chunk")
		}
		if n := w.heard(flash.ChunkUnreadable); n > 100 {
			t.Errorf("%d events for one chunk in an hour", n)
		}
		failed := 0
		for _, v := range w.read(s) {
			if v.err != nil {
				failed++
			}
		}
		if failed != 1 {
			t.Errorf("%d chunks cannot be read, of one that is on bad flash", failed)
		}
		_ = s.Close()
	})
}

// Where the file system fills up, what is there is read and dropped for what is new, as
// far as that needs no room.
func TestFileSystemFillsUp(t *testing.T) {
	for capacity := int64(1 << 20); capacity <= 7<<19; capacity += 300_000 {
		t.Run(fmt.Sprintf("capacity=%d", capacity), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				files := flashtest.New()
				files.SetCapacity(capacity)
				w := newWitness(t)
				s := w.open(tiny(files))
				ctx := context.Background()
				w.lenient = true
				for i := range uint64(60) {
					w.must(w.fill(ctx, s, i, 50000, 0))
					if i%20 == 0 {
						w.must(w.put(ctx, s, 1000+i, 5000))
					}
				}
				w.expect(flash.DeviceFull)
				if n := w.heard(flash.DeviceFailed) + w.heard(flash.SegmentRetired); n > 0 {
					t.Errorf("%d events of failure for a file system that is full", n)
				}
				w.lenient = false
				w.check(s)
				files.SetCapacity(0)
				w.must(s.SetLimit("/in-memory", 5<<20))
				w.goesOn(s)
				w.close(s)
				afterwards(w, files.Crash(flashtest.Nothing), tiny, true)
			})
		})
	}
}
