package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/stokerio/stoker/loader/api"
)

// stallBarCells is the width of the bars of `stoker top`: 10 % a cell.
const stallBarCells = 10

// topView is a frame and how to draw it.
type topView struct {
	frame    frame
	width    int
	height   int // 0: as high as needed, without what only keys change
	colours  bool
	sortedBy string
	selected string // id of the session that is described
	paused   bool
	trouble  string // why there is no news
}

// text draws the frame, as many lines as there are.
func (v *topView) text() string {
	lines := v.head()
	foot := v.foot()
	rows := v.rows()
	if v.height > 0 {
		rows = v.window(rows, v.height-len(lines)-len(foot))
	}
	lines = append(append(lines, rows...), foot...)
	for i, line := range lines {
		lines[i] = strings.TrimRight(ansi.Truncate(line, v.width, "…"), " ")
	}
	return strings.Join(lines, "\n") + "\n"
}

// head is what is above the sessions.
func (v *topView) head() []string {
	f := v.frame
	state := ""
	switch {
	case v.trouble != "":
		state = paint(v.colours, "1;31", "no news: "+printable(v.trouble)) + "   "
	case v.paused:
		state = paint(v.colours, "1;33", "paused") + "   "
	}
	first := fmt.Sprintf("%s%s   %s", state, f.At.Format(time.TimeOnly), counted(int64(len(f.Sessions)), "session", "sessions"))
	if v.sortedBy != "" {
		first += " by " + v.sortedBy
	}
	first += fmt.Sprintf("   stokerd %s, process %d", release(f.Daemon.Version, f.Daemon.Revision), f.Daemon.PID)
	all := f.Totals
	second := fmt.Sprintf("all: %s samples/s   %s/s   from disk %s   trainers wait %s of the time",
		amount(all.SamplesPerSecond), humanBytes(int64(all.bytesPerSecond())), fromDisk(all), share(all.StallShares.Total))
	return []string{first, second, ""}
}

// topColumns are the columns of the table. Where there is no room for all of them
// those with the highest drop go first; 0 stays.
var topColumns = []struct {
	title string
	width int // negative: flush left
	drop  int
}{
	{"SESSION", -10, 0}, {"DATASET", -14, 2}, {"RANK", 5, 4}, {"EPOCH", 5, 6}, {"DONE", 6, 3}, {"SAMPLES/S", 11, 0}, {"READ/S", 10, 1},
	{"DISK", 5, 5}, {"WAITS", 5, 0}, {"ON", -stallBarCells, 0}, {"RING", -ringGaugeCells, 0}, {"", -12, 7},
}

// rows are the heading and the sessions.
func (v *topView) rows() []string {
	titles := make([]string, len(topColumns))
	for i, c := range topColumns {
		titles[i] = c.title
	}
	rows := []string{paint(v.colours, "1", strings.TrimRight(v.tableRow(titles), " "))}
	if len(v.frame.Sessions) == 0 {
		return append(rows, "no sessions: they appear when a training job iterates over a stoker.Dataset")
	}
	for i := range v.frame.Sessions {
		rows = append(rows, v.row(&v.frame.Sessions[i]))
	}
	return rows
}

func (v *topView) row(s *running) string {
	a := s.Activity
	samples, bytes, disk, waits, on := "-", "-", "-", "-", strings.Repeat("·", stallBarCells)
	if a.Seconds > 0 {
		samples, bytes, disk = amount(a.SamplesPerSecond), humanBytes(int64(a.bytesPerSecond())), fromDisk(a)
		waits, on = share(a.StallShares.Total), stallBar(a.StallShares.values(), stallBarCells, v.colours)
	}
	line := v.tableRow([]string{
		printable(s.ID), printable(s.Dataset), fmt.Sprintf("%d/%d", s.Rank, s.WorldSize), strconv.FormatInt(s.Epoch, 10), done(&s.Session),
		samples, bytes, disk, waits, on, ringGauge(s.Ring.Ready, s.Ring.Held, s.Ring.Slots, v.colours),
		fmt.Sprintf("%d+%d/%d", s.Ring.Ready, s.Ring.Held, s.Ring.Slots),
	})
	if s.ID == v.selected {
		return ">" + line[1:]
	}
	return line
}

// tableRow puts cells into the columns, with a space before for the mark of the
// chosen session.
func (v *topView) tableRow(cells []string) string {
	var row strings.Builder
	droppedFrom := droppedFrom(v.width)
	for i, cell := range cells {
		if drop := topColumns[i].drop; drop > 0 && drop >= droppedFrom {
			continue
		}
		width, left := topColumns[i].width, topColumns[i].width < 0
		if left {
			width = -width
		}
		cell = ansi.Truncate(cell, width, "…")
		pad := strings.Repeat(" ", width-ansi.StringWidth(cell))
		row.WriteString(" ")
		if left {
			row.WriteString(cell + pad)
		} else {
			row.WriteString(pad + cell)
		}
	}
	return row.String()
}

// droppedFrom is the lowest drop of the columns for which a width has no room.
func droppedFrom(width int) int {
	needed, most := 0, 0
	for _, c := range topColumns {
		needed += 1 + max(c.width, -c.width)
		most = max(most, c.drop)
	}
	from := most + 1
	for ; needed > width && from > 1; from-- {
		for _, c := range topColumns {
			if c.drop == from-1 {
				needed -= 1 + max(c.width, -c.width)
			}
		}
	}
	return from
}

