package loader

import (
	"context"
	"time"

	"github.com/stokerio/stoker/loader/dataset"
)

// pacer limits how many messages a connection is served a second. A burst of one
// second's worth passes at once.
type pacer struct {
	perMessage time.Duration
	burst      time.Duration
	due        time.Time // when all messages so far would have been served at the rate
}

func newPacer(perSecond int) pacer {
	return pacer{perMessage: time.Second / time.Duration(max(perSecond, 1)), burst: time.Second}
}

// wait returns when the next message may be served; false if ctx ended first.
func (p *pacer) wait(ctx context.Context) bool {
	now := time.Now()
	if p.due.Before(now) {
		p.due = now
	}
	p.due = p.due.Add(p.perMessage)
	ahead := p.due.Sub(now) - p.burst
	if ahead <= 0 {
		return true
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(ahead):
		return true
	}
}

// progressInterval is how often a person wants to see a bar move.
const progressInterval = 100 * time.Millisecond

// paced lets a progress report through now and then, and the last one always.
func paced(report dataset.Progress) dataset.Progress {
	var last time.Time
	return func(done dataset.Done) {
		if now := time.Now(); now.Sub(last) >= progressInterval || (done.FilesTotal > 0 && done.Files == done.FilesTotal) {
			last = now
			report(done)
		}
	}
}
