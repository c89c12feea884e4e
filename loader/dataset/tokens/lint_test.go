package tokens

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/internal/dirstore"
)

// linted runs a lint of files and returns its findings as "code file".
func linted(t *testing.T, files map[string][]byte, opts Options) ([]string, dataset.LintSummary) {
	t.Helper()
	dir := t.TempDir()
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var found []string
	summary, err := Lint(context.Background(), dirstore.Store{Dir: dir}, opts, func(f dataset.Finding) error {
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

func TestLintFindsWhatIsWrongWithTokenFiles(t *testing.T) {
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := make([]byte, 2*shortTokens)
	bin, idx := read("megatron/a.bin"), read("megatron/a.idx")
	llmc := read("llmc/gpt2.bin")
	for name, c := range map[string]struct {
		files map[string][]byte
		want  []string
	}{
		"good":                 {map[string][]byte{"a.bin": good, "b.bin": good}, nil},
		"no-files":             {map[string][]byte{"a.txt": good}, []string{"no-files "}},
		"odd bytes":            {map[string][]byte{"a.bin": good[1:]}, []string{"bad-tokens a.bin"}},
		"no-tokens":            {map[string][]byte{"a.bin": nil, "b.bin": good}, []string{"no-tokens a.bin"}},
		"short-tokens":         {map[string][]byte{"a.bin": good[2:]}, []string{"short-tokens a.bin"}},
		"index-without-tokens": {map[string][]byte{"a.bin": good, "b.idx": idx}, []string{"index-without-tokens b.idx"}},
		"stray-index":          {map[string][]byte{"a.bin": good, "b.idx": []byte("v1.2 0\n")}, []string{"stray-index b.idx"}},
		"bad .idx":             {map[string][]byte{"a.bin": bin, "a.idx": idx[:20]}, []string{"bad-tokens a.idx"}},
		"short .bin":           {map[string][]byte{"a.bin": bin[:2], "a.idx": idx}, []string{"bad-tokens a.bin"}},
		"mixed-tokens":         {map[string][]byte{"a.bin": good, "b.bin": llmc}, []string{"mixed-tokens b.bin"}},
		"cut llm.c":            {map[string][]byte{"a.bin": llmc[:len(llmc)-1]}, []string{"bad-tokens a.bin"}},
		"hidden":               {map[string][]byte{"a.bin": good, ".b.bin": good, ".c.txt": good}, []string{"left-out .b.bin"}},
		"idx as .bin":          {map[string][]byte{"a.bin": idx}, []string{"bad-tokens a.bin"}},
	} {
		got, summary := linted(t, c.files, Options{})
		if !slices.Equal(got, c.want) || int(summary.Errors+summary.Warnings+summary.Notes) != len(c.want) {
			t.Errorf("%s: found %q, want %q; %+v", name, got, c.want, summary)
		}
	}
	if got, _ := linted(t, map[string][]byte{"a.bin": good[:2048]}, Options{DType: dataset.Uint32}); !slices.Equal(got, []string{"short-tokens a.bin"}) {
		t.Errorf("uint32: %q", got)
	}
	_, err := Lint(context.Background(), dirstore.Store{Dir: t.TempDir()}, Options{DType: dataset.Float32}, nil, nil)
	if backend.KindOf(err) != backend.Invalid {
		t.Errorf("float32: %v", err)
	}
}

func TestLintEndsWithItsVisitorOrContext(t *testing.T) {
	enough := errors.New("enough")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.bin"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Lint(context.Background(), dirstore.Store{Dir: dir}, Options{}, func(dataset.Finding) error { return enough }, nil); !errors.Is(err, enough) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(enough)
	if _, err := Lint(ctx, dirstore.Store{Dir: dir}, Options{}, func(dataset.Finding) error { return nil }, nil); !errors.Is(err, enough) {
		t.Errorf("%v", err)
	}
}
