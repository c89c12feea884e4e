package sim

import "math/bits"

// golden is 2^64 divided by the golden ratio: multiples of it are spread over all bits.
const golden uint64 = 0x9E3779B97F4A7C15

// mix is the finalizer of SplitMix64: it spreads any number over 64 bits.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

// permutation is a keyed bijection of [0, size): a Feistel network over the smallest
// domain of an even number of bits that holds size values, walked until it falls inside.
type permutation struct {
	size uint64
	key  uint64
	half uint8 // bits of each half
}

const rounds = 6 // even; small domains go through twice as often

func newPermutation(size int64, key uint64) permutation {
	return permutation{size: uint64(size), key: key, half: uint8((bits.Len64(uint64(size-1)) + 1) / 2)}
}

func (p *permutation) rounds() uint64 {
	if p.half < 8 {
		return 4 * rounds
	}
	return rounds
}

// at returns where x is taken, for x in [0, size).
func (p *permutation) at(x int64) int64 {
	mask := uint64(1)<<p.half - 1
	for v := uint64(x); ; {
		left, right := v>>p.half, v&mask
		for r := range p.rounds() {
			left, right = right, left^mix(right+p.key+r*golden)&mask
		}
		if v = left<<p.half | right; v < p.size {
			return int64(v)
		}
	}
}

// from is the inverse of at.
func (p *permutation) from(y int64) int64 {
	mask := uint64(1)<<p.half - 1
	for v := uint64(y); ; {
		left, right := v>>p.half, v&mask
		for r := p.rounds(); r > 0; r-- {
			left, right = right^mix(left+p.key+(r-1)*golden)&mask, left
		}
		if v = left<<p.half | right; v < p.size {
			return int64(v)
		}
	}
}
