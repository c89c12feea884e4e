package loader

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/loader/order"
	"github.com/stokerio/stoker/shm"
)

// fakeCarrier carries hints nowhere: tests say how far they are.
type fakeCarrier struct {
	mu      sync.Mutex
	carried []*hintStream
	done    map[*hintStream]func()
	err     error
}

func (c *fakeCarrier) carry(s *hintStream, done func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if c.done == nil {
		c.done = map[*hintStream]func(){}
	}
	c.carried = append(c.carried, s)
	c.done[s] = done
	return nil
}

func (c *fakeCarrier) drop(s *hintStream) {
	c.mu.Lock()
	done := c.done[s]
	delete(c.done, s)
	c.mu.Unlock()
	if done != nil {
		done()
	}
}

func (c *fakeCarrier) last() *hintStream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.carried[len(c.carried)-1]
}

const hintedFiles = 50

// hintedNode is a node with the dataset "files", of 50 files of 100 to 149 bytes, whose
// hints are carried nowhere.
func hintedNode(t testing.TB, change func(*Options)) (*testNode, *fakeCarrier) {
	t.Helper()
	options := testOptions(t)
	if change != nil {
		change(&options)
	}
	carrier := &fakeCarrier{}
	n := startChanged(t, options, func(n *Node) { n.hints.carrier = carrier })
	directory, _ := writeFiles(t, hintedFiles, func(i int) int { return 100 + i })
	n.add("files", directory)
	return n, carrier
}

func (n *testNode) announce(r api.HintRequest) (api.Hint, error) {
	if r.Dataset == "" {
		r.Dataset = "files"
	}
	return n.AddHint(context.Background(), api.Client{PID: 1, UID: 2, Name: "http"}, r)
}

func (n *testNode) mustAnnounce(r api.HintRequest) api.Hint {
	n.t.Helper()
	h, err := n.announce(r)
	if err != nil {
		n.t.Fatal(err)
	}
	return h
}

func number[T any](v T) *T { return &v }

