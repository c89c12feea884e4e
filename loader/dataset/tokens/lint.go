package tokens

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
)

// shortTokens is how many tokens one row takes at the block size that is most common.
const shortTokens = 1024 + 1

// Lint looks at all token files of a dataset as Scan does, and tells visit of
// everything that would end a scan or surprise, in the order of the files' paths.
// dataset.LintCodes lists what there is. It reads what Scan reads, and keeps about 300
// bytes a file in memory. progress may be nil.
//
// Errors: Invalid for opts.DType, those of listing the origin, that of visit, the cause
// of ctx. What is wrong with a single file is a finding.
func Lint(ctx context.Context, store backend.Store, opts Options, visit func(dataset.Finding) error, progress dataset.Progress) (dataset.LintSummary, error) {
	l := &linter{Lint: dataset.NewLint(Format, visit), store: store, opts: opts, progress: progress, indexes: map[string]*backend.Object{}}
	if err := l.lint(ctx); err != nil {
		return l.Summary, fmt.Errorf("lint token files: %w", err)
	}
	return l.Summary, nil
}

// linter is the state of one Lint.
type linter struct {
	*dataset.Lint
	store    backend.Store
	opts     Options
	progress dataset.Progress

	files   []backend.Object
	indexes map[string]*backend.Object // .idx files that are not yet seen to belong to one of files

	first     *File // that holds tokens
	firstName string
}

func (l *linter) lint(ctx context.Context) error {
	if err := checkDType(l.opts.DType); err != nil {
		return err
	}
	patterns := l.opts.Include
	if len(patterns) == 0 {
		patterns = []string{DefaultInclude}
	}
	in, err := dataset.CompileInclude(patterns)
	if err != nil {
		return err
	}
	if err := l.list(ctx, in); err != nil {
		return err
	}
	done := dataset.Done{FilesTotal: int64(len(l.files))}
	for i := range l.files {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := l.file(ctx, &l.files[i]); err != nil {
			return err
		}
		done.Files, done.Bytes = int64(i+1), l.Summary.Bytes
		if l.progress != nil {
			l.progress(done)
		}
	}
	if err := l.strayIndexes(ctx, in); err != nil {
		return err
	}
	_, err = l.Finish()
	return err
}

// list lists the token files and all .idx files.
func (l *linter) list(ctx context.Context, in *dataset.Include) error {
	isTokens := func(name []byte) bool { return bytes.HasSuffix(name, []byte(".bin")) }
	seen, err := dataset.ListForLint(ctx, l.store, in, l.Lint, isTokens, func(o backend.Object, included bool) error {
		o.Name = bytes.Clone(o.Name)
		switch {
		case isIndex(o.Name):
			l.indexes[string(o.Name)] = &o
		case included:
			l.files = append(l.files, o)
		}
		if max(len(l.files), len(l.indexes)) > MaxFiles {
			return &backend.Error{Kind: backend.Invalid, Op: "lint", Object: string(o.Name), Detail: fmt.Sprintf("it is one more than %d token files", MaxFiles),
				Remedy: "join them to larger files, or choose some with --include"}
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(l.files, func(a, b backend.Object) int { return bytes.Compare(a.Name, b.Name) })
	l.Summary.Files = int64(len(l.files))
	if len(l.files) == 0 {
		return l.Add(dataset.Finding{Code: "no-files", Offset: -1, What: fmt.Sprintf("looked for %s; saw %d other files", in, seen)})
	}
	return nil
}

// file looks at one token file.
func (l *linter) file(ctx context.Context, o *backend.Object) error {
	idx := l.indexes[indexFor(o.Name)]
	delete(l.indexes, indexFor(o.Name))
	f, err := Inspect(ctx, l.store, o, idx, l.opts.DType)
	l.Summary.Bytes += o.Version.Size
	if err != nil {
		return l.broken(ctx, o, err)
	}
	switch {
	case f.Tokens == 0:
		return l.add("no-tokens", o, "it holds no token")
	case l.first == nil:
		l.first, l.firstName = &f, string(o.Name)
	case f.Layout != l.first.Layout || f.DType != l.first.DType:
		return l.add("mixed-tokens", o, fmt.Sprintf("it holds %s tokens (%s), %q holds %s (%s)", f.DType, f.Layout, l.firstName, l.first.DType, l.first.Layout))
	}
	if f.Tokens < shortTokens {
		return l.add("short-tokens", o, fmt.Sprintf("it holds %d tokens", f.Tokens))
	}
	return nil
}

func (l *linter) add(code string, o *backend.Object, what string) error {
	return l.Add(dataset.Finding{Code: code, File: string(o.Name), Offset: -1, What: what})
}

// broken tells of a file that Inspect refused.
func (l *linter) broken(ctx context.Context, o *backend.Object, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	finding := dataset.Finding{Code: "unreadable", File: string(o.Name), Offset: -1, What: err.Error()}
	if backend.KindOf(err) == backend.Corrupt {
		finding.Code = "bad-tokens"
	}
	var e *backend.Error
	if errors.As(err, &e) && e.Detail != "" {
		finding.File, finding.What, finding.Remedy = e.Object, e.Detail, e.Remedy
	}
	return l.Add(finding)
}

// strayIndexes tells of .idx files without their .bin.
func (l *linter) strayIndexes(ctx context.Context, in *dataset.Include) error {
	names := make([]string, 0, len(l.indexes))
	for name := range l.indexes {
		if in.Match([]byte(strings.TrimSuffix(name, ".idx") + ".bin")) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		idx := l.indexes[name]
		head := make([]byte, min(int64(len(megatronMagic)), idx.Version.Size))
		err := dataset.ReadObject(ctx, l.store, idx, head, 0)
		switch {
		case err != nil:
			err = l.broken(ctx, idx, err)
		case hasMegatronMagic(head):
			err = l.add("index-without-tokens", idx, fmt.Sprintf("%q is not there", strings.TrimSuffix(name, ".idx")+".bin"))
		default:
			err = l.add("stray-index", idx, "it is no Megatron index and lies beside no .bin")
		}
		if err != nil {
			return err
		}
	}
	return nil
}
