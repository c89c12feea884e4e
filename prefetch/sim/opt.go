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
	sequence Sequence
	places   placeSet      // of accesses for which something is held
	parts    map[int]int64 // bytes held for those of them that are not held whole
	used     int64
	now      int
	hitBytes int64
}

// Sequence is what OPT must know of a sequence of accesses. Each item has one size.
type Sequence interface {
	Len() int
	At(place int) Access
	// Next is the place of the next access to the same item, or Len.
	Next(place int) int
}

// NewOPT returns an empty cache of so many bytes for a sequence of less than 2^31
// accesses, which it keeps and does not change.
func NewOPT(capacity int64, sequence []Access) *OPT {
	return NewOPTOf(capacity, foreseen{sequence, nextUses(sequence)})
}

// NewOPTOf is NewOPT of a sequence that is held elsewhere. It needs a bit an access.
func NewOPTOf(capacity int64, sequence Sequence) *OPT {
	o := &OPT{capacity: capacity, sequence: sequence, parts: map[int]int64{}, places: newPlaceSet(sequence.Len())}
	if size := equalSize(sequence); size > 0 {
		o.capacity -= capacity % size
	}
	return o
}

// foreseen is a sequence with its next uses.
type foreseen struct {
	accesses []Access
	next     []int32
}

// Len implements Sequence.
func (f foreseen) Len() int { return len(f.accesses) }

// At implements Sequence.
func (f foreseen) At(place int) Access { return f.accesses[place] }

// Next implements Sequence.
func (f foreseen) Next(place int) int { return int(f.next[place]) }

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
func equalSize(sequence Sequence) int64 {
	if sequence.Len() == 0 {
		return 0
	}
	size := sequence.At(0).Bytes
	for place := range sequence.Len() {
		if sequence.At(place).Bytes != size {
			return 0
		}
	}
	return size
}

// Access implements Cache. It panics if the item is not the sequence's next.
func (o *OPT) Access(item, bytes int64) bool {
	i := o.now
	if i >= o.sequence.Len() || o.sequence.At(i) != (Access{item, bytes}) {
		panic(fmt.Sprintf("sim: OPT: access %d, of item %d with %d bytes, is not the sequence's", i, item, bytes))
	}
	o.now++
	had := o.held(i)
	o.hitBytes += had
	o.used -= had
	o.drop(i)
	if next := o.sequence.Next(i); next < o.sequence.Len() {
		o.hold(next, bytes)
	}
	return had == bytes
}

// held is how many bytes are held for the access at a place.
func (o *OPT) held(place int) int64 {
	if !o.places.has(place) {
		return 0
	}
	if part, ok := o.parts[place]; ok {
		return part
	}
	return o.sequence.At(place).Bytes
}

// drop forgets what is held for the access at a place.
func (o *OPT) drop(place int) {
	o.places.remove(place)
	delete(o.parts, place)
}

// hold keeps as much of an item until its next use as what is used sooner leaves.
func (o *OPT) hold(next int, bytes int64) {
	for o.used+bytes > o.capacity {
		last := o.places.max()
		if last <= next {
			break
		}
		held := o.held(last)
		take := min(held, o.used+bytes-o.capacity)
		o.used -= take
		if take == held {
			o.drop(last)
		} else {
			o.parts[last] = held - take
		}
	}
	if keep := min(bytes, o.capacity-o.used); keep > 0 {
		o.used += keep
		o.places.add(next)
		if keep < bytes {
			o.parts[next] = keep
		}
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

func (s placeSet) has(place int) bool { return s[0][place>>6]&(1<<(place&63)) != 0 }

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
