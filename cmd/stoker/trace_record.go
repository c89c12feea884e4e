package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/prefetch/trace"
)

// recordFlags are what `stoker trace record` was told.
type recordFlags struct {
	length   time.Duration
	accesses int64
	datasets []string
	sessions []string
	force    bool
}

func (a *app) traceRecordCommand() *cobra.Command {
	var f recordFlags
	command := &cobra.Command{
		Use:   "record FILE",
		Short: "Record what the daemon's sessions read from now on",
		Long: `Record what the daemon's sessions read from now on: which samples each batch holds,
where their bytes lie, and which of them had to be waited for. It ends with Ctrl-C,
after --for, or with --accesses; FILE is there when it has ended.

Recording never slows a session: what is read faster than it can be written is left
out, and the recording says how much. At most four recordings are made at once.`,
		Example: `  stoker trace record node-7.trace
  stoker trace record node-7.trace --for 10m --dataset imagenet
  stoker trace replay node-7.trace`,
		Args:              exactly("FILE"),
		ValidArgsFunction: completeFile,
		RunE: func(command *cobra.Command, args []string) error {
			if err := checkRecord(command, &f); err != nil {
				return err
			}
			return a.recordTrace(command.Context(), args[0], &f)
		},
	}
	flags := command.Flags()
	flags.DurationVar(&f.length, "for", 0, "end after so long, such as 10m (default: with Ctrl-C)")
	flags.Int64Var(&f.accesses, "accesses", 0, "end with so many accesses (default: with Ctrl-C)")
	flags.StringArrayVar(&f.datasets, "dataset", nil, "record only sessions that read this dataset; may be repeated")
	flags.StringArrayVar(&f.sessions, "session", nil, "record only this session, by its id; may be repeated")
	flags.BoolVar(&f.force, "force", false, "replace FILE if it is there")
	a.must(command.RegisterFlagCompletionFunc("dataset", func(command *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return a.completeDataset(command, nil, typed)
	}))
	a.must(command.RegisterFlagCompletionFunc("session", a.completeSession))
	a.addJSON(command)
	return command
}

