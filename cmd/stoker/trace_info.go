package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/prefetch"
	"github.com/stokerio/stoker/prefetch/sim"
	"github.com/stokerio/stoker/prefetch/trace"
)

func (a *app) traceInfoCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "info FILE",
		Short: "Describe a trace: its datasets, its sessions, and what they read from where",
		Long: `Describe a trace: its datasets, its sessions, and what they read from where. All of
it is read and checked.`,
		Args:              exactly("FILE"),
		ValidArgsFunction: completeFile,
		RunE: func(command *cobra.Command, args []string) error {
			return a.describeTraceFile(command.Context(), args[0])
		},
	}
	a.addJSON(command)
	return command
}

func (a *app) describeTraceFile(ctx context.Context, path string) error {
	var summary trace.Summary
	err := readTrace(path, func(file *os.File, bytes int64) (err error) {
		show := a.newWork()
		defer show.finish()
		summary, err = trace.Summarize(file, func(done int64) error {
			return show.show(ctx, sim.ReplayReads, done, bytes, inBytes()...)
		})
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.writeJSON(describeTrace(path, &summary))
	}
	a.warnTorn(path, summary.Torn)
	return a.writeTrace(path, &summary)
}

// traceDescription is a trace under --json.
type traceDescription struct {
	Path     string          `json:"path"`
	Bytes    int64           `json:"bytes"` // that were read
	Torn     string          `json:"torn,omitempty"`
	Lost     trace.Lost      `json:"lost"`
	Node     string          `json:"node"`
	Start    time.Time       `json:"start"`
	Seconds  float64         `json:"seconds"` // until the last read
	Datasets []trace.Dataset `json:"datasets"`
	Sessions []traceSession  `json:"sessions"`
	traceCounts
}

type traceSession struct {
	Number int `json:"session"`
	trace.Session
	Epochs int64 `json:"epochs"`
	traceCounts
}

// traceCounts is what a trace or a session read.
type traceCounts struct {
	Reads            int64            `json:"reads"`
	Samples          int64            `json:"samples"`
	Accesses         int64            `json:"accesses"`
	BytesBySource    map[string]int64 `json:"bytes_by_source"`
	AccessesBySource map[string]int64 `json:"accesses_by_source"`
	ResidentShare    float64          `json:"resident_share"` // of the accesses
	Waits            int64            `json:"waits"`
	WaitedSeconds    float64          `json:"waited_seconds"`
}

func describeTrace(path string, s *trace.Summary) traceDescription {
	d := traceDescription{
		Path: path, Bytes: s.Bytes, Torn: s.Torn, Lost: s.Lost, Node: s.Node, Start: s.Start, Seconds: s.Length.Seconds(),
		Datasets: append([]trace.Dataset{}, s.Datasets...), Sessions: []traceSession{},
		traceCounts: traceCounts{Reads: s.Reads, Samples: s.Samples}.from(&s.Sources),
	}
	for i := range s.Sessions {
		session := &s.Sessions[i]
		d.Sessions = append(d.Sessions, traceSession{
			Number: i, Session: session.Session, Epochs: session.Epochs,
			traceCounts: traceCounts{Reads: session.Reads, Samples: session.Samples}.from(&session.Sources),
		})
	}
	return d
}

// from adds what came from where.
func (c traceCounts) from(s *trace.Sources) traceCounts {
	c.BytesBySource, c.AccessesBySource = map[string]int64{}, map[string]int64{}
	for source := range prefetch.Sources {
		c.BytesBySource[source.String()] = s.BytesOf[source]
		c.AccessesBySource[source.String()] = s.AccessesOf[source]
		c.Accesses += s.AccessesOf[source]
	}
	tally := s.Tally()
	c.ResidentShare = tally.HitRatio()
	c.Waits, c.WaitedSeconds = s.Waits, s.Waited.Seconds()
	return c
}

func (a *app) writeTrace(path string, s *trace.Summary) error {
	each := ""
	if s.Accesses > 0 {
		each = ", " + strconv.FormatFloat(float64(s.Bytes)/float64(s.Accesses), 'f', 1, 64) + " bytes an access"
	}
	rows := [][]string{
		{"trace", printable(path)},
		{"node", printable(s.Node)},
		{"from", s.Start.UTC().Format(time.RFC3339) + ", for " + s.Length.Round(time.Millisecond).String()},
		{"size", humanBytes(s.Bytes) + each},
		{"holds", fmt.Sprintf("%s in %s, %s", counted(s.Samples, "sample", "samples"), counted(s.Reads, "read", "reads"), counted(s.Accesses, "access", "accesses"))},
	}
	for source := range prefetch.Sources {
		if n := s.AccessesOf[source]; n > 0 {
			rows = append(rows, []string{source.String(), fmt.Sprintf("%s, %s", counted(n, "access", "accesses"), humanBytes(s.BytesOf[source]))})
		}
	}
	if s.Lost.Reads > 0 {
		rows = append(rows, []string{"lost", lostText(s.Lost)})
	}
	rows = append(rows, []string{"waited", fmt.Sprintf("%s, in %s", humanSeconds(s.Waited.Seconds()), counted(s.Waits, "access", "accesses"))})
	if err := table(a.out, rows); err != nil || len(s.Sessions) == 0 {
		return err
	}
	fmt.Fprintln(a.out)
	if err := table(a.out, traceDatasetRows(s.Datasets)); err != nil {
		return err
	}
	fmt.Fprintln(a.out)
	return table(a.out, sessionRows(s.Sessions, s.Datasets))
}

// lostText says what a trace lacks.
func lostText(lost trace.Lost) string {
	return fmt.Sprintf("%s with %s, read faster than they could be recorded", counted(lost.Reads, "read", "reads"), counted(lost.Samples, "sample", "samples"))
}

func traceDatasetRows(datasets []trace.Dataset) [][]string {
	rows := [][]string{{"DATASET", "SAMPLES", "CHUNKS", "SIZE", "INDEX"}}
	for _, d := range datasets {
		index := "-"
		if d.IndexID != "" {
			index = printable(d.IndexID)
		}
		rows = append(rows, []string{printable(d.Name), grouped(d.Samples), grouped(d.Chunks), humanBytes(d.Bytes), index})
	}
	return rows
}

// sessionRows tell what each session did when it was recorded.
func sessionRows(sessions []trace.SessionSummary, datasets []trace.Dataset) [][]string {
	rows := [][]string{{"SESSION", "JOB", "DATASET", "ORDER", "RANK", "BATCH", "EPOCHS", "SAMPLES", "RESIDENT", "FETCHED", "WAITED"}}
	for i := range sessions {
		s := &sessions[i]
		tally := s.Tally()
		rows = append(rows, []string{
			strconv.Itoa(i), printable(s.Job), printable(datasets[s.Dataset].Name), printable(s.Order), fmt.Sprintf("%d/%d", s.Rank, s.WorldSize),
			grouped(s.BatchSize), grouped(s.Epochs), grouped(s.Samples), exactPercent(tally.HitRatio()), humanBytes(tally.MissBytes), humanSeconds(s.Waited.Seconds()),
		})
	}
	return rows
}
