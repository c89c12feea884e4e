package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/loader/config"
	"github.com/stokerio/stoker/prefetch/sim"
)

func (a *app) traceGenerateCommand() *cobra.Command {
	var options sim.GenerateOptions
	options.EnsureDefaults()
	sampleBytes := config.Bytes(options.SampleBytes)
	var force bool
	command := &cobra.Command{
		Use:   "generate FILE",
		Short: "Write the trace of jobs that nobody ran, to try replay with",
		Long: `Write the trace of jobs that nobody ran: each reads every sample of a dataset once
an epoch, in an order that is new in each. Equal flags give equal files.`,
		Example: `  stoker trace generate demo.trace
  stoker trace generate demo.trace --jobs 4 --chunks 10000 --spread 0.2 --resident 25%
  stoker trace replay demo.trace`,
		Args:              exactly("FILE"),
		ValidArgsFunction: completeFile,
		RunE: func(command *cobra.Command, args []string) error {
			options.SampleBytes = int64(sampleBytes)
			return a.generateTrace(command.Context(), args[0], options, force)
		},
	}
	flags := command.Flags()
	flags.IntVar(&options.Jobs, "jobs", options.Jobs, "how many jobs read")
	flags.BoolVar(&options.Separate, "separate", false, "each job has a dataset of its own; else all read one")
	flags.Int64Var(&options.Chunks, "chunks", options.Chunks, "chunks of a dataset")
	flags.Int64Var(&options.SamplesPerChunk, "samples-per-chunk", options.SamplesPerChunk, "samples of a chunk")
	flags.Var(&sampleBytes, "sample-bytes", "size of a sample, such as 110kb or 1MiB")
	flags.Int64Var(&options.Epochs, "epochs", options.Epochs, "epochs of each job")
	flags.Int64Var(&options.BatchSize, "batch-size", options.BatchSize, "samples of a batch")
	flags.DurationVar(&options.BatchTime, "batch-time", options.BatchTime, "how long the first job computes on a batch")
	flags.Float64Var(&options.Spread, "spread", 0, "each job takes so much of --batch-time longer than the one before it")
	flags.Var(percentage{&options.Resident}, "resident", "how much of the data the node kept once it was read, such as 25%")
	flags.Uint64Var(&options.Seed, "seed", 0, "seed of the orders")
	flags.BoolVar(&force, "force", false, "replace FILE if it is there")
	a.addJSON(command)
	return command
}

// generated is the answer of `stoker trace generate --json`.
type generated struct {
	Path     string `json:"path"`
	Bytes    int64  `json:"bytes"`
	Accesses int64  `json:"accesses"`
}

func (a *app) generateTrace(ctx context.Context, path string, options sim.GenerateOptions, force bool) error {
	if err := options.Validate(); err != nil {
		return &failure{Code: "usage", What: "such a trace cannot be generated", Why: err.Error(), Remedy: "see stoker trace generate --help", exit: exitUsage}
	}
	answer := generated{Path: path}
	show := a.newWork()
	options.Progress = func(done, total int64) error {
		answer.Accesses = total
		return show.show(ctx, "generating", done, total)
	}
	var err error
	answer.Bytes, err = writeTraceFile(path, force, func(out io.Writer) error { return sim.GenerateTrace(out, options) })
	show.finish()
	if err != nil {
		return traceFailure("write the trace", path, err)
	}
	if a.json {
		return a.writeJSON(answer)
	}
	_, err = fmt.Fprintf(a.out, "wrote %s: %s, %s\nsee what caches would make of it: stoker trace replay %s\n", printable(path),
		counted(answer.Accesses, "access", "accesses"), humanBytes(answer.Bytes), printable(path))
	return err
}

// writeTraceFile writes a file, which is not left behind where that fails. It says how
// large it is.
func writeTraceFile(path string, force bool, write func(io.Writer) error) (int64, error) {
	file, err := newTraceFile(path, force)
	if err != nil {
		return 0, err
	}
	defer file.discard()
	if err := write(file); err != nil {
		return 0, err
	}
	return file.keep()
}
