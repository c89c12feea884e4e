package object

import (
	"math/bits"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/stokerio/stoker/backend"
)

// handleWays is how many handles share one set, and so one lock and one choice
// of whom to evict.
const handleWays = 8

// evictEvery is how many insertions into a full set leave it as it is before one
// replaces its oldest handle, so that handles of files that nobody reads any more
// go in the end.
const evictEvery = 64

// handleKey says which file a handle was opened for. It is a hint only: what a
// handle is worth is decided by fstat at every use.
type handleKey struct {
	number        int64
	nameHash      uint64
	device, inode uint64
}

func keyOf(o *backend.Object) handleKey {
	return handleKey{o.Number, xxhash.Sum64(o.Name), o.Version.Device, o.Version.Inode}
}

// handle is one cached descriptor. Its fields are guarded by its set's lock,
// except fd, which does not change while refs > 0.
type handle struct {
	key  handleKey
	fd   int    // -1: the place is free
	refs int    // users; >= 0
	used uint64 // set's clock at the last acquire
	dead bool   // close at the last release
	set  *handleSet
}

type handleSet struct {
	mu    sync.Mutex
	clock uint64
	ways  []handle
}

// handleCache is a set-associative array of open descriptors. It never
// allocates after newHandleCache, and holds at most the descriptors asked for.
type handleCache struct {
	system System
	budget *Budget
	sets   []handleSet
}

// newHandleCache makes a cache of at most files descriptors; 0 or less: none.
func newHandleCache(system System, files int, budget *Budget) *handleCache {
	c := &handleCache{system: system, budget: budget}
	if files <= 0 {
		return c
	}
	ways := min(files, handleWays)
	c.sets = make([]handleSet, files/ways)
	for i := range c.sets {
		set := &c.sets[i]
		set.ways = make([]handle, ways)
		for j := range set.ways {
			set.ways[j] = handle{fd: -1, set: set}
		}
	}
	return c
}

func (c *handleCache) enabled() bool { return len(c.sets) > 0 }

func (c *handleCache) setOf(key handleKey) *handleSet {
	mixed := (uint64(key.number) ^ key.nameHash) * 0x9E3779B97F4A7C15
	index, _ := bits.Mul64(mixed, uint64(len(c.sets)))
	return &c.sets[index]
}

// acquire returns the handle for key with one more user, nil if there is none.
func (c *handleCache) acquire(key handleKey) *handle {
	set := c.setOf(key)
	set.mu.Lock()
	defer set.mu.Unlock()
	for i := range set.ways {
		h := &set.ways[i]
		if h.fd >= 0 && !h.dead && h.key == key {
			h.refs++
			set.clock++
			h.used = set.clock
			return h
		}
	}
	return nil
}

// insert gives fd to the cache and returns its handle with one user. It returns
// nil, and fd stays the caller's, if another caller has put the same file there
// meanwhile, if the budget is spent, or if there is no place: a full set gives up
// its oldest idle handle only at every 64th insertion.
//
// An epoch visits every file once, in whatever order, so of more files than
// places the least recently used is the wrong one to evict: nothing would ever be
// found, at the price of a close in cold memory each time. Keeping whichever came
// first finds places/files of them; measured, evicting always made reads of
// 100 KB files 4% slower than no cache, keeping made them faster.
func (c *handleCache) insert(key handleKey, fd int) *handle {
	set := c.setOf(key)
	set.mu.Lock()
	var victim *handle
	for i := range set.ways {
		h := &set.ways[i]
		if h.fd >= 0 && !h.dead && h.key == key {
			set.mu.Unlock()
			return nil
		}
		if h.refs == 0 && (victim == nil || h.older(victim)) {
			victim = h
		}
	}
	set.clock++
	switch {
	case victim == nil,
		victim.fd >= 0 && set.clock%evictEvery != 0,
		victim.fd < 0 && !c.budget.take():
		set.mu.Unlock()
		return nil
	}
	evicted := victim.fd
	*victim = handle{key: key, fd: fd, refs: 1, used: set.clock, set: set}
	set.mu.Unlock()
	if evicted >= 0 {
		c.system.Close(evicted)
	}
	return victim
}

// older orders free places before used ones, and those by last use.
func (h *handle) older(other *handle) bool {
	if (h.fd < 0) != (other.fd < 0) {
		return h.fd < 0
	}
	return h.used < other.used
}

// release ends one use. With drop the handle serves nobody anew and is closed
// when its last user is gone.
func (c *handleCache) release(h *handle, drop bool) {
	closing := -1
	h.set.mu.Lock()
	h.refs--
	h.dead = h.dead || drop
	if h.refs == 0 && h.dead {
		closing, h.fd, h.dead = h.fd, -1, false
	}
	h.set.mu.Unlock()
	if closing >= 0 {
		c.system.Close(closing)
		c.budget.give(1)
	}
}

// evictIdle closes every handle that nobody uses and returns how many.
func (c *handleCache) evictIdle() (closed int) {
	for i := range c.sets {
		set := &c.sets[i]
		set.mu.Lock()
		for j := range set.ways {
			if h := &set.ways[j]; h.fd >= 0 && h.refs == 0 {
				c.system.Close(h.fd)
				h.fd = -1
				closed++
			}
		}
		set.mu.Unlock()
	}
	c.budget.give(closed)
	return closed
}
