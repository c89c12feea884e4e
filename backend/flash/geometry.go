package flash

import (
	"cmp"
	"math/bits"
	"slices"

	"github.com/stokerio/stoker/backend"
)

// geometry is how the segments of a device are divided. It is fixed when the device's
// directory is made.
type geometry struct {
	spanBytes    int64
	segmentSpans int // of a whole segment; the last one may have fewer
	classes      []class
	byPages      []uint8 // by pages of a chunk: its class
}

// class is a size class: extents of equal size, so many to a span.
type class struct {
	extents uint32 // of a span
	bytes   int64  // of an extent, a multiple of pageBytes
	blocks  int    // of the largest chunk that fits
}

// Bounds of geometries. A span of the largest chunk's size is the least that every chunk
// fits into.
const (
	minSpanBytes     = 64 << 10
	maxSpanBytes     = 256 << 20
	maxSegmentSpans  = 32 // so that a segment's size alone says how many it has; see spansOf
	defaultSpanBytes = 64 << 20
	defaultSpans     = 16
)

func geometryIsSane(spanBytes int64, spans int) bool {
	return spanBytes >= minSpanBytes && spanBytes <= maxSpanBytes && bits.OnesCount64(uint64(spanBytes)) == 1 &&
		spans >= 1 && spans <= maxSegmentSpans
}

// geometryFor chooses for a capacity: segments of 1 GiB in spans of 64 MiB, smaller ones
// where that would leave too few to be divided among size classes, and larger ones where
// there would be so many that a start takes long: each costs a read.
func geometryFor(capacity int64) (spanBytes int64, spans int) {
	spanBytes = defaultSpanBytes
	for spanBytes > backend.MaxChunkBytes && capacity/spanBytes < 256 {
		spanBytes /= 2
	}
	for spanBytes < maxSpanBytes && capacity/spanBytes > 32<<10 {
		spanBytes *= 2
	}
	return spanBytes, defaultSpans
}

// exactPages is up to how many pages every number of pages has a class of its own;
// classStep is by which part, one in so many, the next class is larger from there on.
const (
	exactPages = 48
	classStep  = 32
)

// newGeometry works the size classes out: as many extents as fit of each of a series of
// sizes, each extent then as large as so many can be. So a chunk of more than 32 pages
// wastes less than a thirty-second, but where a span holds only a few of its size.
func newGeometry(spanBytes int64, segmentSpans int) *geometry {
	g := &geometry{spanBytes: spanBytes, segmentSpans: segmentSpans}
	pages := spanBytes / pageBytes
	largest := min(pages, backend.MaxChunkBytes/pageBytes)
	g.byPages = make([]uint8, largest+1)
	covered := int64(-1)
	for want := int64(1); covered < largest; {
		extents := pages / want
		size := pages / extents
		for ; covered < min(size, largest); covered++ {
			g.byPages[covered+1] = uint8(len(g.classes))
		}
		g.classes = append(g.classes, class{
			extents: uint32(extents), bytes: size * pageBytes,
			blocks: int(min(maxBlocks, (size*pageBytes+backend.BlockBytes-1)/backend.BlockBytes)),
		})
		want = size + 1
		if size >= exactPages {
			want = max(want, size+size/classStep)
		}
		want = min(want, max(largest, size+1))
	}
	return g
}

// classOf is the class of a chunk; ok is false if none is as large.
func (g *geometry) classOf(size int64) (c uint8, ok bool) {
	pages := (size + pageBytes - 1) / pageBytes
	if pages >= int64(len(g.byPages)) {
		return 0, false
	}
	return g.byPages[pages], true
}

// classWith is the class of so many extents a span, of which later classes have fewer; ok is
// false if there is none.
func (g *geometry) classWith(extents uint32) (c uint8, ok bool) {
	i, ok := slices.BinarySearchFunc(g.classes, extents, func(at class, wanted uint32) int { return cmp.Compare(wanted, at.extents) })
	return uint8(i), ok
}

// recordsPart is the part of a span, one in so many, that the records of the smallest chunks
// take beside it. A device's files may be larger than its limit by as much: what room
// records need is only known with the chunks, and room that is taken from others is not
// theirs.
const recordsPart = pageBytes / recordBytes

// ledgerBytes is the room for the records of a span.
func (g *geometry) ledgerBytes() int64 { return g.spanBytes / pageBytes * recordBytes }

// Where things are in a segment of so many spans.
func (g *geometry) extentAt(c uint8, at place) int64 {
	return headBytes + int64(at.span)*g.spanBytes + int64(at.extent)*g.classes[c].bytes
}

func (g *geometry) ledgerAt(spans, span uint32) int64 {
	return headBytes + int64(spans)*g.spanBytes + int64(span)*g.ledgerBytes()
}

func (g *geometry) recordAt(spans uint32, at place) int64 {
	return g.ledgerAt(spans, at.span) + int64(at.extent)*recordBytes
}

// fileBytes is the size of a segment of so many spans.
func (g *geometry) fileBytes(spans uint32) int64 { return g.ledgerAt(spans, spans) }
