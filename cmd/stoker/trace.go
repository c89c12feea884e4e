package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/loader/config"
	"github.com/stokerio/stoker/prefetch/sim"
	"github.com/stokerio/stoker/prefetch/trace"
)

func (a *app) traceCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "trace",
		Short: "Record what sessions read, and see what caches would have made of it",
		Long: `Record and look at traces: what the sessions of a node read, access by access. A
trace is replayed through caches of any size and policy, and through the best that
could have been, which knows the future.`,
		Args: cobra.NoArgs,
		RunE: showHelp,
	}
	command.AddCommand(a.traceRecordCommand(), a.traceReplayCommand(), a.traceInfoCommand(), a.traceGenerateCommand())
	return command
}

// completeFile completes one file.
func completeFile(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveDefault
}

// readTrace calls read with an open trace and its size, which is 0 for a pipe.
func readTrace(path string, read func(file *os.File, bytes int64) error) error {
	file, err := os.Open(path)
	if err != nil {
		return traceFailure("open the trace", path, err)
	}
	defer file.Close()
	stat, err := file.Stat()
	if err != nil {
		return traceFailure("look at the trace", path, err)
	}
	bytes := int64(0)
	if stat.Mode().IsRegular() {
		bytes = stat.Size()
	}
	if err := read(file, bytes); err != nil {
		return traceFailure("read the trace", path, err)
	}
	return nil
}

// traceFailure says what to do about an error with a trace.
func traceFailure(what, path string, err error) error {
	f := &failure{Code: string(api.CodeInternal), What: what, Where: path, Why: err.Error(), exit: exitError}
	var own *failure
	var problem *trace.Error
	var limit *sim.ReplayLimitError
	var system *fs.PathError
	switch {
	case errors.As(err, &own) || errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &problem):
		f.Where = fmt.Sprintf("%s, byte %d", path, problem.Offset)
		f.Code, f.What, f.Remedy = damage(problem)
		f.Why = problem.Detail
	case errors.As(err, &limit):
		f.Code, f.What, f.Why = string(api.CodeLimit), "the trace is too large", fmt.Sprintf("it has more than %s %s", grouped(limit.Limit), limit.What)
		f.Remedy = "replay its beginning with --first"
		if limit.What == sim.LimitAccesses {
			f.Remedy = fmt.Sprintf("replay its beginning with --first %d, or raise --max-accesses: an access needs about 24 bytes of memory", limit.Limit)
		}
	case errors.Is(err, fs.ErrExist):
		f.Code, f.Remedy = string(api.CodeConflict), "give another name, or replace the file with --force"
	case errors.Is(err, fs.ErrNotExist):
		f.Code, f.Remedy = string(api.CodeNotFound), "check the path"
	case errors.Is(err, fs.ErrPermission):
		f.Code, f.Remedy = string(api.CodePermission), "check the permissions of the file and of its directory"
	case errors.Is(err, unix.EISDIR):
		f.Code, f.Remedy = string(api.CodeInvalid), "give a file"
	}
	if errors.As(err, &system) {
		f.Why = system.Err.Error() // the rest of it is said already
	}
	return f
}

// damage is the code of a problem, what it is, and what to do about it.
func damage(problem *trace.Error) (code, what, remedy string) {
	switch problem.Problem {
	case trace.NotOne:
		return string(api.CodeInvalid), "this is no trace", "give a file that stoker trace record or stoker trace generate wrote"
	case trace.OtherVersion:
		return string(api.CodeVersion), "the trace is of another release", "read it with a program of the release that wrote it, or a newer one"
	case trace.Torn:
		return string(api.CodeCorrupt), "the trace stops before anything is in it", "record it again"
	}
	remedy = "copy it again from where it was recorded"
	if problem.Accesses > 0 {
		remedy += fmt.Sprintf("; what is before the damage can be replayed with --first %d", problem.Accesses)
	}
	return string(api.CodeCorrupt), "the trace is damaged", remedy
}

// warnTorn says on standard error that a trace stops early.
func (a *app) warnTorn(path, torn string) {
	if torn != "" {
		fmt.Fprintf(a.err, "stoker: %s stops early\n  why:   %s; a recorder that was killed, or still writes, leaves such a trace\n  next:  nothing need be done: all before that is good, and was read\n", printable(path), torn)
	}
}

// work shows how far long work is: a bar on a terminal, elsewhere a line now and then.
type work struct {
	app   *app
	doing string
	drawn *progressbar.ProgressBar
	last  time.Time
}

