package sim

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/stokerio/stoker/prefetch"
)

// TraceReader reads a trace, however hostile, in the memory of one block and one read.
// It is not safe for parallel use.
type TraceReader struct {
	in     *bufio.Reader
	header TraceHeader
	state  traceState
	offset int64 // of what is read next
	begin  int64 // of the block that is being read
	block  []byte
	rest   []byte // of block: records not yet read
	read   TraceRead
	err    error
}

// NewTraceReader reads the beginning of a trace. The error is a *TraceError, or that of in.
func NewTraceReader(in io.Reader) (*TraceReader, error) {
	r := &TraceReader{in: bufio.NewReaderSize(in, 64<<10)}
	if err := r.open(); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *TraceReader) open() error {
	var begin [traceHeader]byte
	n, err := r.fill(begin[:])
	if err != nil && !cutShort(err) {
		return err
	}
	if !bytes.Equal(begin[:min(n, 8)], traceMagic[:min(n, 8)]) || n == 0 {
		return &TraceError{TraceNone, 0, 0, "it does not begin as a trace does"}
	}
	if n < traceHeader {
		return &TraceError{TraceTorn, 0, 0, "it stops within its header"}
	}
	if version := binary.LittleEndian.Uint32(begin[8:]); version != traceVersion {
		return &TraceError{TraceVersion, 0, 0, fmt.Sprintf("it has version %d, and this program reads version %d", version, traceVersion)}
	}
	if err := r.nextBlock(); err != nil {
		return err
	}
	c := traceCursor{b: r.rest}
	if c.byte() != recordStart {
		return r.corrupt("it does not begin with its start")
	}
	micros, node := c.varint(), c.text()
	if c.bad {
		return r.corrupt("its start is not whole")
	}
	r.header = TraceHeader{Start: time.UnixMicro(micros).UTC(), Node: node}
	r.rest = c.b
	return nil
}

// Header is where and when the trace was recorded.
func (r *TraceReader) Header() TraceHeader { return r.header }

// Datasets are those defined before the read that Next returned last. The slice is
// borrowed until the next call of Next.
func (r *TraceReader) Datasets() []TraceDataset { return r.state.datasets }

// Sessions are as Datasets.
func (r *TraceReader) Sessions() []TraceSession { return r.state.sessions }

// Offset is how many bytes of the trace have been read.
func (r *TraceReader) Offset() int64 { return r.offset }

// Next returns the next read, which is borrowed until the next call. The error is
// io.EOF after the last of a trace that was closed; a *TraceError where the trace stops
// being good, which is never before all good blocks have been read; or the error of
// what is below. An error comes again with every further call.
func (r *TraceReader) Next() (*TraceRead, error) {
	for r.err == nil {
		if len(r.rest) == 0 {
			r.err = r.nextBlock()
			continue
		}
		var found bool
		if found, r.err = r.record(); found && r.err == nil {
			return &r.read, nil
		}
	}
	return nil, r.err
}

// record reads one record; found says whether it was a read.
func (r *TraceReader) record() (found bool, err error) {
	c := traceCursor{b: r.rest}
	switch kind := c.byte(); kind {
	case recordDataset:
		err = r.dataset(&c)
	case recordSession:
		err = r.session(&c)
	case recordRead:
		found, err = true, r.decodeRead(&c)
	case recordEnd:
		return false, r.end(&c)
	default:
		err = fmt.Errorf("a record is of kind %d, which is not known", kind)
	}
	if err == nil && c.bad {
		err = errors.New("a record is not whole")
	}
	if err != nil {
		return false, r.corrupt(err.Error())
	}
	r.rest = c.b
	return found, nil
}

func (r *TraceReader) dataset(c *traceCursor) error {
	d := TraceDataset{Name: c.text(), IndexID: c.text(), Samples: c.number(), Chunks: c.number(), Bytes: c.number()}
	if c.bad {
		return nil
	}
	if len(r.state.datasets) == MaxTraceDatasets {
		return fmt.Errorf("it defines more than %d datasets", MaxTraceDatasets)
	}
	err := d.check()
	if err == nil {
		r.state.datasets = append(r.state.datasets, d)
	}
	return err
}

