package flash_test

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/backend/flash/flashtest"
)

// openScrubbed opens a device in memory that is scrubbed at that rate.
func (w *witness) openScrubbed(files *flashtest.Files, bytesPerSecond int64) *flash.Store {
	w.t.Helper()
	d := tiny(files)
	d.LimitBytes = 20 << 20
	o := w.options(d)
	o.ScrubBytesPerSecond = bytesPerSecond
	s, err := flash.Open(context.Background(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func scrubOf(s *flash.Store) flash.ScrubStats { return s.Stats().Devices[0].Scrub }

// where is where a chunk is in the files of a device in memory.
func where(t testing.TB, s *flash.Store, c backend.Chunk) (name string, at int64) {
	t.Helper()
	l, err := s.Locate(t.Context(), c, backend.Range{Offset: 0, Length: 0})
	if err != nil {
		t.Fatal(err)
	}
	l.Release()
	return "segments/" + filepath.Base(l.Path), l.Offset
}

func TestTheScrubberFindsWhatRotted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, files := newWitness(t), flashtest.New()
		s := w.openScrubbed(files, 0)
		ctx := t.Context()
		const size = 20000
		for i := range uint64(10) {
			w.must(w.put(ctx, s, i, size))
			w.must(w.fill(ctx, s, 100+i, size, 0))
		}
		for _, c := range []backend.Chunk{putOf(3, size), filledOf(104, size)} {
			name, at := where(t, s, c)
			files.Flip(name, at+1234, 4)
		}
		wait(2 * time.Minute)
		got := scrubOf(s)
		want := flash.ScrubFindings{Chunks: 20, Blocks: 20, Bytes: 20 * size, CorruptCopies: 1, CorruptPuts: 1}
		if got.Passes != 1 || got.Running || got.Last != want || got.This != (flash.ScrubFindings{}) {
			t.Errorf("%+v", got)
		}
		damaged := []backend.ChunkID{}
		for _, d := range got.Damaged {
			damaged = append(damaged, d.Chunk)
			if d.Unreadable || d.Put != (d.Chunk == putOf(3, size).ID) || d.Block != 0 {
				t.Errorf("%+v", d)
			}
		}
		filled := filledOf(104, size).Identity()
		if len(damaged) != 2 || !slices.Contains(damaged, putOf(3, size).ID) || !slices.Contains(damaged, filled) {
			t.Errorf("damaged are %v", damaged)
		}
		if w.heard(flash.ChunkCorrupt) != 2 || w.heard(flash.ScrubDone) != 1 {
			t.Errorf("%v", w.mu.events)
		}
		for _, v := range w.read(s) {
			kind := backend.KindOf(v.err)
			switch v.number {
			case 3:
				if kind != backend.Corrupt {
					t.Errorf("what was put and is corrupt: %v", v.err)
				}
			case 104:
				if kind != backend.NotFound {
					t.Errorf("a copy that is corrupt: %v", v.err)
				}
			default:
				w.must(v.err)
			}
		}
		w.must(w.put(ctx, s, 3, size)) // mends it
		wait(90 * time.Minute)
		if got := scrubOf(s); got.Passes != 2 || got.Last.CorruptPuts != 0 || got.Last.Chunks != 19 || len(got.Damaged) != 2 {
			t.Errorf("the second pass: %+v", got)
		}
		w.close(s)
	})
}

func TestTheScrubberIsAsFastAsItMayBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, files := newWitness(t), flashtest.New()
		const speed, chunks, size = 10_000, 50, 60_000
		s := w.openScrubbed(files, speed)
		for i := range uint64(chunks) {
			w.must(w.fill(t.Context(), s, i, size, 0))
		}
		wait(time.Minute)
		begun := time.Now()
		for scrubOf(s).Passes == 0 {
			got := scrubOf(s)
			if most := 1<<20 + int64(time.Since(begun).Seconds()*speed); got.This.Bytes > most || got.BytesPerSecond != speed {
				t.Fatalf("%d bytes after %v, of %d: %+v", got.This.Bytes, time.Since(begun), most, got)
			}
			wait(time.Second)
		}
		least := time.Duration(chunks*size-1<<20) * time.Second / speed
		if took := time.Since(begun); took < least || took > least+5*time.Second {
			t.Errorf("a pass took %v, want %v", took, least)
		}
		w.close(s)
	})
}

// A pass that is interrupted goes on where it was, however often.
func TestTheScrubberGoesOnWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, files := newWitness(t), flashtest.New()
		const speed, chunks, size = 10_000, 50, 60_000
		s := w.openScrubbed(files, speed)
		for i := range uint64(chunks) {
			w.must(w.fill(t.Context(), s, i, size, 0))
		}
		last := int64(0)
		for opened := 0; scrubOf(s).Passes == 0; opened++ {
			if opened > 20 {
				t.Fatalf("it does not come to the end: %+v", scrubOf(s))
			}
			wait(time.Minute + 30*time.Second)
			got := scrubOf(s)
			if got.Passes == 0 && (got.This.Chunks < last || got.Share <= 0 || got.Share >= 1 || got.Began.IsZero() || !got.Running) {
				t.Fatalf("after %d chunks: %+v", last, got)
			}
			last = got.This.Chunks
			w.close(s)
			s = w.openScrubbed(files, speed)
		}
		if got := scrubOf(s).Last; got.Chunks < chunks || got.Chunks > chunks+20 {
			t.Errorf("it read %d chunks of %d", got.Chunks, chunks)
		}
		w.close(s)
	})
}

