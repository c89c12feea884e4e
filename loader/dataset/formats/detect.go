package formats

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/raw"
	"github.com/stokerio/stoker/loader/dataset/tar"
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
// that the patterns include (none: that is not hidden) is a .bin or .idx, tar if every
// one is an archive or an .idx, else raw. What people keep beside them does not count:
// see besides. It stops soon after the first file that settles it, and reads the header
// of one .bin, or of the first members of one archive, for its words.
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
	if err := lister.Objects(ctx, s.visit, s.leftOut); err != nil && !errors.Is(err, errDecided) {
		return Detection{}, err
	}
	switch {
	case s.other != "":
		return s.raw(s.other), nil
	case s.tooMany:
		return Detection{Format: raw.Format, Saw: fmt.Sprintf("more than %d .bin or .idx files, which --format tokens does not take", tokens.MaxFiles)}, nil
	case s.bins > 0 && s.tars > 0:
		return s.raw(string(s.firstTar.Name)), nil
	case s.tars > 0:
		return s.tar(ctx, store)
	case s.bins > 0:
		return s.tokens(ctx, store, dtype)
	case s.beside != "":
		return s.raw(s.beside), nil
	case len(s.indexes) > 0:
		return s.raw(string(s.indexes[0].Name)), nil
	}
	return Detection{}, dataset.NothingFound(in, s.left, "", s.links)
}

// sighting is what a listing has shown so far.
type sighting struct {
	in      *dataset.Include
	bins    int             // .bin files
	left    int64           // files not included
	first   *backend.Object // the first .bin by name
	indexes []backend.Object
	other   string // a file that is neither a token file nor an archive
	after   int    // files seen after other
	beside  string // a file that does not count beside those
	tooMany bool   // more .bin or .idx files than a dataset of tokens may have
	links   dataset.LeftOut

	// Of the archives: how many, their bytes, and the first by name.
	tars     int
	tarBytes int64
	firstTar *backend.Object

	// Of the .bin files: their bytes, how many are in sub-directories, one of their
	// top-level directories, and whether there is another.
	bytes   int64
	nested  int
	class   string
	classes bool
}

const (
	// lookAfter is how many files are looked at for a .bin or an archive, for the words
	// of a detection, once it is decided.
	lookAfter = 1000
	// From classFiles files of at most classMeanBytes each on, .bin files that all
	// lie in sub-directories look like samples of classes, not like token files.
	classFiles     = 8
	classMeanBytes = 1 << 20
)

// raw describes files of which at least one, named, is not of the others' format.
func (s *sighting) raw(other string) Detection {
	saw := fmt.Sprintf("files that are no token files, such as %q", other)
	switch {
	case s.tars > 0 && s.bins > 0:
		saw = fmt.Sprintf("tar archives such as %q beside .bin files such as %q: if one kind alone is meant, add it with --format tar or --format tokens",
			s.firstTar.Name, s.first.Name)
	case s.tars > 0:
		saw = fmt.Sprintf("files that are no tar archives, such as %q, beside archives such as %q: if those alone are meant, add them with --format tar",
			other, s.firstTar.Name)
	case s.bins > 0:
		saw += fmt.Sprintf(", beside .bin files such as %q: if those alone are meant, add them with --format tokens", s.first.Name)
	}
	return Detection{Format: raw.Format, Saw: saw}
}

// leftOut is told of names that the listing leaves out.
func (s *sighting) leftOut(name []byte, _ string) { s.links.Add(s.in, name) }

// visit sorts one file into what was seen.
func (s *sighting) visit(o backend.Object) error {
	if s.other != "" {
		if s.after++; s.bins > 0 || s.tars > 0 || s.after > lookAfter {
			return errDecided
		}
	}
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
		s.bin(o)
	case tar.Named(o.Name):
		s.archive(o)
	case besides(o.Name):
		s.beside = string(o.Name)
		return nil
	case s.other == "":
		s.other = string(o.Name)
	}
	if s.bins > tokens.MaxFiles || len(s.indexes) > tokens.MaxFiles {
		s.tooMany = s.tars == 0
		return errDecided
	}
	return nil
}

