package loader

import (
	"context"
	"fmt"
	"strings"
	"unsafe"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/order"
	"github.com/stokerio/stoker/shm"
)

// indexColumn is the last column of every batch: the sample numbers.
const indexColumnBytes = 8

// source is what batches are filled from: samples and the store of their bytes.
type source struct {
	view         dataset.View
	store        backend.Store
	columns      []dataset.Column // read from files
	valueColumns []dataset.Column // computed by the index
}

func newSource(view dataset.View, store backend.Store) source {
	return source{view: view, store: store, columns: view.Columns(), valueColumns: view.ValueColumns()}
}

// tableColumns counts the columns of a batch, the sample numbers included.
func (s *source) tableColumns() int { return len(s.columns) + len(s.valueColumns) + 1 }

// filler fills batches one at a time and keeps its scratch between them, so that
// a batch allocates nothing once the scratch has grown.
type filler struct {
	source  *source
	samples []int64
	plan    dataset.Plan
	reads   []backend.Read
	table   []shm.Column
	report  backend.GatherReport
}

// choose asks the order for the samples of a step.
func (f *filler) choose(p *order.Permutation, step *order.Step) {
	f.samples = f.samples[:0]
	for i := range step.Length {
		f.samples = append(f.samples, p.At(step.Position(i, p.Len())))
	}
}

// prepare asks the index where the chosen samples lie and lays the batch out. It
// returns the bytes that the batch needs.
func (f *filler) prepare() (int64, error) {
	if err := f.source.view.Plan(&f.plan, f.samples); err != nil {
		return 0, err
	}
	return f.layout()
}

// layout computes the column table of the planned batch and returns its size.
func (f *filler) layout() (int64, error) {
	s := f.source
	rows, files := int64(len(f.samples)), len(s.columns)
	if len(f.plan.Parts) != int(rows)*files || len(f.plan.Values) != int(rows)*len(s.valueColumns) {
		panic(fmt.Sprintf("loader: plan of %d samples has %d parts and %d values for %d and %d columns",
			rows, len(f.plan.Parts), len(f.plan.Values), files, len(s.valueColumns)))
	}
	f.table = f.table[:0]
	end := shm.BatchHeaderBytes(s.tableColumns())
	for c := range s.columns {
		entry, err := f.fileColumn(c, rows, end)
		if err != nil {
			return 0, err
		}
		f.table = append(f.table, entry)
		end = columnEnd(entry)
	}
	for range len(s.valueColumns) + 1 {
		entry := shm.Column{ValuesOffset: uint64(end), ValuesBytes: uint64(rows * indexColumnBytes)}
		f.table = append(f.table, entry)
		end = columnEnd(entry)
	}
	return end, nil
}

func columnEnd(c shm.Column) int64 {
	end := max(c.ValuesOffset+c.ValuesBytes, c.OffsetsOffset+c.OffsetsBytes)
	return shm.Align(int64(end), shm.ColumnAlign)
}

// fileColumn places one column that is read from files, from byte start on.
func (f *filler) fileColumn(c int, rows, start int64) (shm.Column, error) {
	column := &f.source.columns[c]
	entry := shm.Column{ValuesOffset: uint64(start)}
	if column.Ragged {
		entry.OffsetsOffset, entry.OffsetsBytes = uint64(start), uint64((rows+1)*8)
		entry.ValuesOffset = uint64(shm.Align(start+(rows+1)*8, shm.ColumnAlign))
	}
	want, total := rowBytes(column), int64(0)
	for row := range rows {
		part := &f.plan.Parts[int(row)*len(f.source.columns)+c]
		if part.Length < 0 || (!column.Ragged && part.Length != want) || part.Length%column.DType.Size() != 0 {
			return entry, &backend.Error{
				Kind: backend.Corrupt, Op: "plan", Object: f.source.key(f.samples[row]),
				Detail: fmt.Sprintf("the index gives column %q %d bytes, expected %d", column.Name, part.Length, want),
			}
		}
		total += part.Length
	}
	entry.ValuesBytes = uint64(total)
	return entry, nil
}