// fromDisk is the share of bytes that came from disk.
func fromDisk(a activity) string {
	if a.bytesPerSecond() <= 0 {
		return "-"
	}
	return share(a.DiskBytesPerSecond / a.bytesPerSecond())
}

// window shows as many rows as there is room for, the heading and the chosen one
// among them.
func (v *topView) window(rows []string, room int) []string {
	room = max(room, 2)
	if len(rows) <= room {
		return append(rows, make([]string, room-len(rows))...)
	}
	chosen := 0
	for i, s := range v.frame.Sessions {
		if s.ID == v.selected {
			chosen = i
		}
	}
	begin := min(max(chosen-(room-2), 0), len(rows)-room)
	return append(rows[:1:1], rows[1+begin:begin+room]...)
}

// foot explains, and describes the chosen session.
func (v *topView) foot() []string {
	legend := "on:"
	for _, c := range causes {
		legend += " " + paint(v.colours, c.colour, c.letter) + " " + c.name
	}
	legend += "  ring: " + paint(v.colours, "32", "█") + " ready " + paint(v.colours, "33", "▒") + " held · free"
	if v.height == 0 {
		return []string{"", legend}
	}
	foot := []string{""}
	for i := range v.frame.Sessions {
		if v.frame.Sessions[i].ID == v.selected {
			foot = append(foot, v.wrapped(sessionDetails(&v.frame.Sessions[i], v.frame.At))...)
		}
	}
	return append(foot, "", legend, paint(v.colours, "2", "q quit   s sort   p pause   ↑ ↓ choose"))
}

// wrapHeight is how high a terminal must be for lines to be broken, not cut.
const wrapHeight = 20

func (v *topView) wrapped(lines []string) []string {
	if v.height < wrapHeight || v.width < 1 {
		return lines
	}
	var short []string
	for _, line := range lines {
		short = append(short, strings.Split(ansi.Wordwrap(line, v.width, ""), "\n")...)
	}
	return short
}

// sessionDetails tells what has no column.
func sessionDetails(s *running, now time.Time) []string {
	who := fmt.Sprintf("%s: process %d", printable(s.ID), s.Client.PID)
	if s.Client.Name != "" {
		who += " (" + printable(s.Client.Name) + ")"
	}
	if s.JobID != "" {
		who += ", job " + printable(s.JobID)
	}
	who += fmt.Sprintf(", %s order, seed %d, batches of %d, %s of %s", s.Order, s.Seed, s.BatchSize, s.Transport, humanBytes(s.Ring.Bytes))
	if len(s.Columns) > 0 {
		who += ", columns " + printable(strings.Join(s.Columns, ", "))
	}
	t := s.Traffic
	since := fmt.Sprintf("in %s: %s, %s, %s from the page cache, %s from disk", now.Sub(s.StartedAt).Round(time.Second),
		counted(t.Batches, "batch", "batches"), counted(t.Samples, "sample", "samples"), humanBytes(t.PageCacheBytes), humanBytes(t.DiskBytes))
	if t.OversizedBatches > 0 {
		since += ", " + grouped(t.OversizedBatches) + " larger than a slot"
	}
	if t.CopiedBatches > 0 {
		since += ", " + grouped(t.CopiedBatches) + " copied because the trainer keeps many"
	}
	return []string{who, since, "waited " + stallWords(s.Stall)}
}

// stallWords writes out a wait: "12.5 s: disk 10.0 s, wake 1.0 s, other 1.5 s".
func stallWords(s api.Stall) string {
	text := humanSeconds(s.TotalSeconds)
	separator := ": "
	for i, seconds := range stallSeconds(s) {
		if seconds >= 0.0005 {
			text += separator + causes[i].name + " " + humanSeconds(seconds)
			separator = ", "
		}
	}
	return text
}

// stallSeconds are the seconds in the order of causes.
func stallSeconds(s api.Stall) []float64 {
	named := []float64{s.DiskSeconds, s.IndexSeconds, s.OrderSeconds, s.RingSeconds, s.WakeSeconds, s.TransformSeconds}
	other := s.TotalSeconds
	for _, seconds := range named {
		other -= seconds
	}
	return append(named, max(other, 0))
}

// done is how much of its epoch a session has consumed.
func done(s *api.Session) string {
	if s.Samples <= 0 {
		return "-"
	}
	return strconv.FormatFloat(100*float64(s.SamplesConsumed)/float64(s.Samples), 'f', 1, 64) + "%"
}

// share writes a share of 1 as "12 %", and what is there but small as "<1 %".
func share(part float64) string {
	switch {
	case part <= 0:
		return "0 %"
	case part < 0.01:
		return "<1 %"
	}
	return strconv.FormatFloat(100*part, 'f', 0, 64) + " %"
}

// amount writes a rate: with a decimal where it is small.
func amount(value float64) string {
	if value > 0 && value < 10 {
		return strconv.FormatFloat(value, 'f', 1, 64)
	}
	return grouped(int64(value + 0.5))
}
