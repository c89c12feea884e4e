package trace

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

// Reader reads a trace, however hostile, in the memory of one block and one read.
// It is not safe for parallel use.
type Reader struct {
	in     *bufio.Reader
	header Header
	state  state
	offset int64 // of what is read next
	begin  int64 // of the block that is being read
	block  []byte
	rest   []byte // of block: records not yet read
	read   Read
	err    error
}

// NewReader reads the beginning of a trace. The error is a *Error, or that of in.
func NewReader(in io.Reader) (*Reader, error) {
	r := &Reader{in: bufio.NewReaderSize(in, 64<<10)}
	if err := r.open(); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Reader) open() error {
	var begin [headerBytes]byte
	n, err := r.fill(begin[:])
	if err != nil && !cutShort(err) {
		return err
	}
	if !bytes.Equal(begin[:min(n, 8)], magic[:min(n, 8)]) || n == 0 {
		return &Error{NotOne, 0, 0, "it does not begin as a trace does"}
	}
	if n < headerBytes {
		return &Error{Torn, 0, 0, "it stops within its header"}
	}
	if version := binary.LittleEndian.Uint32(begin[8:]); version < oldestVersion || version > formatVersion {
		return &Error{OtherVersion, 0, 0, fmt.Sprintf("it has version %d, and this program reads versions %d to %d", version, oldestVersion, formatVersion)}
	}
	if err := r.nextBlock(); err != nil {
		return err
	}
	c := cursor{b: r.rest}
	if c.byte() != recordStart {
		return r.corrupt("it does not begin with its start")
	}
	micros, node := c.varint(), c.text()
	if c.bad {
		return r.corrupt("its start is not whole")
	}
	r.header = Header{Start: time.UnixMicro(micros).UTC(), Node: node}
	r.rest = c.b
	return nil
}

// Header is where and when the trace was recorded.
func (r *Reader) Header() Header { return r.header }

// Datasets are those defined before the read that Next returned last. The slice is
// borrowed until the next call of Next.
func (r *Reader) Datasets() []Dataset { return r.state.datasets }

// Sessions are as Datasets.
func (r *Reader) Sessions() []Session { return r.state.sessions }

// Now is when the record that was read last was written, since the start of the trace.
func (r *Reader) Now() time.Duration { return time.Duration(r.state.micros) * time.Microsecond }

// Lost is what was lost before the read that Next returned last, or before the end.
func (r *Reader) Lost() Lost { return r.state.lost }

// Offset is how many bytes of the trace have been read.
func (r *Reader) Offset() int64 { return r.offset }