func TestHintsThatMakeNoSenseAreRefused(t *testing.T) {
	n, carrier := hintedNode(t, func(o *Options) { o.Hints.IndicesMax = 1000 })
	list := []int64{1, 2}
	sampler := func(change func(*api.HintSampler)) *api.HintSampler {
		s := &api.HintSampler{Kind: "global", WorldSize: 2, BatchSize: 4}
		change(s)
		return s
	}
	for name, test := range map[string]struct {
		request api.HintRequest
		code    api.Code
		word    string
	}{
		"unknown dataset":      {api.HintRequest{Dataset: "none", Indices: list}, api.CodeNotFound, "no such dataset"},
		"nothing":              {api.HintRequest{}, api.CodeInvalid, "names nothing"},
		"no indices":           {api.HintRequest{Indices: []int64{}}, api.CodeInvalid, "names nothing"},
		"no files":             {api.HintRequest{Files: []api.HintFile{}}, api.CodeInvalid, "names nothing"},
		"two things":           {api.HintRequest{Indices: list, Sampler: &api.HintSampler{Kind: "global"}}, api.CodeInvalid, "more than one"},
		"indices and files":    {api.HintRequest{Indices: list, Files: []api.HintFile{{Path: "c0/f000"}}}, api.CodeInvalid, "more than one"},
		"window alone":         {api.HintRequest{Indices: list, Window: &api.HintWindow{Count: 1}}, api.CodeInvalid, "there is no sampler"},
		"deadline and rate":    {api.HintRequest{Indices: list, DeadlineSeconds: number(1.0), SamplesPerSecond: number(1.0)}, api.CodeInvalid, "contradicts"},
		"negative index":       {api.HintRequest{Indices: []int64{3, -1}}, api.CodeOutOfRange, "sample -1"},
		"index beyond":         {api.HintRequest{Indices: []int64{3, hintedFiles}}, api.CodeOutOfRange, "sample 50"},
		"huge index":           {api.HintRequest{Indices: []int64{math.MaxInt64}}, api.CodeOutOfRange, "does not exist"},
		"too many indices":     {api.HintRequest{Indices: make([]int64, 1001)}, api.CodeLimit, "1000 indices"},
		"too many files":       {api.HintRequest{Files: make([]api.HintFile, 200)}, api.CodeLimit, "1000 indices"},
		"deadline of zero":     {api.HintRequest{Indices: list, DeadlineSeconds: number(0.0)}, api.CodeInvalid, "it is 0"},
		"deadline in the past": {api.HintRequest{Indices: list, DeadlineSeconds: number(-1.0)}, api.CodeInvalid, "it is -1"},
		"deadline NaN":         {api.HintRequest{Indices: list, DeadlineSeconds: number(math.NaN())}, api.CodeInvalid, "NaN"},
		"rate infinite":        {api.HintRequest{Indices: list, SamplesPerSecond: number(math.Inf(1))}, api.CodeInvalid, "+Inf"},
		"rate of zero":         {api.HintRequest{Indices: list, SamplesPerSecond: number(0.0)}, api.CodeInvalid, "it is 0"},
		"weight NaN":           {api.HintRequest{Indices: list, Priority: number(math.NaN())}, api.CodeInvalid, "NaN"},
		"weight of zero":       {api.HintRequest{Indices: list, Priority: number(0.0)}, api.CodeInvalid, "priority"},
		"weight below zero":    {api.HintRequest{Indices: list, Priority: number(-2.0)}, api.CodeInvalid, "it is -2"},
		"weight infinite":      {api.HintRequest{Indices: list, Priority: number(math.Inf(-1))}, api.CodeInvalid, "-Inf"},
		"budget of zero":       {api.HintRequest{Indices: list, BudgetBytes: number(int64(0))}, api.CodeInvalid, "budget_bytes"},
		"budget below zero":    {api.HintRequest{Indices: list, BudgetBytes: number(int64(-1))}, api.CodeInvalid, "budget_bytes"},
		"budget too large":     {api.HintRequest{Indices: list, BudgetBytes: number(int64(1)<<30 + 1)}, api.CodeLimit, "budget_bytes"},
		"lease of zero":        {api.HintRequest{Indices: list, LeaseSeconds: number(0.0)}, api.CodeInvalid, "lease_seconds"},
		"lease too long":       {api.HintRequest{Indices: list, LeaseSeconds: number(3601.0)}, api.CodeInvalid, "3600"},
		"lease NaN":            {api.HintRequest{Indices: list, LeaseSeconds: number(math.NaN())}, api.CodeInvalid, "NaN"},
		"other index":          {api.HintRequest{Indices: list, IndexID: "other"}, api.CodeChanged, "other"},
		"block size":           {api.HintRequest{Indices: list, BlockSize: 8}, api.CodeInvalid, "block_size"},
		"columns":              {api.HintRequest{Indices: list, Select: []api.HintColumn{{Name: "a", Parts: []string{"b"}}}}, api.CodeInvalid, "select"},
		"unknown sampler":      {api.HintRequest{Sampler: &api.HintSampler{Kind: "magic"}}, api.CodeInvalid, "magic"},
		"written down":         {api.HintRequest{Sampler: &api.HintSampler{Kind: "list"}}, api.CodeInvalid, "list"},
		"no kind":              {api.HintRequest{Sampler: &api.HintSampler{}}, api.CodeInvalid, "sampler"},
		"rank beyond":          {api.HintRequest{Sampler: sampler(func(s *api.HintSampler) { s.Rank = 2 })}, api.CodeInvalid, "rank 2"},
		"negative rank":        {api.HintRequest{Sampler: sampler(func(s *api.HintSampler) { s.Rank = -1 })}, api.CodeInvalid, "rank -1"},
		"negative world":       {api.HintRequest{Sampler: sampler(func(s *api.HintSampler) { s.WorldSize = -1 })}, api.CodeInvalid, "world_size"},
		"negative batch":       {api.HintRequest{Sampler: sampler(func(s *api.HintSampler) { s.BatchSize = -1 })}, api.CodeInvalid, "batch_size"},
		"huge batch":           {api.HintRequest{Sampler: sampler(func(s *api.HintSampler) { s.BatchSize = math.MaxInt64 })}, api.CodeInvalid, "batch_size"},
		"negative epoch":       {api.HintRequest{Sampler: sampler(func(s *api.HintSampler) { s.Epoch = -1 })}, api.CodeInvalid, "epoch"},
		"negative epochs":      {api.HintRequest{Sampler: sampler(func(s *api.HintSampler) { s.Epochs = -1 })}, api.CodeInvalid, "epochs"},
		"endless epochs":       {api.HintRequest{Sampler: sampler(func(s *api.HintSampler) { s.Epochs = math.MaxInt64 })}, api.CodeInvalid, "fewer epochs"},
		"last epoch":           {api.HintRequest{Sampler: sampler(func(s *api.HintSampler) { s.Epoch = math.MaxInt64 })}, api.CodeInvalid, "fewer epochs"},
		"window of global":     {api.HintRequest{Sampler: sampler(func(s *api.HintSampler) { s.Window = 3 })}, api.CodeInvalid, "takes no window"},
		"seeding of global":    {api.HintRequest{Sampler: sampler(func(s *api.HintSampler) { s.Seeding = "once" })}, api.CodeInvalid, "takes no seeding"},
		"negative window":      {api.HintRequest{Sampler: sampler(func(s *api.HintSampler) { s.Kind, s.Window = "windowed", -3 })}, api.CodeInvalid, "window of -3"},
		"seed of numpy":        {api.HintRequest{Sampler: &api.HintSampler{Kind: "numpy", Seed: 1 << 40}}, api.CodeInvalid, "numpy takes seeds"},
		"epochs of torch":      {api.HintRequest{Sampler: &api.HintSampler{Kind: "torch", Epochs: 1 << 40}}, api.CodeLimit, "indices"},
		"part before":          {api.HintRequest{Sampler: &api.HintSampler{Kind: "global"}, Window: &api.HintWindow{From: -1, Count: 2}}, api.CodeOutOfRange, "window"},
		"part of nothing":      {api.HintRequest{Sampler: &api.HintSampler{Kind: "global"}, Window: &api.HintWindow{From: 1}}, api.CodeOutOfRange, "window"},
		"part beyond":          {api.HintRequest{Sampler: &api.HintSampler{Kind: "global"}, Window: &api.HintWindow{From: 49, Count: 2}}, api.CodeOutOfRange, "window"},
		"huge part":            {api.HintRequest{Sampler: &api.HintSampler{Kind: "global"}, Window: &api.HintWindow{From: 2, Count: math.MaxInt64}}, api.CodeOutOfRange, "window"},
		"absolute path":        {api.HintRequest{Files: []api.HintFile{{Path: "/etc/passwd"}}}, api.CodeInvalid, "no path within"},
		"path that leads out":  {api.HintRequest{Files: []api.HintFile{{Path: "../secret"}}}, api.CodeInvalid, "no path within"},
		"path through out":     {api.HintRequest{Files: []api.HintFile{{Path: "c0/../../secret"}}}, api.CodeInvalid, "no path within"},
		"path with a dot":      {api.HintRequest{Files: []api.HintFile{{Path: "./c0/f000"}}}, api.CodeInvalid, "no path within"},
		"empty path":           {api.HintRequest{Files: []api.HintFile{{}}}, api.CodeInvalid, "no path within"},
		"path with NUL":        {api.HintRequest{Files: []api.HintFile{{Path: "c0/f\x00"}}}, api.CodeInvalid, "no path within"},
		"unknown file":         {api.HintRequest{Files: []api.HintFile{{Path: "c0/none"}}}, api.CodeNotFound, "no such file"},
		"a directory":          {api.HintRequest{Files: []api.HintFile{{Path: "c0"}}}, api.CodeNotFound, "no such file"},
		"negative offset":      {api.HintRequest{Files: []api.HintFile{{Path: "c0/f000", Offset: -1}}}, api.CodeOutOfRange, "it has 100"},
		"negative length":      {api.HintRequest{Files: []api.HintFile{{Path: "c0/f000", Length: -1}}}, api.CodeOutOfRange, "it has 100"},
		"range beyond":         {api.HintRequest{Files: []api.HintFile{{Path: "c0/f000", Offset: 1, Length: 100}}}, api.CodeOutOfRange, "it has 100"},
		"huge range":           {api.HintRequest{Files: []api.HintFile{{Path: "c0/f000", Offset: 1, Length: math.MaxInt64}}}, api.CodeOutOfRange, "it has 100"},
	} {
		_, err := n.announce(test.request)
		var refused *api.Error
		if !errors.As(err, &refused) || refused.Code != test.code || !strings.Contains(refused.Error(), test.word) || refused.Remedy == "" {
			t.Errorf("%s: %v, want %s with %q", name, err, test.code, test.word)
		}
	}
	if open := n.Hints(); len(open) != 0 || len(carrier.carried) != 0 {
		t.Errorf("%d hints are open, %d were carried", len(open), len(carrier.carried))
	}
	if err := n.RemoveDataset(t.Context(), "files"); err != nil {
		t.Errorf("what was refused keeps the dataset: %v", err)
	}
}