// bin notes a .bin file.
func (s *sighting) bin(o backend.Object) {
	s.bins++
	s.bytes += o.Version.Size
	if class, _, ok := bytes.Cut(o.Name, []byte{'/'}); ok {
		if s.nested++; s.class == "" {
			s.class = string(class)
		}
		s.classes = s.classes || s.class != string(class)
	}
	if s.first == nil || bytes.Compare(o.Name, s.first.Name) < 0 {
		o.Name = bytes.Clone(o.Name)
		s.first = &o
	}
}

// archive notes a tar archive.
func (s *sighting) archive(o backend.Object) {
	s.tars++
	s.tarBytes += o.Version.Size
	if s.firstTar == nil || bytes.Compare(o.Name, s.firstTar.Name) < 0 {
		o.Name = bytes.Clone(o.Name)
		s.firstTar = &o
	}
}

// looksLikeClasses reports whether the .bin files may be samples in directories that
// are their classes.
func (s *sighting) looksLikeClasses() bool {
	return s.classes && s.nested == s.bins && s.bins >= classFiles && s.bytes/int64(s.bins) <= classMeanBytes
}

// besides reports whether a file is of a kind that tools and people leave beside token
// files and archives: scripts, notes and metadata (nanoGPT's meta.pkl and prepare.py,
// webdataset's dataset.json).
func besides(name []byte) bool {
	base := name[bytes.LastIndexByte(name, '/')+1:]
	for _, suffix := range []string{".md", ".py", ".pkl", ".json", ".yaml", ".yml", ".sh", ".log"} {
		if bytes.HasSuffix(base, []byte(suffix)) {
			return true
		}
	}
	return slices.Contains([]string{"README", "LICENSE", "NOTICE", "_SUCCESS"}, string(base))
}

// tar describes archives by the first members of the first.
func (s *sighting) tar(ctx context.Context, store backend.Store) (Detection, error) {
	saw := fmt.Sprintf("%d tar shards, %s", s.tars, humanBytes(s.tarBytes))
	if s.tars == 1 {
		saw = "1 tar shard, " + humanBytes(s.tarBytes)
	}
	found, err := tar.Inspect(ctx, store, s.firstTar)
	if kind := backend.KindOf(err); err != nil && kind != backend.Corrupt && kind != backend.Invalid {
		return Detection{}, err
	}
	if found.Kind != "tar" && found.Kind != "" {
		which := ", "
		if s.tars > 1 {
			which = ", the first "
		}
		saw += which + "packed with " + found.Kind
	}
	const most = 8
	switch n := len(found.Parts); {
	case err != nil && found.Kind == "":
		saw += fmt.Sprintf("; %q cannot be read", s.firstTar.Name)
	case err != nil: // whoever scans it says where, or takes the samples before it
		saw += fmt.Sprintf("; %q is damaged or no archive", s.firstTar.Name)
	case n == 0:
		saw += fmt.Sprintf("; %q begins with no sample", s.firstTar.Name)
	case n == most+1:
		saw += fmt.Sprintf("; samples of %s and 1 more part", strings.Join(found.Parts[:most], ", "))
	case n > most:
		saw += fmt.Sprintf("; samples of %s and %d more parts", strings.Join(found.Parts[:most], ", "), n-most)
	default:
		saw += "; samples of " + strings.Join(found.Parts, ", ")
	}
	return Detection{Format: tar.Format, Saw: saw}, nil
}

// humanBytes writes a size for people.
func humanBytes(n int64) string {
	size, unit := float64(n), 0
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for size >= 1024 && unit < len(units)-1 {
		size /= 1024
		unit++
	}
	if unit == 0 || size >= 100 {
		return fmt.Sprintf("%.0f %s", size, units[unit])
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", size), ".0") + " " + units[unit]
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
	if f.Layout == tokens.Bare && s.looksLikeClasses() {
		saw += "; all are small and in sub-directories: if each is a sample and its directory a class, add them with --format raw"
	}
	return Detection{Format: tokens.Format, Saw: saw}, nil
}
