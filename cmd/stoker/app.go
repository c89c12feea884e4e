package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/cufile/doctor"
	"github.com/stokerio/stoker/loader/config"
)

// runtimeDirVariable names the daemon's runtime directory, as for Python.
const runtimeDirVariable = "STOKER_RUNTIME_DIR"

// app is one run of the command line: its surroundings, and what its flags say.
type app struct {
	clock       clock
	environment config.Environment
	in          io.Reader // keys, of stoker top
	out, err    io.Writer // results; progress and errors
	terminal    bool      // err is a terminal
	screen      bool      // in and out are a terminal

	// lookAtMachine gathers what stoker doctor examines; nil: doctor.Look.
	lookAtMachine func(context.Context, doctor.Options) (*doctor.Machine, error)

	runtimeDir string // --runtime-dir
	json       bool   // --json of the verb that runs
	progress   string // --progress of the verb that runs
	resumable  bool   // running the verb again goes on where it was interrupted
	started    bool   // the command line was understood, and the verb runs
}

// run executes one command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if !a.started {
		err = usageFailure(err)
	}
	if ctx.Err() != nil {
		err = a.interrupted()
	}
	return a.report(err)
}

// interrupted is what is said after Ctrl-C.
func (a *app) interrupted() *failure {
	f := &failure{Code: "interrupted", What: "interrupted", exit: exitError}
	if a.resumable {
		f.Remedy = "run the same command again: it continues, and shards that are already indexed are not read again"
	}
	return f
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "stoker",
		Short: "Feed training jobs through stokerd",
		Long: `stoker adds datasets to the node's daemon, stokerd, and shows what it does.

The daemon is looked for in the directory given by --runtime-dir, else by
STOKER_RUNTIME_DIR, else in $XDG_RUNTIME_DIR/stoker, /run/stoker and
/tmp/stoker-UID.

Exit codes: 0 success, 1 error, 2 wrong usage, 3 stokerd is not running, 4 dataset
lint or cache check found something. More: stoker help exit-codes.`,
		Example: `  stokerd &
  stoker dataset add pets ~/pets
  stoker dataset preview pets
  stoker top`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          showHelp,
	}
	root.PersistentPreRun = func(*cobra.Command, []string) { a.started = true }
	root.PersistentFlags().StringVar(&a.runtimeDir, "runtime-dir", "", "directory of the daemon's sockets")
	a.must(root.MarkPersistentFlagDirname("runtime-dir"))
	root.AddCommand(a.datasetCommand(), a.indexCommand(), a.topCommand(), a.stallsCommand(), a.statusCommand(), a.hintCommand(), a.versionCommand(),
		a.cacheCommand(), a.doctorCommand(), a.benchCommand(), a.traceCommand(), a.manCommand(), exitCodesTopic(), lintCodesTopic())
	return root
}

// showHelp is what a command does that only groups others.
func showHelp(command *cobra.Command, _ []string) error { return command.Help() }

// exactly asks for one argument for each name.
func exactly(names ...string) cobra.PositionalArgs {
	return func(command *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return fmt.Errorf("%s is missing: write %s %s", names[len(args)], command.CommandPath(), strings.Join(names, " "))
		case len(args) > len(names):
			return fmt.Errorf("unexpected argument %q: write %s %s", args[len(names)], command.CommandPath(), strings.Join(names, " "))
		}
		return nil
	}
}

// must stops on what only a mistake in this program can cause.
func (a *app) must(err error) {
	if err != nil {
		panic(fmt.Sprintf("declare the command line: %v", err))
	}
}

// addJSON gives a verb its --json.
func (a *app) addJSON(command *cobra.Command) {
	command.Flags().BoolVar(&a.json, "json", false, "write JSON, for programs")
}

// writeJSON writes value as one line, or indented if it is the whole result.
func (a *app) writeJSON(value any) error {
	encoder := json.NewEncoder(a.out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// writeJSONLine writes value as one line of a stream.
func (a *app) writeJSONLine(value any) error { return writeLine(a.out, value) }

// writeLine writes value as one line of JSON.
func writeLine(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}
