package backend

import "context"

// PartialFiller is the optional ability to keep copies of parts of chunks: of whole
// blocks, of which a chunk's last one may be shorter. What is there of a chunk is read as
// if all of it were; a read that touches a missing block is NotFound. Stat and List say
// how many bytes are there. What holds for Fill holds for each block: readable once the
// call returned, perhaps lost in a crash, never wrong.
type PartialFiller interface {
	// FillRange keeps the blocks of c from off on, whose bytes are content, which is
	// borrowed until the call returns. Blocks that are there stay as they are. After an
	// error some of the blocks may be there. No content, of a chunk that has some, keeps
	// nothing. Parallel calls are allowed, also on one chunk.
	// Errors: as Fill; OutOfRange also where off, or off plus the length, is neither a
	// multiple of BlockBytes nor c's end.
	FillRange(ctx context.Context, c Chunk, off int64, content []byte) error

	// Missing appends to into the parts of r that are not there, which are within r, in
	// order, apart from each other, and end at r's ends or at those of blocks; nothing if
	// all is there, and r if c is unknown. What is there now may be dropped by the next call.
	// Errors: Unavailable, OutOfRange (r is not within c, or the store knows c by another
	// size).
	Missing(ctx context.Context, c Chunk, r Range, into []Range) ([]Range, error)
}
