package tar

import (
	"errors"
	"fmt"
	"io"
	"math"
)

// Source is the bytes of one archive. A Walker reads it at offsets that only grow.
type Source interface {
	// ReadAt fills p with the bytes from off, or fails. It is asked for bytes within
	// Size only.
	ReadAt(p []byte, off int64) error
	// Size is the bytes of the archive.
	Size() int64
}

// SparseRun is a run of a sparse member's bytes that the archive holds; what lies
// between runs is zeros.
type SparseRun struct {
	Offset int64 // in the expanded file
	Length int64 // bytes
	Data   int64 // where they are in the archive
}

// Member is one entry of an archive. Its slices are borrowed from the Walker until
// the next call of it.
type Member struct {
	Name    []byte      // as written; a key and never a path
	Header  int64       // offset of the first header of the member: of a long name or PAX header if it has one
	Data    int64       // offset of its bytes; for a sparse member of the first run's
	Size    int64       // bytes, of a sparse member when expanded
	Stored  int64       // bytes in the archive, without padding
	Type    byte        // as in the header, '0' for a file
	Regular bool        // a file with bytes of its own: no directory, link, device
	Sparse  []SparseRun // nil unless sparse, then at least one run, ascending
}

// End is the offset behind the member's padding, where the next header is.
func (m *Member) End() int64 { return m.Data + padded(m.Stored) }

// EndKind is how an archive ends.
type EndKind string

// The kinds of an end.
const (
	EndBlocks EndKind = "two zero blocks" // as it should
	EndBlock  EndKind = "one zero block"
	EndNone   EndKind = "no zero block" // cut off behind a member, or written by a careless program
)

// End says how an archive ended.
type End struct {
	Kind   EndKind
	Offset int64 // of the first zero block, or of the archive's end
	// After is where the first byte that is not zero lies behind the end, -1 for none:
	// usually another archive appended to this one. Only the first MiB is looked at.
	After int64
}

// What a Walker reads and believes at most.
const (
	smallMember  = 16 << 10  // up to this mean distance of headers, everything is read
	windowBytes  = 128 << 10 // in pieces of this size
	pageBytes    = 4 << 10   // above it, at most so much for each header: see window.span
	endBytes     = 1 << 20   // looked at behind the end
	maxExtension = 1 << 20   // bytes of one long name, PAX header or map of a sparse file
	maxChain     = 16        // headers before one member
	maxNameBytes = 4096      // as PATH_MAX
	maxSize      = math.MaxInt64 - 1<<20
)

// Walker walks the headers of one archive from front to back. It holds less than
// 200 KiB, whatever the archive says, but for one long header of at most 1 MiB, and
// allocates nothing in steady state.
//
// Where members are small it reads everything in windows of 128 KiB; where they are
// large, a block or a few a header, so that a scan costs what reading the headers' pages
// costs. It is not safe for parallel use.
//
// It reads ustar, V7, GNU and PAX archives as Python's tarfile does, with the
// differences that the package's test lists; above all, what is no header is an
// error, where tarfile takes it for the end.
type Walker struct {
	// Object names the archive in errors.
	Object string

	src  window
	at   int64 // of the next header
	to   int64 // WalkRange: where to stop, -1 for the end of the archive
	mean int64 // of the distances between headers, recent ones above all

	member Member
	runs   []SparseRun
	name   []byte // storage for names that no single field holds
	ext    extension
	end    End
	fault  Fault
	err    error // that ended the walk
}

// NewWalker returns a Walker at the start of an archive.
func NewWalker(src Source) *Walker { return newWalker(window{src: src, size: src.Size()}) }

// NewStreamWalker returns a Walker of an archive that is being written, received or
// decompressed. It reads r in order and takes nothing that it could do without, but
// what it reads it has used up.
func NewStreamWalker(r io.Reader) *Walker { return newWalker(window{stream: r, size: -1}) }

func newWalker(src window) *Walker {
	src.span = blockBytes
	return &Walker{src: src, to: -1, mean: smallMember + 1}
}

