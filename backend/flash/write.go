package flash

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/stokerio/stoker/backend"
)

// writing is a chunk that somebody writes. Who wants to write the same waits.
type writing struct{ done chan struct{} }

// begin waits until nobody writes the chunk and takes that right.
func (s *Store) begin(ctx context.Context, h *shard, id *backend.ChunkID) error {
	for {
		h.mu.Lock()
		other := h.writing[*id]
		if other == nil {
			h.writing[*id] = &writing{make(chan struct{})}
			h.mu.Unlock()
			return nil
		}
		h.mu.Unlock()
		select {
		case <-other.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tryBegin is begin for who does not wait; false if somebody writes the chunk.
func (h *shard) tryBegin(id *backend.ChunkID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.writing[*id] != nil {
		return false
	}
	h.writing[*id] = &writing{make(chan struct{})}
	return true
}

// end gives the right to write a chunk back.
func (h *shard) end(id *backend.ChunkID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.writing[*id].done)
	delete(h.writing, *id)
}

// Put implements backend.Store.
func (s *Store) Put(ctx context.Context, content []byte) (backend.ChunkID, error) {
	const op = "put"
	if len(content) > backend.MaxChunkBytes {
		return backend.ChunkID{}, &backend.Error{Kind: backend.OutOfRange, Op: op, Object: "a chunk", Detail: fmt.Sprintf("%d bytes, a chunk has %d at most", len(content), backend.MaxChunkBytes)}
	}
	id := backend.ContentID(content)
	c := backend.Chunk{ID: id, Size: int64(len(content))}
	if err := s.enter(op, &c); err != nil {
		return backend.ChunkID{}, err
	}
	defer s.leave()
	if err := s.putChunk(ctx, op, &c, content); err != nil {
		return backend.ChunkID{}, err
	}
	return id, nil
}

func (s *Store) putChunk(ctx context.Context, op string, c *backend.Chunk, content []byte) error {
	if ctx.Err() != nil {
		return cancelled(op, c, ctx)
	}
	h, hash := s.index.shardOf(&c.ID)
	if err := s.begin(ctx, h, &c.ID); err != nil {
		return cancelled(op, c, ctx)
	}
	defer h.end(&c.ID)
	if done, err := s.promote(ctx, h, hash, c, content); done {
		return err
	}
	e := s.errandOf(h, hash, &c.ID)
	return s.write(ctx, op, c, content, func(ctx context.Context, d *device) error {
		return d.put(ctx, c, content, e)
	})
}

// errandOf is leaving for a chunk that is found in a segment that failed.
func (s *Store) errandOf(h *shard, hash uint64, id *backend.ChunkID) errand {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := s.index.lookup(h, hash, id); r != 0 {
		if x, _ := s.slotOf(r); x.segment.retired.Load() {
			return leaving
		}
	}
	return storing
}

// write tries the devices in turn, the one with the most room first.
func (s *Store) write(ctx context.Context, op string, c *backend.Chunk, content []byte, try func(context.Context, *device) error) error {
	var failed []error
	kind := backend.NoSpace
	for _, d := range s.byRoom() {
		for attempt := 0; ; attempt++ { // a segment that was retired under it is not tried again
			err := try(ctx, d)
			switch {
			case err == nil:
				return nil
			case ctx.Err() != nil:
				return cancelled(op, c, ctx)
			case errors.Is(err, errRetiredNow) && attempt < 2:
				continue
			case !errors.Is(err, errFull):
				kind = backend.Unavailable
			}
			failed = append(failed, fmt.Errorf("%s: %w", d.path, err))
			break
		}
	}
	e := &backend.Error{Kind: kind, Op: op, Object: nameOf(c), Err: errors.Join(failed...)}
	if kind == backend.NoSpace {
		e.Remedy = "give flash more room (stoker cache stat shows what takes it), or delete what was put and is not needed"
	} else {
		e.Remedy = "look at the kernel's log for errors of the device"
	}
	return e
}

// byRoom are the devices that can be written, in the order in which they are tried: those
// with the larger share of free room first.
func (s *Store) byRoom() []*device {
	var all []*device
	room := map[*device]float64{}
	for d := range s.all() {
		room[d] = d.freeShare()
		all = append(all, d)
	}
	slices.SortStableFunc(all, func(a, b *device) int {
		switch {
		case room[a] > room[b]:
			return -1
		case room[a] < room[b]:
			return 1
		}
		return 0
	})
	return all
}

// put writes a chunk and returns when it is durable.
func (d *device) put(ctx context.Context, c *backend.Chunk, content []byte, e errand) error {
	x, number, err := d.reserve(ctx, c, put, e)
	if err != nil {
		return err
	}
	slot := &x.slots[number]
	slot.blocks = allBlocks(slot.size)
	checksums(x.crcsOf(number), content, 0)
	if err := x.writeBytes(number, content, 0); err != nil {
		return d.unwritten(x, number, err)
	}
	settled := make(chan error, 1)
	var given atomic.Bool // up: what moves is where it was, and may be deleted there
	d.syncer.add(x, number, item{record: d.recordOf(x, number), settled: func(err error) {
		if err != nil || given.Load() {
			d.giveUp(x, number)
		} else {
			x.puts.Add(1)
			d.publish(x, number, nil, 0)
			d.stray(x)
		}
		settled <- err
	}}, int64(len(content)))
	select {
	case err := <-settled:
		if err != nil {
			return errors.Join(errRetiredNow, err)
		}
		return nil
	case <-ctx.Done(): // what is put may yet be stored
		given.Store(e != storing)
		return context.Cause(ctx)
	}
}

// errRetiredNow says that a segment failed under a write: another may do.
var errRetiredNow = errors.New("the segment failed")

// reserve takes an extent for a chunk.
func (d *device) reserve(ctx context.Context, c *backend.Chunk, k kind, e errand) (*span, uint32, error) {
	class, ok := d.geometry.classOf(c.Size)
	if !ok {
		return nil, 0, fmt.Errorf("%w: a chunk of %d bytes is larger than its spans of %d", errFull, c.Size, d.geometry.spanBytes)
	}
	x, number, err := d.allocate(ctx, class, e)
	if err != nil {
		return nil, 0, err
	}
	slot := &x.slots[number]
	slot.id, slot.size, slot.kind = c.Identity(), uint32(c.Size), k
	clear(x.crcsOf(number))
	return x, number, nil
}

// recordOf is the record of a slot that nobody changes meanwhile.
func (d *device) recordOf(x *span, number uint32) record {
	slot := &x.slots[number]
	r := record{
		id: slot.id, sequence: d.store.sequence.Add(1), extents: uint32(len(x.slots)), size: slot.size, kind: slot.kind, blocks: slot.blocks,
	}
	copy(r.crcs[:], x.crcsOf(number))
	return r
}

// checksums puts the checksums of content, which begins with block first, into crcs.
func checksums(crcs []uint32, content []byte, first int) {
	for b := first; len(content) > 0; b++ {
		n := min(len(content), backend.BlockBytes)
		crcs[b] = checksum(content[:n])
		content = content[n:]
	}
}

// publish makes a chunk that was written found, and queues its record unless that is nil:
// in one step, since a chunk that is found may be dropped, and its span with it. What was
// found under its name on a device that failed meanwhile is forgotten.
func (d *device) publish(x *span, number uint32, i *item, payload int64) {
	slot := &x.slots[number]
	index := &d.store.index
	h, hash := index.shardOf(&slot.id)
	h.mu.Lock()
	defer h.mu.Unlock()
	if at := index.find(h, hash, &slot.id); at >= 0 {
		other := ref(h.cells[at] & refMask)
		old, _ := d.store.slotOf(other)
		h.remove(at)
		old.segment.device.doom(old, other.place().extent)
	}
	if i == nil { // it is durable, as it was written; what is read from flash is read after a start
		slot.checked = slot.blocks
	} else {
		slot.flags |= fresh
	}
	slot.become(live)
	x.account(slot, 1)
	index.insert(h, hash, newRef(d.number, x.place(number)))
	if i != nil {
		d.syncer.add(x, number, *i, payload)
	}
}

// doom makes a chunk that was taken from the index one that nobody finds. Its shard's lock
// is held.
func (d *device) doom(x *span, number uint32) {
	slot := &x.slots[number]
	x.account(slot, -1)
	slot.become(doomed)
	if slot.kind == put {
		x.puts.Add(-1)
	}
	if slot.holds == 0 {
		d.syncer.remove(x, number)
	}
}

// giveUp frees an extent that no durable record can name, after its write failed.
func (d *device) giveUp(x *span, number uint32) {
	x.slots[number].become(doomed)
	d.syncer.remove(x, number)
}

// unwritten gives an extent back whose bytes could not be written, and returns why.
func (d *device) unwritten(x *span, number uint32, err error) error {
	s := x.segment
	err = d.writeFailed(s, err)
	d.untake(x, number)
	return err
}

// writeFailed takes an error of writing bytes. A file system may have no room for what was
// preallocated, if it never writes in place or the file is sparse: nothing failed then.
func (d *device) writeFailed(s *segment, err error) error {
	if isFull(err) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.filledUp(err)
		return fmt.Errorf("%w: %w", errFull, err)
	}
	d.failing(s, "write", err)
	return errors.Join(errRetiredNow, err)
}

// promote makes a chunk that is there durable; done is false if it is not there as a
// whole. The right to write it is held.
func (s *Store) promote(ctx context.Context, h *shard, hash uint64, c *backend.Chunk, content []byte) (done bool, err error) {
	h.mu.Lock()
	r := s.index.lookup(h, hash, &c.ID)
	if r == 0 {
		h.mu.Unlock()
		return false, nil
	}
	x, slot := s.slotOf(r)
	number, d := r.place().extent, x.segment.device
	switch {
	case slot.flags&(bad|broken) != 0, slot.kind == put && x.segment.retired.Load(): // it stays until the chunk is durable elsewhere
		h.mu.Unlock()
		return false, nil
	case slot.kind == put && d.readable() == nil && !x.segment.retired.Load():
		slot.flags |= visited
		return s.confirm(h, hold{store: s, span: x, extent: number}, c), nil
	}
	if !x.has(number, content) || x.segment.retired.Load() || d.readable() != nil { // who fills is not asked for proof
		h.mu.Unlock()
		return false, nil
	}
	unchecked := slot.blocks &^ slot.checked
	slot.holds++
	h.mu.Unlock()
	held := hold{store: s, span: x, extent: number}
	if held.checkAll("put", c, unchecked) != nil {
		held.release()
		return false, nil
	}
	rec := d.recordOf(x, number)
	rec.kind = put
	settled := make(chan bool, 1)
	d.syncer.add(x, number, item{record: rec, settled: func(err error) { settled <- held.promoted(h, err) }}, 0)
	select {
	case done := <-settled: // if its segment failed, it is put elsewhere
		return done, nil
	case <-ctx.Done(): // it may yet be durable
		return true, cancelled("put", c, ctx)
	}
}

// has reports whether a slot's chunk is there as a whole, with the checksums of content. Its
// shard's lock is held.
func (x *span) has(extent uint32, content []byte) bool {
	slot := &x.slots[extent]
	if int(slot.size) != len(content) || slot.blocks != allBlocks(slot.size) {
		return false
	}
	var crcs [maxBlocks]uint32
	checksums(crcs[:], content, 0)
	return slices.Equal(crcs[:blocksOf(slot.size)], x.crcsOf(extent)[:blocksOf(slot.size)])
}

// promoted ends the hold of a chunk whose record says that it was put, unless err says why
// it does not; done is false if the chunk was dropped meanwhile.
func (held *hold) promoted(h *shard, err error) (done bool) {
	defer held.release()
	if err != nil {
		return false
	}
	x := held.span
	defer x.segment.device.stray(x)
	h.mu.Lock()
	defer h.mu.Unlock()
	slot := &x.slots[held.extent]
	if !slot.is(live) {
		return false
	}
	if slot.kind != put { // else a Put that did not wait did it
		x.account(slot, -1)
		slot.kind = put
		x.account(slot, 1)
		x.puts.Add(1)
	}
	return true
}

// confirm reports whether a chunk that was put is what it was: one that a crash left before
// its Put returned may not be. The shard's lock is held, and given back.
func (s *Store) confirm(h *shard, held hold, c *backend.Chunk) bool {
	slot := &held.span.slots[held.extent]
	unchecked := slot.blocks &^ slot.checked
	if unchecked == 0 {
		h.mu.Unlock()
		return true
	}
	slot.holds++
	h.mu.Unlock()
	defer held.release()
	return held.checkAll("put", c, unchecked) == nil
}

// Fill implements backend.Store.
func (s *Store) Fill(ctx context.Context, c backend.Chunk, content []byte) error {
	if int64(len(content)) != c.Size {
		return &backend.Error{Kind: backend.OutOfRange, Op: "fill", Object: nameOf(&c), Detail: fmt.Sprintf("%d bytes for a chunk of %d", len(content), c.Size)}
	}
	return s.FillRange(ctx, c, 0, content)
}

// FillRange implements backend.PartialFiller.
func (s *Store) FillRange(ctx context.Context, c backend.Chunk, off int64, content []byte) error {
	const op = "fill"
	if err := checkFill(op, &c, off, content); err != nil {
		return err
	}
	if err := s.enter(op, &c); err != nil {
		return err
	}
	defer s.leave()
	if ctx.Err() != nil {
		return cancelled(op, &c, ctx)
	}
	if len(content) == 0 && c.Size > 0 {
		return nil // no blocks
	}
	id := c.Identity()
	h, hash := s.index.shardOf(&id)
	if err := s.begin(ctx, h, &id); err != nil {
		return cancelled(op, &c, ctx)
	}
	defer h.end(&id)
	if done, err := s.extend(ctx, h, hash, &id, &c, off, content); done {
		return err
	}
	return s.write(ctx, op, &c, content, func(ctx context.Context, d *device) error {
		return d.fill(ctx, &c, off, content)
	})
}

// checkFill refuses what is no whole blocks of a chunk.
func checkFill(op string, c *backend.Chunk, off int64, content []byte) error {
	end := off + int64(len(content))
	switch {
	case c.Size < 0 || c.Size > backend.MaxChunkBytes:
		return rangeError(op, c, off, int64(len(content)), fmt.Sprintf("a chunk has %d bytes at most", backend.MaxChunkBytes))
	case off < 0 || off > c.Size || end > c.Size || off%backend.BlockBytes != 0 || end%backend.BlockBytes != 0 && end != c.Size:
		return rangeError(op, c, off, int64(len(content)), "they are no whole blocks of it")
	}
	return nil
}

// blockMask has a bit for each block that [off, off+n) of a chunk touches.
func blockMask(off, n int64) uint8 {
	if n == 0 {
		return 0
	}
	first, last := off/backend.BlockBytes, (off+n-1)/backend.BlockBytes
	return uint8(1<<(last+1) - 1<<first)
}

// fill writes a chunk, or blocks of it, that is not there.
func (d *device) fill(ctx context.Context, c *backend.Chunk, off int64, content []byte) error {
	x, number, err := d.reserve(ctx, c, filled, storing)
	if err != nil {
		return err
	}
	checksums(x.crcsOf(number), content, int(off/backend.BlockBytes))
	x.slots[number].blocks = blockMask(off, int64(len(content)))
	if err := x.writeBytes(number, content, off); err != nil {
		return d.unwritten(x, number, err)
	}
	d.publish(x, number, &item{record: d.recordOf(x, number)}, int64(len(content)))
	d.stray(x)
	return nil
}

// stray makes the mover look after a chunk that came to a span that is to be emptied: its
// extent was taken before.
func (d *device) stray(x *span) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if x.draining {
		d.mover.kick()
	}
}

