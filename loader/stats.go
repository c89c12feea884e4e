package loader

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/shm"
)

// sessionTable holds the open sessions.
type sessionTable struct {
	mu struct {
		sync.Mutex
		open map[string]*session
	}
}

// add admits a session unless a limit is reached.
func (t *sessionTable) add(s *session, limits SessionOptions) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.mu.open) >= limits.SessionsMax {
		return limitFailure("sessions of this daemon", int64(limits.SessionsMax), "sessions", "close sessions, or raise session.sessions_max")
	}
	same := 0
	for _, other := range t.mu.open {
		if other.peer.PID == s.peer.PID && s.peer.PID != 0 {
			same++
		}
	}
	if same >= limits.SessionsPerPeer {
		return limitFailure("sessions of one process", int64(limits.SessionsPerPeer), "sessions",
			"close datasets that are no longer iterated, or raise session.sessions_per_client_max")
	}
	t.mu.open[s.id] = s
	return nil
}

func (t *sessionTable) remove(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.mu.open, s.id)
}

// all returns the open sessions in the order of their start.
func (t *sessionTable) all() []*session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(maps.Values(t.mu.open), func(a, b *session) int { return cmp.Compare(a.number, b.number) })
}

// totals are the node's counters that outlive sessions.
type totals struct {
	mu struct {
		sync.Mutex
		opened  int64
		ended   map[string]int64
		errors  map[string]int64
		refused int64
		traffic api.Traffic   // of sessions that have ended
		stall   api.Stall     // of sessions that have ended
		stalls  []endedStalls // of the last sessions that have ended, in order of their end
	}
	scans scanCounters
}

// scanCounters count the work of indexing.
type scanCounters struct{ running, bytes, samples atomic.Int64 }

func (t *totals) init() {
	t.mu.ended, t.mu.errors = map[string]int64{}, map[string]int64{}
}

func (t *totals) sessionOpened() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.opened++
}

// sessionEnded keeps what a session has done.
func (t *totals) sessionEnded(last api.Session, reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.ended[reason]++
	addTraffic(&t.mu.traffic, last.Traffic)
	addStall(&t.mu.stall, last.Stall)
}

func (t *totals) refuse() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.refused++
}

func (n *Node) countError(code string) {
	n.totals.mu.Lock()
	defer n.totals.mu.Unlock()
	n.totals.mu.errors[code]++
}

func addTraffic(sum *api.Traffic, t api.Traffic) {
	sum.Batches += t.Batches
	sum.Samples += t.Samples
	sum.PageCacheBytes += t.PageCacheBytes
	sum.DiskBytes += t.DiskBytes
	sum.OversizedBatches += t.OversizedBatches
	sum.CopiedBatches += t.CopiedBatches
}

func addStall(sum *api.Stall, s api.Stall) {
	sum.TotalSeconds += s.TotalSeconds
	sum.DiskSeconds += s.DiskSeconds
	sum.IndexSeconds += s.IndexSeconds
	sum.OrderSeconds += s.OrderSeconds
	sum.RingSeconds += s.RingSeconds
	sum.WakeSeconds += s.WakeSeconds
	sum.TransformSeconds += s.TransformSeconds
}

// describe is a session as the outside sees it.
func (s *session) describe() api.Session {
	levels, geometry, waits := s.ring.Levels(), s.ring.Geometry(), s.waits()
	c, r := &s.counters, &s.request
	described := api.Session{
		ID: s.id, Dataset: r.Dataset, Format: s.dataset.info.Format, Columns: s.source.names(), IndexID: s.source.view.ID(), JobID: r.JobID,
		Client:    s.describeClient(),
		StartedAt: s.opened, Transport: r.Transport, Order: r.Order, Seed: r.Seed,
		Rank: r.Rank, WorldSize: r.WorldSize, BatchSize: r.BatchSize,
		Epoch: c.epoch.Load(), SamplesConsumed: c.consumed.Load(), Samples: s.source.view.Len(),
		Ring: api.Ring{
			Bytes: geometry.TotalBytes, SlotBytes: geometry.SlotBytes,
			Slots: int64(levels.Slots), Ready: int64(levels.Ready), Held: int64(levels.Held),
		},
		Traffic: api.Traffic{
			Batches: c.batches.Load(), Samples: c.samples.Load(), DiskBytes: c.diskBytes.Load(),
			PageCacheBytes: c.sourceBytes.Load() - c.diskBytes.Load(), OversizedBatches: c.oversized.Load(),
			CopiedBatches: min(int64(waits.Copied&(1<<62-1)), c.batches.Load()),
		},
		Stall: stallOf(waits, time.Since(s.opened)),
	}
	return described
}

func (s *session) describeClient() api.Client {
	return api.Client{PID: int(s.peer.PID), UID: s.peer.UID, Name: s.client}
}

