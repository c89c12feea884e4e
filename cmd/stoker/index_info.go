package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/loader/dataset"
)

func (a *app) indexInfoCommand() *cobra.Command {
	var verify bool
	command := &cobra.Command{
		Use:   "info NAME|FILE",
		Short: "Describe a dataset's index, or an index file",
		Long: `Describe the index of a dataset, or an index file, which is anything that holds a
slash. The file is read here, so this must be the machine of the daemon.`,
		Example: `  stoker index info pets
  stoker index info pets --verify
  stoker index info ./0f3a.idx`,
		Args: exactly("NAME|FILE"),
		ValidArgsFunction: func(command *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if strings.ContainsRune(typed, filepath.Separator) {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return a.completeDataset(command, args, typed)
		},
		RunE: func(command *cobra.Command, args []string) error {
			return a.describeIndex(command.Context(), args[0], verify)
		},
	}
	command.Flags().BoolVar(&verify, "verify", false, "read all of it and check that it is what its id says")
	a.addJSON(command)
	return command
}

// indexDescription is the answer of `stoker index info --json`.
type indexDescription struct {
	Path           string            `json:"path"`
	FileBytes      int64             `json:"file_bytes"`
	Records        int64             `json:"records"`                    // one a file
	BytesPerSample float64           `json:"bytes_per_sample,omitempty"` // of the index file
	Sections       []dataset.Section `json:"sections,omitempty"`
	Verified       bool              `json:"verified"` // --verify was given, and all of it is as its id says
	Origin         string            `json:"origin"`   // of the files: where they were
	Info           dataset.Info      `json:"info"`
}

func (a *app) describeIndex(ctx context.Context, name string, verify bool) error {
	path, err := a.indexFile(ctx, name)
	if err != nil {
		return err
	}
	index, err := dataset.OpenIndex(path)
	if err != nil {
		return withNames(err, name)
	}
	defer index.Close()
	d := indexDescription{Path: path, Records: index.Len(), Sections: index.Meta().Sections, Origin: index.Meta().Origin, Info: index.Info()}
	stat, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("look at the index: %w", err)
	}
	d.FileBytes = stat.Size()
	if d.Info.Samples > 0 {
		d.BytesPerSample = float64(d.FileBytes) / float64(d.Info.Samples)
	}
	if verify {
		if err := index.Verify(ctx); err != nil {
			return err
		}
		d.Verified = true
	}
	if a.json {
		return a.writeJSON(d)
	}
	return table(a.out, indexRows(d, verify))
}

// indexFile finds the file that is meant: what holds a slash is one, all else is
// the name of a dataset, whose file the daemon knows.
func (a *app) indexFile(ctx context.Context, name string) (string, error) {
	if strings.ContainsRune(name, filepath.Separator) {
		return filepath.Abs(name)
	}
	c, err := a.connect(ctx)
	if err != nil {
		return "", err
	}
	defer c.close()
	var d api.Dataset
	if err := c.get(ctx, &d, "v1", "datasets", name); err != nil {
		return "", err
	}
	if d.IndexPath == "" {
		return "", &failure{Code: string(api.CodeVersion), What: "the daemon does not say where its indexes are", Where: "dataset " + name,
			Remedy: "give the file itself: it is in the daemon's data directory, under datasets/" + name, exit: exitError}
	}
	return d.IndexPath, nil
}

// withNames adds what is likely wrong where a file is not there.
func withNames(err error, name string) error {
	f := failureOf(err)
	if errors.Is(err, fs.ErrNotExist) && strings.ContainsRune(name, filepath.Separator) {
		f.Remedy = "check the path; a name without a slash means a dataset"
	}
	return f
}

func indexRows(d indexDescription, verify bool) [][]string {
	rows := [][]string{
		{"index", d.Info.ID},
		{"file", printable(d.Path)},
		{"size", fmt.Sprintf("%s (%s bytes)", humanBytes(d.FileBytes), grouped(d.FileBytes))},
		{"of", fmt.Sprintf("%s, %s", d.Info.Format, printable(d.Origin))},
		{"records", counted(d.Records, "file", "files")},
	}
	switch {
	case d.Info.Tokens > 0:
		rows = append(rows, []string{"tokens", fmt.Sprintf("%s of %s", grouped(d.Info.Tokens), d.Info.DType)})
	default:
		rows = append(rows, []string{"samples", fmt.Sprintf("%s, %s bytes of index each", grouped(d.Info.Samples), strconv.FormatFloat(d.BytesPerSample, 'f', 1, 64))})
	}
	rows = append(rows, []string{"data", fmt.Sprintf("%s (%s bytes)", humanBytes(d.Info.Bytes), grouped(d.Info.Bytes))})
	for i, section := range d.Sections {
		title := ""
		if i == 0 {
			title = "sections"
		}
		rows = append(rows, []string{title, printable(section.Name) + ", " + humanBytes(section.Bytes)})
	}
	for i, part := range d.Info.Parts {
		title := ""
		if i == 0 {
			title = "parts"
		}
		rows = append(rows, []string{title, printable(part.Name) + ", " + counted(part.Samples, "sample", "samples") + ", " + humanBytes(part.Bytes)})
	}
	if len(d.Info.Archives) > 0 {
		rows = append(rows, []string{"archives", tally(d.Info.Archives)})
	}
	for _, reason := range slices.Sorted(maps.Keys(d.Info.Skipped)) {
		rows = append(rows, []string{"skipped", leftOut(d.Info.Format, d.Info.Skipped[reason]) + ": " + printable(reason)})
	}
	if verify {
		rows = append(rows, []string{"verified", "every byte is as the id says"})
	}
	return rows
}
