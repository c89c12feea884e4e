//go:build cgo

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/stokerio/stoker/cufile/stub"
)

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

func TestVersionNumber(t *testing.T) {
	for text, want := range map[string]int{"1.15": 1150, "1.0": 1000, "1": 1000, "": 0, "x.y": 0} {
		if got := versionNumber(text); got != want {
			t.Errorf("versionNumber(%q) = %d, want %d", text, got, want)
		}
	}
}
