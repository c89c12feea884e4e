package flash_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/backend/flash/flashtest"
)

// checked is Check of a directory in memory, which must come to an end.
func checked(t testing.TB, files *flashtest.Files, o flash.CheckOptions) flash.CheckReport {
	t.Helper()
	o.Files = files
	report, err := flash.Check(context.Background(), "/in-memory", o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// kinds are those of a report's findings, each once, in order.
func kinds(r *flash.CheckReport) (all []flash.FindingKind) {
	for i := range r.Findings {
		all = append(all, r.Findings[i].Kind)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// recordAt is where the first record of a segment of tiny is that is not nothing.
func recordAt(t testing.TB, files *flashtest.Files, name string) int64 {
	t.Helper()
	content := files.Content(name)
	for at := tinyLedger; at < tinyBytes; at += 128 {
		if content[at] != 0 {
			return int64(at)
		}
	}
	t.Fatalf("%s has no records", name)
	return 0
}

// extentOf is where the chunk of a record of tiny is.
func extentOf(files *flashtest.Files, name string, record int64) int64 {
	content := files.Content(name)
	span, extent := (record-tinyLedger)/tinyRecords, (record-tinyLedger)%tinyRecords/128
	extents := int64(binary.LittleEndian.Uint32(content[record+48:]))
	return tinyPayload + span*tinySpan + extent*(tinySpan/4096/extents*4096)
}

func TestCheckOfWhatIsWholeFindsNothing(t *testing.T) {
	w, files := stored(t)
	before := contents(files)
	var done, total int64
	report := checked(t, files, flash.CheckOptions{Repair: true, Progress: func(d, all int64) {
		if d < done || d > all {
			t.Errorf("progress from %d to %d of %d", done, d, all)
		}
		done, total = d, all
	}})
	if len(report.Findings) > 0 || report.Segments != 2 || report.Chunks != 9 || report.PutChunks != 6 || len(report.Device) != 32 {
		t.Errorf("%+v", report)
	}
	if want := int64(3 * (60000 + 3000 + 9000)); report.CheckedBytes != want || done != want || total != want {
		t.Errorf("%d bytes were checked, progress is %d of %d, want %d", report.CheckedBytes, done, total, want)
	}
	if !maps.Equal(before, contents(files)) {
		t.Error("it changed something")
	}
	inspect(w, files, loss{nothing: true})
}

// Damages of a directory that stored made, and what Check says of them.
var damages = map[string]struct {
	do     func(t testing.TB, files *flashtest.Files)
	want   []flash.FindingKind
	puts   int  // that were put, and are lost
	copies int  // that were filled, and are lost
	stays  bool // it cannot be repaired
}{
	"format.json is lost":    {func(_ testing.TB, f *flashtest.Files) { f.Unlink("format.json") }, []flash.FindingKind{flash.FoundFormat}, 0, 0, false},
	"format.json is garbled": {func(_ testing.TB, f *flashtest.Files) { f.Overwrite("format.json", []byte("{{"), 0) }, []flash.FindingKind{flash.FoundFormat}, 0, 0, false},
	"format.json is another device's": {func(_ testing.TB, f *flashtest.Files) {
		text := string(f.Content("format.json"))
		at := strings.Index(text, `"device": "`) + len(`"device": "`)
		f.Overwrite("format.json", []byte("0123"), int64(at))
	}, []flash.FindingKind{flash.FoundFormat}, 0, 0, false},
	"a file that is none of ours": {func(_ testing.TB, f *flashtest.Files) { f.Restore("segments/notes.txt", f.Copy(), "format.json") }, []flash.FindingKind{flash.FoundStray}, 0, 0, false},
	"another device's segment": {func(t testing.TB, f *flashtest.Files) {
		_, other := stored(t)
		f.Restore("segments/00000007.seg", other, firstSegment)
	}, []flash.FindingKind{flash.FoundStray}, 0, 0, false},
	"a copy of a segment": {func(_ testing.TB, f *flashtest.Files) { f.Restore("segments/00000007.seg", f.Copy(), firstSegment) }, []flash.FindingKind{flash.FoundCopy}, 0, 0, false},
	"a segment has another's name": {func(_ testing.TB, f *flashtest.Files) {
		f.Restore("segments/00000009.seg", f.Copy(), firstSegment)
		f.Unlink(firstSegment)
	}, nil, 0, 0, false},
	"a header": {func(_ testing.TB, f *flashtest.Files) { f.Flip(firstSegment, 40, 1) }, []flash.FindingKind{flash.FoundHeader}, 0, 0, false},
	"a header, and the name is another": {func(_ testing.TB, f *flashtest.Files) {
		f.Flip(secondSegment, 40, 1)
		f.Restore("segments/00000009.seg", f.Copy(), secondSegment)
		f.Unlink(secondSegment)
	}, []flash.FindingKind{flash.FoundHeader}, 0, 0, false},
	"all headers and format.json": {func(_ testing.TB, f *flashtest.Files) {
		f.Flip(firstSegment, 40, 1)
		f.Flip("format.json", 0, 1)
	}, []flash.FindingKind{flash.FoundFormat, flash.FoundHeader}, 0, 0, false},
	"a record":                       {func(t testing.TB, f *flashtest.Files) { f.Flip(firstSegment, recordAt(t, f, firstSegment)+4, 1) }, []flash.FindingKind{flash.FoundMendable}, 0, 0, false},
	"a record's name":                {func(t testing.TB, f *flashtest.Files) { f.Flip(firstSegment, recordAt(t, f, firstSegment)+9, 1) }, []flash.FindingKind{flash.FoundMendable}, 0, 0, false},
	"a record's checksum of a block": {func(t testing.TB, f *flashtest.Files) { f.Flip(firstSegment, recordAt(t, f, firstSegment)+64, 1) }, []flash.FindingKind{flash.FoundMendable}, 0, 0, false},
	"a record's size":                {func(t testing.TB, f *flashtest.Files) { f.Flip(firstSegment, recordAt(t, f, firstSegment)+52, 1) }, []flash.FindingKind{flash.FoundRecords}, 1, 0, false},
	"all records of a span": {func(t testing.TB, f *flashtest.Files) {
		at := recordAt(t, f, firstSegment)
		f.Overwrite(firstSegment, slices.Repeat([]byte{0xFF}, tinyRecords), at)
	}, []flash.FindingKind{flash.FoundRecords}, 1, 0, false},
	"what was put": {func(t testing.TB, f *flashtest.Files) {
		f.Flip(firstSegment, extentOf(f, firstSegment, recordAt(t, f, firstSegment))+77, 1)
	}, []flash.FindingKind{flash.FoundCorrupt}, 1, 0, true},
	"a segment is cut in its last chunks":  {func(_ testing.TB, f *flashtest.Files) { f.Truncate(firstSegment, tinyLedger-1) }, []flash.FindingKind{flash.FoundShort}, 9, 9, false},
	"a segment is cut in its last records": {func(_ testing.TB, f *flashtest.Files) { f.Truncate(firstSegment, tinyBytes-1) }, []flash.FindingKind{flash.FoundShort}, 0, 0, false},
}

func TestCheckFindsAndMends(t *testing.T) {
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			w, files := stored(t)
			damage.do(t, files)
			before := contents(files)
			report := checked(t, files, flash.CheckOptions{})
			if got := kinds(&report); !slices.Equal(got, damage.want) || int(report.Unrepaired) != len(report.Findings) || report.Repaired != 0 {
				t.Fatalf("found %q, want %q: %+v", got, damage.want, report)
			}
			if !maps.Equal(before, contents(files)) {
				t.Error("it changed something, and was not asked to")
			}
			mended := checked(t, files, flash.CheckOptions{Repair: true})
			if got := kinds(&mended); !slices.Equal(got, damage.want) || damage.stays != (mended.Unrepaired > 0) {
				t.Fatalf("repair found %q, want %q: %+v", got, damage.want, mended)
			}
			after := checked(t, files, flash.CheckOptions{Repair: true})
			if damage.stays != (len(after.Findings) > 0) || after.Repaired > 0 {
				t.Errorf("after the repair: %+v", after)
			}
			w.lost(files, damage.puts, damage.copies)
		})
	}
}

// lost opens a directory and fails if more is lost than that.
func (w *witness) lost(files *flashtest.Files, puts, copies int) {
	w.t.Helper()
	s := w.open(tiny(files))
	defer w.close(s)
	for _, v := range w.read(s) {
		switch {
		case v.err == nil:
		case v.put:
			puts--
		default:
			copies--
		}
	}
	if puts < 0 || copies < 0 {
		w.t.Errorf("lost are %d chunks that were put and %d copies more than may be", -puts, -copies)
	}
	if w.heard(flash.SegmentDamaged)+w.heard(flash.RecordDamaged) > 0 {
		w.t.Errorf("the store finds damage that Check left: %v", w.mu.events)
	}
}

// Whatever is damaged: Check ends, what it repaired stays so, and nothing that was put is
// gone that it did not say is lost.
func TestCheckOfAnythingDamaged(t *testing.T) {
	whole, files := stored(t)
	rapid.Check(t, func(rt *rapid.T) {
		w, damaged := whole.copy(), files.Copy()
		for range rapid.IntRange(1, 6).Draw(rt, "damages") {
			name := rapid.SampledFrom([]string{firstSegment, secondSegment}).Draw(rt, "file")
			region := rapid.SampledFrom([][2]int{{0, 512}, {tinyPayload, tinyLedger}, {tinyLedger, tinyBytes}}).Draw(rt, "region")
			at := rapid.IntRange(region[0], region[1]-1).Draw(rt, "at")
			if len(damaged.Content(name)) > at {
				damaged.Overwrite(name, rapid.SliceOfN(rapid.Byte(), 1, min(300, len(damaged.Content(name))-at)).Draw(rt, "bytes"), int64(at))
			}
			if rapid.IntRange(0, 9).Draw(rt, "cut") == 0 {
				damaged.Truncate(name, int64(at))
			}
		}
		report := checked(t, damaged, flash.CheckOptions{Repair: true})
		again := checked(t, damaged, flash.CheckOptions{Repair: true})
		if again.Repaired > 0 || again.Unrepaired != report.Unrepaired || again.Chunks != report.Chunks || again.PutChunks != report.PutChunks {
			rt.Fatalf("the first repair: %+v\nthe second: %+v", report, again)
		}
		lost := false
		for i := range report.Findings {
			lost = lost || report.Findings[i].Lost != ""
		}
		s := w.open(tiny(damaged))
		defer w.close(s)
		puts := int64(0)
		for _, v := range w.read(s) {
			switch {
			case v.err == nil && v.put:
				puts++
			case v.put && !lost:
				rt.Errorf("chunk %d, which was put: %v, and nothing is lost: %+v", v.number, v.err, report)
			}
		}
		if puts != report.PutChunks {
			rt.Errorf("%d chunks that were put are whole, the report has %d", puts, report.PutChunks)
		}
	})
}

func TestCheckDropsCorruptCopies(t *testing.T) {
	w, files := stored(t)
	s := w.open(tiny(files))
	var at flash.Entry
	if err := s.Entries(t.Context(), func(e flash.Entry) error {
		if !e.Put {
			at = e
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w.close(s)
	files.Flip("segments/"+filepath.Base(at.Path), at.At, 1)
	report := checked(t, files, flash.CheckOptions{Repair: true})
	if len(report.Findings) != 1 || report.Findings[0].Chunk != at.ID || report.Findings[0].Put || !report.Findings[0].Repaired || report.Chunks != 8 {
		t.Fatalf("%+v", report)
	}
	w.lost(files, 0, 1)
}

func TestCheckDropsWhatWasPutAndIsCorruptOnlyIfAsked(t *testing.T) {
	w, files := stored(t)
	files.Flip(firstSegment, extentOf(files, firstSegment, recordAt(t, files, firstSegment)), 1)
	for _, drop := range []bool{false, true} {
		report := checked(t, files, flash.CheckOptions{Repair: true, DropCorrupt: drop})
		if len(report.Findings) != 1 || !report.Findings[0].Put || report.Findings[0].Repaired != drop || report.Findings[0].Lost == "" {
			t.Errorf("drop %v: %+v", drop, report)
		}
	}
	if report := checked(t, files, flash.CheckOptions{}); len(report.Findings) > 0 || report.PutChunks != 5 {
		t.Errorf("%+v", report)
	}
	w.lost(files, 1, 0)
}

// An older file of a segment has what the one in use lacks: it is kept, and said.
func TestCheckKeepsWhatOnlyACopyHas(t *testing.T) {
	w, files := stored(t)
	before := files.Copy()
	s := w.open(tiny(files))
	for i := range uint64(3) {
		w.must(w.delete(t.Context(), s, putOf(i, 60000)))
	}
	w.close(s)
	files.Restore("segments/00000005.seg", before, firstSegment)
	report := checked(t, files, flash.CheckOptions{Repair: true})
	if len(report.Findings) != 1 || report.Findings[0].Kind != flash.FoundCopy || !report.Findings[0].Put || report.Findings[0].Lost == "" {
		t.Fatalf("%+v", report)
	}
	if names, err := files.List("aside"); err != nil || !slices.Equal(names, []string{"00000005.seg"}) {
		t.Errorf("aside has %q, %v", names, err)
	}
	files.Restore("segments/00000005.seg", before, firstSegment)
	checked(t, files, flash.CheckOptions{Repair: true})
	if names, _ := files.List("aside"); !slices.Equal(names, []string{"00000005.seg", "00000005.seg.1"}) {
		t.Errorf("aside has %q", names)
	}
	w.lost(files, 0, 3) // those that were deleted
}

func TestCheckRefuses(t *testing.T) {
	ctx := t.Context()
	w, files := stored(t)
	s := w.open(tiny(files))
	if _, err := flash.Check(ctx, "/in-memory", flash.CheckOptions{Files: files}); !errors.Is(err, flash.ErrLocked) {
		t.Errorf("of a directory in use: %v", err)
	}
	w.close(s)
	if _, err := flash.Check(ctx, "/in-memory", flash.CheckOptions{Files: flashtest.New()}); !errors.Is(err, flash.ErrNoFlash) {
		t.Errorf("of an empty directory: %v", err)
	}
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	if _, err := flash.Check(ctx, nowhere, flash.CheckOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
	empty := t.TempDir()
	if _, err := flash.Check(ctx, empty, flash.CheckOptions{}); !errors.Is(err, flash.ErrNoFlash) {
		t.Errorf("of an empty directory: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(empty, "*")); len(left) > 0 {
		t.Errorf("it left %q in a directory that is not its own", left)
	}
	newer := strings.Replace(string(files.Content("format.json")), `"version": 1`, `"version": 2`, 1)
	files.Overwrite("format.json", []byte(newer), 0)
	if _, err := flash.Check(ctx, "/in-memory", flash.CheckOptions{Files: files, Repair: true}); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("of another version: %v", err)
	}
	if string(files.Content("format.json")) != newer {
		t.Error("it changed the format of another version")
	}
}

func TestCheckEndsWithItsContext(t *testing.T) {
	_, files := stored(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	report, err := flash.Check(ctx, "/in-memory", flash.CheckOptions{Files: files, Progress: func(int64, int64) { cancel(why) }})
	if !errors.Is(err, why) || report.CheckedBytes == 0 {
		t.Errorf("%+v, %v", report, err)
	}
	if report := checked(t, files, flash.CheckOptions{}); len(report.Findings) > 0 {
		t.Errorf("the lock is free again, and nothing changed: %+v", report)
	}
}

// What the device cannot read is said; what is repaired says so only if it was.
func TestCheckOfADeviceThatFails(t *testing.T) {
	_, files := stored(t)
	reads := files.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Read}, Name: firstSegment, Where: func(o flashtest.Operation) bool {
		return o.Offset >= tinyPayload && o.Offset < tinyLedger
	}})
	report := checked(t, files, flash.CheckOptions{})
	if got := kinds(&report); !slices.Equal(got, []flash.FindingKind{flash.FoundUnreadable}) {
		t.Errorf("%+v", report)
	}
	reads.End()
	files.Flip(firstSegment, 40, 1)
	files.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Sync}, Name: firstSegment})
	if _, err := flash.Check(t.Context(), "/in-memory", flash.CheckOptions{Files: files, Repair: true}); !errors.Is(err, unix.EIO) {
		t.Errorf("a repair that is not durable: %v", err)
	}
}

