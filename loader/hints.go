package loader

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/shm"
)

// The leases of hints that come without a connection.
const (
	hintLease    = 60 * time.Second
	hintLeaseMax = time.Hour
)

// The reasons for which hints end, those of api.HintReasons.
const (
	hintDeleted   = "deleted"
	hintExpired   = "lease"
	hintOrphaned  = "client"
	hintOutdated  = "dataset"
	hintShutdown  = "shutdown"
	hintUncarried = "failed"
)

// hintsOfNode is by how much all clients together may exceed what one may have.
const hintsOfNode = 4

// hintsMaking is how many hints are looked at at once: each may take some 200 MB for its
// indices meanwhile.
const hintsMaking = 2

// HintOptions bound what hints may cost. Zero values take the default given here.
type HintOptions struct {
	BytesMax   int64 // fetched for the hints of one client. Default 1 GiB
	Max        int   // hints of one client. Default 64
	IndicesMax int64 // indices of one client's hints. Default 16 Mi
}

// EnsureDefaults puts the documented defaults in place of zero values.
func (o *HintOptions) EnsureDefaults() {
	setDefault(&o.BytesMax, 1<<30)
	setDefault(&o.Max, 64)
	setDefault(&o.IndicesMax, 16<<20)
}

// hintCarrier fetches for hints: the driver of the planner.
type hintCarrier interface {
	// carry begins to fetch for a hint. Once it is over, or ended by drop, and nothing of
	// its dataset is in use any more, done is called, once.
	carry(s *hintStream, done func()) error
	// drop ends a hint that is carried. It does not wait.
	drop(s *hintStream)
}

// hints are the hints of a node.
type hints struct {
	options HintOptions
	carrier hintCarrier   // nil: nothing is fetched ahead
	making  chan struct{} // holds a value for each hint that is being looked at
	live    atomic.Int64

	mu struct {
		sync.RWMutex
		next    int64
		open    map[string]*hint
		clients map[string]*hintClient
		closed  bool
		stats   api.HintStats // of hints that have ended, but for Open
		rate    float64       // bytes/s that hints were fetched with, of late; 0: not known
	}
}

// hintClient is what one client's hints take.
type hintClient struct {
	hints          int
	bytes, indices int64
}

// hint is one hint whose lease lasts. What does not change is not guarded.
type hint struct {
	id      string
	number  int64
	kind    string
	job     string
	client  api.Client
	owner   string // of the limits
	lease   time.Duration
	created time.Time
	dataset *attached
	size    hintSize
	indices int64 // that are kept in memory
	budget  int64
	stream  *hintStream
	watched *watched

	expires time.Time   // guarded by hints.mu; zero: with the client's connection
	timer   *time.Timer // guarded by hints.mu
}

func (h *hints) init(options HintOptions) {
	h.options, h.making = options, make(chan struct{}, hintsMaking)
	h.mu.open, h.mu.clients = map[string]*hint{}, map[string]*hintClient{}
	h.mu.stats.Ended = map[string]int64{}
}

// admit counts a hint in, if its client may have it.
func (h *hints) admit(n *hint) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.closed {
		return &shm.Failure{Code: "unavailable", Where: "hints", What: "the daemon is shutting down", Remedy: "wait for the next one"}
	}
	c := h.mu.clients[n.owner]
	if c == nil {
		c = &hintClient{}
	}
	if err := h.checkLocked(c, n); err != nil {
		return err
	}
	h.mu.clients[n.owner] = c
	c.hints++
	c.bytes += n.budget
	c.indices += n.indices
	h.mu.next++
	h.mu.stats.Added++
	n.number, n.id = h.mu.next, fmt.Sprintf("h-%d", h.mu.next)
	h.mu.open[n.id] = n
	h.live.Add(1)
	return nil
}

// start starts the lease of a hint that is carried. One that ended meanwhile is dropped.
func (h *hints) start(n *hint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.open[n.id] == nil {
		h.carrier.drop(n.stream)
		return
	}
	if n.lease > 0 {
		n.expires = time.Now().Add(n.lease)
		n.timer = time.AfterFunc(n.lease, func() { h.expire(n) })
	}
}

