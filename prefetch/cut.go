package prefetch

import "time"

// CutOptions decide whether the samples of a chunk are fetched as ranges or with the
// whole chunk.
type CutOptions struct {
	// Overhead is what a request costs before its first byte. Default 30 ms, as object
	// stores have it.
	Overhead time.Duration
	// Bandwidth is that of one request, bytes/s. Default 100 MB/s.
	Bandwidth float64
	// Billed says that bytes themselves are scarce: they are paid for, or the link is full.
	Billed bool
	// Beta is the share of a chunk from which on whole chunks are fetched though bytes are
	// scarce. Default 0.7.
	Beta float64
	// MaxGap bounds the gap between ranges that are read in one, bytes. Default: what
	// Overhead costs in Bandwidth.
	MaxGap int64
}

func (o *CutOptions) ensureDefaults() {
	if o.Overhead <= 0 {
		o.Overhead = 30 * time.Millisecond
	}
	if !(o.Bandwidth > 0) || o.Bandwidth > 1e15 {
		o.Bandwidth = 100e6
	}
	if !(o.Beta > 0 && o.Beta <= 1) {
		o.Beta = 0.7
	}
	if o.MaxGap <= 0 {
		o.MaxGap = int64(o.Overhead.Seconds() * o.Bandwidth)
	}
}

// whole reports whether a chunk of which samples of the window want count pieces of
// wanted bytes all together is fetched whole: if that takes less time than the requests
// for the pieces, one after another, k > (o + C/b)/(o + s/b), and the bytes do not count,
// or most of them are wanted anyway.
func (o *CutOptions) whole(count, wanted, chunk float64) bool {
	if wanted >= chunk {
		return true
	}
	if o.Billed {
		return wanted > o.Beta*chunk
	}
	overhead := o.Overhead.Seconds()
	pieces := count*overhead + wanted/o.Bandwidth
	return pieces > overhead+chunk/o.Bandwidth
}

// joins reports whether two ranges with a gap between them are read in one. Where bytes
// are scarce, no gap is worth it.
func (o *CutOptions) joins(gap int64) bool {
	return gap <= 0 || !o.Billed && gap < o.MaxGap
}
