package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/loader/config"
)

// hintLook is how often a hint is looked at that is waited for.
const hintLook = 250 * time.Millisecond

// hintLeaseMin and hintLeaseMax bound the leases that are asked for where none is given.
const (
	hintLeaseMin = time.Minute
	hintLeaseMax = time.Hour
)

// hintFlags are what `stoker hint` was told.
type hintFlags struct {
	request  api.HintRequest
	sampler  api.HintSampler
	window   api.HintWindow
	indices  string
	files    []string
	deadline time.Duration
	lease    time.Duration
	rate     float64
	weight   float64
	budget   string
	wait     bool
}

func (a *app) hintCommand() *cobra.Command {
	f := &hintFlags{}
	command := &cobra.Command{
		Use:   "hint DATASET",
		Short: "Announce what will be read, so that it is fetched ahead",
		Long: `Announce samples or files that will be read soon. The daemon fetches what is not
in memory yet, in the order of its use: with --deadline or --rate just in time,
else as fast as other needs leave room. No more than --budget is fetched.

Name one of: --indices (numbers of samples, in the order of their use, from a
file or from - for standard input), --sampler (an order that the daemon
computes: Stoker's own, or torch's and numpy's bit for bit), --file (files of the
dataset, or ranges of them; may be repeated).

A hint is a lease: it ends after --lease, or with stoker hint end. With --wait the
command ends when nothing more is fetched, and says how much of it is there: all,
or less where the budget was used up (spent) or fetches failed (incomplete).`,
		Example: `  stoker hint pets --sampler torch --seed 7 --epoch 1 --deadline 10m
  stoker hint pets --indices next.txt --rate 640 --wait
  stoker hint pets --file cats/000123.jpg --file train.tar:1048576+65536
  stoker hint ls`,
		Args:              exactly("DATASET"),
		ValidArgsFunction: a.completeDataset,
		RunE: func(command *cobra.Command, args []string) error {
			f.request.Dataset = args[0]
			return a.hint(command, f)
		},
	}
	a.addHintFlags(command, f)
	command.AddCommand(a.hintListCommand(), a.hintEndCommand())
	return command
}

func (a *app) addHintFlags(command *cobra.Command, f *hintFlags) {
	flags := command.Flags()
	flags.StringVar(&f.indices, "indices", "", "file of sample numbers, - for standard input")
	flags.StringArrayVar(&f.files, "file", nil, "file of the dataset, PATH or PATH:OFFSET+LENGTH (may be repeated)")
	flags.StringVar(&f.sampler.Kind, "sampler", "", "order that the daemon computes: "+oneOf(api.HintKinds()))
	a.must(command.RegisterFlagCompletionFunc("sampler", cobra.FixedCompletions(api.HintKinds(), cobra.ShellCompDirectiveNoFileComp)))
	flags.StringVar(&f.sampler.Seeding, "seeding", "", "torch and numpy: how epochs get their random numbers: "+oneOf(api.HintSeedings()))
	a.must(command.RegisterFlagCompletionFunc("seeding", cobra.FixedCompletions(api.HintSeedings(), cobra.ShellCompDirectiveNoFileComp)))
	flags.Uint64Var(&f.sampler.Seed, "seed", 0, "seed of the sampler")
	flags.Int64Var(&f.sampler.Epoch, "epoch", 0, "first epoch of the sampler")
	flags.Int64Var(&f.sampler.Epochs, "epochs", 1, "epochs of the sampler")
	flags.IntVar(&f.sampler.Rank, "rank", 0, "rank whose samples are meant")
	flags.IntVar(&f.sampler.WorldSize, "world-size", 1, "ranks of the job")
	flags.IntVar(&f.sampler.BatchSize, "batch-size", 1, "samples that a rank takes at once")
	flags.BoolVar(&f.sampler.DropLast, "drop-last", false, "leave out a last step that is not full")
	flags.Int64Var(&f.sampler.Window, "window", 0, "samples of a window, of sampler windowed")
	flags.Int64Var(&f.window.From, "from", 0, "first sample of the sampler's order that is meant")
	flags.Int64Var(&f.window.Count, "count", 0, "samples of the sampler's order that are meant; 0: all")
	flags.Int64Var(&f.request.BlockSize, "block-size", 0, "tokens of a row, of datasets of tokens")
	flags.StringVar(&f.request.JobID, "job-id", "", "what the job is called")
	flags.DurationVar(&f.deadline, "deadline", 0, "when all of it should be there, from now")
	flags.Float64Var(&f.rate, "rate", 0, "samples a second at which it will be read")
	flags.Float64Var(&f.weight, "weight", 1, "priority beside other jobs")
	flags.DurationVar(&f.lease, "lease", 0, "how long the hint is kept; 0: a minute, or as long as the deadline takes")
	flags.StringVar(&f.budget, "budget", "", "bytes fetched for it at most, for example 512MiB")
	flags.BoolVar(&f.wait, "wait", false, "wait until nothing more is to be fetched")
	a.addProgress(command)
	a.addJSON(command)
}

