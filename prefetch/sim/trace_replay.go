package sim

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/stokerio/stoker/prefetch"
)

// The policies that a trace can be replayed through.
const (
	PolicyLRU        = "lru"
	PolicySIEVE      = "sieve"
	PolicyS3FIFO     = "s3-fifo"
	PolicyNeverEvict = "never-evict"
	PolicyOPT        = "opt"
)

// replayPolicies are all of them, LRU first and OPT last: the others lie between.
var replayPolicies = []replayPolicy{
	{PolicyLRU, func(capacity int64, _ []Access) Cache { return NewLRU(capacity) }},
	{PolicySIEVE, func(capacity int64, _ []Access) Cache { return NewSIEVE(capacity) }},
	{PolicyS3FIFO, func(capacity int64, _ []Access) Cache { return NewS3FIFO(capacity) }},
	{PolicyNeverEvict, func(capacity int64, _ []Access) Cache { return NewNeverEvict(capacity) }},
	{PolicyOPT, func(capacity int64, sequence []Access) Cache { return NewOPT(capacity, sequence) }},
}

type replayPolicy struct {
	name string
	make func(capacity int64, sequence []Access) Cache
}

// ReplayPolicies are the names of all policies, LRU first and OPT last.
func ReplayPolicies() []string {
	var names []string
	for _, policy := range replayPolicies {
		names = append(names, policy.name)
	}
	return names
}

const (
	// DefaultReplayAccesses is how many accesses are replayed unless more are allowed.
	// Each costs about 80 bytes, measured with 12 accesses a chunk: 20 that are held and 12
	// of OPT, twice while it lasts until the memory of the cache before is collected, and
	// the chunks. So these cost 2.7 GB.
	DefaultReplayAccesses = 1 << 25
	// maxReplayBytes bounds the chunks of a trace, so that no sum overflows.
	maxReplayBytes = 1 << 58
	// replayStep is after how many accesses, or reads, progress is told.
	replayStep = 1 << 16
)

// ReplayCapacity is the size of a cache: a share of what the trace reads, or bytes.
type ReplayCapacity struct {
	Share float64 // (0, 1]; 0: Bytes counts
	Bytes int64
}

// The stages of a replay.
const (
	ReplayReads = "reading"   // done counts bytes of the trace; the total is not known
	ReplayPlays = "replaying" // accesses, once for each policy and capacity
)

// ReplayOptions says what to replay a trace through.
type ReplayOptions struct {
	Capacities []ReplayCapacity // at least one
	// Policies are names of ReplayPolicies; none: all. LRU and OPT always run, as the
	// measure of the others.
	Policies []string
	// First is how many accesses at the beginning are replayed; 0: all.
	First int64
	// MaxAccesses is how many accesses may be held; 0: DefaultReplayAccesses.
	MaxAccesses int64

	// Progress, which may be nil, is told now and then how far a stage is. Its error ends
	// the replay.
	Progress func(stage string, done, total int64) error
}

// ReplayTally counts accesses that found their chunk, and those that did not. Bytes are
// those asked for.
type ReplayTally struct {
	Hits      int64 `json:"hits"`
	Misses    int64 `json:"misses"`
	HitBytes  int64 `json:"hit_bytes"`
	MissBytes int64 `json:"miss_bytes"`
}

// HitRatio is the share of accesses that were hits, 0 of none.
func (t ReplayTally) HitRatio() float64 { return shareOf(t.Hits, t.Hits+t.Misses) }

// ByteRatio is the share of bytes that were hits, 0 of none.
func (t ReplayTally) ByteRatio() float64 { return shareOf(t.HitBytes, t.HitBytes+t.MissBytes) }

func shareOf(some, all int64) float64 {
	if all == 0 {
		return 0
	}
	return float64(some) / float64(all)
}

// ReplayRow is what a policy would have had.
type ReplayRow struct {
	Policy        string  `json:"policy"`
	Capacity      int64   `json:"capacity_bytes"`
	CapacityShare float64 `json:"capacity_share"` // of what the trace reads
	ReplayTally
	HitShare  float64 `json:"hit_ratio"`
	ByteShare float64 `json:"byte_hit_ratio"`
	// Way is how far the policy is from LRU (0) to OPT (1), by bytes; nil if those two are
	// equal.
	Way *float64 `json:"way_to_opt,omitempty"`
}

