package flash_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/backend/flash/flashtest"
)

// Where things are in a segment of tiny: spans of 64 KiB behind 1 MiB, then their records,
// 16 of 128 bytes for each.
const (
	tinySpans   = 4
	tinySpan    = 64 << 10
	tinyPayload = 1 << 20
	tinyLedger  = tinyPayload + tinySpans*tinySpan
	tinyRecords = tinySpan / 4096 * 128
	tinyBytes   = tinyLedger + tinySpans*tinyRecords
)

const (
	firstSegment  = "segments/00000000.seg"
	secondSegment = "segments/00000001.seg"
)

// stored is a device with two segments of chunks, closed.
func stored(t tester) (*witness, *flashtest.Files) {
	files := flashtest.New()
	w := newWitness(t)
	s := w.open(tiny(files))
	ctx := context.Background()
	for i := range uint64(3) {
		w.must(w.put(ctx, s, i, 60000))
		w.must(w.put(ctx, s, 10+i, 3000))
		w.must(w.fill(ctx, s, 20+i, 9000, 0))
	}
	w.close(s)
	if names, err := files.List("segments"); err != nil || len(names) != 2 {
		t.Fatalf("%d segments, of two: %v", len(names), err)
	}
	return w, files
}

// What may be lost to damage.
type loss struct {
	silently bool // there may be no event and no error but NotFound
	nothing  bool // what was put is all there
}

// inspect opens a device that was damaged: no byte is wrong; what was put is whole, or
// damaged, or there is an event that says so; the store goes on, and so it does after it
// was opened once more.
func inspect(w *witness, files *flashtest.Files, allowed loss) {
	w.t.Helper()
	s := w.open(tiny(files))
	w.judge(s, allowed)
	w.goesOn(s)
	w.close(s)
	s = w.open(tiny(files))
	w.judge(s, loss{silently: allowed.silently, nothing: true})
	w.close(s)
}

// judge reads all chunks of a store with damage.
func (w *witness) judge(s *flash.Store, allowed loss) {
	w.t.Helper()
	told := w.heard(flash.SegmentDamaged)+w.heard(flash.RecordDamaged) > 0
	for _, v := range w.read(s) {
		kind := backend.KindOf(v.err)
		switch {
		case v.err == nil:
		case v.put && allowed.nothing:
			w.t.Errorf("chunk %d, which was put and not damaged: %v", v.number, v.err)
		case kind == backend.Corrupt:
		case kind != backend.NotFound:
			w.t.Errorf("chunk %d: %v", v.number, v.err)
		case v.put && !told && !allowed.silently:
			w.t.Errorf("chunk %d, which was put: not found, and no event tells of damage", v.number)
		}
	}
	w.list(s)
}

func TestSegmentIsCutShort(t *testing.T) {
	var sizes []int64
	for _, edge := range []int64{0, 512, 4096, tinyPayload, tinyPayload + tinySpan, tinyLedger, tinyLedger + 128, tinyLedger + tinyRecords, tinyBytes - 4096, tinyBytes} {
		sizes = append(sizes, edge, edge+1, edge+100, edge+5000)
		if edge > 0 {
			sizes = append(sizes, edge-1)
		}
	}
	for _, size := range sizes {
		w, files := stored(t)
		whole := int64(len(files.Content(firstSegment)))
		files.Truncate(firstSegment, size)
		inspect(w, files, loss{nothing: size >= whole})
		if t.Failed() {
			t.Fatalf("cut to %d bytes", size)
		}
	}
}

