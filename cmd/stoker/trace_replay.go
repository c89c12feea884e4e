package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/prefetch/sim"
	"github.com/stokerio/stoker/prefetch/trace"
)

func (a *app) traceReplayCommand() *cobra.Command {
	options := sim.ReplayOptions{Capacities: []sim.ReplayCapacity{{Share: .10}, {Share: .25}, {Share: .50}}}
	command := &cobra.Command{
		Use:   "replay FILE",
		Short: "Replay a trace through caches, and say what the best would have done",
		Long: `Replay the chunks that a trace read, in their order, through caches that begin
empty, and say how much each would have served.

OPT is the best there can be: it knows the future, and keeps what is needed soonest
(Belady's rule with bypass). Where chunks differ in size it is a bound on bytes that
no policy exceeds. LRU TO OPT says how far a policy is on the way from lru to opt, by
bytes. A percentage is of all chunks that the trace reads, each counted once.

A trace that stops early, because its recorder was killed, is replayed as far as it
goes. An access needs about 24 bytes of memory.`,
		Example: `  stoker trace replay node-7.trace
  stoker trace replay node-7.trace --capacity 10%,50%,400GiB --policy sieve
  stoker trace replay node-7.trace --json`,
		Args:              exactly("FILE"),
		ValidArgsFunction: completeFile,
		RunE: func(command *cobra.Command, args []string) error {
			return a.replayTrace(command.Context(), args[0], options)
		},
	}
	flags := command.Flags()
	flags.Var(capacities{&options.Capacities, new(bool)}, "capacity", "sizes of the cache: percentages, or sizes such as 1GiB")
	policies := sim.ReplayPolicies()
	flags.Var(choices{&options.Policies, policies}, "policy", "policies besides lru and opt (default: all): "+oneOf(policies))
	flags.Int64Var(&options.First, "first", 0, "replay only so many accesses at the beginning (default: all)")
	flags.Int64Var(&options.MaxAccesses, "max-accesses", sim.DefaultReplayAccesses, "refuse traces with more accesses than this")
	a.must(command.RegisterFlagCompletionFunc("policy", cobra.FixedCompletions(policies, cobra.ShellCompDirectiveNoFileComp)))
	a.must(command.RegisterFlagCompletionFunc("capacity", cobra.FixedCompletions([]string{"10%,25%,50%"}, cobra.ShellCompDirectiveNoFileComp)))
	a.addJSON(command)
	return command
}

// replayGCPercent is how much garbage a replay may leave beside what it holds.
const replayGCPercent = 10

func (a *app) replayTrace(ctx context.Context, path string, options sim.ReplayOptions) error {
	if options.First < 0 || options.MaxAccesses < 1 {
		return &failure{Code: "usage", What: "--first must not be negative, and --max-accesses must be at least 1",
			Remedy: "leave them out, or give numbers of accesses", exit: exitUsage}
	}
	// Most of the memory is one table without pointers: to look through it often costs
	// little, and by Go's default as much again would lie waste.
	defer debug.SetGCPercent(debug.SetGCPercent(replayGCPercent))
	var report *sim.ReplayReport
	err := readTrace(path, func(file *os.File, bytes int64) (err error) {
		show := a.newWork()
		defer show.finish()
		options.Progress = func(stage string, done, total int64) error {
			if stage == sim.ReplayReads {
				return show.show(ctx, stage, done, bytes, inBytes()...)
			}
			return show.show(ctx, stage, done, total)
		}
		report, err = sim.ReplayTrace(file, options)
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.writeJSON(replayAnswer{
			Trace: describeTrace(path, &report.Summary), Cut: report.Cut,
			Chunks: report.Chunks, ChunkBytes: report.ChunkBytes, Policies: report.Rows,
		})
	}
	a.warnTorn(path, report.Torn)
	return a.writeReplay(path, report)
}

// replayAnswer is the answer of `stoker trace replay --json`.
type replayAnswer struct {
	Trace      traceDescription `json:"trace"` // of what was replayed
	Cut        bool             `json:"cut"`   // --first ended it
	Chunks     int64            `json:"chunks"`
	ChunkBytes int64            `json:"chunk_bytes"`
	Policies   []sim.ReplayRow  `json:"policies"`
}

func (a *app) writeReplay(path string, r *sim.ReplayReport) error {
	recorded := r.Tally()
	first := ""
	if r.Cut {
		first = "the first "
	}
	fmt.Fprintf(a.out, "%s: %s%s in %s, to %s of %s\n", printable(path), first, counted(r.Accesses, "access", "accesses"),
		r.Length.Round(time.Millisecond), counted(r.Chunks, "chunk", "chunks"), humanBytes(r.ChunkBytes))
	fmt.Fprintf(a.out, "recorded: %s of the accesses were resident, %s had to be fetched, %s in waits\n\n",
		exactPercent(recorded.HitRatio()), humanBytes(recorded.MissBytes), humanSeconds(r.Waited.Seconds()))
	if r.Lost.Reads > 0 {
		fmt.Fprintf(a.out, "lost: %s\n\n", lostText(r.Lost))
	}
	if r.Accesses == 0 {
		_, err := fmt.Fprintln(a.out, "there is nothing to replay")
		return err
	}
	rows := [][]string{{"CAPACITY", "POLICY", "HITS", "FROM CACHE", "FETCHED", "LRU TO OPT"}}
	for i, row := range r.Rows {
		capacity, way := "", "-"
		if i == 0 || r.Rows[i-1].Policy == sim.PolicyOPT {
			capacity = capacityText(row)
		}
		if row.Way != nil {
			way = exactPercent(*row.Way)
		}
		rows = append(rows, []string{capacity, row.Policy, exactPercent(row.HitShare), humanBytes(row.HitBytes), humanBytes(row.MissBytes), way})
	}
	if err := table(a.out, rows); err != nil {
		return err
	}
	fmt.Fprintln(a.out)
	for rows := r.Rows; len(rows) > 0; {
		n := 1 + slices.IndexFunc(rows, func(row sim.ReplayRow) bool { return row.Policy == sim.PolicyOPT })
		if _, err := fmt.Fprintln(a.out, verdictOfOPT(rows[:n], recorded)); err != nil {
			return err
		}
		rows = rows[n:]
	}
	if len(r.Sessions) < 2 {
		return nil
	}
	fmt.Fprintln(a.out)
	return table(a.out, sessionRows(r.Sessions, r.Datasets))
}

func capacityText(row sim.ReplayRow) string {
	return exactPercent(row.CapacityShare) + " (" + humanBytes(row.Capacity) + ")"
}

// verdictOfOPT says what OPT, the last of the rows of one capacity, would have done.
func verdictOfOPT(rows []sim.ReplayRow, recorded trace.Tally) string {
	last := len(rows) - 1
	opt, best := rows[last], rows[0]
	for _, row := range rows[:last] {
		if row.HitBytes > best.HitBytes {
			best = row
		}
	}
	text := fmt.Sprintf("with %s opt would have had %s hits and fetched %s: %s less than %s, the best of the others",
		capacityText(opt), exactPercent(opt.HitShare), humanBytes(opt.MissBytes), less(opt.MissBytes, best.MissBytes), best.Policy)
	if opt.MissBytes <= recorded.MissBytes {
		return text + fmt.Sprintf(", %s less than was recorded", less(opt.MissBytes, recorded.MissBytes))
	}
	return text + "; the recorded run fetched less yet: its cache was larger, or not empty when it began"
}

// less says by how much some is less than all, which is no less than that.
func less(some, all int64) string {
	if all == 0 {
		return exactPercent(0)
	}
	return exactPercent(float64(all-some) / float64(all))
}