func samplesOf(s *hintStream) []int64 { return s.order.At(0, 0, s.order.length, nil) }

func TestHintsMeanTheSamplesThatASessionReads(t *testing.T) {
	n, carrier := hintedNode(t, nil)
	n.mustAnnounce(api.HintRequest{Indices: []int64{7, 3, 7, 0}})
	if got := samplesOf(carrier.last()); !slices.Equal(got, []int64{7, 3, 7, 0}) {
		t.Errorf("indices: %v", got)
	}
	for _, kind := range api.HintKinds() {
		request := openRequest("files")
		request.Order, request.Seed, request.Epoch, request.Rank, request.WorldSize, request.Window = kind, 9, 1, 1, 2, 8
		s := n.openSession(request)
		var want []int64
		for {
			b := s.next()
			if b.Kind != shm.KindBatch {
				break
			}
			want = append(want, b.index...)
		}
		_ = s.Close()
		sampler := &api.HintSampler{Kind: kind, Seed: 9, Epoch: 1, Rank: 1, WorldSize: 2, BatchSize: 4}
		if kind == "windowed" {
			sampler.Window = 8
		}
		h := n.mustAnnounce(api.HintRequest{Sampler: sampler})
		if got := samplesOf(carrier.last()); !slices.Equal(got, want) || h.Kind != kind || h.Samples != int64(len(want)) {
			t.Errorf("%s: announced %v, the session reads %v", kind, got, want)
		}
		n.mustAnnounce(api.HintRequest{Sampler: sampler, Window: &api.HintWindow{From: 5, Count: 9}})
		if got := samplesOf(carrier.last()); !slices.Equal(got, want[5:14]) {
			t.Errorf("%s: a part: announced %v, the session reads %v", kind, got, want[5:14])
		}
	}
}

func TestFilesAreFoundByName(t *testing.T) {
	n, carrier := hintedNode(t, nil)
	files := []api.HintFile{{Path: "c1/f001"}, {Path: "c0/f048", Offset: 48, Length: 10}, {Path: "c2/f047", Offset: 147}}
	h := n.mustAnnounce(api.HintRequest{Files: files})
	if h.Samples != 3 || h.Bytes != 101+10 || h.Kind != "files" || h.Estimated {
		t.Errorf("%+v", h)
	}
	s := carrier.last()
	var scratch []byte
	for i, piece := range s.files.ranges {
		o, err := s.view.Object(piece.Chunk, &scratch)
		if err != nil || string(o.Name) != files[i].Path || piece.Offset != files[i].Offset {
			t.Errorf("%+v is %q from %d on, %v", files[i], o.Name, piece.Offset, err)
		}
	}
	for i := range hintedFiles {
		n.mustAnnounce(api.HintRequest{Files: []api.HintFile{{Path: fmt.Sprintf("c%d/f%03d", i%3, i)}}, BudgetBytes: number(int64(1))})
		if got := carrier.last().files.ranges[0].Bytes; got != int64(100+i) {
			t.Errorf("file %d has %d bytes", i, got)
		}
		if i%10 == 9 {
			n.hints.endWhere(func(*hint) bool { return true }, hintDeleted)
		}
	}
}

func TestTheAnswerSaysWhatIsThereAndWhatWillBeFetched(t *testing.T) {
	n, carrier := hintedNode(t, nil)
	h := n.mustAnnounce(api.HintRequest{Indices: []int64{0, 1, 2}, JobID: "j"})
	view := carrier.last().view
	bytes := int64(0)
	for _, sample := range []int64{0, 1, 2} {
		o, err := view.Object(sample, new([]byte))
		if err != nil {
			t.Fatal(err)
		}
		bytes += o.Version.Size
	}
	if h.State != api.HintActive || h.Samples != 3 || h.Bytes != bytes || h.ResidentBytes < 0 || h.ResidentBytes > bytes || h.FetchBytes != bytes-h.ResidentBytes ||
		h.BudgetBytes != bytes || h.JobID != "j" || h.Client.PID != 1 || h.ExpiresAt == nil || (h.ReadyAt == nil) == (h.ReadyUnknown == "") {
		t.Errorf("%+v", h)
	}
	carrier.last().change(func(p *hintProgress) { p.ready, p.fetched = 1, 100 })
	if h, err := n.Hint(h.ID); err != nil || h.ReadySamples != 1 || h.FetchedBytes != 100 || h.ReadyAt == nil {
		t.Errorf("%+v, %v", h, err)
	}
	carrier.last().finish(api.HintSpent, "")
	if h, err := n.Hint(h.ID); err != nil || h.State != api.HintSpent || h.ReadyAt != nil || h.ReadyUnknown == "" || h.FetchBytes != 0 {
		t.Errorf("%+v, %v", h, err)
	}
	short := n.mustAnnounce(api.HintRequest{Indices: []int64{0, 1, 2}, BudgetBytes: number(int64(7))})
	if short.FetchBytes > 7 || short.BudgetBytes != 7 {
		t.Errorf("with a budget: %+v", short)
	}
}

