package flash

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Stats is what a store has and what it did. Numbers of what was done count since the
// store was opened. To ask for it costs some microseconds a segment, however many chunks
// there are.
type Stats struct {
	Devices []DeviceStats `json:"devices"` // in the order in which they were added; those that could not be opened last
}

// DeviceStats is what a device has and what was done there. All numbers are of bytes or
// are counts, unless they say something else.
type DeviceStats struct {
	Path         string `json:"path"`
	State        string `json:"state"` // see DeviceState
	LimitBytes   int64  `json:"limit_bytes"`
	Full         bool   `json:"full"` // the file system has less room than the limit
	Segments     int    `json:"segments"`
	Retired      int    `json:"retired"` // of the segments, those to which nothing more is written
	EvictedTotal int64  `json:"evicted_total"`
	EvictedBytes int64  `json:"evicted_bytes"`

	Put     ChunkStats   `json:"put"`    // chunks that are kept until they are deleted
	Filled  ChunkStats   `json:"filled"` // copies that may be dropped
	Classes []ClassStats `json:"classes"`
	Room    Room         `json:"room"`

	Reads  ReadStats           `json:"reads"`
	Writes WriteStats          `json:"writes"`
	Syncs  Latencies           `json:"syncs"`
	Errors map[string]int64    `json:"errors"` // of the device, by what failed
	Events map[EventKind]int64 `json:"events"`
	Scrub  ScrubStats          `json:"scrub"`
}

// ChunkStats counts chunks of one kind.
type ChunkStats struct {
	Chunks int64 `json:"chunks"`
	Bytes  int64 `json:"bytes"` // of them, all: also blocks that are not there
}

func (c *ChunkStats) add(chunks, bytes int64) { c.Chunks, c.Bytes = c.Chunks+chunks, c.Bytes+bytes }

// ClassStats is a size class that has spans. Extents - Free - Chunks are being written, or
// were dropped and are not free yet.
type ClassStats struct {
	ExtentBytes int64 `json:"extent_bytes"`
	Spans       int   `json:"spans"`
	Extents     int64 `json:"extents"`
	Free        int64 `json:"free"`
	Chunks      int64 `json:"chunks"`
	Bytes       int64 `json:"bytes"` // of the chunks
}

// Room says where what a device's files take is:
//
//	UsedBytes = ChunkBytes + PaddingBytes + FreeExtentBytes + FreeSpanBytes + BusyBytes + LostBytes + OwnBytes
//
// Free extents of a class take chunks of that size only, until their span is empty; so
// padding, free extents and what is lost is what fragmentation costs.
type Room struct {
	UsedBytes       int64 `json:"used_bytes"`
	ChunkBytes      int64 `json:"chunk_bytes"`
	PaddingBytes    int64 `json:"padding_bytes"`     // extents are larger than their chunks
	FreeExtentBytes int64 `json:"free_extent_bytes"` // of spans that belong to a class
	FreeSpanBytes   int64 `json:"free_span_bytes"`   // of spans that belong to none
	BusyBytes       int64 `json:"busy_bytes"`        // being written, or dropped and not free yet
	LostBytes       int64 `json:"lost_bytes"`        // ends of spans, what nobody knows what it holds, files that are left alone
	OwnBytes        int64 `json:"own_bytes"`         // headers and ledgers
}

// ReadStats counts reads of the device's files.
type ReadStats struct {
	Reads        int64 `json:"reads"`
	Bytes        int64 `json:"bytes"`
	CheckedBytes int64 `json:"checked_bytes"` // whose CRC32C was compared, also by the scrubber
}

// WriteStats counts what was written to the device's files.
type WriteStats struct {
	Writes       int64 `json:"writes"` // of chunks, or of blocks of them
	PayloadBytes int64 `json:"payload_bytes"`
	PaddingBytes int64 `json:"padding_bytes"` // zeros up to the next page
	Records      int64 `json:"records"`
	RecordBytes  int64 `json:"record_bytes"` // counted as a page each: several of one page in one round cost less

	// Amplification is what was written for each byte of payload, at most; 0 if none was.
	Amplification float64 `json:"amplification"`
}

// Latencies is a histogram of durations.
type Latencies struct {
	Count      int64     `json:"count"`
	SumSeconds float64   `json:"sum_seconds"`
	UpTo       []float64 `json:"up_to_seconds"` // bounds of the buckets; the last bucket has none
	Buckets    []int64   `json:"buckets"`       // how many took longer than the bound before, and not longer than this one
}

// counters are what a device counts of itself.
type counters struct {
	reads, readBytes                   atomic.Int64
	writes, payloadBytes, paddingBytes atomic.Int64
	records                            atomic.Int64
	checkedBytes                       atomic.Int64
	evicted, evictedBytes              atomic.Int64
	syncs                              latencies
	live                               []liveCount // by class
	errors                             tally[string]
}

// liveCount counts the live chunks of a class; the locks of their shards are held.
type liveCount struct {
	kinds [put + 1]struct{ chunks, bytes atomic.Int64 }
}

// account adds a chunk that became live, or with -1 takes one away that is live no more.
func (x *span) account(s *slot, n int64) {
	live := &x.segment.device.counters.live[x.class].kinds[s.kind]
	live.chunks.Add(n)
	live.bytes.Add(n * int64(s.size))
}

// wrote counts payload that was written, with what fills its last page.
func (c *counters) wrote(payload int) {
	c.writes.Add(1)
	c.payloadBytes.Add(int64(payload))
	c.paddingBytes.Add(int64(-payload & (pageBytes - 1)))
}

// read counts a read of n bytes.
func (c *counters) read(n int) {
	c.reads.Add(1)
	c.readBytes.Add(int64(n))
}

