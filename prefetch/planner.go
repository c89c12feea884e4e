package prefetch

import (
	"fmt"
	"math"
	"time"
)

// Options configure a Planner. The zero value plans without a cache, without limits of
// bandwidth and with the documented defaults.
type Options struct {
	// Capacity is what the cache may hold, bytes. 0: there is none.
	Capacity int64
	// WindowBytes bounds what all windows together hold or have under way, bytes: each
	// what it wants, where that is too much evenly. Only what the next batch of a stream
	// needs, and hedges, may exceed it, see Metrics.ExcessBytes; what is under way when a
	// stream seeks or ends counts no more. Default 1 GiB.
	WindowBytes int64
	// Epsilon is the share of its time that a stream may stall by late fetches, in the
	// sense of Depth. Default 0.005.
	Epsilon float64
	// HedgeShare is the share of fetches that may be begun a second time when they are
	// late. 0: none.
	HedgeShare float64
	// Links are the bandwidths of the sources. Zero: not limited.
	Links [Sources]LinkOptions
	// Far allows fetches for the cache beyond the windows, from what is left of a link.
	Far bool
	// Cut decides between whole chunks and ranges.
	Cut CutOptions
	// ShareRanges lets streams that want the same range wait for one fetch of it, as they
	// always do for a whole chunk. The driver then keeps the bytes of a range until all
	// have used them, as a page cache does. Planning a range costs a quarter more.
	ShareRanges bool
	// MinDepth and MaxDepth bound the windows, samples. With MinDepth below 1 a stream
	// whose samples are all resident plans nothing, until Missed says otherwise.
	// Defaults 0 and 2^20.
	MinDepth, MaxDepth int64
	// MaxFlights bounds the fetches under way, hedges not counted. Default 4096.
	MaxFlights int
}

func (o *Options) ensureDefaults() {
	if o.WindowBytes <= 0 {
		o.WindowBytes = 1 << 30
	}
	if !(o.Epsilon > 0 && o.Epsilon < 1) {
		o.Epsilon = 0.005
	}
	if !(o.HedgeShare > 0 && o.HedgeShare <= 1) {
		o.HedgeShare = 0
	}
	if o.MaxDepth <= 0 {
		o.MaxDepth = 1 << 20
	}
	o.MinDepth = min(max(0, o.MinDepth), o.MaxDepth)
	if o.MaxFlights <= 0 {
		o.MaxFlights = 4096
	}
	o.Capacity = max(0, o.Capacity)
	o.Cut.ensureDefaults()
}

// Dataset is what a Planner is told of a dataset.
type Dataset struct {
	Layout Layout
	Seed   uint64  // of the hash that chooses what is kept; equal on all nodes
	Weight float64 // of its part of the cache; anything but a positive number counts as 1
	Keep   bool    // it is trained on: a part of it may stay in the cache
}

// Planner decides for all streams of a node.
type Planner struct {
	options   Options
	now       Time
	skew      Time // of the driver's clock, which went back by so much
	keeper    *Keeper
	latencies Latencies
	links     [Sources]*Link

	datasets map[DatasetID]*dataset
	jobs     map[JobID]*job
	streams  []*stream // by ID, ascending
	last     struct {
		dataset DatasetID
		job     JobID
		stream  StreamID
		fetch   FetchID
	}

	flights map[FetchID]*flight
	whole   map[Chunk]*hold   // whole chunks that windows hold or wait for
	ranges  rangeTable        // first attempts under way; of ShareRanges
	cached  map[Chunk]*hold   // chunks of the cache that windows count on
	begun   [65]ring[FetchID] // by size class, in the order of their beginning, for hedges
	fars    int               // far fetches under way
	near    int               // fetches under way that are neither hedges nor far

	held        int64 // bytes that windows hold
	promised    int64 // those that streams may always hold
	usual       int64 // those that they held of late
	pinnedBytes int64 // of the cache, for windows
	pledged     int64 // the sum of what is more for each stream: nobody else may have it

	hedging float64   // hedges that may be begun
	round   uint64    // of a choice among streams
	ables   []*stream // scratch of that

	hedgeMemos [Sources][65]hedgeMemo // by the length of the number of bytes

	farTurn  int // whose look ahead is next
	idle     []*flight
	idleHold []*hold
	scratch  scratch
	totals   Metrics
}

// dataset is a dataset whose lease lasts.
type dataset struct {
	Dataset
	id      DatasetID
	streams int
	mean    float64 // bytes a sample
}

// job is a job whose lease lasts.
type job struct {
	id      JobID
	weight  float64
	streams int
	flights int     // near fetches under way, hedges not counted
	counted uint64  // round in which its weight was counted
	totals  Metrics // of streams that ended
}

// New returns a Planner that knows nothing yet.
func New(o Options) *Planner {
	o.ensureDefaults()
	p := &Planner{
		options: o, keeper: NewKeeper(o.Capacity),
		datasets: map[DatasetID]*dataset{}, jobs: map[JobID]*job{},
		flights: map[FetchID]*flight{}, whole: map[Chunk]*hold{}, cached: map[Chunk]*hold{},
	}
	for source := range p.links {
		p.links[source] = NewLink(o.Links[source])
	}
	return p
}

// clockSkew is how far the driver's clock may go back before the planner takes the time
// that it showed before for wrong, and goes on from where it is.
const clockSkew = Time(time.Second)

// advance moves the planner's clock, which never goes back.
func (p *Planner) advance(now Time) {
	if now += p.skew; p.now-now > clockSkew {
		p.skew += p.now - now
		now = p.now
	}
	p.now = max(p.now, now)
}