// newWork begins to show work; finish must follow.
func (a *app) newWork() *work { return &work{app: a, last: a.clock.now()} }

// show draws how much of a stage is done. A total of 0 is not known.
func (w *work) show(ctx context.Context, doing string, done, total int64, options ...progressbar.Option) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !w.app.terminal {
		if now := w.app.clock.now(); total > 0 && now.Sub(w.last) >= lineInterval {
			w.last = now
			fmt.Fprintf(w.app.err, "%s: %s\n", doing, percent(done, total))
		}
		return nil
	}
	if total < 1 {
		total = -1
	}
	if w.doing != doing {
		w.finish()
		w.doing, w.drawn = doing, drawnBar(w.app.err, total, doing, options...)
	}
	_ = w.drawn.Set64(done)
	return nil
}

// finish takes the bar away.
func (w *work) finish() {
	if w.drawn != nil {
		_ = w.drawn.Clear()
	}
}

// inBytes are the options of a bar that counts bytes.
func inBytes() []progressbar.Option {
	return []progressbar.Option{progressbar.OptionShowBytes(true), progressbar.OptionUseIECUnits(true), progressbar.OptionShowCount()}
}

// exactPercent is a share with one decimal.
func exactPercent(share float64) string { return strconv.FormatFloat(100*share, 'f', 1, 64) + " %" }

// percentage is a flag that takes a percentage.
type percentage struct{ value *float64 }

// String implements pflag.Value.
func (s percentage) String() string {
	if s.value == nil {
		return ""
	}
	return strconv.FormatFloat(100**s.value, 'f', -1, 64) + "%"
}

// Set implements pflag.Value.
func (s percentage) Set(text string) error {
	value, err := parsePercent(text)
	if err != nil {
		return err
	}
	*s.value = value
	return nil
}

// Type implements pflag.Value.
func (percentage) Type() string { return "percent" }

// parsePercent reads "12.5%".
func parsePercent(text string) (float64, error) {
	number, found := strings.CutSuffix(strings.TrimSpace(text), "%")
	value, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if !found || err != nil || !(value >= 0 && value <= 100) {
		return 0, fmt.Errorf("%q is no percentage: write one such as 25%%", text)
	}
	return value / 100, nil
}

// capacities is a flag that takes sizes of caches, as percentages or bytes.
type capacities struct {
	values *[]sim.ReplayCapacity
	given  *bool // those that are there are not the preset ones
}

// String implements pflag.Value.
func (c capacities) String() string {
	if c.values == nil {
		return ""
	}
	var texts []string
	for i := range *c.values {
		capacity := (*c.values)[i]
		text := config.Bytes(capacity.Bytes).String()
		if capacity.Share > 0 {
			text = percentage{&capacity.Share}.String()
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ",")
}

// Set implements pflag.Value: what is given first replaces the preset.
func (c capacities) Set(text string) error {
	if !*c.given {
		*c.given, *c.values = true, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		capacity, err := parseCapacity(part)
		if err != nil {
			return err
		}
		*c.values = append(*c.values, capacity)
	}
	return nil
}

// Type implements pflag.Value.
func (capacities) Type() string { return "sizes" }

func parseCapacity(text string) (sim.ReplayCapacity, error) {
	if strings.HasSuffix(strings.TrimSpace(text), "%") {
		part, err := parsePercent(text)
		if err == nil && part == 0 {
			err = fmt.Errorf("a cache of %s holds nothing", text)
		}
		return sim.ReplayCapacity{Share: part}, err
	}
	bytes, err := config.ParseBytes(text)
	if err != nil || bytes < 1 {
		return sim.ReplayCapacity{}, fmt.Errorf("%q is no capacity: write a percentage such as 25%%, or a size such as 64mb or 1GiB", text)
	}
	return sim.ReplayCapacity{Bytes: int64(bytes)}, nil
}

// choices is a flag that takes several of a few words.
type choices struct {
	values  *[]string
	allowed []string
}

// String implements pflag.Value.
func (c choices) String() string {
	if c.values == nil {
		return ""
	}
	return strings.Join(*c.values, ",")
}

// Set implements pflag.Value.
func (c choices) Set(text string) error {
	for word := range strings.SplitSeq(text, ",") {
		if err := (choice{new(string), c.allowed}).Set(word); err != nil {
			return err
		}
		*c.values = append(*c.values, word)
	}
	return nil
}

// Type implements pflag.Value.
func (choices) Type() string { return "strings" }
