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
		Short: "Add, look into, check, list and forget datasets",
		Args:  cobra.NoArgs,
		RunE:  showHelp,
	}
	command.AddCommand(a.datasetAddCommand(), a.datasetListCommand(), a.datasetInfoCommand(), a.datasetPreviewCommand(),
		a.datasetLintCommand(), a.datasetRemoveCommand())
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
	var list datasetList
	a.askForCompletion(command.Context(), &list, "datasets")
	names := make([]string, 0, len(list.Datasets))
	for _, d := range list.Datasets {
		names = append(names, cobra.CompletionWithDesc(d.Name, d.Format+", "+humanBytes(d.Bytes)))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completionPatience bounds how long a shell waits for names.
const completionPatience = time.Second

// askForCompletion asks the daemon for a list. Without a daemon it stays empty: a
// shell that completes has no place for errors.
func (a *app) askForCompletion(ctx context.Context, list any, what string) {
	ctx, cancel := context.WithTimeout(ctx, completionPatience)
	defer cancel()
	c, err := a.connect(ctx)
	if err != nil {
		return
	}
	defer c.close()
	_ = c.get(ctx, list, "v1", what)
}
