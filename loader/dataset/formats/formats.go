// Package formats knows all dataset formats: it tells which one a directory holds
// and calls it by name. A new format is one more case here.
package formats

import (
	"context"
	"fmt"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/raw"
	"github.com/stokerio/stoker/loader/dataset/tar"
	"github.com/stokerio/stoker/loader/dataset/tokens"
)

// Auto asks Scan to find out the format.
const Auto = "auto"

// Options are a scan's, whatever the format.
type Options struct {
	Format  string        // Auto (or ""), raw.Format, tokens.Format or tar.Format
	Include []string      // patterns as dataset.Include has them; none: the format's default
	DType   dataset.DType // tokens: type of bare files; "": tokens.DefaultDType

	// Bad is what becomes of damaged shards and impossible samples (tar): "fail"
	// (default) ends the scan at the first, "skip" leaves them out and counts them.
	Bad string
	// Journal is the path of the file in which a scan notes what it has done, so that
	// one that was interrupted goes on from there (tar). "": none is kept.
	Journal string
	// Reuse is an earlier index: what is said there of files that have not changed is
	// not found out again (tar). May be nil.
	Reuse *dataset.Index
}

// Scan writes the index of an origin's files into dir. saw says in words what Auto
// decided and why; it is empty if the format was given. Errors: as raw.Scan,
// tokens.Scan and tar.Scan.
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
	case tar.Format:
		o := tar.Options{Include: opts.Include, Bad: opts.Bad, Journal: opts.Journal, Reuse: opts.Reuse}
		info, err = tar.Scan(ctx, store, o, dir, progress)
	default:
		err = unknown(format)
	}
	return info, saw, err
}

// Names are the formats that Options.Format may name, besides Auto.
func Names() []string { return []string{raw.Format, tokens.Format, tar.Format} }

// unknown is the error for a format that there is not.
func unknown(format string) error {
	return &backend.Error{Kind: backend.Invalid, Op: "use format", Object: format, Detail: "it is not known",
		Remedy: fmt.Sprintf("use %q, %q, %q or %q", Auto, raw.Format, tokens.Format, tar.Format)}
}

// Lint looks for what would break or slow training in an origin's files, and calls
// visit for each finding, one at a time; the summary counts them all. It writes
// nothing. progress may be nil. Errors: as raw.Lint, tokens.Lint and tar.Lint, and
// what visit returns; what is wrong with the files is a finding and no error.
func Lint(ctx context.Context, store backend.Store, opts Options, visit func(dataset.Finding) error, progress dataset.Progress) (dataset.LintSummary, error) {
	format := opts.Format
	if format == "" || format == Auto {
		d, err := Detect(ctx, store, opts.Include, opts.DType)
		if err != nil {
			return dataset.LintSummary{}, err
		}
		format = d.Format
	}
	switch format {
	case raw.Format:
		return raw.Lint(ctx, store, raw.Options{Include: opts.Include}, visit, progress)
	case tokens.Format:
		return tokens.Lint(ctx, store, tokens.Options{Include: opts.Include, DType: opts.DType}, visit, progress)
	case tar.Format:
		return tar.Lint(ctx, store, tar.Options{Include: opts.Include}, visit, progress)
	}
	return dataset.LintSummary{}, unknown(format)
}

// ViewOptions are a session's choices, whatever the format.
type ViewOptions struct {
	BlockSize int64 // tokens only; other formats ignore it

	// Select are the columns, in order (tar only; empty: one for each part).
	Select []dataset.Select
	// Missing says what a sample without a selected part is: "error" refuses the view,
	// "empty" makes the part 0 bytes long. "": "error" if there is a Select.
	Missing string
}

// Open returns the samples of an index. Errors: as raw.Open,
// tokens.Open and tar.Open.
func Open(idx *dataset.Index, opts ViewOptions) (dataset.View, error) {
	switch format := idx.Info().Format; format {
	case raw.Format:
		return raw.Open(idx)
	case tokens.Format:
		return tokens.Open(idx, tokens.ViewOptions{BlockSize: opts.BlockSize})
	case tar.Format:
		return tar.Open(idx, tar.ViewOptions{Select: opts.Select, Missing: opts.Missing})
	default:
		return nil, idx.CorruptIndex(fmt.Sprintf("its format %q is not known to this release", format))
	}
}
