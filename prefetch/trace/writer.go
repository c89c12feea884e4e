package trace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"
)

// Writer writes a trace. It is not safe for parallel use, holds at most one block
// and does not keep what it is given. Once a write has failed every call returns that
// error; a call that is refused for what it was given has written nothing.
type Writer struct {
	out    io.Writer
	block  []byte // with room for its header in front
	state  state
	err    error
	closed bool
}

// NewWriter begins a trace. Nothing is written before the first block is full, or
// Flush.
func NewWriter(out io.Writer, header Header) (*Writer, error) {
	if len(header.Node) > MaxText {
		return nil, fmt.Errorf("write trace: the node's text has %d bytes, at most %d", len(header.Node), MaxText)
	}
	w := &Writer{out: out, block: make([]byte, blockHeader, 2*blockTarget)}
	begin := binary.LittleEndian.AppendUint32(magic[:len(magic):len(magic)], formatVersion)
	if _, err := out.Write(begin); err != nil {
		return nil, fmt.Errorf("write trace: %w", err)
	}
	w.block = binary.AppendVarint(append(w.block, recordStart), header.Start.UnixMicro())
	w.block = appendText(w.block, header.Node)
	return w, nil
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// Dataset defines a dataset and returns its number.
func (w *Writer) Dataset(d Dataset) (int, error) {
	if err := w.ready(); err != nil {
		return 0, err
	}
	number := len(w.state.datasets)
	if number == MaxDatasets {
		return 0, fmt.Errorf("write trace: there are %d datasets already, and more fit into none", number)
	}
	if err := d.check(); err != nil {
		return 0, fmt.Errorf("write trace: %w", err)
	}
	w.block = appendText(append(w.block, recordDataset), d.Name)
	w.block = appendText(w.block, d.IndexID)
	for _, number := range []int64{d.Samples, d.Chunks, d.Bytes} {
		w.block = binary.AppendUvarint(w.block, uint64(number))
	}
	w.state.datasets = append(w.state.datasets, d)
	return number, w.full()
}

// Session defines a session and returns its number.
func (w *Writer) Session(s Session) (int, error) {
	if err := w.ready(); err != nil {
		return 0, err
	}
	number := len(w.state.sessions)
	if number == MaxSessions {
		return 0, fmt.Errorf("write trace: there are %d sessions already, and more fit into none", number)
	}
	if err := s.check(len(w.state.datasets)); err != nil {
		return 0, fmt.Errorf("write trace: %w", err)
	}
	w.block = appendText(append(w.block, recordSession), s.Job)
	w.block = binary.AppendUvarint(w.block, uint64(s.Dataset))
	w.block = binary.AppendUvarint(w.block, uint64(s.BatchSize))
	w.block = appendText(w.block, s.Order)
	w.block = binary.AppendUvarint(w.block, uint64(s.Rank))
	w.block = binary.AppendUvarint(w.block, uint64(s.WorldSize))
	w.state.addSession(s)
	return number, w.full()
}

// Read adds a read, in several records if it is large; one without accesses is left
// out. Time that goes back is taken for time that stands still. It allocates nothing in
// steady state.
func (w *Writer) Read(r *Read) error {
	if err := w.ready(); err != nil {
		return err
	}
	if err := w.check(r); err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	part := *r
	for rest := r.Accesses; len(rest) > 0; {
		n := partOf(rest)
		part.Accesses, rest = rest[:n], rest[n:]
		w.append(&part)
		part.Position += part.Samples()
		if err := w.full(); err != nil {
			return err
		}
	}
	return nil
}

// partOf is how many accesses of a read go into its next record: no sample is divided.
func partOf(accesses []Access) int {
	n := min(len(accesses), MaxAccesses)
	for n < len(accesses) && accesses[n].Further {
		n--
	}
	return n
}

// check refuses what a reader would refuse.
func (w *Writer) check(r *Read) error {
	switch {
	case r.Session < 0 || r.Session >= len(w.state.sessions):
		return fmt.Errorf("session %d reads, and there are %d", r.Session, len(w.state.sessions))
	case r.Epoch < 0 || r.Epoch > MaxNumber || r.Position < 0 || r.Position > MaxNumber-int64(len(r.Accesses)):
		return fmt.Errorf("session %d reads position %d of epoch %d: each must be in 0 .. 2^56", r.Session, r.Position, r.Epoch)
	}
	d := &w.state.datasets[w.state.sessions[r.Session].Dataset]
	pieces := 0
	for i := range r.Accesses {
		a := &r.Accesses[i]
		if err := a.check(d); err != nil {
			return fmt.Errorf("session %d reads of dataset %q: %w", r.Session, d.Name, err)
		}
		if pieces++; !a.Further {
			pieces = 1
		} else if i == 0 || a.Sample != r.Accesses[i-1].Sample {
			return fmt.Errorf("session %d reads a further piece of sample %d, and none is before it", r.Session, a.Sample)
		}
		if pieces > MaxAccesses {
			return fmt.Errorf("session %d reads sample %d in more than %d pieces", r.Session, a.Sample, MaxAccesses)
		}
	}
	return nil
}

// append codes a read that has been checked.
func (w *Writer) append(r *Read) {
	s := &w.state
	micros := s.later(r.At)
	last := &s.last[r.Session]
	b := append(w.block, recordRead)
	b = binary.AppendUvarint(b, uint64(micros-s.micros))
	b = binary.AppendUvarint(b, uint64(r.Session))
	b = binary.AppendVarint(b, r.Epoch-last.epoch)
	b = binary.AppendVarint(b, r.Position-s.expected(r.Session, r.Epoch))
	b = binary.AppendUvarint(b, uint64(len(r.Accesses)))
	for i := range r.Accesses {
		b = s.appendAccess(b, r.Session, &r.Accesses[i])
	}
	last.epoch, last.next = r.Epoch, r.Position+r.Samples()
	s.micros = micros
	s.reads++
	s.accesses += int64(len(r.Accesses))
	w.block = b
}

// maxMicros keeps the time of a read a time.Duration.
const maxMicros = int64(1<<63-1) / int64(time.Microsecond)

func (s *state) appendAccess(b []byte, session int, a *Access) []byte {
	last, likely := &s.last[session], s.likely(session, a)
	waited := max(0, int64(a.Waited/time.Microsecond))
	flags := byte(a.Source)
	set := func(flag byte, when bool) {
		if when {
			flags |= flag
		}
	}
	set(accessWaited, waited > 0)
	set(accessFurther, a.Further)
	set(accessNext, !a.Further && a.Sample == last.sample+1)
	set(accessChunk, a.Chunk != likely)
	set(accessOffset, a.Offset != 0)
	set(accessBytes, a.Bytes != last.bytes)
	b = append(b, flags)
	if waited > 0 {
		b = binary.AppendUvarint(b, uint64(waited))
	}
	if flags&(accessFurther|accessNext) == 0 {
		b = binary.AppendUvarint(b, uint64(a.Sample))
	}
	if a.Chunk != likely {
		b = binary.AppendVarint(b, a.Chunk-likely)
	}
	if a.Offset != 0 {
		b = binary.AppendUvarint(b, uint64(a.Offset))
	}
	if a.Bytes != last.bytes {
		b = binary.AppendUvarint(b, uint64(a.Bytes))
	}
	last.sample, last.chunk, last.bytes = a.Sample, a.Chunk, a.Bytes
	return b
}

// Mark notes that time has gone on, and what was lost since the mark before.
func (w *Writer) Mark(at time.Duration, lost Lost) error {
	if err := w.ready(); err != nil {
		return err
	}
	if err := lost.check(); err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	s := &w.state
	micros := s.later(at)
	b := binary.AppendUvarint(append(w.block, recordMark), uint64(micros-s.micros))
	b = binary.AppendUvarint(b, uint64(lost.Reads))
	w.block = binary.AppendUvarint(b, uint64(lost.Samples))
	s.micros, s.lost = micros, s.lost.add(lost)
	return w.full()
}

// later is a time in microseconds, or that of the last record if that is later.
func (s *state) later(at time.Duration) int64 {
	return max(s.micros, min(int64(at/time.Microsecond), maxMicros))
}

// Reads is how many have been added.
func (w *Writer) Reads() int64 { return w.state.reads }

// Accesses is how many were in the reads.
func (w *Writer) Accesses() int64 { return w.state.accesses }

// Lost is what the marks say is lost.
func (w *Writer) Lost() Lost { return w.state.lost }

// Flush writes what is held, so that a reader may see it.
func (w *Writer) Flush() error {
	if err := w.ready(); err != nil {
		return err
	}
	return w.write()
}

// Close writes the end. What is below stays open. Closing again does nothing.
func (w *Writer) Close() error {
	if w.closed {
		return w.err
	}
	if w.err == nil {
		w.block = append(w.block, recordEnd)
		w.block = binary.AppendUvarint(w.block, uint64(w.state.reads))
		w.block = binary.AppendUvarint(w.block, uint64(w.state.accesses))
		w.err = w.write()
	}
	w.closed = true
	return w.err
}

var errClosed = errors.New("write trace: it is closed")

func (w *Writer) ready() error {
	if w.err == nil && w.closed {
		return errClosed
	}
	return w.err
}

// full writes the block if it is.
func (w *Writer) full() error {
	if len(w.block) < blockTarget {
		return nil
	}
	return w.write()
}

// write writes the block, unless it is empty, with one call.
func (w *Writer) write() error {
	if len(w.block) == blockHeader {
		return nil
	}
	le := binary.LittleEndian
	le.PutUint32(w.block[4:], uint32(len(w.block)-blockHeader))
	le.PutUint32(w.block, crc32.Checksum(w.block[4:], castagnoli))
	_, err := w.out.Write(w.block)
	w.block = w.block[:blockHeader]
	if err != nil {
		w.err = fmt.Errorf("write trace: %w", err)
	}
	return w.err
}
