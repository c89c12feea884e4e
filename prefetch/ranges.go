package prefetch

// rangeTable finds the fetches of ranges that are under way.
type rangeTable struct {
	places  pinTable  // a range's key -> where its fetch is in flights, plus one
	flights []*flight // nil: unused
	free    []int32   // places in flights that are unused
}

// rangeKey stands for where a range begins. That two have the same is so rare that only one
// of them is known then.
func rangeKey(c Chunk, offset int64) Chunk {
	return Chunk{c.Dataset, int64(keepMix(uint64(c.Number)) + uint64(offset))}
}

// find returns the fetch of a range that begins there, nil if none is under way.
func (t *rangeTable) find(c Chunk, offset int64) *flight {
	if place := t.places.get(rangeKey(c, offset)); place != 0 {
		if f := t.flights[place-1]; f.Chunk == c && f.Offset == offset {
			return f
		}
	}
	return nil
}

// add makes a fetch known, unless one that begins there is known already.
func (t *rangeTable) add(f *flight) {
	key := rangeKey(f.Chunk, f.Offset)
	if t.places.get(key) != 0 {
		return
	}
	if len(t.free) == 0 {
		t.flights = append(t.flights, nil)
		t.free = append(t.free, int32(len(t.flights)))
	}
	f.listed = t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	t.flights[f.listed-1] = f
	t.places.put(key, f.listed)
}

// remove undoes add, if it was done.
func (t *rangeTable) remove(f *flight) {
	if f.listed != 0 {
		t.places.put(rangeKey(f.Chunk, f.Offset), 0)
		t.flights[f.listed-1] = nil
		t.free = append(t.free, f.listed)
		f.listed = 0
	}
}

// shareRange lets the next candidate of a stream, a range, wait for a fetch of the same
// bytes that is under way, of whichever stream. It reports whether there is one.
func (p *Planner) shareRange(s *stream) bool {
	c := s.candidates.at(0)
	if c.hold != nil || !p.sharesRanges(s.dataset) {
		return false
	}
	f := p.ranges.find(Chunk{s.dataset.id, c.chunk}, c.offset)
	if f == nil || f.ended || f.Bytes != c.bytes {
		return false
	}
	x, last := &p.scratch, &c.waiters
	for *last != 0 {
		w := &x.waiters[*last-1]
		if w.turn >= s.taken {
			it := s.items.at(int(w.turn - s.taken))
			it.bytes -= w.bytes
			it.shared += w.bytes
		}
		w.bytes, last = 0, &w.next
	}
	*last = f.waiters
	f.waiters = c.waiters
	s.candidates.pop()
	return true
}

// sharesRanges reports whether there may be another stream that wants the same range.
func (p *Planner) sharesRanges(d *dataset) bool { return p.options.ShareRanges && d.streams > 1 }

// listRange makes a fetch of a range known to those that will want the same, and to those
// that want it next.
func (p *Planner) listRange(f *flight, d *dataset) {
	if f.Whole || !p.sharesRanges(d) {
		return
	}
	p.ranges.add(f)
	for _, s := range p.streams {
		if s.dataset != d || s.candidates.len() == 0 {
			continue
		}
		if c := s.candidates.at(0); c.chunk == f.Chunk.Number && c.offset == f.Offset {
			p.shareRange(s)
		}
	}
}
