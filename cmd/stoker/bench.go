package main

import (
	"context"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/bench"
)

func (a *app) benchCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "bench",
		Short: "Measure Stoker beside other loaders and the machine's own limits",
		Args:  cobra.NoArgs,
		RunE:  showHelp,
	}
	command.AddCommand(a.benchCompareCommand(), a.benchPrefetchCommand(), a.benchFlashCommand(),
		a.benchWakeupsCommand(), a.benchCeilingCommand(), a.benchScanCommand(), a.benchFlashStartCommand())
	return command
}

func (a *app) benchCompareCommand() *cobra.Command {
	var options bench.CompareOptions
	var verbose bool
	command := reporting(a, &cobra.Command{
		Use:   "compare",
		Short: "Compare with torch's DataLoader, memmap, tarfile, webdataset and bare loops",
		Long: `Compare Stoker with what its users would otherwise run, and with the bare system
calls, all in one run, interleaved and repeated. A daemon of its own is started
and stopped; up to 6 GB of data are made, and kept in --data-dir. The machine
should do nothing else and have memory for all of the data.`,
	}, bench.CompareFigures(), func(ctx context.Context, show bench.Progress) (*bench.Report, error) {
		options.Logger, options.Progress = a.benchLogger(verbose), show
		return bench.Compare(ctx, options)
	})
	flags := command.Flags()
	flags.BoolVar(&options.Quick, "quick", false, "shorter sections and fewer repeats on the same data: a few minutes on 2 cores")
	flags.StringSliceVar(&options.Cases, "cases", nil, "run only these groups of cases: raw, tokens, tar (default: all)")
	flags.StringVar(&options.DataDir, "data-dir", "", "where the data is kept between runs")
	flags.IntVar(&options.Repeats, "repeats", 0, "how often each row runs (default 5, with --quick 3)")
	flags.StringVar(&options.PageCache, "page-cache", "", "how the data comes into the page cache: written (as after a download; default) or read (as after an epoch)")
	flags.IntVar(&options.Readers, "readers", 0, "threads that read for one session, in the daemon and in the bare loops (default: the daemon's)")
	flags.StringVar(&options.Only, "only", "", "run only rows whose name contains this")
	flags.StringVar(&options.Python, "python", "", "interpreter that runs the consumers (default: .venv of the repository, else python3)")
	flags.StringVar(&options.PythonPath, "python-path", "", "directory that holds the Python package stoker (default: python/ of the repository)")
	flags.StringVar(&options.Stokerd, "stokerd", "", "stokerd to measure (default: beside this program)")
	flags.StringVar(&options.Profiles, "profiles", "", "folder to write CPU profiles of the daemon's rows and the scans to (what is measured becomes a little slower)")
	flags.BoolVar(&verbose, "verbose", false, "show what the daemon and the consumers log")
	a.must(command.MarkFlagDirname("data-dir"))
	a.must(command.MarkFlagDirname("profiles"))
	a.must(command.RegisterFlagCompletionFunc("cases", cobra.FixedCompletions(bench.Groups(), cobra.ShellCompDirectiveNoFileComp)))
	a.must(command.RegisterFlagCompletionFunc("page-cache", cobra.FixedCompletions([]string{bench.PageCacheWritten, bench.PageCacheRead}, cobra.ShellCompDirectiveNoFileComp)))
	return command
}

func (a *app) benchLogger(verbose bool) *slog.Logger {
	if !verbose {
		return nil // bench discards it
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (a *app) benchWakeupsCommand() *cobra.Command {
	var options bench.WakeupOptions
	var verbose bool
	command := &cobra.Command{
		Use:   "wakeups",
		Short: "Measure how fast a Go and a Python process wake each other",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			options.Logger = a.benchLogger(verbose)
			report, err := bench.Wakeups(command.Context(), options)
			if err != nil {
				return err
			}
			if a.json {
				return a.writeJSON(report)
			}
			return report.Print(a.out)
		},
	}
	flags := command.Flags()
	flags.IntVar(&options.RoundTrips, "round-trips", 0, "timed round trips of each kind (default 5000)")
	flags.DurationVar(&options.Pause, "pause", 0, "pause between two round trips, so that both sides sleep")
	flags.StringVar(&options.Python, "python", "", "interpreter (default: .venv of the repository, else python3)")
	flags.BoolVar(&verbose, "verbose", false, "show what the Python side logs")
	a.addJSON(command)
	return command
}

// benchCeilingCommand is how bench runs its bare loop in a process of its own.
func (a *app) benchCeilingCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "ceiling OPTIONS",
		Short:  "Run one bare loop",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			return bench.CeilingMain(command.Context(), args[0], a.out)
		},
	}
}

// benchScanCommand is how bench scans shards in a process of its own.
func (a *app) benchScanCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "scan OPTIONS",
		Short:  "Scan tar shards over and over",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			return bench.ScanMain(command.Context(), args[0], a.out)
		},
	}
}
