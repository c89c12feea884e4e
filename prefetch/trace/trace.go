// Package trace is the format of what the sessions of a node read: types, a writer, and a
// reader that trusts nothing it reads. Traces are recorded by the daemon, and replayed
// by prefetch/sim.
package trace

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"
	"time"

	"github.com/stokerio/stoker/prefetch"
)

// A trace is what the sessions of one node read, access by access, in the order in
// which they did. Fixed integers are little-endian; uv is an unsigned varint of
// encoding/binary, sv a signed one (zigzag), text an uv of bytes and as many bytes.
//
//	+--------------------------------------------------------------------+
//	| magic "STOKTRCE"                     8                             |
//	| version                              u32                           |
//	+--------------------------------------------------------------------+
//	| blocks, each of                                                    |
//	|  0  CRC32C of the rest of the block  u32                           |
//	|  4  bytes of records                 u32  1 .. 4 MiB               |
//	|  8  records; none goes on in the next block                        |
//	+--------------------------------------------------------------------+
//
//	record    1 byte  what it is, then
//	start   1         microseconds since 1970 sv, node text; the first record and no other
//	dataset 2         name text, index id text, samples uv, chunks uv, bytes uv
//	session 3         job text, dataset uv, batch size uv, order text, rank uv, world size uv
//	read    4         microseconds since the read or mark before uv, session uv,
//	                  epoch less the session's last sv, position less the expected one sv,
//	                  accesses uv, and each of them
//	end     5         reads uv, accesses uv; the last record of a trace that was closed
//	mark    6         microseconds since the read or mark before uv, reads lost since the mark
//	                  before uv, samples of those uv: nothing came for a while, or too much
//
//	access    1 byte  flags, then what they say, in this order
//	  0x03  source
//	  0x04  it was waited for: microseconds uv
//	  0x08  a further piece of the sample of the access before
//	  0x10  the sample is the session's last and 1; without 0x08 and 0x10: sample uv
//	  0x20  the chunk is not the likely one: chunk less the likely one sv
//	  0x40  the offset in the chunk is not 0: offset uv
//	  0x80  there are other bytes than in the session's last access: bytes uv
//
// Datasets and sessions have the numbers 0, 1, 2 ... in the order of their records.
// The expected position is where the session's last read ended, 0 in another epoch.
// The likely chunk is sample*chunks/samples of the dataset, rounded down, for a first
// piece, and the chunk after the one before for a further piece. What a session's
// first read refers to is 0 where nothing was before.
//
// A trace that was not closed, because its recorder was killed, lacks the end and may
// stop within a block: all blocks before that are good (see Error).
const (
	formatVersion = 2
	oldestVersion = 1 // which has no marks
	headerBytes   = 12
	blockHeader   = 8

	// maxBlock holds the largest record: MaxAccesses of maxAccess bytes.
	maxBlock  = 4 << 20
	maxAccess = 1 + 5*binary.MaxVarintLen64
	// blockTarget is when a block is written: the checksum costs nothing beside
	// it, and a killed recorder loses little.
	blockTarget = 32 << 10
)

var magic = [8]byte{'S', 'T', 'O', 'K', 'T', 'R', 'C', 'E'}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// What one trace may hold. More is refused by writers and readers alike.
const (
	MaxText     = 4 << 10   // bytes of a name, id or order
	MaxDatasets = 1 << 12   // of a trace
	MaxSessions = 1 << 16   // of a trace
	MaxAccesses = 1 << 16   // of a sample, and of a read as it is read
	MaxBytes    = 1<<32 - 1 // of an access
	MaxNumber   = 1 << 56   // samples, chunks and bytes of a dataset, positions, offsets
)

// The kinds of records.
const (
	recordStart = 1 + iota
	recordDataset
	recordSession
	recordRead
	recordEnd
	recordMark
)

// The flags of an access.
const (
	accessSource  = 0x03
	accessWaited  = 0x04
	accessFurther = 0x08
	accessNext    = 0x10
	accessChunk   = 0x20
	accessOffset  = 0x40
	accessBytes   = 0x80
)

// Header says where and when a trace was recorded.
type Header struct {
	Start time.Time // microseconds count
	Node  string
}

// Dataset is a dataset that sessions of a trace read.
type Dataset struct {
	Name    string `json:"name"`
	IndexID string `json:"index_id,omitempty"`
	Samples int64  `json:"samples"` // 0: not known
	Chunks  int64  `json:"chunks"`  // 0: not known
	Bytes   int64  `json:"bytes"`
}

// Session is one session of a trace.
type Session struct {
	Job       string `json:"job"`
	Dataset   int    `json:"dataset"` // its number in the trace
	BatchSize int64  `json:"batch_size"`
	Order     string `json:"order"` // for people
	Rank      int64  `json:"rank"`
	WorldSize int64  `json:"world_size"`
}

// Read is what a session read at once, most often a batch.
type Read struct {
	At       time.Duration // since the start of the trace; microseconds count
	Session  int           // its number in the trace
	Epoch    int64
	Position int64 // of the first sample in the session's epoch; samples follow one another
	Accesses []Access
}

// Lost counts what was read and could not be recorded.
type Lost struct {
	Reads   int64 `json:"reads"`
	Samples int64 `json:"samples"`
}

// add is what was lost together; what is lost twice over stands still before it overflows.
func (l Lost) add(more Lost) Lost {
	return Lost{min(l.Reads+more.Reads, MaxNumber), min(l.Samples+more.Samples, MaxNumber)}
}

