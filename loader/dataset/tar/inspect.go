package tar

import (
	"context"
	"io"
	"slices"

	"github.com/stokerio/stoker/backend"
)

// What Inspect looks at.
const (
	inspectSamples = 16
	inspectMembers = 256
)

// Inspection is what the beginning of an archive shows.
type Inspection struct {
	Kind  string   // how it is stored: "tar", "gzip", ...
	Parts []string // of its first samples, sorted; none if it begins with no sample
}

// Inspect looks at the first members of the archive o, which it decompresses that far.
// Errors: Corrupt if o is no archive, Invalid if it is packed in a way that is not
// supported, those of the origin.
func Inspect(ctx context.Context, store backend.Store, o *backend.Object) (Inspection, error) {
	in, err := backend.OpenObject(ctx, store, o)
	if err != nil {
		return Inspection{}, err
	}
	i, err := inspect(in, o)
	if closed := in.Close(); err == nil {
		err = closed
	}
	return i, err
}

func inspect(in backend.Reader, o *backend.Object) (Inspection, error) {
	kind, err := archiveKind(in, o)
	if err != nil {
		return Inspection{}, err
	}
	w := NewWalker(objectSource{in, o.Version.Size})
	if kind != kindTar {
		stream, err := newCompressed(in, o).decompress(kind)
		if err != nil {
			return Inspection{}, err
		}
		w = NewStreamWalker(stream)
	}
	w.Object = string(o.Name)
	parts, err := firstParts(w)
	slices.Sort(parts)
	return Inspection{Kind: kind, Parts: parts}, err
}

// firstParts returns the names of the parts of an archive's first samples.
func firstParts(w *Walker) ([]string, error) {
	var parts []string
	last, samples := "", 0
	for range inspectMembers {
		m, err := w.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		key, suffix, ok := SplitName(m.Name)
		if !m.Regular || Skipped(m.Name) || !ok {
			continue
		}
		if samples == 0 || last != string(key) {
			if samples++; samples > inspectSamples {
				break
			}
			last = string(key)
		}
		if !slices.Contains(parts, string(suffix)) {
			parts = append(parts, string(suffix))
		}
	}
	return parts, nil
}

// suffixes are how the names of archives end, see DefaultInclude.
var suffixes = []string{".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.zstd"}

// Named reports whether a file is named as an archive is.
func Named(name []byte) bool {
	for _, s := range suffixes {
		if len(name) > len(s) && string(name[len(name)-len(s):]) == s {
			return true
		}
	}
	return false
}
