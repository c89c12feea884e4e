package flash

import (
	"sync"
	"unsafe"
)

// slabs lend memory off the heap for spans, in pieces: many small ones come from one
// mapping. A span of eight extents takes 640 bytes, not two mappings of a page, of which a
// process has 65,530 at most (vm.max_map_count).
type slabs struct {
	mu   sync.Mutex
	open map[int][]*slab // by words of a piece: those with a free piece
}

// slab is one mapping in pieces of equal size.
type slab struct {
	words   []uint64
	size    int      // words of a piece
	free    []uint16 // numbers of pieces
	order   int      // its place in open
	release func()
}

// loan is a piece that a slab has lent; it is all zero at first.
type loan struct {
	slab   *slab
	number uint16
}

// slabWords is how large a mapping for small pieces is: 1 MiB.
const slabWords = 1 << 20 / 8

// lend lends so many words.
func (s *slabs) lend(words int) loan {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[int][]*slab{}
	}
	all := s.open[words]
	if len(all) == 0 {
		all = append(all, newSlab(words)) // order 0
	}
	from := all[len(all)-1]
	last := len(from.free) - 1
	number := from.free[last]
	if from.free = from.free[:last]; last == 0 {
		all = all[:len(all)-1]
	}
	s.open[words] = all
	return loan{from, number}
}

func newSlab(words int) *slab {
	count := max(1, min(slabWords/words, 1<<16))
	b := &slab{size: words, free: make([]uint16, count)}
	b.words, b.release = offHeap[uint64](count * words)
	for i := range b.free {
		b.free[i] = uint16(count - 1 - i)
	}
	return b
}

// giveBack ends the loan of a piece; a slab that lends nothing is unmapped.
func (s *slabs) giveBack(p loan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := p.slab
	clear(p.words())
	all := s.open[b.size]
	if len(b.free) == 0 {
		b.order = len(all)
		all = append(all, b)
	}
	b.free = append(b.free, p.number)
	if len(b.free)*b.size == len(b.words) {
		last := len(all) - 1
		all[b.order] = all[last]
		all[b.order].order = b.order
		all[last] = nil
		all = all[:last]
		b.release()
	}
	s.open[b.size] = all
}

// words is the piece's memory.
func (p loan) words() []uint64 {
	return p.slab.words[int(p.number)*p.slab.size:][:p.slab.size]
}

// Words of a span's slots and of the checksums behind them.
const slotWords = int(unsafe.Sizeof(slot{}) / 8)

func crcWords(crcs int) int { return (crcs + 1) / 2 }

// spanOf divides a piece among the slots of a span and their checksums.
func (p loan) spanOf(slots, crcs int) ([]slot, []uint32) {
	words := p.words()
	return unsafe.Slice((*slot)(unsafe.Pointer(&words[0])), slots),
		unsafe.Slice((*uint32)(unsafe.Pointer(&words[slots*slotWords])), crcs)
}
