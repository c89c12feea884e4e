package tokens

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
)

// Options say what belongs to a dataset.
type Options struct {
	// Include are patterns as dataset.Include has them. None: DefaultInclude.
	Include []string `json:"include,omitempty"`
	// DType is the type of tokens in bare files, which do not say it themselves.
	// "": DefaultDType.
	DType dataset.DType `json:"dtype,omitempty"`
}

// skippedEmpty is the reason for leaving out files without tokens, skippedIndex for
// an .idx that is not Megatron's.
const (
	skippedEmpty = "empty"
	skippedIndex = "idx without bin"
)

// Scan lists the origin's files once, reads their headers and writes their index to
// dataset.IndexPath(dir, Info.ID). Of a bare or llm.c file it reads at most 1 KiB, of
// a Megatron .idx everything, in blocks. It keeps about 300 bytes a file in memory.
//
// store, or one below it, must be a backend.Lister. progress may be nil.
// Errors: NotFound if no file matches or none holds a token, Corrupt for a file that
// is not what it begins as, those of the origin, NoSpace and the like for dir, and
// the cause of ctx.
func Scan(ctx context.Context, store backend.Store, opts Options, dir string, progress dataset.Progress) (dataset.Info, error) {
	s := &scanner{ctx: ctx, store: store, opts: opts, dir: dir, progress: progress,
		indexes: map[string]backend.Object{}, used: map[string]bool{}}
	info, err := s.scan()
	if err != nil {
		return dataset.Info{}, fmt.Errorf("scan token files: %w", err)
	}
	return info, nil
}

// scanner is the state of one Scan.
type scanner struct {
	ctx      context.Context // of the one call that it lives for
	store    backend.Store
	opts     Options
	dir      string
	progress dataset.Progress

	included int                       // files that match
	indexes  map[string]backend.Object // .idx files by name
	used     map[string]bool           // of indexes: those with a .bin beside them
	files    []scannedFile
	total    int64 // tokens
}

// scannedFile is a token file that belongs to the dataset.
type scannedFile struct {
	File
	record dataset.Record
}

func (s *scanner) scan() (dataset.Info, error) {
	if err := checkDType(s.opts.DType); err != nil {
		return dataset.Info{}, err
	}
	patterns := s.opts.Include
	if len(patterns) == 0 {
		patterns = []string{DefaultInclude}
	}
	in, err := dataset.CompileInclude(patterns)
	if err != nil {
		return dataset.Info{}, err
	}
	listing, err := dataset.List(s.ctx, s.store, in, s.dir, s.progress, s.visit)
	if err != nil {
		return dataset.Info{}, err
	}
	defer listing.Close()
	if err := listing.Each(s.ctx, s.progress, func(r *dataset.Record) error { return s.add(listing, r) }); err != nil {
		return dataset.Info{}, err
	}
	if err := s.checkIndexes(listing, in); err != nil {
		return dataset.Info{}, err
	}
	if len(s.files) == 0 {
		return dataset.Info{}, &backend.Error{Kind: backend.NotFound, Op: "find", Object: "token files",
			Detail: fmt.Sprintf("looked for %s; the %d files found hold no tokens", in, listing.Files),
			Remedy: "complete the files, or choose others with --include"}
	}
	return s.write(listing)
}

// visit keeps the .idx files, which must be known before their .bin is judged.
func (s *scanner) visit(o *backend.Object, included bool) error {
	if isIndex(o.Name) {
		kept := *o
		kept.Name = bytes.Clone(o.Name)
		s.indexes[string(o.Name)] = kept
	} else if included {
		s.included++
	}
	if max(s.included, len(s.indexes)) > MaxFiles {
		return &backend.Error{Kind: backend.Invalid, Op: "index", Object: string(o.Name), Detail: fmt.Sprintf("it is one more than %d token files", MaxFiles),
			Remedy: "join them to larger files, choose some with --include, or index them as files with --format raw"}
	}
	return nil
}

func isIndex(name []byte) bool { return bytes.HasSuffix(name, []byte(".idx")) }

