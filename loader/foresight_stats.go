package loader

import (
	"slices"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/prefetch"
)

// shownForesight is what is shown of a session. It outlives the session, whose last
// figures come when its window is gone.
type shownForesight struct {
	owner *foresight
	is    api.Foresight // guarded by owner.mu
}

// describe is what foresight has done for a session, nil if nothing is read ahead for it.
func (s *shownForesight) describe() *api.Foresight {
	if s == nil {
		return nil
	}
	s.owner.mu.Lock()
	defer s.owner.mu.Unlock()
	shown := s.is
	return &shown
}

// shownOf is where the session's foresight is shown, nil if nothing is read ahead for it.
func (a *sessionAhead) shownOf() *shownForesight {
	if a == nil {
		return nil
	}
	return a.shown
}

// describe is what was done for all sessions that there ever were.
func (f *foresight) describe() api.Foresight {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.totals
}

// show replaces what is shown of a session, and changes the totals by as much.
func (a *sessionAhead) show(m *prefetch.Metrics) {
	now := api.Foresight{
		WindowSamples: m.Depth, Fetches: m.Fetches, Failed: m.Failed,
		BroughtBytes: m.MovedBytes(), FoundBytes: a.found, UsedBytes: m.UsedBytes, WastedBytes: m.WastedBytes(),
		Samples: m.Samples, OnTime: m.OnTime, Late: m.Late, Unforeseen: m.Uncovered, Gone: a.gone, MissedReads: m.Missed,
		EarlySeconds: float64(m.EarlyNs) / 1e9, LateSeconds: float64(m.LateNs) / 1e9,
	}
	a.owner.mu.Lock()
	defer a.owner.mu.Unlock()
	before := a.shown.is
	a.owner.mu.totals.Change(&before, &now)
	a.shown.is.Change(&before, &now)
}

// jobs is what was read ahead for each job that has a session open.
func (n *Node) jobs() []api.JobForesight {
	var told []api.SessionStalls
	open := map[string]bool{}
	for _, s := range n.sessions.all() {
		open[s.request.JobID] = true
		told = append(told, api.SessionStalls{ID: s.id, JobID: s.request.JobID, Foresight: s.ahead.shownOf().describe()})
	}
	n.totals.mu.Lock()
	defer n.totals.mu.Unlock()
	for i := range n.totals.mu.stalls {
		e := &n.totals.mu.stalls[i]
		if open[e.JobID] && !slices.ContainsFunc(told, func(s api.SessionStalls) bool { return s.ID == e.ID }) {
			told = append(told, api.SessionStalls{ID: e.ID, JobID: e.JobID, Foresight: e.shown.describe()})
		}
	}
	return api.JobsOf(told)
}
