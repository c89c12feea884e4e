package sim

import "github.com/stokerio/stoker/prefetch"

// Reader is one of several that share a cache: its order, how fast it goes against the
// others, and where it begins.
type Reader struct {
	Order  prefetch.Order
	Rate   float64 // above 0; only the ratio to the others' counts
	Place  int64   // in epoch 0
	Epochs int64   // how many it reads, the first, which may be a part, included
}

// Interleave is the accesses of several readers in the order of time: each takes a
// sample every 1/Rate, until the first of them has read its epochs.
func Interleave(readers []Reader) []int64 {
	type cursor struct {
		epoch, place int64
		at           float64
		batch        []int64 // the epoch's samples
	}
	cursors := make([]cursor, len(readers))
	for i, r := range readers {
		cursors[i] = cursor{place: r.Place, at: (float64(i) + 0.5) / float64(len(readers)) / r.Rate}
		cursors[i].batch = r.Order.At(0, 0, r.Order.Len(0), nil)
	}
	var items []int64
	for len(readers) > 0 {
		first := 0
		for i := range cursors {
			if cursors[i].at < cursors[first].at {
				first = i
			}
		}
		c, r := &cursors[first], &readers[first]
		if c.place == int64(len(c.batch)) {
			if c.epoch++; c.epoch >= r.Epochs {
				return items
			}
			c.place, c.batch = 0, r.Order.At(c.epoch, 0, r.Order.Len(c.epoch), c.batch[:0])
		}
		items = append(items, c.batch[c.place])
		c.place++
		c.at += 1 / r.Rate
	}
	return items
}
