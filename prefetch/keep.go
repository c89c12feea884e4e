package prefetch

// keepWork bounds what one call may examine, in chunks or in 512 bits of a bitmap:
// some microseconds.
const keepWork = 1024

// Keeper says what may stay in a cache of so many bytes.
//
// Datasets in training (Add) divide the capacity by weighted max-min fairness, and each
// keeps a fixed random subset of its chunks that fills its share: those whose hash lies
// below its threshold. One of them never makes room for another, so that each epoch
// hits the kept share of the dataset, which is the optimum where every epoch is a new
// permutation; LRU would hit c+(1-c)ln(1-c) of it. What the datasets leave goes to
// accesses of which no future is known, by SIEVE.
//
// The thresholds follow from the arguments of Add, the capacity and the chunks' sizes
// alone, so nodes that were told the same keep the same chunks.
//
// Memory: 1 bit a chunk of each dataset that was added, 4 bytes a chunk where sizes
// differ, and some 60 bytes for each chunk that SIEVE holds.
//
// Drop looks for work in small steps and also corrects the thresholds; call it after
// whatever else is called.
type Keeper struct {
	capacity int64
	used     int64
	datasets map[DatasetID]*keepDataset
	live     []*keepDataset // in the order of Add
	ended    []*keepDataset // that still hold chunks, in the order of Remove
	sieve    sieve
	pins     pinTable
	turn     int  // into live: whose threshold is looked at next
	forced   bool // pins made a threshold fall below what the share allows

	demands, weights, shares []float64 // of divide
	scratch                  []int
}

// NewKeeper returns an empty Keeper; a negative capacity counts as 0.
func NewKeeper(capacity int64) *Keeper {
	return &Keeper{capacity: max(0, capacity), datasets: map[DatasetID]*keepDataset{}}
}

// SetCapacity changes the capacity, and with it all shares.
func (k *Keeper) SetCapacity(bytes int64) {
	k.capacity = max(0, bytes)
	k.divide()
}

// Capacity is how many bytes may be stored.
func (k *Keeper) Capacity() int64 { return k.capacity }

// Used is how many bytes are stored.
func (k *Keeper) Used() int64 { return k.used }

// Over is how many bytes are to be dropped.
func (k *Keeper) Over() int64 { return max(0, k.used-k.capacity) }

// Add begins the lease of a dataset of so many chunks and bytes: it takes its share of
// the capacity, and what the others hold too much is dropped as room is needed. seed
// says which of its chunks are kept. For what a weight means see MaxMin. For an id that
// is known, Add changes bytes and weight, and takes back a Remove; whatever was not
// dropped since counts as stored.
func (k *Keeper) Add(id DatasetID, seed uint64, chunks, bytes int64, weight float64) {
	d := k.datasets[id]
	if d == nil {
		chunks = max(0, chunks)
		d = &keepDataset{id: id, key: keepMix(seed), chunks: chunks, stored: newBitmap(chunks)}
		k.datasets[id] = d
		k.live = append(k.live, d)
	}
	if d.ended {
		d.ended = false
		k.ended = keepWithout(k.ended, d)
		k.live = append(k.live, d)
	}
	d.bytes, d.weight, d.share = max(0, bytes), weight, -1
	k.divide()
}

// Remove ends the lease of a dataset: its chunks are the first to be dropped once room
// is needed, and the others' shares grow.
func (k *Keeper) Remove(id DatasetID) {
	d := k.datasets[id]
	if d == nil || d.ended {
		return
	}
	k.live = keepWithout(k.live, d)
	d.ended, d.share, d.threshold = true, 0, 0
	d.restart(0)
	k.ended = append(k.ended, d)
	k.forget(d)
	k.divide()
}

// Share is how many bytes a dataset may keep, 0 if it has no lease.
func (k *Keeper) Share(id DatasetID) int64 {
	if d := k.datasets[id]; d != nil {
		return d.share
	}
	return 0
}

// Held is how many bytes of a dataset are stored for its lease, present or past. What
// SIEVE holds of it does not count.
func (k *Keeper) Held(id DatasetID) int64 {
	if d := k.datasets[id]; d != nil {
		return d.held
	}
	return 0
}

// Keeps says whether a chunk belongs to what its dataset keeps, stored or not.
func (k *Keeper) Keeps(c Chunk) bool {
	d := k.datasets[c.Dataset]
	return d != nil && d.contains(c.Number) && d.wants(c.Number)
}

// Has says whether a chunk is stored.
func (k *Keeper) Has(c Chunk) bool {
	if d := k.datasets[c.Dataset]; d != nil && d.holds(c.Number) {
		return true
	}
	return k.sieve.has(c)
}

// Stored tells that a chunk of so many bytes (at most 4 GiB count, and 0 are ignored)
// is in the cache now. A chunk of no known dataset is SIEVE's.
func (k *Keeper) Stored(c Chunk, bytes int64) {
	size := keepSize(bytes)
	d := k.datasets[c.Dataset]
	switch {
	case size == 0:
	case k.sieve.has(c):
		k.used += k.sieve.resize(c, size)
	case d != nil && d.contains(c.Number):
		k.used += d.put(c.Number, size)
		d.correct(keepWork / 16)
	default:
		k.sieve.insert(c, size)
		k.used += int64(size)
	}
}

// Dropped tells that a chunk is in the cache no longer.
func (k *Keeper) Dropped(c Chunk) {
	if d := k.datasets[c.Dataset]; d != nil && d.holds(c.Number) {
		k.used -= d.take(c.Number)
		k.forget(d)
		return
	}
	k.used -= k.sieve.remove(c)
}

