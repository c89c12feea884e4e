package prefetch

import (
	"testing"

	"pgregory.net/rapid"
)

// keepMachine is a Keeper beside a map of what is stored.
type keepMachine struct {
	k      *Keeper
	sizes  map[Chunk]int64
	pins   map[Chunk]int
	chunks map[DatasetID]int64 // with a lease
}

func (m *keepMachine) chunk(t *rapid.T) Chunk {
	return Chunk{DatasetID(rapid.IntRange(0, 3).Draw(t, "dataset")), rapid.Int64Range(0, 70).Draw(t, "number")}
}

func (m *keepMachine) step(t *rapid.T) {
	switch rapid.SampledFrom([]string{"stored", "stored", "stored", "access", "access", "dropped", "pin", "unpin", "add", "remove", "capacity"}).Draw(t, "step") {
	case "stored":
		c, size := m.chunk(t), rapid.Int64Range(0, 9).Draw(t, "size")
		if m.k.Stored(c, size); size > 0 {
			m.sizes[c] = size
		}
	case "access":
		c, size := m.chunk(t), rapid.Int64Range(0, 9).Draw(t, "size")
		_, had := m.sizes[c]
		keep := m.k.Access(c, size)
		if had && !keep {
			t.Fatalf("access does not know %v", c)
		}
		if keep && !had {
			m.sizes[c] = size
		}
	case "dropped":
		c := m.chunk(t)
		m.k.Dropped(c)
		delete(m.sizes, c)
	case "pin":
		c := m.chunk(t)
		m.k.Pin(c)
		m.pins[c]++
	case "unpin":
		c := m.chunk(t)
		m.k.Unpin(c)
		if m.pins[c]--; m.pins[c] <= 0 {
			delete(m.pins, c)
		}
	case "add":
		id := DatasetID(rapid.IntRange(0, 2).Draw(t, "dataset"))
		m.k.Add(id, rapid.Uint64Range(0, 3).Draw(t, "seed"), 64, rapid.Int64Range(0, 400).Draw(t, "bytes"), rapid.Float64Range(0, 3).Draw(t, "weight"))
		m.chunks[id] = 64
	case "remove":
		id := DatasetID(rapid.IntRange(0, 2).Draw(t, "dataset"))
		m.k.Remove(id)
		delete(m.chunks, id)
	case "capacity":
		m.k.SetCapacity(rapid.Int64Range(0, 500).Draw(t, "capacity"))
	}
}

// loose says whether a chunk has to go before one that SIEVE holds.
func (m *keepMachine) loose(c Chunk, ended bool) bool {
	d := m.k.datasets[c.Dataset]
	return d != nil && d.holds(c.Number) && m.pins[c] == 0 && d.ended == ended && !d.wants(c.Number)
}

// drop calls Drop once and checks that what it names is next.
func (m *keepMachine) drop(t *rapid.T) bool {
	ended, sieved := 0, map[Chunk]bool{}
	for c := range m.sizes {
		if m.loose(c, true) {
			ended++
		}
		sieved[c] = m.k.sieve.has(c)
	}
	c, ok := m.k.Drop()
	if !ok {
		return false
	}
	if _, had := m.sizes[c]; !had || m.pins[c] > 0 || m.k.Keeps(c) {
		t.Fatalf("%v was dropped: stored %v, %d pins, kept %v", c, had, m.pins[c], m.k.Keeps(c))
	}
	delete(m.sizes, c)
	after := 0
	for c := range m.sizes {
		if m.loose(c, true) {
			after++
		}
	}
	if ended > 0 && after != ended-1 {
		t.Fatalf("%v was dropped before %d chunks of ended datasets", c, ended)
	}
	for other := range m.sizes {
		if sieved[c] && m.loose(other, false) {
			t.Fatalf("SIEVE's %v was dropped before %v, which is above the threshold", c, other)
		}
	}
	return true
}

// check compares all that can be asked.
func (m *keepMachine) check(t *rapid.T) {
	used, held := int64(0), map[DatasetID]int64{}
	for id := range DatasetID(4) {
		for number := range int64(71) {
			c := Chunk{id, number}
			size, want := m.sizes[c]
			if m.k.Has(c) != want {
				t.Fatalf("%v: stored %v, want %v", c, m.k.Has(c), want)
			}
			if used += size; want && !m.k.sieve.has(c) {
				held[id] += size
			}
			if m.k.Keeps(c) && (number >= m.chunks[id]) {
				t.Fatalf("%v is kept without a lease", c)
			}
		}
		if m.k.Held(id) != held[id] {
			t.Fatalf("dataset %d: %d held, want %d", id, m.k.Held(id), held[id])
		}
	}
	if m.k.Used() != used {
		t.Fatalf("%d used, want %d", m.k.Used(), used)
	}
}

func TestAgreesWithAMapAndHoldsNoMoreThanItMay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &keepMachine{k: NewKeeper(rapid.Int64Range(0, 500).Draw(t, "capacity")),
			sizes: map[Chunk]int64{}, pins: map[Chunk]int{}, chunks: map[DatasetID]int64{}}
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			m.step(t)
			if rapid.Bool().Draw(t, "obey") {
				for m.drop(t) || !m.k.Settled() {
				}
				if m.k.Over() > 0 {
					for c := range m.sizes {
						if m.pins[c] == 0 {
							t.Fatalf("%d bytes over, yet %v may be dropped", m.k.Over(), c)
						}
					}
				}
			}
			m.check(t)
		}
	})
}
