package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stokerio/stoker/loader/api"
)

// fakeHints are the hints of a fakeNode: each look finds the last one further.
type fakeHints struct {
	mu       sync.Mutex
	list     []api.Hint
	requests []api.HintRequest
	renewed  int
	ended    []string
	step     int64  // samples that a hint comes on with each look
	final    string // its state in the end; "": complete
}

func (n *fakeNode) Hints() []api.Hint {
	n.hints.mu.Lock()
	defer n.hints.mu.Unlock()
	return append([]api.Hint{}, n.hints.list...)
}

func (n *fakeNode) Hint(id string) (api.Hint, error) {
	n.hints.mu.Lock()
	defer n.hints.mu.Unlock()
	for i := range n.hints.list {
		if h := &n.hints.list[i]; h.ID == id {
			if h.ReadySamples = min(h.Samples, h.ReadySamples+n.hints.step); h.ReadySamples == h.Samples {
				h.State, h.FetchedBytes = api.HintComplete, h.Bytes-h.ResidentBytes
				if n.hints.final != "" {
					h.State, h.Problem, h.FailedFetches, h.ReadyAt, h.ReadyUnknown = n.hints.final, "the disk is gone", 3, nil, "it failed"
				}
			}
			return *h, nil
		}
	}
	return api.Hint{}, &api.Error{Code: api.CodeNotFound, What: "no such hint: it has ended, or never was", Where: "hint " + id, Remedy: "`stoker hint ls` lists hints; announce it anew"}
}

func (n *fakeNode) RenewHint(id string, _ float64) (api.Hint, error) {
	n.hints.mu.Lock()
	n.hints.renewed++
	n.hints.mu.Unlock()
	return n.Hint(id)
}

func (n *fakeNode) EndHint(id string) (api.Hint, error) {
	h, err := n.Hint(id)
	n.hints.mu.Lock()
	defer n.hints.mu.Unlock()
	n.hints.ended = append(n.hints.ended, id)
	return h, err
}

func (n *fakeNode) AddHint(_ context.Context, _ api.Client, request api.HintRequest) (api.Hint, error) {
	if _, err := n.Dataset(request.Dataset); err != nil {
		return api.Hint{}, err
	}
	n.hints.mu.Lock()
	defer n.hints.mu.Unlock()
	n.hints.requests = append(n.hints.requests, request)
	h := hintOfTests(fmt.Sprintf("h-%d", len(n.hints.requests)))
	h.Dataset = request.Dataset
	n.hints.list = append(n.hints.list, h)
	return h, nil
}

var hintTime = time.Date(2026, 11, 22, 17, 0, 0, 0, time.UTC)

func hintOfTests(id string) api.Hint {
	expires, ready := hintTime.Add(time.Minute), hintTime.Add(9*time.Second)
	return api.Hint{ID: id, Dataset: "pets", Kind: "torch", Client: api.Client{PID: 4711, UID: 1000, Name: "http"}, CreatedAt: hintTime, ExpiresAt: &expires,
		State: api.HintActive, Samples: 10485, Bytes: 1 << 30, ResidentBytes: 1 << 28, ResidentShare: 0.25, Estimated: true, BudgetBytes: 1 << 30,
		FetchBytes: 3 << 28, ReadyAt: &ready}
}

func hintedPlace(t *testing.T) (*place, *fakeNode) {
	t.Helper()
	p, node := newPlace(t), newFakeNode()
	p.clock = &virtualClock{at: hintTime}
	p.serveAPI(t, node)
	return p, node
}

