package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/stokerio/stoker/shm"
)

// lineInterval is how often a line of progress is written where there is no
// terminal.
const lineInterval = 2 * time.Second

// How progress is shown: the values of --progress.
const (
	progressAuto  = "auto" // JSON with --json, else a bar on a terminal and lines elsewhere
	progressBar   = "bar"
	progressLines = "lines"
	progressJSON  = "json"
	progressNone  = "none"
)

var progressKinds = []string{progressAuto, progressBar, progressLines, progressJSON, progressNone}

// addProgress gives a verb its --progress.
func (a *app) addProgress(command *cobra.Command) {
	a.addChoice(command, &a.progress, "progress", progressAuto, "how progress is shown", progressKinds)
}

// progress shows how far a scan is: a bar on a terminal, a line now and then
// elsewhere, JSON lines for programs.
type progress struct {
	update func(shm.ProgressNote)
	finish func(worked bool)
}

// newProgress shows what is being done, for example "scanning".
func (a *app) newProgress(doing string) progress {
	kind := a.progress
	if kind == "" || kind == progressAuto {
		switch {
		case a.json:
			kind = progressJSON
		case a.terminal:
			kind = progressBar
		default:
			kind = progressLines
		}
	}
	switch kind {
	case progressJSON:
		out := a.err
		if a.json {
			out = a.out // one stream of JSON lines, the result last
		}
		return jsonProgress(out)
	case progressBar:
		return a.barProgress(doing)
	case progressLines:
		return a.lineProgress(doing, time.Now)
	}
	return progress{update: func(shm.ProgressNote) {}, finish: func(bool) {}}
}

func jsonProgress(out io.Writer) progress {
	encoder := json.NewEncoder(out)
	return progress{
		update: func(note shm.ProgressNote) { _ = encoder.Encode(note) }, // the result reports a broken pipe
		finish: func(bool) {},
	}
}

// bar is a scan's bar, which disappears when it is done. It counts bytes as soon
// as it is known how many there are, files while only their number is, and is a
// spinner before.
type bar struct {
	app     *app
	doing   string
	begin   time.Time
	counts  string // what drawn counts: "", "files" or "bytes"
	drawn   *progressbar.ProgressBar
	samples rate
}

func (a *app) barProgress(doing string) progress {
	b := &bar{app: a, doing: doing, begin: time.Now(), drawn: scanBar(a.err, -1, doing)}
	return progress{update: b.update, finish: func(bool) { _ = b.drawn.Clear() }}
}

// update draws; an error means that it cannot be drawn, which stops no scan.
func (b *bar) update(note shm.ProgressNote) {
	detail := b.detail(note)
	switch {
	case note.BytesTotal > 0:
		b.become("bytes", note.BytesTotal, progressbar.OptionShowBytes(true), progressbar.OptionUseIECUnits(true),
			progressbar.OptionShowCount())
		b.drawn.Describe(detail)
		_ = b.drawn.Set64(min(note.BytesDone, note.BytesTotal))
	case note.FilesTotal > 0:
		b.become("files", note.FilesTotal)
		b.drawn.Describe(detail)
		_ = b.drawn.Set64(min(note.FilesDone, note.FilesTotal))
	default:
		b.drawn.Describe(b.doing + ", " + detail)
		_ = b.drawn.Add(1)
	}
}

// become replaces the bar by one that counts something else.
func (b *bar) become(counts string, total int64, options ...progressbar.Option) {
	switch {
	case b.counts != counts:
		_ = b.drawn.Clear()
		b.counts = counts
		b.drawn = scanBar(b.app.err, total, b.doing, append(options, progressbar.OptionShowDescriptionAtLineEnd())...)
	case b.drawn.GetMax64() != total:
		b.drawn.ChangeMax64(total)
	}
}

// barWords is the room that a bar's numbers take, without the bar and the detail.
const barWords = 48

// detail tells what the bar itself does not, as far as there is room: a line that
// is broken cannot be drawn over.
func (b *bar) detail(note shm.ProgressNote) string {
	text := grouped(note.FilesDone)
	if note.FilesTotal > 0 {
		text += "/" + grouped(note.FilesTotal)
	}
	text += " files"
	var more []string
	if note.BytesTotal == 0 && note.BytesDone > 0 {
		more = append(more, humanBytes(note.BytesDone))
	}
	if note.SamplesDone > 0 {
		more = append(more, grouped(note.SamplesDone)+" samples")
		if perSecond := b.samples.add(note.SamplesDone, time.Since(b.begin)); perSecond > 0 {
			more = append(more, grouped(int64(perSecond))+"/s")
		}
	}
	room := terminalWidth(b.app.err) - barWords
	for _, word := range more {
		if len(text)+len(", ")+len(word) > room {
			break
		}
		text += ", " + word
	}
	return text
}

