package flash_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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
