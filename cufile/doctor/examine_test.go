package doctor

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stokerio/stoker/cufile"
)

func TestAHealthyMachineHasNothingButWhatWasNotTried(t *testing.T) {
	report := Examine(&healthy().Machine)
	var names []string
	for _, c := range report.Checks {
		names = append(names, c.Name)
		switch c.Name {
		case "route", "speed", "python":
			if c.Status != None || !strings.Contains(c.Found, "--prove") {
				t.Errorf("%+v", c)
			}
		case "nvidia-fs":
			if c.Status != Info {
				t.Errorf("%+v", c)
			}
		default:
			if c.Status != OK || c.Remedy != "" || c.Found == "" || c.Meaning == "" {
				t.Errorf("%+v", c)
			}
		}
	}
	if !slices.Equal(names, Names()) || len(names) != 19 {
		t.Errorf("%q are examined", names)
	}
	want := Verdict{Mode: HostStaged, Reason: "nothing speaks against the direct route, but it was not tried", Next: "stoker doctor --prove"}
	if report.Verdict != want || report.Stub {
		t.Errorf("%+v", report.Verdict)
	}
}

func TestAMachineWithoutGPUSaysSoOnce(t *testing.T) {
	m := healthy()
	m.GPU = GPU{Err: cufile.ErrNoDriver}
	m.remove("/proc/driver/nvidia/version")
	report := Examine(&m.Machine)
	for _, c := range report.Checks {
		switch c.Name {
		case "build", "direct-io", "page-cache":
			if c.Status != OK {
				t.Errorf("%+v", c)
			}
		case "driver":
			if c.Status != Info || !strings.Contains(c.Meaning, "CPU-only") {
				t.Errorf("%+v", c)
			}
		case "directory", "surroundings":
			if c.Status.severity() > Info.severity() {
				t.Errorf("%+v", c)
			}
		default:
			if c.Status != None || c.Found != "not examined: there is no GPU that can be used" {
				t.Errorf("%+v", c)
			}
		}
	}
	if report.Verdict.Mode != CPU || report.Verdict.Exit != 0 || report.Verdict.Next != "" {
		t.Errorf("%+v", report.Verdict)
	}
}

// reads is a probe of the cache's directory that took a route.
func reads(route cufile.Route, reason string) *Probes {
	return &Probes{Routes: []RouteProbe{{Directory: cacheDir, Proof: cufile.Proof{Route: route, Reason: reason, Counted: true}}}}
}

func TestVerdicts(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*made)
		want  Verdict
	}{
		"p2pdma proved": {
			func(m *made) { m.Probes = reads(cufile.PCIP2PDMA, "16 of 16 reads") },
			Verdict{Mode: DirectP2PDMA, Reason: cacheDir + ": 16 of 16 reads (reads by P2PDMA 0, nvidia-fs 0, POSIX 0, unaligned 0)"},
		},
		"nvidia-fs proved": {
			func(m *made) { m.Probes = reads(cufile.NvidiaFS, "16 of 16 reads") },
			Verdict{Mode: DirectNvidiaFS, Reason: cacheDir + ": 16 of 16 reads (reads by P2PDMA 0, nvidia-fs 0, POSIX 0, unaligned 0)"},
		},
		"silent compat": {
			func(m *made) { m.Probes = reads(cufile.NotDirect, "the library answered through POSIX") },
			Verdict{Mode: HostStaged, Reason: "there is no direct route: the library answered through POSIX", Next: "look at the lines that say warn"},
		},
		"not direct, and a line says why": {
			func(m *made) {
				m.Probes = reads(cufile.NotDirect, "refused")
				m.file("/sys/module/nvme_core/parameters/multipath", "Y\n")
			},
			Verdict{Mode: HostStaged, Reason: "NVMe multipath is on", Next: nvmeSettings},
		},
		"unknown route counts as none": {
			func(m *made) { m.Probes = reads(cufile.Unknown, "nothing counts") },
			Verdict{Mode: HostStaged, Reason: "the bytes are right, but nothing says", Next: installLibrary},
		},
		"required and not there": {
			func(m *made) { m.Wanted.GDS = "require" },
			Verdict{Mode: HostStaged, Reason: "gds: require is not met: nothing speaks", Next: "stoker doctor --prove", Exit: 1},
		},
		"required and there": {
			func(m *made) { m.Wanted.GDS = "require"; m.Probes = reads(cufile.PCIP2PDMA, "all") },
			Verdict{Mode: DirectP2PDMA, Reason: cacheDir},
		},
		"off": {
			func(m *made) { m.Wanted.GDS = "off"; m.Probes = reads(cufile.PCIP2PDMA, "all") },
			Verdict{Mode: HostStaged, Reason: "the configuration turns the direct route off"},
		},
		"required without a GPU": {
			func(m *made) {
				m.Wanted.GDS = "require"
				m.GPU = GPU{Err: cufile.ErrNoDriver}
				m.remove("/proc/driver/nvidia/version")
			},
			Verdict{Mode: CPU, Reason: "gds: require is not met: CPU-only", Exit: 1},
		},
		"broken": {
			func(m *made) { m.file("/etc/cufile.json", "{") },
			Verdict{Mode: HostStaged, Reason: "cufile-json is broken: ", Next: "python3 -c ", Exit: 2},
		},
		"one directory of two is not direct": {
			func(m *made) {
				m.Probes = reads(cufile.PCIP2PDMA, "all")
				m.Probes.Routes = append(m.Probes.Routes, RouteProbe{Directory: "/b", Proof: cufile.Proof{Route: cufile.NotDirect, Reason: "no"}})
			},
			Verdict{Mode: HostStaged, Reason: "there is no direct route: no"},
		},
		"each directory by another route": {
			func(m *made) {
				m.Probes = reads(cufile.PCIP2PDMA, "all")
				m.Probes.Routes = append(m.Probes.Routes, RouteProbe{Directory: "/b", Proof: cufile.Proof{Route: cufile.NvidiaFS, Reason: "all"}})
			},
			Verdict{Mode: DirectNvidiaFS, Reason: cacheDir},
		},
		"P2PDMA ruled out, and no nvidia-fs": {
			func(m *made) { m.file("/proc/kallsyms", "0 T other\n") },
			Verdict{Mode: HostStaged, Reason: "the kernel has no peer-to-peer DMA", Next: newerKernel},
		},
		"no directory": {
			func(m *made) { m.Directories = nil },
			Verdict{Mode: HostStaged, Reason: "nothing speaks", Next: giveDirectory},
		},
	} {
		m := healthy()
		test.spoil(m)
		got := Examine(&m.Machine).Verdict
		if got.Mode != test.want.Mode || got.Exit != test.want.Exit || !strings.HasPrefix(got.Reason, test.want.Reason) || !strings.HasPrefix(got.Next, test.want.Next) {
			t.Errorf("%s: got  %+v\nwant %+v", name, got, test.want)
		}
	}
}

