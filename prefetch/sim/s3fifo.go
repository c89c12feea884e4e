package sim

// The queues of S3FIFO.
const (
	small = iota
	main
	ghost
)

// S3FIFO has a small queue (a tenth of the bytes) that new items pass through, a main
// one for those asked for again meanwhile, and remembers the names of what the small
// one dropped (Yang et al., SOSP'23, algorithm 1).
type S3FIFO struct {
	capacity int64
	entries  entries
	queues   [3]queue
}

// NewS3FIFO returns an empty cache of so many bytes.
func NewS3FIFO(capacity int64) *S3FIFO {
	return &S3FIFO{capacity: capacity, entries: newEntries()}
}

// Access implements Cache.
func (c *S3FIFO) Access(item, bytes int64) bool {
	e, known := c.entries.index[item]
	if known && c.entries.at(e).place != ghost {
		c.entries.at(e).uses = min(c.entries.at(e).uses+1, 3)
		return true
	}
	if bytes > c.capacity {
		return false
	}
	to := uint8(small)
	if known {
		c.entries.drop(&c.queues[ghost], e)
		to = main
	}
	for c.queues[small].bytes+c.queues[main].bytes+bytes > c.capacity {
		c.evict()
	}
	c.put(c.entries.add(item, bytes), to)
	return false
}

func (c *S3FIFO) put(e int32, to uint8) {
	c.entries.at(e).place = to
	c.entries.at(e).uses = 0
	c.entries.push(&c.queues[to], e)
}

// evict drops one item, or moves what the small queue has proved good to the main one.
func (c *S3FIFO) evict() {
	if s := &c.queues[small]; s.tail != 0 && (10*s.bytes >= c.capacity || c.queues[main].tail == 0) {
		c.evictSmall()
		return
	}
	c.evictMain()
}

func (c *S3FIFO) evictSmall() {
	s := &c.queues[small]
	for s.tail != 0 {
		e := s.tail
		c.entries.unlink(s, e)
		if c.entries.at(e).uses <= 1 {
			c.put(e, ghost)
			c.trimGhost()
			return
		}
		c.put(e, main)
		if 10*c.queues[main].bytes > 9*c.capacity {
			c.evictMain()
			return
		}
	}
}

func (c *S3FIFO) evictMain() {
	m := &c.queues[main]
	for {
		e := m.tail
		if c.entries.at(e).uses == 0 {
			c.entries.drop(m, e)
			return
		}
		c.entries.at(e).uses--
		c.entries.unlink(m, e)
		c.entries.push(m, e)
	}
}

// trimGhost remembers as many bytes of names as the main queue may hold.
func (c *S3FIFO) trimGhost() {
	g := &c.queues[ghost]
	for 10*g.bytes > 9*c.capacity {
		c.entries.drop(g, g.tail)
	}
}