func TestCheckOfARealDirectory(t *testing.T) {
	d := small(t)
	s, err := flash.Open(t.Context(), flash.Options{Devices: []flash.Device{d}})
	if err != nil {
		t.Fatal(err)
	}
	var bytes int64
	for i, size := range []int{0, 1, 5000, 1 << 20, 3<<20 + 17} {
		if _, err := s.Put(t.Context(), bytesOf(uint64(i), size)); err != nil {
			t.Fatal(err)
		}
		bytes += int64(size)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	report, err := flash.Check(t.Context(), d.Path, flash.CheckOptions{})
	if err != nil || len(report.Findings) > 0 || report.PutChunks != 5 || report.CheckedBytes != bytes {
		t.Errorf("%+v, %v", report, err)
	}
}

// A crash between the two steps of a move leaves a chunk at two places.
func TestCheckKeepsTheBetterOfTwo(t *testing.T) {
	for _, corrupt := range []int{0, 1, 2} { // which of them, of none
		t.Run(fmt.Sprint(corrupt), func(t *testing.T) {
			w, files := twice(t)
			first := recordAt(t, files, firstSegment)
			if corrupt > 0 {
				name := []string{firstSegment, secondSegment}[corrupt-1]
				files.Flip(name, extentOf(files, name, first), 1)
			}
			report := checked(t, files, flash.CheckOptions{Repair: true})
			duplicates := 0
			for _, f := range report.Findings {
				if f.Kind == flash.FoundDuplicate && f.Repaired {
					duplicates++
				}
			}
			if duplicates != 1 {
				t.Errorf("%+v", report)
			}
			if after := checked(t, files, flash.CheckOptions{}); len(after.Findings) > 0 || after.PutChunks != 1 {
				t.Errorf("afterwards: %+v", after)
			}
			w.lost(files, 0, 0)
		})
	}
}

// twice is a directory with one chunk at two places.
func twice(t testing.TB) (*witness, *flashtest.Files) {
	files := flashtest.New()
	w := newWitness(t)
	s := w.open(tiny(files))
	w.must(w.put(t.Context(), s, 1, 60000))
	w.close(s)
	header, record := make([]byte, 512), make([]byte, 128)
	copy(header, files.Content(firstSegment))
	at := recordAt(t, files, firstSegment)
	copy(record, files.Content(firstSegment)[at:])
	device := header[16:32]
	files.Restore(secondSegment, files.Copy(), firstSegment)
	binary.LittleEndian.PutUint32(header[32:], 1)
	binary.LittleEndian.PutUint32(header[12:], crc32.Checksum(header[16:], crc32.MakeTable(crc32.Castagnoli)))
	files.Overwrite(secondSegment, header, 0)
	var where [28]byte
	copy(where[:], device)
	binary.LittleEndian.PutUint32(where[16:], 1)
	binary.LittleEndian.PutUint32(where[20:], uint32((at-tinyLedger)/tinyRecords))
	binary.LittleEndian.PutUint32(where[24:], uint32((at-tinyLedger)%tinyRecords/128))
	binary.LittleEndian.PutUint32(record[4:], crc32.Checksum(append(record[8:], where[:]...), crc32.MakeTable(crc32.Castagnoli)))
	files.Overwrite(secondSegment, record, at)
	return w, files
}