func TestOutputOfHintsIsGolden(t *testing.T) {
	for name, args := range map[string][]string{
		"hint":               {"hint", "pets", "--sampler", "torch", "--deadline", "10m"},
		"hint-json":          {"hint", "pets", "--sampler", "torch", "--json"},
		"hint-wait":          {"hint", "pets", "--sampler", "torch", "--wait"},
		"hint-wait-bar":      {"hint", "pets", "--sampler", "torch", "--wait", "--progress", "bar"},
		"hint-wait-json":     {"hint", "pets", "--sampler", "torch", "--wait", "--json"},
		"hint-unknown":       {"hint", "cats", "--sampler", "torch"},
		"hint-ls":            {"hint", "ls"},
		"hint-ls-json":       {"hint", "ls", "--json"},
		"hint-end":           {"hint", "end", "h-7"},
		"hint-end-json":      {"hint", "end", "h-7", "--json"},
		"hint-end-unknown":   {"hint", "end", "h-99"},
		"help-hint":          {"hint", "--help"},
		"usage-hint":         {"hint", "pets"},
		"usage-hint-sampler": {"hint", "pets", "--seed", "3"},
		"usage-hint-from":    {"hint", "pets", "--sampler", "torch", "--from", "3"},
		"usage-hint-file":    {"hint", "pets", "--file", "a:5+0"},
		"usage-hint-budget":  {"hint", "pets", "--sampler", "torch", "--budget", "much"},
		"usage-hint-rate":    {"hint", "pets", "--sampler", "torch", "--rate", "NaN"},
		"complete-hint":      {"__complete", "hint", "end", ""},
		"complete-sampler":   {"__complete", "hint", "pets", "--sampler", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p, node := hintedPlace(t)
			node.hints.step = 1500
			spent := hintOfTests("h-8")
			spent.State, spent.Kind, spent.Samples, spent.ReadySamples, spent.FetchedBytes, spent.ReadShare, spent.ExpiresAt = api.HintSpent, "files", 12, 7, 1<<30, 0.5, nil
			node.hints.list = []api.Hint{hintOfTests("h-7"), spent}
			golden(t, name, p.run(t, args...))
		})
	}
}

// What the daemon does not say any more is not said from an answer before.
func TestAHintOfWhichFetchesFailedIsNotAllThere(t *testing.T) {
	for _, more := range [][]string{nil, {"--json"}} {
		p, node := hintedPlace(t)
		node.hints.step, node.hints.final = 11000, api.HintIncomplete
		got := p.run(t, append([]string{"hint", "pets", "--sampler", "torch", "--wait"}, more...)...)
		if last := got.out[strings.LastIndexByte(strings.TrimSuffix(got.out, "\n"), '\n')+1:]; got.code != exitOK ||
			strings.Contains(last, `"ready_at"`) || more == nil && !strings.Contains(last, "3 fetches failed") ||
			more != nil && !strings.Contains(last, `"failed_fetches":3`) || !strings.Contains(got.out, "the disk is gone") || strings.Contains(got.out, "all of it is there") {
			t.Errorf("%+v", got)
		}
	}
}

