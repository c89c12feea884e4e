// Package doctor says how a machine's training jobs can read: straight from flash into
// GPU memory, through host memory, or without a GPU at all, and what stands in the way of
// a better answer.
//
// It has two halves. Look gathers what a machine says of itself: files below /proc, /sys
// and /etc, a few system calls on the cache directories, the GPU libraries, and, if
// asked, probes that do the real thing. Examine is a pure function of what was gathered,
// so each of its lines is tested on a made-up machine.
//
// "All prerequisites are met" is never reported as "the direct route is in use": only a
// probe that read a file and counted the reads by route says that. NVIDIA's own gdscheck
// and gds-diag look at more of cuFile's own settings; this package answers for Stoker.
//
// What each line reads and where its limits come from is in docs/doctor.md.
package doctor

import (
	"slices"
	"strconv"
	"strings"
)

// Status is how a line turned out.
type Status string

// OK: as it should be. Info: good to know, nothing to do. Warn: it costs speed, or keeps
// the direct route away. Bad: something is there and does not work. None: not examined,
// and Found says why.
const (
	OK   Status = "ok"
	Info Status = "info"
	Warn Status = "warn"
	Bad  Status = "bad"
	None Status = "none"
)

// severity orders them, to join several findings into one line.
func (s Status) severity() int { return slices.Index([]Status{None, OK, Info, Warn, Bad}, s) }

// Check is one line.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Found is what was read, Meaning what it means, Remedy what to do next: shell
	// commands, one a line, where there are any. Remedy is "" if there is nothing to do.
	Found   string `json:"found"`
	Meaning string `json:"meaning"`
	Remedy  string `json:"remedy"`

	// hindrance is why there is no direct route, in a few words; "" if this line is no
	// reason against it. hinders says which route.
	hindrance string
	hinders   routes
}

// routes are the direct ones, as a set.
type routes int

const (
	byP2PDMA routes = 1 << iota
	byNvidiaFS
	anyRoute = byP2PDMA | byNvidiaFS
)

// against makes the check a reason against routes.
func (c Check) against(r routes, why string) Check {
	c.hinders, c.hindrance = r, why
	return c
}

// Modes of a verdict.
const (
	DirectP2PDMA   = "gds-direct(p2pdma)"
	DirectNvidiaFS = "gds-direct(nvidia-fs)"
	HostStaged     = "gpu-host-staged"
	CPU            = "cpu"
)

// Verdict is the last line.
type Verdict struct {
	// Mode is one of the modes.
	Mode string `json:"mode"`
	// Reason is why it is not a better one, or what proved it.
	Reason string `json:"reason"`
	// Next is what to do about it, one line; "" if there is nothing to do.
	Next string `json:"next"`
	// Exit is 0 if Stoker can be used, 1 if Mode is less than the configuration requires,
	// 2 if a line is Bad.
	Exit int `json:"exit"`
}

// String is the verdict in one line: mode=… reason="…" next="…".
func (v Verdict) String() string {
	next := v.Next
	if next == "" {
		next = "nothing to do"
	}
	return "mode=" + v.Mode + " reason=" + strconv.Quote(v.Reason) + " next=" + strconv.Quote(next)
}

// Report is all lines, and the verdict.
type Report struct {
	// Stub says that the GPU libraries are stand-ins for tests, which say nothing about
	// this machine.
	Stub    bool    `json:"stub"`
	Checks  []Check `json:"checks"`
	Verdict Verdict `json:"verdict"`
}

// part is one of several findings of a line.
type part struct {
	status                 Status
	found, meaning, remedy string
}

// joined makes one check of several findings: all that was found, and of the most severe
// ones what they mean and what to do.
func joined(parts ...part) Check {
	c := Check{Status: None}
	for _, p := range parts {
		if p.status.severity() > c.Status.severity() {
			c.Status = p.status
		}
	}
	var found, meaning, remedy []string
	for _, p := range parts {
		found = add(found, p.found)
		if p.status == c.Status || c.Status == Bad && p.status == Warn {
			meaning, remedy = add(meaning, p.meaning), add(remedy, p.remedy)
		}
	}
	c.Found, c.Meaning, c.Remedy = strings.Join(found, "; "), strings.Join(meaning, "; "), strings.Join(remedy, "\n")
	return c
}

// add appends text that is there and not in the list yet.
func add(list []string, text string) []string {
	if text == "" || slices.Contains(list, text) {
		return list
	}
	return append(list, text)
}
