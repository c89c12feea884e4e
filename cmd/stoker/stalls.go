package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/loader/api"
)

// stallsBarCells is the width of the bars of `stoker stalls`.
const stallsBarCells = 30

// filesShown is how many files of a slow batch are named.
const filesShown = 2

func (a *app) stallsCommand() *cobra.Command {
	var worst int
	command := &cobra.Command{
		Use:   "stalls [SESSION]",
		Short: "Show what trainers waited on",
		Long: fmt.Sprintf(`Show how long trainers waited for batches, on what, and which batches were the
worst, for the open sessions and the last %d that ended.

Causes: disk (reading the files), index (looking up where
samples are), order (computing which), ring (no free slot: the trainer kept its
batches too long), wake (from the batch being ready to the trainer running) and
other.

Read ahead, for each session and for each job, which is the sum of those above:
  accuracy    of the bytes that were brought from the disk ahead, the share that was used
  waste       the share that was not, and never will be; the rest waits to be read
  coverage    of the samples that were read, the share that was foreseen
  timeliness  of these, the share that was there when it was asked for
  too early   for how long those had been there, on average, and the share of them that
              was gone from the page cache again at least
  too late    of the samples that were read, the share that was still being brought, or
              about to be, and by how much on average
  window      how many samples are read ahead now`, api.StallsKept),
		Example: `  stoker stalls
  stoker stalls s-12 --json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeStalls,
		RunE: func(command *cobra.Command, args []string) error {
			return a.stalls(command.Context(), strings.Join(args, ""), worst)
		},
	}
	command.Flags().IntVar(&worst, "worst", api.WorstKept, "how many batches of each session are shown")
	a.addJSON(command)
	return command
}

// stallList is the answer of /v1/stalls.
type stallList struct {
	Sessions []api.SessionStalls `json:"sessions"`
	Jobs     []api.JobForesight  `json:"jobs"`
}

func (a *app) stalls(ctx context.Context, id string, worst int) error {
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	var list stallList
	if err := c.get(ctx, &list, "v1", "stalls"); err != nil {
		return err
	}
	if id != "" {
		if list.Sessions = ofSession(list.Sessions, id); len(list.Sessions) == 0 {
			return &failure{Code: string(api.CodeNotFound), What: "no such session", Where: "session " + id,
				Remedy: fmt.Sprintf("stoker stalls lists the open ones and the last %d that ended", api.StallsKept), exit: exitError}
		}
		list.Jobs = ofJob(list.Jobs, list.Sessions[0].JobID)
	}
	for i := range list.Sessions {
		s := &list.Sessions[i]
		s.Worst = s.Worst[:min(max(worst, 0), len(s.Worst))]
	}
	if a.json {
		return a.writeJSON(list)
	}
	return a.writeStalls(&list)
}

func ofSession(sessions []api.SessionStalls, id string) []api.SessionStalls {
	for i := range sessions {
		if sessions[i].ID == id {
			return sessions[i : i+1]
		}
	}
	return nil
}

// ofJob returns the job of that name, or none.
func ofJob(jobs []api.JobForesight, id string) []api.JobForesight {
	for i := range jobs {
		if jobs[i].JobID == id {
			return jobs[i : i+1]
		}
	}
	return []api.JobForesight{}
}

func (a *app) writeStalls(list *stallList) error {
	sessions := list.Sessions
	if len(sessions) == 0 {
		_, err := fmt.Fprintln(a.out, "no sessions yet: they appear when a training job iterates over a stoker.Dataset")
		return err
	}
	for i := range sessions {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		if err := a.writeSessionStalls(&sessions[i]); err != nil {
			return err
		}
	}
	for i := range list.Jobs {
		j := &list.Jobs[i]
		fmt.Fprintf(a.out, "\njob %s: %s\n", printable(j.JobID), counted(j.Sessions, "session", "sessions"))
		if err := a.writeForesight(&j.Foresight); err != nil {
			return err
		}
	}
	return nil
}

// writeForesight says how well a session or a job was foreseen.
func (a *app) writeForesight(f *api.Foresight) error {
	for i, line := range foreseen(f) {
		head := "  read ahead: "
		if i > 0 {
			head = strings.Repeat(" ", len(head))
		}
		if _, err := fmt.Fprintln(a.out, head+line); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) writeSessionStalls(s *api.SessionStalls) error {
	state := "open"
	if s.EndedAt != nil {
		state = "ended " + s.EndedAt.UTC().Format(time.DateTime)
	}
	job := ""
	if s.JobID != "" {
		job = ", job " + printable(s.JobID)
	}
	fmt.Fprintf(a.out, "%s: dataset %s, process %d%s, %s\n", printable(s.ID), printable(s.Dataset), s.Client.PID, job, state)
	fmt.Fprintf(a.out, "  waited %s of %s, %s of the time\n", humanSeconds(s.Stall.TotalSeconds), humanSeconds(s.WallSeconds), share(s.Share))
	if err := table(a.out, causeRows(s.Stall, a.screen)); err != nil {
		return err
	}
	if s.Foresight != nil {
		if err := a.writeForesight(s.Foresight); err != nil {
			return err
		}
	}
	if len(s.Worst) == 0 {
		return nil
	}
	which := "longest wait"
	if len(s.Worst) > 1 {
		which = fmt.Sprintf("%d longest waits", len(s.Worst))
	}
	fmt.Fprintf(a.out, "  the %s:\n", which)
	return table(a.out, worstRows(s.Worst))
}

// foreseen says in lines how well a session or a job was foreseen: what became of the bytes,
// what of the samples, and by how much they were early or late.
func foreseen(f *api.Foresight) []string {
	if f.BroughtBytes == 0 && f.Late+f.Unforeseen == 0 {
		return []string{"nothing, as nothing had to be"}
	}
	bytes := fmt.Sprintf("brought %s: accuracy %s, waste %s", humanBytes(f.BroughtBytes), share(f.Accuracy), share(f.Waste))
	if f.WindowSamples > 0 {
		bytes += fmt.Sprintf("; window %s samples", grouped(f.WindowSamples))
	}
	if f.Failed > 0 {
		bytes += fmt.Sprintf("; %s failed", counted(f.Failed, "read", "reads"))
	}
	samples := fmt.Sprintf("read %s: coverage %s, timeliness %s", counted(f.Samples, "sample", "samples"), share(f.Coverage), share(f.Timeliness))
	early, late := "too early: none", "too late: none"
	if f.OnTime > 0 {
		early = fmt.Sprintf("too early: %s before use, %s gone again", humanSeconds(f.EarlyMean()), share(f.GoneShare()))
	}
	if f.Late > 0 {
		late = fmt.Sprintf("too late: %s, by %s", share(f.LateShare()), humanSeconds(f.LateMean()))
	}
	return []string{bytes, samples, early + "; " + late}
}

// causeRows draws each cause as its part of the whole wait.
func causeRows(s api.Stall, colours bool) [][]string {
	var rows [][]string
	for i, seconds := range stallSeconds(s) {
		if seconds <= 0 || s.TotalSeconds <= 0 {
			continue
		}
		part := seconds / s.TotalSeconds
		row := []string{"", causes[i].name, humanSeconds(seconds), share(part)}
		if cells := min(int(part*stallsBarCells+0.5), stallsBarCells); cells > 0 {
			row = append(row, paint(colours, causes[i].colour, strings.Repeat("█", cells)))
		}
		rows = append(rows, row)
	}
	return rows
}

func worstRows(worst []api.SlowBatch) [][]string {
	rows := [][]string{{"", "WAIT", "EPOCH", "POSITION", "MOSTLY ON", "SLOWEST READ", "FIRST SAMPLE", "FILES"}}
	for i := range worst {
		b := &worst[i]
		rows = append(rows, []string{
			"", humanSeconds(b.Seconds), strconv.FormatInt(b.Epoch, 10), grouped(b.Position), mostly(b.Causes, b.Seconds), slowest(b.Slowest),
			orDash(b.FirstKey), fewFiles(b.Files),
		})
	}
	return rows
}

// mostly names the greatest cause with its share: "disk 93 %".
func mostly(c api.Causes, seconds float64) string {
	name, most := "", 0.0
	for i, value := range []float64{c.DiskSeconds, c.IndexSeconds, c.OrderSeconds, c.RingSeconds, c.WakeSeconds, c.TransformSeconds, c.OtherSeconds} {
		if value > most {
			name, most = causes[i].name, value
		}
	}
	if name == "" || seconds <= 0 {
		return "-"
	}
	return name + " " + share(min(most/seconds, 1))
}

func slowest(r *api.SlowRead) string {
	if r == nil {
		return "-"
	}
	return fmt.Sprintf("%s for %s of %s at %s", humanSeconds(r.Seconds), humanBytes(r.Bytes), printable(r.File), grouped(r.Offset))
}

func fewFiles(files []string) string {
	names := make([]string, 0, filesShown)
	for _, name := range files[:min(len(files), filesShown)] {
		names = append(names, printable(name))
	}
	text := strings.Join(names, ", ")
	if len(files) > filesShown {
		text += ", ..."
	}
	return orDash(text)
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return printable(text)
}

// completeStalls asks the daemon for sessions, also those that have ended.
func (a *app) completeStalls(command *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var list stallList
	a.askForCompletion(command.Context(), &list, "stalls")
	names := make([]string, 0, len(list.Sessions))
	for i := range list.Sessions {
		s := &list.Sessions[i]
		names = append(names, cobra.CompletionWithDesc(s.ID, s.Dataset+", waited "+humanSeconds(s.Stall.TotalSeconds)))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