// checkLocked holds a hint against the limits, and gives it what is left of the bytes if
// it asks for no budget.
func (h *hints) checkLocked(c *hintClient, n *hint) error {
	all := h.sumLocked()
	if err := h.checkCount(c, all); err != nil {
		return err
	}
	left, ofNode := h.options.BytesMax-c.bytes, hintsOfNode*h.options.BytesMax-all.bytes
	switch {
	case n.budget > left, left <= 0:
		return bytesFailure("bytes of the hints of one client", h.options.BytesMax, left)
	case n.budget > ofNode, ofNode <= 0:
		return bytesFailure("bytes of the hints of this daemon", hintsOfNode*h.options.BytesMax, ofNode)
	case n.indices > h.options.IndicesMax-c.indices, n.indices > hintsOfNode*h.options.IndicesMax-all.indices:
		return limitFailure("indices of hints", h.options.IndicesMax, "indices", "announce fewer at a time, or raise prefetch.indices_max")
	}
	if n.budget == 0 {
		n.budget = min(left, ofNode, n.size.most())
	}
	return nil
}

// bytesFailure refuses a hint because of what others were promised.
func bytesFailure(what string, limit, left int64) error {
	return limitFailure(what, limit, "bytes",
		fmt.Sprintf("lower budget_bytes to at most the %d that are left, end other hints, or raise prefetch.hints_bytes_max", max(0, left)))
}

// checkCount refuses one hint more of a client beside all.
func (h *hints) checkCount(c *hintClient, all hintClient) error {
	const remedy = "end those that are no longer needed, or raise prefetch.hints_max"
	if limit := h.options.Max; c.hints >= limit {
		return limitFailure("hints of one client", int64(limit), "hints", remedy)
	}
	if limit := hintsOfNode * h.options.Max; all.hints >= limit {
		return limitFailure("hints of this daemon", int64(limit), "hints", remedy)
	}
	return nil
}

// room refuses a client's hint that would be refused in the end, before work is spent
// on it.
func (h *hints) room(owner string) error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	c := h.mu.clients[owner]
	if c == nil {
		c = &hintClient{}
	}
	return h.checkCount(c, h.sumLocked())
}

func (h *hints) sumLocked() (sum hintClient) {
	for _, c := range h.mu.clients {
		sum.hints += c.hints
		sum.bytes += c.bytes
		sum.indices += c.indices
	}
	return sum
}

// expire ends a hint whose lease was not renewed.
func (h *hints) expire(n *hint) {
	h.mu.RLock()
	over := !time.Now().Before(n.expires)
	h.mu.RUnlock()
	if over { // else it was renewed meanwhile
		_, _ = h.end(n.id, hintExpired) // that it is over already is all right
	}
}

// renew lets a lease last for some time from now.
func (h *hints) renew(id string, lease time.Duration) (*hint, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.mu.open[id]
	if n == nil {
		return nil, noHint(id)
	}
	if n.lease == 0 {
		return nil, &shm.Failure{
			Code: "conflict", Where: "hint " + n.id, What: "its lease is its client's connection, and cannot be renewed",
			Remedy: "keep the connection open; or announce it over HTTP, with a lease of its own",
		}
	}
	if n.timer != nil { // else it is about to start
		n.expires = time.Now().Add(lease)
		n.timer.Reset(lease)
	}
	return n, nil
}

// find returns a hint.
func (h *hints) find(id string) (*hint, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if n := h.mu.open[id]; n != nil {
		return n, nil
	}
	return nil, noHint(id)
}

func noHint(id string) error {
	return &shm.Failure{
		Code: "not_found", Where: "hint " + clip(id), What: "no such hint: it has ended, or never was",
		Remedy: "`stoker hint ls` lists hints; announce it anew",
	}
}

// all returns the hints in order of their beginning.
func (h *hints) all() []*hint {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return slices.SortedFunc(maps.Values(h.mu.open), func(a, b *hint) int { return cmp.Compare(a.number, b.number) })
}

