package flash

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
)

func sane(t *rapid.T) *geometry {
	exponent := rapid.IntRange(16, 28).Draw(t, "span bytes, power of two")
	return newGeometry(1<<exponent, rapid.IntRange(1, maxSegmentSpans).Draw(t, "spans"))
}

func TestEverySizeHasTheSmallestClassThatFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := sane(t)
		size := rapid.Int64Range(0, backend.MaxChunkBytes+1).Draw(t, "size")
		c, ok := g.classOf(size)
		if fits := size <= min(backend.MaxChunkBytes, g.spanBytes); ok != fits {
			t.Fatalf("a chunk of %d bytes in spans of %d: class %v", size, g.spanBytes, ok)
		}
		if !ok {
			return
		}
		class := g.classes[c]
		if class.bytes < size || c > 0 && g.classes[c-1].bytes >= max(1, size) {
			t.Fatalf("a chunk of %d bytes is of class %d of %d bytes", size, c, class.bytes)
		}
		if blocks := blocksOf(uint32(size)); class.blocks < blocks {
			t.Fatalf("a chunk of %d blocks is of a class of %d", blocks, class.blocks)
		}
	})
}

// Beside its last page, a chunk wastes nothing up to so many pages, and a thirty-second
// above, but for what it takes to fill the span: from one number of extents to the next.
func TestClassesWasteLittle(t *testing.T) {
	for exponent := 16; exponent <= 28; exponent++ {
		g := newGeometry(1<<exponent, 4)
		pages := g.spanBytes / pageBytes
		for want := int64(1); want < int64(len(g.byPages)); want++ {
			class := g.classes[g.byPages[want]]
			wasted := class.bytes/pageBytes - want
			next := pages/int64(class.extents) - pages/int64(class.extents+1)
			step := int64(0)
			if want > exactPages {
				step = want / classStep
			}
			if wasted > step+next {
				t.Fatalf("spans of %d: a chunk of %d pages wastes %d", g.spanBytes, want, wasted)
			}
		}
	}
}

func TestClassesAreDistinctAndFitTheirSpan(t *testing.T) {
	for exponent := 16; exponent <= 28; exponent++ {
		g := newGeometry(1<<exponent, 4)
		if len(g.classes) > 256 {
			t.Fatalf("spans of %d: %d classes", g.spanBytes, len(g.classes))
		}
		for c, class := range g.classes {
			if class.bytes%pageBytes != 0 || class.bytes*int64(class.extents) > g.spanBytes {
				t.Fatalf("spans of %d: %d extents of %d bytes", g.spanBytes, class.extents, class.bytes)
			}
			if g.spanBytes-class.bytes*int64(class.extents) >= pageBytes*int64(class.extents) {
				t.Fatalf("spans of %d: %d extents of %d bytes could be larger", g.spanBytes, class.extents, class.bytes)
			}
			if int64(class.extents)*recordBytes > g.ledgerBytes() || class.extents > 1<<16 {
				t.Fatalf("spans of %d: %d extents, records for %d", g.spanBytes, class.extents, g.ledgerBytes()/recordBytes)
			}
			if found, ok := g.classWith(class.extents); !ok || int(found) != c {
				t.Fatalf("spans of %d: the class of %d extents is %d, not %d", g.spanBytes, class.extents, found, c)
			}
			if c > 0 && g.classes[c-1].bytes >= class.bytes {
				t.Fatalf("spans of %d: classes %d and %d are out of order", g.spanBytes, c-1, c)
			}
		}
	}
}

// area is a part of a segment, and whose.
type area struct{ from, to int64 }

func (a area) overlaps(b area) bool { return a.from < b.to && b.from < a.to }

func TestExtentsAndRecordsDoNotOverlap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := sane(t)
		spans := uint32(rapid.IntRange(1, g.segmentSpans).Draw(t, "spans of the segment"))
		draw := func(label string) (all []area) {
			span := rapid.Uint32Range(0, spans-1).Draw(t, label+" span")
			// All spans are of one class each; the other may be of another one.
			c := uint8(rapid.IntRange(0, len(g.classes)-1).Draw(t, label+" class"))
			extent := rapid.Uint32Range(0, g.classes[c].extents-1).Draw(t, label+" extent")
			at := place{7, span, extent}
			from, record := g.extentAt(c, at), g.recordAt(spans, at)
			return []area{{0, headerBytes}, {from, from + g.classes[c].bytes}, {record, record + recordBytes}, {int64(span), int64(c)<<32 | int64(extent)}}
		}
		a, b := draw("one"), draw("other")
		same := a[3].from == b[3].from
		if same && a[3].to>>32 != b[3].to>>32 {
			return // one span is of one class
		}
		for i, x := range a[:3] {
			if x.from < 0 || x.to > g.fileBytes(spans) || i == 1 && x.from%pageBytes != 0 {
				t.Fatalf("area %v of a file of %d bytes", x, g.fileBytes(spans))
			}
			for j, y := range b[:3] {
				itself := i == j && (i == 0 || same && a[3].to == b[3].to)
				if !itself && x.overlaps(y) {
					t.Fatalf("areas %v and %v overlap", x, y)
				}
			}
			for j, y := range a[:3] {
				if i != j && x.overlaps(y) {
					t.Fatalf("areas %v and %v of one chunk overlap", x, y)
				}
			}
		}
		// A record is in one sector: it is written as a whole or not at all.
		if r := a[2]; r.from/512 != (r.to-1)/512 {
			t.Fatalf("the record at %d is in two sectors", r.from)
		}
	})
}

func TestASegmentsSizeTellsHowManySpansItHas(t *testing.T) {
	for exponent := 17; exponent <= 28; exponent++ {
		d := &device{geometry: newGeometry(1<<exponent, maxSegmentSpans)}
		for spans := uint32(1); spans <= maxSegmentSpans; spans++ {
			least, most := d.geometry.ledgerAt(spans, 0), d.geometry.fileBytes(spans)
			for _, size := range []int64{least, (least + most) / 2, most} {
				if found := d.spansOf(size); found != int(spans) && (spans < maxSegmentSpans || size < most) {
					t.Fatalf("a segment of %d bytes has %d spans of %d, %d were thought", size, spans, d.geometry.spanBytes, found)
				}
			}
		}
		if found := d.spansOf(d.geometry.ledgerAt(1, 0) - 1); found != 0 {
			t.Fatalf("a segment that is too short has %d spans", found)
		}
	}
}

func TestGeometriesAreChosenForAnyCapacity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.Int64Range(0, 1<<47).Draw(t, "capacity")
		spanBytes, spans := geometryFor(capacity)
		if !geometryIsSane(spanBytes, spans) || spanBytes < backend.MaxChunkBytes {
			t.Fatalf("for %d bytes: %d spans of %d", capacity, spans, spanBytes)
		}
		if whole := newGeometry(spanBytes, spans).fileBytes(uint32(spans)); capacity/whole >= maxSegments {
			t.Fatalf("for %d bytes: more than %d segments of %d", capacity, maxSegments, whole)
		}
	})
}
