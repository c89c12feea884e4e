package flash

import (
	"math/bits"
	"sync/atomic"

	"github.com/stokerio/stoker/backend"
)

// What a slot stands for. It changes free -> taken -> live -> doomed -> free, and may go
// from taken and live back to free without having been doomed.
const (
	free   uint32 = iota
	taken         // somebody writes a chunk there whom nobody else knows of yet
	live          // a chunk that is found and read
	doomed        // not found any more; holds, or a record that is durable, keep the extent
)

// slot is an extent in memory: what its record says, and who uses it.
//
// state is changed under the lock of the shard of id while the slot is live or doomed, and
// under the device's lock otherwise; it is read under either, or with neither, atomically.
// id and size do not change while the slot is not free. The rest is the shard's.
type slot struct {
	id      backend.ChunkID
	size    uint32 // bytes
	holds   uint32
	state   uint32 // atomic
	blocks  uint8  // that are there
	checked uint8  // of them, those whose CRC was checked since the store was opened
	kind    kind
	flags   uint8
}

// Flags of a slot.
const (
	visited uint8 = 1 << iota // was read since the hand passed it
	bad                       // the device could not read it: its extent is not used again
	broken                    // a block is not what was stored: a put of the chunk replaces it
	fresh                     // was written and not synced since: what is read of it may be in the page cache only
)

func (s *slot) is(state uint32) bool { return atomic.LoadUint32(&s.state) == state }

func (s *slot) become(state uint32) { atomic.StoreUint32(&s.state, state) }

// span is a part of a segment whose extents are of one size class.
type span struct {
	segment *segment
	number  uint32
	class   uint8
	slots   []slot
	crcs    []uint32 // of slot i: [i*blocks, (i+1)*blocks) of its class; the shard's, as the slot

	// Guarded by the device's lock.
	unused   []uint64 // a bit for each free extent
	free     int      // how many
	from     int      // no word of unused before it has a bit
	order    int      // its place among the spans of its class
	born     int64    // when it came to its class, in bytes written
	lost     int      // extents that the device could not read
	stuck    int32    // puts that could not be moved, when that was tried last
	stuckAt  int64    // when that was, in bytes written
	draining bool     // nothing new comes here
	memory   loan     // of slots and crcs
	told     bool     // that something cannot be moved; the mover's

	puts atomic.Int32 // chunks that were put
}

// newSpan returns a span all of whose extents are free.
func newSpan(s *segment, number uint32, c uint8) *span {
	class := &s.device.geometry.classes[c]
	n := int(class.extents)
	x := &span{segment: s, number: number, class: c, free: n, unused: make([]uint64, (n+63)/64)}
	crcs := n * max(1, class.blocks)
	x.memory = s.device.slabs.lend(n*slotWords + crcWords(crcs))
	x.slots, x.crcs = x.memory.spanOf(n, crcs)
	for i := range n {
		x.unused[i/64] |= 1 << (i % 64)
	}
	return x
}

// release gives the span's memory back; nobody may know any of its slots.
func (x *span) release() {
	x.segment.device.slabs.giveBack(x.memory)
	x.slots, x.crcs, x.memory = nil, nil, loan{}
}

// take returns a free extent; there must be one. The device's lock is held.
func (x *span) take() uint32 {
	for x.unused[x.from] == 0 {
		x.from++
	}
	bit := bits.TrailingZeros64(x.unused[x.from])
	x.mark(uint32(x.from*64 + bit))
	return uint32(x.from*64 + bit)
}

// mark takes a certain extent, which must be free.
func (x *span) mark(extent uint32) {
	x.unused[extent/64] &^= 1 << (extent % 64)
	x.free--
	x.slots[extent].become(taken)
}

// giveBack makes an extent free.
func (x *span) giveBack(extent uint32) {
	x.slots[extent] = slot{}
	x.unused[extent/64] |= 1 << (extent % 64)
	x.from = min(x.from, int(extent/64))
	x.free++
}

// empty reports whether nothing is in any extent.
func (x *span) empty() bool { return x.free+x.lost == len(x.slots) }

// crcsOf are the checksums of the blocks of a slot's chunk.
func (x *span) crcsOf(extent uint32) []uint32 {
	n := len(x.crcs) / len(x.slots)
	return x.crcs[int(extent)*n : (int(extent)+1)*n]
}

// place is where an extent is.
func (x *span) place(extent uint32) place {
	return place{segment: x.segment.number, span: x.number, extent: extent}
}
