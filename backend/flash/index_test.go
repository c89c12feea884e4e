package flash

import (
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
)

// indexOf is the index of a store of one span, without files.
func indexOf(extents int) (*index, *span) {
	s := &Store{}
	s.index.init(s)
	d := &device{store: s, number: 1}
	d.geometry = newGeometry(maxSpanBytes, 1)
	all := []*segment{{device: d, spans: make([]*span, 1)}}
	x := &span{segment: all[0], slots: make([]slot, extents)}
	all[0].spans[0] = x
	d.segments.Store(&all)
	s.devices[1].Store(d)
	return &s.index, x
}

func idOf(n int) (id backend.ChunkID) {
	binary.LittleEndian.PutUint64(id[:], uint64(n)+1)
	return id
}

// The index is a map. All hashes are cut to a few values, so that most chains collide and
// most tags are equal.
func TestIndexIsAMap(t *testing.T) {
	const extents = 300
	rapid.Check(t, func(t *rapid.T) {
		i, x := indexOf(extents)
		for n := range x.slots {
			x.slots[n].id = idOf(n)
		}
		h := &i.shards[0]
		bits := rapid.Uint64Range(0, 8).Draw(t, "bits of the hash")
		hashOf := func(n int) uint64 {
			id := idOf(n)
			_, hash := i.shardOf(&id)
			return hash & (1<<bits - 1)
		}
		// rebuild hashes anew, and whole: room is made here, so that it is not needed.
		h.cells = make([]cell, 512)
		there := map[int]bool{}
		for range rapid.IntRange(1, 600).Draw(t, "steps") {
			n := rapid.IntRange(0, extents-1).Draw(t, "chunk")
			id := idOf(n)
			at := i.find(h, hashOf(n), &id)
			if found := at >= 0; found != there[n] {
				t.Fatalf("chunk %d: found is %v", n, found)
			}
			if there[n] {
				if r := ref(h.cells[at] & refMask); r.place().extent != uint32(n) || r.device() != 1 {
					t.Fatalf("chunk %d is found at %v", n, r.place())
				}
				h.remove(at)
				delete(there, n)
			} else if 8*(h.used+1) <= 7*len(h.cells) {
				i.insert(h, hashOf(n), newRef(1, place{extent: uint32(n)}))
				there[n] = true
			}
			if h.chunks != len(there) {
				t.Fatalf("%d chunks are counted, %d are there", h.chunks, len(there))
			}
		}
		for n := range extents {
			id := idOf(n)
			if r := i.lookup(h, hashOf(n), &id); (r != 0) != there[n] {
				t.Fatalf("at the end, chunk %d: found is %v", n, r != 0)
			}
		}
	})
}

// The index grows with its chunks, and what is removed does not make it grow.
func TestIndexGrowsWithItsChunksOnly(t *testing.T) {
	const extents = 20000
	i, x := indexOf(extents)
	for n := range x.slots {
		x.slots[n].id = idOf(n)
	}
	change := func(n int, there bool) {
		id := idOf(n)
		h, hash := i.shardOf(&id)
		if there {
			i.insert(h, hash, newRef(1, place{extent: uint32(n)}))
		} else {
			h.remove(i.find(h, hash, &id))
		}
	}
	cells := func() (all int) {
		for n := range i.shards {
			all += len(i.shards[n].cells)
		}
		return all
	}
	for n := range extents {
		change(n, true)
	}
	if most := 4 * extents; cells() > most {
		t.Errorf("%d cells for %d chunks", cells(), extents)
	}
	for n := range extents / 2 {
		change(n, false)
	}
	before := cells()
	for round := range 50 { // half of them there, always others
		for n := range 200 {
			change(extents/2+(round*200+n)%(extents/2), false)
			change((round*200+n)%(extents/2), true)
		}
		for n := range 200 {
			change((round*200+n)%(extents/2), false)
			change(extents/2+(round*200+n)%(extents/2), true)
		}
	}
	if cells() > before {
		t.Errorf("%d cells became %d, and no more chunks are there", before, cells())
	}
	for n := range extents {
		id := idOf(n)
		h, hash := i.shardOf(&id)
		if found := i.find(h, hash, &id) >= 0; found != (n >= extents/2) {
			t.Fatalf("chunk %d: found is %v", n, found)
		}
	}
}

func TestRefsHoldEveryPlace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := place{
			segment: rapid.Uint32Range(0, maxSegments-1).Draw(t, "segment"),
			span:    rapid.Uint32Range(0, maxSegmentSpans-1).Draw(t, "span"),
			extent:  rapid.Uint32Range(0, maxSpanBytes/pageBytes-1).Draw(t, "extent"),
		}
		device := rapid.IntRange(1, maxDevices).Draw(t, "device")
		hash := rapid.Uint64().Draw(t, "hash")
		c := cellOf(hash, newRef(device, at))
		r := ref(c & refMask)
		if r.place() != at || r.device() != device || c == noCell || c == tomb || uint64(c)&^refMask != hash&^refMask {
			t.Fatalf("%v of device %d became %v of device %d", at, device, r.place(), r.device())
		}
	})
}