// Access tells of a read of a chunk of so many bytes by someone whose future is not
// known. keep says whether the chunk is stored or, if it was not, now counts as stored:
// the caller stores it, or calls Dropped. It is not kept where the datasets leave too
// little room.
func (k *Keeper) Access(c Chunk, bytes int64) (keep bool) {
	d := k.datasets[c.Dataset]
	size := keepSize(bytes)
	switch {
	case k.sieve.visit(c):
	case d != nil && d.holds(c.Number):
		if !d.wants(c.Number) { // it would soon be dropped, but is in use
			k.sieve.insert(c, uint32(d.take(c.Number)))
			k.forget(d)
		}
	case size == 0 || int64(size) > k.capacity:
		return false
	case d != nil && d.contains(c.Number) && d.wants(c.Number):
		k.used += d.put(c.Number, size)
	case int64(size) > k.left():
		return false
	default:
		k.sieve.insert(c, size)
		k.used += int64(size)
	}
	return true
}

// left is what the datasets' chunks leave of the capacity.
func (k *Keeper) left() int64 {
	left := k.capacity
	for _, d := range k.live {
		left -= d.held
	}
	return left
}

// Drop names the next chunk to drop while more is stored than the capacity, and counts
// it as dropped: one whose dataset's lease ended, else one above its dataset's
// threshold, else SIEVE's victim; only if there is none, because hashing chose too much
// or pins take the room, is a threshold lowered. Pinned chunks are not named. ok is
// false also when the search is not done: see Settled.
func (k *Keeper) Drop() (c Chunk, ok bool) {
	work := keepWork
	for k.used > k.capacity && work > 0 {
		if c, ok = k.surplus(&work); ok {
			k.Dropped(c)
			return c, true
		}
		if work <= 0 {
			break
		}
		if c, ok = k.sieve.victim(&k.pins, &work); ok {
			if k.Keeps(c) { // it came before the lease, or the threshold rose past it
				size := k.sieve.remove(c)
				k.datasets[c.Dataset].put(c.Number, uint32(size))
				continue
			}
			k.Dropped(c)
			return c, true
		}
		if work > 0 && !k.lower() {
			break
		}
	}
	if k.used <= k.capacity && len(k.live) > 0 {
		k.turn = (k.turn + 1) % len(k.live)
		k.live[k.turn].correct(work)
	}
	return Chunk{}, false
}

// Settled says whether Drop has nothing to name until something changes. While it is
// false although Drop named nothing, call Drop again.
func (k *Keeper) Settled() bool {
	if k.used <= k.capacity {
		return true
	}
	if k.sieve.places.used > 0 && !k.sieve.barren || k.fullest() != nil {
		return false
	}
	for _, d := range k.ended {
		if d.left > 0 {
			return false
		}
	}
	for _, d := range k.live {
		if d.left > 0 {
			return false
		}
	}
	return true
}

// surplus finds a chunk that no threshold protects.
func (k *Keeper) surplus(work *int) (c Chunk, ok bool) {
	for _, datasets := range [2][]*keepDataset{k.ended, k.live} {
		for _, d := range datasets {
			if number, ok := d.search(&k.pins, work); ok {
				return Chunk{d.id, number}, true
			}
			if *work <= 0 {
				return Chunk{}, false
			}
		}
	}
	return Chunk{}, false
}

// lower lowers the threshold of the dataset that exceeds its share by most.
func (k *Keeper) lower() bool {
	d := k.fullest()
	if d == nil {
		return false
	}
	k.forced = k.forced || d.held <= d.share
	d.lower()
	return true
}

// fullest returns the dataset with chunks below its threshold that exceeds its share by
// most or comes nearest to it, nil if there is none.
func (k *Keeper) fullest() (fullest *keepDataset) {
	for _, d := range k.live {
		if d.held > 0 && d.threshold > 0 && (fullest == nil || d.held-d.share > fullest.held-fullest.share) {
			fullest = d
		}
	}
	return fullest
}

// divide gives each dataset its share of the capacity.
func (k *Keeper) divide() {
	k.demands, k.weights, k.shares = k.demands[:0], k.weights[:0], k.shares[:0]
	for _, d := range k.live {
		k.demands = append(k.demands, float64(d.bytes))
		k.weights = append(k.weights, d.weight)
		k.shares = append(k.shares, 0)
	}
	MaxMin(float64(k.capacity), k.demands, k.weights, k.shares, &k.scratch)
	for i, d := range k.live {
		share := min(d.bytes, k.capacity)
		if k.shares[i] < float64(share) {
			share = int64(k.shares[i])
		}
		if share != d.share || k.forced {
			d.setShare(share)
		}
	}
	k.forced = false
}

// forget takes out a dataset whose lease ended and that holds nothing more.
func (k *Keeper) forget(d *keepDataset) {
	if d.ended && d.stored.count == 0 {
		k.ended = keepWithout(k.ended, d)
		delete(k.datasets, d.id)
	}
}

// keepWithout takes one dataset out of a list, in place.
func keepWithout(list []*keepDataset, d *keepDataset) []*keepDataset {
	for i := range list {
		if list[i] == d {
			copy(list[i:], list[i+1:])
			list[len(list)-1] = nil
			return list[:len(list)-1]
		}
	}
	return list
}

// keepSize is a chunk's size as it is counted.
func keepSize(bytes int64) uint32 { return uint32(min(max(0, bytes), 1<<32-1)) }