func TestBitsAreFlipped(t *testing.T) {
	regions := map[string]struct {
		from, to int
		allowed  loss
	}{
		"header":           {0, 512, loss{nothing: true}},
		"behind it":        {512, tinyPayload, loss{nothing: true}},
		"payload":          {tinyPayload, tinyLedger, loss{}},
		"records":          {tinyLedger, tinyBytes, loss{}},
		"anything":         {0, tinyBytes, loss{}},
		"the first record": {tinyLedger, tinyLedger + 128, loss{}},
	}
	for name, region := range regions {
		t.Run(name, func(t *testing.T) {
			before, files := stored(t)
			rapid.Check(t, func(rt *rapid.T) {
				w, damaged := before.copyFor(rt), files.Copy()
				for range rapid.IntRange(1, 6).Draw(rt, "flips") {
					segment := rapid.SampledFrom([]string{firstSegment, secondSegment}).Draw(rt, "segment")
					at := rapid.IntRange(region.from, region.to-1).Draw(rt, "at")
					damaged.Flip(segment, int64(at), rapid.ByteRange(1, 255).Draw(rt, "bits"))
				}
				inspect(w, damaged, region.allowed)
			})
		})
	}
}

// A whole page or sector that is other bytes: zeros, ones, another part of the file.
func TestPartsAreOverwritten(t *testing.T) {
	before, files := stored(t)
	rapid.Check(t, func(rt *rapid.T) {
		w, damaged := before.copyFor(rt), files.Copy()
		content := damaged.Content(firstSegment)
		n := rapid.SampledFrom([]int{512, 4096, 65536}).Draw(rt, "bytes")
		from := rapid.IntRange(0, (len(content)-n)/512).Draw(rt, "from") * 512
		to := rapid.IntRange(0, (len(content)-n)/512).Draw(rt, "to") * 512
		part := content[from : from+n]
		switch rapid.IntRange(0, 2).Draw(rt, "with") {
		case 1:
			part = bytes.Repeat([]byte{0xFF}, n)
		case 2:
			part = make([]byte, n)
		}
		damaged.Overwrite(firstSegment, part, int64(to))
		// Records that are zeros are those of nothing: that there was something, nobody knows.
		inspect(w, damaged, loss{silently: true})
	})
}

func TestSegmentsChangePlaces(t *testing.T) {
	w, files := stored(t)
	before := files.Copy()
	files.Restore(firstSegment, before, secondSegment)
	files.Restore(secondSegment, before, firstSegment)
	inspect(w, files, loss{nothing: true})
	if files.Taken() < before.Taken() {
		t.Error("a file is gone")
	}
}

// Segments that change places and have damaged headers are taken for one another: nothing
// of them is believed, and nothing written, until they are where they were.
func TestSegmentsChangePlacesAndLoseTheirHeaders(t *testing.T) {
	w, files := stored(t)
	before := files.Copy()
	for i, name := range []string{firstSegment, secondSegment} {
		files.Restore(name, before, []string{secondSegment, firstSegment}[i])
		files.Overwrite(name, make([]byte, 512), 0)
	}
	damaged := w.copy()
	s := damaged.open(tiny(files))
	damaged.judge(s, loss{})
	damaged.expect(flash.RecordDamaged)
	damaged.close(s)
	swapped := files.Copy()
	files.Restore(firstSegment, swapped, secondSegment)
	files.Restore(secondSegment, swapped, firstSegment)
	inspect(w, files, loss{nothing: true})
}

func TestSegmentIsCopiedOverAnother(t *testing.T) {
	for _, to := range []string{firstSegment, secondSegment} {
		w, files := stored(t)
		from := firstSegment
		if to == from {
			from = secondSegment
		}
		files.Restore(to, files.Copy(), from)
		inspect(w, files, loss{})
		w.expect(flash.SegmentDamaged)
	}
}

func TestSegmentIsCopiedBesideItself(t *testing.T) {
	w, files := stored(t)
	files.Restore("segments/00000007.seg", files.Copy(), firstSegment)
	files.Restore("segments/stray", files.Copy(), firstSegment)
	copied := files.Content("segments/00000007.seg")
	inspect(w, files, loss{nothing: true})
	w.expect(flash.SegmentDamaged)
	if !bytes.Equal(files.Content("segments/00000007.seg"), copied) || len(files.Content("segments/stray")) == 0 {
		t.Error("a file that was left alone was changed")
	}
}

