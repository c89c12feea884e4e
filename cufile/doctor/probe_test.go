//go:build cgo

package doctor

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/cufile"
	"github.com/stokerio/stoker/cufile/stub"
	"github.com/stokerio/stoker/internal/pythonoracle"
)

// peerArgument makes the test program the other process of a probe; its value says how
// that one behaves.
const peerArgument = "-peer="

func TestMain(m *testing.M) {
	for i, argument := range os.Args {
		if how, ok := strings.CutPrefix(argument, peerArgument); ok {
			os.Exit(peer(how, os.Args[i+1:]))
		}
	}
	os.Exit(m.Run())
}

func peer(how string, arguments []string) int {
	switch how {
	case "silent":
		return 0
	case "dies":
		fmt.Fprintln(os.Stderr, "first\nthe last words")
		return 3
	case "lies":
		fmt.Println(`{"checksum": 1}`)
		return 0
	}
	if err := MapSlab(3, arguments[0], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func libraries(t *testing.T, version stub.Version) stub.Libraries {
	t.Helper()
	l, err := stub.Cached(stub.Options{Version: version})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// useStub has Open take stand-ins.
func useStub(t *testing.T, version stub.Version, variables ...string) {
	t.Helper()
	named := []string{
		cufile.DeviceLibraryVariable + "=" + libraries(t, stub.V1_16).CUDA, // libraries stay loaded: one libcuda a process
		cufile.StorageLibraryVariable + "=" + libraries(t, version).CUFile,
		"STOKER_STUB_QUIET=1", "CUFILE_ENV_PATH_JSON=", "STOKER_STUB_DEVICES=name=STUB GPU",
	}
	for _, variable := range append(named, variables...) {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
}

// trial is one look at this machine with stand-ins for the GPU libraries, with probes.
type trial struct {
	version   stub.Version
	how       string // how the other process behaves
	python    string
	nowhere   bool // no directory is read, which takes its time
	variables []string
}

func (r trial) report(t *testing.T) Report {
	t.Helper()
	useStub(t, r.version, r.variables...)
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Lookup: os.LookupEnv, Directories: []string{t.TempDir()}, Wanted: Wanted{SlabBytes: 1 << 20},
		Prove: &Prove{Peer: []string{own, peerArgument + r.how}, Python: r.python},
	}
	if r.nowhere {
		o.Directories = nil
	}
	m, err := Look(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return Examine(m)
}

func TestProbesOnStubs(t *testing.T) {
	for _, test := range []struct {
		name      string
		version   stub.Version
		how       string
		variables []string
		line      string
		status    Status
		contains  string
	}{
		{"shared by descriptor", stub.V1_15, "maps", nil, "sharing", OK, "mapped a slab by descriptor, and its bytes were right"},
		{"of the second GPU too", stub.V1_15, "maps", []string{"STOKER_STUB_DEVICES=name=A;name=B"}, "sharing", OK, "-000000000002: a second process mapped a slab by descriptor"},
		{"shared by handle", stub.V1_15, "maps", []string{"STOKER_STUB_DEVICES=vmm=0"}, "sharing", Warn, "mapped a slab by legacy IPC, and its bytes were right"},
		{"the other process dies", stub.V1_15, "dies", nil, "sharing", Warn, "exit status 3: the last words"},
		{"the other process says nothing", stub.V1_15, "silent", nil, "sharing", Warn, "printed no answer"},
		{"the other process sees other bytes", stub.V1_15, "lies", nil, "sharing", Warn, "it saw other bytes"},
		{"direct", stub.V1_15, "maps", nil, "route", OK, "STUB "},
		{"direct by the module", stub.V1_15, "maps", []string{"STOKER_STUB_ROUTE=nvfs"}, "route", OK, "STUB "},
		{"silently compatible", stub.V1_15, "maps", []string{"STOKER_STUB_FAULTS=compat"}, "route", Warn, "there is no direct route"},
		{"no route at all", stub.V1_15, "maps", []string{"STOKER_STUB_ROUTE=none"}, "route", Warn, refusesToStart},
		{"no route at all, the library", stub.V1_15, "maps", []string{"STOKER_STUB_ROUTE=none"}, "cufile", Warn, "cuFile 1.15; cuFileDriverOpen"},
		{"nothing counts", stub.V1_13, "maps", nil, "route", Warn, "takes that for not direct"},
		{"no speeds", stub.V1_15, "silent", nil, "speed", None, "STUB: no speeds"},
		{"another byte", stub.V1_15, "maps", []string{"STOKER_STUB_FAULTS=cuFileRead:corrupt"}, "route", Bad, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			report := trial{version: test.version, how: test.how, nowhere: test.line == "sharing" || test.line == "cufile", variables: test.variables}.report(t)
			c := find(report.Checks, test.line)
			if text := c.Found + "\n" + c.Meaning; c.Status != test.status || !strings.Contains(text, test.contains) || !report.Stub {
				t.Errorf("%+v\nwant %s and %q", c, test.status, test.contains)
			}
		})
	}
}

// What is measured on a stand-in is thrown away, here too: only that all of it was done.
func TestASampleMeasuresEveryWayAndLeavesNothing(t *testing.T) {
	useStub(t, stub.V1_15)
	driver, err := cufile.Open(cufile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	devices, err := driver.Devices()
	if err != nil {
		t.Fatal(err)
	}
	directory := t.TempDir()
	s := sampler{time.Millisecond, 2 * sampleBytes}.measure(t.Context(), driver, &devices[0], directory, true)
	if s.Err != "" || s.Upload <= 0 || s.Disk <= 0 || s.Direct <= 0 {
		t.Errorf("%+v", s)
	}
	s = sampler{time.Millisecond, 2 * sampleBytes}.measure(t.Context(), driver, &devices[0], filepath.Join(directory, "gone"), true)
	if !strings.Contains(s.Err, "no such file") {
		t.Errorf("%+v", s)
	}
	if entries, err := os.ReadDir(directory); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v", entries, err)
	}
	if err := driver.Close(); err != nil {
		t.Error(err)
	}
}

func TestTheVerdictOnAStubIsTheRouteThatItTakes(t *testing.T) {
	if v := (trial{version: stub.V1_15, how: "maps"}).report(t).Verdict; v.Mode != DirectP2PDMA || !strings.Contains(v.Reason, "STUB") {
		t.Errorf("%+v", v)
	}
}

func TestADamagedLibraryIsBad(t *testing.T) {
	damaged := filepath.Join(t.TempDir(), "libcufile.so.0")
	if err := os.WriteFile(damaged, []byte("\x7fELF, and then nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	report := trial{version: stub.V1_15, how: "maps", nowhere: true, variables: []string{cufile.StorageLibraryVariable + "=" + damaged}}.report(t)
	if c := find(report.Checks, "cufile"); c.Status != Bad || !strings.Contains(c.Found, damaged) {
		t.Errorf("%+v", c)
	}
	if report.Verdict.Exit != 2 || report.Verdict.Mode != HostStaged {
		t.Errorf("%+v", report.Verdict)
	}
}

// Stoker merges the machine's settings with its own before it opens the library, so the
// library is not even asked where they cannot be read.
func TestDamagedSettingsAreNotTheLibrarysFault(t *testing.T) {
	folder := t.TempDir()
	damaged, pipe := filepath.Join(folder, "cufile.json"), filepath.Join(folder, "pipe")
	if err := os.WriteFile(damaged, []byte(`{"properties": `), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{damaged: "no JSON", pipe: "no regular file"} {
		report := trial{version: stub.V1_15, how: "maps", nowhere: true, variables: []string{settingsVariable + "=" + path}}.report(t)
		if c := find(report.Checks, "cufile-json"); c.Status != Bad || !strings.Contains(c.Found, want) {
			t.Errorf("%+v", c)
		}
		if c := find(report.Checks, "cufile"); c.Status != None || strings.Contains(c.Remedy, "pip") {
			t.Errorf("%+v", c)
		}
		if v := report.Verdict; v.Exit != 2 || !strings.HasPrefix(v.Reason, "cufile-json is broken") {
			t.Errorf("%+v", v)
		}
	}
}

func TestASocketIsAskedFor(t *testing.T) {
	file, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := socketOf(file.Fd()); err == nil {
		t.Error("a directory is taken for a socket")
	}
	if err := MapSlab(file.Fd(), theUUID.String(), io.Discard); err != nil {
		t.Error(err)
	}
	if _, err := file.Stat(); err != nil {
		t.Errorf("it is closed: %v", err)
	}
}

func TestAPythonMakesATensorOverASlab(t *testing.T) {
	ours, err := filepath.Abs("../../python")
	if err != nil {
		t.Fatal(err)
	}
	python := pythonoracle.Interpreter(t, "torch")
	c := find(trial{version: stub.V1_15, how: "silent", python: python, nowhere: true, variables: []string{"PYTHONPATH=" + ours}}.report(t).Checks, "python")
	if c.Status != OK || !strings.Contains(c.Meaning, "the right values") {
		t.Errorf("%+v", c)
	}
}

func TestWhatAPythonSaysIsReported(t *testing.T) {
	for answer, want := range map[string]string{
		`echo '{"python":"3.9.1","error":"ModuleNotFoundError: torch"}'`: "Python 3.9.1, torch not there: ModuleNotFoundError: torch",
		`echo hello; echo '{"python":"3.9.1","torch":"2.1"}'`:            "wrong values",
		`echo broken >&2; exit 1`:                                        "exit status 1: broken",
		`echo no JSON`:                                                   "printed no answer",
	} {
		python := filepath.Join(t.TempDir(), "python")
		if err := os.WriteFile(python, []byte("#!/bin/sh\n"+answer+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		c := find(trial{version: stub.V1_15, how: "silent", python: python, nowhere: true}.report(t).Checks, "python")
		if c.Status != Warn || !strings.Contains(c.Found+c.Meaning, want) {
			t.Errorf("%s: %+v", answer, c)
		}
	}
}
