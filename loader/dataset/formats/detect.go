package formats

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/raw"
	"github.com/stokerio/stoker/loader/dataset/tokens"
)

// Detection is what a look at an origin's files suggests.
type Detection struct {
	Format string
	Saw    string // in words, e.g. "3 Megatron .bin/.idx pairs, uint16"
}

// errDecided ends a listing whose rest does not matter.
var errDecided = errors.New("decided")

// Detect tells an origin's format by the names of its files: tokens if every one
// that the patterns include (none: that is not hidden) is a .bin or .idx, else raw.
// What people keep beside token files does not count: see besideTokens. It stops at
// the first file that settles it, and reads the header of one .bin for its words.
//
// Errors: NotFound if there is no file, those of the origin, and Corrupt if the .bin
// that it reads is not what it begins as.
func Detect(ctx context.Context, store backend.Store, include []string, dtype dataset.DType) (Detection, error) {
	d, err := detect(ctx, store, include, dtype)
	if err != nil {
		return Detection{}, fmt.Errorf("detect format: %w", err)
	}
	return d, nil
}

func detect(ctx context.Context, store backend.Store, include []string, dtype dataset.DType) (Detection, error) {
	in, err := dataset.CompileInclude(include)
	if err != nil {
		return Detection{}, err
	}
	lister, ok := backend.As[backend.Lister](store)
	if !ok {
		return Detection{}, fmt.Errorf("%T has no list of objects", store)
	}
	s := sighting{in: in}
	if err := lister.Objects(ctx, s.visit); err != nil && !errors.Is(err, errDecided) {
		return Detection{}, err
	}
	switch {
	case s.other != "":
		return Detection{Format: raw.Format, Saw: fmt.Sprintf("files that are no token files, such as %q", s.other)}, nil
	case s.bins > 0:
		return s.tokens(ctx, store, dtype)
	case s.beside != "":
		return Detection{Format: raw.Format, Saw: fmt.Sprintf("files that are no token files, such as %q", s.beside)}, nil
	}
	if len(s.indexes) > 0 {
		return Detection{Format: raw.Format, Saw: fmt.Sprintf("files that are no token files, such as %q", s.indexes[0].Name)}, nil
	}
	return Detection{}, &backend.Error{Kind: backend.NotFound, Op: "find", Object: "files of the dataset",
		Detail: fmt.Sprintf("looked for %s; saw %d other files", in, s.left)}
}

// sighting is what a listing has shown so far.
type sighting struct {
	in      *dataset.Include
	bins    int             // .bin files
	left    int             // files not included
	first   *backend.Object // the first .bin by name
	indexes []backend.Object
	other   string // a file that is no token file
	beside  string // a file that does not count beside token files
}

// visit sorts one file into what was seen.
func (s *sighting) visit(o backend.Object) error {
	isIndex := bytes.HasSuffix(o.Name, []byte(".idx"))
	if !s.in.Match(o.Name) && !(isIndex && !dataset.Hidden(o.Name)) {
		s.left++
		return nil
	}
	switch {
	case isIndex:
		o.Name = bytes.Clone(o.Name)
		s.indexes = append(s.indexes, o)
	case bytes.HasSuffix(o.Name, []byte(".bin")):
		s.bins++
		if s.first == nil || bytes.Compare(o.Name, s.first.Name) < 0 {
			o.Name = bytes.Clone(o.Name)
			s.first = &o
		}
	case besideTokens(o.Name):
		s.beside = string(o.Name)
		return nil
	default:
		s.other = string(o.Name)
		return errDecided
	}
	if s.bins > tokens.MaxFiles || len(s.indexes) > tokens.MaxFiles {
		s.other = string(o.Name)
		return errDecided
	}
	return nil
}

// besideTokens reports whether a file is of a kind that tools and people leave beside
// token files: scripts, notes and metadata (nanoGPT's meta.pkl and prepare.py).
func besideTokens(name []byte) bool {
	base := name[bytes.LastIndexByte(name, '/')+1:]
	for _, suffix := range []string{".md", ".py", ".pkl", ".json", ".yaml", ".yml", ".sh", ".log"} {
		if bytes.HasSuffix(base, []byte(suffix)) {
			return true
		}
	}
	return slices.Contains([]string{"README", "LICENSE", "NOTICE", "_SUCCESS"}, string(base))
}

// tokens describes token files by the header of the first.
func (s *sighting) tokens(ctx context.Context, store backend.Store, dtype dataset.DType) (Detection, error) {
	var beside *backend.Object
	want := append(bytes.TrimSuffix(bytes.Clone(s.first.Name), []byte(".bin")), ".idx"...)
	for i := range s.indexes {
		if bytes.Equal(s.indexes[i].Name, want) {
			beside = &s.indexes[i]
		}
	}
	f, err := tokens.Inspect(ctx, store, s.first, beside, dtype)
	if err != nil {
		return Detection{}, err
	}
	what := ".bin files"
	if f.Layout == tokens.Megatron {
		what = ".bin/.idx pairs"
	}
	if s.bins == 1 {
		what = what[:len(what)-1]
	}
	saw := fmt.Sprintf("%d %s %s, %s", s.bins, f.Layout, what, f.DType)
	if f.Layout == tokens.Bare && dtype == "" {
		saw += " (assumed: bare files do not say it)"
	}
	return Detection{Format: tokens.Format, Saw: saw}, nil
}
