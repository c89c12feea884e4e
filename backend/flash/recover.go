package flash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

// recover finds the segments of a directory and the chunks in them.
func (d *device) recover(ctx context.Context) error {
	names, err := d.files.List(segmentsFolder)
	if err != nil {
		return err
	}
	slices.Sort(names)
	d.kept = map[string]int64{}
	retired := map[string]struct{}{}
	names = slices.DeleteFunc(names, func(name string) bool {
		if strings.HasSuffix(name, unfinished) {
			return true // newSegment removes it
		}
		if segment, found := strings.CutSuffix(name, retiredMark); found {
			retired[segment] = struct{}{}
			return true
		}
		_, ok := segmentNumber(name)
		if !ok {
			d.store.event(Event{Kind: SegmentDamaged, Device: d.path, Segment: d.files.Path(segmentsFolder + "/" + name), Detail: "its name is no segment's: it is left alone"})
		}
		return !ok
	})
	var found []*segment
	var failed error
	inOrder(len(names), func(i int) opened { return d.readHeader(segmentsFolder + "/" + names[i]) }, func(i int, o opened) {
		name := segmentsFolder + "/" + names[i]
		s, err := d.openSegment(name, &o)
		if lacksMeans(err) {
			failed = err
			return
		}
		if err != nil {
			d.leave(name, o.size)
			d.store.event(Event{Kind: SegmentDamaged, Device: d.path, Segment: d.files.Path(name), Detail: "it is left alone", Err: err})
			return
		}
		_, was := retired[names[i]]
		s.retired.Store(was)
		s.draining = was
		found = append(found, s)
	})
	if failed != nil {
		for _, s := range found {
			failed = errors.Join(failed, s.file.Close())
		}
		return failed
	}
	all, err := d.arrange(found)
	if err != nil {
		return err
	}
	d.segments.Store(&all)
	return d.readLedgers(ctx, all)
}

// lacksMeans reports whether an error says nothing of a file: it is this process, or the
// machine, that has too few descriptors or too little memory.
func lacksMeans(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}

// opened is a segment's file before anything is known of it.
type opened struct {
	file   File
	size   int64
	header []byte
	err    error
}

func (d *device) readHeader(name string) (o opened) {
	if o.file, o.err = d.files.Open(name, false); o.err != nil {
		return o
	}
	if o.size, o.err = o.file.Size(); o.err != nil {
		return o
	}
	o.header = make([]byte, headerBytes)
	n, err := o.file.ReadAt(o.header, 0)
	if err != nil && (n < len(o.header) || !errors.Is(err, io.EOF)) {
		o.err = fmt.Errorf("read its header: %w", err)
	}
	return o
}

// openSegment makes a segment of an open file. Its number is what its header says; where that is
// damaged, what its name says: the records know whether that is right.
func (d *device) openSegment(name string, o *opened) (_ *segment, err error) {
	defer func() {
		if err != nil && o.file != nil {
			err = errors.Join(err, o.file.Close())
		}
	}()
	if o.err != nil {
		return nil, o.err
	}
	size := o.size
	h, err := decodeHeader(o.header)
	switch {
	case errors.Is(err, errHeader):
		h = header{device: d.id, spanBytes: d.geometry.spanBytes, spans: uint32(d.spansOf(size))}
		h.number, _ = segmentNumber(name[len(segmentsFolder)+1:])
		d.store.event(Event{Kind: SegmentDamaged, Device: d.path, Segment: d.files.Path(name), Detail: "its header is damaged: it is taken for what its name and size say"})
		if h.spans == 0 {
			return nil, err
		}
	case err != nil:
		return nil, err
	case h.device != d.id:
		return nil, fmt.Errorf("it is of another device, %x", h.device)
	case h.spanBytes != d.geometry.spanBytes, h.spans == 0, h.spans > maxSegmentSpans, h.number >= maxSegments:
		return nil, fmt.Errorf("segment %d of %d spans of %d bytes: no segment of this device", h.number, h.spans, h.spanBytes)
	}
	if whole := d.geometry.fileBytes(h.spans); size < whole {
		d.store.event(Event{Kind: SegmentDamaged, Device: d.path, Segment: d.files.Path(name), Detail: fmt.Sprintf("it was cut short: %d bytes of %d; chunks whose records began at %d are lost", size, whole, d.geometry.ledgerAt(h.spans, 0))})
	}
	return &segment{device: d, number: h.number, name: name, file: o.file, spans: make([]*span, h.spans)}, nil
}