func TestFlagsOfAHintArrive(t *testing.T) {
	p, node := hintedPlace(t)
	directory := t.TempDir()
	list := filepath.Join(directory, "list")
	if err := os.WriteFile(list, []byte("[3, 1,\n2]\t9;8"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		want api.HintRequest
	}{
		{[]string{"--indices", list, "--rate", "640", "--weight", "2", "--budget", "1MiB", "--lease", "5m", "--job-id", "j"},
			api.HintRequest{Indices: []int64{3, 1, 2, 9, 8}, SamplesPerSecond: pointer(640), Priority: pointer(2), BudgetBytes: new(int64(1 << 20)), LeaseSeconds: pointer(300), JobID: "j"}},
		{[]string{"--sampler", "numpy", "--seed", "18446744073709551615", "--seeding", "once", "--epoch", "1", "--epochs", "2", "--rank", "1", "--world-size", "2", "--batch-size", "8",
			"--drop-last", "--from", "5", "--count", "6", "--deadline", "10m"},
			api.HintRequest{Sampler: &api.HintSampler{Kind: "numpy", Seeding: "once", Seed: 1<<64 - 1, Epoch: 1, Epochs: 2, Rank: 1, WorldSize: 2, BatchSize: 8, DropLast: true},
				Window: &api.HintWindow{From: 5, Count: 6}, DeadlineSeconds: pointer(600), LeaseSeconds: pointer(660)}},
		{[]string{"--file", "a/b.jpg", "--file", "c:d.tar:4096+512", "--file", "e:f", "--deadline", "3h", "--block-size", "7"},
			api.HintRequest{Files: []api.HintFile{{Path: "a/b.jpg"}, {Path: "c:d.tar", Offset: 4096, Length: 512}, {Path: "e:f"}}, BlockSize: 7,
				DeadlineSeconds: pointer(10800), LeaseSeconds: pointer(3600)}},
	} {
		test.want.Dataset = "pets"
		got := p.run(t, append([]string{"hint", "pets"}, test.args...)...)
		if last := node.hints.requests; got.code != exitOK || !reflect.DeepEqual(last[len(last)-1], test.want) {
			text, _ := json.Marshal(last)
			t.Errorf("%q: %+v, the daemon was asked for %s", test.args, got, text)
		}
	}
}

func TestIndicesThatAreNoneAreRefused(t *testing.T) {
	p, node := hintedPlace(t)
	directory := t.TempDir()
	for name, text := range map[string]string{"word": "1 two 3", "float": "1.5", "huge": "99999999999999999999", "brace": "{1}"} {
		path := filepath.Join(directory, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := p.run(t, "hint", "pets", "--indices", path); got.code != exitError || !strings.Contains(got.err, "is no number of a sample") {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := p.run(t, "hint", "pets", "--indices", filepath.Join(directory, "nothing")); got.code != exitError || !strings.Contains(got.err, "cannot read the indices") {
		t.Errorf("no file: %+v", got)
	}
	if len(node.hints.requests) != 0 {
		t.Errorf("the daemon was asked for %+v", node.hints.requests)
	}
}

func TestAHintThatIsWaitedForKeepsItsLeaseAndEndsWhenInterrupted(t *testing.T) {
	p, node := hintedPlace(t)
	node.hints.step = 100
	if got := p.run(t, "hint", "pets", "--sampler", "torch", "--wait", "--lease", "4s"); got.code != exitOK || node.hints.renewed < 5 || len(node.hints.ended) != 0 {
		t.Errorf("%+v, renewed %d times, ended %q", got, node.hints.renewed, node.hints.ended)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p.clock.waited = cancel
	if got := p.runContext(ctx, "hint", "pets", "--sampler", "torch", "--wait"); got.code != exitError || len(node.hints.ended) != 1 || node.hints.ended[0] != "h-2" {
		t.Errorf("%+v, ended %q", got, node.hints.ended)
	}
}

func TestAHintThatFailsIsAnError(t *testing.T) {
	p, node := hintedPlace(t)
	node.hints.step, node.hints.final = 1<<20, api.HintFailed
	if got := p.run(t, "hint", "pets", "--sampler", "torch", "--wait"); got.code != exitError || !strings.Contains(got.err, "the disk is gone") {
		t.Errorf("%+v", got)
	}
}

func TestNoHintsSaysWhatToDo(t *testing.T) {
	p, _ := hintedPlace(t)
	if got := p.run(t, "hint", "ls"); got.code != exitOK || !strings.Contains(got.out, "stoker hint DATASET") {
		t.Errorf("%+v", got)
	}
}

func FuzzSplitNumbers(f *testing.F) {
	f.Add("1 2,3")
	f.Add("[4;5]\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "list")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		want := strings.FieldsFunc(text, func(r rune) bool { return r < 128 && isBetween(byte(r)) })
		if indices, err := (&app{}).readIndices(path); err == nil && len(indices) != len(want) {
			t.Errorf("%q has %d numbers, found %d", text, len(want), len(indices))
		}
	})
}