// extend writes blocks of a chunk that is there in part; done is false if it is not there
// at all. The right to write it is held.
func (s *Store) extend(ctx context.Context, h *shard, hash uint64, id *backend.ChunkID, c *backend.Chunk, off int64, content []byte) (done bool, err error) {
	h.mu.Lock()
	r := s.index.lookup(h, hash, id)
	if r == 0 {
		h.mu.Unlock()
		return false, nil
	}
	x, slot := s.slotOf(r)
	number, d := r.place().extent, x.segment.device
	mask := blockMask(off, int64(len(content)))
	switch {
	case int64(slot.size) != c.Size:
		h.mu.Unlock()
		return true, rangeError("fill", c, off, int64(len(content)), fmt.Sprintf("the chunk that is there has %d bytes", slot.size))
	case d.readable() != nil:
		h.mu.Unlock()
		return false, nil
	case slot.flags&(bad|broken) != 0:
		h.mu.Unlock()
		return true, s.mend(ctx, c, content)
	case slot.blocks&mask == mask:
		slot.flags |= visited
		h.mu.Unlock()
		return true, nil
	case x.segment.retired.Load():
		h.remove(s.index.find(h, hash, id))
		d.doom(x, number)
		h.mu.Unlock()
		return false, nil
	}
	slot.holds++
	h.mu.Unlock()
	held := hold{store: s, span: x, extent: number}
	defer held.release()
	return true, s.extendHeld(h, &held, off, content, mask)
}

