// Package formats knows all dataset formats: it tells which one a directory holds
// and calls it by name. A new format is one more case here.
package formats

import (
	"context"
	"fmt"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/raw"
	"github.com/stokerio/stoker/loader/dataset/tokens"
)

// Auto asks Scan to find out the format.
const Auto = "auto"

// Options are a scan's, whatever the format.
type Options struct {
	Format  string        // Auto (or ""), raw.Format or tokens.Format
	Include []string      // patterns as dataset.Include has them; none: the format's default
	DType   dataset.DType // tokens: type of bare files; "": tokens.DefaultDType
}

// Scan writes the index of an origin's files into dir. saw says in words what Auto
// decided and why; it is empty if the format was given. Errors: as raw.Scan and
// tokens.Scan.
func Scan(ctx context.Context, store backend.Store, opts Options, dir string, progress dataset.Progress) (info dataset.Info, saw string, err error) {
	format := opts.Format
	if format == "" || format == Auto {
		d, err := Detect(ctx, store, opts.Include, opts.DType)
		if err != nil {
			return dataset.Info{}, "", err
		}
		format, saw = d.Format, d.Saw
	}
	switch format {
	case raw.Format:
		info, err = raw.Scan(ctx, store, raw.Options{Include: opts.Include}, dir, progress)
	case tokens.Format:
		info, err = tokens.Scan(ctx, store, tokens.Options{Include: opts.Include, DType: opts.DType}, dir, progress)
	default:
		err = &backend.Error{Kind: backend.Invalid, Op: "use format", Object: format, Detail: "it is not known",
			Remedy: fmt.Sprintf("use %q, %q or %q", Auto, raw.Format, tokens.Format)}
	}
	return info, saw, err
}

// ViewOptions are a session's choices, whatever the format.
type ViewOptions struct {
	BlockSize int64 // tokens only; other formats ignore it
}

// Open returns the samples of an index. Errors: as raw.Open and tokens.Open.
func Open(idx *dataset.Index, opts ViewOptions) (dataset.View, error) {
	switch format := idx.Info().Format; format {
	case raw.Format:
		return raw.Open(idx)
	case tokens.Format:
		return tokens.Open(idx, tokens.ViewOptions{BlockSize: opts.BlockSize})
	default:
		return nil, idx.CorruptIndex(fmt.Sprintf("its format %q is not known to this release", format))
	}
}
