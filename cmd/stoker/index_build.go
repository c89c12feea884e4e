package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/shm"
)

func (a *app) indexBuildCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "build NAME",
		Short: "Scan a dataset's directory again and renew its index",
		Long: `Scan a dataset's directory again and renew its index.

Shards that have not changed are taken from the index there is. It can be
interrupted: run it again and it continues. Sessions that are open keep their
index, and end with an error that says so if files under them have changed.`,
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeDataset,
		RunE:              func(command *cobra.Command, args []string) error { return a.buildIndex(command.Context(), args[0]) },
	}
	a.addProgress(command)
	a.addJSON(command)
	return command
}

func (a *app) buildIndex(ctx context.Context, name string) error {
	daemon, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer daemon.close()
	var before api.Dataset
	if err := daemon.get(ctx, &before, "v1", "datasets", name); err != nil {
		return err
	}
	session, err := dialSession(ctx, daemon.directory)
	if err != nil {
		return err
	}
	defer session.close()

	a.resumable = true
	show := a.newProgress("indexing")
	info, err := session.scan(shm.DatasetRebuild{Type: shm.TypeRebuild, Name: name}, show.update)
	show.finish(err == nil)
	if err != nil {
		return err
	}
	if a.json {
		return a.writeJSONLine(shm.DatasetAnswer{Type: shm.TypeDataset, Dataset: info})
	}
	return a.writeRebuilt(before, info)
}

// writeRebuilt tells what is in the new index, and whether it is another.
func (a *app) writeRebuilt(before api.Dataset, info shm.DatasetInfo) error {
	change := "as before"
	switch {
	case info.IndexID == before.IndexID:
	case info.Samples != before.Samples:
		change = fmt.Sprintf("before %s", counted(before.Samples, "sample", "samples"))
	default:
		change = "other than before"
	}
	_, err := fmt.Fprintf(a.out, "indexed %s: %s\n%s  index: %s, %s\n", printable(info.Name), scanned(info), details(info), info.IndexID, change)
	return err
}
