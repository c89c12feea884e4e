// Package backend is the contract between whoever needs bytes and whoever holds
// them: chunks, ranges of chunks, the Store that serves them, and the few kinds
// of errors that a Store may return.
//
// The package holds types and arithmetic only. Implementations live in folders
// of their own (backend/object, later backend/flash and others) and every one of
// them, bare or decorated, passes the suite in backend/backendtest.
//
// # Guarantees of every Store
//
//   - Chunks are immutable. A chunk that changed is an error of kind Changed or
//     Corrupt, never other bytes.
//   - A read is whole or it is an error; a short read does not exist. After an
//     error the content of the destination is undefined.
//   - Calls may run in parallel, also on one chunk.
//   - The caller owns every buffer it passes; a Store keeps none of them after
//     the call returns.
//   - Cancelling ctx ends a call soon with the context's cause; work that the
//     kernel has begun may still finish first.
package backend

import (
	"context"
	"encoding/binary"
	"encoding/hex"

	"github.com/zeebo/blake3"
)

const (
	// MaxChunkBytes is the largest chunk unless configured otherwise.
	MaxChunkBytes = 8 << 20
	// BlockBytes is the unit of partial fill and of CRC32C within a chunk.
	BlockBytes = 1 << 20
)

// ChunkID is a chunk's name: BLAKE3-256 of its content for what is written
// through Stoker, or of where it lives (see Chunk.Identity) for an origin's.
type ChunkID [32]byte

// String returns the id in hexadecimal.
func (id ChunkID) String() string { return hex.EncodeToString(id[:]) }

// Version says which state of an origin's object is meant. Two equal versions
// mean equal bytes. A local file's version is its device, inode, size and both
// times; an object store's is its size and Tag (ETag or version id).
type Version struct {
	Device     uint64
	Inode      uint64
	Size       int64  // bytes
	ModifiedNs int64  // mtime, nanoseconds since 1970
	ChangedNs  int64  // ctime, nanoseconds since 1970
	Tag        string // empty for local files
}

// Object names one object of an origin at one version.
//
// Name is borrowed: it stays valid and unchanged until the call that the Object
// was passed to returns. Implementations copy what they keep.
type Object struct {
	Origin  string // identity of the origin, equal for equal origins
	Number  int64  // dense number within one listing; a hint for handle caches, never an identity
	Name    []byte // slash-separated, relative to the origin's root; no "..", no leading slash
	Version Version
}

// Chunk names immutable bytes: by content (ID set, Object nil), or as the bytes
// [Start, Start+Size) of an origin's object (Object set).
type Chunk struct {
	ID     ChunkID
	Object *Object
	Start  int64 // offset within Object, a multiple of the chunk size
	Size   int64 // bytes
}

// Identity returns the chunk's id, computing it for an origin's chunk as
// BLAKE3-256 of (origin, object name, version, start, size).
func (c Chunk) Identity() ChunkID {
	if c.Object == nil {
		return c.ID
	}
	o := c.Object
	var usual [identityBytes]byte // longer ones are allocated
	buf := appendField(usual[:0], o.Origin)
	buf = appendField(buf, o.Name)
	buf = appendField(buf, o.Version.Tag)
	for _, v := range [...]uint64{
		o.Version.Device, o.Version.Inode, uint64(o.Version.Size),
		uint64(o.Version.ModifiedNs), uint64(o.Version.ChangedNs),
		uint64(c.Start), uint64(c.Size),
	} {
		buf = binary.LittleEndian.AppendUint64(buf, v)
	}
	return blake3.Sum256(buf)
}

// identityBytes is enough for what most chunks' identities are made of.
const identityBytes = 1024

// appendField appends a length-prefixed field, so that no two different field
// lists have the same encoding.
func appendField[T string | []byte](buf []byte, field T) []byte {
	buf = binary.LittleEndian.AppendUint64(buf, uint64(len(field)))
	return append(buf, field...)
}

// ContentID returns the id of a chunk written through Stoker.
func ContentID(content []byte) ChunkID { return blake3.Sum256(content) }

// Range is Length bytes from Offset of a chunk.
type Range struct {
	Offset int64
	Length int64
}

// Read is one piece of a gather: fill P from chunk offset Offset.
type Read struct {
	Chunk  Chunk
	Offset int64
	P      []byte

	// WaitNs is set by a Gatherer that had to wait for some of P: for how long. The
	// others leave it as it is, and so do all where nothing had to be waited for.
	WaitNs int64
}

// Info is what a Store knows of one chunk.
type Info struct {
	Chunk Chunk
	Bytes int64 // readable bytes: less than Chunk.Size while a fill is partial
}

