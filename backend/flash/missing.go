package flash

import (
	"context"
	"fmt"

	"github.com/stokerio/stoker/backend"
)

// Missing implements backend.PartialFiller.
func (s *Store) Missing(ctx context.Context, c backend.Chunk, r backend.Range, into []backend.Range) ([]backend.Range, error) {
	const op = "look at"
	if err := s.enter(op, &c); err != nil {
		return into, err
	}
	defer s.leave()
	if ctx.Err() != nil {
		return into, cancelled(op, &c, ctx)
	}
	if r.Offset < 0 || r.Length < 0 || r.Offset > c.Size || r.Length > c.Size-r.Offset {
		return into, rangeError(op, &c, r.Offset, r.Length, "the range is not within the chunk")
	}
	there, err := s.blocksThere(op, &c)
	if err != nil {
		return into, err
	}
	return appendMissing(into, r, there), nil
}

// blocksThere has a bit for each block of a chunk that can be read.
func (s *Store) blocksThere(op string, c *backend.Chunk) (uint8, error) {
	id := c.Identity()
	h, hash := s.index.shardOf(&id)
	h.mu.Lock()
	defer h.mu.Unlock()
	r := s.index.lookup(h, hash, &id)
	if r == 0 {
		return 0, nil
	}
	x, slot := s.slotOf(r)
	switch err := x.segment.device.readable(); {
	case err != nil && slot.kind == put:
		return 0, &backend.Error{Kind: backend.Unavailable, Op: op, Object: nameOf(c), Err: err}
	case err != nil:
		return 0, nil
	case int64(slot.size) != c.Size:
		return 0, rangeError(op, c, 0, c.Size, fmt.Sprintf("the chunk that is there has %d bytes", slot.size))
	}
	if slot.flags&(bad|broken) != 0 {
		return 0, nil
	}
	return slot.blocks, nil
}

// appendMissing appends the parts of r in blocks that are not there.
func appendMissing(into []backend.Range, r backend.Range, there uint8) []backend.Range {
	before := len(into)
	for at, end := r.Offset, r.Offset+r.Length; at < end; {
		b := at / backend.BlockBytes
		to := min(end, (b+1)*backend.BlockBytes)
		switch last := len(into) - 1; {
		case b < maxBlocks && there&(1<<b) != 0:
		case last >= before && into[last].Offset+into[last].Length == at:
			into[last].Length += to - at
		default:
			into = append(into, backend.Range{Offset: at, Length: to - at})
		}
		at = to
	}
	return into
}
