package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stokerio/stoker/bench"
)

func TestCompareSaysWhatIsMissing(t *testing.T) {
	got := newPlace(t).run(t, "bench", "compare", "--stokerd", "/nowhere/stokerd", "--data-dir", t.TempDir())
	if got.code != exitError || !strings.Contains(got.err, "/nowhere/stokerd") || got.out != "" {
		t.Errorf("%+v", got)
	}
}

func TestCeilingRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for _, options := range []string{"", "{", `{"kind":"nonsense"}`} {
		if got := newPlace(t).run(t, "bench", "ceiling", options); got.code != exitError || got.err == "" {
			t.Errorf("%q: %+v", options, got)
		}
	}
}

func TestScanRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for _, options := range []string{"", "{", `{}`, `{"threads":1,"passes":1,"list":"/nowhere"}`} {
		if got := newPlace(t).run(t, "bench", "scan", options); got.code != exitError || got.err == "" {
			t.Errorf("%q: %+v", options, got)
		}
	}
}

func TestCompareSaysWhichCasesThereAre(t *testing.T) {
	got := newPlace(t).run(t, "bench", "compare", "--cases", "raw,zip", "--data-dir", t.TempDir())
	if got.code != exitError || !strings.Contains(got.err, "raw, tokens, tar") {
		t.Errorf("%+v", got)
	}
}

func TestPrefetchSaysWhichStepsThereAre(t *testing.T) {
	got := newPlace(t).run(t, "bench", "prefetch", "--steps", "depth,nonsense")
	if got.code != exitError || !strings.Contains(got.err, "disk, depth") || got.out != "" {
		t.Errorf("%+v", got)
	}
}

func TestFlashSaysWhichStepsThereAre(t *testing.T) {
	got := newPlace(t).run(t, "bench", "flash", "--steps", "read,nonsense")
	if got.code != exitError || !strings.Contains(got.err, "read, write, start, churn") || got.out != "" {
		t.Errorf("%+v", got)
	}
}

func TestFlashStartRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for _, options := range []string{"", "{", `{}`, `{"dir":"/proc/nowhere"}`} {
		if got := newPlace(t).run(t, "bench", "flash-start", options); got.code != exitError || got.err == "" {
			t.Errorf("%q: %+v", options, got)
		}
	}
}

func TestFlashStartCountsWhatThereIs(t *testing.T) {
	options, err := json.Marshal(bench.FlashStartOptions{Dir: t.TempDir(), LimitBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	got := newPlace(t).run(t, "bench", "flash-start", string(options))
	var r bench.FlashStartResult
	if err := json.Unmarshal([]byte(got.out), &r); got.code != exitOK || err != nil || r.Chunks != 0 || r.PSSBytes == 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestReportsArePrintedAndWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "report.json")
	got := newPlace(t).run(t, "bench", "prefetch", "--steps", "disk", "--skip-disk", "--check", "--json", file)
	if got.code != exitOK || !strings.Contains(got.out, "simulated time") {
		t.Errorf("%+v", got)
	}
	var report bench.PrefetchReport
	if content, err := os.ReadFile(file); err != nil || json.Unmarshal(content, &report) != nil || report.Version != bench.ReportVersion {
		t.Errorf("%+v, %v", report, err)
	}
	if got = newPlace(t).run(t, "bench", "prefetch", "--steps", "disk", "--skip-disk", "--json", filepath.Join(file, "below")); got.code != exitError {
		t.Errorf("%+v", got)
	}
}

func TestMissedTargetsAreAnErrorIfThatIsAskedFor(t *testing.T) {
	a := &app{}
	if err := a.missed(nil, false, []string{"one"}); err != nil {
		t.Error(err)
	}
	if err := a.missed(nil, true, nil); err != nil {
		t.Error(err)
	}
	err := a.missed(nil, true, []string{"one", "two"})
	if f, ok := errors.AsType[*failure](err); !ok || f.exit != exitError || f.Where != "one, two" || !strings.Contains(f.What, "2 figures") {
		t.Errorf("%+v", err)
	}
	if err := a.missed(os.ErrInvalid, true, []string{"one"}); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("what went wrong before is lost: %v", err)
	}
}

func TestHelpExplainsEveryFigure(t *testing.T) {
	for command, figures := range map[string][]bench.FigureText{"prefetch": bench.PrefetchFigures(), "compare": bench.CompareFigures(), "flash": bench.FlashFigures()} {
		got := newPlace(t).run(t, "bench", command, "--help")
		for _, f := range figures {
			if line := strings.TrimRight("    "+f.Name+" "+f.Target(), " "); got.code != exitOK || !strings.Contains(got.out, line+"\n        ") {
				t.Errorf("%s: %s is not explained", command, f.Name)
			}
		}
	}
}

func TestStepsAreLinesOrABar(t *testing.T) {
	var errs bytes.Buffer
	clock := time.Unix(0, 0)
	show, finish := (&app{err: &errs}).stepProgress(func() time.Time { return clock })
	show(0, 2, "make data")
	clock = clock.Add(90 * time.Second)
	show(1, 2, "measure")
	finish()
	if want := "[0/2] make data (0s)\n[1/2] measure (1m30s)\n"; errs.String() != want {
		t.Errorf("got\n%s", errs.String())
	}
	errs.Reset()
	show, finish = (&app{err: &errs, terminal: true}).stepProgress(time.Now)
	show(0, 2, "make data")
	show(1, 2, "measure")
	finish()
	if !strings.Contains(errs.String(), "make data") || strings.Contains(errs.String(), "\n") {
		t.Errorf("got %q", errs.String())
	}
}