// Reset begins another archive, keeping the buffers.
func (w *Walker) Reset(src Source) {
	kept := w.src.buf
	w.src = window{src: src, size: src.Size(), buf: kept, span: blockBytes}
	w.at, w.to, w.mean, w.end, w.fault, w.err = 0, -1, smallMember+1, End{}, Fault{}, nil
}

// WalkRange makes the walk go on at the header at offset from and end with io.EOF
// where the one at offset to would be read (-1: at the end of the archive). A walk
// that finds no header to begin at to fails with ErrRange. It may be called at any
// time for a Walker of a Source; for one of a stream, from must not lie before what
// was read.
func (w *Walker) WalkRange(from, to int64) {
	w.at, w.to, w.end, w.fault, w.err = from, to, End{}, Fault{}, nil
}

// ErrRange is the error of a walk whose members do not end where WalkRange says.
var ErrRange = errors.New("no member ends where the range does")

// Offset is where the next header will be looked for.
func (w *Walker) Offset() int64 { return w.at }

// End says how the archive ended. It is valid once Next has returned io.EOF, and not
// for a range that ends before the archive.
func (w *Walker) End() End { return w.end }

// Next returns the next member, io.EOF behind the last one. Headers of long names and
// PAX headers are part of the member that they describe.
//
// Errors: Corrupt for what is no archive, is cut short or holds something else
// between its members (see Fault), those of the Source. After an error, which every
// later call returns too, nothing more is found out: members behind damage have lost
// their place.
func (w *Walker) Next() (*Member, error) {
	if w.err == nil {
		if w.err = w.next(); w.err == nil {
			return &w.member, nil
		}
	}
	return nil, w.err
}

// next reads headers up to that of a member.
func (w *Walker) next() error {
	before := w.at
	w.ext.reset()
	for chain := 0; ; chain++ {
		if w.to >= 0 && w.at >= w.to && !w.ext.pending() {
			if w.at > w.to {
				return ErrRange
			}
			return io.EOF
		}
		h, err := w.header(chain)
		if err != nil {
			return err
		}
		if chain == maxChain {
			return w.corrupt(FaultHeader, w.at, "", "more than %d headers describe one member", maxChain)
		}
		done, err := w.take(h)
		if err != nil {
			return err
		}
		if done {
			break
		}
	}
	w.mean += (w.at - before - w.mean) / 8
	return nil
}

// header returns the block at w.at if it is a header, valid until the window moves;
// io.EOF at the end of the archive. chain is how many headers came before it that
// want a member.
func (w *Walker) header(chain int) (*[blockBytes]byte, error) {
	b, err := w.src.view(w.at, blockBytes, w.ahead())
	if err != nil {
		return nil, w.failed(err)
	}
	if len(b) < blockBytes {
		return nil, w.atEnd(b, chain)
	}
	h := (*[blockBytes]byte)(b)
	if h[0] == 0 && isZero(b) {
		if chain > 0 {
			return nil, w.corrupt(FaultHeader, w.at, "", "a long name or PAX header is followed by the end of the archive, expected the member that it describes")
		}
		return nil, w.atZero()
	}
	if !checksumOK(h) {
		return nil, w.notHeader(h)
	}
	return h, nil
}

// ahead is how much is worth reading at a header.
func (w *Walker) ahead() int {
	if w.mean <= smallMember {
		return windowBytes
	}
	return w.src.span
}

// take uses a header: it says true for that of a member, which w.member then is, and
// false for one that speaks of what follows.
func (w *Walker) take(h *[blockBytes]byte) (done bool, err error) {
	kind, size := h[typeField], int64(0)
	if hasData(kind) {
		n, ok := number(h[sizeField : sizeField+numberBytes])
		if !ok || n < 0 || n > maxSize {
			return false, w.corrupt(FaultHeader, w.at, "", "the header's size is %q, expected a number of bytes up to 2^63", h[sizeField:sizeField+numberBytes])
		}
		size = n
	}
	switch kind {
	case typeLongName, typeLongLink, typeExtended, typeSolaris, typeGlobal:
		return false, w.extend(kind, size)
	}
	return true, w.describe(h, kind, size)
}

