package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/loader/api"
)

func (a *app) datasetCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "dataset",
		Short: "Add, list, describe and forget datasets",
		Args:  cobra.NoArgs,
		RunE:  showHelp,
	}
	command.AddCommand(a.datasetAddCommand(), a.datasetListCommand(), a.datasetInfoCommand(), a.datasetRemoveCommand())
	return command
}

// datasetList is the answer of /v1/datasets.
type datasetList struct {
	Datasets []api.Dataset `json:"datasets"`
}

// completeDataset asks the daemon for names; without a daemon there are none.
func (a *app) completeDataset(command *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(command.Context(), time.Second)
	defer cancel()
	c, err := a.connect(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.close()
	var list datasetList
	if err := c.get(ctx, &list, "v1", "datasets"); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := make([]string, 0, len(list.Datasets))
	for _, d := range list.Datasets {
		names = append(names, cobra.CompletionWithDesc(d.Name, d.Format+", "+humanBytes(d.Bytes)))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
