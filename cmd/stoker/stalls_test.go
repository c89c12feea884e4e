package main

import (
	"strings"
	"testing"
)

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
