package sim

import (
	"testing"

	"github.com/stokerio/stoker/prefetch"
	"pgregory.net/rapid"
)

var (
	_ prefetch.Order  = (*Order)(nil)
	_ prefetch.Layout = (*Layout)(nil)
)

func TestRanksReadEachSampleOnceAndKnowWhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec := OrderSpec{
			Kind: OrderKind(rapid.IntRange(0, 2).Draw(t, "kind")), Seed: rapid.Uint64().Draw(t, "seed"),
			Samples: rapid.Int64Range(1, 500).Draw(t, "samples"), Window: rapid.Int64Range(1, 80).Draw(t, "window"),
			Ranks: rapid.Int64Range(1, 4).Draw(t, "ranks"), Batch: rapid.Int64Range(1, 5).Draw(t, "batch"),
		}
		if spec.Samples < spec.Ranks*spec.Batch {
			spec.Ranks = 1
		}
		epoch := rapid.Int64Range(0, 3).Draw(t, "epoch")
		seen := map[int64]bool{}
		var total int64
		for spec.Rank = 0; spec.Rank < spec.Ranks; spec.Rank++ {
			o := must(NewOrder(spec))
			n := o.Len(epoch)
			total += n
			for place, sample := range o.At(epoch, 0, n, nil) {
				if sample < 0 || sample >= spec.Samples || seen[sample] {
					t.Fatalf("sample %d is outside or read twice", sample)
				}
				seen[sample] = true
				if at, ok := o.PositionOf(epoch, sample); !ok || at != int64(place) {
					t.Fatalf("sample %d is at %d, PositionOf says %d, %v", sample, place, at, ok)
				}
			}
			for sample := range spec.Samples {
				if at, ok := o.PositionOf(epoch, sample); ok && o.At(epoch, at, 1, nil)[0] != sample {
					t.Fatalf("sample %d is not at %d", sample, at)
				}
			}
		}
		if step := spec.Ranks * spec.Batch; spec.Ranks > 1 && total != spec.Samples/step*step || spec.Ranks == 1 && total != spec.Samples {
			t.Fatalf("%d of %d samples were read", total, spec.Samples)
		}
	})
}

func TestEpochsAndSeedsHaveOrdersOfTheirOwn(t *testing.T) {
	const samples = 10_000
	o, p := must(NewOrder(OrderSpec{Seed: 1, Samples: samples})), must(NewOrder(OrderSpec{Seed: 2, Samples: samples}))
	first := o.At(0, 0, samples, nil)
	for name, other := range map[string][]int64{"epoch": o.At(1, 0, samples, nil), "seed": p.At(0, 0, samples, nil)} {
		equal := 0
		for i := range first {
			if first[i] == other[i] {
				equal++
			}
		}
		if equal > 12 { // one is expected
			t.Errorf("another %s: %d samples at the same place", name, equal)
		}
	}
}

func TestLayoutsCoverAllBytesOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := must(NewLayout(LayoutSpec{
			Samples: rapid.Int64Range(1, 60).Draw(t, "samples"), SampleBytes: rapid.Int64Range(1, 90).Draw(t, "bytes"),
			Spread: rapid.SampledFrom([]float64{0, .7}).Draw(t, "spread"), Seed: rapid.Uint64().Draw(t, "seed"),
			SamplesPerChunk: rapid.Int64Range(0, 9).Draw(t, "a chunk"), ChunkBytes: rapid.Int64Range(1, 300).Draw(t, "chunk bytes"),
		}))
		covered := make([][]int64, l.Chunks()) // the sample of each byte, plus 1
		var sum int64
		for chunk := range covered {
			covered[chunk] = make([]int64, l.ChunkBytes(int64(chunk)))
			sum += l.ChunkBytes(int64(chunk))
		}
		if sum != l.Bytes() {
			t.Fatalf("chunks have %d bytes, the dataset %d", sum, l.Bytes())
		}
		for sample := range l.Samples() {
			pieces, ends, err := l.Pieces([]int64{sample}, nil, nil)
			if err != nil || len(ends) != 1 || int(ends[0]) != len(pieces) {
				t.Fatalf("sample %d: %v, %v, %v", sample, pieces, ends, err)
			}
			for _, p := range pieces {
				for i := p.Offset; i < p.Offset+p.Bytes; i++ {
					if covered[p.Chunk][i] != 0 {
						t.Fatalf("byte %d of chunk %d belongs to two samples", i, p.Chunk)
					}
					covered[p.Chunk][i] = sample + 1
				}
			}
		}
		checkSamplesIn(t, l, covered)
	})
}

// checkSamplesIn compares samplesIn and overlap with the owner of each byte.
func checkSamplesIn(t *rapid.T, l *Layout, covered [][]int64) {
	chunk := rapid.Int64Range(0, l.Chunks()-1).Draw(t, "chunk")
	offset := rapid.Int64Range(0, l.ChunkBytes(chunk)-1).Draw(t, "offset")
	bytes := rapid.Int64Range(1, l.ChunkBytes(chunk)-offset).Draw(t, "range")
	owned := map[int64]int64{}
	for _, owner := range covered[chunk][offset : offset+bytes] {
		owned[owner-1]++
	}
	first, end := l.samplesIn(chunk, offset, bytes)
	if end-first != int64(len(owned)) {
		t.Fatalf("samples [%d, %d) for %v", first, end, owned)
	}
	for sample := first; sample < end; sample++ {
		if l.overlap(sample, chunk, offset, bytes) != owned[sample] {
			t.Fatalf("sample %d: %d bytes, want %d", sample, l.overlap(sample, chunk, offset, bytes), owned[sample])
		}
	}
}

func TestSpecsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, spec := range []OrderSpec{{}, {Samples: 1, Rank: 1}, {Samples: 3, Ranks: 2, Batch: 2}, {Samples: 1, Kind: Windowed}, {Samples: 1, Kind: 9}} {
		if _, err := NewOrder(spec); err == nil {
			t.Errorf("order %+v was taken", spec)
		}
	}
	for _, spec := range []LayoutSpec{
		{}, {Samples: 1, SampleBytes: 1}, {Samples: 1 << 40, SampleBytes: 1 << 40, ChunkBytes: 1},
		{Samples: 1, SampleBytes: 1, ChunkBytes: 1, Spread: -1}, {Samples: 1, SampleBytes: 1, SamplesPerChunk: -1},
	} {
		if _, err := NewLayout(spec); err == nil {
			t.Errorf("layout %+v was taken", spec)
		}
	}
	l := must(NewLayout(LayoutSpec{Samples: 2, SampleBytes: 1, ChunkBytes: 1}))
	if _, _, err := l.Pieces([]int64{2}, nil, nil); err == nil {
		t.Error("a sample outside was found")
	}
}
