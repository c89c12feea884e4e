package dataset

import (
	"bufio"
	"bytes"
	"container/heap"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
)

const (
	// sortRunBytes is how many bytes of records a sorter keeps in memory before it
	// writes them to its file as one sorted run.
	sortRunBytes = 32 << 20
	// mergeBufferBytes is the buffer of each run while runs are merged. 10^9 records
	// of 120 bytes make 3600 runs: 225 MiB.
	mergeBufferBytes = 64 << 10
)

// sorter puts records in the order of their names, by bytes. It holds at most one
// run and its bookkeeping in memory (about twice sortRunBytes while a run grows);
// what is more waits in an unnamed file. Not for parallel use.
type sorter struct {
	dir      string
	runBytes int
	count    int64
	arena    []byte   // encoded records of the current run, each after its length (u32)
	entries  []uint32 // where in arena each record begins, its length first
	file     *os.File // nil until a run is written
	runs     []sortRun
}

// sortRun is a stretch of the sorter's file.
type sortRun struct{ start, end int64 }

func newSorter(dir string) *sorter { return &sorter{dir: dir, runBytes: sortRunBytes} }

// add copies a record into the sorter.
func (s *sorter) add(r *Record) error {
	if len(s.arena) >= s.runBytes {
		if err := s.spill(); err != nil {
			return err
		}
	}
	at := len(s.arena)
	s.arena = append(s.arena, 0, 0, 0, 0)
	b, err := appendRecord(s.arena, 0, r)
	if err != nil {
		return err
	}
	s.arena = b
	binary.LittleEndian.PutUint32(s.arena[at:], uint32(len(s.arena)-at-4))
	s.entries = append(s.entries, uint32(at))
	s.count++
	return nil
}

// encoded returns the encoding of the record whose length stands at arena[at:].
func (s *sorter) encoded(at uint32) []byte {
	n := binary.LittleEndian.Uint32(s.arena[at:])
	return s.arena[at+4:][:n:n]
}

// nameOf returns the name within an encoded record.
func nameOf(encoded []byte) []byte {
	return encoded[recordFixedBytes:][:binary.LittleEndian.Uint16(encoded[4:])]
}

func (s *sorter) sortRun() {
	slices.SortFunc(s.entries, func(a, b uint32) int {
		return bytes.Compare(nameOf(s.encoded(a)), nameOf(s.encoded(b)))
	})
}

// spill writes the current run to the file, sorted, and begins the next.
func (s *sorter) spill() error {
	if s.file == nil {
		f, err := Temporary(s.dir)
		if err != nil {
			return err
		}
		s.file = f
	}
	s.sortRun()
	w := bufio.NewWriterSize(s.file, 1<<20) // the file's own position is its end
	run := sortRun{}
	if len(s.runs) > 0 {
		run.start = s.runs[len(s.runs)-1].end
	}
	run.end = run.start + int64(len(s.arena))
	for _, at := range s.entries {
		b := s.encoded(at)
		if _, err := w.Write(s.arena[at : int(at)+4+len(b)]); err != nil {
			return FileError("write", s.file.Name(), err)
		}
	}
	if err := w.Flush(); err != nil {
		return FileError("write", s.file.Name(), err)
	}
	s.runs = append(s.runs, run)
	s.arena, s.entries = s.arena[:0], s.entries[:0]
	return nil
}

// each calls visit for every record in order; what visit is given is borrowed. Two
// records of one name are an error.
func (s *sorter) each(visit func(r *Record) error) error {
	var last []byte
	first := true
	checked := func(encoded []byte) error {
		r, err := decodeRecord(encoded, 0)
		if err != nil {
			return fmt.Errorf("sort file list: %w", err)
		}
		if !first && bytes.Equal(last, r.Name) {
			return refused(string(r.Name), "the origin lists it twice", "add the dataset again while nobody changes its directory")
		}
		first, last = false, append(last[:0], r.Name...)
		return visit(&r)
	}
	if len(s.runs) == 0 {
		s.sortRun()
		for _, at := range s.entries {
			if err := checked(s.encoded(at)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := s.spill(); err != nil {
		return err
	}
	s.arena, s.entries = nil, nil
	return s.merge(checked)
}

// merge visits the records of all runs in order.
func (s *sorter) merge(visit func(encoded []byte) error) error {
	heads := make(mergeHeap, 0, len(s.runs))
	for _, run := range s.runs {
		h := &mergeHead{r: bufio.NewReaderSize(io.NewSectionReader(s.file, run.start, run.end-run.start), mergeBufferBytes)}
		more, err := h.next()
		if err != nil {
			return FileError("read", s.file.Name(), err)
		}
		if more {
			heads = append(heads, h)
		}
	}
	heap.Init(&heads)
	for len(heads) > 0 {
		h := heads[0]
		if err := visit(h.encoded); err != nil {
			return err
		}
		more, err := h.next()
		switch {
		case err != nil:
			return FileError("read", s.file.Name(), err)
		case more:
			heap.Fix(&heads, 0)
		default:
			heap.Pop(&heads)
		}
	}
	return nil
}

// close frees the sorter's file.
func (s *sorter) close() {
	if s.file != nil {
		_ = s.file.Close() // unnamed and read only by us
	}
}

// mergeHead is a run with its next record.
type mergeHead struct {
	r       *bufio.Reader
	encoded []byte
}

// next reads the run's next record; false at its end.
func (h *mergeHead) next() (bool, error) {
	var length [4]byte
	if _, err := io.ReadFull(h.r, length[:]); err == io.EOF {
		return false, nil
	} else if err != nil {
		return false, err
	}
	n := binary.LittleEndian.Uint32(length[:])
	if n < recordFixedBytes || n > maxRecordBytes {
		return false, fmt.Errorf("sorted run holds a record of %d bytes", n)
	}
	h.encoded = slices.Grow(h.encoded[:0], int(n))[:n]
	_, err := io.ReadFull(h.r, h.encoded)
	return err == nil, err
}

// mergeHeap orders runs by the name of their next record.
type mergeHeap []*mergeHead

func (m mergeHeap) Len() int { return len(m) }
func (m mergeHeap) Less(i, j int) bool {
	return bytes.Compare(nameOf(m[i].encoded), nameOf(m[j].encoded)) < 0
}
func (m mergeHeap) Swap(i, j int) { m[i], m[j] = m[j], m[i] }
func (m *mergeHeap) Push(x any)   { *m = append(*m, x.(*mergeHead)) }
func (m *mergeHeap) Pop() any {
	last := (*m)[len(*m)-1]
	*m = (*m)[:len(*m)-1]
	return last
}
