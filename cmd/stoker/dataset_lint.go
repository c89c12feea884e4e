package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/shm"
)

// The severities of findings.
const (
	severityError   = "error"
	severityWarning = "warning"
)

// lintOptions are the flags of `stoker dataset lint`.
type lintOptions struct {
	request shm.DatasetLint
	first   int  // findings of a code that are written out
	all     bool // every one is
	strict  bool // warnings count for the exit code
}

func (a *app) datasetLintCommand() *cobra.Command {
	options := lintOptions{request: shm.DatasetLint{Type: shm.TypeDatasetLint}}
	command := &cobra.Command{
		Use:   "lint NAME|DIR",
		Short: "Look for all that would break or slow training",
		Long: `Look for all that would break or slow training, in a dataset that was added, or in
a directory, which is anything that holds a slash.

Findings are errors (adding the dataset or a session over it fails), warnings
(training is slower, or gets what one does not expect) and notes. Each has the
file and the offset in it; stoker help lint-codes explains all of them.

Exit code 0 if there is no error, 4 if there is; with --strict also for warnings.
With --json findings are written one a line as they are found, the summary last.`,
		Example: `  stoker dataset lint ./shards
  stoker dataset lint pets --strict --json --progress none`,
		Args: exactly("NAME|DIR"),
		ValidArgsFunction: func(command *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 && strings.ContainsRune(typed, filepath.Separator) {
				return nil, cobra.ShellCompDirectiveFilterDirs
			}
			return a.completeDataset(command, args, typed)
		},
		RunE: func(command *cobra.Command, args []string) error {
			return a.lintDataset(command.Context(), args[0], options)
		},
	}
	flags := command.Flags()
	a.addFormat(command, &options.request.Format, "with DIR: what the files are")
	flags.StringArrayVar(&options.request.Include, "include", nil, "with DIR: look only at files that match this glob (may be repeated)")
	flags.StringVar(&options.request.DType, "dtype", "", "with DIR: element type of token files that do not say it themselves")
	flags.IntVar(&options.first, "first", 5, "how many findings of each kind are written out")
	flags.BoolVar(&options.all, "all", false, "write out every finding")
	flags.BoolVar(&options.strict, "strict", false, "warnings count for the exit code as well")
	a.addProgress(command)
	a.addJSON(command)
	return command
}

