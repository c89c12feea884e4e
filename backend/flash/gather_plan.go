package flash

import (
	"cmp"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

// piece is the part of a read that lies within one block.
type piece struct {
	key       uint64 // device, segment, at: the order in which pieces are read
	segment   *segment
	chunk     int64 // where in the segment's file its chunk begins
	at        int64 // where it begins itself
	p         []byte
	read      int32
	block     uint8
	unchecked bool // the block is
}

func (p *piece) end() int64 { return p.at + int64(len(p.p)) }

// Bits of a key: segments end before 2^37 (maxSegmentSpans · maxSpanBytes, and the rest).
const (
	keyAtBits      = 37
	keySegmentBits = 16
)

// run is one read of a file, for neighbouring pieces.
type run struct {
	segment       *segment
	bypass        *bypass // nil: through the page cache
	lane          int32
	pieces, upTo  int32 // [pieces, upTo) of the gather's
	vectors, last int32 // [vectors, last) of its vectors
	from, to      int64 // what is read of the file
	straight      bool  // to the pieces' own memory
	ragged        bool  // straight, but for the last bytes of the one piece, which come by a buffer
	check         bool  // it is a block, to be checked

	lent     buffer
	into     []unix.Iovec // what is left to be filled
	done     int64        // bytes that were read
	cached   int64        // of them, those that the page cache had
	begun    time.Time    // zero: it had not to be waited for
	restarts int
	err      error
}

// Bounds of what is joined.
const (
	// runBytes is what one read gets at most.
	runBytes = backend.BlockBytes
	// A gap is read as well where that costs less than another read. With reads of 200 to
	// 4,000 bytes both cost the same at gaps of 16 to 24 KiB of the page cache (0.9 µs a
	// read), and of 24 KiB past it, where a read of a virtio disk took 25 µs.
	gapCached = 8 << 10
	gapDirect = 16 << 10
	// runVectors is how many places one read is scattered to at most.
	runVectors = 64
	// straightLeast is from which length on a read past the page cache is made to where
	// it is wanted, though it could be joined with others and copied.
	straightLeast = 32 << 10
)

// divide divides a read by blocks.
func (g *gather) divide(i int32, unchecked uint8) {
	r, x := &g.reads[i], g.held[i].span
	d := x.segment.device
	at := d.geometry.extentAt(x.class, x.place(g.held[i].extent))
	key := uint64(d.number)<<(keySegmentBits+keyAtBits) | uint64(x.segment.number)<<keyAtBits
	for p, off := r.P, r.Offset; len(p) > 0; {
		b := off / backend.BlockBytes
		n := min(int64(len(p)), (b+1)*backend.BlockBytes-off)
		g.pieces = append(g.pieces, piece{
			key: key | uint64(at+off), segment: x.segment, chunk: at, at: at + off, p: p[:n],
			read: i, block: uint8(b), unchecked: unchecked&(1<<b) != 0,
		})
		p, off = p[n:], off+n
	}
}

// plan joins pieces to runs, and runs of a device to a lane.
func (g *gather) plan() {
	slices.SortFunc(g.pieces, func(a, b piece) int { return cmp.Compare(a.key, b.key) })
	g.direct = true
	vectors := 0
	for i := range g.pieces {
		last := len(g.runs) - 1
		if last >= 0 && g.runs[last].join(&g.pieces[i]) {
			g.runs[last].upTo++
			continue
		}
		if last >= 0 {
			vectors += g.runs[last].reserve(vectors)
		}
		g.runs = append(g.runs, g.newRun(int32(i)))
	}
	if last := len(g.runs) - 1; last >= 0 {
		vectors += g.runs[last].reserve(vectors)
	}
	g.vectors = slices.Grow(g.vectors[:0], vectors)[:vectors]
	g.waits = slices.Grow(g.waits[:0], len(g.reads))[:len(g.reads)]
	clear(g.waits)
}

// newRun begins a run with a piece.
func (g *gather) newRun(i int32) run {
	p := &g.pieces[i]
	r := run{segment: p.segment, bypass: p.segment.bypass(), pieces: i, upTo: i + 1, check: p.unchecked}
	r.from, r.to = p.at, p.end()
	if r.check {
		r.from, r.to = g.blockOf(p)
	}
	r.straight = r.from == p.at && r.to == p.end()
	if b := r.bypass; b != nil {
		whole := b.down(r.to) - r.from
		r.straight = r.straight && b.aligned(p.p, r.from, whole) && (b.down(r.to) == r.to || whole >= straightLeast)
		r.ragged = r.straight && b.down(r.to) != r.to
		r.from, r.to = b.down(r.from), b.up(r.to)
	}
	r.lane = g.laneOf(p.segment.device)
	g.lanes[r.lane].end++
	g.direct = g.direct && r.bypass != nil
	return r
}

// blockOf is where the block of a piece lies.
func (g *gather) blockOf(p *piece) (from, to int64) {
	h := &g.held[p.read]
	from = p.chunk + int64(p.block)*backend.BlockBytes
	return from, from + int64(blockBytes(h.span.slots[h.extent].size, int(p.block)))
}

// laneOf returns the lane of a device: the last one, as runs come device by device.
func (g *gather) laneOf(d *device) int32 {
	last := len(g.lanes) - 1
	if last >= 0 && g.lanes[last].device == d {
		return int32(last)
	}
	begin := int32(len(g.runs))
	g.lanes = append(g.lanes, lane{device: d, next: begin, end: begin})
	return int32(last + 1)
}

// join adds the piece that follows to a run, if one read of both costs less than two.
func (r *run) join(p *piece) bool {
	switch {
	case r.segment != p.segment, r.check != p.unchecked, r.segment.file.Fd() < 0:
		return false
	case r.check:
		return r.joinBlock(p)
	case r.bypass != nil:
		return r.joinDirect(p)
	}
	gap := p.at - r.to
	if gap < 0 || gap > gapCached || p.end()-r.from > runBytes || 2*(r.upTo-r.pieces)+2 > runVectors {
		return false
	}
	r.to = p.end()
	return true
}

// joinBlock adds another piece of the same block.
func (r *run) joinBlock(p *piece) bool {
	if p.at >= r.to {
		return false
	}
	r.straight, r.ragged = false, false
	return true
}

// joinDirect adds a piece to a run that is read past the page cache.
func (r *run) joinDirect(p *piece) bool {
	b := r.bypass
	to := max(r.to, b.up(p.end()))
	if p.at > r.to+gapDirect || to-r.from > runBytes || r.ragged {
		return false
	}
	aligned := b.aligned(p.p, p.at, int64(len(p.p)))
	if r.straight && aligned && p.at == r.to && r.upTo-r.pieces < runVectors {
		r.to = to
		return true
	}
	if aligned && len(p.p) >= straightLeast || r.straight && r.to-r.from >= straightLeast {
		return false
	}
	r.straight, r.to = false, to
	return true
}

// reserve notes which vectors are the run's, and returns how many.
func (r *run) reserve(from int) int {
	n := 1
	switch {
	case r.ragged:
		n = 2
	case r.straight:
		n = 2*int(r.upTo-r.pieces) - 1 // gaps between them
	}
	r.vectors, r.last = int32(from), int32(from+n)
	return n
}

// lends is how many bytes of a buffer the run needs.
func (r *run) lends() int {
	switch {
	case r.ragged:
		return int(r.bypass.offset)
	case r.straight:
		return 0
	}
	return int(r.to - r.from)
}