// hint announces what the flags say, and waits for it if that is asked for.
func (a *app) hint(command *cobra.Command, f *hintFlags) error {
	if err := a.completeHint(command, f); err != nil {
		return err
	}
	ctx := command.Context()
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	var added api.Hint
	if err := c.send(ctx, http.MethodPost, f.request, &added, "v1", "hints"); err != nil {
		return err
	}
	if f.wait {
		if added, err = a.awaitHint(ctx, c, added, time.Duration(*f.request.LeaseSeconds*float64(time.Second))); err != nil {
			return err
		}
	}
	if a.json {
		return a.writeJSONLine(added)
	}
	return a.writeHint(added, f.wait)
}

// completeHint makes the request of the flags. What flags contradict each other about
// that the daemon knows, it says.
func (a *app) completeHint(command *cobra.Command, f *hintFlags) (err error) {
	r := &f.request
	given := command.Flags().Changed
	if given("indices") {
		if r.Indices, err = a.readIndices(f.indices); err != nil {
			return err
		}
	}
	for _, text := range f.files {
		file, err := parseHintFile(text)
		if err != nil {
			return err
		}
		r.Files = append(r.Files, file)
	}
	if f.sampler.Kind != "" {
		r.Sampler = &f.sampler
	} else if name := firstGiven(command, "seed", "seeding", "epoch", "epochs", "rank", "world-size", "batch-size", "drop-last", "window", "from", "count"); name != "" {
		return hintUsage("--"+name+" is about a sampler, and none is named", "add --sampler")
	}
	if r.Indices == nil && r.Files == nil && r.Sampler == nil {
		return hintUsage("nothing is announced", "give one of --indices, --sampler and --file")
	}
	if given("from") || given("count") {
		if !given("count") {
			return hintUsage("--from says where a part of the order begins, and not how long it is", "add --count")
		}
		r.Window = &f.window
	}
	if given("budget") {
		budget, err := config.ParseBytes(f.budget)
		if err != nil {
			return hintUsage("--budget: "+err.Error(), "give bytes, for example 512MiB")
		}
		bytes := int64(budget)
		r.BudgetBytes = &bytes
	}
	if given("deadline") {
		r.DeadlineSeconds = pointer(f.deadline.Seconds())
	}
	if given("rate") {
		r.SamplesPerSecond = &f.rate
	}
	if given("weight") {
		r.Priority = &f.weight
	}
	for name, value := range map[string]float64{"rate": f.rate, "weight": f.weight} {
		if math.IsNaN(value) || math.IsInf(value, 0) {
			return hintUsage(fmt.Sprintf("--%s is %v", name, value), "give a number above 0")
		}
	}
	lease := f.lease
	if lease == 0 {
		lease = min(max(hintLeaseMin, f.deadline+hintLeaseMin), hintLeaseMax)
	}
	r.LeaseSeconds = pointer(lease.Seconds())
	return nil
}

func pointer(v float64) *float64 { return &v }

func firstGiven(command *cobra.Command, names ...string) string {
	for _, name := range names {
		if command.Flags().Changed(name) {
			return name
		}
	}
	return ""
}

func hintUsage(what, remedy string) error {
	return &failure{Code: string(api.CodeInvalid), What: what, Remedy: remedy, exit: exitUsage}
}

// readIndices reads numbers from a file: whatever separates them, also as a JSON list.
func (a *app) readIndices(path string) ([]int64, error) {
	in := a.in
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, &failure{Code: string(api.CodeInvalid), What: "cannot read the indices", Where: path, Why: err.Error(), exit: exitError}
		}
		defer file.Close()
		in = file
	}
	indices := []int64{}
	words := bufio.NewScanner(in)
	words.Buffer(nil, 1<<20)
	words.Split(splitNumbers)
	for words.Scan() {
		index, err := strconv.ParseInt(words.Text(), 10, 64)
		if err != nil {
			return nil, &failure{Code: string(api.CodeInvalid), What: fmt.Sprintf("%q is no number of a sample", words.Text()), Where: path,
				Remedy: "write whole numbers with blanks, commas or line ends between them", exit: exitError}
		}
		indices = append(indices, index)
	}
	if err := words.Err(); err != nil {
		return nil, &failure{Code: string(api.CodeInvalid), What: "cannot read the indices", Where: path, Why: err.Error(), exit: exitError}
	}
	return indices, nil
}

