package stub_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stokerio/stoker/cufile/stub"
)

// headers is the folder of NVIDIA's cuda.h and cufile.h: the test programs are compiled
// against them, so that the stand-ins are called as NVIDIA's libraries are.
func headers(t *testing.T) string {
	t.Helper()
	candidates := []string{os.Getenv("STOKER_CUDA_HEADERS")}
	if candidates[0] == "" {
		candidates, _ = filepath.Glob("../../.venv/lib/python3*/site-packages/nvidia/cu13/include")
	}
	for _, dir := range candidates {
		if _, err := os.Stat(filepath.Join(dir, "cufile.h")); err == nil {
			return dir
		}
	}
	t.Fatalf("no cufile.h in %q: run `make setup`, or name NVIDIA's include folder in STOKER_CUDA_HEADERS", candidates)
	return ""
}

// program compiles testdata/name.c.
func program(t *testing.T, name string, flags ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), name)
	arguments := append([]string{
		"-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-isystem", headers(t), "-o", out,
	}, flags...)
	compile := exec.Command(stub.Compiler(), append(arguments, filepath.Join("testdata", name+".c"), "-ldl")...)
	if text, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("compile %s.c: %v\n%s", name, err, text)
	}
	return out
}

func libraries(t *testing.T, options stub.Options) stub.Libraries {
	t.Helper()
	l, err := stub.Cached(options)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

const patternBytes = 3*4096 + 100

// pattern is pattern() of testdata/check.h.
func pattern(i int) byte { return byte(i*131 + (i>>12)*7 + 1) }

func patternFile(t *testing.T) string {
	t.Helper()
	data := make([]byte, patternBytes)
	for i := range data {
		data[i] = pattern(i)
	}
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// result is how a program ended.
type result struct {
	stdout, stderr string
	err            error
}

// run runs a program with an environment that holds nothing of ours but extra. The
// deadline only turns a hang into a failure.
func run(t *testing.T, extra []string, name string, arguments ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, name, arguments...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "STOKER_") && !strings.HasPrefix(variable, "CUDA_") && !strings.HasPrefix(variable, "CUFILE_") {
			command.Env = append(command.Env, variable)
		}
	}
	command.Env = append(append(command.Env, "STOKER_STUB_QUIET=1"), extra...)
	err := command.Run()
	return result{stdout.String(), stderr.String(), err}
}

func wantFine(t *testing.T, r result) {
	t.Helper()
	if r.err != nil || r.stdout != "fine\n" {
		t.Fatalf("ended with %v\nstdout: %s\nstderr: %s", r.err, r.stdout, r.stderr)
	}
}
