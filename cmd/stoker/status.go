package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/loader/api"
)

func (a *app) statusCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "status",
		Short: "Show whether the daemon is ready, and its sessions",
		Long: `Show whether the daemon is ready, and its open sessions.

Exit code 0 if the daemon is ready, 1 if it runs but is not, 3 if it does not run.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error { return a.showStatus(command) },
	}
	a.addJSON(command)
	return command
}

// nodeStatus is the answer of `stoker status --json`.
type nodeStatus struct {
	Ready      bool           `json:"ready"`
	Reason     string         `json:"reason,omitempty"` // why not
	RuntimeDir string         `json:"runtime_dir"`
	Daemon     api.Version    `json:"daemon"`
	Datasets   map[string]int `json:"datasets"` // state -> number
	Sessions   []api.Session  `json:"sessions"`
}

func (a *app) showStatus(command *cobra.Command) error {
	c, err := a.connect(command.Context())
	if err != nil {
		return err
	}
	defer c.close()
	status, err := c.status(command.Context())
	if err != nil {
		return err
	}
	if a.json {
		err = a.writeJSON(status)
	} else {
		err = a.writeStatus(status)
	}
	if err == nil && !status.Ready {
		err = &failure{Code: string(api.CodeUnavailable), What: "stokerd is not ready", Why: status.Reason,
			Remedy: "wait a moment; its log says what it is busy with", exit: exitError}
	}
	return err
}

func (c *client) status(ctx context.Context) (nodeStatus, error) {
	status := nodeStatus{Ready: true, RuntimeDir: c.directory, Datasets: map[string]int{}}
	var problem *api.Error
	switch err := c.get(ctx, &struct{}{}, "readyz"); {
	case errors.As(err, &problem) && problem.Code == api.CodeUnavailable:
		status.Ready, status.Reason = false, problem.What
	case err != nil:
		return status, err
	}
	var datasets datasetList
	var sessions struct {
		Sessions []api.Session `json:"sessions"`
	}
	err := errors.Join(
		c.get(ctx, &status.Daemon, "v1", "version"),
		c.get(ctx, &datasets, "v1", "datasets"),
		c.get(ctx, &sessions, "v1", "sessions"),
	)
	for _, d := range datasets.Datasets {
		status.Datasets[d.State]++
	}
	status.Sessions = sessions.Sessions
	return status, err
}

func (a *app) writeStatus(status nodeStatus) error {
	state := "ready"
	if !status.Ready {
		state = "not ready: " + printable(status.Reason)
	}
	rows := [][]string{
		{"stokerd", fmt.Sprintf("%s, process %d, %s", release(status.Daemon.Version, status.Daemon.Revision), status.Daemon.PID, state)},
		{"sockets", printable(status.RuntimeDir)},
		{"datasets", fmt.Sprintf("%d ready, %d detached", status.Datasets[api.DatasetReady], status.Datasets[api.DatasetDetached])},
		{"sessions", strconv.Itoa(len(status.Sessions))},
	}
	if err := table(a.out, rows); err != nil || len(status.Sessions) == 0 {
		return err
	}
	fmt.Fprintln(a.out)
	rows = [][]string{{"SESSION", "DATASET", "PROCESS", "RANK", "EPOCH", "DONE", "BATCHES", "READ", "RING", "STALLED"}}
	for _, s := range status.Sessions {
		rows = append(rows, sessionRow(s))
	}
	return table(a.out, rows)
}

func sessionRow(s api.Session) []string {
	done := "-"
	if s.Samples > 0 {
		done = strconv.FormatFloat(100*float64(s.SamplesConsumed)/float64(s.Samples), 'f', 1, 64) + "%"
	}
	return []string{
		printable(s.ID), printable(s.Dataset), strconv.Itoa(s.Client.PID),
		fmt.Sprintf("%d/%d", s.Rank, s.WorldSize), strconv.FormatInt(s.Epoch, 10), done,
		grouped(s.Traffic.Batches), humanBytes(s.Traffic.PageCacheBytes + s.Traffic.DiskBytes),
		fmt.Sprintf("%d/%d ready", s.Ring.Ready, s.Ring.Slots), stalled(s.Stall),
	}
}

// stalled tells how long a trainer waited, and mostly on what.
func stalled(s api.Stall) string {
	cause, most := "", 0.0
	for _, candidate := range []struct {
		name    string
		seconds float64
	}{
		{"disk", s.DiskSeconds}, {"index", s.IndexSeconds}, {"order", s.OrderSeconds}, {"ring", s.RingSeconds}, {"wake", s.WakeSeconds},
		{"transform", s.TransformSeconds},
	} {
		if candidate.seconds > most {
			cause, most = candidate.name, candidate.seconds
		}
	}
	text := humanSeconds(s.TotalSeconds)
	if cause != "" {
		text += ", mostly " + cause
	}
	return text
}