// splitNumbers is a bufio.SplitFunc of words with blanks, commas and brackets between.
func splitNumbers(data []byte, atEOF bool) (advance int, token []byte, err error) {
	start := 0
	for start < len(data) && isBetween(data[start]) {
		start++
	}
	for end := start; end < len(data); end++ {
		if isBetween(data[end]) {
			return end + 1, data[start:end], nil
		}
	}
	if atEOF && start < len(data) {
		return len(data), data[start:], nil
	}
	return start, nil, nil
}

func isBetween(b byte) bool { return strings.IndexByte(" \t\r\n,;[]", b) >= 0 }

// parseHintFile reads PATH or PATH:OFFSET+LENGTH. A path may hold colons.
func parseHintFile(text string) (api.HintFile, error) {
	colon := strings.LastIndexByte(text, ':')
	if colon < 0 {
		return api.HintFile{Path: text}, nil
	}
	offset, length, ok := strings.Cut(text[colon+1:], "+")
	from, err := strconv.ParseInt(offset, 10, 64)
	if !ok || err != nil {
		return api.HintFile{Path: text}, nil // a colon of the path
	}
	n, err := strconv.ParseInt(length, 10, 64)
	if err != nil || from < 0 || n < 1 {
		return api.HintFile{}, hintUsage(fmt.Sprintf("%q is no range of a file", text), "write PATH:OFFSET+LENGTH, in bytes")
	}
	return api.HintFile{Path: text[:colon], Offset: from, Length: n}, nil
}

// awaitHint waits until nothing more is to be fetched, and keeps the lease meanwhile.
func (a *app) awaitHint(ctx context.Context, c *client, h api.Hint, lease time.Duration) (api.Hint, error) {
	show := a.hintProgress()
	renewed := a.clock.now()
	for h.State == api.HintActive {
		show(h, false)
		err := a.clock.wait(ctx, hintLook)
		if err == nil && a.clock.now().Sub(renewed) > lease/2 {
			err = c.send(ctx, http.MethodPut, api.HintRenewal{LeaseSeconds: lease.Seconds()}, &h, "v1", "hints", h.ID)
			renewed = a.clock.now()
		}
		if err == nil {
			var next api.Hint // a field that is gone from the answer is to be gone here
			if err = c.get(ctx, &next, "v1", "hints", h.ID); err == nil {
				h = next
			}
		}
		if err != nil {
			show(h, true)
			if ctx.Err() != nil {
				a.giveUp(c, h.ID)
			}
			return h, err
		}
	}
	show(h, true)
	if h.State == api.HintFailed {
		return h, &failure{Code: string(api.CodeUnavailable), What: "the hint failed", Where: h.ID, Why: h.Problem, Remedy: "see the daemon's log", exit: exitError}
	}
	return h, nil
}

// giveUp ends a hint that was interrupted. Without a daemon it is over anyway.
func (a *app) giveUp(c *client, id string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, _ = c.do(ctx, http.MethodDelete, []string{"v1", "hints", id})
}

// hintProgress shows how far a hint is.
func (a *app) hintProgress() func(h api.Hint, over bool) {
	kind := a.progress
	switch {
	case kind != "" && kind != progressAuto:
	case a.json:
		kind = progressJSON
	case a.terminal:
		kind = progressBar
	default:
		kind = progressLines
	}
	last := a.clock.now()
	return func(h api.Hint, over bool) {
		switch {
		case kind == progressJSON && !over:
			_ = a.writeJSONLine(h) // the result reports a broken pipe
		case kind == progressBar && over:
			_, _ = io.WriteString(a.err, "\r\x1b[K")
		case kind == progressBar:
			fmt.Fprintf(a.err, "\r\x1b[K%s", hintLine(h, a.clock.now()))
		case kind == progressLines && !over && a.clock.now().Sub(last) >= lineInterval:
			last = a.clock.now()
			fmt.Fprintln(a.err, hintLine(h, last))
		}
	}
}

// hintLine is one line about a hint that is being fetched.
func hintLine(h api.Hint, now time.Time) string {
	text := fmt.Sprintf("fetching %s: %s of %s ready, %s fetched", printable(h.Dataset), grouped(h.ReadySamples), samplesOf(h), humanBytes(h.FetchedBytes))
	if h.ReadyAt != nil && h.ReadyAt.After(now) {
		text += ", " + humanSeconds(h.ReadyAt.Sub(now).Seconds()) + " left"
	}
	return text
}

func samplesOf(h api.Hint) string {
	if h.Kind == "files" {
		return counted(h.Samples, "file", "files")
	}
	return counted(h.Samples, "sample", "samples")
}

