package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/bench"
)

func (a *app) benchPrefetchCommand() *cobra.Command {
	var options bench.PrefetchOptions
	var verbose bool
	command := reporting(a, &cobra.Command{
		Use:   "prefetch",
		Short: "Show what foresight does, and what it costs",
		Long: `Read from a disk whose files are not in the page cache, with foresight and without:
a consumer that needs 80 % of what the disk can do. Then play jobs, links and caches
in simulated time through the planner that the daemon runs, beside what one would do
without it: windows of fixed depth, caches that know no future, and the optimum in
hindsight. At last measure what planning itself costs.

The reads take 1.4 GB in --data-dir, which must be on the disk to be measured, and
--skip-disk leaves them out. The rest reads nothing from disk or network: equal
releases give equal figures on every machine, but for the cost of planning.`,
	}, bench.PrefetchFigures(), func(ctx context.Context, show bench.Progress) (*bench.PrefetchReport, error) {
		options.Logger, options.Progress = a.benchLogger(verbose), show
		return bench.Prefetch(ctx, options)
	})
	flags := command.Flags()
	flags.BoolVar(&options.Quick, "quick", false, "one seed in place of three, fewer samples planned, fewer repeats on disk: a minute")
	flags.StringVar(&options.DataDir, "data-dir", "", "folder on the disk to be measured; the data is kept there between runs (default: one below the system's temporary folder)")
	flags.BoolVar(&options.SkipDisk, "skip-disk", false, "measure nothing on disk")
	flags.StringSliceVar(&options.Steps, "steps", nil, "run only these steps: disk, depth, budget, keep, second, shares, chunks, cost (default: all)")
	flags.BoolVar(&verbose, "verbose", false, "show what the daemon on the disk's files logs")
	a.must(command.MarkFlagDirname("data-dir"))
	a.must(command.RegisterFlagCompletionFunc("steps", cobra.FixedCompletions(bench.PrefetchSteps(), cobra.ShellCompDirectiveNoFileComp)))
	return command
}