// Next returns the next read, which is borrowed until the next call. The error is
// io.EOF after the last of a trace that was closed; a *Error where the trace stops
// being good, which is never before all good blocks have been read; or the error of
// what is below. An error comes again with every further call.
func (r *Reader) Next() (*Read, error) {
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
func (r *Reader) record() (found bool, err error) {
	c := cursor{b: r.rest}
	switch kind := c.byte(); kind {
	case recordDataset:
		err = r.dataset(&c)
	case recordSession:
		err = r.session(&c)
	case recordRead:
		found, err = true, r.decodeRead(&c)
	case recordEnd:
		return false, r.end(&c)
	case recordMark:
		err = r.mark(&c)
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

func (r *Reader) dataset(c *cursor) error {
	d := Dataset{Name: c.text(), IndexID: c.text(), Samples: c.number(), Chunks: c.number(), Bytes: c.number()}
	if c.bad {
		return nil
	}
	if len(r.state.datasets) == MaxDatasets {
		return fmt.Errorf("it defines more than %d datasets", MaxDatasets)
	}
	err := d.check()
	if err == nil {
		r.state.datasets = append(r.state.datasets, d)
	}
	return err
}

func (r *Reader) session(c *cursor) error {
	s := Session{Job: c.text(), Dataset: int(c.number()), BatchSize: c.number(), Order: c.text(), Rank: c.number(), WorldSize: c.number()}
	if c.bad {
		return nil
	}
	if len(r.state.sessions) == MaxSessions {
		return fmt.Errorf("it defines more than %d sessions", MaxSessions)
	}
	err := s.check(len(r.state.datasets))
	if err == nil {
		r.state.addSession(s)
	}
	return err
}

// mark reads a mark.
func (r *Reader) mark(c *cursor) error {
	delta, lost := c.number(), Lost{Reads: c.number(), Samples: c.number()}
	if c.bad {
		return nil
	}
	if delta > maxMicros-r.state.micros {
		return errors.New("a mark is later than time goes")
	}
	r.state.micros += delta
	r.state.lost = r.state.lost.add(lost)
	return nil
}

// decodeRead reads a read into r.read.
func (r *Reader) decodeRead(c *cursor) error {
	s := &r.state
	delta, session := c.number(), c.number()
	if c.bad {
		return nil
	}
	if session >= int64(len(s.sessions)) {
		return fmt.Errorf("session %d reads, and there are %d", session, len(s.sessions))
	}
	if delta > maxMicros-s.micros {
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
	case read.Epoch < 0 || read.Epoch > MaxNumber || read.Position < 0 || read.Position > MaxNumber-count:
		return fmt.Errorf("session %d reads position %d of epoch %d", session, read.Position, read.Epoch)
	case count < 1 || count > MaxAccesses || count > int64(len(c.b)): // each has a byte at least
		return fmt.Errorf("a read has %d accesses in %d bytes, at most %d", count, len(c.b), MaxAccesses)
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

func (r *Reader) decodeAccesses(c *cursor, count int) error {
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
func (s *state) decodeAccess(c *cursor, session int, d *Dataset) (Access, error) {
	flags, last := c.byte(), &s.last[session]
	a := Access{Source: prefetch.Source(flags & accessSource), Further: flags&accessFurther != 0, Bytes: last.bytes}
	if flags&accessWaited != 0 {
		micros := c.uvarint()
		if micros > uint64(maxMicros) {
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
func (r *Reader) end(c *cursor) error {
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
func (r *Reader) nextBlock() error {
	r.begin = r.offset
	var head [blockHeader]byte
	switch n, err := r.fill(head[:]); {
	case err == io.EOF:
		return r.torn("it has no end")
	case cutShort(err):
		return r.torn(fmt.Sprintf("of a block's header of %d bytes there are %d", blockHeader, n))
	case err != nil:
		return err
	}
	le := binary.LittleEndian
	size := int(min(le.Uint32(head[4:]), maxBlock+1))
	if size == 0 || size > maxBlock {
		if r.onlyZeros() {
			return r.torn("its last block was not written whole")
		}
		return r.corrupt(fmt.Sprintf("a block has %d bytes, must be 1 .. %d", le.Uint32(head[4:]), maxBlock))
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
func (r *Reader) onlyZeros() bool {
	for range maxBlock {
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

func (r *Reader) fill(b []byte) (int, error) {
	n, err := io.ReadFull(r.in, b)
	r.offset += int64(n)
	if err != nil && !cutShort(err) {
		err = fmt.Errorf("read trace: %w", err)
	}
	return n, err
}

// cutShort says whether the error is that there was less to read.
func cutShort(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF }

func (r *Reader) torn(detail string) error {
	return &Error{Torn, r.begin, r.state.accesses, detail}
}

func (r *Reader) corrupt(detail string) error {
	return &Error{Corrupt, r.begin, r.state.accesses, detail}
}

// cursor takes values off the front of bytes. What is not there, or beyond
// MaxNumber, sets bad; all values after that are 0.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) byte() byte {
	if c.bad || len(c.b) == 0 {
		c.bad = true
		return 0
	}
	b := c.b[0]
	c.b = c.b[1:]
	return b
}

func (c *cursor) uvarint() uint64 {
	value, n := binary.Uvarint(c.b)
	if c.bad || n <= 0 {
		c.bad = true
		return 0
	}
	c.b = c.b[n:]
	return value
}

func (c *cursor) varint() int64 {
	value, n := binary.Varint(c.b)
	if c.bad || n <= 0 {
		c.bad = true
		return 0
	}
	c.b = c.b[n:]
	return value
}

// number is a value in 0 .. MaxNumber.
func (c *cursor) number() int64 {
	value := c.uvarint()
	if value > MaxNumber {
		c.bad = true
		return 0
	}
	return int64(value)
}

// delta is a value in -MaxNumber .. MaxNumber, so that adding it to another
// number does not overflow.
func (c *cursor) delta() int64 {
	value := c.varint()
	if value < -MaxNumber || value > MaxNumber {
		c.bad = true
		return 0
	}
	return value
}

func (c *cursor) text() string {
	size := c.number()
	if c.bad || size > MaxText || size > int64(len(c.b)) {
		c.bad = true
		return ""
	}
	text := string(c.b[:size])
	c.b = c.b[size:]
	return text
}