func TestTheClockOfAHintIsForWhatMustBeFetched(t *testing.T) {
	c := newColdFiles(t, 20, 5000, nil)
	carrier := c.hints.carrier
	c.hints.carrier = &fakeCarrier{}
	defer func() { c.hints.carrier = carrier }()
	request := api.HintRequest{Indices: []int64{3, 4, 5}, DeadlineSeconds: number(100.0)}
	cold := c.mustAnnounce(request)
	if at := cold.ReadyAt; at == nil || at.Before(cold.CreatedAt.Add(79*time.Second)) || at.After(cold.CreatedAt.Add(81*time.Second)) || cold.ResidentBytes != 0 {
		t.Errorf("nothing is there: %+v", cold)
	}
	for _, name := range c.names {
		if _, err := c.disk.Pread(openFile(t, name), make([]byte, c.bytes), 0); err != 0 {
			t.Fatal(err)
		}
	}
	warm := c.mustAnnounce(request)
	if at := warm.ReadyAt; at == nil || at.After(warm.CreatedAt.Add(70*time.Second)) || warm.ResidentShare != 1 {
		t.Errorf("all is there: %+v", warm)
	}
}

// openFile opens a file for reading.
func openFile(t *testing.T, name string) int {
	t.Helper()
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// A hint whose carrier is the daemon's, and whose files are not in memory at first.
func TestAHintCountsWhatItsBudgetBrought(t *testing.T) {
	c := newColdFiles(t, 20, 5000, func(o *Options) { o.Session.Slots = 1 })
	over := func(r api.HintRequest) (h api.Hint) {
		r.Sampler = &api.HintSampler{Kind: "sequential"}
		id := c.mustAnnounce(r).ID
		eventually(t, "the hint is over", func() bool {
			var err error
			h, err = c.Hint(id)
			return err == nil && h.State != api.HintActive
		})
		return h
	}
	c.disk.drop()
	spent := over(api.HintRequest{BudgetBytes: number(int64(52_000))})
	if spent.State != api.HintSpent || spent.FetchedBytes != 50_000 || spent.ReadySamples != 10 {
		t.Errorf("a budget of half of it: %+v", spent)
	}
	if again := over(api.HintRequest{BudgetBytes: number(int64(27_000))}); again.State != api.HintSpent || again.FetchedBytes != 25_000 || again.ReadySamples != 15 {
		t.Errorf("a quarter behind what is there: %+v", again)
	}
	if all := over(api.HintRequest{}); all.State != api.HintComplete || all.FetchedBytes != 25_000 {
		t.Errorf("the rest: %+v", all)
	}
	for name, r := range map[string]api.HintRequest{
		"no budget to speak of": {BudgetBytes: number(int64(1))},
		"and a deadline":        {BudgetBytes: number(int64(1)), DeadlineSeconds: number(1000.0)},
	} {
		if h := over(r); h.State != api.HintComplete || h.FetchedBytes != 0 || h.ReadySamples != 20 {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

// What is under way when the budget ends counts, however long it takes.
func TestASpentHintWaitsForItsFetches(t *testing.T) {
	c := newColdFiles(t, 20, 5000, nil)
	let := make(chan struct{})
	c.disk.drop()
	c.disk.onRequest(func(string) { <-let })
	h := c.mustAnnounce(api.HintRequest{Sampler: &api.HintSampler{Kind: "sequential"}, BudgetBytes: number(int64(27_000))})
	n, err := c.hints.find(h.ID)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the budget is paid out", func() bool {
		n.stream.paid.Lock()
		defer n.stream.paid.Unlock()
		return n.stream.paid.bytes == 25_000
	})
	if h, _ = c.Hint(h.ID); h.State != api.HintActive {
		t.Errorf("with fetches under way: %+v", h)
	}
	close(let)
	eventually(t, "the hint is over", func() bool {
		h, err = c.Hint(h.ID)
		return err == nil && h.State != api.HintActive
	})
	if h.State != api.HintSpent || h.FetchedBytes != 25_000 || h.ReadySamples != 5 {
		t.Errorf("%+v", h)
	}
}

func TestBytesOfAllClientsAreBounded(t *testing.T) {
	n, _ := hintedNode(t, func(o *Options) { o.Hints = HintOptions{BytesMax: 1000, Max: 100} })
	promised := int64(0)
	for i := range 9 {
		h, err := n.AddHint(t.Context(), api.Client{UID: uint32(i)}, api.HintRequest{Dataset: "files", Indices: []int64{1}, BudgetBytes: number(int64(600))})
		var refused *api.Error
		if err != nil && (!errors.As(err, &refused) || refused.Code != api.CodeLimit || !strings.Contains(refused.Error(), "this daemon")) {
			t.Fatal(err)
		}
		promised += h.BudgetBytes
	}
	if promised != 3600 {
		t.Errorf("%d bytes were promised of %d", promised, hintsOfNode*1000)
	}
	rest, err := n.AddHint(t.Context(), api.Client{UID: 100}, api.HintRequest{Dataset: "files", Sampler: &api.HintSampler{Kind: "global"}})
	if err != nil || rest.BudgetBytes != 400 {
		t.Errorf("what is left is 400: %+v, %v", rest, err)
	}
}

func TestLimitsOfOneClient(t *testing.T) {
	n, _ := hintedNode(t, func(o *Options) { o.Hints = HintOptions{BytesMax: 1000, Max: 3, IndicesMax: 10} })
	limit := func(what string, err error, word string) {
		t.Helper()
		var refused *api.Error
		if !errors.As(err, &refused) || refused.Code != api.CodeLimit || !strings.Contains(refused.Error(), word) {
			t.Errorf("%s: %v", what, err)
		}
	}
	first := n.mustAnnounce(api.HintRequest{Indices: []int64{1, 2, 3}, BudgetBytes: number(int64(900))})
	_, err := n.announce(api.HintRequest{Indices: []int64{1}, BudgetBytes: number(int64(101))})
	limit("bytes", err, "100 that are left")
	_, err = n.announce(api.HintRequest{Indices: make([]int64, 8), BudgetBytes: number(int64(1))})
	limit("indices", err, "indices")
	if h := n.mustAnnounce(api.HintRequest{Sampler: &api.HintSampler{Kind: "global"}}); h.BudgetBytes != 100 {
		t.Errorf("what is left is 100: %+v", h)
	}
	_, err = n.announce(api.HintRequest{Indices: []int64{1}})
	limit("no bytes left", err, "hints_bytes_max")
	if _, err := n.EndHint(first.ID); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		n.mustAnnounce(api.HintRequest{Indices: []int64{1}, BudgetBytes: number(int64(1))})
	}
	_, err = n.announce(api.HintRequest{Indices: []int64{1}, BudgetBytes: number(int64(1))})
	limit("hints", err, "3 hints")
	other, err := n.AddHint(t.Context(), api.Client{PID: 9, UID: 3}, api.HintRequest{Dataset: "files", Indices: []int64{1}})
	if err != nil {
		t.Errorf("another client: %v", err)
	}
	if stats := n.hints.stats(); stats.Open != 4 || stats.Added != 5 || stats.Ended[hintDeleted] != 1 {
		t.Errorf("%+v, %+v", stats, other)
	}
}

func TestAMillionHintsCostWhatTheLimitsAllow(t *testing.T) {
	n, carrier := hintedNode(t, nil)
	taken, tries := 0, 20_000 // what is refused is refused alike
	for i := range tries {
		if _, err := n.announce(api.HintRequest{Sampler: &api.HintSampler{Kind: "global", Seed: uint64(i)}, BudgetBytes: number(int64(1))}); err == nil {
			taken++
		}
	}
	if taken != n.hints.options.Max || len(n.Hints()) != taken || len(carrier.carried) != taken {
		t.Errorf("%d of %d were taken, %d are open, %d carried", taken, tries, len(n.Hints()), len(carrier.carried))
	}
}

func TestHintsOfManyClientsAreBoundedTogether(t *testing.T) {
	n, _ := hintedNode(t, func(o *Options) { o.Hints = HintOptions{Max: 2, BytesMax: 1 << 20} })
	taken := 0
	for i := range 50 {
		if _, err := n.AddHint(t.Context(), api.Client{UID: uint32(i)}, api.HintRequest{Dataset: "files", Indices: []int64{1}}); err == nil {
			taken++
		}
	}
	if taken != hintsOfNode*2 {
		t.Errorf("%d hints were taken", taken)
	}
}

func TestALeaseEndsUnlessItIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		carrier := &fakeCarrier{}
		h := &hints{carrier: carrier}
		h.init(HintOptions{BytesMax: 1 << 20, Max: 10, IndicesMax: 100})
		add := func(lease time.Duration) *hint {
			a := &attached{}
			a.hold()
			a.watch()
			n := &hint{lease: lease, created: time.Now(), dataset: a, watched: newWatched(false, 0), stream: &hintStream{order: &hintOrder{length: 1}}}
			if err := errors.Join(h.admit(n), carrier.carry(n.stream, a.unwatch)); err != nil {
				t.Fatal(err)
			}
			h.start(n)
			return n
		}
		short, long := add(time.Minute), add(time.Hour)
		add(0) // with its connection
		time.Sleep(50 * time.Second)
		if _, err := h.renew(short.id, time.Minute); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Second)
		synctest.Wait()
		if _, err := h.find(short.id); err != nil {
			t.Error("a renewed lease ended")
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if _, err := h.find(short.id); err == nil || short.dataset.held() {
			t.Error("a lease that was not renewed goes on")
		}
		if _, err := h.renew(short.id, time.Minute); err == nil {
			t.Error("a hint that has ended was renewed")
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if open := h.all(); len(open) != 1 || long.dataset.held() || h.stats().Ended[hintExpired] != 2 {
			t.Errorf("%d hints are open: %+v", len(open), h.stats())
		}
		h.close()
		if err := h.admit(&hint{}); err == nil || len(h.all()) != 0 {
			t.Error("a hint was taken in after close")
		}
	})
}

