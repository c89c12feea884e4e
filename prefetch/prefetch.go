// Package prefetch decides what a node fetches, keeps and drops, and when. It only
// decides: it does no I/O, starts no goroutine and reads no clock. Whoever drives it
// (the daemon; prefetch/sim on a virtual clock) tells it what happened and when, asks
// for the next fetch, and carries that out.
//
// A stream is the future of one session: an order, a place in it and a consumer that
// takes samples at some rate. For each stream the planner issues fetches for the samples
// ahead, as many as the tail of the fetches' latency asks for (see Depth), the earliest
// need first, fair between jobs (see Link), in whole chunks or exact ranges (see Cut),
// and says what may stay in a cache whose capacity it divides between datasets (see
// Keeper).
//
// Nothing in this package is safe for parallel use: the driver serializes calls.
package prefetch

import (
	"fmt"
	"time"
)

// Time is nanoseconds on the driver's clock. Only differences count. Time that goes
// back is taken for time that stands still.
type Time int64

// Add returns the time d later.
func (t Time) Add(d time.Duration) Time { return t + Time(d) }

// Sub returns the time since earlier, 0 if that is later.
func (t Time) Sub(earlier Time) time.Duration { return time.Duration(max(0, t-earlier)) }

// Never is later than any time.
const Never = Time(1<<63 - 1)

// DatasetID, JobID and StreamID are the planner's numbers for what it was told of. They
// are never used again.
type (
	DatasetID uint32
	JobID     uint32
	StreamID  uint32
)

// FetchID is the planner's number of one fetch.
type FetchID uint64

// Source is where bytes come from, the nearest first.
type Source uint8

// The sources. Resident stands for bytes that need no fetching: in the cache, or, for
// local files, in the page cache.
const (
	Resident Source = iota
	Flash
	Peer
	Origin
	Sources // how many there are
)

var sourceNames = [Sources]string{"resident", "flash", "peer", "origin"}

// String implements fmt.Stringer.
func (s Source) String() string {
	if s < Sources {
		return sourceNames[s]
	}
	return fmt.Sprintf("source %d", uint8(s))
}

// Chunk is a chunk of a dataset, by its number in the dataset's Layout.
type Chunk struct {
	Dataset DatasetID
	Number  int64
}

// Piece is a part of one chunk that a sample needs.
type Piece struct {
	Chunk  int64
	Offset int64 // in the chunk
	Bytes  int64
}

// Layout says where the samples of a dataset lie. Implementations are immutable while
// the planner knows the dataset.
type Layout interface {
	// Chunks is how many chunks there are: numbers [0, Chunks).
	Chunks() int64
	// Samples is how many samples there are: numbers [0, Samples).
	Samples() int64
	// Bytes is the size of all chunks together.
	Bytes() int64
	// ChunkBytes is the size of one chunk.
	ChunkBytes(chunk int64) int64
	// Pieces appends what the samples consist of: for samples[i], pieces
	// [ends[i-1], ends[i]) of those appended.
	Pieces(samples []int64, pieces []Piece, ends []int32) ([]Piece, []int32, error)
}

// Order is the future of a stream: which samples it reads in an epoch, in turn. Only
// the samples of the stream's own rank count.
type Order interface {
	// Len is how many samples the stream reads in an epoch.
	Len(epoch int64) int64
	// At appends the samples at places [from, from+n) of an epoch.
	At(epoch, from, n int64, samples []int64) []int64
	// PositionOf is the place of a sample in an epoch; ok is false if the stream does
	// not read it then, or cannot say.
	PositionOf(epoch, sample int64) (place int64, ok bool)
}

// Fetch is a decision: bring these bytes, by then.
type Fetch struct {
	ID      FetchID
	Stream  StreamID
	Job     JobID
	Chunk   Chunk
	Offset  int64 // in the chunk
	Bytes   int64
	Needed  int64 // bytes of it that samples of the window want; the rest is gaps
	Whole   bool  // the whole chunk
	Keep    bool  // it may enter the cache; only whole chunks may
	Far     bool  // for later: it took only what near fetches left of the link
	Hedge   bool  // a second attempt at fetch Of, which is late
	Of      FetchID
	Source  Source // where the planner believes it to be nearest
	NeedBy  Time   // when the first sample that wants it will be asked for
	Epoch   int64  // of the stream
	Samples int32  // how many samples of the window want it
}

// Result is how a fetch ended.
type Result struct {
	Source Source        // where the bytes came from
	Took   time.Duration // from when it was begun; the wait for its turn counts
	Bytes  int64         // moved; 0 with an error
	Kept   bool          // it is in the cache now
	Err    error
}
