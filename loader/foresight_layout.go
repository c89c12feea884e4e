package loader

import (
	"math"

	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/prefetch"
)

var _ prefetch.Layout = (*layout)(nil)

// nearGap is how far apart two parts of a sample may lie to be brought as one: a page,
// which is what a device gives at least.
const nearGap = 4096

// layout tells the planner where a View's samples lie. Its chunks are objects, by their
// numbers. One goroutine may use it.
type layout struct {
	view    dataset.View
	columns int
	mean    int64
	plan    dataset.Plan
}

func newLayout(view dataset.View) *layout {
	mean, _ := view.SampleBytes()
	return &layout{view: view, columns: len(view.Columns()), mean: mean}
}

// Chunks implements prefetch.Layout.
func (l *layout) Chunks() int64 { return l.view.Objects() }

// Samples implements prefetch.Layout.
func (l *layout) Samples() int64 { return l.view.Len() }

// Bytes implements prefetch.Layout: those that the samples need, which is what windows
// are sized by.
func (l *layout) Bytes() int64 {
	if n := l.view.Len(); n > 0 && l.mean > math.MaxInt64/n {
		return math.MaxInt64
	}
	return l.mean * l.view.Len()
}

// ChunkBytes implements prefetch.Layout: more than there is, so that nothing is fetched as
// a whole. Of a whole chunk the planner takes for there what is there once, for as long as
// its window needs any of it, which may be for ever; the page cache promises nothing.
func (l *layout) ChunkBytes(int64) int64 { return math.MaxInt64 }

// Pieces implements prefetch.Layout. Parts of a sample that lie close together are one.
func (l *layout) Pieces(samples []int64, pieces []prefetch.Piece, ends []int32) ([]prefetch.Piece, []int32, error) {
	if err := l.view.Plan(&l.plan, samples); err != nil {
		return pieces, ends, err
	}
	for i := range samples {
		from := len(pieces)
		for _, part := range l.plan.Parts[i*l.columns:][:l.columns] {
			if part.Length > 0 {
				number := l.plan.Objects[part.Object].Number
				pieces = addPiece(pieces, from, prefetch.Piece{Chunk: number, Offset: part.Offset, Bytes: part.Length})
			}
		}
		ends = append(ends, int32(len(pieces)))
	}
	return pieces, ends, nil
}

// addPiece appends a piece, or widens the one of pieces[from:] that it lies close to.
func addPiece(pieces []prefetch.Piece, from int, p prefetch.Piece) []prefetch.Piece {
	for i := from; i < len(pieces); i++ {
		near := &pieces[i]
		start, end := min(near.Offset, p.Offset), max(near.Offset+near.Bytes, p.Offset+p.Bytes)
		if near.Chunk == p.Chunk && end-start <= near.Bytes+p.Bytes+nearGap {
			near.Offset, near.Bytes = start, end-start
			return pieces
		}
	}
	return append(pieces, p)
}
