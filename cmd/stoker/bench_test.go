package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
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
