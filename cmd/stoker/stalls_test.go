package main

import (
	"strings"
	"testing"

	"github.com/stokerio/stoker/loader/api"
)

func TestWhatWasReadAheadIsToldInALine(t *testing.T) {
	for want, f := range map[string]api.Foresight{
		"nothing, as nothing had to be": {},
		"foreseen 100 % of 10 samples, on time 100 %, late 0 %; brought 100 B, wasted 0 %":                                         {Samples: 10, OnTime: 10, BroughtBytes: 100},
		"foreseen 75 % of 4 samples, on time 50 %, late 25 %; brought 1.00 KiB, wasted 100 %; window 1,000 samples; 1 read failed": {Samples: 4, OnTime: 2, Late: 1, Unforeseen: 1, BroughtBytes: 1 << 10, WastedBytes: 1 << 20, WindowSamples: 1000, Failed: 1},
	} {
		if got := foreseen(&f); got != want {
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
	if got := p.run(t, "stalls", "--json"); strings.Join(strings.Fields(got.out), "") != `{"sessions":[]}` {
		t.Errorf("%+v", got)
	}
}
