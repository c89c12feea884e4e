package flash

// Use says what a store's room is used for, bytes.
type Use struct {
	Limit int64 // of all files
	Live  int64 // of chunks
	Fits  int64 // of the arrivals that were asked about: what would be kept without dropping anything
}

// Lost is the part of the limit that neither holds bytes of chunks nor takes what arrives
// next: what fragmentation, padding and records cost.
func (u Use) Lost() float64 { return 1 - float64(u.Live+u.Fits)/float64(max(1, u.Limit)) }

// Use makes durable what is pending, so that its room is free, and says what is used and
// how much of arrivals, sizes of chunks in their order, there is room for beside it.
func (s *Store) Use(arrivals []int64) (u Use, err error) {
	if err := s.enter("use", nil); err != nil {
		return u, err
	}
	defer s.leave()
	for d := range s.all() {
		if err := d.syncer.round(); err != nil {
			return u, err
		}
		d.eachSlot(func(_ *span, _ uint32, slot *slot) bool {
			u.Live += slot.bytes()
			return true
		})
		limit, fits := d.fits(arrivals)
		u.Limit += limit
		u.Fits += fits
		arrivals = nil // of several devices, the first
	}
	return u, nil
}

// fits is how many bytes of chunks of these sizes the device keeps without dropping any.
func (d *device) fits(arrivals []int64) (limit, bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	free := make([]int, len(d.mu.classes))
	for c := range free {
		free[c] = d.mu.classes[c].free
	}
	spans := int64(len(d.mu.freeSpans))
	if left := d.mu.limit - d.mu.bytes; !d.mu.full {
		spans += max(0, left-headBytes) / (d.geometry.spanBytes + d.geometry.ledgerBytes())
	}
	for _, size := range arrivals {
		c, ok := d.geometry.classOf(size)
		if !ok {
			continue
		}
		at := d.host(c, func(o uint8) bool { return free[o] > 0 })
		if at < 0 && spans > 0 {
			spans--
			at = int(c)
			free[at] += int(d.geometry.classes[c].extents)
		}
		if at >= 0 {
			free[at]--
			bytes += size
		}
	}
	return d.mu.limit, bytes
}