// tally counts what is rare.
type tally[K comparable] struct {
	mu sync.Mutex
	m  map[K]int64
}

func (t *tally[K]) add(key K) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m == nil {
		t.m = map[K]int64{}
	}
	t.m[key]++
}

func (t *tally[K]) all() map[K]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m == nil {
		return map[K]int64{}
	}
	return maps.Clone(t.m)
}

// latencies counts durations by powers of two of microseconds.
type latencies struct {
	sum     atomic.Int64 // nanoseconds
	buckets [24]atomic.Int64
}

func (l *latencies) observe(d time.Duration) {
	l.sum.Add(int64(d))
	b := 0
	for limit := time.Microsecond; d > limit && b < len(l.buckets)-1; limit *= 2 {
		b++
	}
	l.buckets[b].Add(1)
}

func (l *latencies) stats() Latencies {
	h := Latencies{SumSeconds: time.Duration(l.sum.Load()).Seconds()}
	limit := time.Microsecond
	for b := range l.buckets {
		n := l.buckets[b].Load()
		h.Count += n
		h.Buckets = append(h.Buckets, n)
		if b < len(l.buckets)-1 {
			h.UpTo = append(h.UpTo, limit.Seconds())
		}
		limit *= 2
	}
	return h
}

// eventKey is what events are counted by.
type eventKey struct {
	device string
	kind   EventKind
}

// Stats says what the store has and did. It can be asked at any time, also of a store that
// is closed.
func (s *Store) Stats() Stats {
	all := Stats{Devices: []DeviceStats{}}
	events := s.events.all()
	for d := range s.all() {
		all.Devices = append(all.Devices, d.stats())
	}
	for key := range events {
		if !slices.ContainsFunc(all.Devices, func(d DeviceStats) bool { return d.Path == key.device }) {
			all.Devices = append(all.Devices, DeviceStats{
				Path: key.device, State: DeviceGone.String(), Classes: []ClassStats{}, Errors: map[string]int64{}, Syncs: new(latencies).stats(),
				Scrub: ScrubStats{Damaged: []ScrubDamage{}},
			})
		}
	}
	for i := range all.Devices {
		d := &all.Devices[i]
		d.Events = map[EventKind]int64{}
		for key, n := range events {
			if key.device == d.Path {
				d.Events[key.kind] = n
			}
		}
	}
	return all
}

// stats is what the device has and did.
func (d *device) stats() DeviceStats {
	c := &d.counters
	s := DeviceStats{
		Path: d.path, Classes: []ClassStats{}, State: DeviceState(d.health.state.Load()).String(), EvictedTotal: c.evicted.Load(), EvictedBytes: c.evictedBytes.Load(),
		Reads:  ReadStats{Reads: c.reads.Load(), Bytes: c.readBytes.Load(), CheckedBytes: c.checkedBytes.Load()},
		Writes: c.writeStats(), Syncs: c.syncs.stats(), Errors: c.errors.all(), Scrub: d.scrubber.stats(),
	}
	d.addRoom(&s)
	return s
}

func (c *counters) writeStats() WriteStats {
	w := WriteStats{
		Writes: c.writes.Load(), PayloadBytes: c.payloadBytes.Load(), PaddingBytes: c.paddingBytes.Load(),
		Records: c.records.Load(), RecordBytes: c.records.Load() * pageBytes,
	}
	if w.PayloadBytes > 0 {
		w.Amplification = float64(w.PayloadBytes+w.PaddingBytes+w.RecordBytes) / float64(w.PayloadBytes)
	}
	return w
}

// addRoom adds up what the device's files hold.
func (d *device) addRoom(s *DeviceStats) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.LimitBytes, s.Full = d.mu.limit, d.mu.full
	r := &s.Room
	for _, bytes := range d.kept {
		r.LostBytes += bytes
	}
	r.UsedBytes, r.FreeSpanBytes = d.mu.bytes, int64(len(d.mu.freeSpans))*d.geometry.spanBytes
	spans := int64(0) // of classes
	for c := range d.mu.classes {
		spans += int64(len(d.mu.classes[c].spans))
		d.addClass(s, uint8(c))
	}
	all := int64(0)
	for _, x := range *d.segments.Load() {
		if x == nil {
			continue
		}
		s.Segments++
		if x.retired.Load() {
			s.Retired++
		}
		all += int64(x.count())
		r.OwnBytes += headBytes
	}
	r.LostBytes += (all-spans)*d.geometry.spanBytes - r.FreeSpanBytes
}

// addClass adds up what the spans of a class hold. The lock is held.
func (d *device) addClass(s *DeviceStats, c uint8) {
	state, class, r := &d.mu.classes[c], &d.geometry.classes[c], &s.Room
	n := int64(len(state.spans))
	if n == 0 {
		return
	}
	k := ClassStats{ExtentBytes: class.bytes, Spans: len(state.spans), Extents: n * int64(class.extents)}
	for _, x := range state.spans {
		k.Free += int64(x.free)
	}
	for kind, into := range map[kind]*ChunkStats{put: &s.Put, filled: &s.Filled} {
		live := &d.counters.live[c].kinds[kind]
		chunks, bytes := live.chunks.Load(), live.bytes.Load()
		into.add(chunks, bytes)
		k.Chunks, k.Bytes = k.Chunks+chunks, k.Bytes+bytes
	}
	s.Classes = append(s.Classes, k)
	r.ChunkBytes += k.Bytes
	r.PaddingBytes += k.Chunks*class.bytes - k.Bytes
	r.FreeExtentBytes += k.Free * class.bytes
	r.BusyBytes += (k.Extents - k.Free - k.Chunks) * class.bytes
	r.LostBytes += n * (d.geometry.spanBytes - int64(class.extents)*class.bytes)
	r.OwnBytes += n * d.ledgerOf(c)
}