func (r *TraceReader) session(c *traceCursor) error {
	s := TraceSession{Job: c.text(), Dataset: int(c.number()), BatchSize: c.number(), Order: c.text(), Rank: c.number(), WorldSize: c.number()}
	if c.bad {
		return nil
	}
	if len(r.state.sessions) == MaxTraceSessions {
		return fmt.Errorf("it defines more than %d sessions", MaxTraceSessions)
	}
	err := s.check(len(r.state.datasets))
	if err == nil {
		r.state.addSession(s)
	}
	return err
}

// decodeRead reads a read into r.read.
func (r *TraceReader) decodeRead(c *traceCursor) error {
	s := &r.state
	delta, session := c.number(), c.number()
	if c.bad {
		return nil
	}
	if session >= int64(len(s.sessions)) {
		return fmt.Errorf("session %d reads, and there are %d", session, len(s.sessions))
	}
	if delta > maxTraceMicros-s.micros {
		return errors.New("a read is later than time goes")
	}
	last := &s.last[session]
	read := &r.read
	read.Session = int(session)
	read.Epoch = last.epoch + c.delta()
	read.Position = s.expected(read.Session, read.Epoch) + c.delta()
	count := c.number()
	switch {
	case c.bad:
		return nil
	case read.Epoch < 0 || read.Epoch > MaxTraceNumber || read.Position < 0 || read.Position > MaxTraceNumber-count:
		return fmt.Errorf("session %d reads position %d of epoch %d", session, read.Position, read.Epoch)
	case count < 1 || count > MaxTraceAccesses || count > int64(len(c.b)): // each has a byte at least
		return fmt.Errorf("a read has %d accesses in %d bytes, at most %d", count, len(c.b), MaxTraceAccesses)
	}
	s.micros += delta
	read.At = time.Duration(s.micros) * time.Microsecond
	if err := r.decodeAccesses(c, int(count)); err != nil || c.bad {
		return err
	}
	last.epoch, last.next = read.Epoch, read.Position+read.Samples()
	s.reads++
	s.accesses += count
	return nil
}

func (r *TraceReader) decodeAccesses(c *traceCursor, count int) error {
	read := &r.read
	d := &r.state.datasets[r.state.sessions[read.Session].Dataset]
	read.Accesses = read.Accesses[:0]
	for i := range count {
		a, err := r.state.decodeAccess(c, read.Session, d)
		if c.bad {
			return nil
		}
		if err == nil && i == 0 && a.Further {
			err = errors.New("it begins with a further piece of no sample")
		}
		if err != nil {
			return fmt.Errorf("access %d of a read of session %d: %w", i, read.Session, err)
		}
		read.Accesses = append(read.Accesses, a)
	}
	return nil
}

// decodeAccess reads an access and checks it.
func (s *traceState) decodeAccess(c *traceCursor, session int, d *TraceDataset) (TraceAccess, error) {
	flags, last := c.byte(), &s.last[session]
	a := TraceAccess{Source: prefetch.Source(flags & accessSource), Further: flags&accessFurther != 0, Bytes: last.bytes}
	if flags&accessWaited != 0 {
		micros := c.uvarint()
		if micros > uint64(maxTraceMicros) {
			return a, errors.New("it was waited for longer than time goes")
		}
		a.Waited = time.Duration(micros) * time.Microsecond
	}
	switch {
	case a.Further:
		a.Sample = last.sample
	case flags&accessNext != 0:
		a.Sample = last.sample + 1
	default:
		a.Sample = c.number()
	}
	if d.Samples > 0 && a.Sample >= d.Samples { // before likely relies on it
		return a, a.check(d)
	}
	a.Chunk = s.likely(session, &a)
	if flags&accessChunk != 0 {
		a.Chunk += c.delta()
	}
	if flags&accessOffset != 0 {
		a.Offset = c.number()
	}
	if flags&accessBytes != 0 {
		a.Bytes = c.number()
	}
	last.sample, last.chunk, last.bytes = a.Sample, a.Chunk, a.Bytes
	return a, a.check(d)
}

// end reads the end, which nothing may follow.
func (r *TraceReader) end(c *traceCursor) error {
	reads, accesses := c.number(), c.number()
	if c.bad || reads != r.state.reads || accesses != r.state.accesses {
		return r.corrupt(fmt.Sprintf("its end counts %d reads and %d accesses, and there were %d and %d", reads, accesses, r.state.reads, r.state.accesses))
	}
	if len(c.b) == 0 {
		if _, err := r.in.Peek(1); err != nil {
			return err // io.EOF in a good trace
		}
	}
	return r.corrupt("something follows its end")
}

