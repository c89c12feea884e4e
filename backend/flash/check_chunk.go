package flash

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/zeebo/blake3"

	"github.com/stokerio/stoker/backend"
)

// checkedChunk is where a chunk was found first.
type checkedChunk struct {
	file   *checkedFile
	at     place
	class  uint8
	kind   kind
	blocks uint8
	whole  bool // what is there is what was stored
}

// checkSpan checks the records of a span and the chunks that they tell of.
func (k *checker) checkSpan(ctx context.Context, f *checkedFile, number uint32, ledger []byte) error {
	c, known := k.classOf(f, number, ledger)
	if !known {
		if c, known = k.classGuessed(ledger); !known {
			c = 0
		}
	}
	class := k.geometry.classes[c]
	var damaged, stale []uint32
	var r record
	for i := range uint32(len(ledger) / recordBytes) {
		p := ledger[int(i)*recordBytes:][:recordBytes]
		if isNothing(p) {
			continue
		}
		at := place{f.header.number, number, i}
		err := r.decode(p, k.id, at)
		switch {
		case err == nil && r.extents == class.extents && i < class.extents && int64(r.size) <= class.bytes:
			err = k.checkChunk(ctx, f, at, c, &r)
		case err == nil:
			stale = append(stale, i)
		default:
			var mended bool
			if mended, err = k.mendRecord(ctx, f, at, c, p); !mended {
				damaged = append(damaged, i)
			}
		}
		if err != nil {
			return err
		}
	}
	if err := k.useless(f, number, damaged, Finding{Kind: FoundRecords, Lost: "their chunks"}, "are damaged"); err != nil {
		return err
	}
	return k.useless(f, number, stale, Finding{Kind: FoundStale}, "are of what the span held before it was divided anew")
}