// completeSession completes the id of an open session.
func (a *app) completeSession(command *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var list struct {
		Sessions []api.Session `json:"sessions"`
	}
	c, err := a.connect(command.Context())
	if err == nil {
		defer c.close()
		err = c.get(command.Context(), &list, "v1", "sessions")
	}
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var ids []string
	for _, s := range list.Sessions {
		ids = append(ids, s.ID+"\t"+printable(s.Dataset))
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// What ended a recording.
const (
	endedInterrupted = "interrupted"
	endedTime        = "time"
	endedAccesses    = "accesses"
	endedDaemon      = "daemon"     // it stopped
	endedConnection  = "connection" // it was lost
)

// recordedTrace is the answer of `stoker trace record --json`.
type recordedTrace struct {
	Path     string     `json:"path"`
	Bytes    int64      `json:"bytes"`
	Sessions int        `json:"sessions"`
	Reads    int64      `json:"reads"`
	Accesses int64      `json:"accesses"`
	Seconds  float64    `json:"seconds"`
	Lost     trace.Lost `json:"lost"`
	Ended    string     `json:"ended"`
}

// checkRecord refuses limits that are none. A 0 that was given may be a script's mistake,
// and the recording would never end.
func checkRecord(command *cobra.Command, f *recordFlags) error {
	given := command.Flags().Changed
	for name, bad := range map[string]bool{"for": given("for") && f.length <= 0, "accesses": given("accesses") && f.accesses <= 0} {
		if bad {
			return &failure{Code: "usage", What: "--" + name + " must be above 0", Remedy: "leave it out to record until Ctrl-C", exit: exitUsage}
		}
	}
	return nil
}

func (a *app) recordTrace(ctx context.Context, path string, f *recordFlags) error {
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	file, err := newTraceFile(path, f.force)
	if err != nil {
		return traceFailure("write the trace", path, err)
	}
	defer file.discard()
	within := ctx
	if f.length > 0 {
		limited, cancel := context.WithTimeout(ctx, f.length)
		defer cancel()
		within = limited
	}
	body, err := c.stream(within, url.Values{"dataset": f.datasets, "session": f.sessions}, "v1", "trace")
	if err != nil {
		return err
	}
	defer body.Close()
	fmt.Fprintf(a.err, "recording to %s; Ctrl-C ends it\n", printable(path))
	r := &traceCopy{app: a, file: file, limit: f.accesses, length: f.length, began: a.clock.now()}
	r.shown = r.began
	answer, err := r.run(within, ctx, body)
	r.finish()
	if err != nil {
		return traceFailure("write the trace", path, err)
	}
	answer.Path = path
	if answer.Bytes, err = file.keep(); err != nil {
		return traceFailure("write the trace", path, err)
	}
	return a.reportRecorded(&answer)
}

func (a *app) reportRecorded(r *recordedTrace) error {
	if r.Lost.Reads > 0 {
		fmt.Fprintf(a.err, "stoker: %s lacks %s with %s\n  why:   they were read faster than they could be recorded\n  next:  record fewer sessions, or to a faster disk\n",
			printable(r.Path), counted(r.Lost.Reads, "read", "reads"), counted(r.Lost.Samples, "sample", "samples"))
	}
	var err error
	if a.json {
		err = a.writeJSON(r)
	} else {
		_, err = fmt.Fprintf(a.out, "wrote %s: %s in %s of %s, %s\nsee what caches would make of it: stoker trace replay %s\n", printable(r.Path),
			counted(r.Accesses, "access", "accesses"), counted(r.Reads, "read", "reads"), counted(int64(r.Sessions), "session", "sessions"),
			humanBytes(r.Bytes), printable(r.Path))
	}
	if err != nil || r.Ended != endedDaemon && r.Ended != endedConnection {
		return err
	}
	why := map[string]string{endedDaemon: "stokerd stopped", endedConnection: "the connection to stokerd was lost"}[r.Ended]
	return &failure{
		Code: string(api.CodeUnavailable), What: "the recording ended early", Where: r.Path, Why: why,
		Remedy: "nothing need be done: what had been recorded is kept, and is good", exit: exitError,
	}
}

// traceCopy writes a trace to a file while it is recorded.
type traceCopy struct {
	app    *app
	file   *traceFile
	in     *trace.Reader
	out    *trace.Writer
	limit  int64         // accesses; 0: none
	length time.Duration // 0: no limit
	began  time.Time
	shown  time.Time
	drawn  bool

	datasets, sessions int // that the file has
	lost               trace.Lost
}

// run copies until within or the trace ends, or there are enough accesses. The error is
// one of writing, or that the daemon sends no trace.
func (r *traceCopy) run(within, interrupt context.Context, body io.Reader) (recordedTrace, error) {
	var err error
	if r.in, err = trace.NewReader(&watchedReader{body, r}); err == nil {
		if r.out, err = trace.NewWriter(r.file, r.in.Header()); err != nil {
			return recordedTrace{}, err
		}
		err = r.copy()
	} else if within.Err() == nil {
		return recordedTrace{}, err
	}
	ended, err := r.ended(err, within, interrupt)
	if err != nil {
		return recordedTrace{}, err
	}
	if r.out == nil { // it was over before it began
		if r.out, err = trace.NewWriter(r.file, trace.Header{Start: r.began}); err != nil {
			return recordedTrace{}, err
		}
	}
	if err := r.out.Close(); err != nil {
		return recordedTrace{}, err
	}
	return recordedTrace{
		Sessions: r.sessions, Reads: r.out.Reads(), Accesses: r.out.Accesses(), Seconds: r.app.clock.now().Sub(r.began).Seconds(),
		Lost: r.out.Lost(), Ended: ended,
	}, nil
}

// errEnough ends a copy that has all its accesses.
var errEnough = errors.New("there are enough accesses")

// errUnwritten is wrapped by the errors of the file.
var errUnwritten = errors.New("the file was not written")

// copy copies record by record. Its error says why it ended.
func (r *traceCopy) copy() error {
	for {
		read, err := r.in.Next()
		if broken := r.define(); broken != nil {
			return fmt.Errorf("%w: %w", errUnwritten, broken)
		}
		if err != nil {
			return err
		}
		if r.limit > 0 {
			read.Accesses = read.Accesses[:min(int64(len(read.Accesses)), r.limit-r.out.Accesses())]
		}
		if err := r.out.Read(read); err != nil {
			return fmt.Errorf("%w: %w", errUnwritten, err)
		}
		if r.limit > 0 && r.out.Accesses() == r.limit {
			return errEnough
		}
	}
}

// define writes the datasets and sessions that are new, and what was lost.
func (r *traceCopy) define() error {
	for ; r.datasets < len(r.in.Datasets()); r.datasets++ {
		if _, err := r.out.Dataset(r.in.Datasets()[r.datasets]); err != nil {
			return err
		}
	}
	for ; r.sessions < len(r.in.Sessions()); r.sessions++ {
		if _, err := r.out.Session(r.in.Sessions()[r.sessions]); err != nil {
			return err
		}
	}
	now := r.in.Lost()
	if now == r.lost {
		return nil
	}
	lost := trace.Lost{Reads: now.Reads - r.lost.Reads, Samples: now.Samples - r.lost.Samples}
	r.lost = now
	return r.out.Mark(r.in.Now(), lost)
}

// ended says what ended a copy, or that the file could not be written, or that what came
// is not what was sent.
func (r *traceCopy) ended(err error, within, interrupt context.Context) (string, error) {
	var problem *trace.Error
	switch {
	case errors.Is(err, errUnwritten):
		return "", err
	case errors.Is(err, errEnough):
		return endedAccesses, nil
	case interrupt.Err() != nil:
		return endedInterrupted, nil
	case within.Err() != nil:
		return endedTime, nil
	case err == io.EOF:
		return endedDaemon, nil
	case errors.As(err, &problem) && problem.Problem != trace.Torn:
		return "", err
	}
	return endedConnection, nil
}

// watchedReader shows how far the recording is with all that arrives.
type watchedReader struct {
	io.Reader
	copy *traceCopy
}

// Read implements io.Reader.
func (r *watchedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.copy.show()
	return n, err
}

// showInterval is how often a line on a terminal is drawn anew.
const showInterval = 100 * time.Millisecond

// show draws how far the recording is: a line that is drawn anew on a terminal, elsewhere
// one now and then.
func (r *traceCopy) show() {
	now, every := r.app.clock.now(), lineInterval
	if r.app.terminal {
		every = showInterval
	}
	if now.Sub(r.shown) < every || r.out == nil {
		return
	}
	r.shown = now
	text := fmt.Sprintf("recording: %s, %s, %s", counted(r.out.Accesses(), "access", "accesses"), humanBytes(r.file.written),
		now.Sub(r.began).Round(time.Second))
	if r.length > 0 {
		text += " of " + r.length.String()
	}
	if r.lost.Reads > 0 {
		text += fmt.Sprintf(", %s lost", counted(r.lost.Reads, "read", "reads"))
	}
	if r.app.terminal {
		r.drawn = true
		fmt.Fprintf(r.app.err, "\r\x1b[K%s", text)
		return
	}
	fmt.Fprintln(r.app.err, text)
}

// finish takes the line away.
func (r *traceCopy) finish() {
	if r.drawn {
		_, _ = io.WriteString(r.app.err, "\r\x1b[K")
	}
}
