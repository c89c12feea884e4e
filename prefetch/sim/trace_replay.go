package sim

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/stokerio/stoker/prefetch/trace"
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
	{PolicyLRU, func(capacity int64, _ Sequence) Cache { return NewLRU(capacity) }},
	{PolicySIEVE, func(capacity int64, _ Sequence) Cache { return NewSIEVE(capacity) }},
	{PolicyS3FIFO, func(capacity int64, _ Sequence) Cache { return NewS3FIFO(capacity) }},
	{PolicyNeverEvict, func(capacity int64, _ Sequence) Cache { return NewNeverEvict(capacity) }},
	{PolicyOPT, func(capacity int64, sequence Sequence) Cache { return NewOPTOf(capacity, sequence) }},
}

type replayPolicy struct {
	name string
	make func(capacity int64, sequence Sequence) Cache
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
	// Each costs about 24 bytes, measured with 12 accesses a chunk and little garbage: 12
	// that are held, and the chunks of the list and of a cache. So these cost 1.6 GB.
	DefaultReplayAccesses = 1 << 26
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

// ReplayRow is what a policy would have had.
type ReplayRow struct {
	Policy        string  `json:"policy"`
	Capacity      int64   `json:"capacity_bytes"`
	CapacityShare float64 `json:"capacity_share"` // of what the trace reads
	trace.Tally
	HitShare  float64 `json:"hit_ratio"`
	ByteShare float64 `json:"byte_hit_ratio"`
	// Way is how far the policy is from LRU (0) to OPT (1), by bytes; nil if those two are
	// equal.
	Way *float64 `json:"way_to_opt,omitempty"`
}

// ReplayReport is what policies would have made of a trace, and what was made of it.
type ReplayReport struct {
	trace.Summary
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

// ReplayTrace plays the chunks of a trace, in the order in which they were read, through
// policies that never saw it. A cache holds whole chunks, each as large as it was ever
// read, and is empty at first. A torn end is no error: what is before it is replayed.
func ReplayTrace(in io.Reader, o ReplayOptions) (*ReplayReport, error) {
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("replay trace: %w", err)
	}
	r, err := trace.NewReader(in)
	if err != nil {
		return nil, err
	}
	p := &traceReplay{options: o, items: replayItems{rest: map[traceItem]uint32{}}}
	progress := func(bytes int64) error { return p.tell(ReplayReads, bytes, 0) }
	summary, err := trace.SummarizeReads(r, progress, func(read *trace.Read) (int, error) { return p.take(r, read) })
	if err != nil {
		return nil, err
	}
	report := &ReplayReport{Summary: summary, Chunks: int64(len(p.all.sizes))}
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

// traceReplay replays a trace.
type traceReplay struct {
	options ReplayOptions
	items   replayItems
	all     replaySequence
}

// replaySequence holds the accesses of a trace, in pages, so that it never moves.
type replaySequence struct {
	sizes []int64 // of the items
	pages []*[replayPage]replayAccess
	n     int
}

// replayPage is how many accesses are in a page.
const replayPage = 1 << 16

// replayAccess is one access. Items are chunks, numbered as they come.
type replayAccess struct {
	item  uint32
	asked uint32 // bytes
	next  uint32 // place of the next access to the item, or how many accesses there are
}

func (s *replaySequence) access(place int) *replayAccess {
	return &s.pages[place/replayPage][place%replayPage]
}

// Len implements Sequence.
func (s *replaySequence) Len() int { return s.n }

// At implements Sequence. An item is as large as it was ever read.
func (s *replaySequence) At(place int) Access {
	item := s.access(place).item
	return Access{Item: int64(item), Bytes: s.sizes[item]}
}

// Next implements Sequence.
func (s *replaySequence) Next(place int) int { return int(s.access(place).next) }

func (s *replaySequence) add(item uint32, asked int64) {
	if s.n == len(s.pages)*replayPage {
		s.pages = append(s.pages, new([replayPage]replayAccess))
	}
	*s.access(s.n) = replayAccess{item: item, asked: uint32(asked)}
	s.n++
}

// link finds the next access to each item.
func (s *replaySequence) link() {
	last := make([]uint32, len(s.sizes))
	for item := range last {
		last[item] = uint32(s.n)
	}
	for place := s.n - 1; place >= 0; place-- {
		a := s.access(place)
		a.next, last[a.item] = last[a.item], uint32(place)
	}
}

// take notes a read, and says how many of its accesses are within the first. The error is
// io.EOF with the last of those.
func (p *traceReplay) take(r *trace.Reader, read *trace.Read) (int, error) {
	limit := p.options.MaxAccesses
	if limit == 0 {
		limit = DefaultReplayAccesses
	}
	limit = min(limit, math.MaxInt32)
	n := len(read.Accesses)
	if first := p.options.First; first > 0 {
		n = int(min(int64(n), first-int64(p.all.n)))
	}
	if int64(p.all.n+n) > limit {
		return 0, &ReplayLimitError{limit, LimitAccesses}
	}
	dataset := r.Sessions()[read.Session].Dataset
	for i := range read.Accesses[:n] {
		a := &read.Accesses[i]
		p.all.add(p.item(traceItem{dataset, a.Chunk}, a.Offset+a.Bytes), a.Bytes)
	}
	if int64(p.all.n) == p.options.First {
		return n, io.EOF
	}
	return n, nil
}

// item is the number of a chunk, which was read up to a byte.
func (p *traceReplay) item(chunk traceItem, end int64) uint32 {
	item, known := p.items.find(chunk)
	if !known {
		item = uint32(len(p.all.sizes))
		p.items.add(chunk, item, p.all.n)
		p.all.sizes = append(p.all.sizes, 1) // even an empty one has a name to hold
	}
	p.all.sizes[item] = max(p.all.sizes[item], end)
	return item
}

// replayListed is how many places lists may have before anything was read.
const replayListed = 1 << 21

// replayItems are the numbers of chunks. Chunks are mostly numbered through, and are
// then found in a list; others, which a hostile trace may have, in a map.
type replayItems struct {
	lists  [][]uint32 // of each dataset: the item of each chunk and 1, 0 if there is none
	listed int64      // places of all lists
	rest   map[traceItem]uint32
}

func (i *replayItems) find(chunk traceItem) (item uint32, known bool) {
	if chunk.dataset < len(i.lists) && chunk.chunk < int64(len(i.lists[chunk.dataset])) {
		if item := i.lists[chunk.dataset][chunk.chunk]; item > 0 {
			return item - 1, true
		}
	}
	item, known = i.rest[chunk]
	return item, known
}

// add adds a chunk after so many accesses: lists are no longer than is worth it for those.
func (i *replayItems) add(chunk traceItem, item uint32, accesses int) {
	for len(i.lists) <= chunk.dataset {
		i.lists = append(i.lists, nil)
	}
	list := &i.lists[chunk.dataset]
	if missing := chunk.chunk + 1 - int64(len(*list)); missing > 0 {
		if i.listed+missing > replayListed+2*int64(accesses) {
			i.rest[chunk] = item
			return
		}
		*list = append(*list, make([]uint32, missing)...)
		i.listed += missing
	}
	(*list)[chunk.chunk] = item + 1
}

// settle looks ahead from each access, and returns the sum of the sizes of all chunks.
func (p *traceReplay) settle() (int64, error) {
	p.items = replayItems{}
	total := int64(0)
	for _, size := range p.all.sizes {
		if total += size; total > maxReplayBytes {
			return 0, &ReplayLimitError{maxReplayBytes, LimitBytes}
		}
	}
	p.all.link()
	return total, nil
}

// play replays all that was asked for, each capacity through each policy.
func (p *traceReplay) play(total int64) ([]ReplayRow, error) {
	var rows []ReplayRow
	policies := p.options.policies()
	work := int64(len(p.options.Capacities)*len(policies)) * int64(p.all.n)
	done := int64(0)
	for _, c := range p.options.Capacities {
		capacity := c.of(total)
		for _, policy := range policies {
			tally, err := p.run(policy.make(min(capacity, total), &p.all), func(n int64) error { return p.tell(ReplayPlays, done+n, work) })
			if err != nil {
				return nil, err
			}
			done += int64(p.all.n)
			rows = append(rows, ReplayRow{
				Policy: policy.name, Capacity: capacity, CapacityShare: trace.Share(capacity, total),
				Tally: tally, HitShare: tally.HitRatio(), ByteShare: tally.ByteRatio(),
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
func (p *traceReplay) run(c Cache, progress func(done int64) error) (trace.Tally, error) {
	var t trace.Tally
	opt, _ := c.(*OPT)
	for i := range p.all.n {
		a := p.all.At(i)
		if i%replayStep == 0 {
			if err := progress(int64(i)); err != nil {
				return t, err
			}
		}
		before := int64(0)
		if opt != nil {
			before = opt.HitBytes()
		}
		asked := int64(p.all.access(i).asked)
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