// ReplaySources counts what a recorded run read from where.
type ReplaySources struct {
	AccessesOf [prefetch.Sources]int64
	BytesOf    [prefetch.Sources]int64
	Waited     time.Duration // all waits together
	Waits      int64         // accesses that were waited for
}

func (s *ReplaySources) add(a *TraceAccess) {
	s.AccessesOf[a.Source]++
	s.BytesOf[a.Source] += a.Bytes
	s.Waited += min(a.Waited, 1<<62-s.Waited) // stands still before it overflows
	if a.Waited > 0 {
		s.Waits++
	}
}

// Tally is what was resident, beside all else.
func (s *ReplaySources) Tally() ReplayTally {
	t := ReplayTally{Hits: s.AccessesOf[prefetch.Resident], HitBytes: s.BytesOf[prefetch.Resident]}
	for source := prefetch.Resident + 1; source < prefetch.Sources; source++ {
		t.Misses += s.AccessesOf[source]
		t.MissBytes += s.BytesOf[source]
	}
	return t
}

// ReplaySession is what a session of the trace did.
type ReplaySession struct {
	TraceSession
	Reads   int64
	Samples int64
	Epochs  int64 // that it read something of
	ReplaySources

	epoch int64 // of its last read, less the one before its first
}

// TraceSummary is what is in a trace.
type TraceSummary struct {
	TraceHeader
	Datasets []TraceDataset
	Sessions []ReplaySession
	Reads    int64
	Samples  int64
	Accesses int64
	Length   time.Duration // until the last read
	Bytes    int64         // of the trace itself
	Torn     string        // why it stops early; empty if it does not
	Cut      bool          // it may go on, and no more was asked for
	ReplaySources
}

// ReplayReport is what policies would have made of a trace, and what was made of it.
type ReplayReport struct {
	TraceSummary
	Chunks     int64 // that were read, each counted once
	ChunkBytes int64 // of those, as far as they were ever read
	Rows       []ReplayRow
}

// What a replay is limited in.
const (
	LimitAccesses = "accesses"
	LimitBytes    = "bytes in its chunks"
)

// ReplayLimitError is the error for a trace that is too large to replay.
type ReplayLimitError struct {
	Limit int64  // how many fit
	What  string // LimitAccesses or LimitBytes
}

// Error implements error.
func (e *ReplayLimitError) Error() string {
	return fmt.Sprintf("replay trace: it has more than %d %s", e.Limit, e.What)
}

// SummarizeTrace reads a trace, in the memory of one block. A torn end is no error. The
// progress, which may be nil, is told how many bytes were read.
func SummarizeTrace(in io.Reader, progress func(bytes int64) error) (TraceSummary, error) {
	r, err := NewTraceReader(in)
	if err != nil {
		return TraceSummary{}, err
	}
	return summarize(r, progress, func(read *TraceRead) (int, error) { return len(read.Accesses), nil })
}

// summarize reads a trace until take returns an error, which is io.EOF to end it without
// one. take says how many accesses of a read count.
func summarize(r *TraceReader, progress func(bytes int64) error, take func(*TraceRead) (int, error)) (TraceSummary, error) {
	s := TraceSummary{TraceHeader: r.Header()}
	for {
		read, err := r.Next()
		var problem *TraceError
		if errors.As(err, &problem) && problem.Problem == TraceTorn {
			s.Torn = fmt.Sprintf("at byte %d: %s", problem.Offset, problem.Detail)
			err = io.EOF
		}
		if err == nil {
			err = s.take(r, read, take)
		}
		if err == nil && progress != nil && s.Reads%replayStep == 1 {
			err = progress(r.Offset())
		}
		if err != nil {
			s.Datasets = slices.Clone(r.Datasets())
			s.define(r.Sessions())
			s.Bytes = r.Offset()
			if err == io.EOF {
				err = nil
			}
			return s, err
		}
	}
}

