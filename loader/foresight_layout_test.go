package loader

import (
	"archive/tar"
	"bytes"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/prefetch"
)

// viewOf registers a directory and returns its samples.
func viewOf(t testing.TB, n *testNode, name, dir string, c cut) dataset.View {
	t.Helper()
	n.add(name, dir)
	held, err := n.registry.acquire(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(held.release)
	view, err := held.view(c)
	if err != nil {
		t.Fatal(err)
	}
	return view
}

// tarDirectory makes a shard of samples of two parts, with a gap between them.
func tarDirectory(t testing.TB, samples int, bytesOf func(i int) int) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range samples {
		for _, part := range []struct {
			suffix string
			bytes  int
		}{{"jpg", bytesOf(i)}, {"cls", 1}} {
			name := filepath.Join("x", string(rune('a'+i))+"."+part.suffix)
			if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(part.bytes)}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(make([]byte, part.bytes)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.tar"), b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestTheLayoutIsThatOfThePlans(t *testing.T) {
	n := startNode(t, testOptions(t))
	files, _ := writeFiles(t, 20, func(i int) int { return 100 * (i % 5) })
	for name, view := range map[string]dataset.View{
		"files":  viewOf(t, n, "files", files, cut{}),
		"tokens": viewOf(t, n, "tokens", tokenDirectory(t, 1000), cut{blockSize: 10}),
		"shards": viewOf(t, n, "shards", tarDirectory(t, 20, func(i int) int { return 1000 * (i % 3) }), cut{}),
	} {
		l := newLayout(view)
		if l.Samples() != view.Len() || l.Chunks() != view.Objects() || l.Bytes() < 0 {
			t.Errorf("%s: %d samples in %d chunks, %d bytes", name, l.Samples(), l.Chunks(), l.Bytes())
		}
		var samples []int64
		for i := range view.Len() {
			samples = append(samples, view.Len()-1-i, i/2)
		}
		pieces, ends, err := l.Pieces(samples, nil, nil)
		if err != nil || len(ends) != len(samples) {
			t.Fatalf("%s: %d ends of %d samples, %v", name, len(ends), len(samples), err)
		}
		checkPieces(t, name, view, l, samples, pieces, ends)
	}
}

// checkPieces holds the pieces of each sample against its parts: each part lies in one of
// them, and no piece is larger than the parts and the small gaps between them.
func checkPieces(t *testing.T, name string, view dataset.View, l *layout, samples []int64, pieces []prefetch.Piece, ends []int32) {
	t.Helper()
	var p dataset.Plan
	if err := view.Plan(&p, samples); err != nil {
		t.Fatal(err)
	}
	from, columns := int32(0), len(view.Columns())
	for i := range samples {
		mine := pieces[from:ends[i]]
		from = ends[i]
		bytes, parts := int64(0), int64(0)
		for _, part := range p.Parts[i*columns:][:columns] {
			if part.Length == 0 {
				continue
			}
			parts++
			bytes += part.Length
			number := p.Objects[part.Object].Number
			if !slices.ContainsFunc(mine, func(x prefetch.Piece) bool {
				return x.Chunk == number && x.Offset <= part.Offset && part.Offset+part.Length <= x.Offset+x.Bytes
			}) {
				t.Fatalf("%s, sample %d: part %+v is in none of %+v", name, samples[i], part, mine)
			}
		}
		for _, x := range mine {
			bytes -= x.Bytes
			if size := l.ChunkBytes(x.Chunk); x.Offset+x.Bytes > size {
				t.Fatalf("%s: piece %+v of a chunk of %d bytes", name, x, size)
			}
		}
		if -bytes > parts*nearGap || parts == 0 != (len(mine) == 0) {
			t.Fatalf("%s, sample %d: %d pieces for %d parts, %d bytes more", name, samples[i], len(mine), parts, -bytes)
		}
	}
}

func TestPartsOfASampleThatLieCloseAreOnePiece(t *testing.T) {
	n := startNode(t, testOptions(t))
	l := newLayout(viewOf(t, n, "shards", tarDirectory(t, 3, func(int) int { return 5000 }), cut{}))
	pieces, ends, err := l.Pieces([]int64{1}, nil, nil)
	if err != nil || len(pieces) != 1 || !slices.Equal(ends, []int32{1}) || pieces[0].Bytes < 5001 || pieces[0].Bytes > 5001+2*512 {
		t.Errorf("%+v, %v, %v", pieces, ends, err)
	}
	far := addPiece([]prefetch.Piece{{Chunk: 1, Bytes: 10}}, 0, prefetch.Piece{Chunk: 1, Offset: 10 + nearGap + 1, Bytes: 5})
	other := addPiece([]prefetch.Piece{{Chunk: 1, Bytes: 10}}, 0, prefetch.Piece{Chunk: 2, Offset: 10, Bytes: 5})
	before := addPiece([]prefetch.Piece{{Chunk: 1, Bytes: 10}}, 1, prefetch.Piece{Chunk: 1, Offset: 10, Bytes: 5})
	if len(far) != 2 || len(other) != 2 || len(before) != 2 {
		t.Errorf("%+v, %+v, %+v", far, other, before)
	}
}

func TestSamplesThatAreNotThereAreAnError(t *testing.T) {
	n := startNode(t, testOptions(t))
	files, _ := writeFiles(t, 3, func(int) int { return 10 })
	l := newLayout(viewOf(t, n, "files", files, cut{}))
	if _, _, err := l.Pieces([]int64{3}, nil, nil); err == nil {
		t.Error("no error for a sample that is not there")
	}
	if l.ChunkBytes(3) != math.MaxInt64 {
		t.Error("a chunk that is not there has a size")
	}
}