// indexFor returns the name of the .idx that a .bin would have.
func indexFor(bin []byte) string { return string(bytes.TrimSuffix(bin, []byte(".bin"))) + ".idx" }

// add looks at one file that matches.
func (s *scanner) add(listing *dataset.Listing, r *dataset.Record) error {
	if isIndex(r.Name) { // a pattern matched it too; it counts with its .bin
		return nil
	}
	bin := backend.Object{Origin: listing.Origin, Name: r.Name, Version: r.Version}
	var beside *backend.Object
	if idx, ok := s.indexes[indexFor(r.Name)]; ok {
		s.used[indexFor(r.Name)] = true
		beside = &idx
	}
	f, err := Inspect(s.ctx, s.store, &bin, beside, s.opts.DType)
	if err != nil {
		return err
	}
	if f.Tokens == 0 {
		listing.Skipped[skippedEmpty]++
		return nil
	}
	if len(s.files) > 0 {
		if a := s.files[0]; a.Layout != f.Layout || a.DType != f.DType {
			return &backend.Error{Kind: backend.Invalid, Op: "index", Object: string(r.Name),
				Detail: fmt.Sprintf("%q holds %s tokens (%s), %q holds %s (%s): a dataset has one kind",
					a.record.Name, a.DType, a.Layout, r.Name, f.DType, f.Layout),
				Remedy: "choose one kind with --include"}
		}
	}
	kept := *r
	kept.Name = bytes.Clone(r.Name)
	s.files = append(s.files, scannedFile{f, kept})
	s.total += f.Tokens
	return nil
}

// checkIndexes counts the .idx files that were read as part of the dataset, and
// refuses one that lacks the .bin of a Megatron pair: half of a copy is worse than an
// error. Other files that end in .idx are only counted as left out.
func (s *scanner) checkIndexes(listing *dataset.Listing, in *dataset.Include) error {
	for name, idx := range s.indexes {
		bin := name[:len(name)-len(".idx")] + ".bin"
		matched := in.Match([]byte(name))
		if s.used[name] && !matched {
			listing.Unskip(idx.Name)
		}
		if s.used[name] || !in.Match([]byte(bin)) {
			continue
		}
		head := make([]byte, min(int64(len(megatronMagic)), idx.Version.Size))
		if err := dataset.ReadObject(s.ctx, s.store, &idx, head, 0); err != nil {
			return err
		}
		if hasMegatronMagic(head) {
			return &backend.Error{Kind: backend.NotFound, Op: "find", Object: bin,
				Detail: fmt.Sprintf("%q is a Megatron index, but its tokens are not there", name),
				Remedy: "complete the copy, or remove the .idx"}
		}
		if !matched {
			listing.Unskip(idx.Name)
		}
		listing.Skipped[skippedIndex]++
	}
	return nil
}

// write writes the index.
func (s *scanner) write(listing *dataset.Listing) (dataset.Info, error) {
	options, err := json.Marshal(s.opts)
	if err != nil {
		return dataset.Info{}, fmt.Errorf("encode options: %w", err)
	}
	w, err := dataset.Create(s.dir, int64(len(s.files)))
	if err != nil {
		return dataset.Info{}, err
	}
	var extra [extraBytes]byte
	for i := range s.files {
		f := &s.files[i]
		binary.LittleEndian.PutUint64(extra[0:], uint64(f.Start))
		binary.LittleEndian.PutUint64(extra[8:], uint64(f.Tokens))
		f.record.Extra = extra[:]
		if err := w.Append(&f.record); err != nil {
			w.Abort()
			return dataset.Info{}, err
		}
	}
	dtype := s.files[0].DType
	meta, err := w.Commit(dataset.Meta{
		Origin:  listing.Origin,
		Options: options,
		Info: dataset.Info{
			Format: Format, Tokens: s.total, DType: dtype, Files: int64(len(s.files)),
			Bytes: s.total * dtype.Size(), Skipped: listing.Skipped,
		},
	})
	return meta.Info, err
}