func TestWithNvidiaFSWhatIsAgainstP2PDMAIsNoHindrance(t *testing.T) {
	m := withNvidiaFS()
	report := Examine(&m.Machine)
	for _, c := range report.Checks {
		if c.Status == Warn || c.Status == Bad {
			t.Errorf("%+v", c)
		}
	}
	if report.Verdict.Reason != "nothing speaks against the direct route, but it was not tried" {
		t.Errorf("%+v", report.Verdict)
	}
}

func TestAStubIsLabelled(t *testing.T) {
	m := healthy()
	m.GPU.Versions.Stub = true
	m.Probes = reads(cufile.PCIP2PDMA, "16 of 16 reads")
	m.Probes.Routes[0].Proof.Stub = true
	m.Probes.Speed = &SpeedProbe{Upload: 5e10, Disk: 3e9, Direct: 3e9}
	report := Examine(&m.Machine)
	text, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	if !report.Stub || strings.Contains(string(text), "GB/s") {
		t.Errorf("%s", text)
	}
	for _, name := range []string{"driver", "cufile", "route", "speed"} {
		if c := find(report.Checks, name); !strings.Contains(c.Found, "STUB") {
			t.Errorf("%+v", c)
		}
	}
	if !strings.Contains(report.Verdict.Reason, "STUB") {
		t.Errorf("%+v", report.Verdict)
	}
}

func TestTheVerdictIsOneLine(t *testing.T) {
	v := Verdict{Mode: CPU, Reason: "a \"b\"\nc"}
	if got := v.String(); got != `mode=cpu reason="a \"b\"\nc" next="nothing to do"` {
		t.Error(got)
	}
}

func TestJSONHasTheNamesThatProgramsRead(t *testing.T) {
	text, err := json.Marshal(Report{Checks: []Check{{Name: "a", Status: OK, hindrance: "hidden"}}, Verdict: Verdict{Mode: CPU}})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"stub":false,"checks":[{"name":"a","status":"ok","found":"","meaning":"","remedy":""}],"verdict":{"mode":"cpu","reason":"","next":"","exit":0}}`
	if string(text) != want {
		t.Errorf("%s", text)
	}
}

func TestTheMostSevereFindingDecides(t *testing.T) {
	got := joined(part{OK, "a", "fine", ""}, part{Warn, "b", "slow", "do b"}, part{Warn, "c", "slow", "do c"}, part{Info, "d", "so", "do d"}, part{None, "", "", ""})
	want := Check{Status: Warn, Found: "a; b; c; d", Meaning: "slow", Remedy: "do b\ndo c"}
	if got != want {
		t.Errorf("%+v", got)
	}
}

func TestVersionsAreComparedByNumber(t *testing.T) {
	for version, want := range map[string]bool{
		"6.2": true, "6.2.0": true, "6.10.3-x": true, "7.0": true, "6.1.99": false, "5.14.0-427.el9_4": false, "6": false, "": false, "v6.2": false,
	} {
		if got := atLeast(version, 6, 2); got != want {
			t.Errorf("%q at least 6.2: %t", version, got)
		}
	}
}

// Lines that a broken machine has must not panic, and must say what to do where they are
// bad.
func TestEveryBadLineSaysWhatToDo(t *testing.T) {
	broken := errors.New("broken")
	for i, spoil := range []func(*made){
		func(m *made) { m.GPU = GPU{Err: broken} },
		func(m *made) { m.GPU.StorageErr, m.GPU.Versions.CuFile = broken, 0 },
		func(m *made) { m.file("/etc/cufile.json", "[]") },
		func(m *made) { m.Directories = []Directory{{Path: "/x", Err: "no such file"}} },
		func(m *made) {
			m.Probes = &Probes{Routes: []RouteProbe{{Directory: "/x", Err: "other bytes", Wrong: true}}}
		},
		func(m *made) { clear(m.files) },
	} {
		m := healthy()
		spoil(m)
		report := Examine(&m.Machine)
		for _, c := range report.Checks {
			if c.Status == Bad && (c.Remedy == "" || c.Meaning == "") {
				t.Errorf("%d: %+v", i, c)
			}
		}
		if text := fmt.Sprint(report); strings.Contains(text, "%!") {
			t.Errorf("%d: %s", i, text)
		}
	}
}
