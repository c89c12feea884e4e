package raw

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
)

// What a lint takes for small and many.
const (
	smallFile  = 16 << 10
	manyFiles  = 1000 // fewer small files are no matter
	imbalance  = 50   // of the largest class and the smallest
	fewSamples = 10   // of the largest class: less says nothing
)

// Lint looks for everything in a directory of files that would surprise or slow
// training, and tells visit of it as it comes; what concerns many files comes last.
// dataset.LintCodes lists what there is. No file is opened, and nothing is kept but the
// names of up to 2^18 classes. progress may be nil.
//
// Errors: those of listing the origin, that of visit, the cause of ctx.
func Lint(ctx context.Context, store backend.Store, opts Options, visit func(dataset.Finding) error, progress dataset.Progress) (dataset.LintSummary, error) {
	l := &linter{Lint: dataset.NewLint(Format, visit), progress: progress, classes: map[string]int64{}}
	if err := l.lint(ctx, store, opts); err != nil {
		return l.Summary, fmt.Errorf("lint raw files: %w", err)
	}
	return l.Summary, nil
}

// linter is the state of one Lint.
type linter struct {
	*dataset.Lint
	progress dataset.Progress

	classes map[string]int64 // files
	tooMany bool             // there are more classes than are counted, see maxClasses
	inRoot  int64            // files
	first   string           // of them
	small   int64            // files
	example string           // of them
}

func (l *linter) lint(ctx context.Context, store backend.Store, opts Options) error {
	in, err := dataset.CompileInclude(opts.Include)
	if err != nil {
		return err
	}
	seen, err := dataset.ListForLint(ctx, store, in, l.Lint, nil, func(o backend.Object, included bool) error {
		if !included {
			return nil
		}
		return l.file(&o)
	})
	if err != nil {
		return err
	}
	l.report()
	if err := l.sumUp(in, seen); err != nil {
		return err
	}
	_, err = l.Finish()
	return err
}

// file looks at one file.
func (l *linter) file(o *backend.Object) error {
	s := &l.Summary
	s.Files++
	s.Samples++
	s.Bytes += o.Version.Size
	if s.Files%1000 == 0 {
		l.report()
	}
	l.classify(o.Name)
	if o.Version.Size < smallFile {
		if l.small++; l.small == 1 {
			l.example = string(o.Name)
		}
	}
	if o.Version.Size == 0 {
		return l.Add(dataset.Finding{Code: "empty-file", File: string(o.Name), Offset: -1, What: "it has 0 bytes"})
	}
	return nil
}

// classify counts a file for its class.
func (l *linter) classify(name []byte) {
	class, ok := classOf(name)
	if !ok {
		if l.inRoot++; l.inRoot == 1 {
			l.first = string(name)
		}
		return
	}
	if _, known := l.classes[string(class)]; known || len(l.classes) < maxClasses {
		l.classes[string(class)]++
		return
	}
	l.tooMany = true
}

func (l *linter) report() {
	if l.progress != nil {
		l.progress(dataset.Done{Files: l.Summary.Files, Bytes: l.Summary.Bytes, Samples: l.Summary.Samples})
	}
}

// sumUp tells of what concerns many files.
func (l *linter) sumUp(in *dataset.Include, seen int64) error {
	var found []dataset.Finding
	add := func(code, file, format string, args ...any) {
		found = append(found, dataset.Finding{Code: code, File: file, Offset: -1, What: fmt.Sprintf(format, args...)})
	}
	s := l.Summary
	if s.Files == 0 {
		add("no-files", "", "looked for %s; saw %d other files", in, seen)
	}
	if l.small >= manyFiles && 2*l.small > s.Files {
		add("small-files", l.example, "%d of %d files have less than %d bytes; this is one of them", l.small, s.Files, smallFile)
	}
	if len(l.classes) > 0 && l.inRoot > 0 && !l.tooMany {
		add("no-class", l.first, "%d files lie in the root beside %d classes; this is one of them", l.inRoot, len(l.classes))
	}
	if smallest, largest, ok := l.extremes(); ok && l.classes[largest] >= max(fewSamples, imbalance*l.classes[smallest]) {
		add("class-imbalance", smallest+"/", "class %.80q has %d files, %.80q has %d", smallest, l.classes[smallest], largest, l.classes[largest])
	}
	for _, f := range found {
		if err := l.Add(f); err != nil {
			return err
		}
	}
	return l.caseCollisions()
}

// extremes returns the classes with the fewest and the most files.
func (l *linter) extremes() (smallest, largest string, ok bool) {
	if l.tooMany || len(l.classes) < 2 {
		return "", "", false
	}
	for _, class := range l.sorted() {
		if n := l.classes[class]; !ok || n < l.classes[smallest] {
			smallest = class
		}
		if n := l.classes[class]; !ok || n > l.classes[largest] {
			largest = class
		}
		ok = true
	}
	return smallest, largest, ok
}

func (l *linter) sorted() []string {
	names := make([]string, 0, len(l.classes))
	for class := range l.classes {
		names = append(names, class)
	}
	slices.Sort(names)
	return names
}

// caseCollisions tells of classes whose names differ in capitals only.
func (l *linter) caseCollisions() error {
	byLower := make(map[string]string, len(l.classes))
	for _, class := range l.sorted() {
		lower := strings.ToLower(class)
		if other, found := byLower[lower]; found {
			err := l.Add(dataset.Finding{Code: "case-collision", File: class + "/", Offset: -1,
				What: fmt.Sprintf("class %.80q differs from it in capitals only", other)})
			if err != nil {
				return err
			}
		}
		byLower[lower] = class
	}
	return nil
}
