package flashtest

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// Loss decides what of what was not made durable a crash leaves: it chooses among so many
// versions of one sector, one name or one file's size, 0 the durable one, versions-1 what
// was seen last.
type Loss func(versions int) int

// Nothing keeps nothing that was not made durable, and everything all of it, as when only
// the process is killed.
func Nothing(int) int             { return 0 }
func Everything(versions int) int { return versions - 1 }

// Some keeps what chance decides, each time with another share.
func Some(rng *rand.Rand) Loss {
	share := rng.Float64()
	return func(versions int) int {
		if rng.Float64() < share {
			return versions - 1
		}
		return rng.IntN(versions)
	}
}

// Crash returns what is found after a loss of power now. f goes on as it was. Faults and
// Before are not taken over.
func (f *Files) Crash(loss Loss) *Files {
	f.mu.Lock()
	defer f.mu.Unlock()
	left := maps.Clone(f.durable)
	for _, c := range f.journal {
		if loss(2) == 1 {
			left.apply(c)
		}
	}
	g := &Files{hollow: f.hollow, statistics: f.statistics, capacity: f.capacity, entries: entries{}}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		if n := left[name]; n != nil {
			kept := n.crash(loss)
			kept.name = name
			g.entries[name] = kept
			g.taken += kept.room.bytes()
		} else {
			g.entries[name] = nil
		}
	}
	g.durable = maps.Clone(g.entries)
	return g
}

// Copy is what is found if the process is killed now.
func (f *Files) Copy() *Files { return f.Crash(Everything) }

// crash is the file after one.
func (n *node) crash(loss Loss) *node {
	left := newNode()
	left.size = n.durableSize
	if n.size != n.durableSize && loss(2) == 1 {
		left.size = n.size
	}
	left.durableSize = left.size
	left.room = slices.Clone(n.room)
	for number, pg := range n.pages {
		left.pages[number] = &page{now: pg.now}
	}
	for _, number := range slices.Sorted(maps.Keys(n.uncertain)) {
		pg := n.pages[number]
		for i, old := range pg.old {
			if v := loss(len(old) + 1); v < len(old) {
				left.pages[number].now[i] = old[v]
			}
		}
	}
	left.truncate(left.size)
	return left
}
