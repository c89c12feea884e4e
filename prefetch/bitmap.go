package prefetch

import "math/bits"

// bitmap says which of a dataset's chunks are stored: one bit a chunk.
type bitmap struct {
	words []uint64
	count int64 // of bits set
}

func newBitmap(chunks int64) bitmap {
	return bitmap{words: make([]uint64, (chunks+63)/64)}
}

func (b *bitmap) has(i int64) bool { return b.words[i/64]>>(i%64)&1 == 1 }

// set sets a bit that is not set.
func (b *bitmap) set(i int64) {
	b.words[i/64] |= 1 << (i % 64)
	b.count++
}

// clear clears a bit that is set.
func (b *bitmap) clear(i int64) {
	b.words[i/64] &^= 1 << (i % 64)
	b.count--
}

// next returns the first bit set at from or after it, looking at the words of one cache
// line only. If there is none, ok is false and i is where the next line begins.
func (b *bitmap) next(from int64) (i int64, ok bool) {
	line := (from/512 + 1) * 512
	word := b.words[from/64] >> (from % 64)
	for word == 0 {
		from = (from/64 + 1) * 64
		if from == line || from/64 == int64(len(b.words)) {
			return line, false
		}
		word = b.words[from/64]
	}
	return from + int64(bits.TrailingZeros64(word)), true
}

// bitmapPage is how many chunks' sizes are remembered together.
const bitmapPage = 256

// bitmapSizes remembers the sizes of a dataset's stored chunks. Most datasets have
// chunks of one size and a few that are shorter, so a size is written down, in
// 4 bytes, only in pages where some chunk stored was not of the common size.
type bitmapSizes struct {
	common uint32
	pages  []*[bitmapPage]uint32 // nil until a size differs; 0 stands for common
}

// at returns the size last set.
func (s *bitmapSizes) at(i int64) int64 {
	if s.pages != nil {
		if page := s.pages[i/bitmapPage]; page != nil && page[i%bitmapPage] != 0 {
			return int64(page[i%bitmapPage])
		}
	}
	return int64(s.common)
}

// set remembers the size, 1 or more, of one of so many chunks.
func (s *bitmapSizes) set(i, chunks int64, size uint32) {
	if s.common == 0 {
		s.common = size
	}
	if s.pages == nil {
		if size == s.common {
			return
		}
		s.pages = make([]*[bitmapPage]uint32, (chunks+bitmapPage-1)/bitmapPage)
	}
	page := &s.pages[i/bitmapPage]
	if *page == nil {
		if size == s.common {
			return
		}
		*page = new([bitmapPage]uint32)
	}
	(*page)[i%bitmapPage] = size
}

// keepAll is the threshold below which all hashes lie.
const keepAll = uint64(1) << 63

// keepDataset is what is stored of one dataset, and which of its chunks may be.
type keepDataset struct {
	id     DatasetID
	key    uint64 // of the hash
	chunks int64
	bytes  int64
	weight float64
	ended  bool  // the lease is over
	share  int64 // bytes of the capacity
	held   int64 // bytes stored
	stored bitmap
	sizes  bitmapSizes

	// The chunks that are kept are those whose hash is below the threshold.
	threshold uint64

	// The search for stored chunks that are not kept.
	scan int64  // the chunk to look at next
	left int64  // chunks to look at until all were seen; if not above 0, there are none
	top  uint64 // no chunk seen that is kept, stored and not pinned has a higher hash

	// The check that what is kept fills the share.
	full      int64 // all chunks before this one that are kept are stored
	fullBytes int64 // size of those
	exceeded  bool  // a threshold was too high for this share: none is raised any more
}

// keepMix is the finalizer of SplitMix64, a bijection that spreads its input over all
// 64 bits.
func keepMix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

// hash is a chunk's place among all that might be kept, in [0, keepAll).
func (d *keepDataset) hash(number int64) uint64 {
	return keepMix(d.key+uint64(number)*0x9E3779B97F4A7C15) >> 1
}

func (d *keepDataset) contains(number int64) bool { return number >= 0 && number < d.chunks }

// wants says whether a chunk of the dataset is kept.
func (d *keepDataset) wants(number int64) bool { return d.hash(number) < d.threshold }

// holds says whether a chunk, of any number, is stored.
func (d *keepDataset) holds(number int64) bool { return d.contains(number) && d.stored.has(number) }

