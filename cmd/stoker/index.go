package main

import (
	"github.com/spf13/cobra"
)

func (a *app) indexCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "index",
		Short: "Build sample indexes anew, and look into them",
		Args:  cobra.NoArgs,
		RunE:  showHelp,
	}
	command.AddCommand(a.indexBuildCommand(), a.indexInfoCommand())
	return command
}
