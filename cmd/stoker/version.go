package main

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/loader/api"
)

func (a *app) versionCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of this program and of the daemon",
		Args:  cobra.NoArgs,
		RunE:  func(command *cobra.Command, _ []string) error { return a.showVersions(command) },
	}
	a.addJSON(command)
	return command
}

// clientVersion is this program's own.
type clientVersion struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Go       string `json:"go"`
}

// versions is the answer of `stoker version --json`; Daemon is null if none runs.
type versions struct {
	Client clientVersion `json:"client"`
	Daemon *api.Version  `json:"daemon"`
}

func (a *app) showVersions(command *cobra.Command) error {
	both := versions{Client: clientVersion{version, revision, runtime.Version()}}
	c, err := a.connect(command.Context())
	if err == nil {
		defer c.close()
		both.Daemon = &api.Version{}
		err = c.get(command.Context(), both.Daemon, "v1", "version")
	}
	var known *failure
	if err != nil && (!errors.As(err, &known) || known.exit != exitNotRunning) {
		return err
	}
	if err != nil {
		both.Daemon = nil // this program's version is an answer without a daemon too
	}
	if a.json {
		return a.writeJSON(both)
	}
	rows := [][]string{{"stoker", release(both.Client.Version, both.Client.Revision), both.Client.Go}}
	if both.Daemon == nil {
		rows = append(rows, []string{"stokerd", "not running"})
	} else {
		rows = append(rows, []string{"stokerd", release(both.Daemon.Version, both.Daemon.Revision), both.Daemon.Go})
	}
	return table(a.out, rows)
}

func release(version, revision string) string {
	if revision == "" {
		return printable(version)
	}
	return fmt.Sprintf("%s (%s)", printable(version), printable(revision))
}
