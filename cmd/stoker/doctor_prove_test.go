//go:build cgo

package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stokerio/stoker/cufile/doctor"
	"github.com/stokerio/stoker/cufile/stub"
)

// The other process is this program, started with the hidden verb. The environment or the
// configuration says where the libraries are.
func TestDoctorProvesWithASecondProcess(t *testing.T) {
	libraries, err := stub.Cached(stub.Options{Version: stub.V1_15})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("STOKER_STUB_QUIET", "1")
	t.Setenv("CUFILE_ENV_PATH_JSON", "")
	t.Run("environment", func(t *testing.T) {
		t.Setenv("STOKER_CUDA_LIB", libraries.CUDA)
		t.Setenv("STOKER_CUFILE_LIB", libraries.CUFile)
		provesSharing(t)
	})
	t.Run("configuration", func(t *testing.T) {
		t.Setenv("STOKER_CUDA_LIB", "/nowhere/libcuda.so.1") // the configuration goes before it
		file := filepath.Join(t.TempDir(), "stokerd.yaml")
		text := "gpu: {cuda_library: " + libraries.CUDA + ", cufile_library: " + libraries.CUFile + "}\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		provesSharing(t, "--config", file)
	})
}

func provesSharing(t *testing.T, arguments ...string) {
	t.Helper()
	got := newPlace(t).run(t, append([]string{"doctor", "--prove", "--json", "--python", "", "--dir", t.TempDir()}, arguments...)...)
	var report doctor.Report
	if err := json.Unmarshal([]byte(got.out), &report); err != nil || got.code != exitOK {
		t.Fatalf("%+v: %v", got, err)
	}
	if !report.Stub || report.Verdict.Mode != doctor.DirectP2PDMA {
		t.Errorf("%+v", report.Verdict)
	}
	for _, c := range report.Checks {
		if c.Name == "sharing" && c.Status != doctor.OK {
			t.Errorf("%+v", c)
		}
	}
}

// A library that prints to standard output, as libcufile does, must not spoil the JSON.
func TestWhatALibraryPrintsIsNotInTheAnswer(t *testing.T) {
	directory := t.TempDir()
	source, library := filepath.Join(directory, "loud.c"), filepath.Join(directory, "libcuda.so.1")
	program := "#include <unistd.h>\n__attribute__((constructor)) static void loud(void) { if (write(1, \"loud\", 4) != 4) _exit(9); }\n"
	if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(cmp.Or(os.Getenv("CC"), "cc"), "-shared", "-fPIC", "-o", library, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var out, errs bytes.Buffer
	stoker := exec.Command(os.Args[0], "doctor", "--json", "--runtime-dir", directory)
	stoker.Env = append(os.Environ(), "STOKER_CUDA_LIB="+library)
	stoker.Stdout, stoker.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := stoker.Run(); !errors.As(err, &exit) || exit.ExitCode() != exitUsage {
		t.Errorf("%v, want exit code %d for a library that lacks everything", err, exitUsage)
	}
	var report doctor.Report
	if err := json.Unmarshal(out.Bytes(), &report); err != nil || len(report.Checks) == 0 {
		t.Errorf("%v: %s", err, out.String())
	}
	if !strings.Contains(errs.String(), "loud") {
		t.Errorf("%s", errs.String())
	}
}
