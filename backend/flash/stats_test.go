package flash_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/backend/flash/flashtest"
)

// counted compares what a store says of itself with the chunks that it lists.
func counted(t interface{ Errorf(string, ...any) }, s *flash.Store) flash.Stats {
	stats := s.Stats()
	type sum struct{ chunks, bytes int64 }
	var listed, said [2]sum // filled, put
	at := func(isPut bool) int {
		if isPut {
			return 1
		}
		return 0
	}
	if err := s.Entries(context.Background(), func(e flash.Entry) error {
		listed[at(e.Put)].chunks++
		listed[at(e.Put)].bytes += e.Size
		return nil
	}); err != nil {
		t.Errorf("list: %v", err)
	}
	for i := range stats.Devices {
		d := &stats.Devices[i]
		said[0].chunks += d.Filled.Chunks
		said[0].bytes += d.Filled.Bytes
		said[1].chunks += d.Put.Chunks
		said[1].bytes += d.Put.Bytes
		r := d.Room
		if sum := r.ChunkBytes + r.PaddingBytes + r.FreeExtentBytes + r.FreeSpanBytes + r.BusyBytes + r.LostBytes + r.OwnBytes; sum != r.UsedBytes {
			t.Errorf("parts of %d bytes that are used add up to %d: %+v", r.UsedBytes, sum, r)
		}
		for _, part := range []int64{r.ChunkBytes, r.PaddingBytes, r.FreeExtentBytes, r.FreeSpanBytes, r.BusyBytes, r.LostBytes, r.OwnBytes} {
			if part < 0 {
				t.Errorf("less than nothing: %+v", r)
			}
		}
		if r.UsedBytes > d.LimitBytes || r.ChunkBytes != d.Put.Bytes+d.Filled.Bytes {
			t.Errorf("%+v", d)
		}
	}
	if said != listed {
		t.Errorf("it says that there are (copies, puts) %v, and lists %v", said, listed)
	}
	return stats
}

func TestStatsAddUp(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			files := flashtest.New()
			w := newWitness(t)
			s := w.open(tiny(files))
			ctx := t.Context()
			for range rapid.IntRange(1, 40).Draw(rt, "steps") {
				number := uint64(rapid.IntRange(0, 5).Draw(rt, "number"))
				size := rapid.SampledFrom([]int{0, 1, 4096, 5000, 30000, 65536}).Draw(rt, "size")
				switch rapid.IntRange(0, 6).Draw(rt, "step") {
				case 0, 1:
					w.must(w.put(ctx, s, number, size))
				case 2, 3:
					w.must(w.fill(ctx, s, 100+number, size, 0))
				case 4:
					w.must(w.delete(ctx, s, rapid.SampledFrom([]backend.Chunk{putOf(number, size), filledOf(100+number, size)}).Draw(rt, "chunk")))
				case 5: // a copy of what may be put
					w.must(s.Fill(ctx, putOf(number, size), bytesOf(number, size)))
					w.set(number, putOf(number, size), false)
				case 6:
					w.close(s)
					s = w.open(tiny(files))
				}
				counted(t, s)
			}
			wait(5 * time.Second)
			if busy := counted(t, s).Devices[0].Room.BusyBytes; busy != 0 {
				t.Errorf("%d bytes are busy, and nobody does anything", busy)
			}
			w.close(s)
		})
	})
}

func TestStatsOfWhatWasDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := flashtest.New()
		w := newWitness(t)
		s := w.open(tiny(files))
		ctx := t.Context()
		w.must(w.put(ctx, s, 1, 10000))
		w.must(w.fill(ctx, s, 2, 4096, 0))
		wait(3 * time.Second)
		for range 3 {
			if err := s.ReadAt(ctx, putOf(1, 10000), make([]byte, 100), 50); err != nil {
				t.Fatal(err)
			}
		}
		d := s.Stats().Devices[0]
		wrote := flash.WriteStats{Writes: 2, PayloadBytes: 14096, PaddingBytes: 2288, Records: 2, RecordBytes: 8192, Amplification: (14096 + 2288 + 8192) / 14096.0}
		if d.Writes != wrote {
			t.Errorf("writes are %+v, want %+v", d.Writes, wrote)
		}
		if d.Reads.Reads != 3 || d.Reads.Bytes != 300 || d.State != "healthy" || d.Segments != 1 || d.Retired != 0 || len(d.Errors) != 0 {
			t.Errorf("%+v", d)
		}
		syncs := int64(0)
		for _, n := range d.Syncs.Buckets {
			syncs += n
		}
		if d.Syncs.Count < 2 || d.Syncs.Count != syncs || len(d.Syncs.UpTo) != len(d.Syncs.Buckets)-1 || !slices.IsSorted(d.Syncs.UpTo) {
			t.Errorf("%+v", d.Syncs)
		}
		if len(d.Classes) != 2 || d.Classes[0].Chunks != 1 || d.Classes[0].ExtentBytes != 4096 || d.Classes[1].Bytes != 10000 {
			t.Errorf("%+v", d.Classes)
		}
		files.Add(flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Write}, Name: firstSegment, Times: 1})
		w.must(w.put(ctx, s, 3, 5000))
		wait(3 * time.Second) // what was put moves away
		d = s.Stats().Devices[0]
		if d.Segments != 1 || d.Retired != 0 || d.Errors["write"] != 1 || d.Events[flash.SegmentRetired] != 1 {
			t.Errorf("%+v", d)
		}
		w.close(s)
		if after := s.Stats().Devices[0]; after.Writes != d.Writes {
			t.Errorf("after it was closed: %+v", after.Writes)
		}
	})
}