func TestTheScrubberIsOffWhereItIsNotWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, files := newWitness(t), flashtest.New()
		s := w.openScrubbed(files, -1)
		w.must(w.put(t.Context(), s, 1, 5000))
		wait(48 * time.Hour)
		if got := scrubOf(s); got.Passes != 0 || got.BytesPerSecond != 0 || got.Running || s.Stats().Devices[0].Reads.Reads != 0 {
			t.Errorf("%+v", got)
		}
		w.close(s)
		if names, err := files.List("."); err != nil || slices.Contains(names, "scrub.json") {
			t.Errorf("it left %q, %v", names, err)
		}
	})
}

// What says how far it is may be anything, or refuse to be written: it begins anew.
func TestTheScrubberNeedsNoMemory(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "", "no JSON": "{", "another's": `{"format":"stoker-flash-scrub-1","device":"00"}`, "much": strings.Repeat("[", 1<<20),
		"a far place": `{"at":{"segment":4294967295,"span":4294967295,"extent":4294967295}}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, files := stored(t)
				files.Restore("scrub.json", files.Copy(), "format.json")
				files.Truncate("scrub.json", 0)
				files.Overwrite("scrub.json", []byte(text+" "), 0)
				s := w.openScrubbed(files, 0)
				w.expect(flash.DeviceWarning)
				wait(2 * time.Minute)
				if got := scrubOf(s); got.Passes != 1 || got.Last.Chunks != 9 {
					t.Errorf("%+v", got)
				}
				w.close(s)
				inspect(w, files, loss{nothing: true})
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		w, files := stored(t)
		files.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Create}, Name: "scrub.json.new"})
		s := w.openScrubbed(files, 0)
		wait(3 * time.Hour)
		if got := scrubOf(s); got.Passes != 3 || w.heard(flash.DeviceWarning) != 1 {
			t.Errorf("%+v, %v", got, w.mu.events)
		}
		w.check(s)
		w.close(s)
	})
}

func TestTheScrubberFindsWhatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, files := stored(t)
		files.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Read}, Name: firstSegment, Times: 1, Where: func(o flashtest.Operation) bool {
			return o.Offset >= tinyPayload && o.Offset < tinyLedger
		}})
		s := w.openScrubbed(files, 0)
		wait(2 * time.Minute)
		got := scrubOf(s)
		if got.Passes != 1 || got.Last.Unreadable != 1 || len(got.Damaged) != 1 || !got.Damaged[0].Unreadable || s.Stats().Devices[0].Errors["read"] != 1 {
			t.Errorf("%+v", got)
		}
		w.expect(flash.ChunkUnreadable)
		w.close(s)
	})
}

// A record that rots while the store is open is written anew: memory knows what it said.
func TestTheScrubberMendsRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, files := stored(t)
		s := w.openScrubbed(files, 0)
		before := contents(files)
		for at := int64(tinyLedger); at < tinyBytes; at += 128 {
			if files.Content(firstSegment)[at] != 0 {
				files.Flip(firstSegment, at+50, 9)
			}
		}
		wait(2 * time.Minute)
		if got := scrubOf(s); got.Last.Records < 4 || got.Last.Chunks != 9 {
			t.Errorf("%+v", got)
		}
		w.expect(flash.RecordDamaged)
		w.close(s)
		if report := checked(t, files, flash.CheckOptions{}); len(report.Findings) > 0 || report.Chunks != 9 {
			t.Errorf("%+v", report)
		}
		if len(before[firstSegment]) != len(contents(files)[firstSegment]) {
			t.Error("the segment has another size")
		}
		w.copy().lost(files, 0, 0)
	})
}

// Chunks come and go while they are read: the scrubber damages nothing, and finds nothing.
func TestTheScrubberAmongOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, files := newWitness(t), flashtest.New()
		s := w.openScrubbed(files, 1<<20)
		ctx := t.Context()
		for round := range uint64(300) {
			w.must(w.fill(ctx, s, round, 30000+int(round)*7, 0))
			w.must(w.put(ctx, s, 1000+round, 5000))
			if round%20 != 0 {
				w.must(w.delete(ctx, s, putOf(1000+round, 5000)))
			}
			wait(time.Minute)
		}
		got := scrubOf(s)
		if got.Passes < 3 || got.Last.String() != "nothing is damaged" || len(got.Damaged) > 0 {
			t.Errorf("%+v", got)
		}
		w.check(s)
		w.close(s)
		if report := checked(t, files, flash.CheckOptions{}); len(report.Findings) > 0 {
			t.Errorf("%+v", report)
		}
	})
}

func TestTheScrubberLeavesADeviceThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, files := stored(t)
		s := w.openScrubbed(files, 0)
		files.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Read}, Err: unix.ENODEV})
		wait(24 * time.Hour)
		if d := s.Stats().Devices[0]; d.Reads.Reads > 1 || d.State != "failed" || d.Scrub.Passes > 0 {
			t.Errorf("%+v", d)
		}
		w.close(s)
	})
}
