package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/loader/api"
)

// topIntervalMin is how often the daemon may be asked at most.
const topIntervalMin = 100 * time.Millisecond

// topFrameWidth is the width of a frame that is not drawn on a terminal.
const topFrameWidth = 120

// clock is what verbs that wait go by, so that tests can go by another.
type clock struct {
	now  func() time.Time
	wait func(ctx context.Context, d time.Duration) error
}

func systemClock() clock {
	return clock{now: time.Now, wait: func(ctx context.Context, d time.Duration) error {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
}

func (a *app) topCommand() *cobra.Command {
	var interval time.Duration
	var once bool
	command := &cobra.Command{
		Use:   "top",
		Short: "Watch the sessions: rates, stalls by cause, ring levels",
		Long: `Watch the open sessions, anew every --interval.

For each: samples and bytes a second, the share of bytes that came from disk and
not from the page cache, the share of time that its trainer waited and on what,
and its ring: batches that are ready, batches that the trainer holds, free slots.

A trainer that waits on disk reads faster than the storage; one that waits on ring
keeps its batches too long; one that does not wait and has a full ring is as fast
as it can be. stoker stalls tells about single batches.

Keys: s sorts by the next column, p pauses, up and down choose the session that is
described below the table, q quits. Without a terminal one frame is written.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error { return a.top(command.Context(), interval, once) },
	}
	command.Flags().DurationVar(&interval, "interval", time.Second, "time between two frames, at least 100ms")
	command.Flags().BoolVar(&once, "once", false, "write one frame, measured over one interval, and end")
	a.must(command.RegisterFlagCompletionFunc("interval", cobra.FixedCompletions([]string{"500ms", "1s", "5s"}, cobra.ShellCompDirectiveNoFileComp)))
	a.addJSON(command)
	return command
}

func (a *app) top(ctx context.Context, interval time.Duration, once bool) error {
	if interval < topIntervalMin {
		return &failure{Code: "usage", What: fmt.Sprintf("an interval of %s is too short", interval), Remedy: "give --interval 100ms or more", exit: exitUsage}
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	if a.screen && !once && !a.json {
		return a.topOnScreen(ctx, c, interval)
	}
	if !once && !a.json {
		fmt.Fprintln(a.err, "stoker: no terminal to draw on: one frame follows; --json writes one after the other")
	}
	return a.topInText(ctx, c, interval, once || !a.json)
}

// topInText writes frames as text or JSON lines. Ctrl-C is how a stream of them
// ends, and no error.
func (a *app) topInText(ctx context.Context, c *client, interval time.Duration, once bool) error {
	before, err := c.look(ctx, a.clock.now)
	if err != nil {
		return err
	}
	for {
		if err := a.clock.wait(ctx, interval); err != nil {
			return a.endOfStream(err, once)
		}
		now, err := c.look(ctx, a.clock.now)
		if err != nil {
			return a.endOfStream(err, once || ctx.Err() == nil)
		}
		if err := a.writeFrame(compare(before, now)); err != nil || once {
			return err
		}
		before = now
	}
}

func (a *app) endOfStream(err error, asked bool) error {
	if asked {
		return err
	}
	return nil
}

func (a *app) writeFrame(f frame) error {
	if a.json {
		return a.writeJSONLine(f)
	}
	_, err := fmt.Fprint(a.out, (&topView{frame: f, width: topFrameWidth}).text())
	return err
}

// look asks the daemon for its sessions.
func (c *client) look(ctx context.Context, now func() time.Time) (sight, error) {
	var s sight
	var answer sessionList
	err := errors.Join(c.get(ctx, &s.daemon, "v1", "version"), c.get(ctx, &answer, "v1", "sessions"))
	s.at, s.sessions = now(), answer.Sessions
	return s, err
}

// sessionList is the answer of /v1/sessions.
type sessionList struct {
	Sessions []api.Session `json:"sessions"`
}

// topOnScreen draws until the user quits.
func (a *app) topOnScreen(ctx context.Context, c *client, interval time.Duration) error {
	first, err := c.look(ctx, a.clock.now)
	if err != nil {
		return err
	}
	model := newTopModel(first, interval, func() (sight, error) { return c.look(ctx, a.clock.now) })
	program := tea.NewProgram(model, tea.WithContext(ctx), tea.WithInput(a.in), tea.WithOutput(a.out),
		tea.WithoutSignalHandler(), tea.WithEnvironment(a.terminalVariables()), tea.WithFPS(30))
	if _, err := program.Run(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("draw on the terminal: %w", err)
	}
	return nil
}

// terminalVariables are the environment's words about the terminal.
func (a *app) terminalVariables() []string {
	var variables []string
	for _, name := range []string{"TERM", "COLORTERM", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TERM_PROGRAM", "TMUX", "WT_SESSION", "SSH_TTY", "LANG", "LC_ALL"} {
		if value, ok := a.environment.Lookup(name); ok {
			variables = append(variables, name+"="+value)
		}
	}
	return variables
}