func TestRemovingADatasetEndsItsHints(t *testing.T) {
	n, _ := hintedNode(t, nil)
	n.mustAnnounce(api.HintRequest{Indices: []int64{1}})
	held := n.registry.mu.datasets["files"]
	if err := n.RemoveDataset(t.Context(), "files"); err != nil {
		t.Fatalf("a hint keeps the dataset: %v", err)
	}
	if len(n.Hints()) != 0 || held.held() || n.hints.stats().Ended[hintOutdated] != 1 {
		t.Errorf("%+v, held %v", n.hints.stats(), held.held())
	}
}

func TestWhatCannotBeCarriedIsNoHint(t *testing.T) {
	n, carrier := hintedNode(t, nil)
	carrier.err = &shm.Failure{Code: "unavailable", What: "no", Remedy: "none"}
	if _, err := n.announce(api.HintRequest{Indices: []int64{1}}); err == nil || len(n.Hints()) != 0 || n.registry.mu.datasets["files"].held() {
		t.Errorf("%v, %+v", err, n.Hints())
	}
	if ended := n.hints.stats().Ended; ended[hintUncarried] != 1 || ended[hintShutdown] != 0 {
		t.Errorf("%+v", ended)
	}
	n.hints.carrier = nil
	var refused *api.Error
	if _, err := n.announce(api.HintRequest{Indices: []int64{1}}); !errors.As(err, &refused) || refused.Code != api.CodeUnavailable {
		t.Errorf("without prefetching: %v", err)
	}
	n.hints.carrier = carrier
}