// describe makes w.member what the header and those before it say.
func (w *Walker) describe(h *[blockBytes]byte, kind byte, size int64) error {
	m := &w.member
	*m = Member{Header: w.at, Data: w.at + blockBytes, Type: kind, Regular: isRegular(kind), Name: w.headerName(h, kind)}
	if w.ext.start >= 0 {
		m.Header = w.ext.start
	}
	if kind == typeRegularOld && nameIsDirectory(h) {
		m.Regular = false // V7 knew no type for directories
	}
	switch {
	case w.ext.named:
		m.Name = w.name
	case len(m.Name) > 0 && (kind == typeSparse || w.ext.sparse.any):
		w.name = append(w.name[:0], m.Name...) // the window moves when maps are read
		m.Name = w.name
	}
	if hasData(kind) && !(kind == typeRegularOld && !m.Regular) {
		m.Size = size
		if w.ext.size >= 0 {
			m.Size = w.ext.size
		}
	}
	m.Stored = m.Size
	if kind == typeSparse || w.ext.sparse.any {
		if err := w.expand(h); err != nil {
			return err
		}
	}
	return w.skip(m)
}

// nameIsDirectory reports whether the field of the name ends in a slash.
func nameIsDirectory(h *[blockBytes]byte) bool {
	name := text(h[nameField : nameField+nameBytes])
	return len(name) > 0 && name[len(name)-1] == '/'
}

// headerName returns the name that a header itself holds.
func (w *Walker) headerName(h *[blockBytes]byte, kind byte) []byte {
	name := text(h[nameField : nameField+nameBytes])
	if kind == typeSparse || w.ext.named {
		return name
	}
	if p := prefix(h); len(p) > 0 {
		w.name = append(append(append(w.name[:0], p...), '/'), name...)
		return w.name
	}
	return name
}

// skip goes behind a member's data, which must be there.
func (w *Walker) skip(m *Member) error {
	if m.Size > maxSize || m.Stored > maxSize-m.Data {
		return w.corrupt(FaultHeader, m.Header, string(m.Name), "the header's size is %d bytes: no archive holds them", m.Stored)
	}
	end := m.End()
	if w.src.size >= 0 && end > w.src.size {
		return w.truncated(m, end)
	}
	w.at = end
	return nil
}

func padded(n int64) int64 { return (n + blockBytes - 1) &^ (blockBytes - 1) }

// atEnd judges less than a block at the end of the archive.
func (w *Walker) atEnd(rest []byte, chain int) error {
	end := w.at + int64(len(rest))
	switch {
	case end == 0:
		return w.corrupt(FaultEmpty, 0, "", "0 bytes: an archive has at least its end, two blocks of zeros")
	case w.src.size >= 0 && w.at > w.src.size:
		return w.truncated(&w.member, w.at)
	case chain > 0, w.at == 0, !isZero(rest):
		return w.corrupt(FaultTruncated, w.at, "", "the archive ends at byte %d, within a header: it is cut short", end)
	}
	w.end = End{Kind: EndNone, Offset: w.at, After: -1}
	return io.EOF
}

// atZero looks at what follows a block of zeros.
func (w *Walker) atZero() error {
	w.end = End{Kind: EndBlock, Offset: w.at, After: -1}
	for at := w.at + blockBytes; at < w.at+endBytes; at += blockBytes {
		b, err := w.src.view(at, blockBytes, windowBytes)
		if err != nil {
			return w.failed(err)
		}
		if len(b) == blockBytes && isZero(b) {
			w.end.Kind = EndBlocks
			continue
		}
		if i := firstByte(b); i >= 0 {
			w.end.After = at + int64(i)
		}
		break
	}
	return io.EOF
}

func firstByte(b []byte) int {
	for i, c := range b {
		if c != 0 {
			return i
		}
	}
	return -1
}

// failed wraps an error of the source.
func (w *Walker) failed(err error) error {
	return fmt.Errorf("read header at byte %d: %w", w.at, err)
}