// useless notes records that tell nothing; they are cleared.
func (k *checker) useless(f *checkedFile, span uint32, extents []uint32, found Finding, what string) error {
	if len(extents) == 0 {
		return nil
	}
	found.File, found.Offset = k.pathOf(f.name), k.geometry.recordAt(f.header.spans, place{f.header.number, span, extents[0]})
	found.Detail = fmt.Sprintf("%d records of span %d %s", len(extents), span, what)
	return k.found(found, func() error {
		for _, i := range extents {
			if err := k.write(f, place{f.header.number, span, i}, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// classOf is the class of a span as a store sees it: that of its newest record.
func (k *checker) classOf(f *checkedFile, number uint32, ledger []byte) (c uint8, known bool) {
	d := device{id: k.id, geometry: k.geometry}
	c, known, _ = d.classOfLedger(&segment{device: &d, number: f.header.number}, number, ledger)
	return c, known
}

// classGuessed is the class that most records of a span name, though all are damaged.
func (k *checker) classGuessed(ledger []byte) (c uint8, ok bool) {
	count := map[uint32]int{}
	most := uint32(0)
	for ; len(ledger) >= recordBytes; ledger = ledger[recordBytes:] {
		extents := binary.LittleEndian.Uint32(ledger[48:])
		if count[extents]++; extents != 0 && (most == 0 || count[extents] > count[most]) {
			most = extents
		}
	}
	return k.geometry.classWith(most)
}

// write writes a record, nothing for nil.
func (k *checker) write(f *checkedFile, at place, r *record) error {
	f.changed = true
	d := device{id: k.id, geometry: k.geometry}
	s := segment{device: &d, number: f.header.number, file: f.file, spans: make([]*span, f.header.spans)}
	return s.writeRecord(at, r)
}

// verdict is what reading a chunk showed.
type verdict struct {
	corrupt int               // first block that is not what its CRC says, -1: none
	block   string            // what is wrong with it
	err     error             // it could not be read
	crcs    [maxBlocks]uint32 // of what was read
	id      backend.ChunkID   // of the content, if all of it was read
}

// verify reads what is there of a chunk.
func (k *checker) verify(ctx context.Context, f *checkedFile, at place, c uint8, r *record) (verdict, error) {
	v := verdict{corrupt: -1}
	hash := blake3.New()
	for b := range blocksOf(r.size) {
		if ctx.Err() != nil {
			return v, context.Cause(ctx)
		}
		if r.blocks&(1<<b) == 0 {
			continue
		}
		var block []byte
		if block, v.err = k.read(f, blockBytes(r.size, b), k.geometry.extentAt(c, at)+int64(b)*backend.BlockBytes); v.err != nil {
			return v, nil
		}
		k.report.CheckedBytes += int64(len(block))
		v.crcs[b] = checksum(block)
		if v.crcs[b] != r.crcs[b] && v.corrupt < 0 {
			v.corrupt, v.block = b, fmt.Sprintf("block %d: CRC32C %08x, expected %08x", b, v.crcs[b], r.crcs[b])
		}
		if r.kind == put {
			_, _ = hash.Write(block) // never fails
		}
	}
	hash.Sum(v.id[:0])
	k.options.Progress(min(k.report.CheckedBytes, k.total), k.total)
	return v, nil
}

// window is what was read of a file last: small chunks lie side by side, and to read each
// alone would take a hundred times as long.
type window struct {
	file     *checkedFile
	from, to int64
	p        []byte // of block size
}

// has reports whether n bytes of a file are in the window.
func (w *window) has(f *checkedFile, n int, off int64) bool {
	return w.file == f && off >= w.from && off+int64(n) <= w.to
}

// read returns n bytes of a file, which are the caller's until the next call.
func (k *checker) read(f *checkedFile, n int, off int64) ([]byte, error) {
	w := &k.window
	if !w.has(f, n, off) {
		ahead := min(int64(len(w.p)), k.geometry.ledgerAt(f.header.spans, 0)-off)
		w.file, w.from, w.to = f, off, off+ahead
		if readUncached(&k.buffers, f.file, w.p[:ahead], off) != nil { // what is behind it may be what cannot be read
			w.file = nil
			return w.p[:n], readUncached(&k.buffers, f.file, w.p[:n], off)
		}
	}
	return w.p[off-w.from:][:n], nil
}

// checkChunk checks what a record tells of.
func (k *checker) checkChunk(ctx context.Context, f *checkedFile, at place, c uint8, r *record) error {
	v, err := k.verify(ctx, f, at, c, r)
	if err != nil {
		return err
	}
	found := Finding{File: k.pathOf(f.name), Offset: k.geometry.extentAt(c, at), Chunk: r.id, Put: r.kind == put}
	switch {
	case v.err != nil:
		found.Kind, found.Detail = FoundUnreadable, v.err.Error()
	case v.corrupt >= 0:
		found.Kind, found.Detail = FoundCorrupt, v.block
	case r.kind == put && v.id != r.id:
		found.Kind, found.Detail = FoundCorrupt, "its blocks are what their CRC32C say, and its content is not what its name says: it was damaged before it was written"
	}
	this := checkedChunk{file: f, at: at, class: c, kind: r.kind, blocks: r.blocks, whole: found.Kind == ""}
	if !this.whole {
		gone, err := k.damagedChunk(&this, found)
		if err != nil || gone {
			return err
		}
	}
	return k.once(&this, r.id)
}

// damagedChunk notes a chunk that is not what was stored; gone is true if nothing of it
// is left, or will be.
func (k *checker) damagedChunk(this *checkedChunk, found Finding) (gone bool, err error) {
	forget := func() error { return k.write(this.file, this.at, nil) }
	if this.kind == filled {
		found.Lost = "a copy of what an origin has: it can be fetched again"
		return true, k.found(found, forget)
	}
	found.Lost = "the chunk, unless somebody has it elsewhere"
	if k.options.DropCorrupt {
		return true, k.found(found, forget)
	}
	found.Remedy = "put the chunk again from elsewhere, which replaces it; or forget it with stoker cache check --repair --drop-corrupt"
	return false, k.found(found, nil)
}

// once sees to it that a chunk is at one place, the better one.
func (k *checker) once(this *checkedChunk, id backend.ChunkID) error {
	other, twice := k.chunks[id]
	if !twice {
		k.chunks[id] = *this
		k.counted(this, 1)
		return nil
	}
	better, worse := &other, this
	if this.isBetterThan(&other) {
		better, worse = this, &other
		k.counted(&other, -1)
		k.counted(this, 1)
	}
	k.chunks[id] = *better
	if worse.file.retired {
		return nil // a store sees to it when it empties that segment, to which nothing more is written
	}
	found := Finding{
		Kind: FoundDuplicate, File: k.pathOf(worse.file.name), Offset: k.geometry.extentAt(worse.class, worse.at), Chunk: id, Put: worse.kind == put,
		Detail: fmt.Sprintf("it is also in %s at %d", k.pathOf(better.file.name), k.geometry.extentAt(better.class, better.at)),
	}
	if worse.kind == put && better.kind != put {
		return k.found(found, nil) // two that are damaged, or a copy of which nobody knows the name
	}
	return k.found(found, func() error { return k.write(worse.file, worse.at, nil) })
}

// isBetterThan says which of two of the same chunk stays: the one that was put and is
// whole, rather in no segment that failed, else any that was put, else that of which more is
// there.
func (c *checkedChunk) isBetterThan(other *checkedChunk) bool {
	rank := func(c *checkedChunk) int {
		switch {
		case c.kind == put && c.whole && !c.file.retired:
			return 1 << 10
		case c.kind == put && c.whole:
			return 1 << 9
		case c.kind == put:
			return 1 << 8
		}
		return int(c.blocks) // all blocks of a chunk are more than any part of them
	}
	return rank(c) > rank(other)
}

// counted counts a chunk that is readable.
func (k *checker) counted(c *checkedChunk, n int64) {
	if !c.whole {
		return
	}
	k.report.Chunks += n
	if c.kind == put {
		k.report.PutChunks += n
	}
}

// mendRecord finds out whether the chunk of a damaged record is whole though: it is if its
// content is what its name says, or if it was put and is what its checksums say; then the
// content is its name.
func (k *checker) mendRecord(ctx context.Context, f *checkedFile, at place, c uint8, p []byte) (mended bool, err error) {
	r := recordAsIs(p)
	class := k.geometry.classes[c]
	if at.extent >= class.extents || int64(r.size) > class.bytes || r.size > backend.MaxChunkBytes || r.kind == filled {
		return false, nil
	}
	believed := r
	believed.kind, believed.blocks = put, allBlocks(r.size)
	v, err := k.verify(ctx, f, at, c, &believed)
	if err != nil || v.err != nil || v.id != r.id && (v.corrupt >= 0 || r.kind != put || r.size == 0) {
		return false, err
	}
	k.sequence++
	believed.id, believed.extents, believed.sequence, believed.crcs = v.id, class.extents, k.sequence, v.crcs
	found := Finding{Kind: FoundMendable, File: k.pathOf(f.name), Offset: k.geometry.recordAt(f.header.spans, at), Chunk: v.id, Put: true, Detail: "its record is damaged, and its content says what it is"}
	err = k.found(found, func() error { return k.write(f, at, &believed) })
	if err != nil {
		return false, err
	}
	return true, k.once(&checkedChunk{file: f, at: at, class: c, kind: put, blocks: believed.blocks, whole: true}, v.id)
}

// recordAsIs is what a record says, though its checksum says that this is not right.
func recordAsIs(p []byte) (r record) {
	copy(r.id[:], p[8:])
	r.size = binary.LittleEndian.Uint32(p[52:])
	r.kind = kind(p[56])
	for b := range r.crcs {
		r.crcs[b] = binary.LittleEndian.Uint32(p[64+4*b:])
	}
	return r
}
