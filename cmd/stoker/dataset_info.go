package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/loader/api"
)

// classesShown is how many class names are written out for people.
const classesShown = 10

func (a *app) datasetInfoCommand() *cobra.Command {
	command := &cobra.Command{
		Use:               "info NAME",
		Short:             "Describe a dataset",
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeDataset,
		RunE:              func(command *cobra.Command, args []string) error { return a.describeDataset(command, args[0]) },
	}
	a.addJSON(command)
	return command
}

func (a *app) describeDataset(command *cobra.Command, name string) error {
	c, err := a.connect(command.Context())
	if err != nil {
		return err
	}
	defer c.close()
	var d api.Dataset
	if err := c.get(command.Context(), &d, "v1", "datasets", name); err != nil {
		return err
	}
	if a.json {
		return a.writeJSON(d)
	}
	if err := table(a.out, description(d)); err != nil || len(d.Parts) == 0 {
		return err
	}
	fmt.Fprintln(a.out)
	return table(a.out, partRows(d))
}

// partRows describes what the samples of a tar dataset are made of.
func partRows(d api.Dataset) [][]string {
	rows := [][]string{{"PART", "SAMPLES", "SHARE", "MEAN", "LARGEST", "TOTAL"}}
	for _, part := range d.Parts {
		mean := "-"
		if part.Samples > 0 {
			mean = humanBytes(part.Bytes / part.Samples)
		}
		rows = append(rows, []string{
			printable(part.Name), grouped(part.Samples), percent(part.Samples, d.Samples), mean, humanBytes(part.MaxBytes), humanBytes(part.Bytes),
		})
	}
	return rows
}

// description is a dataset as rows of name and value.
func description(d api.Dataset) [][]string {
	state := d.State
	if d.Problem != "" {
		state += ": " + printable(d.Problem)
	}
	rows := [][]string{
		{"name", printable(d.Name)},
		{"state", state},
		{"path", printable(d.Path)},
		{"format", d.Format},
	}
	if d.Saw != "" {
		rows = append(rows, []string{"saw", printable(d.Saw)})
	}
	if d.DType != "" {
		rows = append(rows, []string{"dtype", d.DType})
	}
	rows = append(rows,
		[]string{"holds", contents(d)},
		[]string{"files", grouped(d.Files)},
		[]string{"size", fmt.Sprintf("%s (%s bytes)", humanBytes(d.Bytes), grouped(d.Bytes))},
	)
	if len(d.Classes) > 0 {
		rows = append(rows, []string{"classes", classes(d.Classes)})
	}
	if len(d.Archives) > 0 {
		rows = append(rows, []string{"archives", tally(d.Archives)})
	}
	if len(d.Indexes) > 0 {
		rows = append(rows, []string{"indexes", tally(d.Indexes)})
	}
	for _, reason := range slices.Sorted(maps.Keys(d.Skipped)) {
		rows = append(rows, []string{"skipped", leftOut(d.Format, d.Skipped[reason]) + ": " + printable(reason)})
	}
	rows = append(rows,
		[]string{"owner", fmt.Sprintf("uid %d", d.OwnerUID)},
		[]string{"added", d.AddedAt.UTC().Format(time.RFC3339)},
		[]string{"index", d.IndexID},
	)
	if d.IndexPath != "" {
		rows = append(rows, []string{"", printable(d.IndexPath)})
	}
	return rows
}

func classes(names []string) string {
	shown := make([]string, 0, classesShown)
	for _, name := range names[:min(len(names), classesShown)] {
		shown = append(shown, printable(name))
	}
	text := fmt.Sprintf("%s: %s", grouped(int64(len(names))), strings.Join(shown, ", "))
	if len(names) > classesShown {
		text += ", ..."
	}
	return text
}