func TestSegmentIsGone(t *testing.T) {
	w, files := stored(t)
	files.Unlink(firstSegment)
	inspect(w, files, loss{silently: true}) // who removes a file knows it
}

// A segment of another device, whatever its number, is left alone, and so is its file.
func TestSegmentOfAnotherDevice(t *testing.T) {
	w, files := stored(t)
	_, other := stored(t)
	foreign := other.Content(secondSegment)
	files.Restore(firstSegment, other, secondSegment)
	inspect(w, files, loss{})
	w.expect(flash.SegmentDamaged)
	if !bytes.Equal(files.Content(firstSegment), foreign) {
		t.Error("the other device's segment was changed")
	}
}

// older is a device, and what it was before some chunks were dropped, moved and put.
func older(t *testing.T) (w *witness, files, before *flashtest.Files) {
	w, files = stored(t)
	before = files.Copy()
	s := w.open(tiny(files))
	ctx := context.Background()
	w.must(w.delete(ctx, s, putOf(0, 60000)))
	w.must(w.delete(ctx, s, filledOf(20, 9000)))
	for i := range uint64(12) {
		w.must(w.put(ctx, s, 50+i, 20000))
		w.must(w.fill(ctx, s, 80+i, 3000, 0))
	}
	w.close(s)
	return w, files, before
}

// An older copy of a segment is whole in itself: what was put since is not there, which
// nothing on the device can tell; nothing is wrong.
func TestOlderCopyIsRestored(t *testing.T) {
	for _, names := range [][]string{{firstSegment}, {secondSegment}, {firstSegment, secondSegment}} {
		w, files, before := older(t)
		for _, name := range names {
			files.Restore(name, before, name)
		}
		inspect(w, files, loss{silently: true})
	}
}

// All kinds of damage, under a store that is open and has read nothing.
func TestDamageUnderARunningStore(t *testing.T) {
	for name, damage := range map[string]func(files, before *flashtest.Files){
		"cut to nothing":    func(files, _ *flashtest.Files) { files.Truncate(firstSegment, 0) },
		"cut in a chunk":    func(files, _ *flashtest.Files) { files.Truncate(firstSegment, tinyPayload+30000) },
		"cut in the ledger": func(files, _ *flashtest.Files) { files.Truncate(firstSegment, tinyLedger+100) },
		"bits flipped": func(files, _ *flashtest.Files) {
			for at := int64(tinyPayload); at < tinyLedger; at += 4096 {
				files.Flip(firstSegment, at+at/4096, 4)
			}
		},
		"swapped": func(files, _ *flashtest.Files) {
			was := files.Copy()
			files.Restore(firstSegment, was, secondSegment)
			files.Restore(secondSegment, was, firstSegment)
		},
		"an older copy": func(files, before *flashtest.Files) { files.Restore(firstSegment, before, firstSegment) },
		"removed":       func(files, _ *flashtest.Files) { files.Unlink(firstSegment) },
	} {
		t.Run(name, func(t *testing.T) {
			w, files, before := older(t)
			s := w.open(tiny(files))
			damage(files, before)
			w.judge(s, loss{})
			w.goesOn(s)
			if n := w.heard(flash.DeviceFailed) + w.heard(flash.SegmentRetired); n > 0 {
				t.Errorf("%d events of a failing device, which it is not", n)
			}
			w.close(s)
			again := w.open(tiny(files))
			w.judge(again, loss{silently: true})
			w.close(again)
		})
	}
}