// end ends a hint and describes it as it was. Nothing more is fetched for it; its dataset
// is let go of once nothing of it is in use.
func (h *hints) end(id, reason string) (api.Hint, error) {
	h.mu.Lock()
	n := h.mu.open[id]
	if n == nil {
		h.mu.Unlock()
		return api.Hint{}, noHint(id)
	}
	delete(h.mu.open, id)
	h.live.Add(-1)
	if n.timer != nil {
		n.timer.Stop()
	}
	c := h.mu.clients[n.owner]
	c.bytes -= n.budget
	c.indices -= n.indices
	if c.hints--; c.hints == 0 {
		delete(h.mu.clients, n.owner)
	}
	h.accountLocked(n, reason)
	h.mu.Unlock()
	h.carrier.drop(n.stream)
	return h.describe(n), nil
}

// accountLocked keeps what a hint has done.
func (h *hints) accountLocked(n *hint, reason string) {
	p := n.stream.progress()
	h.mu.stats.Ended[reason]++
	h.mu.stats.FetchedBytes += p.fetched
	h.mu.stats.UnreadBytes += int64(float64(p.fetched) * (1 - n.watched.share(p.ready)))
	if n.stream.rate == 0 && p.fetched > 0 && p.ended.After(p.begun) {
		rate := float64(p.fetched) / p.ended.Sub(p.begun).Seconds()
		if h.mu.rate += (rate - h.mu.rate) / 4; h.mu.rate == rate/4 {
			h.mu.rate = rate // the first
		}
	}
}

// endWhere ends the hints for which is says so.
func (h *hints) endWhere(is func(*hint) bool, reason string) {
	if h.live.Load() == 0 {
		return
	}
	for _, n := range h.all() {
		if is(n) {
			_, _ = h.end(n.id, reason) // that somebody else was quicker is all right
		}
	}
}

// endOutdated ends the hints of a dataset that was removed or replaced.
func (h *hints) endOutdated(name string) {
	h.endWhere(func(n *hint) bool { return n.dataset.info.Name == name && n.dataset.isRetired() }, hintOutdated)
}

// close ends all hints and takes no more.
func (h *hints) close() {
	h.mu.Lock()
	h.mu.closed = true
	h.mu.Unlock()
	h.endWhere(func(*hint) bool { return true }, hintShutdown)
}

// stats are the counters, of open hints as well.
func (h *hints) stats() api.HintStats {
	h.mu.RLock()
	defer h.mu.RUnlock()
	stats := h.mu.stats
	stats.Open, stats.Ended = int64(len(h.mu.open)), maps.Clone(h.mu.stats.Ended)
	for _, n := range h.mu.open {
		stats.FetchedBytes += n.stream.progress().fetched
	}
	return stats
}

// read notes that what a filler filled last, of a dataset, was delivered.
func (h *hints) read(a *attached, f *filler) {
	if h.live.Load() == 0 {
		return
	}
	id := f.source.view.ID()
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, n := range h.mu.open {
		if n.dataset == a && (n.watched.files || n.stream.view.ID() == id) {
			n.watched.read(f)
		}
	}
}

// describe says how a hint stands.
func (h *hints) describe(n *hint) api.Hint {
	p, now := n.stream.progress(), time.Now()
	d := api.Hint{
		ID: n.id, Dataset: n.dataset.info.Name, Kind: n.kind, JobID: n.job, Client: n.client, CreatedAt: n.created, State: p.state, Problem: p.problem,
		Samples: n.stream.order.length, Bytes: n.size.bytes, ResidentBytes: n.size.resident, Estimated: n.size.estimated,
		BudgetBytes: n.budget, FetchedBytes: p.fetched, FailedFetches: p.failed, ReadySamples: p.ready - p.lost, ReadShare: n.watched.share(p.ready),
	}
	if d.Bytes > 0 {
		d.ResidentShare = float64(d.ResidentBytes) / float64(d.Bytes)
	}
	if p.failed > 1 {
		d.Problem = fmt.Sprintf("%d fetches failed, the first: %s", p.failed, p.problem)
	}
	left := float64(n.stream.order.length-p.ready) / float64(max(1, n.stream.order.length))
	need := int64(float64(n.size.bytes-n.size.resident) * left)
	if p.state == api.HintActive {
		d.FetchBytes = max(0, min(n.budget-p.fetched, need))
	}
	h.mu.RLock()
	if !n.expires.IsZero() {
		expires := n.expires
		d.ExpiresAt = &expires
	}
	rate := h.mu.rate
	h.mu.RUnlock()
	at, unknown := n.readyAt(now, p, need, rate)
	if unknown == "" {
		d.ReadyAt = &at
	}
	d.ReadyUnknown = unknown
	return d
}