// spansOf is how many spans a segment of that size has: one whose header is damaged.
func (d *device) spansOf(size int64) int {
	for n := uint32(d.geometry.segmentSpans); n > 0; n-- {
		if size >= d.geometry.ledgerAt(n, 0) {
			return int(n)
		}
	}
	return 0
}

// arrange puts segments in the order of their numbers. Of two with one number, that is
// used whose name is the number's, or the first; the other is a copy, and left alone.
func (d *device) arrange(found []*segment) ([]*segment, error) {
	var all []*segment
	for _, s := range found {
		for int(s.number) >= len(all) {
			all = append(all, nil)
		}
		other := all[s.number]
		if other == nil {
			all[s.number] = s
			d.mu.bytes += d.geometry.ledgerAt(s.count(), 0)
			continue
		}
		if s.name == segmentName(s.number) {
			d.mu.bytes += d.geometry.ledgerAt(s.count(), 0) - d.geometry.ledgerAt(other.count(), 0)
			all[s.number], s, other = s, other, s
		}
		d.leave(s.name, d.geometry.ledgerAt(s.count(), 0))
		d.store.event(Event{Kind: SegmentDamaged, Device: d.path, Segment: s.path(), Detail: "it is a copy of " + other.path() + ": it is left alone"})
		if err := s.file.Close(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// leave notes that a file is left alone, with the room that it takes.
func (d *device) leave(name string, bytes int64) {
	d.kept[name] = bytes
	d.mu.bytes += bytes
}

// readSpan finds the chunks of a span. Its class is what its records say: that of the
// newest, should they differ.
func (d *device) readSpan(s *segment, number uint32, l *ledger) {
	if l.damaged > 0 {
		d.store.event(Event{Kind: RecordDamaged, Device: d.path, Segment: s.path(), Detail: fmt.Sprintf("%d records of span %d: their chunks are lost", l.damaged, number)})
	}
	switch {
	case !l.known && l.damaged == 0:
		d.mu.freeSpans = append(d.mu.freeSpans, &spanPlace{segment: s, number: number})
		return
	case !l.known: // nothing is written where it cannot be said what there is; see Check
		s.unknown = true
		return
	}
	c := l.class
	x := newSpan(s, number, c)
	d.adopt(x)
	var r record
	for i := range uint32(len(x.slots)) {
		p := l.p[int(i)*recordBytes:][:recordBytes]
		if isNothing(p) {
			continue
		}
		x.mark(i)
		if !x.draining {
			d.mu.classes[c].free--
		}
		err := r.decode(p, d.id, place{s.number, number, i})
		if err == nil && r.extents == uint32(len(x.slots)) && int64(r.size) <= d.geometry.classes[c].bytes {
			d.find(x, i, &r)
			continue
		}
		x.slots[i].become(doomed)
		d.syncer.remove(x, i)
	}
}

// classOfLedger is the class of a span by its records: that of the newest, should they
// differ. It counts those that are damaged.
func (d *device) classOfLedger(s *segment, number uint32, ledger []byte) (c uint8, known bool, damaged int) {
	var r record
	newest := uint64(0)
	for i := range uint32(len(ledger) / recordBytes) {
		p := ledger[int(i)*recordBytes:][:recordBytes]
		if isNothing(p) {
			continue
		}
		if r.decode(p, d.id, place{s.number, number, i}) != nil {
			damaged++
			continue
		}
		if found, ok := d.geometry.classWith(r.extents); ok && r.sequence >= newest {
			newest, c, known = r.sequence, found, true
		}
	}
	return c, known, damaged
}

// find adds a chunk that a record tells of.
func (d *device) find(x *span, extent uint32, r *record) {
	s := d.store
	for last := s.sequence.Load(); r.sequence > last && !s.sequence.CompareAndSwap(last, r.sequence); last = s.sequence.Load() {
	}
	slot := &x.slots[extent]
	slot.id, slot.size, slot.blocks, slot.kind = r.id, r.size, r.blocks, r.kind
	copy(x.crcsOf(extent), r.crcs[:])
	h, hash := s.index.shardOf(&r.id)
	preferred, sure := s.prefers(h, hash, x, extent, r)
	h.mu.Lock()
	defer h.mu.Unlock()
	if at := s.index.find(h, hash, &r.id); at >= 0 {
		if !preferred {
			slot.become(doomed)
			if sure {
				d.syncer.remove(x, extent)
			} else { // its record stays, until a start can read both
				slot.flags |= bad
				x.lost++
			}
			return
		}
		other := ref(h.cells[at] & refMask)
		twins, _ := s.slotOf(other)
		h.remove(at)
		twins.segment.device.doom(twins, other.place().extent)
	}
	slot.become(live)
	x.account(slot, 1)
	s.index.insert(h, hash, newRef(d.number, x.place(extent)))
	if r.kind == put {
		x.puts.Add(1)
	}
}

// prefers reports whether an extent that nobody else knows of has a chunk rather than the one
// that is found with it: a crash came between writing one and removing the other, or a device
// came back. It is false if none is found. What is whole is preferred, then what was put,
// then what is in no segment that failed, which may not be on flash, then what was written
// later. It is not sure if one of them cannot be read.
func (s *Store) prefers(h *shard, hash uint64, x *span, extent uint32, r *record) (preferred, sure bool) {
	h.mu.Lock()
	at := s.index.lookup(h, hash, &r.id)
	if at == 0 {
		h.mu.Unlock()
		return false, true
	}
	twins, twin := s.slotOf(at)
	twin.holds++
	held := hold{store: s, span: twins, extent: at.place().extent}
	other := twins.recordHeld(held.extent)
	h.mu.Unlock()
	defer held.release()
	if r.kind == filled && other.kind == filled {
		return r.sequence > twins.sequence(held.extent), true
	}
	whole, err := x.isWhole(extent, r)
	otherWhole, otherErr := twins.isWhole(held.extent, &other)
	retired, otherRetired := x.segment.retired.Load(), twins.segment.retired.Load()
	switch {
	case err != nil || otherErr != nil:
		return false, false
	case whole != otherWhole:
		return whole, true
	case r.kind != other.kind:
		return r.kind == put, true
	case retired != otherRetired:
		return otherRetired, true
	}
	return r.sequence > twins.sequence(held.extent), true
}

// recordHeld is what is known of a slot's chunk, but for its sequence number. The lock of
// its shard is held.
func (x *span) recordHeld(extent uint32) record {
	slot := &x.slots[extent]
	r := record{id: slot.id, extents: uint32(len(x.slots)), size: slot.size, kind: slot.kind, blocks: slot.blocks}
	copy(r.crcs[:], x.crcsOf(extent))
	return r
}

// sequence is the number in the record of an extent, 0 if that cannot be read.
func (x *span) sequence(extent uint32) uint64 {
	var p [recordBytes]byte
	var r record
	s, d := x.segment, x.segment.device
	if readRecords(s.file, p[:], d.geometry.recordAt(s.count(), x.place(extent))) != nil || r.decode(p[:], d.id, x.place(extent)) != nil {
		return 0
	}
	return r.sequence
}

// isWhole reads an extent that is held, or that nobody else knows of, and reports whether it
// holds all that its record says; err says why it cannot be read.
func (x *span) isWhole(extent uint32, r *record) (whole bool, err error) {
	if r.blocks != allBlocks(r.size) {
		return false, nil
	}
	d := x.segment.device
	lent := d.store.buffers.take(backend.BlockBytes)
	defer d.store.buffers.give(lent)
	at := d.geometry.extentAt(x.class, x.place(extent))
	for b := range blocksOf(r.size) {
		block := lent.p[:blockBytes(r.size, b)]
		n, err := d.readFile(x.segment, block, at+int64(b)*backend.BlockBytes)
		switch {
		case n < len(block) && err != nil && !errors.Is(err, io.EOF):
			return false, err
		case n < len(block), checksum(block) != r.crcs[b]:
			return false, nil
		}
	}
	return true, nil
}

// chunkOf is the chunk of a slot as the store lists it.
func chunkOf(s *slot) backend.Chunk { return backend.Chunk{ID: s.id, Size: int64(s.size)} }
