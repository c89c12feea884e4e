//go:build cgo

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/cufile/stub"
)

// noisy makes the test program one whose library prints.
const noisy = "GPUCHECK_TEST_NOISY"

func TestMain(m *testing.M) {
	if os.Getenv(noisy) == "" {
		os.Exit(m.Run())
	}
	out, err := ownOutput()
	if err == nil {
		_, err = unix.Write(1, []byte("from a library\n"))
	}
	if err == nil {
		err = (&report{encoder: json.NewEncoder(out)}).ok("T1", "ours", "", nil)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func TestALibrarysOutputDoesNotMixWithTheReport(t *testing.T) {
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(own)
	command.Env = append(os.Environ(), noisy+"=1")
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	if err := command.Run(); err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	if !json.Valid(out.Bytes()) || errs.String() != "from a library\n" {
		t.Errorf("output %q, errors %q", out.String(), errs.String())
	}
}

// A library that crashes takes what comes after it, and nothing before.
func TestALineIsWrittenWhenItIsKnown(t *testing.T) {
	var out bytes.Buffer
	verbs["half"] = func(r *report, _ options) error {
		err := r.ok("T1", "first", "", nil)
		if !strings.Contains(out.String(), "first") {
			t.Error("it is not written before the verb ends")
		}
		return err
	}
	defer delete(verbs, "half")
	if err := run([]string{"half"}, nil, &out); err != nil {
		t.Fatal(err)
	}
}

func TestAColdFileIsNotInMemory(t *testing.T) {
	file, err := os.CreateTemp(".", "cold-*.test") // not in the temporary folder, which may be memory
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	_, err = file.Write(make([]byte, 4<<20))
	if err = errors.Join(err, file.Sync()); err != nil {
		t.Fatal(err)
	}
	if held, err := inMemory(file); err == nil && held < 4<<20 {
		t.Errorf("%d bytes are in memory, though all were just written", held)
	}
	if err := dropCache(file.Name()); err != nil {
		t.Error(err)
	}
	if held, err := inMemory(file); err == nil && held > mostHeld {
		t.Errorf("%d bytes are in memory", held)
	}
}

func TestWhatStaysInMemoryIsNotCold(t *testing.T) {
	fd, err := unix.MemfdCreate("gpucheck", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	memory := os.NewFile(uintptr(fd), "memory")
	defer memory.Close()
	if _, err := memory.Write(make([]byte, 4<<20)); err != nil {
		t.Fatal(err)
	}
	if err := dropCache(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil || !strings.Contains(err.Error(), "4 MiB") {
		t.Error(err)
	}
}

// standIns has the libraries of a version used, without some of their functions.
func standIns(t *testing.T, version stub.Version, without ...string) {
	t.Helper()
	libraries, err := stub.Cached(stub.Options{Version: version, Without: without})
	if err != nil {
		t.Fatal(err)
	}
	for _, variable := range append(libraries.Environment(), "STOKER_STUB_ROUTE=none") {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
}

// lines runs a verb on one piece of data and returns what it wrote.
func lines(t *testing.T, verb string) []check {
	t.Helper()
	var out bytes.Buffer
	if err := run([]string{verb, "-dir", t.TempDir(), "-bytes", "16777216", "-turns", "100"}, strings.NewReader(""), &out); err != nil {
		t.Fatal(err)
	}
	var found []check
	for decoder := json.NewDecoder(&out); ; {
		var line struct {
			check
			Speed string `json:"speed"`
		}
		if err := decoder.Decode(&line); err == io.EOF {
			return found
		} else if err != nil {
			t.Fatal(err)
		}
		if line.Speed != "" {
			t.Errorf("%s: a speed was written on a stand-in: %+v", verb, line)
		}
		found = append(found, line.check)
	}
}

func bad(checks []check) []string {
	var names []string
	for _, c := range checks {
		if c.Status == "bad" {
			names = append(names, c.Name)
		}
	}
	return names
}

func TestEveryVerbFindsNothingBadOnTheStandIns(t *testing.T) {
	for _, version := range []stub.Version{0, stub.V1_0, stub.V1_15, stub.V1_16} {
		standIns(t, version)
		for _, verb := range names() {
			found := lines(t, verb)
			if wrong := bad(found); len(wrong) > 0 || len(found) == 0 {
				t.Errorf("cuFile %d: %s: bad: %v of %+v", version, verb, wrong, found)
			}
		}
	}
}

func TestCopyEndsWithItsInput(t *testing.T) {
	standIns(t, stub.V1_15)
	for _, found := range lines(t, "copy") {
		if found.Status != "" {
			t.Errorf("copy wrote %+v", found)
		}
	}
}

func TestWhatIsWrongIsFound(t *testing.T) {
	for _, test := range []struct{ verb, faults, name string }{
		{"storage", "cuFileRead:corrupt:0:0", "read aligned"},
		{"storage", "cuFileRead:eio:0:0", "read one page"},
		{"routes", "cuMemcpyHtoDAsync:corrupt:0:0", "host-staged"},
		{"routes", "cuFileRead:corrupt:0:0", "cuFile, compat mode allowed"},
		{"routes", "cuMemcpyDtoHAsync:700:0:0", "plain copy"},
		{"leaks", "cuMemCreate:2:1", "slabs"},
		{"leaks", "cuFileBufRegister:5036:5", "registrations"},
		{"driver", "cuInit:999", "driver"},
	} {
		t.Run(test.verb+" "+test.faults, func(t *testing.T) {
			standIns(t, stub.V1_15)
			t.Setenv("STOKER_STUB_FAULTS", test.faults)
			if found := lines(t, test.verb); !slices.Contains(bad(found), test.name) {
				t.Errorf("%q is not bad in %+v", test.name, found)
			}
		})
	}
}

func TestReadsThatAreShortOrInterruptedAreNothingBad(t *testing.T) {
	for _, faults := range []string{"cuFileRead:short:0:0", "cuFileRead:eintr:0:3"} {
		standIns(t, stub.V1_15)
		t.Setenv("STOKER_STUB_FAULTS", faults)
		if found := lines(t, "storage"); len(bad(found)) > 0 {
			t.Errorf("%s: %+v", faults, found)
		}
	}
}

func TestAFunctionThatItsVersionShouldHaveIsMissed(t *testing.T) {
	standIns(t, stub.V1_15, "cuFileStatsReset")
	if found := lines(t, "driver"); !slices.Contains(bad(found), "symbols") {
		t.Errorf("symbols are not bad in %+v", found)
	}
}

func TestTurnsEndWhenTheTimeIsUp(t *testing.T) {
	standIns(t, stub.V1_15)
	var out bytes.Buffer
	if err := run([]string{"leaks", "-dir", t.TempDir(), "-turns", "1000000", "-most", "1ns"}, nil, &out); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); !strings.Contains(text, "after 1 of 1000000 turns") || strings.Contains(text, `"bad"`) {
		t.Error(text)
	}
}

func TestVersionNumber(t *testing.T) {
	for text, want := range map[string]int{"1.15": 1150, "1.0": 1000, "1": 1000, "": 0, "x.y": 0} {
		if got := versionNumber(text); got != want {
			t.Errorf("versionNumber(%q) = %d, want %d", text, got, want)
		}
	}
}