// hinted asks for a hint over the session socket.
func hintMessage(t *testing.T, r api.HintRequest, indices int64) shm.HintRequest {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return shm.HintRequest{Type: shm.TypeHint, Hint: text, Indices: indices}
}

func indexFile(t *testing.T, indices ...int64) int {
	t.Helper()
	var text []byte
	for _, index := range indices {
		text = binary.LittleEndian.AppendUint64(text, uint64(index))
	}
	path := filepath.Join(t.TempDir(), "indices")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func (c *client) hinted(request any, descriptors ...int) api.Hint {
	c.t.Helper()
	var answer shm.HintAnswer
	c.ask(request, &answer, descriptors...)
	var h api.Hint
	if err := json.Unmarshal(answer.Hint, &h); err != nil {
		c.t.Fatal(err)
	}
	return h
}

func TestHintsOverTheSessionSocketEndWithTheConnection(t *testing.T) {
	n, carrier := hintedNode(t, nil)
	c, other := n.greeted(), n.greeted()
	h := c.hinted(hintMessage(t, api.HintRequest{Dataset: "files", Indices: []int64{4, 2}}, 0))
	if h.ExpiresAt != nil || h.Client.PID != os.Getpid() || h.Client.Name != "test" || h.Samples != 2 {
		t.Errorf("%+v", h)
	}
	many := make([]int64, 20_000)
	for i := range many {
		many[i] = int64(i % hintedFiles)
	}
	long := c.hinted(hintMessage(t, api.HintRequest{Dataset: "files"}, int64(len(many))), indexFile(t, many...))
	if got := samplesOf(carrier.last()); long.Samples != 20_000 || !slices.Equal(got, many) {
		t.Errorf("a list beside the message: %+v", long)
	}
	if got := c.hinted(shm.HintReference{Type: shm.TypeHintInfo, ID: h.ID}); got.ID != h.ID {
		t.Errorf("%+v", got)
	}
	var refused *api.Error
	if _, err := n.RenewHint(h.ID, 60); !errors.As(err, &refused) || refused.Code != api.CodeConflict || !strings.Contains(refused.What, "connection") {
		t.Errorf("renewing what a connection leases: %v", err)
	}
	for _, kind := range []string{shm.TypeHintInfo, shm.TypeHintEnd} {
		if failure := other.failure(shm.HintReference{Type: kind, ID: h.ID}); failure.Code != "not_found" {
			t.Errorf("%s of another connection's hint: %+v", kind, failure)
		}
	}
	if got := c.hinted(shm.HintReference{Type: shm.TypeHintEnd, ID: h.ID}); got.ID != h.ID || len(n.Hints()) != 1 {
		t.Errorf("%+v", got)
	}
	if failure := c.failure(shm.HintReference{Type: shm.TypeHintEnd, ID: h.ID}); failure.Code != "not_found" {
		t.Errorf("ended twice: %+v", failure)
	}
	_ = c.Close() // as the kernel does for a client that dies
	eventually(t, "the hints of a dead client end", func() bool { return len(n.Hints()) == 0 })
	if stats := n.hints.stats(); stats.Ended[hintOrphaned] != 1 || stats.Ended[hintDeleted] != 1 {
		t.Errorf("%+v", stats)
	}
}

// Each table is drawn as a whole, however little of it a rank reads.
func TestAHintOfVeryManyTablesIsRefused(t *testing.T) {
	n, _ := hintedNode(t, nil)
	sampler := &api.HintSampler{Kind: "torch", WorldSize: hintedFiles, Epochs: 1 << 20}
	_, err := n.announce(api.HintRequest{Sampler: sampler})
	var failure *api.Error
	if !errors.As(err, &failure) || failure.Code != api.CodeLimit || !strings.Contains(failure.Remedy, "fewer epochs") {
		t.Errorf("%v", err)
	}
	if h := n.mustAnnounce(api.HintRequest{Sampler: sampler, Window: &api.HintWindow{From: 1 << 19, Count: 100}}); h.Samples != 100 {
		t.Errorf("%+v", h)
	}
}

func TestHintMessagesThatMakeNoSense(t *testing.T) {
	n, _ := hintedNode(t, func(o *Options) { o.Hints.IndicesMax = 100 })
	c := n.greeted()
	files := api.HintRequest{Dataset: "files"}
	pipe := [2]int{}
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer shm.CloseAll(pipe[:])
	for name, test := range map[string]struct {
		message     any
		descriptors []int
		code        string
	}{
		"no hint":            {shm.HintRequest{Type: shm.TypeHint, Hint: json.RawMessage(`3`)}, nil, "invalid"},
		"unknown field":      {shm.HintRequest{Type: shm.TypeHint, Hint: json.RawMessage(`{"dataset":"files","indexes":[1]}`)}, nil, "invalid"},
		"lease":              {hintMessage(t, api.HintRequest{Dataset: "files", Indices: []int64{1}, LeaseSeconds: number(3.0)}, 0), nil, "invalid"},
		"no descriptor":      {hintMessage(t, files, 3), nil, "invalid"},
		"two descriptors":    {hintMessage(t, files, 1), []int{indexFile(t, 1), indexFile(t, 1)}, "invalid"},
		"unasked descriptor": {hintMessage(t, api.HintRequest{Dataset: "files", Indices: []int64{1}}, 0), []int{indexFile(t, 1)}, "invalid"},
		"two lists":          {hintMessage(t, api.HintRequest{Dataset: "files", Indices: []int64{1}}, 1), []int{indexFile(t, 1)}, "invalid"},
		"short file":         {hintMessage(t, files, 3), []int{indexFile(t, 1, 2)}, "invalid"},
		"long file":          {hintMessage(t, files, 1), []int{indexFile(t, 1, 2)}, "invalid"},
		"a pipe":             {hintMessage(t, files, 1), []int{pipe[0]}, "invalid"},
		"a directory":        {hintMessage(t, files, 1), []int{openDirectory(t, t.TempDir())}, "invalid"},
		"negative count":     {hintMessage(t, files, -1), []int{indexFile(t, 1)}, "limit"},
		"too many":           {hintMessage(t, files, 101), []int{indexFile(t, 1)}, "limit"},
		"endless count":      {hintMessage(t, files, math.MaxInt64), []int{indexFile(t, 1)}, "limit"},
		"out of range":       {hintMessage(t, files, 1), []int{indexFile(t, 99)}, "out_of_range"},
		"no such hint":       {shm.HintReference{Type: shm.TypeHintInfo, ID: "h-77"}, nil, "not_found"},
	} {
		if failure := c.failure(test.message, test.descriptors...); failure.Code != test.code {
			t.Errorf("%s: %+v", name, failure)
		}
	}
	if len(n.Hints()) != 0 {
		t.Errorf("%+v", n.Hints())
	}
}

func TestAHintShowsWhetherItsSamplesAreRead(t *testing.T) {
	n, carrier := hintedNode(t, nil)
	lying := n.mustAnnounce(api.HintRequest{Indices: []int64{40, 41, 42, 43}})
	liar := carrier.last()
	half := n.mustAnnounce(api.HintRequest{Indices: []int64{0, 1, 44, 45}})
	honest := carrier.last()
	files := n.mustAnnounce(api.HintRequest{Files: []api.HintFile{{Path: "c0/f000"}}})
	for _, s := range []*hintStream{liar, honest, carrier.last()} {
		s.change(func(p *hintProgress) { p.ready, p.fetched = s.order.length, 1000 })
	}
	request := openRequest("files")
	s := n.openSession(request)
	for range 3 { // samples 0 to 11, and what is read ahead behind them
		s.next()
	}
	_ = s.Close()
	eventually(t, "the session ends", func() bool { return len(n.Sessions()) == 0 })
	share := func(id string) float64 {
		h, err := n.Hint(id)
		if err != nil {
			t.Fatal(err)
		}
		return h.ReadShare
	}
	if got := share(half.ID); got < 0.5 {
		t.Errorf("of samples 0, 1, 44 and 45, %v were read", got)
	}
	if got := share(files.ID); got != 1 {
		t.Errorf("of the first file, %v was read", got)
	}
	read := share(lying.ID)
	if _, err := n.EndHint(lying.ID); err != nil {
		t.Fatal(err)
	}
	if stats := n.hints.stats(); stats.UnreadBytes != int64(1000*(1-read)) || stats.FetchedBytes != 3000 {
		t.Errorf("%+v, of the lying hint %v was read", stats, read)
	}
}

func TestAHintIsCarriedOutByTheDaemon(t *testing.T) {
	options := testOptions(t)
	n := startNode(t, options)
	directory, _ := writeFiles(t, 200, func(i int) int { return 5000 + i })
	n.add("files", directory)
	for name, request := range map[string]api.HintRequest{
		"indices": {Indices: []int64{9, 8, 7, 9}},
		"sampler": {Sampler: &api.HintSampler{Kind: "torch", Seed: 3, Epochs: 2}},
		"files":   {Files: []api.HintFile{{Path: "c0/f000"}, {Path: "c1/f001", Offset: 10, Length: 20}}},
		"paced":   {Indices: []int64{1, 2, 3}, SamplesPerSecond: number(1e6)},
	} {
		h := n.mustAnnounce(request)
		eventually(t, name, func() bool {
			var err error
			h, err = n.Hint(h.ID)
			return err == nil && h.State != api.HintActive
		})
		if h.State != api.HintComplete || h.ReadySamples != h.Samples || h.FetchedBytes > h.BudgetBytes || h.Problem != "" || h.ReadyAt == nil {
			t.Errorf("%s: %+v", name, h)
		}
		if _, err := n.EndHint(h.ID); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "the dataset is let go of", func() bool { return !n.registry.mu.datasets["files"].held() })
}

func TestAHintOfFilesThatAreGoneSaysSo(t *testing.T) {
	n := startNode(t, testOptions(t))
	directory, _ := writeFiles(t, 20, func(int) int { return 100 })
	n.add("files", directory)
	if err := os.Remove(filepath.Join(directory, "c0", "f003")); err != nil {
		t.Fatal(err)
	}
	h := n.mustAnnounce(api.HintRequest{Sampler: &api.HintSampler{Kind: "sequential"}})
	eventually(t, "the hint is over", func() bool {
		var err error
		h, err = n.Hint(h.ID)
		return err == nil && h.State != api.HintActive
	})
	if h.State != api.HintIncomplete || h.FailedFetches != 1 || h.ReadySamples != 19 || h.ReadyAt != nil || !strings.Contains(h.Problem, "f003") {
		t.Errorf("%+v", h)
	}
}

func TestDrawnOrdersOfHintsGiveTheirTablesBack(t *testing.T) {
	n, _ := hintedNode(t, nil)
	n.mustAnnounce(api.HintRequest{Sampler: &api.HintSampler{Kind: "numpy", Seeding: string(order.SeedOnce), Epoch: 3, Epochs: 2}})
	if used := n.tables.Used(); used != 0 {
		t.Errorf("%d bytes of tables are held", used)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.AddHint(ctx, api.Client{}, api.HintRequest{Dataset: "files", Indices: []int64{1}}); err == nil {
		n.hints.endWhere(func(*hint) bool { return true }, hintDeleted) // taken before anybody looked at ctx
	}
}

func FuzzHints(f *testing.F) {
	f.Add([]byte(`{"dataset":"files","sampler":{"kind":"torch","seed":1,"epochs":2,"world_size":3,"batch_size":2},"window":{"from":1,"count":2}}`))
	f.Add([]byte(`{"dataset":"files","files":[{"path":"c0/f000","offset":1,"length":3}],"samples_per_second":1e300}`))
	f.Add([]byte(`{"dataset":"files","indices":[1,2,3],"deadline_seconds":1e-300,"budget_bytes":1}`))
	n, _ := hintedNode(f, nil)
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := decodeHint(text)
		if err != nil {
			return
		}
		h, err := n.announce(r)
		if err != nil {
			return
		}
		if h.Samples < 1 || h.Bytes < 0 || h.ResidentShare < 0 || h.ResidentShare > 1 || h.FetchBytes < 0 || h.FetchBytes > h.BudgetBytes {
			t.Errorf("%s: %+v", text, h)
		}
		if _, err := n.EndHint(h.ID); err != nil {
			t.Error(err)
		}
	})
}