// told is a time of the planner's clock as the driver's clock shows it.
func (p *Planner) told(at Time) Time {
	if at == Never {
		return Never
	}
	return at - p.skew
}

// SetCapacity changes what the cache may hold.
func (p *Planner) SetCapacity(bytes int64) { p.keeper.SetCapacity(max(0, bytes)) }

// maxKeptChunks bounds the chunks of a dataset that may stay in the cache: a bit each.
const maxKeptChunks = 1 << 36

// maxBatch bounds what is taken for one batch.
const maxBatch = 1 << 20

// AddDataset begins the lease of a dataset.
func (p *Planner) AddDataset(now Time, d Dataset) (DatasetID, error) {
	p.advance(now)
	if d.Layout == nil || d.Layout.Samples() < 0 || d.Layout.Chunks() < 0 || d.Layout.Bytes() < 0 {
		return 0, fmt.Errorf("add dataset: its layout has no samples, chunks or bytes that can be counted")
	}
	if d.Keep && d.Layout.Chunks() > maxKeptChunks {
		return 0, fmt.Errorf("add dataset: it has %d chunks, at most %d can be kept account of", d.Layout.Chunks(), int64(maxKeptChunks))
	}
	d.Weight = positive(d.Weight)
	p.last.dataset++
	added := &dataset{Dataset: d, id: p.last.dataset}
	if n := d.Layout.Samples(); n > 0 {
		added.mean = float64(d.Layout.Bytes()) / float64(n)
	}
	p.datasets[added.id] = added
	if d.Keep {
		p.keeper.Add(added.id, d.Seed, d.Layout.Chunks(), d.Layout.Bytes(), d.Weight)
	}
	return added.id, nil
}

// EndDataset ends the lease: what is kept of it is what is dropped first. Its streams
// must have ended.
func (p *Planner) EndDataset(now Time, id DatasetID) error {
	p.advance(now)
	d := p.datasets[id]
	if d == nil {
		return fmt.Errorf("end dataset %d: it is not known", id)
	}
	if d.streams > 0 {
		return fmt.Errorf("end dataset %d: %d streams read it", id, d.streams)
	}
	delete(p.datasets, id)
	if d.Keep {
		p.keeper.Remove(id)
	}
	return nil
}

// AddJob adds a job: the unit of fairness. weight is its part of a link that is too
// narrow; anything but a positive number counts as 1.
func (p *Planner) AddJob(now Time, weight float64) JobID {
	p.advance(now)
	p.last.job++
	j := &job{id: p.last.job, weight: positive(weight)}
	p.jobs[j.id] = j
	for _, link := range p.links {
		link.Job(j.id, j.weight)
		link.Demand(j.id, 0)
	}
	return j.id
}

// EndJob forgets a job. Its streams must have ended.
func (p *Planner) EndJob(now Time, id JobID) error {
	p.advance(now)
	j := p.jobs[id]
	if j == nil {
		return fmt.Errorf("end job %d: it is not known", id)
	}
	if j.streams > 0 {
		return fmt.Errorf("end job %d: it has %d streams", id, j.streams)
	}
	delete(p.jobs, id)
	for _, link := range p.links {
		link.Remove(id)
	}
	return nil
}

// positive returns a weight, 1 for what is none.
func positive(w float64) float64 {
	if w > 0 && !math.IsInf(w, 1) {
		return w
	}
	return 1
}

// Access tells of an access that no stream foresaw. If keep, the chunk counts as one that
// the cache holds: the driver stores it, or says Evicted.
func (p *Planner) Access(now Time, c Chunk, bytes int64) (keep bool) {
	p.advance(now)
	return p.keeper.Access(c, bytes)
}

// searches bounds how long one Drop looks for a chunk, in steps of the Keeper.
const searches = 16

// Drop returns the next chunk to drop from the cache; ok is false if nothing need be, or
// the search takes longer and goes on with the next call. The driver drops it, and does
// not tell of that.
func (p *Planner) Drop(now Time) (c Chunk, ok bool) {
	p.advance(now)
	for range searches {
		if c, ok = p.keeper.Drop(); ok || p.keeper.Settled() {
			break
		}
	}
	if ok {
		p.lost(c)
	}
	return c, ok
}

// Evicted tells that the cache dropped a chunk by itself: it failed, or somebody else
// removed it.
func (p *Planner) Evicted(now Time, c Chunk) {
	p.advance(now)
	p.keeper.Dropped(c)
	p.lost(c)
}

// Stored tells that the cache holds a chunk, as of an earlier run of the daemon.
func (p *Planner) Stored(now Time, c Chunk, bytes int64) {
	p.advance(now)
	p.keeper.Stored(c, bytes)
}

// Pin keeps a chunk from being named by Drop until it was unpinned as often.
func (p *Planner) Pin(c Chunk) { p.keeper.Pin(c) }

// Unpin undoes one Pin.
func (p *Planner) Unpin(c Chunk) { p.keeper.Unpin(c) }

// Holds reports whether windows need a whole chunk that the cache does not keep: one that
// is under way, or is there and must not be forgotten yet.
func (p *Planner) Holds(c Chunk) bool { return p.whole[c] != nil }

// Keeps reports whether a chunk is one that its dataset keeps, stored or not.
func (p *Planner) Keeps(c Chunk) bool { return p.keeper.Keeps(c) }

// Has reports whether the cache holds a chunk, as far as the planner was told.
func (p *Planner) Has(c Chunk) bool { return p.keeper.Has(c) }
