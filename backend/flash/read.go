package flash

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/stokerio/stoker/backend"
)

// hold keeps a chunk's extent from being used for anything else. Until release, the span
// is there and the slot's id and size stay.
type hold struct {
	store  *Store
	span   *span
	extent uint32
}

// release gives the hold back; the last one of a chunk that was dropped frees its extent.
func (h *hold) release() {
	slot := &h.span.slots[h.extent]
	shard, _ := h.store.index.shardOf(&slot.id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if slot.holds--; slot.holds == 0 && slot.is(doomed) {
		h.span.segment.device.syncer.remove(h.span, h.extent)
	}
}

// acquire holds a chunk for reading [off, off+n). missing are blocks of these that must be
// checked before what they hold is believed.
func (s *Store) acquire(op string, c *backend.Chunk, off, n int64) (held hold, unchecked uint8, err error) {
	id := c.Identity()
	return s.acquireID(op, c, &id, off, n)
}

// acquireID is acquire for who knows the chunk's identity.
func (s *Store) acquireID(op string, c *backend.Chunk, id *backend.ChunkID, off, n int64) (held hold, unchecked uint8, err error) {
	h, hash := s.index.shardOf(id)
	h.mu.Lock()
	defer h.mu.Unlock()
	r := s.index.lookup(h, hash, id)
	if r == 0 {
		return hold{}, 0, &backend.Error{Kind: backend.NotFound, Op: op, Object: nameOf(c)}
	}
	x, slot := s.slotOf(r)
	if off < 0 || off > c.Size || n > c.Size-off {
		return hold{}, 0, rangeError(op, c, off, n, "the range is not within the chunk")
	}
	mask := blockMask(off, n)
	switch err := x.segment.device.readable(); {
	case err != nil && slot.kind == put:
		return hold{}, 0, &backend.Error{Kind: backend.Unavailable, Op: op, Object: nameOf(c), Err: err, Remedy: "bring the device back and start again"}
	case err != nil:
		return hold{}, 0, &backend.Error{Kind: backend.NotFound, Op: op, Object: nameOf(c), Err: err}
	case int64(slot.size) != c.Size:
		return hold{}, 0, rangeError(op, c, off, n, fmt.Sprintf("the chunk that is there has %d bytes", slot.size))
	case slot.blocks&mask != mask:
		return hold{}, 0, &backend.Error{Kind: backend.NotFound, Op: op, Object: nameOf(c), Detail: fmt.Sprintf("of blocks %08b only %08b are there", mask, slot.blocks&mask)}
	}
	slot.holds++
	slot.flags |= visited
	return hold{s, x, r.place().extent}, mask &^ slot.checked, nil
}

// ReadAt implements backend.Store.
func (s *Store) ReadAt(ctx context.Context, c backend.Chunk, p []byte, off int64) error {
	const op = "read"
	if err := s.enter(op, &c); err != nil {
		return err
	}
	defer s.leave()
	if ctx.Err() != nil {
		return cancelled(op, &c, ctx)
	}
	held, unchecked, err := s.acquire(op, &c, off, int64(len(p)))
	if err != nil {
		return err
	}
	defer held.release()
	return held.read(op, &c, p, off, unchecked)
}

// read reads a part of a chunk that is held. Blocks that are to be checked are read whole.
func (h *hold) read(op string, c *backend.Chunk, p []byte, off int64, unchecked uint8) error {
	for len(p) > 0 {
		b := int(off / backend.BlockBytes)
		n := len(p)
		if unchecked != 0 { // block by block
			n = min(n, (b+1)*backend.BlockBytes-int(off))
		}
		var err error
		if unchecked&(1<<b) != 0 {
			err = h.readChecked(op, c, p[:n], off, b)
		} else {
			err = h.readBytes(op, c, p[:n], off)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// readBytes reads bytes of the chunk from the device.
func (h *hold) readBytes(op string, c *backend.Chunk, p []byte, off int64) error {
	x := h.span
	at := x.segment.device.geometry.extentAt(x.class, x.place(h.extent)) + off
	n, err := x.segment.device.readFile(x.segment, p, at)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return h.unreadable(op, c, err)
}

// readChecked reads block b whole, checks it, and gives the part that is asked for.
func (h *hold) readChecked(op string, c *backend.Chunk, p []byte, off int64, b int) error {
	start := int64(b) * backend.BlockBytes
	size := blockBytes(h.span.slots[h.extent].size, b)
	block := p
	if len(p) != size {
		lent := h.store.buffers.take(size)
		defer h.store.buffers.give(lent)
		block = lent.p[:size]
	}
	if err := h.readBytes(op, c, block, start); err != nil {
		return err
	}
	if err := h.check(op, c, block, b); err != nil {
		return err
	}
	if len(p) != size {
		copy(p, block[off-start:])
	}
	return nil
}

// check compares a block that was read with its checksum.
func (h *hold) check(op string, c *backend.Chunk, block []byte, b int) error {
	found := checksum(block)
	slot := &h.span.slots[h.extent]
	shard, _ := h.store.index.shardOf(&slot.id)
	shard.mu.Lock()
	expected := h.span.crcsOf(h.extent)[b]
	if found == expected && slot.flags&fresh == 0 {
		slot.checked |= 1 << b
	}
	shard.mu.Unlock()
	h.span.segment.device.counters.checkedBytes.Add(int64(len(block)))
	if found == expected {
		return nil
	}
	return h.corrupt(op, c, b, fmt.Sprintf("CRC32C %08x, expected %08x", found, expected))
}

// Stat implements backend.Store.
func (s *Store) Stat(ctx context.Context, c backend.Chunk) (backend.Info, error) {
	const op = "stat"
	if err := s.enter(op, &c); err != nil {
		return backend.Info{}, err
	}
	defer s.leave()
	if ctx.Err() != nil {
		return backend.Info{}, cancelled(op, &c, ctx)
	}
	held, _, err := s.acquire(op, &c, 0, 0)
	if err != nil {
		return backend.Info{}, err
	}
	defer held.release()
	slot := &held.span.slots[held.extent]
	shard, _ := s.index.shardOf(&slot.id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	return backend.Info{Chunk: c, Bytes: slot.bytes()}, nil
}

// bytes are those that are there.
func (s *slot) bytes() (n int64) {
	for b := range blocksOf(s.size) {
		if s.blocks&(1<<b) != 0 {
			n += int64(blockBytes(s.size, b))
		}
	}
	return n
}

// List implements backend.Store. Chunks are named by their identity; what is stored or
// dropped meanwhile may be visited or not.
func (s *Store) List(ctx context.Context, visit func(backend.Info) error) error {
	return s.each(ctx, "list", func(e Entry) error {
		return visit(backend.Info{Chunk: backend.Chunk{ID: e.ID, Size: e.Size}, Bytes: e.Bytes})
	})
}

// Locate implements backend.Locator: the bytes were checked since the store was opened.
func (s *Store) Locate(ctx context.Context, c backend.Chunk, r backend.Range) (backend.Location, error) {
	const op = "locate"
	if err := s.enter(op, &c); err != nil {
		return backend.Location{}, err
	}
	defer s.leave()
	if ctx.Err() != nil {
		return backend.Location{}, cancelled(op, &c, ctx)
	}
	held, unchecked, err := s.acquire(op, &c, r.Offset, r.Length)
	if err != nil {
		return backend.Location{}, err
	}
	if err := held.checkAll(op, &c, unchecked); err != nil {
		held.release()
		return backend.Location{}, err
	}
	x := held.span
	at := x.segment.device.geometry.extentAt(x.class, x.place(held.extent))
	return backend.Location{Path: x.segment.path(), Offset: at + r.Offset, Release: held.release}, nil
}

// checkAll reads and checks blocks.
func (h *hold) checkAll(op string, c *backend.Chunk, blocks uint8) error {
	if blocks == 0 {
		return nil
	}
	lent := h.store.buffers.take(backend.BlockBytes)
	defer h.store.buffers.give(lent)
	for b := range maxBlocks {
		if blocks&(1<<b) == 0 {
			continue
		}
		block := lent.p[:blockBytes(h.span.slots[h.extent].size, b)]
		if err := h.readBytes(op, c, block, int64(b)*backend.BlockBytes); err != nil {
			return err
		}
		if err := h.check(op, c, block, b); err != nil {
			return err
		}
	}
	return nil
}
