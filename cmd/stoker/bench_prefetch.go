package main

import (
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/bench"
)

func (a *app) benchPrefetchCommand() *cobra.Command {
	var options bench.PrefetchOptions
	var file string
	var check bool
	command := &cobra.Command{
		Use:   "prefetch",
		Short: "Show what foresight does, and what it costs",
		Long: `Play jobs, links and caches in simulated time through the planner that the daemon
runs, beside what one would do without it: windows of fixed depth, caches that know
no future, and the optimum in hindsight. Then measure what planning itself costs.
Nothing is read from disk or network; equal releases give equal figures, but for
the cost of planning.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			show, finish := a.stepProgress(time.Now)
			options.Progress = show
			report, err := bench.Prefetch(command.Context(), options)
			finish()
			if err != nil {
				return err
			}
			err = report.Print(a.out)
			if file != "" {
				err = errors.Join(err, report.Write(file))
			}
			return a.missed(err, check, report.Missed())
		},
	}
	flags := command.Flags()
	flags.BoolVar(&options.Quick, "quick", false, "one seed in place of three, and fewer samples planned")
	flags.StringVar(&file, "json", "", "write the report to this file too")
	flags.BoolVar(&check, "check", false, "exit with 1 if a figure misses its target, once everything is measured and written")
	a.must(command.MarkFlagFilename("json", "json"))
	return command
}

// missed is the error for figures that miss their targets, if that is asked for.
func (a *app) missed(err error, check bool, missed []string) error {
	if err != nil || !check || len(missed) == 0 {
		return err
	}
	return &failure{Code: "target_missed", What: counted(int64(len(missed)), "figure misses its target", "figures miss their targets"),
		Where: strings.Join(missed, ", "), Remedy: "look at the spread and at the ceilings of the same run first", exit: exitError}
}
