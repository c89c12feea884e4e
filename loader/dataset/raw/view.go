package raw

import (
	"fmt"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
)

// view is the dataset.View of an index of raw files.
type view struct {
	index *dataset.Index
	meta  dataset.Meta
}

// Open returns the samples of an index. The View is valid until idx is closed.
// Errors: Corrupt if the index is not one of raw files.
func Open(idx *dataset.Index) (dataset.View, error) {
	meta := idx.Meta()
	if meta.Info.Format != Format {
		return nil, idx.CorruptIndex(fmt.Sprintf("it is of format %q, not %q", meta.Info.Format, Format))
	}
	if n := idx.Len(); meta.Info.Samples != n || meta.Info.Files != n || meta.Info.Bytes < 0 ||
		meta.MaxBytes < 0 || meta.MaxBytes > meta.Info.Bytes {
		return nil, idx.CorruptIndex(fmt.Sprintf("metadata speaks of %d samples in %d files and %d bytes, the largest of %d; there are %d records",
			meta.Info.Samples, meta.Info.Files, meta.Info.Bytes, meta.MaxBytes, n))
	}
	return &view{index: idx, meta: meta}, nil
}

// ID implements dataset.View: no choice of a session changes the samples.
func (v *view) ID() string { return v.meta.Info.ID }

// Len implements dataset.View.
func (v *view) Len() int64 { return v.index.Len() }

// Columns implements dataset.View: data, the file's bytes.
func (v *view) Columns() []dataset.Column {
	return []dataset.Column{{Name: "data", DType: dataset.Uint8, Shape: []int64{}, Ragged: true}}
}

// ValueColumns implements dataset.View: label, the class number or -1.
func (v *view) ValueColumns() []dataset.Column {
	return []dataset.Column{{Name: "label", DType: dataset.Int64, Shape: []int64{}}}
}

// SampleBytes implements dataset.View.
func (v *view) SampleBytes() (mean, max int64) {
	return v.meta.Info.Bytes / v.meta.Info.Samples, v.meta.MaxBytes
}

// Objects implements dataset.View: samples and objects are one.
func (v *view) Objects() int64 { return v.Len() }

// Object implements dataset.View.
func (v *view) Object(number int64, scratch *[]byte) (backend.Object, error) {
	r, err := v.record(number, scratch)
	if err != nil {
		return backend.Object{}, err
	}
	return backend.Object{Origin: v.meta.Origin, Number: number, Version: r.Version, Name: r.Name}, nil
}

// Plan implements dataset.View: one object, one part and one value a sample. The
// names are copied to p.Names.
func (v *view) Plan(p *dataset.Plan, samples []int64) error {
	p.Reset()
	for i, sample := range samples {
		r, err := v.record(sample, &p.Scratch)
		if err != nil {
			return err
		}
		start := len(p.Names)
		p.Names = append(p.Names, r.Name...) // names given before stay valid where they are
		p.Objects = append(p.Objects, backend.Object{
			Origin: v.meta.Origin, Number: sample, Version: r.Version, Name: p.Names[start:len(p.Names):len(p.Names)],
		})
		p.Parts = append(p.Parts, dataset.Part{Object: i, Length: r.Version.Size})
		p.Values = append(p.Values, int64(r.Label))
	}
	return nil
}

// record reads a record and checks what the metadata promises of it.
func (v *view) record(sample int64, scratch *[]byte) (dataset.Record, error) {
	r, err := v.index.Record(sample, scratch)
	if err != nil {
		return r, err
	}
	if r.Version.Size > v.meta.MaxBytes || int(r.Label) >= len(v.meta.Info.Classes) || r.Label < -1 {
		return r, v.index.CorruptIndex(fmt.Sprintf("sample %d, %q, has %d bytes and label %d; metadata allows %d and %d classes",
			sample, r.Name, r.Version.Size, r.Label, v.meta.MaxBytes, len(v.meta.Info.Classes)))
	}
	return r, nil
}

// Key implements dataset.View: the file's path, twice.
func (v *view) Key(sample int64) (file, key string, err error) {
	var scratch []byte
	r, err := v.record(sample, &scratch)
	if err != nil {
		return "", "", err
	}
	file = string(r.Name)
	return file, file, nil
}
