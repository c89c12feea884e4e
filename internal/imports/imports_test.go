package imports

import (
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// ignoredFolders are those that .gitignore names, and git's own.
func ignoredFolders(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../.gitignore")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{".git"}
	for line := range strings.Lines(string(text)) {
		if name, folder := strings.CutSuffix(strings.TrimSpace(line), "/"); folder {
			names = append(names, strings.TrimPrefix(name, "/"))
		}
	}
	return names
}

func TestRepositoryKeepsToItsTable(t *testing.T) {
	tree, ignored := os.DirFS("../.."), ignoredFolders(t)
	folders, err := CheckFolders(tree, ignored)
	if err != nil {
		t.Fatal(err)
	}
	files, err := Read(tree, ignored)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(files, func(f File) bool { return f.Path == "internal/imports/imports_test.go" }) {
		t.Fatal("this very file was not among the sources: the wrong tree was read")
	}
	for _, problem := range append(folders, Check(files)...) {
		t.Error(problem)
	}
}

func TestEveryFolderWithGoFilesHasARow(t *testing.T) {
	files, err := Read(os.DirFS("../.."), ignoredFolders(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if _, found := roomOf(file.Room()); !found && strings.HasSuffix(file.Path, ".go") {
			t.Errorf("%s: its package has no row in internal/imports/table.go", file.Path)
		}
	}
}

func TestEveryRowStatesItsReason(t *testing.T) {
	for _, row := range rooms {
		if row.reason == "" {
			t.Errorf("row %s has no reason", row.pattern)
		}
	}
	for _, rule := range slices.Concat(dependencies, pythonDependencies) {
		if rule.reason == "" || len(rule.rooms) == 0 {
			t.Errorf("the rule for %s has no reason or names no room", rule.module)
		}
	}
}

func TestCheckFindsWhatBreaksTheTable(t *testing.T) {
	for _, test := range []struct{ file, source, want string }{
		{"backend/a.go", `import "github.com/stokerio/stoker/shm"`, "ground floor"},
		{"shm/a.go", `import "github.com/stokerio/stoker/backend"`, "ground floor"},
		{"loader/order/a.go", `import "github.com/stokerio/stoker/loader/config"`, "pure function"},
		{"loader/config/a_test.go", `import "github.com/stokerio/stoker/loader"`, "ground floor"},
		{"backend/tier/a.go", `import "github.com/stokerio/stoker/backend/object"`, "only the contract"},
		{"backend/object/a.go", `import "github.com/stokerio/stoker/backend/cluster"`, "only the contract"},
		{"prefetch/sim/a.go", `import "github.com/stokerio/stoker/loader/order"`, "declares the order"},
		{"loader/dataset/raw/a.go", `import "github.com/stokerio/stoker/backend/object"`, "nothing else"},
		{"loader/api/a.go", `import "github.com/stokerio/stoker/loader"`, "small interface"},
		{"loader/a.go", `import "github.com/stokerio/stoker/bench"`, "no benchmark"},
		{"loader/a.go", `import "github.com/stokerio/stoker/prefetch/sim"`, "no benchmark"},
		{"loader/a.go", `import "github.com/stokerio/stoker/cmd/stokerd"`, "no command"},
		{"cmd/stokerd/a.go", `import "github.com/stokerio/stoker/bench"`, "only cmd/stoker"},
		{"bench/a.go", `import "github.com/stokerio/stoker/cmd/stoker"`, "no command"},
		{"loader/a.go", `import "github.com/stokerio/stoker/internal/leaks"`, "no benchmark"},
		{"loader/elsewhere/a.go", `import "github.com/stokerio/stoker/backend"`, "no row"},
		{"internal/leaks/a.go", `import "github.com/stokerio/stoker/loader"`, "nothing of the rooms"},
		{"loader/a.go", `import "github.com/valyala/fasthttp"`, "reuses request buffers"},
		{"loader/a_test.go", `import "github.com/valyala/fasthttp/fasthttputil"`, "reuses request buffers"},
		{"shm/a.go", `import "C"`, "without a C compiler"},
		{"cufile/a.go", `import "github.com/NVIDIA/go-nvml/pkg/nvml"`, "lazy binding"},
		{"backend/flash/a.go", `import "go.etcd.io/etcd/client/v3"`, "without etcd"},
		{"backend/peer/a.go", `import "github.com/klauspost/reedsolomon"`, "backend/erasure"},
		{"loader/a.go", `import "github.com/aws/aws-sdk-go-v2/service/s3"`, "credentials"},
		{"loader/a.go", `import "github.com/minio/minio-go/v7"`, "credentials"},
		{"cmd/stoker/a.go", `import _ "github.com/ianlancetaylor/cgosymbolizer"`, "whole process"},
		{"loader/a.go", `import "github.com/grafana/pyroscope-go"`, "whole process"},
		{"loader/a.go", `import "github.com/prometheus/client_golang/prometheus"`, "only loader/api"},
		{"loader/a.go", `import "testing"`, "test library"},
		{"//go:build never\n//shm/a.go", `import "github.com/stokerio/stoker/backend"`, "ground floor"},
	} {
		constraint, name, tagged := strings.Cut(test.file, "\n//")
		if !tagged {
			constraint, name = "", test.file
		}
		tree := fstest.MapFS{name: {Data: []byte(constraint + "\n\npackage a\n" + test.source + "\n")}}
		files, err := Read(tree, nil)
		if err != nil {
			t.Fatal(err)
		}
		problems := Check(files)
		if len(problems) != 1 || !strings.Contains(problems[0], test.want) || !strings.HasPrefix(problems[0], name) {
			t.Errorf("%s with %s: %q, want one problem about %q", name, test.source, problems, test.want)
		}
	}
}

func TestCheckLetsPassWhatTheTableAllows(t *testing.T) {
	for _, test := range []struct{ file, source string }{
		{"backend/object/a.go", `import "github.com/stokerio/stoker/backend"`},
		{"backend/object/a_test.go", `import "github.com/stokerio/stoker/backend/backendtest"`},
		{"backend/peer/a.go", `import "github.com/stokerio/stoker/backend/cluster"`},
		{"loader/dataset/raw/a.go", `import "github.com/stokerio/stoker/loader/dataset"`},
		{"loader/a.go", `import "github.com/stokerio/stoker/backend/object"`},
		{"loader/a.go", `import "github.com/stokerio/stoker/internal/invariants"`},
		{"loader/a_test.go", `import "github.com/stokerio/stoker/internal/leaks"`},
		{"loader/api/a.go", `import "github.com/valyala/fasthttp"`},
		{"cmd/stoker/a.go", `import "github.com/stokerio/stoker/bench"`},
		{"cmd/stoker/a.go", `import "github.com/stokerio/stoker/prefetch/sim"`},
		{"cmd/stokerd/a.go", `import _ "github.com/ianlancetaylor/cgosymbolizer"`},
		{"cufile/cuda/a.go", `import "C"`},
		{"shm/a_test.go", `import "testing"`},
	} {
		files, err := Read(fstest.MapFS{test.file: {Data: []byte("package a\n" + test.source + "\n")}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if problems := Check(files); len(problems) != 0 {
			t.Errorf("%s: %q", test.file, problems)
		}
	}
}

func TestCheckHoldsTorchInOnePythonModule(t *testing.T) {
	tree := fstest.MapFS{
		"python/stoker/dataset.py":         {Data: []byte("import numpy, torch\n")},
		"python/stoker/client.py":          {Data: []byte("import torchless\n# import torch\n")},
		"python/stoker/ring.py":            {Data: []byte("def late():\n    from torch.utils import data\n")},
		"python/stoker/batch.py":           {Data: []byte("import os, torch.cuda as cuda\n")},
		"python/tests/test_training.py":    {Data: []byte("import torch\n")},
		"python/stoker/__pycache__/bad.py": {Data: []byte("import torch\n")},
	}
	files, err := Read(tree, []string{"__pycache__"})
	if err != nil {
		t.Fatal(err)
	}
	problems := Check(files)
	if len(problems) != 2 || !strings.HasPrefix(problems[0], "python/stoker/batch.py") || !strings.HasPrefix(problems[1], "python/stoker/ring.py") {
		t.Errorf("problems %q, want one about batch.py and one about ring.py", problems)
	}
}

func TestCheckFoldersRefusesUnknownOnes(t *testing.T) {
	tree := fstest.MapFS{"loader/a.go": {}, "util/a.go": {}, "bin/stokerd": {}, "README.md": {}}
	problems, err := CheckFolders(tree, []string{"bin"})
	if err != nil {
		t.Fatal(err)
	}
	if len(problems) != 1 || !strings.HasPrefix(problems[0], "util/") {
		t.Errorf("problems %q, want one about util/", problems)
	}
}

func TestReadRefusesWhatItCannotParse(t *testing.T) {
	if _, err := Read(fstest.MapFS{"shm/a.go": {Data: []byte("no go")}}, nil); err == nil {
		t.Error("a file that is no Go was read")
	}
}
