package sim

import (
	"fmt"
	"math/bits"
)

// Access is one access of a sequence.
type Access struct{ Item, Bytes int64 }

// OPT is what foresight could reach: Belady's rule with bypass. It keeps what is used
// soonest, and does not take in what is used later than all it holds. It is built from
// the whole sequence and must then be asked for just that, in turn.
//
// For items of equal size the hits are the most that any policy could have. For others
// it holds parts of items (the rule applied to each byte by itself), so HitBytes is a
// bound that no policy exceeds, and may not be reached by any. Access then says whether
// the whole item was there.
type OPT struct {
	capacity int64
	sequence []Access
	next     []int32 // place of the next access to the same item, or len(sequence)
	held     []int64 // bytes held for the access at a place
	places   placeSet
	used     int64
	now      int
	hitBytes int64
}

// NewOPT returns an empty cache of so many bytes for a sequence, which it keeps and does
// not change. Sequences are of less than 2^31 accesses.
func NewOPT(capacity int64, sequence []Access) *OPT {
	o := &OPT{
		capacity: capacity, sequence: sequence, next: nextUses(sequence),
		held: make([]int64, len(sequence)), places: newPlaceSet(len(sequence)),
	}
	if size := equalSize(sequence); size > 0 {
		o.capacity -= capacity % size
	}
	return o
}

// nextUses gives for each access the place of the next one to its item.
func nextUses(sequence []Access) []int32 {
	next := make([]int32, len(sequence))
	last := make(map[int64]int32)
	for i := len(sequence) - 1; i >= 0; i-- {
		n, ok := last[sequence[i].Item]
		if !ok {
			n = int32(len(sequence))
		}
		next[i] = n
		last[sequence[i].Item] = int32(i)
	}
	return next
}

// equalSize is the size of all items, 0 if they differ.
func equalSize(sequence []Access) int64 {
	for _, a := range sequence {
		if a.Bytes != sequence[0].Bytes {
			return 0
		}
	}
	if len(sequence) == 0 {
		return 0
	}
	return sequence[0].Bytes
}

// Access implements Cache. It panics if the item is not the sequence's next.
func (o *OPT) Access(item, bytes int64) bool {
	i := o.now
	if i >= len(o.sequence) || o.sequence[i] != (Access{item, bytes}) {
		panic(fmt.Sprintf("sim: OPT: access %d, of item %d with %d bytes, is not the sequence's", i, item, bytes))
	}
	o.now++
	had := min(o.held[i], bytes)
	o.hitBytes += had
	o.used -= o.held[i]
	o.held[i] = 0
	o.places.remove(i)
	if next := int(o.next[i]); next < len(o.sequence) {
		o.hold(next, bytes)
	}
	return had == bytes
}

// hold keeps as much of an item until its next use as what is used sooner leaves.
func (o *OPT) hold(next int, bytes int64) {
	for o.used+bytes > o.capacity {
		last := o.places.max()
		if last <= next {
			break
		}
		take := min(o.held[last], o.used+bytes-o.capacity)
		o.held[last] -= take
		o.used -= take
		if o.held[last] == 0 {
			o.places.remove(last)
		}
	}
	if keep := min(bytes, o.capacity-o.used); keep > 0 {
		o.held[next] = keep
		o.used += keep
		o.places.add(next)
	}
}

// HitBytes is how many of the bytes asked for until now were held.
func (o *OPT) HitBytes() int64 { return o.hitBytes }

// placeSet is a set of places in [0, n) that knows its largest: words of 64 bits, and
// above them levels that say which words are not empty.
type placeSet [][]uint64

func newPlaceSet(n int) placeSet {
	var s placeSet
	for {
		n = (n + 63) / 64
		s = append(s, make([]uint64, max(n, 1)))
		if n <= 1 {
			return s
		}
	}
}

func (s placeSet) add(place int) {
	for level := range s {
		s[level][place>>6] |= 1 << (place & 63)
		place >>= 6
	}
}

func (s placeSet) remove(place int) {
	for level := range s {
		word := &s[level][place>>6]
		*word &^= 1 << (place & 63)
		if *word != 0 {
			return
		}
		place >>= 6
	}
}

// max is the largest place of the set, -1 if it is empty.
func (s placeSet) max() int {
	place := 0
	for level := len(s) - 1; level >= 0; level-- {
		word := s[level][place]
		if word == 0 {
			return -1
		}
		place = place<<6 | (bits.Len64(word) - 1)
	}
	return place
}