// readyAt estimates when all of a hint is there, or says why nobody can tell.
func (n *hint) readyAt(now time.Time, p hintProgress, need int64, rate float64) (at time.Time, unknown string) {
	places, left := n.stream.order.length, n.stream.order.length-p.ready
	switch {
	case p.state == api.HintComplete:
		return p.ended, ""
	case p.state == api.HintFailed:
		return at, "it failed"
	case p.state == api.HintSpent || need > n.budget-p.fetched && !n.size.estimated:
		return at, "its budget does not cover it"
	case p.failed > 0:
		return at, "not all of it could be fetched"
	case need == 0: // the clock is for what must be fetched
		return now, ""
	case n.stream.rate > 0: // by then, unless the fetches fall behind
		paced := p.begun.Add(seconds(float64(places) / n.stream.rate))
		if p.ready == 0 || !now.After(paced) {
			return paced, ""
		}
		return now.Add(seconds(now.Sub(p.begun).Seconds() * float64(left) / float64(p.ready))), ""
	case p.ready > 0 && now.After(p.begun):
		return now.Add(seconds(now.Sub(p.begun).Seconds() * float64(left) / float64(p.ready))), ""
	case rate > 0:
		return now.Add(seconds(float64(need) / rate)), ""
	}
	return at, "nothing has been fetched for a hint yet, so no rate is known"
}

// seconds is a duration, at most a hundred years.
func seconds(s float64) time.Duration {
	return time.Duration(min(max(s, 0), 3e9) * float64(time.Second))
}

// AddHint implements api.Node.
func (n *Node) AddHint(ctx context.Context, client api.Client, request api.HintRequest) (api.Hint, error) {
	lease := hintLease
	if request.LeaseSeconds != nil {
		var err error
		if lease, err = leaseOf(*request.LeaseSeconds); err != nil {
			return api.Hint{}, apiError(err)
		}
		if *request.LeaseSeconds == 0 {
			return api.Hint{}, apiError(invalid("lease_seconds", "0", "leave it out for the default"))
		}
	}
	owner := fmt.Sprintf("uid %d %s", client.UID, client.Name)
	added, err := n.addHint(ctx, request, hintFrom{client: client, owner: owner, lease: lease})
	if err != nil {
		return api.Hint{}, apiError(err)
	}
	return added, nil
}

// leaseOf checks a lease.
func leaseOf(s float64) (time.Duration, error) {
	if s == 0 {
		return hintLease, nil
	}
	if !(s > 0 && s <= hintLeaseMax.Seconds()) {
		return 0, invalid("lease_seconds", fmt.Sprint(s), fmt.Sprintf("give more than 0 and at most %.0f", hintLeaseMax.Seconds()))
	}
	return max(seconds(s), time.Millisecond), nil
}

// Hints implements api.Node.
func (n *Node) Hints() []api.Hint {
	all := n.hints.all()
	described := make([]api.Hint, len(all))
	for i, h := range all {
		described[i] = n.hints.describe(h)
	}
	return described
}

// Hint implements api.Node.
func (n *Node) Hint(id string) (api.Hint, error) {
	h, err := n.hints.find(id)
	if err != nil {
		return api.Hint{}, apiError(err)
	}
	return n.hints.describe(h), nil
}

// RenewHint implements api.Node.
func (n *Node) RenewHint(id string, leaseSeconds float64) (api.Hint, error) {
	lease, err := leaseOf(leaseSeconds)
	if err != nil {
		return api.Hint{}, apiError(err)
	}
	h, err := n.hints.renew(id, lease)
	if err != nil {
		return api.Hint{}, apiError(err)
	}
	return n.hints.describe(h), nil
}

// EndHint implements api.Node.
func (n *Node) EndHint(id string) (api.Hint, error) {
	last, err := n.hints.end(id, hintDeleted)
	if err != nil {
		return api.Hint{}, apiError(err)
	}
	return last, nil
}