// terminalWidth is the width of the terminal behind out; what is none is wide.
func terminalWidth(out io.Writer) int {
	file, ok := out.(*os.File)
	if !ok {
		return topFrameWidth
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil || width < 1 {
		return topFrameWidth
	}
	return width
}

// rate is how fast a counter has grown of late: over the time since the last
// point that is at least rateWindow old.
type rate struct {
	points []ratePoint
}

type ratePoint struct {
	count int64
	at    time.Duration
}

// rateWindow is long enough to be read and short enough to be news.
const rateWindow = 3 * time.Second

// add counts up to count at a moment, and returns the rate a second, 0 at first.
func (r *rate) add(count int64, at time.Duration) float64 {
	for len(r.points) > 1 && at-r.points[1].at >= rateWindow {
		r.points = r.points[1:]
	}
	if last := len(r.points) - 1; last < 0 || at-r.points[last].at >= rateWindow/30 {
		r.points = append(r.points, ratePoint{count, at})
	}
	first := r.points[0]
	if at <= first.at {
		return 0
	}
	return float64(count-first.count) / (at - first.at).Seconds()
}

// newBar is a bar that counts steps.
func newBar(a *app, total int64, description string) *progressbar.ProgressBar {
	return drawnBar(a.err, total, description, progressbar.OptionShowCount())
}

// scanBar is a bar that draws all that it is told: the daemon says at most ten times
// a second how far it is, and each time count and description change together.
func scanBar(out io.Writer, total int64, description string, options ...progressbar.Option) *progressbar.ProgressBar {
	return drawnBar(out, total, description, append(options, progressbar.OptionThrottle(0))...)
}

func drawnBar(out io.Writer, total int64, description string, options ...progressbar.Option) *progressbar.ProgressBar {
	options = append([]progressbar.Option{
		progressbar.OptionSetWriter(out),
		progressbar.OptionSetDescription(description),
		progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(100 * time.Millisecond),
		progressbar.OptionSetSpinnerChangeInterval(0), // turn when there is news, not by a goroutine that nobody stops
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSetPredictTime(true),
	}, options...)
	return progressbar.NewOptions64(total, options...)
}

// lineProgress writes a line at most every lineInterval.
func (a *app) lineProgress(doing string, now func() time.Time) progress {
	begin := now()
	last := begin
	var bytes, samples rate
	return progress{
		update: func(note shm.ProgressNote) {
			elapsed := now().Sub(begin)
			perSecond := bytes.add(note.BytesDone, elapsed)
			samplesPerSecond := samples.add(note.SamplesDone, elapsed)
			if now().Sub(last) < lineInterval {
				return
			}
			last = now()
			fmt.Fprintln(a.err, progressLine(doing, note, perSecond, samplesPerSecond))
		},
		finish: func(bool) {},
	}
}

// progressLine is one line about a scan; parts that are not known are left out.
func progressLine(doing string, note shm.ProgressNote, bytesPerSecond, samplesPerSecond float64) string {
	var text strings.Builder
	text.WriteString(doing + ": ")
	if note.BytesTotal > 0 {
		fmt.Fprintf(&text, "%.0f %%, ", 100*float64(note.BytesDone)/float64(note.BytesTotal))
	}
	text.WriteString(ofTotal(grouped(note.FilesDone), note.FilesTotal > 0, grouped(note.FilesTotal)) + " files, ")
	text.WriteString(ofTotal(humanBytes(note.BytesDone), note.BytesTotal > 0, humanBytes(note.BytesTotal)))
	if bytesPerSecond > 0 {
		text.WriteString(" at " + humanBytes(int64(bytesPerSecond)) + "/s")
	}
	if note.SamplesDone > 0 {
		text.WriteString(", " + counted(note.SamplesDone, "sample", "samples"))
	}
	if samplesPerSecond > 0 {
		text.WriteString(" at " + grouped(int64(samplesPerSecond)) + "/s")
	}
	if left := note.BytesTotal - note.BytesDone; note.BytesTotal > 0 && left > 0 && bytesPerSecond > 0 {
		text.WriteString(", " + time.Duration(float64(left)/bytesPerSecond*float64(time.Second)).Round(time.Second).String() + " left")
	}
	return text.String()
}

func ofTotal(done string, known bool, total string) string {
	if known {
		return done + " of " + total
	}
	return done
}
