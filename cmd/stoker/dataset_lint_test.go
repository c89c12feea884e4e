package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stokerio/stoker/shm"
)

// found are the findings that the fake daemon has, in two notes.
func found() ([]shm.Finding, []shm.Finding) {
	var duplicates []shm.Finding
	for i := range 7 {
		duplicates = append(duplicates, shm.Finding{
			Severity: "error", Code: "duplicate-part", File: "train-0001.tar", Offset: int64(i) * 10240, Key: fmt.Sprintf("dir/%06d", i),
			What: "the part is there twice", Remedy: "give the parts of a sample different suffixes",
		})
	}
	return duplicates, []shm.Finding{
		{Severity: "warning", Code: "tiny-shard", File: "train-\x1b[2J.tar", Offset: -1, What: "it has 10.0 KiB", Remedy: "make shards of 64 MiB or more"},
		{Severity: "error", Code: "truncated", File: "train-0002.tar", Offset: 512, What: "it ends within a member", Remedy: "write it again"},
		{Severity: "error", Code: "truncated", File: "train-0003.tar", Offset: 1024, What: "it ends within a header", Remedy: "fetch it again"},
	}
}

// lints answers one request for a lint; seen is told of it and of what the
// descriptor opens, if one came.
func lints(seen func(request shm.DatasetLint, directory string), errors int64) script {
	return greeted(func(t *testing.T, conn *shm.Conn) {
		var request shm.DatasetLint
		directory := ""
		for _, descriptor := range take(t, conn, &request) {
			target, err := os.Readlink("/proc/self/fd/" + itoa(descriptor))
			if err != nil {
				t.Error(err)
			}
			directory = target
			shm.CloseAll([]int{descriptor})
		}
		seen(request, directory)
		send(t, conn, shm.ProgressNote{Type: shm.TypeProgress, FilesDone: 1, FilesTotal: 3, BytesDone: 1 << 20, BytesTotal: 3 << 20})
		summary := shm.LintSummary{Format: "tar", Files: 3, Samples: 1234, Bytes: 3 << 20, Findings: map[string]int64{}, Errors: errors}
		if errors > 0 {
			first, second := found()
			send(t, conn, shm.FindingsNote{Type: shm.TypeFindings, Findings: first})
			send(t, conn, shm.FindingsNote{Type: shm.TypeFindings, Findings: second})
			summary.Findings = map[string]int64{"duplicate-part": 7, "tiny-shard": 1, "truncated": 2}
		}
		summary.Warnings = 1
		send(t, conn, shm.LintAnswer{Type: shm.TypeLint, Summary: summary})
	})
}

func TestASpotShowsTheBytesOfNamesThatAreNoUTF8(t *testing.T) {
	for want, f := range map[string]shm.Finding{
		"a.tar":                         {File: "a.tar", Offset: -1},
		"a.tar at 1,024, sample d/1":    {File: "a.tar", Offset: 1024, Key: "d/1"},
		"\uFFFD.tar, sample \uFFFD":     {File: "\uFFFD.tar", Offset: -1, Key: "\uFFFD"},
		`"a\xff.tar", sample "k\xfe\t"`: {File: "a\uFFFD.tar", FileBytes: []byte("a\xff.tar"), Offset: -1, Key: "k\uFFFD\t", KeyBytes: []byte("k\xfe\t")},
	} {
		if got := spot(&f); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestLintIsGolden(t *testing.T) {
	for name, test := range map[string]struct {
		args   []string
		errors int64
	}{
		"dataset-lint":          {[]string{"coco"}, 9},
		"dataset-lint-all":      {[]string{"coco", "--all"}, 9},
		"dataset-lint-json":     {[]string{"coco", "--json"}, 9},
		"dataset-lint-warnings": {[]string{"coco", "--first", "0"}, 0},
		"dataset-lint-strict":   {[]string{"coco", "--strict", "--json", "--progress", "none"}, 0},
		"usage-lint-options":    {[]string{"coco", "--include", "*.tar"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.serveAPI(t, newFakeNode())
			p.serveSessions(t, lints(func(shm.DatasetLint, string) {}, test.errors))
			golden(t, name, p.run(t, append([]string{"dataset", "lint"}, test.args...)...))
		})
	}
}

func TestLintPassesADirectoryOrAName(t *testing.T) {
	source := t.TempDir()
	for _, test := range []struct {
		args []string
		want shm.DatasetLint
		dir  string
	}{
		{[]string{"coco"}, shm.DatasetLint{Name: "coco"}, ""},
		{[]string{source}, shm.DatasetLint{Format: "auto"}, source},
		{[]string{source, "--format", "tar", "--include", "*.tar"}, shm.DatasetLint{Format: "tar", Include: []string{"*.tar"}}, source},
	} {
		p := newPlace(t)
		p.serveAPI(t, newFakeNode())
		test.want.Type = shm.TypeDatasetLint
		p.serveSessions(t, lints(func(request shm.DatasetLint, directory string) {
			if fmt.Sprint(request) != fmt.Sprint(test.want) || directory != test.dir {
				t.Errorf("%q asks %+v with %q", test.args, request, directory)
			}
		}, 0))
		if got := p.run(t, append([]string{"dataset", "lint"}, test.args...)...); got.code != exitOK {
			t.Errorf("%+v", got)
		}
	}
}

func TestLintOfADirectoryThatIsNotThere(t *testing.T) {
	if got := newPlace(t).run(t, "dataset", "lint", "./nowhere"); got.code != exitError || !strings.Contains(got.err, "check the path") {
		t.Errorf("%+v", got)
	}
}