func (l Lost) check() error {
	if l.Reads < 0 || l.Reads > MaxNumber || l.Samples < 0 || l.Samples > MaxNumber {
		return fmt.Errorf("%d reads of %d samples are lost: each must be in 0 .. 2^56", l.Reads, l.Samples)
	}
	return nil
}

// Access is one piece of a chunk that was read for a sample.
type Access struct {
	Sample  int64
	Further bool  // a further piece of the sample of the access before
	Chunk   int64 // of the dataset
	Offset  int64 // in the chunk
	Bytes   int64
	Source  prefetch.Source
	Waited  time.Duration // for this piece; microseconds count
}

// Samples is how many samples were read.
func (r *Read) Samples() int64 {
	samples := int64(0)
	for i := range r.Accesses {
		if !r.Accesses[i].Further {
			samples++
		}
	}
	return samples
}

// Problem classifies what is wrong with a trace.
type Problem string

// The problems.
const (
	NotOne       Problem = "none"    // it is no trace
	OtherVersion Problem = "version" // another release's
	Torn         Problem = "torn"    // it stops early: its recorder was killed, or still writes
	Corrupt      Problem = "corrupt" // these are not the bytes that were written
)

// Error is the error for what cannot be read. All that was read before it is good.
type Error struct {
	Problem  Problem
	Offset   int64 // in the trace, of the block that is not good
	Accesses int64 // that were read before it
	Detail   string
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("trace is %s at byte %d: %s", e.problem(), e.Offset, e.Detail)
}

func (e *Error) problem() string {
	switch e.Problem {
	case NotOne:
		return "not one"
	case OtherVersion:
		return "of another version"
	}
	return string(e.Problem)
}

// state is what records are coded against. Writer and reader keep it alike.
type state struct {
	datasets []Dataset
	sessions []Session
	last     []lastRead // of each session
	micros   int64      // of the last read or mark, since the start
	lost     Lost
	reads    int64
	accesses int64
}

// lastRead is what the last read and access of a session were.
type lastRead struct{ epoch, next, sample, chunk, bytes int64 }

// likely is the chunk of an access if samples lie in chunks evenly.
func (s *state) likely(session int, a *Access) int64 {
	d := &s.datasets[s.sessions[session].Dataset]
	last := &s.last[session]
	if a.Further {
		return last.chunk + 1
	}
	if d.Samples == 0 {
		return last.chunk
	}
	high, low := bits.Mul64(uint64(a.Sample), uint64(d.Chunks))
	chunk, _ := bits.Div64(high, low, uint64(d.Samples)) // Sample < Samples, so it fits
	return int64(chunk)
}

// expected is the position at which a read of the session's epoch begins if none was
// left out.
func (s *state) expected(session int, epoch int64) int64 {
	if last := &s.last[session]; last.epoch == epoch {
		return last.next
	}
	return 0
}

func (s *state) addSession(session Session) {
	s.sessions = append(s.sessions, session)
	s.last = append(s.last, lastRead{})
}

func (d *Dataset) check() error {
	for _, text := range []string{d.Name, d.IndexID} {
		if len(text) > MaxText {
			return fmt.Errorf("a text of a dataset has %d bytes, at most %d", len(text), MaxText)
		}
	}
	for _, number := range []int64{d.Samples, d.Chunks, d.Bytes} {
		if number < 0 || number > MaxNumber {
			return fmt.Errorf("dataset %q has %d samples, %d chunks and %d bytes: each must be in 0 .. 2^56", d.Name, d.Samples, d.Chunks, d.Bytes)
		}
	}
	return nil
}

func (s *Session) check(datasets int) error {
	for _, text := range []string{s.Job, s.Order} {
		if len(text) > MaxText {
			return fmt.Errorf("a text of a session has %d bytes, at most %d", len(text), MaxText)
		}
	}
	if s.Dataset < 0 || s.Dataset >= datasets {
		return fmt.Errorf("a session of job %q reads dataset %d, and there are %d", s.Job, s.Dataset, datasets)
	}
	for _, number := range []int64{s.BatchSize, s.Rank, s.WorldSize} {
		if number < 0 || number > MaxNumber {
			return fmt.Errorf("a session of job %q has batch size %d, rank %d of %d: each must be in 0 .. 2^56", s.Job, s.BatchSize, s.Rank, s.WorldSize)
		}
	}
	return nil
}

// check says what of an access no trace may hold. Where the size of the dataset is not
// known, MaxNumber bounds it.
func (a *Access) check(d *Dataset) error {
	samples, chunks := d.Samples, d.Chunks
	if samples == 0 {
		samples = MaxNumber
	}
	if chunks == 0 {
		chunks = MaxNumber
	}
	switch {
	case a.Sample < 0 || a.Sample >= samples:
		return fmt.Errorf("sample %d is not in 0 .. %d", a.Sample, samples-1)
	case a.Chunk < 0 || a.Chunk >= chunks:
		return fmt.Errorf("chunk %d is not in 0 .. %d", a.Chunk, chunks-1)
	case a.Offset < 0 || a.Offset > MaxNumber:
		return fmt.Errorf("offset %d in chunk %d is not in 0 .. 2^56", a.Offset, a.Chunk)
	case a.Bytes < 0 || a.Bytes > MaxBytes:
		return fmt.Errorf("%d bytes of chunk %d: must be in 0 .. 2^32-1", a.Bytes, a.Chunk)
	case a.Source >= prefetch.Sources:
		return fmt.Errorf("source %d is not known", a.Source)
	}
	return nil
}
