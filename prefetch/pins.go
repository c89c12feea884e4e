package prefetch

import "math"

// pinTable counts things by chunk: pins here, places in the list in sieve. It is a hash
// table with linear probing whose entries move back when one is taken out, so it
// allocates only when it holds more than ever before. The zero value is empty.
type pinTable struct {
	slots []pinSlot // a power of two of them, at most three quarters in use
	used  int
}

// pinSlot is empty if value is 0.
type pinSlot struct {
	number  int64
	dataset DatasetID
	value   int32
}

func (t *pinTable) home(c Chunk) int {
	return int(keepMix(keepMix(uint64(c.Dataset))+uint64(c.Number))) & (len(t.slots) - 1)
}

// find returns the slot of a chunk, or the empty one where it belongs. There must be
// slots.
func (t *pinTable) find(c Chunk) int {
	i := t.home(c)
	for s := &t.slots[i]; s.value != 0 && (s.number != c.Number || s.dataset != c.Dataset); s = &t.slots[i] {
		i = (i + 1) & (len(t.slots) - 1)
	}
	return i
}

// get returns a chunk's value, 0 if it has none.
func (t *pinTable) get(c Chunk) int32 {
	if t.used == 0 {
		return 0
	}
	return t.slots[t.find(c)].value
}

// put gives a chunk a value; 0 takes it out.
func (t *pinTable) put(c Chunk, value int32) {
	if value == 0 {
		t.remove(c)
		return
	}
	if (t.used+1)*4 > len(t.slots)*3 {
		t.grow()
	}
	slot := &t.slots[t.find(c)]
	if slot.value == 0 {
		t.used++
	}
	*slot = pinSlot{number: c.Number, dataset: c.Dataset, value: value}
}

func (t *pinTable) grow() {
	old := t.slots
	t.slots = make([]pinSlot, max(16, 2*len(old)))
	for _, s := range old {
		if s.value != 0 {
			t.slots[t.find(Chunk{s.dataset, s.number})] = s
		}
	}
}

func (t *pinTable) remove(c Chunk) {
	if t.get(c) == 0 {
		return
	}
	mask := len(t.slots) - 1
	hole := t.find(c)
	for i := (hole + 1) & mask; t.slots[i].value != 0; i = (i + 1) & mask {
		home := t.home(Chunk{t.slots[i].dataset, t.slots[i].number})
		if (i-home)&mask >= (i-hole)&mask { // its home is not after the hole
			t.slots[hole] = t.slots[i]
			hole = i
		}
	}
	t.slots[hole] = pinSlot{}
	t.used--
}

// Pin keeps a chunk from being named by Drop until Unpin was called as often. The chunk
// need not be stored.
func (k *Keeper) Pin(c Chunk) {
	if n := k.pins.get(c); n < math.MaxInt32 {
		k.pins.put(c, n+1)
	}
}

// Unpin takes back one Pin. Without one it does nothing.
func (k *Keeper) Unpin(c Chunk) {
	n := k.pins.get(c)
	if n == 0 {
		return
	}
	k.pins.put(c, n-1)
	if n > 1 {
		return
	}
	k.sieve.barren = false
	if d := k.datasets[c.Dataset]; d != nil && d.holds(c.Number) {
		d.notice(c.Number)
	}
	if k.forced {
		k.divide()
	}
}

// Pinned says whether a chunk is pinned.
func (k *Keeper) Pinned(c Chunk) bool { return k.pins.get(c) != 0 }
