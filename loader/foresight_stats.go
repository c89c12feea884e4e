package loader

import (
	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/prefetch"
)

// describe is what foresight has done for the session, nil if nothing is read ahead for it.
func (a *sessionAhead) describe() *api.Foresight {
	if a == nil {
		return nil
	}
	a.owner.mu.Lock()
	defer a.owner.mu.Unlock()
	shown := a.shown
	return &shown
}

// describe is what was done for all sessions that there ever were.
func (f *foresight) describe() api.Foresight {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.totals
}

// show replaces what is shown of a session, and changes the totals by as much.
func (a *sessionAhead) show(m *prefetch.Metrics) {
	next := api.Foresight{
		WindowSamples: m.Depth, Fetches: m.Fetches, Failed: m.Failed,
		BroughtBytes: a.brought, FoundBytes: a.found, WastedBytes: max(0, m.UnusedBytes) + max(0, m.GapBytes) + m.HedgedBytes,
		Samples: m.Samples, OnTime: m.OnTime, Late: m.Late, Unforeseen: m.Uncovered, MissedReads: m.Missed,
		EarlySeconds: float64(m.EarlyNs) / 1e9, LateSeconds: float64(m.LateNs) / 1e9,
	}
	a.owner.mu.Lock()
	defer a.owner.mu.Unlock()
	sum, last := &a.owner.mu.totals, &a.shown
	sum.WindowSamples += next.WindowSamples - last.WindowSamples
	sum.Fetches += next.Fetches - last.Fetches
	sum.Failed += next.Failed - last.Failed
	sum.BroughtBytes += next.BroughtBytes - last.BroughtBytes
	sum.FoundBytes += next.FoundBytes - last.FoundBytes
	sum.WastedBytes += max(0, next.WastedBytes-last.WastedBytes) // a gap may turn out to be of use later
	sum.Samples += next.Samples - last.Samples
	sum.OnTime += next.OnTime - last.OnTime
	sum.Late += next.Late - last.Late
	sum.Unforeseen += next.Unforeseen - last.Unforeseen
	sum.MissedReads += next.MissedReads - last.MissedReads
	sum.EarlySeconds += next.EarlySeconds - last.EarlySeconds
	sum.LateSeconds += next.LateSeconds - last.LateSeconds
	a.shown = next
}