// take counts one read. The error is io.EOF after the last that counts.
func (s *TraceSummary) take(r *TraceReader, read *TraceRead, take func(*TraceRead) (int, error)) error {
	n, err := take(read)
	if err != nil && err != io.EOF {
		return err
	}
	s.Cut = err == io.EOF
	read.Accesses = read.Accesses[:n]
	s.define(r.Sessions())
	session, samples := &s.Sessions[read.Session], read.Samples()
	if session.Reads == 0 || session.epoch != read.Epoch {
		session.Epochs++
	}
	session.epoch = read.Epoch
	session.Reads++
	session.Samples += samples
	s.Reads++
	s.Samples += samples
	s.Accesses += int64(len(read.Accesses))
	s.Length = read.At
	for i := range read.Accesses {
		s.add(&read.Accesses[i])
		session.add(&read.Accesses[i])
	}
	return err
}

// define adds sessions that are new.
func (s *TraceSummary) define(sessions []TraceSession) {
	for _, session := range sessions[len(s.Sessions):] {
		s.Sessions = append(s.Sessions, ReplaySession{TraceSession: session})
	}
}

// ReplayTrace plays the chunks of a trace, in the order in which they were read, through
// policies that never saw it. A cache holds whole chunks, each as large as it was ever
// read, and is empty at first. A torn end is no error: what is before it is replayed.
func ReplayTrace(in io.Reader, o ReplayOptions) (*ReplayReport, error) {
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("replay trace: %w", err)
	}
	r, err := NewTraceReader(in)
	if err != nil {
		return nil, err
	}
	p := &traceReplay{options: o, items: map[traceItem]int64{}}
	progress := func(bytes int64) error { return p.tell(ReplayReads, bytes, 0) }
	summary, err := summarize(r, progress, func(read *TraceRead) (int, error) { return p.take(r, read) })
	if err != nil {
		return nil, err
	}
	report := &ReplayReport{TraceSummary: summary, Chunks: int64(len(p.sizes))}
	if report.ChunkBytes, err = p.settle(); err != nil {
		return nil, err
	}
	report.Rows, err = p.play(report.ChunkBytes)
	return report, err
}

func (o *ReplayOptions) validate() error {
	if len(o.Capacities) == 0 {
		return errors.New("no capacity is given")
	}
	for _, c := range o.Capacities {
		if !(c.Share >= 0 && c.Share <= 1) || c.Bytes < 0 || (c.Share == 0) == (c.Bytes == 0) {
			return fmt.Errorf("a capacity is the share %v and %d bytes: must be one of a share in (0, 1] and at least 1 byte", c.Share, c.Bytes)
		}
	}
	for _, name := range o.Policies {
		if !slices.Contains(ReplayPolicies(), name) {
			return fmt.Errorf("policy %q is not known: there are %s", name, strings.Join(ReplayPolicies(), ", "))
		}
	}
	if o.First < 0 || o.MaxAccesses < 0 {
		return fmt.Errorf("the first %d accesses, at most %d: must not be negative", o.First, o.MaxAccesses)
	}
	return nil
}

// traceItem is a chunk of a dataset of a trace.
type traceItem struct {
	dataset int
	chunk   int64
}

// traceReplay holds the accesses of a trace.
type traceReplay struct {
	options  ReplayOptions
	items    map[traceItem]int64 // their numbers
	sizes    []int64             // of the items
	sequence []Access
	asked    []uint32 // bytes of each access
}

// take notes a read, and says how many of its accesses are within the first. The error is
// io.EOF with the last of those.
func (p *traceReplay) take(r *TraceReader, read *TraceRead) (int, error) {
	limit := p.options.MaxAccesses
	if limit == 0 {
		limit = DefaultReplayAccesses
	}
	n := len(read.Accesses)
	if first := p.options.First; first > 0 {
		n = int(min(int64(n), first-int64(len(p.sequence))))
	}
	if int64(len(p.sequence)+n) > limit {
		return 0, &ReplayLimitError{limit, LimitAccesses}
	}
	dataset := r.Sessions()[read.Session].Dataset
	for i := range read.Accesses[:n] {
		a := &read.Accesses[i]
		p.sequence = append(p.sequence, Access{Item: p.item(traceItem{dataset, a.Chunk}, a.Offset+a.Bytes)})
		p.asked = append(p.asked, uint32(a.Bytes))
	}
	if int64(len(p.sequence)) == p.options.First {
		return n, io.EOF
	}
	return n, nil
}

