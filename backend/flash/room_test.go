package flash_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/backend/flash/flashtest"
)

func entries(t testing.TB, s *flash.Store) (n int) {
	t.Helper()
	if err := s.Entries(context.Background(), func(flash.Entry) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
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

// Files that are left alone take room.
func TestStatsCountFilesThatAreLeftAlone(t *testing.T) {
	w, files := stored(t)
	files.Restore("segments/00000007.seg", files.Copy(), firstSegment)
	s := w.open(tiny(files))
	counted(t, s)
	w.close(s)
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
			const spans = more / (64 << 20)
			// By a sync, or two, a span is free, and all who wait have room in it, as far as it goes.
			rounds := max(float64(more)/float64(size)/atOnce, spans)
			if took := fills(640<<20 + more); took > rounds*2*slowly.Seconds() {
				t.Errorf("%d bytes in chunks of %d, %d at once, took %.2f s where a sync takes %v", more, size, atOnce, took, slowly)
			}
			w.close(s)
		})
	}
}

const slowly = 10 * time.Millisecond

// slowSync are files whose syncs take their time, at once: Files.Before would have them wait
// for each other.
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