func TestHintsOfTarSamplesAreOfTheirParts(t *testing.T) {
	n := startNode(t, testOptions(t))
	n.add("shards", writeShards(t, 22, true))
	pictures := int64(0)
	for i := range 22 {
		pictures += int64(len(picture(i)))
	}
	for name, test := range map[string]struct {
		request api.HintRequest
		bytes   int64 // 0: whatever it is
	}{
		"pictures":         {api.HintRequest{Sampler: &api.HintSampler{Kind: "global"}, Select: []api.HintColumn{{Name: "image", Parts: []string{"jpg"}}}}, pictures},
		"a part some lack": {api.HintRequest{Sampler: &api.HintSampler{Kind: "global"}, Select: []api.HintColumn{{Name: "text", Parts: []string{"txt"}}}}, 8 * int64(len("text of d/000000"))},
		"all parts":        {api.HintRequest{Sampler: &api.HintSampler{Kind: "sequential"}}, 0},
		"a range":          {api.HintRequest{Files: []api.HintFile{{Path: "shard-002.tar", Offset: 512, Length: 1024}}}, 1024},
		"unpacked":         {api.HintRequest{Files: []api.HintFile{{Path: "shard-005.tar.gz"}}}, 0},
	} {
		test.request.Dataset = "shards"
		h := n.mustAnnounce(test.request)
		if test.bytes != 0 && h.Bytes != test.bytes {
			t.Errorf("%s: %d bytes, want %d", name, h.Bytes, test.bytes)
		}
		eventually(t, name, func() bool {
			var err error
			h, err = n.Hint(h.ID)
			return err == nil && h.State != api.HintActive
		})
		if h.State != api.HintComplete || h.Problem != "" {
			t.Errorf("%s: %+v", name, h)
		}
	}
	plain := n.mustAnnounce(api.HintRequest{Dataset: "shards", Files: []api.HintFile{{Path: "shard-002.tar"}}})
	packed := n.mustAnnounce(api.HintRequest{Dataset: "shards", Files: []api.HintFile{{Path: "shard-005.tar.gz"}}})
	if plain.Estimated != packed.Estimated || plain.ResidentShare != packed.ResidentShare {
		t.Errorf("of what was brought %v is said to be there of a plain shard (estimated: %v), %v of one that was unpacked (%v)",
			plain.ResidentShare, plain.Estimated, packed.ResidentShare, packed.Estimated)
	}
	for word, columns := range map[string][]api.HintColumn{"png": {{Name: "image", Parts: []string{"png"}}}, "column": {{Name: "", Parts: []string{"jpg"}}}} {
		if _, err := n.announce(api.HintRequest{Dataset: "shards", Indices: []int64{1}, Select: columns}); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", word, err)
		}
	}
}

