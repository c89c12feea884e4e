package sim

// Cache is a policy over a cache of some bytes, seen from outside: what is asked of it,
// in turn, and whether it was there. Each item has one size.
type Cache interface {
	// Access asks for an item and says whether the cache held it. The cache may take it
	// in, and drop others for it.
	Access(item, bytes int64) (hit bool)
}

// HitRatio plays a sequence of items of equal size through a cache and returns the
// share of hits among those from place from on; the ones before only warm the cache.
func HitRatio(c Cache, items []int64, from int) float64 {
	hits := 0
	for i, item := range items {
		if c.Access(item, 1) && i >= from {
			hits++
		}
	}
	if from >= len(items) {
		return 0
	}
	return float64(hits) / float64(len(items)-from)
}

// NeverEvict takes in what comes while there is room and never drops it (MinIO of
// Mohan et al., PVLDB 14(5)). For permuted epochs of one dataset nothing is better.
type NeverEvict struct {
	capacity, used int64
	held           map[int64]struct{}
}

// NewNeverEvict returns an empty cache of so many bytes.
func NewNeverEvict(capacity int64) *NeverEvict {
	return &NeverEvict{capacity: capacity, held: make(map[int64]struct{})}
}

// Access implements Cache.
func (c *NeverEvict) Access(item, bytes int64) bool {
	if _, hit := c.held[item]; hit {
		return true
	}
	if c.used+bytes <= c.capacity {
		c.used += bytes
		c.held[item] = struct{}{}
	}
	return false
}

// LRU drops what was not asked for the longest.
type LRU struct {
	capacity int64
	entries  entries
	recent   queue // the head is the most recent
}

// NewLRU returns an empty cache of so many bytes.
func NewLRU(capacity int64) *LRU {
	return &LRU{capacity: capacity, entries: newEntries()}
}

// Access implements Cache.
func (c *LRU) Access(item, bytes int64) bool {
	if e, hit := c.entries.index[item]; hit {
		c.entries.unlink(&c.recent, e)
		c.entries.push(&c.recent, e)
		return true
	}
	if bytes > c.capacity {
		return false
	}
	for c.recent.bytes+bytes > c.capacity {
		c.entries.drop(&c.recent, c.recent.tail)
	}
	c.entries.push(&c.recent, c.entries.add(item, bytes))
	return false
}

// SIEVE keeps items in order of arrival; a hand walks from the oldest to the newest,
// forgives what was asked for since it last passed, and drops the first that was not
// (Zhang et al., NSDI'24).
type SIEVE struct {
	capacity int64
	entries  entries
	arrived  queue // the head is the newest
	hand     int32 // where the hand stands; 0: at the oldest
}

// NewSIEVE returns an empty cache of so many bytes.
func NewSIEVE(capacity int64) *SIEVE {
	return &SIEVE{capacity: capacity, entries: newEntries()}
}

// Access implements Cache.
func (c *SIEVE) Access(item, bytes int64) bool {
	if e, hit := c.entries.index[item]; hit {
		c.entries.at(e).uses = 1
		return true
	}
	if bytes > c.capacity {
		return false
	}
	for c.arrived.bytes+bytes > c.capacity {
		c.evict()
	}
	c.entries.push(&c.arrived, c.entries.add(item, bytes))
	return false
}

func (c *SIEVE) evict() {
	e := c.hand
	if e == 0 {
		e = c.arrived.tail
	}
	for c.entries.at(e).uses > 0 {
		c.entries.at(e).uses = 0
		if e = c.entries.at(e).newer; e == 0 {
			e = c.arrived.tail
		}
	}
	c.hand = c.entries.at(e).newer
	c.entries.drop(&c.arrived, e)
}
