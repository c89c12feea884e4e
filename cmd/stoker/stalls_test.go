package main

import (
	"strings"
	"testing"

	"github.com/stokerio/stoker/loader/api"
)

func TestWhatWasReadAheadIsToldInLines(t *testing.T) {
	for want, f := range map[string]api.Foresight{
		"nothing, as nothing had to be": {},
		"brought 100 B: accuracy 100 %, waste 0 %\nread 10 samples: coverage 100 %, timeliness 100 %\n" +
			"too early: 200 ms before use, 0 % gone again; too late: none": {Samples: 10, OnTime: 10, BroughtBytes: 100, UsedBytes: 100, EarlySeconds: 2},
		"brought 1.00 KiB: accuracy 25 %, waste 50 %; window 1,000 samples; 1 read failed\nread 4 samples: coverage 75 %, timeliness 67 %\n" +
			"too early: 0 ms before use, 50 % gone again; too late: 25 %, by 300 ms": {Samples: 4, OnTime: 2, Late: 1, Unforeseen: 1, Gone: 1, BroughtBytes: 1 << 10,
			UsedBytes: 256, WastedBytes: 512, LateSeconds: 0.3, WindowSamples: 1000, Failed: 1},
	} {
		f.Change(&api.Foresight{}, &api.Foresight{})
		if got := strings.Join(foreseen(&f), "\n"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestStallsAreGolden(t *testing.T) {
	for name, args := range map[string][]string{
		"stalls":            {"stalls"},
		"stalls-one":        {"stalls", "s-1", "--worst", "1"},
		"stalls-json":       {"stalls", "s-1", "--json"},
		"stalls-unknown":    {"stalls", "s-9"},
		"complete-stalls":   {"__complete", "stalls", ""},
		"usage-stalls-more": {"stalls", "s-1", "s-2"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.serveAPI(t, newFakeNode())
			golden(t, name, p.run(t, args...))
		})
	}
}

func TestStallsWithoutSessionsSayWhatToDo(t *testing.T) {
	p := newPlace(t)
	p.serveAPI(t, &fakeNode{})
	if got := p.run(t, "stalls"); got.code != exitOK || !strings.Contains(got.out, "stoker.Dataset") {
		t.Errorf("%+v", got)
	}
	if got := p.run(t, "stalls", "--json"); strings.Join(strings.Fields(got.out), "") != `{"sessions":[],"jobs":[]}` {
		t.Errorf("%+v", got)
	}
}