// item is the number of a chunk, which was read up to a byte.
func (p *traceReplay) item(chunk traceItem, end int64) int64 {
	item, known := p.items[chunk]
	if !known {
		item = int64(len(p.sizes))
		p.items[chunk] = item
		p.sizes = append(p.sizes, 1) // even an empty one has a name to hold
	}
	p.sizes[item] = max(p.sizes[item], end)
	return item
}

// settle gives all accesses the sizes of their chunks, and returns the sum of those.
func (p *traceReplay) settle() (int64, error) {
	p.items = nil
	total := int64(0)
	for _, size := range p.sizes {
		if total += size; total > maxReplayBytes {
			return 0, &ReplayLimitError{maxReplayBytes, LimitBytes}
		}
	}
	for i := range p.sequence {
		p.sequence[i].Bytes = p.sizes[p.sequence[i].Item]
	}
	return total, nil
}

// play replays all that was asked for, each capacity through each policy.
func (p *traceReplay) play(total int64) ([]ReplayRow, error) {
	var rows []ReplayRow
	policies := p.options.policies()
	work := int64(len(p.options.Capacities)*len(policies)) * int64(len(p.sequence))
	done := int64(0)
	for _, c := range p.options.Capacities {
		capacity := c.of(total)
		for _, policy := range policies {
			tally, err := p.run(policy.make(min(capacity, total), p.sequence), func(n int64) error { return p.tell(ReplayPlays, done+n, work) })
			if err != nil {
				return nil, err
			}
			done += int64(len(p.sequence))
			rows = append(rows, ReplayRow{
				Policy: policy.name, Capacity: capacity, CapacityShare: shareOf(capacity, total),
				ReplayTally: tally, HitShare: tally.HitRatio(), ByteShare: tally.ByteRatio(),
			})
		}
		setWays(rows[len(rows)-len(policies):])
	}
	return rows, nil
}

// of is a capacity in bytes, of a trace that reads chunks of so many.
func (c ReplayCapacity) of(total int64) int64 {
	if c.Share > 0 {
		return int64(c.Share * float64(total))
	}
	return c.Bytes
}

// policies are those asked for, with LRU and OPT.
func (o *ReplayOptions) policies() []replayPolicy {
	if len(o.Policies) == 0 {
		return replayPolicies
	}
	var chosen []replayPolicy
	for _, policy := range replayPolicies {
		if policy.name == PolicyLRU || policy.name == PolicyOPT || slices.Contains(o.Policies, policy.name) {
			chosen = append(chosen, policy)
		}
	}
	return chosen
}

// setWays compares the rows of one capacity, LRU first and OPT last.
func setWays(rows []ReplayRow) {
	low, high := rows[0].ByteShare, rows[len(rows)-1].ByteShare
	if high <= low {
		return
	}
	for i := range rows {
		way := (rows[i].ByteShare - low) / (high - low)
		rows[i].Way = &way
	}
}

// run plays the accesses through one cache.
func (p *traceReplay) run(c Cache, progress func(done int64) error) (ReplayTally, error) {
	var t ReplayTally
	opt, _ := c.(*OPT)
	for i, a := range p.sequence {
		if i%replayStep == 0 {
			if err := progress(int64(i)); err != nil {
				return t, err
			}
		}
		before := int64(0)
		if opt != nil {
			before = opt.HitBytes()
		}
		asked := int64(p.asked[i])
		held := asked
		if c.Access(a.Item, a.Bytes) {
			t.Hits++
		} else {
			t.Misses++
			held = 0
			if opt != nil { // it may have held a part
				held = int64(float64(asked) * (float64(opt.HitBytes()-before) / float64(a.Bytes)))
			}
		}
		t.HitBytes += held
		t.MissBytes += asked - held
	}
	return t, nil
}

func (p *traceReplay) tell(stage string, done, total int64) error {
	if p.options.Progress == nil {
		return nil
	}
	return p.options.Progress(stage, done, total)
}