// mend puts a chunk anew that was put and that is not what it was. The right to write it is
// held.
func (s *Store) mend(ctx context.Context, c *backend.Chunk, content []byte) error {
	const op = "fill"
	switch {
	case int64(len(content)) != c.Size:
		return &backend.Error{Kind: backend.Corrupt, Op: op, Object: nameOf(c), Detail: "it was put and is damaged: blocks of it do not mend it", Remedy: "put or fill the whole chunk"}
	case backend.ContentID(content) != c.ID:
		return &backend.Error{Kind: backend.Corrupt, Op: op, Object: nameOf(c), Detail: "it was put and is damaged, and these are other bytes than its name says", Remedy: "put it again"}
	}
	return s.write(ctx, op, c, content, func(ctx context.Context, d *device) error {
		return d.put(ctx, c, content, storing)
	})
}

// extendHeld writes those of the blocks that are missing. Blocks that are there are not
// written again: somebody may be reading them.
func (s *Store) extendHeld(h *shard, held *hold, off int64, content []byte, mask uint8) error {
	x, number, d := held.span, held.extent, held.span.segment.device
	slot := &x.slots[number]
	for b := range maxBlocks {
		at := int64(b)*backend.BlockBytes - off
		if bit := uint8(1) << b; mask&bit == 0 || slot.blocks&bit != 0 {
			continue
		}
		block := content[at:min(int64(len(content)), at+backend.BlockBytes)]
		if err := x.writeBytes(number, block, off+at); err != nil {
			e := &backend.Error{Kind: backend.Unavailable, Op: "fill", Object: slot.id.String(), Err: d.writeFailed(x.segment, err)}
			if errors.Is(e.Err, errFull) {
				e.Kind = backend.NoSpace
			}
			return e
		}
		h.mu.Lock()
		x.crcsOf(number)[b] = checksum(block)
		slot.blocks |= 1 << b
		slot.flags |= fresh
		rec := d.recordOf(x, number)
		if slot.is(live) {
			d.syncer.add(x, number, item{record: rec}, int64(len(block)))
		}
		h.mu.Unlock()
	}
	return nil
}

// Delete implements backend.Store. The chunk may be there again after a crash within the
// next SyncInterval.
func (s *Store) Delete(ctx context.Context, c backend.Chunk) error {
	const op = "delete"
	if err := s.enter(op, &c); err != nil {
		return err
	}
	defer s.leave()
	if ctx.Err() != nil {
		return cancelled(op, &c, ctx)
	}
	id := c.Identity()
	h, hash := s.index.shardOf(&id)
	if err := s.begin(ctx, h, &id); err != nil {
		return cancelled(op, &c, ctx)
	}
	defer h.end(&id)
	h.mu.Lock()
	defer h.mu.Unlock()
	if at := s.index.find(h, hash, &id); at >= 0 {
		r := ref(h.cells[at] & refMask)
		x, slot := s.slotOf(r)
		if err := x.segment.device.writable(); err != nil && slot.kind == put { // its record stays
			return &backend.Error{Kind: backend.Unavailable, Op: op, Object: nameOf(&c), Err: err, Remedy: "delete it again when the device takes writes: it would be there again after the next start"}
		}
		h.remove(at)
		x.segment.device.doom(x, r.place().extent)
	}
	return nil
}