// A damaged chunk that was put is an error until it is put again; a filled one is dropped
// and can be filled again.
func TestCorruptChunkIsStoredAgain(t *testing.T) {
	w, files := stored(t)
	for at := int64(tinyPayload); at < tinyLedger; at += 512 {
		files.Flip(firstSegment, at, 1)
		files.Flip(secondSegment, at, 1)
	}
	s := w.open(tiny(files))
	ctx := context.Background()
	for range 2 {
		for _, v := range w.read(s) {
			if kind := backend.KindOf(v.err); v.put && kind != backend.Corrupt || !v.put && kind != backend.Corrupt && kind != backend.NotFound {
				t.Errorf("chunk %d: %v", v.number, v.err)
			}
		}
	}
	if backend.RemedyOf(s.ReadAt(ctx, putOf(0, 60000), make([]byte, 1), 0)) == "" {
		t.Error("nothing is said of what to do")
	}
	w.expect(flash.ChunkCorrupt)
	for _, f := range w.facts() {
		if f.put {
			w.must(w.put(ctx, s, f.number, int(f.chunk.Size)))
		} else {
			w.must(w.fill(ctx, s, f.number, int(f.chunk.Size), 0))
		}
	}
	for _, v := range w.read(s) {
		if v.err != nil {
			t.Errorf("chunk %d, stored again: %v", v.number, v.err)
		}
	}
	w.close(s)
	w.open(tiny(files.Crash(flashtest.Nothing))).Close()
}

// A put of a chunk whose bytes were damaged while the store was closed is no promise that
// what is there is whole: it is written again.
func TestPutOfADamagedChunk(t *testing.T) {
	w, files := stored(t)
	for at := int64(tinyPayload); at < tinyLedger; at += 512 {
		files.Flip(firstSegment, at, 1)
		files.Flip(secondSegment, at, 1)
	}
	s := w.open(tiny(files))
	for _, f := range w.facts() {
		if f.put {
			w.must(w.put(context.Background(), s, f.number, int(f.chunk.Size)))
		}
	}
	w.judge(s, loss{nothing: true})
	w.close(s)
	s = w.open(tiny(files.Crash(flashtest.Nothing)))
	w.judge(s, loss{nothing: true})
	w.close(s)
}

// Without format.json, or with one that was damaged, a directory is not opened and not
// changed: it says why. With it, all is there.
func TestFormatIsLost(t *testing.T) {
	w, files := stored(t)
	whole := files.Copy()
	good := files.Content("format.json")
	refused := func(what string, damage func()) {
		damage()
		before := contents(files)
		s, err := flash.Open(context.Background(), w.options(tiny(files)))
		if err == nil {
			w.judge(s, loss{})
			w.close(s)
			return
		}
		if !errors.Is(err, flash.ErrNoDevice) || !strings.Contains(err.Error(), "/in-memory") {
			t.Errorf("%s: %v", what, err)
		}
		if after := contents(files); !maps.Equal(before, after) {
			t.Errorf("%s: files were changed", what)
		}
	}
	refused("removed", func() { files.Unlink("format.json") })
	if _, err := flash.Open(context.Background(), w.options(tiny(files))); err == nil || !strings.Contains(err.Error(), "format.json") {
		t.Errorf("without format.json: %v", err)
	}
	for at := range good {
		for _, bits := range []byte{1, 0x20, 0x80} {
			refused(fmt.Sprintf("bits %x of byte %d flipped", bits, at), func() {
				files.Restore("format.json", whole, "format.json")
				files.Flip("format.json", int64(at), bits)
			})
		}
		refused(fmt.Sprintf("cut to %d bytes", at), func() {
			files.Restore("format.json", whole, "format.json")
			files.Truncate("format.json", int64(at))
		})
	}
	files.Restore("format.json", whole, "format.json")
	inspect(w, files, loss{nothing: true})
}

// contents are all files but the lock.
func contents(files *flashtest.Files) map[string]string {
	all := map[string]string{}
	for _, folder := range []string{".", "segments"} {
		names, _ := files.List(folder)
		for _, name := range names {
			if folder == "segments" {
				name = "segments/" + name
			}
			if name != "LOCK" && name != "segments" {
				all[name] = string(files.Content(name))
			}
		}
	}
	return all
}