// rowBytes is the size of one sample's value of a column that is not ragged.
func rowBytes(c *dataset.Column) int64 {
	n := c.DType.Size()
	for _, d := range c.Shape {
		n *= d
	}
	return n
}

// fill reads the prepared batch into memory of at least the size that prepare
// returned. It returns the bytes read from files.
func (f *filler) fill(ctx context.Context, memory []byte) (int64, error) {
	shm.PutBatchHeader(memory, len(f.samples), f.table)
	f.reads = f.reads[:0]
	bytes := int64(0)
	for c := range f.source.columns {
		bytes += f.addColumn(memory, c)
	}
	f.putValues(memory)
	f.report = backend.GatherReport{}
	return bytes, backend.Gather(ctx, f.source.store, f.reads, &f.report)
}

// addColumn queues the reads of one file column and writes its offsets.
func (f *filler) addColumn(memory []byte, c int) int64 {
	entry := &f.table[c]
	var offsets []int64
	if entry.OffsetsBytes > 0 {
		offsets = int64s(memory, entry.OffsetsOffset, entry.OffsetsBytes)
		offsets[0] = 0
	}
	element := f.source.columns[c].DType.Size()
	at := int64(0)
	for row := range f.samples {
		part := &f.plan.Parts[row*len(f.source.columns)+c]
		start := int64(entry.ValuesOffset) + at
		f.addReads(part, memory[start:start+part.Length:start+part.Length])
		at += part.Length
		if offsets != nil {
			offsets[row+1] = at / element
		}
	}
	return at
}

// addReads queues one part, cut at the borders of chunks.
func (f *filler) addReads(part *dataset.Part, p []byte) {
	object := &f.plan.Objects[part.Object]
	for at := part.Offset; len(p) > 0; {
		start := at - at%backend.MaxChunkBytes
		size := min(int64(backend.MaxChunkBytes), object.Version.Size-start)
		n := min(int64(len(p)), start+backend.MaxChunkBytes-at)
		f.reads = append(f.reads, backend.Read{
			Chunk:  backend.Chunk{Object: object, Start: start, Size: size},
			Offset: at - start, P: p[:n:n],
		})
		at, p = at+n, p[n:]
	}
}

// putValues writes the columns that the index computed, and the sample numbers.
func (f *filler) putValues(memory []byte) {
	first, values := len(f.source.columns), len(f.source.valueColumns)
	for c := range values {
		entry := &f.table[first+c]
		out := int64s(memory, entry.ValuesOffset, entry.ValuesBytes)
		for row := range out {
			out[row] = f.plan.Values[row*values+c]
		}
	}
	entry := &f.table[first+values]
	copy(int64s(memory, entry.ValuesOffset, entry.ValuesBytes), f.samples)
}

// int64s views aligned bytes of a slot as integers. Stoker's ring is for
// little-endian machines only; see package shm.
func int64s(memory []byte, offset, bytes uint64) []int64 {
	if bytes == 0 {
		return nil
	}
	return unsafe.Slice((*int64)(unsafe.Pointer(&memory[offset : offset+bytes][0])), bytes/8)
}

// key names a sample for an error message; it never fails.
func (s *source) key(sample int64) string {
	file, key, err := s.view.Key(sample)
	switch {
	case err != nil:
		return fmt.Sprintf("sample %d", sample)
	case strings.HasPrefix(key, file):
		return key // a path, or a part of the file
	}
	return file + ": " + key
}

// names are those of a batch's columns, without the sample numbers.
func (s *source) names() []string {
	names := make([]string, 0, len(s.columns)+len(s.valueColumns))
	for _, columns := range [][]dataset.Column{s.columns, s.valueColumns} {
		for _, c := range columns {
			names = append(names, c.Name)
		}
	}
	return names
}