// writeHint tells what was announced and what comes of it.
func (a *app) writeHint(h api.Hint, waited bool) error {
	about := ""
	if h.Estimated {
		about = "about "
	}
	fmt.Fprintf(a.out, "%s: %s of %s, %s%s, %s in memory\n", h.ID, samplesOf(h), printable(h.Dataset), about, humanBytes(h.Bytes), share(h.ResidentShare))
	if h.Problem != "" {
		fmt.Fprintf(a.out, "  %s\n", printable(h.Problem))
	}
	var err error
	switch {
	case h.State == api.HintSpent:
		_, err = fmt.Fprintf(a.out, "  its budget of %s is used up; %s are ready\n", humanBytes(h.BudgetBytes), grouped(h.ReadySamples))
	case h.State == api.HintIncomplete:
		_, err = fmt.Fprintf(a.out, "  %s failed: %s of %s are ready; %s were fetched\n", counted(h.FailedFetches, "fetch", "fetches"),
			grouped(h.ReadySamples), samplesOf(h), humanBytes(h.FetchedBytes))
	case waited || h.State == api.HintComplete:
		_, err = fmt.Fprintf(a.out, "  all of it is there; %s were fetched\n", humanBytes(h.FetchedBytes))
	case h.ReadyAt != nil:
		_, err = fmt.Fprintf(a.out, "  %s%s to fetch, ready in %s\n", about, humanBytes(h.FetchBytes), humanSeconds(max(0, h.ReadyAt.Sub(a.clock.now()).Seconds())))
	default:
		_, err = fmt.Fprintf(a.out, "  %s%s to fetch; when it is ready is not known: %s\n", about, humanBytes(h.FetchBytes), orDash(h.ReadyUnknown))
	}
	return err
}

// hintList is the answer of /v1/hints.
type hintList struct {
	Hints []api.Hint `json:"hints"`
}

func (a *app) hintListCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the hints whose leases last",
		Args:    cobra.NoArgs,
		RunE:    func(command *cobra.Command, _ []string) error { return a.listHints(command.Context()) },
	}
	a.addJSON(command)
	return command
}

func (a *app) listHints(ctx context.Context) error {
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	var list hintList
	if err := c.get(ctx, &list, "v1", "hints"); err != nil {
		return err
	}
	if a.json {
		return a.writeJSON(list)
	}
	if len(list.Hints) == 0 {
		_, err := fmt.Fprintln(a.out, "no hints: announce what will be read with stoker hint DATASET")
		return err
	}
	rows := [][]string{{"HINT", "DATASET", "KIND", "STATE", "READY", "OF", "FETCHED", "BUDGET", "READ", "CLIENT", "LEASE"}}
	for i := range list.Hints {
		h := &list.Hints[i]
		lease := "connection"
		if h.ExpiresAt != nil {
			lease = humanSeconds(max(0, h.ExpiresAt.Sub(a.clock.now()).Seconds()))
		}
		rows = append(rows, []string{h.ID, printable(h.Dataset), h.Kind, h.State, grouped(h.ReadySamples), samplesOf(*h), humanBytes(h.FetchedBytes),
			humanBytes(h.BudgetBytes), share(h.ReadShare), fmt.Sprintf("%d %s", h.Client.PID, printable(h.Client.Name)), lease})
	}
	return table(a.out, rows)
}

func (a *app) hintEndCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "end HINT",
		Short: "End a hint; what was fetched stays",
		Args:  exactly("HINT"),
		RunE:  func(command *cobra.Command, args []string) error { return a.endHint(command.Context(), args[0]) },
	}
	command.ValidArgsFunction = a.completeHintID
	a.addJSON(command)
	return command
}

func (a *app) endHint(ctx context.Context, id string) error {
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	var h api.Hint
	if err := c.get(ctx, &h, "v1", "hints", id); err != nil {
		return err
	}
	if _, err := c.do(ctx, http.MethodDelete, []string{"v1", "hints", id}); err != nil {
		return err
	}
	if a.json {
		return a.writeJSON(map[string]any{"ended": h})
	}
	_, err = fmt.Fprintf(a.out, "ended %s: %s of %s were ready, %s fetched, %s of them read since\n",
		h.ID, grouped(h.ReadySamples), samplesOf(h), humanBytes(h.FetchedBytes), share(h.ReadShare))
	return err
}

// completeHintID asks the daemon for hints.
func (a *app) completeHintID(command *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var list hintList
	a.askForCompletion(command.Context(), &list, "hints")
	names := make([]string, 0, len(list.Hints))
	for i := range list.Hints {
		h := &list.Hints[i]
		names = append(names, cobra.CompletionWithDesc(h.ID, h.Dataset+", "+h.State))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
