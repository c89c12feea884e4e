package flash

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/stokerio/stoker/backend"
)

func TestInOrderUsesAllInTheirOrder(t *testing.T) {
	for _, n := range []int{0, 1, openAtOnce, 3*openAtOnce + 1} {
		var atOnce, most atomic.Int64
		next := 0
		inOrder(n, func(i int) int {
			now := atOnce.Add(1)
			for last := most.Load(); now > last && !most.CompareAndSwap(last, now); last = most.Load() {
			}
			defer atOnce.Add(-1)
			return i
		}, func(i, prepared int) {
			if i != next || prepared != i {
				t.Fatalf("%d, prepared for %d, comes for %d", i, prepared, next)
			}
			next++
		})
		if next != n || most.Load() > openAtOnce {
			t.Errorf("%d of %d came, %d at once", next, n, most.Load())
		}
	}
}

// countingFiles count what is read, and may hide where files have holes.
type countingFiles struct {
	Files
	read *atomic.Int64
	hide bool
}

func (c countingFiles) Open(name string, create bool) (File, error) {
	f, err := c.Files.Open(name, create)
	if err != nil {
		return nil, err
	}
	if c.hide {
		return hidingFile{f, c.read}, nil
	}
	return countingFile{f.(*file), c.read}, nil
}

type countingFile struct {
	*file
	read *atomic.Int64
}

func (f countingFile) ReadAt(p []byte, off int64) (int, error) {
	f.read.Add(int64(len(p)))
	return f.file.ReadAt(p, off)
}

type hidingFile struct {
	File
	read *atomic.Int64
}

func (f hidingFile) ReadAt(p []byte, off int64) (int, error) {
	f.read.Add(int64(len(p)))
	return f.File.ReadAt(p, off)
}

// found opens a directory and returns its chunks, and what was read for that.
func found(t *testing.T, path string, hide bool) (chunks map[backend.ChunkID]Entry, read int64) {
	t.Helper()
	files, err := OpenDirectory(path)
	if err != nil {
		t.Fatal(err)
	}
	var count atomic.Int64
	s, err := Open(t.Context(), Options{ScrubBytesPerSecond: -1, Devices: []Device{{Path: path, Files: countingFiles{files, &count, hide}, LimitBytes: 1 << 30}}})
	if err != nil {
		t.Fatal(err)
	}
	read = count.Load()
	chunks = map[backend.ChunkID]Entry{}
	err = s.Entries(t.Context(), func(e Entry) error {
		chunks[e.ID] = e
		return nil
	})
	if err != nil || s.Close() != nil {
		t.Fatal(err)
	}
	return chunks, read
}

// A start that asks where files have holes finds what one finds that reads everything, and
// reads little of it.
func TestAStartReadsNoMoreThanItNeeds(t *testing.T) {
	const spanBytes, sizes = 8 << 20, 6
	path := t.TempDir()
	s, err := Open(t.Context(), Options{Devices: []Device{{Path: path, LimitBytes: 1 << 30, SpanBytes: spanBytes, SegmentSpans: 8}}})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	content := make([]byte, 3<<20)
	var kept []backend.Chunk
	for i := range 600 {
		size := []int{0, 4 << 10, 30 << 10, 100 << 10, 1<<20 + 1, 3 << 20}[i%sizes]
		if size > 1<<20 && i%5 > 0 {
			continue
		}
		binary.LittleEndian.PutUint64(content, uint64(i))
		c := backend.Chunk{ID: backend.ContentID(content[:size]), Size: int64(size)}
		if err := s.Fill(t.Context(), c, content[:size]); err != nil {
			t.Fatal(err)
		}
		kept = append(kept, c)
	}
	for i, c := range kept { // the first of each size, and any: the first records are of nothing
		if i < 320 || rng.IntN(3) == 0 {
			if err := s.Delete(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	lean, read := found(t, path, false)
	all, readAll := found(t, path, true)
	if len(lean) == 0 || len(lean) != len(all) {
		t.Fatalf("%d chunks, %d by reading everything", len(lean), len(all))
	}
	for id, e := range all {
		if lean[id] != e {
			t.Errorf("%+v, by reading everything %+v", lean[id], e)
		}
	}
	if read > readAll/2 {
		t.Errorf("%d bytes were read, %d by reading everything", read, readAll)
	}
}

// Where the first records name a class and later ones, as only damage leaves them, another
// with more extents, the ledger is read as far as that one goes.
func TestALedgerOfTwoClassesIsReadToItsEnd(t *testing.T) {
	path := t.TempDir()
	s, err := Open(context.Background(), Options{Devices: []Device{{Path: path, LimitBytes: 64 << 20, SpanBytes: 8 << 20, SegmentSpans: 2}}})
	if err != nil {
		t.Fatal(err)
	}
	content := make([]byte, 100<<10)
	if _, err := s.Put(t.Context(), content); err != nil {
		t.Fatal(err)
	}
	d := s.devices[1].Load()
	segment := (*d.segments.Load())[0]
	var span uint32
	for n, x := range segment.spans {
		if x != nil {
			span = uint32(n)
		}
	}
	smaller, _ := d.geometry.classOf(8 << 10)
	var id backend.ChunkID
	id[0] = 7
	// in the ledger of 100 KiB chunks, beyond what was read of it first
	r := record{id: id, sequence: 1 << 40, extents: d.geometry.classes[smaller].extents, kind: filled}
	if err := segment.writeRecord(place{segment.number, span, 64}, &r); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, hide := range []bool{false, true} {
		if chunks, _ := found(t, path, hide); len(chunks) > 1 {
			t.Errorf("%d chunks", len(chunks))
		}
	}
}