// put stores a chunk and returns by how many bytes what is held grew.
func (d *keepDataset) put(number int64, size uint32) int64 {
	grown := int64(size)
	if d.stored.has(number) {
		if grown -= d.sizes.at(number); grown == 0 {
			return 0
		}
		d.recheck(number)
	} else {
		d.stored.set(number)
	}
	d.sizes.set(number, d.chunks, size)
	d.held += grown
	d.notice(number)
	return grown
}

// take takes a stored chunk out and returns its size.
func (d *keepDataset) take(number int64) int64 {
	size := d.sizes.at(number)
	d.stored.clear(number)
	d.held -= size
	d.recheck(number)
	return size
}

// notice sees that the search does not miss a chunk that was stored or unpinned.
func (d *keepDataset) notice(number int64) {
	ahead := number - d.scan
	if ahead < 0 {
		ahead += d.chunks
	}
	switch {
	case d.wants(number):
		d.top = max(d.top, d.hash(number))
	case d.left <= 0: // the only one
		d.scan, d.left = number, 1
	case ahead >= d.left:
		d.restart(number)
	}
}

// restart begins the search anew, at a chunk.
func (d *keepDataset) restart(number int64) { d.scan, d.left, d.top = number, d.chunks, 0 }

// recheck begins the check of the share anew if it counted a chunk.
func (d *keepDataset) recheck(number int64) {
	if number < d.full && d.wants(number) {
		d.full, d.fullBytes = 0, 0
	}
}

// setShare gives the dataset another share, and the threshold that suits it if the
// chunks kept are of mean size and as many as hashing makes them on average.
func (d *keepDataset) setShare(share int64) {
	d.share, d.exceeded = share, false
	if share >= d.bytes && share > 0 {
		d.moveTo(keepAll)
		return
	}
	d.moveTo(keepFraction(share, d.bytes))
}

// keepFraction is the threshold for a part of so many bytes: 0 <= part, bytes.
func keepFraction(part, bytes int64) uint64 {
	if part <= 0 || bytes <= 0 {
		return 0
	}
	return uint64(min(1, float64(part)/float64(bytes)) * float64(keepAll))
}

// moveTo changes the threshold.
func (d *keepDataset) moveTo(threshold uint64) {
	if threshold < d.threshold {
		d.restart(d.scan % max(1, d.chunks))
	}
	d.threshold = threshold
	d.full, d.fullBytes = 0, 0
}

// search returns a stored chunk that is neither kept nor pinned. It looks at one chunk,
// or at one line of the bitmap, for each unit of work; ok is false if that did not do
// or if there is none.
func (d *keepDataset) search(pins *pinTable, work *int) (number int64, ok bool) {
	for d.left > 0 && *work > 0 {
		*work--
		if d.scan >= d.chunks {
			d.scan = 0
		}
		number, ok = d.stored.next(d.scan)
		if !ok {
			number = min(number, d.chunks)
			d.left -= number - d.scan
			d.scan = number
			continue
		}
		d.left -= number + 1 - d.scan
		d.scan = number + 1
		if pins.get(Chunk{d.id, number}) != 0 {
			continue
		}
		if d.ended || !d.wants(number) {
			return number, true
		}
		d.top = max(d.top, d.hash(number))
	}
	return 0, false
}

// lower lowers the threshold, after a search that found nothing, until it frees at
// least one chunk. The steps are fixed ones of a 512th: the highest threshold of them
// that the share allows does not depend on the order in which chunks came.
func (d *keepDataset) lower() {
	top, threshold := d.top, d.threshold
	for ok := true; ok; ok = threshold > top {
		threshold -= threshold/512 + 1
	}
	d.exceeded = true
	d.moveTo(threshold)
}

// correct raises the threshold once all that is kept is stored and yet 0.5 % of the
// share is left, enough for one more chunk. It looks at one chunk for each unit of work
// and stops at one that is still to come.
func (d *keepDataset) correct(work int) {
	for ; d.full < d.chunks && work > 0; work-- {
		if d.wants(d.full) {
			if !d.stored.has(d.full) {
				return
			}
			d.fullBytes += d.sizes.at(d.full)
		}
		d.full++
	}
	room := d.share - d.fullBytes
	if d.full < d.chunks || d.exceeded || d.threshold == keepAll || room <= d.share/200 || room < d.bytes/max(1, d.chunks) {
		return
	}
	d.moveTo(min(keepAll, d.threshold+keepFraction(room-d.share/400, d.bytes)))
}
