package backendtest

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/stokerio/stoker/backend"
)

func partialClauses() []clause {
	return []clause{
		{"blocks that were filled are readable, and the others told to be missing", partsAreReadable},
		{"blocks that are all filled make the chunk whole", partsBecomeWhole},
		{"blocks may be filled in parallel", partsInParallel},
		{"what is missing is appended, and is within the range that is asked of", missingIsWithin},
		{"nothing is missing of a chunk that is whole, all of an unknown one", missingOfWhole},
		{"FillRange refuses what is no whole blocks of the chunk", partsAreBlocks},
		{"a range out of the chunk is OutOfRange to Missing", missingOutOfRange},
		{"a cancelled FillRange or Missing ends with the context's cause", partialCancelled},
		{"a closed store fills no range and misses none", partialAfterClose},
	}
}

// partial is a chunk of three blocks and a bit, and who fills it. Its run is left out, as
// the ability is optional, where the store has none.
type partial struct {
	backend.PartialFiller
	*fixture
	chunk   backend.Chunk
	content []byte
}

const (
	partialBlocks = 4
	partialBytes  = 3*backend.BlockBytes + 5000
)

func (f *fixture) partial(t *testing.T) (p partial, ok bool) {
	filler, ok := backend.As[backend.PartialFiller](f.store)
	if !ok {
		return p, false
	}
	content := make([]byte, partialBytes)
	rand.NewChaCha8([32]byte{2}).Read(content)
	return partial{filler, f, originChunk("in parts", len(content)), content}, true
}

// block is the range of block b.
func (p partial) block(b int) (from, to int64) {
	return int64(b) * backend.BlockBytes, min(partialBytes, int64(b+1)*backend.BlockBytes)
}

func (p partial) fill(t *testing.T, blocks ...int) {
	t.Helper()
	for _, b := range blocks {
		from, to := p.block(b)
		if err := p.FillRange(context.Background(), p.chunk, from, bytes.Clone(p.content[from:to])); err != nil {
			t.Fatalf("fill block %d: %v", b, err)
		}
	}
}

// want checks that exactly these blocks are there.
func (p partial) want(t *testing.T, blocks ...int) {
	t.Helper()
	ctx, sum := context.Background(), int64(0)
	for b := range partialBlocks {
		from, to := p.block(b)
		there := slices.Contains(blocks, b)
		into := poisoned(int(to - from))
		err := p.store.ReadAt(ctx, p.chunk, into, from)
		switch {
		case !there:
			wantKind(t, "read of a missing block", err, backend.NotFound)
		case err != nil || !bytes.Equal(into, p.content[from:to]):
			t.Errorf("read block %d: %v, or wrong bytes", b, err)
		}
		if there {
			sum += to - from
		}
		missing, err := p.Missing(ctx, p.chunk, backend.Range{Offset: from, Length: to - from}, nil)
		if err != nil || len(missing) == 0 != there {
			t.Errorf("block %d: missing %v, %v; want it to be there: %v", b, missing, err, there)
		}
	}
	info, err := p.store.Stat(ctx, p.chunk)
	if len(blocks) == 0 {
		wantKind(t, "stat", err, backend.NotFound)
	} else if err != nil || info.Bytes != sum {
		t.Errorf("stat %+v, %v; want %d bytes", info, err, sum)
	}
}

func partsAreReadable(t *testing.T, f *fixture) {
	p, ok := f.partial(t)
	if !ok {
		return
	}
	p.want(t)
	p.fill(t, 1)
	p.want(t, 1)
	p.fill(t, 3, 1)
	p.want(t, 1, 3)
	missing, err := p.Missing(context.Background(), p.chunk, backend.Range{Length: partialBytes}, nil)
	want := []backend.Range{{Offset: 0, Length: backend.BlockBytes}, {Offset: 2 * backend.BlockBytes, Length: backend.BlockBytes}}
	if err != nil || !slices.Equal(missing, want) {
		t.Errorf("missing %v, %v; want %v", missing, err, want)
	}
	across := []backend.Read{{Chunk: p.chunk, Offset: backend.BlockBytes - 1, P: make([]byte, 2)}}
	wantKind(t, "gather", backend.Gather(context.Background(), f.store, across, nil), backend.NotFound)
}

func partsBecomeWhole(t *testing.T, f *fixture) {
	p, ok := f.partial(t)
	if !ok {
		return
	}
	p.fill(t, 2)
	if err := p.FillRange(context.Background(), p.chunk, 0, p.content[:2*backend.BlockBytes]); err != nil {
		t.Fatal(err)
	}
	if err := p.FillRange(context.Background(), p.chunk, 2*backend.BlockBytes, p.content[2*backend.BlockBytes:]); err != nil {
		t.Fatal(err)
	}
	p.want(t, 0, 1, 2, 3)
	into := poisoned(partialBytes)
	if err := f.store.ReadAt(context.Background(), p.chunk, into, 0); err != nil || !bytes.Equal(into, p.content) {
		t.Errorf("read all: %v, or wrong bytes", err)
	}
	if n := f.count(t, p.chunk.Identity()); n != 1 {
		t.Errorf("the chunk is listed %d times, want once", n)
	}
}