// Store serves chunks. See the package comment for what holds for all methods.
type Store interface {
	// ReadAt fills p with the chunk's bytes [off, off+len(p)).
	// Errors: NotFound, Corrupt, Changed, Unavailable, Permission, OutOfRange.
	ReadAt(ctx context.Context, c Chunk, p []byte, off int64) error

	// Put stores content and returns its id; when it returns nil the content is
	// durable. Putting equal content again is no error and stores nothing new.
	// Errors: NoSpace, Unavailable, Permission (a read-only store), OutOfRange
	// (content larger than MaxChunkBytes).
	Put(ctx context.Context, content []byte) (ChunkID, error)

	// Fill keeps a cached copy of c, whose bytes are content. It is readable once
	// Fill returns, may be lost in a crash and is never wrong.
	// Errors: as Put.
	Fill(ctx context.Context, c Chunk, content []byte) error

	// Stat describes a chunk. Errors: NotFound, Changed, Unavailable, Permission.
	Stat(ctx context.Context, c Chunk) (Info, error)

	// Delete forgets a chunk. Deleting what is not there is no error.
	// Errors: Permission (a read-only store), Unavailable.
	Delete(ctx context.Context, c Chunk) error

	// List calls visit for every chunk, in no particular order, until visit
	// returns an error, which List then returns. What visit is given is borrowed.
	List(ctx context.Context, visit func(Info) error) error

	// Close waits for calls in flight and frees what the store holds. Calls made
	// after it answer Unavailable; closing again does nothing.
	Close() error
}

// GatherReport says by which route a gather's bytes came.
type GatherReport struct {
	CachedBytes int64 // were in the page cache
	DiskBytes   int64 // had to be waited for
	DiskReads   int64

	// The read that took longest of those that had to be waited for, its number
	// among the reads of the call, and how long. SlowestNs 0: none, or not measured.
	// Of several calls that add to one report, the slowest read's call counts.
	SlowestNs int64
	Slowest   int
}

// Gatherer is the optional ability to serve many reads in one call, which lets a
// store order, coalesce and parallelise them. Semantics are those of ReadAt for
// each read; the first error ends the call. It allocates nothing in steady state.
// report, which may be nil, is added to.
type Gatherer interface {
	Gather(ctx context.Context, reads []Read, report *GatherReport) error
}

// Location is where bytes of a chunk lie in a file. Release must be called
// exactly once; until then the bytes stay where they are.
type Location struct {
	Path    string
	Offset  int64
	Release func()
}

// Locator is the optional ability to name the file behind a range, for reads that
// bypass the Store. Reconstructed or compressed bytes answer NotFound.
type Locator interface {
	Locate(ctx context.Context, c Chunk, r Range) (Location, error)
}

// Reasons for which a Lister leaves a name out.
const (
	LinkOutside     = "link that leads outside the directory"
	LinkNowhere     = "link that leads nowhere"
	LinkToAncestor  = "link to a directory that it is in"
	LinkUnsupported = "link that this kernel cannot follow safely"
)

// Lister is the ability of an origin to list its objects once, streaming.
// Objects come in no particular order; what visit is given is borrowed.
// Object.Number is not yet assigned.
//
// leftOut, which may be nil, is told of every name that may be meant to lead to
// objects but is not followed, with the reason in a few words that are equal for
// equal reasons. The name is borrowed; it ends in a slash where it is known to lead
// to a directory, so that one name may stand for many objects. Calls of visit and
// leftOut come one at a time.
type Lister interface {
	Objects(ctx context.Context, visit func(Object) error, leftOut func(name []byte, reason string)) error
}

// Unwrapper is implemented by decorators.
type Unwrapper interface{ Unwrap() Store }

// As finds the first store in s's chain of wrappers that has ability T.
func As[T any](s Store) (T, bool) {
	for s != nil {
		if t, ok := s.(T); ok {
			return t, true
		}
		u, ok := s.(Unwrapper)
		if !ok {
			break
		}
		s = u.Unwrap()
	}
	var none T
	return none, false
}

// Gather serves reads through the store's own ability where it has one, else one
// by one. It does not look through wrappers: what a decorator adds to ReadAt must
// not be gone round.
func Gather(ctx context.Context, s Store, reads []Read, report *GatherReport) error {
	if g, ok := s.(Gatherer); ok {
		return g.Gather(ctx, reads, report)
	}
	for i := range reads {
		r := &reads[i]
		if err := s.ReadAt(ctx, r.Chunk, r.P, r.Offset); err != nil {
			return err
		}
		if report != nil {
			report.DiskBytes += int64(len(r.P))
			report.DiskReads++
		}
	}
	return nil
}
