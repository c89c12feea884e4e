package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"

	"github.com/stokerio/stoker/prefetch"
)

// LayoutSpec describes where the samples of a dataset lie: end to end, cut into chunks.
type LayoutSpec struct {
	Samples     int64
	SampleBytes int64 // the mean, if sizes differ
	// Spread is the coefficient of variation of lognormal sizes. 0: all are equal.
	// Sizes that differ cost 8 bytes of memory a sample.
	Spread float64
	Seed   uint64 // of the sizes
	// SamplesPerChunk cuts between samples. If it is 0, ChunkBytes cuts anywhere, so that
	// a sample may lie in two chunks or more.
	SamplesPerChunk int64
	ChunkBytes      int64
}

// Layout implements prefetch.Layout. It is immutable.
type Layout struct {
	spec   LayoutSpec
	starts []int64 // of the samples and the end of the last, if sizes differ
	bytes  int64
	chunks int64
}

// NewLayout checks spec and returns its layout.
func NewLayout(spec LayoutSpec) (*Layout, error) {
	switch {
	case spec.Samples < 1 || spec.SampleBytes < 1 || spec.SampleBytes > math.MaxInt64/2/spec.Samples:
		return nil, fmt.Errorf("layout of %d samples of %d bytes: need at least 1 of each, and less than 2^62 in all", spec.Samples, spec.SampleBytes)
	case spec.SamplesPerChunk < 0 || spec.SamplesPerChunk == 0 && spec.ChunkBytes < 1:
		return nil, fmt.Errorf("layout with %d samples or %d bytes a chunk: need at least 1", spec.SamplesPerChunk, spec.ChunkBytes)
	case !(spec.Spread >= 0 && spec.Spread < 100):
		return nil, fmt.Errorf("layout with spread %v: need one of [0, 100)", spec.Spread)
	}
	l := &Layout{spec: spec, bytes: spec.Samples * spec.SampleBytes}
	if spec.Spread > 0 {
		l.drawSizes()
	}
	cut, per := spec.Samples, spec.SamplesPerChunk
	if per == 0 {
		cut, per = l.bytes, spec.ChunkBytes
	}
	l.chunks = (cut + per - 1) / per
	return l, nil
}

func (l *Layout) drawSizes() {
	random := rand.New(rand.NewPCG(l.spec.Seed, golden))
	l.starts = make([]int64, l.spec.Samples+1)
	for i := range l.spec.Samples {
		size := int64(float64(l.spec.SampleBytes) * lognormal(random, l.spec.Spread))
		l.starts[i+1] = l.starts[i] + max(1, size)
	}
	l.bytes = l.starts[l.spec.Samples]
}

// start is where a sample begins among all bytes.
func (l *Layout) start(sample int64) int64 {
	if l.starts == nil {
		return sample * l.spec.SampleBytes
	}
	return l.starts[sample]
}

// sampleAt is the sample that a byte belongs to.
func (l *Layout) sampleAt(at int64) int64 {
	if l.starts == nil {
		return at / l.spec.SampleBytes
	}
	return int64(sort.Search(len(l.starts), func(i int) bool { return l.starts[i] > at })) - 1
}

// chunkStart is where a chunk begins among all bytes; chunk Chunks() stands for the end.
func (l *Layout) chunkStart(chunk int64) int64 {
	if per := l.spec.SamplesPerChunk; per > 0 {
		return l.start(min(chunk*per, l.spec.Samples))
	}
	return min(chunk*l.spec.ChunkBytes, l.bytes)
}

// Chunks implements prefetch.Layout.
func (l *Layout) Chunks() int64 { return l.chunks }

// Samples implements prefetch.Layout.
func (l *Layout) Samples() int64 { return l.spec.Samples }

// Bytes implements prefetch.Layout.
func (l *Layout) Bytes() int64 { return l.bytes }

// ChunkBytes implements prefetch.Layout.
func (l *Layout) ChunkBytes(chunk int64) int64 { return l.chunkStart(chunk+1) - l.chunkStart(chunk) }

// Pieces implements prefetch.Layout.
func (l *Layout) Pieces(samples []int64, pieces []prefetch.Piece, ends []int32) ([]prefetch.Piece, []int32, error) {
	for _, sample := range samples {
		if sample < 0 || sample >= l.spec.Samples {
			return pieces, ends, fmt.Errorf("sample %d is not in [0, %d)", sample, l.spec.Samples)
		}
		for from, to := l.start(sample), l.start(sample+1); from < to; {
			chunk := l.chunkAt(sample, from)
			begin := l.chunkStart(chunk)
			end := min(to, l.chunkStart(chunk+1))
			pieces = append(pieces, prefetch.Piece{Chunk: chunk, Offset: from - begin, Bytes: end - from})
			from = end
		}
		ends = append(ends, int32(len(pieces)))
	}
	return pieces, ends, nil
}

// chunkAt is the chunk that a byte of a sample lies in.
func (l *Layout) chunkAt(sample, at int64) int64 {
	if per := l.spec.SamplesPerChunk; per > 0 {
		return sample / per
	}
	return at / l.spec.ChunkBytes
}

// samplesIn gives the samples [first, end) that have bytes in a range of a chunk.
func (l *Layout) samplesIn(chunk, offset, bytes int64) (first, end int64) {
	from := l.chunkStart(chunk) + offset
	to := min(from+bytes, l.bytes)
	if from >= to {
		return 0, 0
	}
	return l.sampleAt(from), l.sampleAt(to-1) + 1
}

// overlap is how many bytes of a sample lie in a range of a chunk.
func (l *Layout) overlap(sample, chunk, offset, bytes int64) int64 {
	from := l.chunkStart(chunk) + offset
	return max(0, min(l.start(sample+1), from+bytes)-max(l.start(sample), from))
}
