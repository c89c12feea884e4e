// Package dataset turns files into samples: a format scans an origin once, what
// it finds is stored as an immutable sample index, and a View of that index
// answers which bytes of which file make up sample i.
//
// The package holds what formats share: the index file, columns, plans. Each
// format is a sub-package named for it (raw, tokens, tar).
//
// All sizes and offsets that come out of files are hostile until checked.
package dataset

import (
	"fmt"

	"github.com/stokerio/stoker/backend"
)

// DType names an element type as numpy does.
type DType string

// The element types a column may have.
const (
	Uint8   DType = "uint8"
	Int8    DType = "int8"
	Uint16  DType = "uint16"
	Int16   DType = "int16"
	Uint32  DType = "uint32"
	Int32   DType = "int32"
	Uint64  DType = "uint64"
	Int64   DType = "int64"
	Float32 DType = "float32"
	Float64 DType = "float64"
)

// Size returns the bytes of one element, 0 for an unknown type.
func (d DType) Size() int64 {
	switch d {
	case Uint8, Int8:
		return 1
	case Uint16, Int16:
		return 2
	case Uint32, Int32, Float32:
		return 4
	case Uint64, Int64, Float64:
		return 8
	}
	return 0
}

// Column is one field of every sample.
//
// A ragged column has another length in each sample: a batch of B samples is
// values of shape [sum of lengths] and offsets int64 of shape [B+1]. Any other
// column has the shape [B, Shape...].
type Column struct {
	Name   string  `json:"name"`
	DType  DType   `json:"dtype"`
	Shape  []int64 `json:"shape"` // of one sample, without the batch dimension; empty = scalar
	Ragged bool    `json:"ragged"`
}

// Part is one contiguous run of an object's bytes that belongs to one column of
// one sample.
type Part struct {
	Object int   // index into Plan.Objects
	Offset int64 // bytes from the start of the object
	Length int64 // bytes
}

// Plan is how to fill one batch. It is reused from batch to batch, so that
// planning allocates nothing once its slices have grown.
//
// For B samples and a View with C columns:
//
//   - Parts holds, sample after sample, one Part for each column that is read
//     from files (View.Columns order), B·(file columns) in all;
//   - Values holds, sample after sample, one int64 for each column that is not
//     (Column.DType int64, scalar), B·(value columns) in all.
type Plan struct {
	Objects []backend.Object
	Parts   []Part
	Values  []int64
	Names   []byte // storage behind Objects[i].Name
	Scratch []byte // for the View's own use
	Pieces  []Piece
	table   []byte // storage of an ObjectTable
}

// Reset empties the plan, keeping its storage.
func (p *Plan) Reset() {
	p.Objects, p.Parts, p.Values, p.Names = p.Objects[:0], p.Parts[:0], p.Values[:0], p.Names[:0]
}

// View is a dataset cut into samples: an index together with the choices of one
// session (for tokens, the block size). Views are immutable and safe for
// parallel use.
type View interface {
	// ID names index and choices together; equal ids mean equal samples under
	// equal numbers. A session that resumes must find the same id.
	ID() string

	// Len is the number of samples.
	Len() int64

	// Columns describes what each sample holds: columns read from files, in the
	// order of Plan.Parts. ValueColumns those computed by the index, in the order
	// of Plan.Values.
	Columns() []Column
	ValueColumns() []Column

	// Plan fills p (after resetting it) for the given sample numbers.
	// Errors are of backend's kinds; OutOfRange if a number is not in [0, Len).
	Plan(p *Plan, samples []int64) error

	// Objects is how many numbers Plan gives to objects: [0, Objects), one object each.
	// They are the same for all Views of an index.
	Objects() int64

	// Object returns the object that Plan gives a number to. Its name borrows *scratch
	// or the View, as Index.Record has it. It allocates nothing once *scratch has grown,
	// unless the version has a Tag. Errors: OutOfRange, Corrupt, Unavailable.
	Object(number int64, scratch *[]byte) (backend.Object, error)

	// SampleBytes bounds the bytes read from files for one sample: the mean and
	// the maximum over the dataset. Rings are sized by it.
	SampleBytes() (mean, max int64)

	// Key names sample i for people. file is the path of the object that its bytes
	// are in; key is what the format calls it: the path again (raw), path and token
	// range (tokens: "path[a:b]"), the key (tar: "dir/000123").
	Key(sample int64) (file, key string, err error)
}

// Select makes a column of the first of Parts that a sample has, for formats whose
// samples are made of parts.
type Select struct {
	Name  string   `json:"name"`
	Parts []string `json:"parts"`
}

// PartInfo describes a part that samples have: how many have it and its bytes.
type PartInfo struct {
	Name     string `json:"name"`
	Samples  int64  `json:"samples"`
	Bytes    int64  `json:"bytes"`
	MaxBytes int64  `json:"max_bytes"` // of the largest
}

// NoObject is the error for a number that no object of a View has.
func NoObject(number, objects int64) error {
	return &backend.Error{Kind: backend.OutOfRange, Op: "find", Object: fmt.Sprintf("object %d", number),
		Detail: fmt.Sprintf("it is not in [0, %d)", objects), Remedy: "ask for one within the dataset"}
}

// Info describes an index for people and the API.
type Info struct {
	ID      string         `json:"index_id"`
	Format  string         `json:"format"`           // "raw", "tokens", "tar"
	Samples int64          `json:"samples"`          // raw: files; tokens: 0, as it depends on block_size
	Tokens  int64          `json:"tokens,omitempty"` // tokens: all tokens
	DType   DType          `json:"dtype,omitempty"`  // tokens: element type
	Files   int64          `json:"files"`
	Bytes   int64          `json:"bytes"`             // source bytes of all samples
	Classes []string       `json:"classes,omitempty"` // raw: class names, sorted; a label is an index into it
	Skipped map[string]int `json:"skipped,omitempty"` // reason -> files or samples left out

	Parts    []PartInfo     `json:"parts,omitempty"`    // tar: what samples are made of, sorted by name
	Archives map[string]int `json:"archives,omitempty"` // tar: how shards are stored ("tar", "gzip", ...) -> shards
	Indexes  map[string]int `json:"indexes,omitempty"`  // tar: what came of indexes beside shards ("dali used", ...) -> shards
}

// Progress is called now and then during a scan, from one goroutine at a time.
type Progress func(Done)

// Done is how far a scan is. Totals are 0 while they are not known.
type Done struct {
	Files, FilesTotal int64
	Bytes, BytesTotal int64 // of the files; a format that reads only parts of them counts what it has dealt with
	Samples           int64 // found so far; 0 where samples are not counted
}
