package sim

import (
	"time"

	"github.com/stokerio/stoker/prefetch"
)

// residency is what a node's cache holds of a dataset.
type residency struct {
	lease[prefetch.DatasetID]
	there   []uint64 // a bit a chunk
	touched []uint64 // used since it is there
	bytes   int64
}

func (r *residency) has(chunk int64) bool {
	return r.there != nil && r.there[chunk>>6]>>(chunk&63)&1 != 0
}

func (r *residency) touch(chunk int64) { r.touched[chunk>>6] |= 1 << (chunk & 63) }

// cache puts a chunk into a node's cache; it says whether it is there now. There may be
// more than fits until the Decider was asked what to drop.
func (e *engine) cache(n *node, dataset int32, chunk, bytes int64) bool {
	r := &n.datasets[dataset]
	if bytes > n.spec.CacheBytes || r.has(chunk) {
		return false
	}
	if r.there == nil {
		words := (e.world.Datasets[dataset].Layout.Chunks() + 63) / 64
		r.there, r.touched = make([]uint64, words), make([]uint64, words)
	}
	r.there[chunk>>6] |= 1 << (chunk & 63)
	r.touched[chunk>>6] &^= 1 << (chunk & 63)
	r.bytes += bytes
	n.used += bytes
	n.result.StoredBytes += bytes
	n.latest = prefetch.Chunk{Dataset: r.id, Number: chunk}
	e.see(sight{kind: stores, node: n.number, chunkKey: chunkKey{dataset, chunk}})
	return true
}

// drop takes out of the cache what the Decider names, and what still does not fit.
func (e *engine) drop(who int32) {
	n := &e.nodes[who]
	for {
		c, ok := n.decider.Drop(e.now)
		if !ok {
			break
		}
		e.evict(n, c)
	}
	if n.used > n.spec.CacheBytes {
		if bytes := e.evict(n, n.latest); bytes > 0 {
			n.result.RefusedBytes += bytes
			n.decider.Evicted(e.now, n.latest)
		}
	}
}

// evict takes a chunk out of the cache and returns its bytes, 0 if it is not there.
func (e *engine) evict(n *node, c prefetch.Chunk) int64 {
	dataset, known := n.byID[c.Dataset]
	if !known || c.Number < 0 || !n.datasets[dataset].has(c.Number) {
		return 0
	}
	r := &n.datasets[dataset]
	bytes := e.world.Datasets[dataset].Layout.ChunkBytes(c.Number)
	word, bit := c.Number>>6, uint64(1)<<(c.Number&63)
	r.there[word] &^= bit
	r.bytes -= bytes
	n.used -= bytes
	e.see(sight{kind: drops, node: n.number, chunkKey: chunkKey{dataset, c.Number}})
	n.result.DroppedBytes += bytes
	if r.touched[word]&bit == 0 {
		n.result.UnusedBytes += bytes
	}
	for at := n.holds[chunkKey{dataset, c.Number}]; at != 0; {
		next := e.holds.at(at).next
		if e.holds.at(at).kept {
			e.release(at)
		}
		at = next
	}
	return bytes
}

// nextLoss makes an event of the next chunk that a cache loses.
func (e *engine) nextLoss(who int32) {
	if n := &e.nodes[who]; n.spec.Losses > 0 {
		after := Exponential(n.spec.Losses).Draw(n.losses)
		e.events.push(e.now.Add(max(time.Microsecond, after)), cacheLoses, who, 0)
	}
}

// lose takes any chunk out of a node's cache, and says so.
func (e *engine) lose(who int32) error {
	e.nextLoss(who)
	n := &e.nodes[who]
	dataset := n.losses.IntN(max(1, len(n.datasets)))
	r := &n.datasets[dataset]
	if r.bytes == 0 {
		return nil
	}
	chunks := e.world.Datasets[dataset].Layout.Chunks()
	chunk := n.losses.Int64N(chunks)
	for !r.has(chunk) {
		chunk = (chunk + 1) % chunks
	}
	c := prefetch.Chunk{Dataset: r.id, Number: chunk}
	n.result.LostBytes += e.evict(n, c)
	n.decider.Evicted(e.now, c)
	return e.pump(who)
}

// offer asks the Decider whether the cache takes in a chunk that a stream without a
// future has read.
func (e *engine) offer(n *node, a *attempt) {
	h := e.holds.at(a.hold)
	r := &n.datasets[h.dataset]
	c := prefetch.Chunk{Dataset: r.id, Number: h.chunk}
	if !n.decider.Access(e.now, c, h.bytes) {
		return
	}
	if e.cache(n, h.dataset, h.chunk, h.bytes) {
		r.touch(h.chunk)
	} else if !r.has(h.chunk) {
		n.decider.Evicted(e.now, c)
	}
}

// forget drops what the cache still has of a dataset whose lease ended, because a new
// lease gives it another number.
func (e *engine) forget(n *node, dataset int) {
	r := &n.datasets[dataset]
	for chunk := int64(0); r.bytes > 0; chunk++ {
		if r.has(chunk) {
			c := prefetch.Chunk{Dataset: r.id, Number: chunk}
			e.evict(n, c)
			n.decider.Evicted(e.now, c)
		}
	}
	delete(n.byID, r.id)
}