func TestStatsOfADeviceThatCouldNotBeOpened(t *testing.T) {
	w := newWitness(t)
	bad := flashtest.New()
	bad.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Statistics}})
	second := tiny(bad)
	second.Path = "/broken"
	s := w.open(tiny(flashtest.New()), second)
	defer w.close(s)
	stats := s.Stats()
	if len(stats.Devices) != 2 || stats.Devices[1].Path != "/broken" || stats.Devices[1].State != "failed" || stats.Devices[1].Events[flash.DeviceFailed] != 1 {
		t.Errorf("%+v", stats)
	}
	text, err := json.Marshal(stats)
	var back flash.Stats
	if err == nil {
		err = json.Unmarshal(text, &back)
	}
	if err != nil || strings.Contains(string(text), "null") || len(back.Devices) != 2 {
		t.Errorf("%s, %v", text, err)
	}
}

func TestPagesAreAllChunksInOrder(t *testing.T) {
	w := newWitness(t)
	s := w.open(tiny(flashtest.New()))
	defer w.close(s)
	ctx := t.Context()
	for i := range uint64(40) {
		w.must(w.put(ctx, s, i, 100))
	}
	var all []backend.ChunkID
	if err := s.Entries(ctx, func(e flash.Entry) error { all = append(all, e.ID); return nil }); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b backend.ChunkID) int { return strings.Compare(a.String(), b.String()) })
	for _, limit := range []int{1, 7, 40, 41, 0} {
		var got []backend.ChunkID
		r := flash.PageRequest{Limit: limit}
		for pages := 0; pages == 0 || r.After != (backend.ChunkID{}); pages++ {
			page, err := s.Page(ctx, r)
			if err != nil || limit > 0 && len(page.Chunks) > limit {
				t.Fatalf("%d chunks, %v", len(page.Chunks), err)
			}
			for _, e := range page.Chunks {
				got = append(got, e.ID)
			}
			r.After = page.Next
		}
		if !slices.Equal(got, all) {
			t.Errorf("pages of %d: %d chunks of %d, or in another order", limit, len(got), len(all))
		}
	}
	prefix := all[17].String()[:6]
	page, err := s.Page(ctx, flash.PageRequest{Prefix: strings.ToUpper(prefix)})
	if err != nil || len(page.Chunks) != 1 || page.Chunks[0].ID != all[17] {
		t.Errorf("%+v, %v", page, err)
	}
}

func TestEvictDropsCopiesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWitness(t)
		s := w.open(tiny(flashtest.New()))
		ctx := t.Context()
		for i := range uint64(10) {
			w.must(w.put(ctx, s, i, 5000))
			w.must(w.fill(ctx, s, 100+i, 20000, 0))
			w.must(w.fill(ctx, s, 200+i, 3000, 0))
		}
		named := []backend.ChunkID{putOf(1, 5000).ID, filledOf(100, 20000).Identity(), putOf(77, 1).ID}
		got, err := s.Evict(ctx, flash.Evict{Chunks: named})
		if want := (flash.Evicted{Chunks: 1, Bytes: 20480, Put: 1, Missing: 1}); err != nil || got != want {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
		got, err = s.Evict(ctx, flash.Evict{Bytes: 60000, Device: "/in-memory"})
		if err != nil || got.Bytes < 60000 || got.Bytes > 60000+20480+4096 {
			t.Errorf("%+v, %v, want 60000 bytes", got, err)
		}
		stats := counted(t, s)
		if left := stats.Devices[0]; left.Filled.Chunks != 20-1-got.Chunks || left.EvictedTotal != 1+got.Chunks || left.Put.Chunks != 10 {
			t.Errorf("%+v", left)
		}
		held, err := s.Locate(ctx, filledOf(209, 3000), backend.Range{Length: 3000})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = s.Evict(ctx, flash.Evict{All: true}); err != nil {
			t.Error(err)
		}
		wait(3 * time.Second)
		if left := counted(t, s).Devices[0]; left.Filled.Chunks != 0 || left.Put.Chunks != 10 || left.Room.BusyBytes != 4096 {
			t.Errorf("%+v", left)
		}
		held.Release()
		wait(3 * time.Second)
		if busy := counted(t, s).Devices[0].Room.BusyBytes; busy != 0 {
			t.Errorf("%d bytes stay", busy)
		}
		for name, e := range map[string]flash.Evict{"nothing": {}, "two": {All: true, Bytes: 1}, "negative": {Bytes: -1}, "negative and all": {Bytes: -1, All: true}} {
			if _, err := s.Evict(ctx, e); backend.KindOf(err) != backend.OutOfRange {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := s.Evict(ctx, flash.Evict{All: true, Device: "/elsewhere"}); backend.KindOf(err) != backend.NotFound {
			t.Errorf("of a device that is not there: %v", err)
		}
		w.check(s)
		w.close(s)
	})
}