func TestPlacesThatAreLookedAtLieEverywhere(t *testing.T) {
	for _, n := range []int64{1, 2, 3, 1023, 1024, 1025, 5000, 1 << 40, math.MaxInt64 / 2} {
		count := min(n, hintLooked)
		seen := map[int64]bool{}
		var early []int64
		for i := range count {
			place := spread(i, count, n)
			if place < 0 || place >= n || seen[place] {
				t.Fatalf("of %d places, the %d-th is %d, again or beyond", n, i, place)
			}
			seen[place] = true
			if early = append(early, place); len(early) == 64 {
				if slices.Min(early) > n/8 || slices.Max(early) < n-n/8 {
					t.Errorf("of %d places the first 64 lie in [%d, %d]", n, slices.Min(early), slices.Max(early))
				}
			}
		}
	}
}

func TestSizesAreExtrapolated(t *testing.T) {
	for _, test := range []struct {
		look     residency
		n, count int64
		want     hintSize
	}{
		{residency{bytes: 100, probed: 100, resident: 40}, 10, 10, hintSize{100, 40, false}},
		{residency{bytes: 100, probed: 50, resident: 25}, 10, 10, hintSize{100, 50, true}},
		{residency{bytes: 100}, 10, 10, hintSize{100, 0, true}},
		{residency{bytes: 100, probed: 100, resident: 40}, 1000, 10, hintSize{10000, 4000, true}},
		{residency{bytes: 100, probed: 100, resident: 200}, 10, 10, hintSize{100, 100, false}},
		{residency{bytes: math.MaxInt64 / 4, probed: 1}, math.MaxInt64, 1, hintSize{1 << 62, 0, true}},
	} {
		if got := test.look.size(test.n, test.count); got != test.want {
			t.Errorf("%+v of %d samples of %d: %+v, want %+v", test.look, test.count, test.n, got, test.want)
		}
	}
}
