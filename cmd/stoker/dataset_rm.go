package main

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/loader/api"
)

func (a *app) datasetRemoveCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "rm NAME",
		Aliases: []string{"remove"},
		Short:   "Forget a dataset; its files stay",
		Long: `Forget a dataset: the daemon drops its name and index. The dataset's files are
never touched, so there is no question to confirm: adding the directory again
brings the dataset back.`,
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeDataset,
		RunE:              func(command *cobra.Command, args []string) error { return a.removeDataset(command, args[0]) },
	}
	a.addJSON(command)
	return command
}

func (a *app) removeDataset(command *cobra.Command, name string) error {
	c, err := a.connect(command.Context())
	if err != nil {
		return err
	}
	defer c.close()
	var d api.Dataset
	if err := c.get(command.Context(), &d, "v1", "datasets", name); err != nil {
		return err
	}
	if _, err := c.do(command.Context(), http.MethodDelete, []string{"v1", "datasets", name}); err != nil {
		return err
	}
	if a.json {
		return a.writeJSON(map[string]any{"removed": d})
	}
	_, err = fmt.Fprintf(a.out, "forgot %s; the files in %s are as they were\n", printable(d.Name), printable(d.Path))
	return err
}
