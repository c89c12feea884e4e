package sim

// entry is an item that a cache holds or remembers, linked into one queue.
type entry struct {
	item, bytes  int64
	newer, older int32 // neighbours; 0: none
	uses         uint8 // since it came, as the policy counts
	place        uint8 // which queue, as the policy numbers them
}

// entries are found by item.
type entries struct {
	pool[entry]
	index map[int64]int32
}

func newEntries() entries {
	return entries{pool: newPool[entry](), index: make(map[int64]int32)}
}

// add makes an entry that is in no queue yet.
func (p *entries) add(item, bytes int64) int32 {
	e := p.pool.add(entry{item: item, bytes: bytes})
	p.index[item] = e
	return e
}

// drop takes an entry out of its queue and forgets it.
func (p *entries) drop(q *queue, e int32) {
	p.unlink(q, e)
	delete(p.index, p.at(e).item)
	p.pool.drop(e)
}

// queue is a list of entries, the newest at the head.
type queue struct {
	head, tail int32
	bytes      int64
}

// push puts an entry at the head of a queue.
func (p *entries) push(q *queue, e int32) {
	p.at(e).newer, p.at(e).older = 0, q.head
	if q.head != 0 {
		p.at(q.head).newer = e
	} else {
		q.tail = e
	}
	q.head = e
	q.bytes += p.at(e).bytes
}

// unlink takes an entry out of its queue.
func (p *entries) unlink(q *queue, e int32) {
	newer, older := p.at(e).newer, p.at(e).older
	if newer != 0 {
		p.at(newer).older = older
	} else {
		q.head = older
	}
	if older != 0 {
		p.at(older).newer = newer
	} else {
		q.tail = newer
	}
	q.bytes -= p.at(e).bytes
}
