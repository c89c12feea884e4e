package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"
)

// TraceWriter writes a trace. It is not safe for parallel use, holds at most one block
// and does not keep what it is given. Once a write has failed every call returns that
// error; a call that is refused for what it was given has written nothing.
type TraceWriter struct {
	out    io.Writer
	block  []byte // with room for its header in front
	state  traceState
	err    error
	closed bool
}

// NewTraceWriter begins a trace. Nothing is written before the first block is full, or
// Flush.
func NewTraceWriter(out io.Writer, header TraceHeader) (*TraceWriter, error) {
	if len(header.Node) > MaxTraceText {
		return nil, fmt.Errorf("write trace: the node's text has %d bytes, at most %d", len(header.Node), MaxTraceText)
	}
	w := &TraceWriter{out: out, block: make([]byte, traceBlockHeader, 2*traceBlockTarget)}
	begin := binary.LittleEndian.AppendUint32(traceMagic[:len(traceMagic):len(traceMagic)], traceVersion)
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
func (w *TraceWriter) Dataset(d TraceDataset) (int, error) {
	if err := w.ready(); err != nil {
		return 0, err
	}
	number := len(w.state.datasets)
	if number == MaxTraceDatasets {
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
func (w *TraceWriter) Session(s TraceSession) (int, error) {
	if err := w.ready(); err != nil {
		return 0, err
	}
	number := len(w.state.sessions)
	if number == MaxTraceSessions {
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
func (w *TraceWriter) Read(r *TraceRead) error {
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
func partOf(accesses []TraceAccess) int {
	n := min(len(accesses), MaxTraceAccesses)
	for n < len(accesses) && accesses[n].Further {
		n--
	}
	return n
}

// check refuses what a reader would refuse.
func (w *TraceWriter) check(r *TraceRead) error {
	switch {
	case r.Session < 0 || r.Session >= len(w.state.sessions):
		return fmt.Errorf("session %d reads, and there are %d", r.Session, len(w.state.sessions))
	case r.Epoch < 0 || r.Epoch > MaxTraceNumber || r.Position < 0 || r.Position > MaxTraceNumber-int64(len(r.Accesses)):
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
		if pieces > MaxTraceAccesses {
			return fmt.Errorf("session %d reads sample %d in more than %d pieces", r.Session, a.Sample, MaxTraceAccesses)
		}
	}
	return nil
}

// append codes a read that has been checked.
func (w *TraceWriter) append(r *TraceRead) {
	s := &w.state
	micros := max(s.micros, min(int64(r.At/time.Microsecond), maxTraceMicros))
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

// maxTraceMicros keeps the time of a read a time.Duration.
const maxTraceMicros = int64(1<<63-1) / int64(time.Microsecond)

func (s *traceState) appendAccess(b []byte, session int, a *TraceAccess) []byte {
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

// Flush writes what is held, so that a reader may see it.
func (w *TraceWriter) Flush() error {
	if err := w.ready(); err != nil {
		return err
	}
	return w.write()
}

// Close writes the end. What is below stays open. Closing again does nothing.
func (w *TraceWriter) Close() error {
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

var errTraceClosed = errors.New("write trace: it is closed")

func (w *TraceWriter) ready() error {
	if w.err == nil && w.closed {
		return errTraceClosed
	}
	return w.err
}

// full writes the block if it is.
func (w *TraceWriter) full() error {
	if len(w.block) < traceBlockTarget {
		return nil
	}
	return w.write()
}

// write writes the block, unless it is empty, with one call.
func (w *TraceWriter) write() error {
	if len(w.block) == traceBlockHeader {
		return nil
	}
	le := binary.LittleEndian
	le.PutUint32(w.block[4:], uint32(len(w.block)-traceBlockHeader))
	le.PutUint32(w.block, crc32.Checksum(w.block[4:], castagnoli))
	_, err := w.out.Write(w.block)
	w.block = w.block[:traceBlockHeader]
	if err != nil {
		w.err = fmt.Errorf("write trace: %w", err)
	}
	return w.err
}