// nextBlock reads the next block and checks that it is what was written.
func (r *TraceReader) nextBlock() error {
	r.begin = r.offset
	var head [traceBlockHeader]byte
	switch n, err := r.fill(head[:]); {
	case err == io.EOF:
		return r.torn("it has no end")
	case cutShort(err):
		return r.torn(fmt.Sprintf("of a block's header of %d bytes there are %d", traceBlockHeader, n))
	case err != nil:
		return err
	}
	le := binary.LittleEndian
	size := int(min(le.Uint32(head[4:]), maxTraceBlock+1))
	if size == 0 || size > maxTraceBlock {
		if r.onlyZeros() {
			return r.torn("its last block was not written whole")
		}
		return r.corrupt(fmt.Sprintf("a block has %d bytes, must be 1 .. %d", le.Uint32(head[4:]), maxTraceBlock))
	}
	if cap(r.block) < size {
		r.block = make([]byte, size)
	}
	r.block = r.block[:size]
	switch n, err := r.fill(r.block); {
	case cutShort(err):
		return r.torn(fmt.Sprintf("of a block of %d bytes there are %d", size, n))
	case err != nil:
		return err
	}
	if found := crc32.Update(crc32.Checksum(head[4:], castagnoli), castagnoli, r.block); found != le.Uint32(head[:]) {
		if r.onlyZeros() {
			return r.torn("its last block was not written whole")
		}
		return r.corrupt(fmt.Sprintf("a block has the checksum %08x, must be %08x", found, le.Uint32(head[:])))
	}
	r.rest = r.block
	return nil
}

// onlyZeros reads on and says whether all that follows, if anything, are zeros: what
// some filesystems leave after a crash.
func (r *TraceReader) onlyZeros() bool {
	for range maxTraceBlock {
		b, err := r.in.ReadByte()
		if err != nil {
			return err == io.EOF
		}
		r.offset++
		if b != 0 {
			return false
		}
	}
	return false
}

func (r *TraceReader) fill(b []byte) (int, error) {
	n, err := io.ReadFull(r.in, b)
	r.offset += int64(n)
	if err != nil && !cutShort(err) {
		err = fmt.Errorf("read trace: %w", err)
	}
	return n, err
}

// cutShort says whether the error is that there was less to read.
func cutShort(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF }

func (r *TraceReader) torn(detail string) error {
	return &TraceError{TraceTorn, r.begin, r.state.accesses, detail}
}

func (r *TraceReader) corrupt(detail string) error {
	return &TraceError{TraceCorrupt, r.begin, r.state.accesses, detail}
}

// traceCursor takes values off the front of bytes. What is not there, or beyond
// MaxTraceNumber, sets bad; all values after that are 0.
type traceCursor struct {
	b   []byte
	bad bool
}

func (c *traceCursor) byte() byte {
	if c.bad || len(c.b) == 0 {
		c.bad = true
		return 0
	}
	b := c.b[0]
	c.b = c.b[1:]
	return b
}

func (c *traceCursor) uvarint() uint64 {
	value, n := binary.Uvarint(c.b)
	if c.bad || n <= 0 {
		c.bad = true
		return 0
	}
	c.b = c.b[n:]
	return value
}

func (c *traceCursor) varint() int64 {
	value, n := binary.Varint(c.b)
	if c.bad || n <= 0 {
		c.bad = true
		return 0
	}
	c.b = c.b[n:]
	return value
}

// number is a value in 0 .. MaxTraceNumber.
func (c *traceCursor) number() int64 {
	value := c.uvarint()
	if value > MaxTraceNumber {
		c.bad = true
		return 0
	}
	return int64(value)
}

// delta is a value in -MaxTraceNumber .. MaxTraceNumber, so that adding it to another
// number does not overflow.
func (c *traceCursor) delta() int64 {
	value := c.varint()
	if value < -MaxTraceNumber || value > MaxTraceNumber {
		c.bad = true
		return 0
	}
	return value
}

func (c *traceCursor) text() string {
	size := c.number()
	if c.bad || size > MaxTraceText || size > int64(len(c.b)) {
		c.bad = true
		return ""
	}
	text := string(c.b[:size])
	c.b = c.b[size:]
	return text
}
