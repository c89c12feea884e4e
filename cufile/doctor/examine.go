package doctor

import (
	"errors"
	"strings"

	"github.com/stokerio/stoker/cufile"
)

// need is what a line cannot say anything without; a set.
type need int

const (
	aGPU need = 1 << iota
	theLibrary
	itsSettings // of a library that is there, or would be if its settings were right
	aDirectory
	probes

	nothing need = 0
)

// lines are the checks in order. A line whose need is not met is not examined, so that
// one thing that is missing is said once.
var lines = []struct {
	name    string
	needs   need
	examine func(*Machine) Check
}{
	{"build", nothing, examineBuild},
	{"driver", nothing, examineDriver},
	{"gpus", aGPU, examineGPUs},
	{"sharing", aGPU, examineSharing},
	{"kernel-module", aGPU, examineKernelModule},
	{"cufile", aGPU, examineLibrary},
	{"cufile-json", aGPU | itsSettings, examineSettings},
	{"nvidia-fs", aGPU, examineNvidiaFS},
	{"p2pdma", aGPU, examineP2PDMA},
	{"iommu", aGPU, examineIOMMU},
	{"directory", aDirectory, examineDirectory},
	{"direct-io", aDirectory, examineDirectIO},
	{"surroundings", nothing, examineSurroundings},
	{"memory", aGPU, examineMemory},
	{"topology", aGPU | aDirectory, examineTopology},
	{"route", aGPU | theLibrary | aDirectory | probes, examineRoute},
	{"speed", aGPU | aDirectory | probes, examineSpeed},
	{"page-cache", aDirectory, examinePageCache},
	{"python", aGPU | probes, examinePython},
}

// Names are those of the lines, in order.
func Names() []string {
	names := make([]string, len(lines))
	for i := range lines {
		names[i] = lines[i].name
	}
	return names
}

// Examine says what a machine's state means. It reads nothing but m.
func Examine(m *Machine) Report {
	report := Report{Stub: m.GPU.Versions.Stub}
	for i := range lines {
		var c Check
		if why, remedy := m.lacks(lines[i].needs); why != "" {
			c = Check{Status: None, Found: "not examined: " + why, Remedy: remedy}
		} else {
			c = lines[i].examine(m)
		}
		c.Name = lines[i].name
		report.Checks = append(report.Checks, c)
	}
	report.Verdict = judge(m, report.Checks)
	return report
}

// giveDirectory is what to do where there is no directory to look at.
const giveDirectory = "stoker doctor --dir DIRECTORY"

// lacks is why a need is not met, "" if it is, and what to do about it where no other
// line says that.
func (m *Machine) lacks(n need) (why, remedy string) {
	switch {
	case n&aGPU != 0 && !m.hasGPU():
		return "there is no GPU that can be used", ""
	case n&theLibrary != 0 && !m.hasStorage():
		return "there is no libcufile that can be used", ""
	case n&itsSettings != 0 && !m.hasStorage() && !errors.Is(m.GPU.StorageErr, cufile.ErrConfiguration) && !refused(m.GPU.StorageErr):
		return "there is no libcufile that can be used", ""
	case n&aDirectory != 0 && len(m.Directories) == 0:
		return "no directory is given, and stokerd is configured with none", giveDirectory
	case n&probes != 0 && m.Probes == nil:
		return "it is tried with --prove only, as it takes GPU memory and some seconds", "stoker doctor --prove"
	}
	return "", ""
}

// judge makes the verdict of the lines.
func judge(m *Machine, checks []Check) Verdict {
	v := Verdict{Mode: m.mode()}
	switch {
	case v.Mode == CPU:
		v.Reason, v.Next = reasonForCPU(checks)
	case m.Wanted.GDS == "off":
		v.Reason = "the configuration turns the direct route off (gds: off)"
	case v.Mode == HostStaged:
		v.Reason, v.Next = m.hindrance(checks)
	default:
		v.Reason = find(checks, "route").Found
	}
	if m.Wanted.GDS == "require" && v.Mode != DirectP2PDMA && v.Mode != DirectNvidiaFS {
		v.Exit = 1
		v.Reason = "gds: require is not met: " + v.Reason
	}
	for _, c := range checks {
		if c.Status == Bad {
			v.Exit = 2
			v.Reason = c.Name + " is broken: " + strings.TrimSuffix(c.Meaning+"; "+v.Reason, "; "+c.Meaning)
			v.Next = first(c.Remedy)
			break
		}
	}
	return v
}

// mode is the best that was shown to work.
func (m *Machine) mode() string {
	if !m.hasGPU() {
		return CPU
	}
	if m.Wanted.GDS == "off" {
		return HostStaged
	}
	switch m.proved() {
	case cufile.PCIP2PDMA:
		return DirectP2PDMA
	case cufile.NvidiaFS:
		return DirectNvidiaFS
	}
	return HostStaged
}

// reasonForCPU is what the driver's lines say.
func reasonForCPU(checks []Check) (reason, next string) {
	for _, name := range []string{"build", "driver", "gpus"} {
		if c := find(checks, name); c.Status != OK && c.Status != None {
			return c.Meaning, first(c.Remedy)
		}
	}
	return "there is no GPU", ""
}

// hindrance is why there is no direct route: what the probe said, else the first line that
// is against every route there is.
func (m *Machine) hindrance(checks []Check) (reason, next string) {
	route := find(checks, "route")
	tried := route.Status != None
	against := m.firstAgainst(checks)
	switch {
	case tried && route.Status == Bad, tried && against == nil:
		return route.Meaning, first(route.Remedy)
	case against != nil:
		return against.hindrance, first(against.Remedy)
	case m.GPU.StorageErr != nil:
		return refusesToStart, first(find(checks, "cufile").Remedy)
	}
	return "nothing speaks against the direct route, but it was not tried", first(route.Remedy)
}

// firstAgainst is the first line that rules out every route, by itself or with others; of
// several, the one against P2PDMA, which needs no kernel module.
func (m *Machine) firstAgainst(checks []Check) *Check {
	var ruledOut routes
	var p2p *Check
	for i := range checks {
		c := &checks[i]
		if c.hindrance == "" {
			continue
		}
		if c.hinders == anyRoute {
			return c
		}
		ruledOut |= c.hinders
		if c.hinders == byP2PDMA && p2p == nil {
			p2p = c
		}
	}
	if ruledOut == anyRoute {
		return p2p
	}
	return nil
}

func find(checks []Check, name string) Check {
	for _, c := range checks {
		if c.Name == name {
			return c
		}
	}
	return Check{Name: name, Status: None}
}

// first is the first line of a text.
func first(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
