package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/bench"
)

// benchReport is what a measurement with targets found.
type benchReport interface {
	Print(w io.Writer) error
	Write(path string) error
	Missed() []string
}

// reporting makes command one that measures, with progress, prints what came of it, writes
// it to a file and checks its targets. Its manual explains figures.
func reporting[R benchReport](a *app, command *cobra.Command, figures []bench.FigureText, measure func(context.Context, bench.Progress) (R, error)) *cobra.Command {
	var file string
	var check bool
	flags := command.Flags()
	flags.StringVar(&file, "json", "", "write the report to this file too")
	flags.BoolVar(&check, "check", false, "exit with 1 if a figure misses its target, once everything is measured and written")
	a.must(command.MarkFlagFilename("json", "json"))
	command.Long += "\n\nThe figures, with their targets:\n\n" + explained(figures)
	command.Args = cobra.NoArgs
	command.RunE = func(command *cobra.Command, _ []string) error {
		show, finish := a.stepProgress(time.Now)
		report, err := measure(command.Context(), show)
		finish()
		if err != nil {
			return err
		}
		err = report.Print(a.out)
		if file != "" {
			err = errors.Join(err, report.Write(file))
		}
		return a.missed(err, check, report.Missed())
	}
	return command
}

// explained are figures line by line, indented so that manual pages show them as they are.
func explained(figures []bench.FigureText) string {
	var text strings.Builder
	for _, f := range figures {
		text.WriteString("    " + strings.TrimRight(f.Name+" "+f.Target(), " ") + "\n")
		text.WriteString(hanging("      ", f.What, 90))
	}
	return strings.TrimRight(text.String(), "\n")
}

// missed is the error for figures that miss their targets, if that is asked for.
func (a *app) missed(err error, check bool, missed []string) error {
	if err != nil || !check || len(missed) == 0 {
		return err
	}
	return &failure{Code: "target_missed", What: counted(int64(len(missed)), "figure misses its target", "figures miss their targets"),
		Where: strings.Join(missed, ", "), Remedy: "look at the spread and at the ceilings of the same run first", exit: exitError}
}

// stepProgress shows steps: a bar on a terminal, a line a step elsewhere.
func (a *app) stepProgress(now func() time.Time) (show bench.Progress, finish func()) {
	if a.terminal {
		bar := newBar(a, 1, "")
		show = func(done, total int, label string) {
			bar.Describe(label)
			if bar.GetMax() != total {
				bar.ChangeMax(total)
			}
			_ = bar.Set(done)
		}
		return show, func() { _ = bar.Clear() }
	}
	begin := now()
	show = func(done, total int, label string) {
		fmt.Fprintf(a.err, "[%d/%d] %s (%s)\n", done, total, label, now().Sub(begin).Round(time.Second))
	}
	return show, func() {}
}
