package seekable

import (
	"fmt"

	"github.com/stokerio/stoker/backend"
)

// group checks all reads, opens the files and links the pieces of equal frames.
func (g *gather) group() error {
	g.prepareTable()
	var previous *backend.Object
	var f *openFile
	for i := range g.reads {
		r := &g.reads[i]
		o := r.Chunk.Object
		if !isSeekable(o) {
			g.others, g.places = append(g.others, *r), append(g.places, int32(i))
			continue
		}
		if err := checkRead(r); err != nil {
			return err
		}
		if previous == nil || o != previous && o.Version.Tag != previous.Version.Tag {
			var err error
			if f, err = g.store.acquireFile(o, &g.stat); err != nil {
				return err
			}
			g.files = append(g.files, f)
		}
		if previous = o; f.bytes != o.Version.Size {
			return rangeError("read", r.Chunk, r.Offset, int64(len(r.P)), fmt.Sprintf("the file holds %d bytes, the object %d", f.bytes, o.Version.Size))
		}
		g.cut(f, int32(i))
	}
	return nil
}

// checkChunk refuses a chunk that is not within its object.
func checkChunk(op string, c backend.Chunk) error {
	size := c.Object.Version.Size
	if c.Start < 0 || c.Size < 0 || c.Start > size || c.Size > size-c.Start {
		return rangeError(op, c, 0, 0, "the chunk is not within the object")
	}
	return nil
}

func checkRead(r *backend.Read) error {
	if err := checkChunk("read", r.Chunk); err != nil {
		return err
	}
	if length := int64(len(r.P)); r.Offset < 0 || r.Offset > r.Chunk.Size || length > r.Chunk.Size-r.Offset {
		return rangeError("read", r.Chunk, r.Offset, length, "the range is not within the chunk")
	}
	return nil
}

// cut divides read i into pieces of frames.
func (g *gather) cut(f *openFile, i int32) {
	r := &g.reads[i]
	p, at := r.P, r.Chunk.Start+r.Offset
	for len(p) > 0 {
		number := at / f.frameBytes
		from := at - number*f.frameBytes
		n := min(int64(len(p)), f.frameBytes-from)
		u := &g.frames[g.frameOf(f, number, i)]
		g.pieces = append(g.pieces, piece{p: p[:n:n], from: from, next: u.first})
		u.first = int32(len(g.pieces) - 1)
		p, at = p[n:], at+n
	}
}

// prepareTable empties the table; it grows with the frames.
func (g *gather) prepareTable() {
	if len(g.table) == 0 {
		g.table = make([]int32, 256)
	}
	clear(g.table)
}

// frameOf returns the number of a frame in this call, a new one if it is new.
func (g *gather) frameOf(f *openFile, number int64, read int32) int32 {
	if 2*len(g.frames) >= len(g.table) {
		g.table = make([]int32, 2*len(g.table))
		for i := range g.frames {
			*g.place(g.frames[i].file, g.frames[i].frame) = int32(i + 1)
		}
	}
	at := g.place(f, number)
	if *at == 0 {
		g.frames = append(g.frames, frame{file: f, frame: number, read: read, first: -1})
		*at = int32(len(g.frames))
	}
	return *at - 1
}

// place returns where in the table a frame is, or belongs.
func (g *gather) place(f *openFile, number int64) *int32 {
	mask := uint64(len(g.table) - 1)
	for at := (frameKey{f.number, number}).hash() & mask; ; at = (at + 1) & mask {
		i := g.table[at]
		if i == 0 || g.frames[i-1].frame == number && g.frames[i-1].file.number == f.number {
			return &g.table[at]
		}
	}
}
