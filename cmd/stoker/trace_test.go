package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stokerio/stoker/prefetch/sim"
	"github.com/stokerio/stoker/prefetch/trace"
)

// generateTrace makes a trace in the place, by the command itself.
func generateTrace(t *testing.T, p *place, name string, flags ...string) string {
	t.Helper()
	path := filepath.Join(p.directory, name)
	if got := p.run(t, append([]string{"trace", "generate", path}, flags...)...); got.code != exitOK {
		t.Fatalf("%+v", got)
	}
	return path
}

// changeTrace changes the bytes of a file.
func changeTrace(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// demoFlags make a trace of several blocks in which OPT has much to win.
var demoFlags = []string{"--jobs", "4", "--chunks", "4000", "--spread", "0.2", "--resident", "25%", "--seed", "3", "--sample-bytes", "110kb"}

func TestTracesAreGenerated(t *testing.T) {
	p := newPlace(t)
	path := filepath.Join(p.directory, "demo.trace")
	golden(t, "trace-generate", p.run(t, append([]string{"trace", "generate", path}, demoFlags...)...))
	golden(t, "trace-generate-exists", p.run(t, "trace", "generate", path))
	golden(t, "trace-generate-json", p.run(t, "trace", "generate", path, "--force", "--json", "--separate"))
	golden(t, "trace-generate-nothing", p.run(t, "trace", "generate", path, "--force", "--jobs", "0", "--resident", "10%"))
	golden(t, "trace-generate-percent", p.run(t, "trace", "generate", path, "--resident", "0.1"))
	golden(t, "trace-generate-nowhere", p.run(t, "trace", "generate", filepath.Join(p.directory, "none", "x.trace")))
}

func TestAReplayIsGolden(t *testing.T) {
	p := newPlace(t)
	path := generateTrace(t, p, "demo.trace", demoFlags...)
	golden(t, "trace-replay", p.run(t, "trace", "replay", path))
	golden(t, "trace-replay-first", p.run(t, "trace", "replay", path, "--capacity", "50%,100MiB", "--policy", "sieve", "--first", "10000"))
	golden(t, "trace-replay-json", p.run(t, "trace", "replay", path, "--capacity", "25%", "--policy", "lru", "--json"))
	golden(t, "trace-replay-limit", p.run(t, "trace", "replay", path, "--max-accesses", "10000"))
	golden(t, "trace-info", p.run(t, "trace", "info", path))

	changeTrace(t, path, func(b []byte) []byte { return b[:len(b)/2] })
	golden(t, "trace-replay-torn", p.run(t, "trace", "replay", path, "--capacity", "10%", "--policy", "lru,never-evict"))
	changeTrace(t, path, func(b []byte) []byte { b[len(b)-40_000] ^= 1; return b })
	golden(t, "trace-replay-damaged", p.run(t, "trace", "replay", path))
	golden(t, "trace-info-damaged-json", p.run(t, "trace", "info", path, "--json"))
}

func TestReplaysThatMakeNoSenseAreRefused(t *testing.T) {
	p := newPlace(t)
	golden(t, "trace-replay-none", p.run(t, "trace", "replay", filepath.Join(p.directory, "none.trace")))
	golden(t, "trace-replay-no-file", p.run(t, "trace", "replay"))
	for _, test := range [][]string{
		{"--capacity", "0%", `a cache of 0% holds nothing`}, {"--capacity", "110%", `no percentage`}, {"--capacity", "0", `no capacity`},
		{"--capacity", "10%,", `no capacity`}, {"--capacity", "NaN%", `no percentage`},
		{"--policy", "arc", `"arc" is unknown: give lru, sieve`}, {"--first", "-1", "must not be negative"}, {"--max-accesses", "0", "must be at least 1"},
	} {
		got := p.run(t, "trace", "replay", "x", test[0], test[1])
		if got.code != exitUsage || !strings.Contains(got.err, test[2]) || got.out != "" {
			t.Errorf("%q: %+v", test, got)
		}
	}
}

func TestWhatIsNoTraceIsSaid(t *testing.T) {
	p := newPlace(t)
	path := filepath.Join(p.directory, "x.trace")
	version := "STOKTRCE\x63\x00\x00\x00"
	for text, want := range map[string]string{"PNG": "this is no trace", version: "of another release", version[:10]: "before anything is in it"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got := p.run(t, "trace", "info", path)
		if got.code != exitError || !strings.Contains(got.err, want) || !strings.Contains(got.err, "next:") || !strings.Contains(got.err, "x.trace, byte 0") {
			t.Errorf("%q: %+v", text, got)
		}
	}
	if got := p.run(t, "trace", "info", p.directory); got.code != exitError || !strings.Contains(got.err, "give a file") {
		t.Errorf("%+v", got)
	}
}

// hostileTrace has texts that must not steer a terminal, and nothing to replay.
func hostileTrace(t *testing.T, p *place) string {
	t.Helper()
	var out bytes.Buffer
	w, err := trace.NewWriter(&out, trace.Header{Start: time.Date(2026, 11, 22, 17, 0, 0, 0, time.UTC), Node: "\x1b[2Jnode"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Dataset(trace.Dataset{Name: "\x1b[31mpets", IndexID: "\n", Samples: 10, Chunks: 1, Bytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := w.Session(trace.Session{Job: "\x07", Order: "\r", WorldSize: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(p.directory, "hostile.trace")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestATraceDoesNotSteerTheTerminal(t *testing.T) {
	p := newPlace(t)
	path := hostileTrace(t, p)
	for name, got := range map[string]outcome{"trace-info-hostile": p.run(t, "trace", "info", path), "trace-replay-empty": p.run(t, "trace", "replay", path)} {
		if strings.ContainsAny(got.out+got.err, "\x1b\x07\r") {
			t.Errorf("%s: %q", name, got.out)
		}
		golden(t, name, got)
	}
}

func TestJSONOfATraceIsComplete(t *testing.T) {
	p := newPlace(t)
	path := generateTrace(t, p, "small.trace", "--chunks", "100")
	var description traceDescription
	got := p.run(t, "trace", "info", path, "--json")
	if err := json.Unmarshal([]byte(got.out), &description); err != nil || description.Accesses != 600 || len(description.Sessions) != 2 || description.Torn != "" {
		t.Errorf("%+v, %v", description, err)
	}
	var answer replayAnswer
	got = p.run(t, "trace", "replay", path, "--json")
	if err := json.Unmarshal([]byte(got.out), &answer); err != nil || len(answer.Policies) != 15 || answer.Chunks != 100 || answer.Trace.Accesses != 600 || got.err != "" {
		t.Errorf("%+v, %v", answer, err)
	}
}

func TestLongWorkShowsABarThatGoesAway(t *testing.T) {
	p := newPlace(t)
	path := generateTrace(t, p, "small.trace")
	p.terminal = true
	got := p.run(t, "trace", "replay", path)
	if got.code != exitOK || !strings.Contains(got.err, "replaying") {
		t.Errorf("%+v", got)
	}
	drawn := strings.FieldsFunc(got.err, func(r rune) bool { return r == '\r' })
	if len(drawn) == 0 || strings.TrimSpace(drawn[len(drawn)-1]) != "" {
		t.Errorf("the bar stays: %q", drawn)
	}
}

func TestLongWorkWritesALineNowAndThenWhereThereIsNoTerminal(t *testing.T) {
	now := time.Unix(0, 0)
	var errs bytes.Buffer
	w := (&app{err: &errs, clock: clock{now: func() time.Time { return now }}}).newWork()
	for done := range int64(10) {
		if err := w.show(t.Context(), "replaying", done, 10); err != nil {
			t.Fatal(err)
		}
		now = now.Add(lineInterval / 2)
	}
	w.finish()
	if got := errs.String(); got != "replaying: 20 %\nreplaying: 40 %\nreplaying: 60 %\nreplaying: 80 %\n" {
		t.Errorf("%q", got)
	}
}

func TestInterruptedWorkLeavesNoFile(t *testing.T) {
	p := newPlace(t)
	path := generateTrace(t, p, "small.trace")
	ctx, stop := context.WithCancel(t.Context())
	stop()
	left := filepath.Join(p.directory, "left.trace")
	for _, args := range [][]string{{"trace", "replay", path}, {"trace", "info", path}, {"trace", "generate", left}} {
		if got := p.runContext(ctx, args...); got.code != exitError || !strings.Contains(got.err, "interrupted") {
			t.Errorf("%q: %+v", args, got)
		}
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("half a trace is left")
	}
}

func TestHelpOfTraceIsGolden(t *testing.T) {
	golden(t, "help-trace-replay", newPlace(t).run(t, "trace", "replay", "--help"))
	golden(t, "help-trace-record", newPlace(t).run(t, "trace", "record", "--help"))
}

func TestFlagsOfTracesWriteWhatTheyRead(t *testing.T) {
	var sizes []sim.ReplayCapacity
	flag := capacities{&sizes, new(bool)}
	sizes = append(sizes, sim.ReplayCapacity{Share: .1})
	for _, text := range []string{"12.5%,1GiB", "3"} {
		if err := flag.Set(text); err != nil {
			t.Fatal(err)
		}
	}
	if got := flag.String(); got != "12.5%,1GiB,3" {
		t.Errorf("%q", got)
	}
	var words []string
	if err := (choices{&words, []string{"a", "b"}}).Set("b,a"); err != nil || !slices.Equal(words, []string{"b", "a"}) {
		t.Errorf("%q, %v", words, err)
	}
	if (capacities{}).String()+(choices{}).String()+(percentage{}).String() != "" {
		t.Error("an empty flag has a value")
	}
}