// A record or a header that cannot be read is no record of nothing: nothing is written
// there, and the file stays.
func TestRecordsCannotBeReadAtTheStart(t *testing.T) {
	for name, where := range map[string]func(flashtest.Operation) bool{
		"header": func(o flashtest.Operation) bool { return o.Offset == 0 },
		"ledger": func(o flashtest.Operation) bool { return o.Offset == tinyLedger },
	} {
		t.Run(name, func(t *testing.T) {
			w, files := stored(t)
			f := files.Inject(t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Read}, Name: firstSegment, Where: where})
			during := w.copy()
			s := during.open(tiny(files))
			during.expect(flash.SegmentDamaged)
			during.judge(s, loss{})
			for i := range uint64(40) {
				during.lenient = true
				during.must(during.fill(context.Background(), s, 600+i, 60000, 0))
			}
			during.must(s.SetLimit("/in-memory", 1<<20))
			during.close(s)
			f.End()
			w.mu.facts = during.mu.facts
			s = w.open(tiny(files))
			w.judge(s, loss{nothing: true})
			w.close(s)
		})
	}
}

// A directory that is somebody else's is not made one of chunks.
func TestDirectoryOfSomebodyElse(t *testing.T) {
	files := flashtest.New()
	f, err := files.Open("thesis.tex", true)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := flash.Open(context.Background(), flash.Options{Devices: []flash.Device{tiny(files)}}); err == nil || !strings.Contains(err.Error(), "thesis.tex") {
		t.Errorf("a directory with another file: %v", err)
	}
	if _, err := files.Open("format.json", false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("format.json: %v", err)
	}
}

// What the directory is on is said at the start.
func TestDirectoryIsDescribed(t *testing.T) {
	const much = 1 << 40
	for name, c := range map[string]struct {
		statistics flash.Statistics
		limit      int64
		says       string // empty: nothing
	}{
		"ext4":         {flash.Statistics{Type: unix.EXT4_SUPER_MAGIC, FreeBytes: much, AllBytes: much}, 1 << 22, ""},
		"xfs":          {flash.Statistics{Type: unix.XFS_SUPER_MAGIC, FreeBytes: much, AllBytes: much}, 1 << 22, ""},
		"tmpfs":        {flash.Statistics{Type: unix.TMPFS_MAGIC, FreeBytes: much, AllBytes: much}, 1 << 22, "tmpfs"},
		"overlay":      {flash.Statistics{Type: unix.OVERLAYFS_SUPER_MAGIC, FreeBytes: much, AllBytes: much}, 1 << 22, "overlay"},
		"nfs":          {flash.Statistics{Type: unix.NFS_SUPER_MAGIC, FreeBytes: much, AllBytes: much}, 1 << 22, "network"},
		"smb":          {flash.Statistics{Type: unix.SMB2_SUPER_MAGIC, FreeBytes: much, AllBytes: much}, 1 << 22, "network"},
		"read-only":    {flash.Statistics{Type: unix.EXT4_SUPER_MAGIC, FreeBytes: much, AllBytes: much, ReadOnly: true}, 1 << 22, "read-only"},
		"nearly full":  {flash.Statistics{Type: unix.EXT4_SUPER_MAGIC, FreeBytes: much / 100, AllBytes: much}, 1 << 22, "nearly full"},
		"a high limit": {flash.Statistics{Type: unix.EXT4_SUPER_MAGIC, FreeBytes: much, AllBytes: much}, 2 * much, "the limit is"},
	} {
		t.Run(name, func(t *testing.T) {
			files := flashtest.New()
			files.SetStatistics(c.statistics)
			w := newWitness(t)
			device := tiny(files)
			device.LimitBytes = c.limit
			w.close(w.open(device))
			said := ""
			for _, e := range w.mu.events {
				if e.Kind == flash.DeviceWarning {
					said += e.Detail
				}
			}
			if (c.says == "") != (said == "") || !strings.Contains(said, c.says) {
				t.Errorf("it says %q, which should tell of %q", said, c.says)
			}
		})
	}
}
