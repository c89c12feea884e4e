package main

import (
	"strings"
	"testing"
)

const passing = `{"Action":"start","Package":"m/a"}
{"Action":"run","Package":"m/a","Test":"TestOne"}
{"Action":"output","Package":"m/a","Test":"TestOne","Output":"=== RUN   TestOne\n"}
{"Action":"pass","Package":"m/a","Test":"TestOne","Elapsed":0.1}
{"Action":"pass","Package":"m/a","Elapsed":0.2}
{"Action":"skip","Package":"m/empty","Elapsed":0}
`

func reportOf(t *testing.T, stream string) (*report, string) {
	t.Helper()
	var out strings.Builder
	r := newReport(&out)
	if err := r.read(strings.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	r.summary()
	return r, out.String()
}

func TestReportCountsWhatPassedAndLetsPackagesBeEmpty(t *testing.T) {
	r, text := reportOf(t, passing)
	if !r.ok() || r.passed != 1 || r.packages != 1 {
		t.Errorf("ok %v, passed %d, packages %d", r.ok(), r.passed, r.packages)
	}
	for _, want := range []string{"ok   m/a: 1 tests (0.2 s)", "none m/empty: no tests", "go test: 1 passed, 0 failed, 0 skipped in 1 packages"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if strings.Contains(text, "=== RUN") {
		t.Errorf("the output of a passing test is shown:\n%s", text)
	}
}

func TestReportFailsAndShowsTheOutput(t *testing.T) {
	for name, test := range map[string]struct{ stream, want string }{
		"a failing test": {
			`{"Action":"output","Package":"m/b","Test":"TestTwo","Output":"b_test.go:7: 1 != 2\n"}
{"Action":"fail","Package":"m/b","Test":"TestTwo"}
{"Action":"fail","Package":"m/b"}
`, "b_test.go:7: 1 != 2"},
		"a skipped test": {
			`{"Action":"output","Package":"m/b","Test":"TestTwo","Output":"b_test.go:7: no network\n"}
{"Action":"skip","Package":"m/b","Test":"TestTwo"}
{"Action":"pass","Package":"m/b"}
`, "SKIPPED COUNTS AS FAILED: m/b TestTwo"},
		"a panic before any test ended": {
			`{"Action":"output","Package":"m/b","Test":"TestTwo","Output":"panic: odd\n"}
{"Action":"fail","Package":"m/b"}
`, "panic: odd"},
		"a package that does not build": {
			`{"ImportPath":"m/b","Action":"build-output","Output":"b.go:1: syntax error\n"}
{"ImportPath":"m/b","Action":"build-fail"}
{"Action":"fail","Package":"m/b","FailedBuild":"m/b"}
`, "b.go:1: syntax error"},
		"an error in plain text": {"go: cannot find module\n", "go: cannot find module"},
	} {
		t.Run(name, func(t *testing.T) {
			r, text := reportOf(t, passing+test.stream)
			if !strings.Contains(text, test.want) {
				t.Errorf("no %q in:\n%s", test.want, text)
			}
			if r.ok() && name != "an error in plain text" {
				t.Error("the run counts as passed")
			}
		})
	}
}

func TestReportFailsWhenNothingRan(t *testing.T) {
	if r, _ := reportOf(t, ""); r.ok() {
		t.Error("an empty run counts as passed")
	}
}
