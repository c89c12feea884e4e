package raw

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/internal/dirstore"
)

// tree is an origin of files with these sizes, and of links.
type tree struct {
	dirstore.Store
	sizes map[string]int64
	links []string
}

func (s tree) Objects(_ context.Context, visit func(backend.Object) error, leftOut func([]byte, string)) error {
	names := make([]string, 0, len(s.sizes))
	for name := range s.sizes {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := visit(backend.Object{Origin: "tree", Name: []byte(name), Version: backend.Version{Size: s.sizes[name]}}); err != nil {
			return err
		}
	}
	for _, name := range s.links {
		leftOut([]byte(name), backend.LinkNowhere)
	}
	return nil
}

// linted runs a lint and returns its findings as "code file".
func linted(t *testing.T, store backend.Store, opts Options) ([]string, dataset.LintSummary) {
	t.Helper()
	var found []string
	summary, err := Lint(context.Background(), store, opts, func(f dataset.Finding) error {
		if f.What == "" || f.Remedy == "" || f.Severity == "" || f.Offset != -1 {
			t.Errorf("finding %+v is not complete", f)
		}
		found = append(found, f.Code+" "+f.File)
		return nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return found, summary
}

// files returns n files of a class, of that size.
func (s tree) files(class string, n int, size int64) tree {
	for i := range n {
		s.sizes[fmt.Sprintf("%s/%05d.jpg", class, i)] = size
	}
	return s
}

func newTree() tree { return tree{sizes: map[string]int64{}} }

func TestLintFindsWhatSurprisesInATree(t *testing.T) {
	with := func(s tree, name string, size int64) tree {
		s.sizes[name] = size
		return s
	}
	linked := newTree().files("a", 2, 1<<20)
	linked.links = []string{"a/link.jpg", ".hidden-link"}
	for name, c := range map[string]struct {
		store tree
		want  []string
	}{
		"good":            {newTree().files("a", 20, 1<<20).files("b", 30, 1<<20), nil},
		"no-files":        {newTree(), []string{"no-files "}},
		"empty-file":      {with(newTree().files("a", 2, 1<<20), "b/x.jpg", 0), []string{"empty-file b/x.jpg"}},
		"small-files":     {newTree().files("a", manyFiles, 4000).files("b", manyFiles-1, 1<<20), []string{"small-files a/00000.jpg"}},
		"few small files": {newTree().files("a", 300, 4000), nil},
		"class-imbalance": {newTree().files("a", 50, 1<<20).files("b", 1, 1<<20), []string{"class-imbalance b/"}},
		"no-class":        {with(newTree().files("a", 2, 1<<20), "x.jpg", 1<<20), []string{"no-class x.jpg"}},
		"no classes":      {with(newTree(), "x.jpg", 1<<20), nil},
		"case-collision":  {newTree().files("Cat", 2, 1<<20).files("cat", 2, 1<<20), []string{"case-collision cat/"}},
		"hidden":          {with(newTree().files("a", 2, 1<<20), "a/.x.jpg", 1), []string{"left-out a/.x.jpg"}},
		"links":           {linked, []string{"left-out a/link.jpg"}},
	} {
		if got, _ := linted(t, c.store, Options{}); !slices.Equal(got, c.want) {
			t.Errorf("%s: found %q, want %q", name, got, c.want)
		}
	}
}

func TestLintCountsWhatBelongsToTheDataset(t *testing.T) {
	store := newTree().files("a", 3, 1<<20).files("b", 2, 1<<20)
	store.sizes["notes.txt"] = 5
	_, summary := linted(t, store, Options{Include: []string{"**/*.jpg"}})
	if summary.Files != 5 || summary.Samples != 5 || summary.Bytes != 5<<20 || summary.Format != Format || len(summary.Findings) != 0 {
		t.Errorf("%+v", summary)
	}
}

func TestLintEndsWithItsVisitorOrContext(t *testing.T) {
	enough := errors.New("enough")
	store := newTree().files("a", 5000, 0)
	if _, err := Lint(context.Background(), store, Options{}, func(dataset.Finding) error { return enough }, nil); !errors.Is(err, enough) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(enough)
	if _, err := Lint(ctx, store, Options{}, func(dataset.Finding) error { return nil }, nil); !errors.Is(err, enough) {
		t.Errorf("%v", err)
	}
}
