package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/bench"
)

func (a *app) benchFlashCommand() *cobra.Command {
	var options bench.FlashOptions
	var verbose bool
	command := reporting(a, &cobra.Command{
		Use:   "flash",
		Short: "Measure the flash store beside bare loops on the same device",
		Long: `Read from the flash store in several patterns, and in the same patterns from a bare
file on the same device, in turn; fill it, and write as much with a bare loop; look what
it writes beside payload, how long a start with 10^6 chunks takes and how much memory,
and how much of the room a simulated day of arrivals leaves.

It takes up to 4 GiB in --dir, which must be on the device to be measured, and removes
them again.`,
	}, bench.FlashFigures(), func(ctx context.Context, show bench.Progress) (*bench.FlashReport, error) {
		options.Logger, options.Progress = a.benchLogger(verbose), show
		return bench.Flash(ctx, options)
	})
	flags := command.Flags()
	flags.BoolVar(&options.Quick, "quick", false, "less data and fewer repeats: a minute")
	flags.StringVar(&options.Dir, "dir", "", "folder on the device to be measured (default: the system's temporary folder)")
	flags.StringSliceVar(&options.Steps, "steps", nil, "run only these steps: read, write, start, churn (default: all)")
	flags.BoolVar(&verbose, "verbose", false, "show what the store logs")
	a.must(command.MarkFlagDirname("dir"))
	a.must(command.RegisterFlagCompletionFunc("steps", cobra.FixedCompletions(bench.FlashSteps(), cobra.ShellCompDirectiveNoFileComp)))
	return command
}

// benchFlashStartCommand is how bench opens a store in a process of its own.
func (a *app) benchFlashStartCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "flash-start OPTIONS",
		Short:  "Open a store of flash",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			return bench.FlashStartMain(command.Context(), args[0], a.out)
		},
	}
}
