package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/loader/api"
)

func (a *app) datasetListCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the datasets",
		Args:    cobra.NoArgs,
		RunE:    func(command *cobra.Command, _ []string) error { return a.listDatasets(command) },
	}
	a.addJSON(command)
	return command
}

func (a *app) listDatasets(command *cobra.Command) error {
	c, err := a.connect(command.Context())
	if err != nil {
		return err
	}
	defer c.close()
	list := datasetList{}
	if err := c.get(command.Context(), &list, "v1", "datasets"); err != nil {
		return err
	}
	if a.json {
		return a.writeJSON(list)
	}
	if len(list.Datasets) == 0 {
		_, err := fmt.Fprintln(a.out, "no datasets; add one with: stoker dataset add NAME DIR")
		return err
	}
	rows := [][]string{{"NAME", "FORMAT", "STATE", "HOLDS", "SIZE", "ADDED", "PATH"}}
	for _, d := range list.Datasets {
		rows = append(rows, []string{
			printable(d.Name), d.Format, d.State, contents(d), humanBytes(d.Bytes),
			d.AddedAt.UTC().Format("2006-01-02 15:04"), printable(d.Path),
		})
	}
	return table(a.out, rows)
}

// contents counts what a dataset holds, in its format's own unit.
func contents(d api.Dataset) string {
	if d.Tokens > 0 {
		return counted(d.Tokens, "token", "tokens")
	}
	return counted(d.Samples, "sample", "samples")
}
