package order

import (
	"context"
	"math/bits"
)

// quantum is how many samples are drawn before a drawing looks whether it is still
// wanted: about a millisecond.
const quantum = 1 << 16

// drawing is a table being made. Whoever makes it may stop at any time, and another
// may go on.
type drawing struct {
	key    tableKey
	source mt19937
	skip   int64 // words to leave out first
	passes int64 // permutations to draw, of which the last is the table
	drawn  int64 // samples drawn of the current pass
	filled int64 // places of the table that hold a number
	head   []uint32
	table  []uint32
}

// newDrawing begins a table. before is the finished drawing of the epoch before, nil if
// there is none at hand.
func newDrawing(key tableKey, before *drawing) *drawing {
	d := &drawing{key: key, passes: 1}
	if before == nil {
		d.source.seed(key.seed)
		d.fromStart()
		return d
	}
	d.source = before.source
	switch key.seeding {
	case SeedInPlace:
		d.head = before.table
	case SeedOnce, SeedLoaderGenerator:
		d.skip = d.between()
	}
	return d
}

// fromStart says what of the generator goes to the epochs before.
func (d *drawing) fromStart() {
	epoch := d.key.epoch
	switch {
	case d.key.kind == Numpy:
		d.passes += epoch
	case d.key.seeding == SeedOnce:
		d.skip = epoch * (d.key.drawWords() + d.between())
	case d.key.seeding == SeedLoaderGenerator:
		d.skip = 2 + epoch*(d.key.drawWords()+d.between())
	}
}

// between is how many words are drawn after one epoch's permutation and before the next
// one's.
func (d *drawing) between() int64 {
	switch {
	case d.key.kind == Numpy:
		return 0
	case d.key.seeding == SeedLoaderGenerator:
		return d.key.drawWords() + 2
	}
	return d.key.drawWords()
}

// run draws until the table is made, or ctx ends; then the next call goes on.
func (d *drawing) run(ctx context.Context) error {
	if d.table == nil {
		d.table = make([]uint32, d.key.samples)
	}
	for d.passes > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		d.step()
	}
	d.head = nil
	return nil
}

// step does about a quantum of the work.
func (d *drawing) step() {
	switch {
	case d.skip > 0:
		n := min(d.skip, 16*quantum)
		d.source.skip(n)
		d.skip -= n
	case d.filled < d.key.samples:
		d.fill(min(d.filled+16*quantum, d.key.samples))
	default:
		d.draw()
	}
}

// fill puts into places up to end what the first pass finds there.
func (d *drawing) fill(end int64) {
	if d.head != nil {
		copy(d.table[d.filled:end], d.head[d.filled:end])
	} else {
		for i := d.filled; i < end; i++ {
			d.table[i] = uint32(i)
		}
	}
	d.filled = end
}

func (d *drawing) draw() {
	n := min(quantum, d.key.draws()-d.drawn)
	switch {
	case d.key.kind == Numpy:
		d.drawNumpy(n, d.passes == 1 || d.key.seeding == SeedInPlace)
	case d.key.wide():
		d.drawTorchWide(n)
	default:
		d.drawTorch(n)
	}
	if d.drawn += n; d.drawn == d.key.draws() {
		d.passes, d.drawn = d.passes-1, 0
	}
}

// drawTorch draws the next n places of torch.randperm on the CPU: each one swaps with a
// place from itself on.
func (d *drawing) drawTorch(n int64) {
	table := d.table[d.drawn:]
	for i := range table[:n] {
		rest := table[i:]
		z := d.source.word() % uint32(len(rest))
		rest[0], rest[z] = rest[z], rest[0]
	}
}

// drawTorchWide is drawTorch for torchSmall samples and more: the next number takes a
// place up to its own, and what was there goes to its own. It needs no filled table.
func (d *drawing) drawTorchWide(n int64) {
	for i := d.drawn; i < d.drawn+n; i++ {
		z := d.source.long() % uint64(i+1)
		d.table[i] = d.table[z]
		d.table[z] = uint32(i)
	}
}

// drawNumpy draws the next n places of numpy's legacy shuffle, from the last one down:
// each swaps with a place up to itself, drawn again until it is one. If not swapping it
// only takes the random words.
func (d *drawing) drawNumpy(n int64, swapping bool) {
	last := d.key.samples - 1 - d.drawn
	for i := last; i > last-n; i-- {
		mask := uint32(1)<<bits.Len32(uint32(i)) - 1
		v := d.source.word() & mask
		for v > uint32(i) {
			v = d.source.word() & mask
		}
		if swapping {
			d.table[i], d.table[v] = d.table[v], d.table[i]
		}
	}
}
