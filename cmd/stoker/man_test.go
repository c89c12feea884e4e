package main

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stokerio/stoker/loader/dataset"
)

// manualDirectory is where the committed pages are.
const manualDirectory = "../../docs/man"

func TestTheManualIsCurrent(t *testing.T) {
	if *update {
		if got := newPlace(t).run(t, "man", manualDirectory); got.code != exitOK {
			t.Fatalf("%+v", got)
		}
	}
	pages, err := manual((&app{}).rootCommand())
	if err != nil {
		t.Fatal(err)
	}
	committed, err := filepath.Glob(filepath.Join(manualDirectory, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i, path := range committed {
		committed[i] = filepath.Base(path)
	}
	if names := slices.Sorted(maps.Keys(pages)); !slices.Equal(names, committed) {
		t.Fatalf("docs/man has %q, the commands are %q\nwrite the pages anew with: go run ./cmd/stoker man docs/man", committed, names)
	}
	for name, page := range pages {
		text, err := os.ReadFile(filepath.Join(manualDirectory, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(text, page) {
			t.Errorf("docs/man/%s is not current\nwrite the pages anew with: go run ./cmd/stoker man docs/man", name)
		}
	}
}

func TestEveryPageHasExitCodesAndNoVersionOfItsMaking(t *testing.T) {
	pages, err := manual((&app{}).rootCommand())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"stoker.1", "stoker-top.1", "stoker-dataset-lint.1", "stoker-exit-codes.1", "stoker-completion-bash.1"} {
		if pages[name] == nil {
			t.Errorf("there is no %s", name)
		}
	}
	for name, page := range pages {
		topic := name == "stoker-exit-codes.1" || name == "stoker-lint-codes.1"
		if !topic && !bytes.Contains(page, []byte(".SH EXIT STATUS")) {
			t.Errorf("%s does not tell the exit codes", name)
		}
		if strings.Contains(string(page), version) || bytes.Contains(page, []byte("spf13")) {
			t.Errorf("%s depends on how it was made", name)
		}
	}
}

func TestManRemovesPagesOfCommandsThatAreNoMore(t *testing.T) {
	directory := t.TempDir()
	old, other := filepath.Join(directory, "stoker-old.1"), filepath.Join(directory, "other.1")
	for _, path := range []string{old, other} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := newPlace(t).run(t, "man", directory); got.code != exitOK {
		t.Fatalf("%+v", got)
	}
	if _, err := os.Stat(old); err == nil {
		t.Error("the old page stays")
	}
	for _, path := range []string{other, filepath.Join(directory, "stoker-dataset-add.1")} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	if got := newPlace(t).run(t, "man", "/proc/nowhere"); got.code != exitError {
		t.Errorf("%+v", got)
	}
}

func TestExitCodesAreDocumented(t *testing.T) {
	golden(t, "help-exit-codes", newPlace(t).run(t, "help", "exit-codes"))
	if len(exitCodes) != exitFindings+1 {
		t.Errorf("%d codes are documented", len(exitCodes))
	}
}

func TestEveryFindingIsExplained(t *testing.T) {
	got := newPlace(t).run(t, "help", "lint-codes")
	for _, code := range dataset.LintCodes() {
		if got.code != exitOK || !strings.Contains(got.out, "\n  "+code.Code+" (") {
			t.Errorf("%s is not explained", code.Code)
		}
	}
	for line := range strings.SplitSeq(got.out, "\n") {
		if len([]rune(line)) > 100 {
			t.Errorf("%q is too long", line)
		}
	}
}