// stallOf makes sense of what the trainer says of its waiting: no session waits
// longer than it lives, and no cause longer than the whole.
func stallOf(w shm.Waits, age time.Duration) api.Stall {
	seconds := func(ns, limit uint64) float64 { return float64(min(ns, limit)) / 1e9 }
	limit := min(w.Total, uint64(age))
	return api.Stall{
		TotalSeconds: seconds(w.Total, limit), DiskSeconds: seconds(w.Disk, limit),
		IndexSeconds: seconds(w.Index, limit), OrderSeconds: seconds(w.Order, limit),
		RingSeconds: seconds(w.Ring, limit), WakeSeconds: seconds(w.Wake, limit),
		TransformSeconds: seconds(w.Transform, limit),
	}
}

// Version implements api.Node.
func (n *Node) Version() api.Version { return n.options.Version }

// Ready implements api.Node.
func (n *Node) Ready() error {
	if n.ctx.Err() != nil {
		return &api.Error{Code: api.CodeUnavailable, What: "the daemon is shutting down", Where: "stokerd", Remedy: "wait for the next one"}
	}
	return nil
}

// Datasets implements api.Node.
func (n *Node) Datasets() []api.Dataset {
	infos := n.registry.list()
	datasets := make([]api.Dataset, len(infos))
	for i, info := range infos {
		datasets[i] = apiDataset(info)
	}
	return datasets
}

// Dataset implements api.Node.
func (n *Node) Dataset(name string) (api.Dataset, error) {
	info, err := n.registry.info(name)
	if err != nil {
		return api.Dataset{}, apiError(err)
	}
	return apiDataset(info), nil
}

// RemoveDataset implements api.Node.
func (n *Node) RemoveDataset(_ context.Context, name string) error {
	if err := n.registry.remove(name); err != nil {
		return apiError(err)
	}
	n.hints.endOutdated(name)
	n.log.Info("dataset removed", "dataset", name)
	return nil
}

// Sessions implements api.Node.
func (n *Node) Sessions() []api.Session {
	open := n.sessions.all()
	sessions := make([]api.Session, 0, len(open))
	for _, s := range open {
		if described, ok := s.describeOpen(); ok {
			sessions = append(sessions, described)
		}
	}
	return sessions
}

// Session implements api.Node.
func (n *Node) Session(id string) (api.Session, error) {
	for _, s := range n.sessions.all() {
		if s.id != id {
			continue
		}
		if described, ok := s.describeOpen(); ok {
			return described, nil
		}
	}
	return api.Session{}, &api.Error{
		Code: api.CodeNotFound, What: "no such session is open", Where: "session " + clip(id),
		Remedy: "`stoker status` lists those that are; `stoker stalls` also tells of the last that ended",
	}
}

// Stats implements api.Node.
func (n *Node) Stats() api.Stats {
	sessions := n.Sessions()
	stats := api.Stats{
		SessionsOpen: int64(len(sessions)), LeasesEnded: map[string]int64{}, Datasets: map[string]int64{}, Errors: map[string]int64{},
		Formats: map[string]int64{}, ScansRunning: n.totals.scans.running.Load(),
		ScanBytes: n.totals.scans.bytes.Load(), ScanSamples: n.totals.scans.samples.Load(), Hints: n.hints.stats(), Foresight: n.foresight.describe(), Jobs: n.jobs(),
		Traces: n.recordings.stats(), Flash: n.cache.devices(),
	}
	for _, info := range n.registry.list() {
		stats.Datasets[info.State]++
		stats.Formats[info.Format]++
	}
	t := &n.totals
	t.mu.Lock()
	defer t.mu.Unlock()
	stats.SessionsOpened, stats.Refused = t.mu.opened, t.mu.refused
	stats.Traffic, stats.Stall = t.mu.traffic, t.mu.stall
	for reason, count := range t.mu.ended {
		stats.LeasesEnded[reason] = count
	}
	for code, count := range t.mu.errors {
		stats.Errors[code] = count
	}
	for _, s := range sessions {
		addTraffic(&stats.Traffic, s.Traffic)
		addStall(&stats.Stall, s.Stall)
		stats.Rings.Bytes += s.Ring.Bytes
		stats.Rings.Slots += s.Ring.Slots
		stats.Rings.Ready += s.Ring.Ready
		stats.Rings.Held += s.Ring.Held
	}
	return stats
}

func apiDataset(info shm.DatasetInfo) api.Dataset {
	added, _ := time.Parse(time.RFC3339, info.AddedAt) // written by us
	return api.Dataset{
		Name: info.Name, Format: info.Format, Path: info.Path, State: info.State, OwnerUID: info.OwnerUID, AddedAt: added,
		IndexID: info.IndexID, Samples: info.Samples, Tokens: info.Tokens, DType: info.DType,
		Files: info.Files, Bytes: info.Bytes, Classes: info.Classes, Skipped: info.Skipped, Saw: info.Saw, Problem: info.Problem,
		Parts: apiParts(info.Parts), Archives: info.Archives, Indexes: info.Indexes, IndexPath: info.IndexPath,
	}
}

func apiParts(parts []shm.PartInfo) []api.Part {
	out := make([]api.Part, len(parts))
	for i, p := range parts {
		out[i] = api.Part(p)
	}
	return out
}

func apiError(err error) error {
	f := failureOf(err)
	return &api.Error{Code: api.Code(f.Code), What: f.What, Where: f.Where, Remedy: f.Remedy}
}
