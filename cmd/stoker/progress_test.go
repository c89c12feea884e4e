package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerio/stoker/shm"
)

// scanNotes are what a scan of 40 shards says in ten seconds: it lists, and then
// goes through them.
func scanNotes() []shm.ProgressNote {
	notes := []shm.ProgressNote{{}, {FilesDone: 10}, {FilesDone: 40, FilesTotal: 40}}
	for i := range int64(8) {
		notes = append(notes, shm.ProgressNote{FilesDone: 5 * i, FilesTotal: 40, BytesDone: i << 30, BytesTotal: 8 << 30, SamplesDone: 10_000 * i})
	}
	return notes
}

// played shows notes a second apart.
func played(p progress) {
	for _, note := range scanNotes() {
		p.update(note)
		time.Sleep(time.Second) // virtual
	}
	p.finish(true)
}

func TestABarShowsFilesSamplesBytesRatesAndTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var errs bytes.Buffer
		played((&app{err: &errs}).barProgress("scanning"))
		drawn := strings.ReplaceAll(errs.String(), "\r", "\n")
		var kept []string
		for line := range strings.SplitSeq(drawn, "\n") {
			if line = strings.TrimRight(line, " "); line != "" {
				kept = append(kept, line)
			}
		}
		golden(t, "progress-bar", outcome{err: strings.Join(kept, "\n") + "\n"})
		if last := errs.String()[strings.LastIndex(strings.TrimRight(errs.String(), "\r"), "\r")+1:]; strings.TrimSpace(last) != "" {
			t.Errorf("the bar stays: %q", last)
		}
	})
}

func TestProgressIsShownAsItIsAskedFor(t *testing.T) {
	for _, test := range []struct {
		kind     string
		json     bool
		terminal bool
		out, err string
	}{
		{"auto", true, true, `{"type":"progress"`, ""},
		{"auto", false, false, "", "scanning: 25 %"},
		{"auto", false, true, "", "█"},
		{"", false, true, "", "█"},
		{"bar", true, false, "", "█"},
		{"lines", false, true, "", "scanning: 25 %"},
		{"json", false, true, "", `{"type":"progress"`},
		{"none", true, true, "", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			var out, errs bytes.Buffer
			a := &app{out: &out, err: &errs, json: test.json, terminal: test.terminal, progress: test.kind}
			show := a.newProgress("scanning")
			for i := range int64(5) {
				show.update(shm.ProgressNote{Type: shm.TypeProgress, FilesDone: i, FilesTotal: 10, BytesDone: i * 10, BytesTotal: 80})
				time.Sleep(1100 * time.Millisecond) // virtual
			}
			show.finish(true)
			if !strings.Contains(out.String(), test.out) || !strings.Contains(errs.String(), test.err) ||
				(test.out == "") != (out.Len() == 0) || (test.err == "") != (errs.Len() == 0) {
				t.Errorf("%+v: out %q, err %q", test, out.String(), errs.String())
			}
		})
	}
}

func TestRateIsThatOfLate(t *testing.T) {
	var r rate
	count := int64(0)
	for second := range 20 {
		got := r.add(count, time.Duration(second)*time.Second)
		switch {
		case second == 0 && got != 0, second > 0 && second <= 10 && got != 100, second >= 14 && got != 1:
			t.Errorf("after %d s: %g", second, got)
		}
		if count += 100; second >= 10 {
			count -= 99
		}
	}
	if len(r.points) > 10 {
		t.Errorf("%d points are kept", len(r.points))
	}
}