func (a *app) lintDataset(ctx context.Context, name string, options lintOptions) error {
	var descriptors []int
	if strings.ContainsRune(name, filepath.Separator) || name == "." || name == ".." {
		directory, err := openDirectory(name)
		if err != nil {
			return err
		}
		defer directory.Close()
		descriptors = []int{int(directory.Fd())}
	} else if err := options.mayName(name); err != nil {
		return err
	}
	report := newLintReport(options)
	found := report.add
	if a.json {
		found = a.writeFindings
	}
	var summary shm.LintSummary
	err := a.withSession(ctx, func(s *session) (err error) {
		show := a.newProgress("checking")
		summary, err = s.lint(options.request, show.update, found, descriptors...)
		show.finish(err == nil)
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		err = a.writeJSONLine(shm.LintAnswer{Type: shm.TypeLint, Summary: summary})
	} else {
		err = report.write(a.out, name, summary)
	}
	if err != nil {
		return err
	}
	return verdict(name, summary, options.strict)
}

// mayName prepares the request for a dataset by name, which was scanned with
// options of its own.
func (o *lintOptions) mayName(name string) error {
	o.request.Name = name
	if len(o.request.Include) > 0 || o.request.DType != "" || o.request.Format != "auto" {
		return &failure{Code: "usage", What: "--format, --include and --dtype go with a directory: the dataset " + name + " has its own",
			Remedy: "leave them out, or give the directory with a slash: ./" + name, exit: exitUsage}
	}
	o.request.Format = ""
	return nil
}

// findingLine is one finding under --json.
type findingLine struct {
	Type string `json:"type"`
	shm.Finding
}

func (a *app) writeFindings(findings []shm.Finding) error {
	encoder := json.NewEncoder(a.out)
	encoder.SetEscapeHTML(false)
	for i := range findings {
		if err := encoder.Encode(findingLine{"finding", findings[i]}); err != nil {
			return err
		}
	}
	return nil
}

// verdict is the error that the exit code stands for, nil if nothing was found.
func verdict(name string, s shm.LintSummary, strict bool) error {
	if s.Errors == 0 && (!strict || s.Warnings == 0) {
		return nil
	}
	return &failure{Code: "findings", What: "lint found " + severities(s), Where: name,
		Remedy: "mend what is listed, or leave it out with --include or --bad skip", exit: exitFindings}
}

// severities counts findings: "2 errors, 1 warning".
func severities(s shm.LintSummary) string {
	var counts []string
	for _, c := range []struct {
		number    int64
		one, many string
	}{{s.Errors, "error", "errors"}, {s.Warnings, "warning", "warnings"}, {s.Notes, "note", "notes"}} {
		if c.number > 0 {
			counts = append(counts, counted(c.number, c.one, c.many))
		}
	}
	if len(counts) == 0 {
		return "nothing"
	}
	return strings.Join(counts, ", ")
}

// lintReport gathers findings by code, no more of each than will be written.
type lintReport struct {
	limit  int // of each code; -1: none
	groups map[string]*findingGroup
}

type findingGroup struct {
	code, severity string
	remedy         string // of all of them; "" if they differ
	shown          []shm.Finding
	count          int64
}

func newLintReport(options lintOptions) *lintReport {
	r := &lintReport{limit: max(options.first, 0), groups: map[string]*findingGroup{}}
	if options.all {
		r.limit = -1
	}
	return r
}

func (r *lintReport) add(findings []shm.Finding) error {
	for i := range findings {
		f := &findings[i]
		g := r.groups[f.Code]
		if g == nil {
			g = &findingGroup{code: f.Code, severity: f.Severity, remedy: f.Remedy}
			r.groups[f.Code] = g
		}
		if f.Remedy != g.remedy {
			g.remedy = ""
		}
		g.count++
		if r.limit < 0 || len(g.shown) < r.limit {
			g.shown = append(g.shown, *f)
		}
	}
	return nil
}

// write puts the groups out, the worst first.
func (r *lintReport) write(out io.Writer, name string, summary shm.LintSummary) error {
	groups := make([]*findingGroup, 0, len(r.groups))
	for _, g := range r.groups {
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b *findingGroup) int {
		return cmp.Or(cmp.Compare(rank(a.severity), rank(b.severity)), cmp.Compare(a.code, b.code))
	})
	var text strings.Builder
	for _, g := range groups {
		g.write(&text)
	}
	fmt.Fprintf(&text, "%s: %s, %s in %s, %s: found %s\n", printable(filepath.Base(name)), summary.Format, counted(summary.Samples, "sample", "samples"),
		counted(summary.Files, "file", "files"), humanBytes(summary.Bytes), severities(summary))
	_, err := io.WriteString(out, text.String())
	return err
}

func rank(severity string) int {
	return slices.Index([]string{severityError, severityWarning, "note"}, severity)
}

func (g *findingGroup) write(text *strings.Builder) {
	fmt.Fprintf(text, "%s %s: %s\n", printable(g.severity), printable(g.code), counted(g.count, "finding", "findings"))
	for i := range g.shown {
		f := &g.shown[i]
		text.WriteString("  " + spot(f) + ": " + printable(f.What) + "\n")
		if g.remedy == "" && f.Remedy != "" {
			text.WriteString("    next: " + printable(f.Remedy) + "\n")
		}
	}
	if rest := g.count - int64(len(g.shown)); rest > 0 {
		fmt.Fprintf(text, "  and %s more; --all shows them\n", grouped(rest))
	}
	if g.remedy != "" {
		fmt.Fprintf(text, "  next: %s\n", printable(g.remedy))
	}
	text.WriteString("\n")
}

// spot is where a finding is: "train-0001.tar at 1,024, sample "a/b"".
func spot(f *shm.Finding) string {
	text := printable(whole(f.File, f.FileBytes))
	if f.Offset >= 0 {
		text += " at " + grouped(f.Offset)
	}
	if f.Key != "" {
		text += ", sample " + printable(whole(f.Key, f.KeyBytes))
	}
	return text
}

// whole is a name as its file has it: all are its bytes, if it is no UTF-8.
func whole(name string, all []byte) string {
	if len(all) > 0 {
		return string(all)
	}
	return name
}