func partsInParallel(t *testing.T, f *fixture) {
	p, ok := f.partial(t)
	if !ok {
		return
	}
	var group sync.WaitGroup
	for worker := range 2 * partialBlocks {
		group.Go(func() {
			from, to := p.block(worker % partialBlocks)
			if err := p.FillRange(context.Background(), p.chunk, from, p.content[from:to]); err != nil {
				t.Errorf("fill: %v", err)
			}
			into := poisoned(int(to - from))
			if err := f.store.ReadAt(context.Background(), p.chunk, into, from); err != nil || !bytes.Equal(into, p.content[from:to]) {
				t.Errorf("read what was just filled: %v, or wrong bytes", err)
			}
		})
	}
	group.Wait()
	p.want(t, 0, 1, 2, 3)
}

func missingIsWithin(t *testing.T, f *fixture) {
	p, ok := f.partial(t)
	if !ok {
		return
	}
	p.fill(t, 1)
	const block = backend.BlockBytes
	before := backend.Range{Offset: 7, Length: 7}
	for _, c := range []struct {
		r    backend.Range
		want []backend.Range
	}{
		{backend.Range{Offset: 10, Length: 20}, []backend.Range{{Offset: 10, Length: 20}}},
		{backend.Range{Offset: block + 10, Length: 20}, nil},
		{backend.Range{Offset: block - 1, Length: 2}, []backend.Range{{Offset: block - 1, Length: 1}}},
		{backend.Range{Offset: block - 1, Length: block + 2}, []backend.Range{{Offset: block - 1, Length: 1}, {Offset: 2 * block, Length: 1}}},
		{backend.Range{Offset: 2*block + 5, Length: block + 10}, []backend.Range{{Offset: 2*block + 5, Length: block + 10}}},
		{backend.Range{Offset: 10}, nil},
		{backend.Range{Offset: partialBytes}, nil},
	} {
		missing, err := p.Missing(context.Background(), p.chunk, c.r, []backend.Range{before})
		if want := append([]backend.Range{before}, c.want...); err != nil || !slices.Equal(missing, want) {
			t.Errorf("of %v missing %v, %v; want %v", c.r, missing, err, want)
		}
	}
}

func missingOfWhole(t *testing.T, f *fixture) {
	p, ok := f.partial(t)
	if !ok {
		return
	}
	for i, c := range f.chunks {
		missing, err := p.Missing(context.Background(), c, backend.Range{Length: c.Size}, nil)
		if err != nil || len(missing) != 0 {
			t.Errorf("of chunk %d missing %v, %v", i, missing, err)
		}
		if err := p.FillRange(context.Background(), c, 0, f.contents[i]); err != nil {
			t.Errorf("fill what is there of chunk %d: %v", i, err)
		}
		f.wantRead(t, i, 0, len(f.contents[i]))
	}
	r := backend.Range{Offset: 3, Length: partialBytes - 3}
	missing, err := p.Missing(context.Background(), p.chunk, r, nil)
	if err != nil || !slices.Equal(missing, []backend.Range{r}) {
		t.Errorf("of an unknown chunk missing %v, %v; want %v", missing, err, r)
	}
}

func partsAreBlocks(t *testing.T, f *fixture) {
	p, ok := f.partial(t)
	if !ok {
		return
	}
	const block = backend.BlockBytes
	for _, r := range [][2]int64{
		{1, block}, {0, block - 1}, {0, 1}, {block, block + 4999}, {-block, 0}, {3 * block, partialBytes + 1},
		{4 * block, 4*block + 1}, {math.MaxInt64 - block + 1, math.MaxInt64 - block + 1}, {partialBytes - 1, partialBytes},
	} {
		err := p.FillRange(context.Background(), p.chunk, r[0], make([]byte, r[1]-r[0]))
		wantKind(t, "fill", err, backend.OutOfRange)
	}
	for _, off := range []int64{0, block} { // none is a number of blocks as well
		if err := p.FillRange(context.Background(), p.chunk, off, nil); err != nil {
			t.Errorf("fill no bytes at %d: %v", off, err)
		}
	}
	p.want(t)
}

func missingOutOfRange(t *testing.T, f *fixture) {
	p, ok := f.partial(t)
	if !ok {
		return
	}
	for range 2 { // while it is unknown, and when it is there
		for _, r := range []backend.Range{
			{Offset: -1, Length: 1}, {Offset: 0, Length: partialBytes + 1}, {Offset: partialBytes, Length: 1}, {Offset: 1, Length: -1},
			{Offset: partialBytes + 1}, {Offset: math.MaxInt64, Length: 1}, {Offset: 1, Length: math.MaxInt64}, {Offset: math.MinInt64, Length: math.MinInt64},
		} {
			_, err := p.Missing(context.Background(), p.chunk, r, nil)
			wantKind(t, "missing", err, backend.OutOfRange)
		}
		p.fill(t, 0)
	}
}

func partialCancelled(t *testing.T, f *fixture) {
	p, ok := f.partial(t)
	if !ok {
		return
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errCause)
	from, to := p.block(0)
	if err := p.FillRange(ctx, p.chunk, from, p.content[from:to]); !errors.Is(err, errCause) {
		t.Errorf("fill: %v, want the context's cause", err)
	}
	if _, err := p.Missing(ctx, p.chunk, backend.Range{Length: 1}, nil); !errors.Is(err, errCause) {
		t.Errorf("missing: %v, want the context's cause", err)
	}
	p.want(t)
}

func partialAfterClose(t *testing.T, f *fixture) {
	p, ok := f.partial(t)
	if !ok {
		return
	}
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	from, to := p.block(0)
	wantKind(t, "fill", p.FillRange(context.Background(), p.chunk, from, p.content[from:to]), backend.Unavailable)
	_, err := p.Missing(context.Background(), p.chunk, backend.Range{Length: 1}, nil)
	wantKind(t, "missing", err, backend.Unavailable)
}
