package flash

import (
	"hash/maphash"
	"sync"

	"github.com/stokerio/stoker/backend"
)

// ref is where a chunk's slot is: 16 bits of extent, 8 of span, 16 of segment, 6 of
// device. Devices count from 1, so that 0 is no ref.
type ref uint64

const (
	refBits    = 46
	refMask    = 1<<refBits - 1
	maxDevices = 1<<6 - 1
)

func newRef(device int, at place) ref {
	return ref(device)<<40 | ref(at.segment)<<24 | ref(at.span)<<16 | ref(at.extent)
}

func (r ref) device() int { return int(r >> 40) }

func (r ref) place() place {
	return place{segment: uint32(r>>24) & 0xFFFF, span: uint32(r>>16) & 0xFF, extent: uint32(r) & 0xFFFF}
}

// index finds chunks by their identity: open addressing, eight bytes a cell, the
// identities themselves are in the slots. It is divided so that calls do not wait for one
// another.
type index struct {
	store  *Store
	seed   maphash.Seed // nobody outside can choose identities that collide
	shards [64]shard
}

// shard is a part of the index, and the lock of what its chunks' slots say.
type shard struct {
	mu      sync.Mutex
	cells   []cell // a power of two of them, or none
	release func() // gives their memory back
	used    int    // cells that are not empty, tombs included
	chunks  int
	writing map[backend.ChunkID]*writing // chunks that somebody writes
	_       [64]byte
}

// cell is a ref and above it 18 bits of the hash.
type cell uint64

const (
	noCell cell = 0
	tomb   cell = 1 // of device 0: no ref
)

func (i *index) init(s *Store) {
	i.store, i.seed = s, maphash.MakeSeed()
	for n := range i.shards {
		i.shards[n].writing = map[backend.ChunkID]*writing{}
	}
}

// shardOf returns the shard of a chunk and the chunk's hash.
func (i *index) shardOf(id *backend.ChunkID) (*shard, uint64) {
	hash := maphash.Bytes(i.seed, id[:])
	return &i.shards[hash>>32&uint64(len(i.shards)-1)], hash
}

func cellOf(hash uint64, r ref) cell { return cell(hash&^refMask | uint64(r)) }

// find returns the place in cells of a chunk, -1 if it is not there. The shard's lock is
// held, as for all below.
func (i *index) find(h *shard, hash uint64, id *backend.ChunkID) int {
	if len(h.cells) == 0 {
		return -1
	}
	mask := uint64(len(h.cells) - 1)
	for at := hash & mask; ; at = (at + 1) & mask {
		switch c := h.cells[at]; {
		case c == noCell:
			return -1
		case c == tomb || uint64(c)&^refMask != hash&^refMask:
		default:
			if _, s := i.store.slotOf(ref(c & refMask)); s.id == *id {
				return int(at)
			}
		}
	}
}

// lookup returns the chunk's ref, 0 if it is not there.
func (i *index) lookup(h *shard, hash uint64, id *backend.ChunkID) ref {
	if at := i.find(h, hash, id); at >= 0 {
		return ref(h.cells[at] & refMask)
	}
	return 0
}

// insert adds a chunk that is not there.
func (i *index) insert(h *shard, hash uint64, r ref) {
	if 8*(h.used+1) > 7*len(h.cells) {
		i.rebuild(h)
	}
	h.chunks++
	h.place(hash, r)
}

func (h *shard) place(hash uint64, r ref) {
	mask := uint64(len(h.cells) - 1)
	for at := hash & mask; ; at = (at + 1) & mask {
		switch h.cells[at] {
		case noCell:
			h.used++
			fallthrough
		case tomb:
			h.cells[at] = cellOf(hash, r)
			return
		}
	}
}

// rebuild makes room for more chunks and forgets the tombs.
func (i *index) rebuild(h *shard) {
	size := 16
	for 8*(h.chunks+1) > 5*size {
		size *= 2
	}
	old, release := h.cells, h.release
	h.allocate(size)
	for _, c := range old {
		if c == noCell || c == tomb {
			continue
		}
		_, s := i.store.slotOf(ref(c & refMask))
		h.place(maphash.Bytes(i.seed, s.id[:]), ref(c&refMask))
	}
	if release != nil {
		release()
	}
}

// cellsOnHeap is up to how many cells of a shard are on the heap: fewer than a page.
const cellsOnHeap = pageBytes / 8

// allocate gives a shard so many empty cells.
func (h *shard) allocate(size int) {
	h.used, h.release = 0, nil
	if size <= cellsOnHeap {
		h.cells = make([]cell, size)
		return
	}
	h.cells, h.release = offHeap[cell](size)
}

// close frees the cells: nothing is found any more.
func (i *index) close() {
	for n := range i.shards {
		h := &i.shards[n]
		h.mu.Lock()
		if h.cells = nil; h.release != nil {
			h.release()
		}
		h.release, h.used, h.chunks = nil, 0, 0
		h.mu.Unlock()
	}
}

// remove takes a chunk out that is at a place of cells; -1 is none.
func (h *shard) remove(at int) {
	if at < 0 {
		return
	}
	h.cells[at] = tomb
	h.chunks--
	if next := (at + 1) & (len(h.cells) - 1); h.cells[next] == noCell {
		h.cells[at] = noCell // no chain goes on behind it
		h.used--
	}
}
