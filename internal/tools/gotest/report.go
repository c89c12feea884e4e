package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// event is one line of `go test -json`, as `go doc test2json` and `go help
// buildjson` describe it. Builds that break speak of an ImportPath only.
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Elapsed    float64 // seconds
	Output     string
}

// report adds up the events of one run. Sub-tests count as tests.
type report struct {
	out      io.Writer
	output   map[string]*strings.Builder // of unfinished tests and packages, by key
	passed   int
	failed   []string
	skipped  []string
	packages int // that ran at least one test
	ran      map[string]int
}

func newReport(out io.Writer) *report {
	return &report{out: out, output: map[string]*strings.Builder{}, ran: map[string]int{}}
}

// read consumes the stream to its end. Lines that are not JSON are passed on: go
// itself prints some errors in plain text.
func (r *report) read(stream io.Reader) error {
	lines := bufio.NewReader(stream)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(r.out, "%s", line)
			} else {
				r.add(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) add(e event) {
	key := e.Package + "\x00" + e.Test
	switch e.Action {
	case "output":
		if r.output[key] == nil {
			r.output[key] = &strings.Builder{}
		}
		r.output[key].WriteString(e.Output)
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.finishPackage(e, key)
		} else {
			r.finishTest(e, key)
		}
		delete(r.output, key)
	}
}

func (r *report) finishTest(e event, key string) {
	name := e.Package + " " + e.Test
	r.ran[e.Package]++
	switch e.Action {
	case "pass":
		r.passed++
		return
	case "fail":
		r.failed = append(r.failed, name)
	case "skip":
		r.skipped = append(r.skipped, name)
	}
	if text := r.output[key]; text != nil {
		fmt.Fprint(r.out, text.String())
	}
}

func (r *report) finishPackage(e event, key string) {
	if e.Action == "fail" {
		r.dump(e.Package)
		if r.ran[e.Package] == 0 {
			r.failed = append(r.failed, e.Package)
		}
		fmt.Fprintf(r.out, "FAIL %s (%.1f s)\n", e.Package, e.Elapsed)
		return
	}
	if r.ran[e.Package] == 0 {
		fmt.Fprintf(r.out, "none %s: no tests\n", e.Package)
		return
	}
	r.packages++
	fmt.Fprintf(r.out, "ok   %s: %d tests (%.1f s)\n", e.Package, r.ran[e.Package], e.Elapsed)
}

// dump prints what is left of a package that failed: a panic, a data race or a
// time-out ends it before its tests have said how they went.
func (r *report) dump(name string) {
	for _, key := range slices.Sorted(maps.Keys(r.output)) {
		if strings.HasPrefix(key, name+"\x00") {
			fmt.Fprint(r.out, r.output[key].String())
			delete(r.output, key)
		}
	}
}

func (r *report) ok() bool {
	return len(r.failed) == 0 && len(r.skipped) == 0 && r.passed > 0
}

func (r *report) summary() {
	for _, name := range r.failed {
		fmt.Fprintf(r.out, "FAILED: %s\n", name)
	}
	for _, name := range r.skipped {
		fmt.Fprintf(r.out, "SKIPPED COUNTS AS FAILED: %s\n", name)
	}
	if r.passed == 0 {
		fmt.Fprintln(r.out, "FAILED: no test ran")
	}
	fmt.Fprintf(r.out, "go test: %d passed, %d failed, %d skipped in %d packages\n",
		r.passed, len(r.failed), len(r.skipped), r.packages)
}
