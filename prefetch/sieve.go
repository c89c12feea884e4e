package prefetch

// sieve chooses among chunks of which no future is known (Zhang et al., "SIEVE is
// Simpler than LRU", NSDI 2024): a list in the order of arrival and a hand that goes
// from the oldest to the newest, forgives once each chunk that was accessed since, and
// stops at one that was not. The zero value is empty.
type sieve struct {
	nodes  []sieveNode // nodes[0] stands for no node
	free   int32       // head of the list of unused nodes, linked by older
	places pinTable    // chunk -> index in nodes
	newest int32
	oldest int32
	hand   int32 // 0: begins at the oldest
	// fresh is what arrived last. Room for it is made after it came, so the hand takes
	// it for the list's end; else a list whose every chunk was accessed would give up
	// the newcomer.
	fresh  int32
	bytes  int64
	idle   int  // nodes passed since the last victim
	barren bool // all that could be named is pinned; until something changes
}

type sieveNode struct {
	chunk   Chunk
	size    uint32
	newer   int32
	older   int32
	visited bool
}

func (s *sieve) has(c Chunk) bool { return s.places.get(c) != 0 }

// visit marks a chunk as accessed; false if it is not there.
func (s *sieve) visit(c Chunk) bool {
	i := s.places.get(c)
	if i != 0 {
		s.nodes[i].visited = true
	}
	return i != 0
}

// insert takes in a chunk that is not there.
func (s *sieve) insert(c Chunk, size uint32) {
	if len(s.nodes) == 0 {
		s.nodes = append(s.nodes, sieveNode{})
	}
	i := s.free
	if i == 0 {
		i = int32(len(s.nodes))
		s.nodes = append(s.nodes, sieveNode{})
	} else {
		s.free = s.nodes[i].older
	}
	s.nodes[i] = sieveNode{chunk: c, size: size, older: s.newest}
	if s.newest != 0 {
		s.nodes[s.newest].newer = i
	} else {
		s.oldest = i
	}
	if s.hand == s.fresh { // it had come to the end
		s.hand = 0
	}
	s.newest, s.fresh = i, i
	s.places.put(c, i)
	s.bytes += int64(size)
	s.barren, s.idle = false, 0
}

// resize gives a chunk that is there another size and returns by how much it grew.
func (s *sieve) resize(c Chunk, size uint32) int64 {
	node := &s.nodes[s.places.get(c)]
	grown := int64(size) - int64(node.size)
	node.size = size
	s.bytes += grown
	return grown
}

// remove takes a chunk out and returns its size, 0 if it is not there.
func (s *sieve) remove(c Chunk) int64 {
	i := s.places.get(c)
	if i == 0 {
		return 0
	}
	node := s.nodes[i]
	if s.hand == i {
		s.hand = node.newer
	}
	if s.fresh == i {
		s.fresh = 0
	}
	if node.newer != 0 {
		s.nodes[node.newer].older = node.older
	} else {
		s.newest = node.older
	}
	if node.older != 0 {
		s.nodes[node.older].newer = node.newer
	} else {
		s.oldest = node.newer
	}
	s.nodes[i] = sieveNode{older: s.free}
	s.free = i
	s.places.put(c, 0)
	s.bytes -= int64(node.size)
	return int64(node.size)
}

// victim returns the chunk to drop next, which stays until it is removed. It passes one
// node for each unit of work; ok is false if that did not do, or if s is barren.
func (s *sieve) victim(pins *pinTable, work *int) (c Chunk, ok bool) {
	for !s.barren && s.places.used > 0 && *work > 0 {
		*work--
		if s.hand == 0 || s.hand == s.fresh && s.fresh != s.oldest {
			s.hand = s.oldest
		}
		if s.idle++; s.idle > 2*s.places.used+2 { // twice round: the first time forgives
			s.barren = s.fresh == 0
			s.fresh, s.idle = 0, 0
			continue
		}
		node := &s.nodes[s.hand]
		if !node.visited && pins.get(node.chunk) == 0 {
			s.idle = 0
			return node.chunk, true
		}
		node.visited = false
		s.hand = node.newer
	}
	return Chunk{}, false
}
