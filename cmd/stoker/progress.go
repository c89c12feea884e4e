package main

import (
	"fmt"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/stokerio/stoker/shm"
)

// lineInterval is how often a line of progress is written where there is no
// terminal.
const lineInterval = 2 * time.Second

// progress shows how far a scan is: a bar on a terminal, a line now and then
// elsewhere, JSON lines for programs.
type progress struct {
	update func(shm.ProgressNote)
	finish func(worked bool)
}

func (a *app) newProgress() progress {
	if a.json {
		return progress{
			update: func(note shm.ProgressNote) { _ = a.writeJSONLine(note) }, // the result reports a broken pipe
			finish: func(bool) {},
		}
	}
	if a.terminal {
		return a.barProgress()
	}
	return a.lineProgress(time.Now)
}

// barProgress is a bar that disappears when it is done. While the number of files
// is not known it is a spinner.
func (a *app) barProgress() progress {
	bar := newBar(a, -1, "scanning")
	return progress{
		update: func(note shm.ProgressNote) {
			if note.FilesTotal > 0 && bar.GetMax64() != note.FilesTotal {
				bar.ChangeMax64(note.FilesTotal)
			}
			bar.Describe("scanning, " + humanBytes(note.BytesDone))
			_ = bar.Set64(note.FilesDone) // an error means that it cannot be drawn, which stops no scan
		},
		finish: func(bool) { _ = bar.Clear() },
	}
}

func newBar(a *app, total int64, description string) *progressbar.ProgressBar {
	return progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(a.err),
		progressbar.OptionSetDescription(description),
		progressbar.OptionShowCount(),
		progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetSpinnerChangeInterval(0), // turn when there is news, not by a goroutine that nobody stops
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSetPredictTime(true),
	)
}

// lineProgress writes a line at most every lineInterval.
func (a *app) lineProgress(now func() time.Time) progress {
	last := now()
	return progress{
		update: func(note shm.ProgressNote) {
			if now().Sub(last) < lineInterval {
				return
			}
			last = now()
			of := ""
			if note.FilesTotal > 0 {
				of = " of " + grouped(note.FilesTotal)
			}
			fmt.Fprintf(a.err, "scanned %s%s files, %s\n", grouped(note.FilesDone), of, humanBytes(note.BytesDone))
		},
		finish: func(bool) {},
	}
}
