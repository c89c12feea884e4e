package backendtest

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"github.com/stokerio/stoker/backend"
)

func readClauses() []clause {
	return []clause{
		{"a read is whole", readsWhole},
		{"a read out of the chunk's range is OutOfRange", outOfRange},
		{"an unknown chunk is NotFound", unknownIsNotFound},
		{"calls may run in parallel, also on one chunk", parallelReads},
		{"a cancelled call ends with the context's cause", cancelled},
		{"the store keeps no buffer and no name after the call", keepsNothing},
		{"Stat tells the chunk's size", statTells},
		{"List visits every chunk once", listsAll},
		{"List ends with what visit returns", listStops},
	}
}

func readsWhole(t *testing.T, f *fixture) {
	for i, content := range f.contents {
		size := len(content)
		f.wantRead(t, i, 0, size)
		f.wantRead(t, i, size, size)
		f.wantRead(t, i, size/2, size)
		f.wantRead(t, i, size/3, size/2)
		f.wantRead(t, i, max(0, size-1), size)
	}
}

func outOfRange(t *testing.T, f *fixture) {
	size := int64(len(f.contents[large]))
	for _, r := range []struct{ off, length int64 }{
		{0, size + 1}, {1, size}, {size, 1}, {size + 1, 0}, {-1, 1}, {-1, 0},
		{math.MaxInt64, 1}, {math.MaxInt64 - 1, 2}, {math.MinInt64, 1},
	} {
		p := poisoned(int(r.length))
		err := f.store.ReadAt(context.Background(), f.chunks[large], p, r.off)
		wantKind(t, "read", err, backend.OutOfRange)
		reads := []backend.Read{{Chunk: f.chunks[large], Offset: r.off, P: p}}
		wantKind(t, "gather", backend.Gather(context.Background(), f.store, reads, new(backend.GatherReport)), backend.OutOfRange)
	}
	f.wantRead(t, large, 0, int(size))
}

func unknownIsNotFound(t *testing.T, f *fixture) {
	wantKind(t, "read", f.store.ReadAt(context.Background(), missing(), make([]byte, 1), 0), backend.NotFound)
	_, err := f.store.Stat(context.Background(), missing())
	wantKind(t, "stat", err, backend.NotFound)
}

func parallelReads(t *testing.T, f *fixture) {
	var group sync.WaitGroup
	for reader := range 8 {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(reader), 1))
			for range 50 {
				from := random.IntN(len(f.contents[large]))
				f.wantRead(t, large, from, from+random.IntN(len(f.contents[large])-from))
				i := random.IntN(len(f.contents))
				f.wantRead(t, i, 0, len(f.contents[i]))
			}
		})
	}
	group.Wait()
}

var errCause = errors.New("the test's cause")

func cancelled(t *testing.T, f *fixture) {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errCause)
	c, p := f.chunks[large], make([]byte, 8)
	_, statErr := f.store.Stat(ctx, c)
	for what, err := range map[string]error{
		"read":   f.store.ReadAt(ctx, c, p, 0),
		"stat":   statErr,
		"list":   f.store.List(ctx, func(backend.Info) error { return nil }),
		"gather": backend.Gather(ctx, f.store, []backend.Read{{Chunk: c, P: p}}, new(backend.GatherReport)),
	} {
		if !errors.Is(err, errCause) {
			t.Errorf("%s: %v, want the context's cause", what, err)
		}
	}
	f.wantRead(t, large, 0, len(f.contents[large]))
}

func keepsNothing(t *testing.T, f *fixture) {
	c := f.chunks[large]
	if c.Object != nil {
		o := *c.Object
		o.Name = bytes.Clone(o.Name)
		c.Object = &o
	}
	p := make([]byte, len(f.contents[large]))
	for range 2 {
		if err := f.store.ReadAt(context.Background(), c, p, 0); err != nil {
			t.Fatal(err)
		}
	}
	clear(p)
	if c.Object != nil {
		clear(c.Object.Name)
	}
	f.warmKeepsNothing(t)
	f.wantRead(t, large, 0, len(f.contents[large]))
	if !bytes.Equal(p, make([]byte, len(p))) {
		t.Error("the store wrote to a buffer after its call")
	}
}

func statTells(t *testing.T, f *fixture) {
	for i, c := range f.chunks {
		info, err := f.store.Stat(context.Background(), c)
		if err != nil {
			t.Fatalf("chunk %d: %v", i, err)
		}
		if info.Chunk.Identity() != c.Identity() || info.Bytes != int64(len(f.contents[i])) {
			t.Errorf("chunk %d: stat %+v, want %d bytes", i, info, len(f.contents[i]))
		}
	}
}

func listsAll(t *testing.T, f *fixture) {
	found := map[backend.ChunkID]int{}
	err := f.store.List(context.Background(), func(i backend.Info) error {
		found[i.Chunk.Identity()]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range f.chunks {
		if found[c.Identity()] != 1 {
			t.Errorf("chunk %d was listed %d times, want once", i, found[c.Identity()])
		}
	}
	if len(found) != len(f.chunks) {
		t.Errorf("%d chunks were listed, want %d", len(found), len(f.chunks))
	}
}

func listStops(t *testing.T, f *fixture) {
	visits := 0
	err := f.store.List(context.Background(), func(backend.Info) error {
		visits++
		return errCause
	})
	if !errors.Is(err, errCause) || visits != 1 {
		t.Errorf("list: %v after %d visits, want visit's error after 1", err, visits)
	}
}

func abilityClauses() []clause {
	return []clause{
		{"Gather equals ReadAt for every read", gatherEqualsReadAt},
		{"a gather's report adds up to its bytes", reportAddsUp},
		{"the first error ends a gather", gatherFails},
		{"a series of reads equals ReadAt", seriesEqualsReadAt},
		{"abilities are found through wrappers", abilitiesThroughWrappers},
		{"a Location holds the chunk's bytes until its Release", locationHolds},
	}
}

// randomReads returns n reads all over the chunks and the bytes they must give.
func (f *fixture) randomReads(n int) (reads []backend.Read, want [][]byte) {
	random := rand.New(rand.NewPCG(7, 7))
	for range n {
		i := random.IntN(len(f.chunks))
		from := random.IntN(len(f.contents[i]) + 1)
		to := from + random.IntN(len(f.contents[i])-from+1)
		reads = append(reads, backend.Read{Chunk: f.chunks[i], Offset: int64(from), P: poisoned(to - from)})
		want = append(want, f.contents[i][from:to])
	}
	return reads, want
}

func gatherEqualsReadAt(t *testing.T, f *fixture) {
	for _, n := range []int{0, 1, 2, 64, 300} {
		reads, want := f.randomReads(n)
		if err := backend.Gather(context.Background(), f.store, reads, new(backend.GatherReport)); err != nil {
			t.Fatalf("%d reads: %v", n, err)
		}
		for i := range reads {
			if !bytes.Equal(reads[i].P, want[i]) {
				t.Fatalf("%d reads: read %d gave wrong bytes", n, i)
			}
		}
	}
}

func reportAddsUp(t *testing.T, f *fixture) {
	reads, want := f.randomReads(50)
	report := backend.GatherReport{CachedBytes: 1, DiskBytes: 1, DiskReads: 1}
	if err := backend.Gather(context.Background(), f.store, reads, &report); err != nil {
		t.Fatal(err)
	}
	total := int64(2)
	for _, w := range want {
		total += int64(len(w))
	}
	if report.CachedBytes+report.DiskBytes != total {
		t.Errorf("report %+v, want %d bytes together with the 2 of before", report, total)
	}
	if report.DiskReads < 1 || report.DiskReads > 51 {
		t.Errorf("report %+v, want 1 to 51 disk reads", report)
	}
	waited := int64(0)
	for i := range reads {
		if reads[i].WaitNs < 0 || reads[i].WaitNs > report.SlowestNs {
			t.Errorf("read %d was waited for %d ns, the slowest for %d", i, reads[i].WaitNs, report.SlowestNs)
		}
		if reads[i].WaitNs > 0 {
			waited++
		}
	}
	if waited > report.DiskReads-1 {
		t.Errorf("%d reads were waited for, and %d were made from disk", waited, report.DiskReads-1)
	}
}

func gatherFails(t *testing.T, f *fixture) {
	reads, _ := f.randomReads(20)
	reads[10].Chunk = missing()
	wantKind(t, "gather", backend.Gather(context.Background(), f.store, reads, new(backend.GatherReport)), backend.NotFound)
}

func seriesEqualsReadAt(t *testing.T, f *fixture) {
	random := rand.New(rand.NewPCG(11, 11))
	for i, c := range f.chunks {
		if c.Object == nil {
			continue // only objects can be opened
		}
		r, err := backend.OpenObject(context.Background(), f.store, c.Object)
		if err != nil {
			t.Fatalf("open the object of chunk %d: %v", i, err)
		}
		for range 10 {
			from := random.IntN(len(f.contents[i]) + 1)
			p := poisoned(random.IntN(len(f.contents[i]) - from + 1))
			if err := r.ReadAt(p, c.Start+int64(from)); err != nil {
				t.Fatalf("chunk %d: read %d bytes from %d: %v", i, len(p), from, err)
			}
			if !bytes.Equal(p, f.contents[i][from:from+len(p)]) {
				t.Fatalf("chunk %d: read %d bytes from %d gave wrong bytes", i, len(p), from)
			}
		}
		if err := r.Close(); err != nil {
			t.Errorf("close the object of chunk %d: %v", i, err)
		}
		beyond, err := backend.OpenObject(context.Background(), f.store, c.Object)
		if err != nil {
			t.Fatal(err)
		}
		wantKind(t, "read beyond the end", beyond.ReadAt(make([]byte, 1), c.Object.Version.Size), backend.OutOfRange)
		_ = beyond.Close() // after an error there is nothing to compare
	}
}

func abilitiesThroughWrappers(t *testing.T, f *fixture) {
	twice := Wrap(Wrap(f.store))
	sameAbility[backend.Gatherer](t, f.store, twice)
	sameAbility[backend.Locator](t, f.store, twice)
	sameAbility[backend.Lister](t, f.store, twice)
	sameAbility[backend.Opener](t, f.store, twice)
	sameAbility[backend.Warmer](t, f.store, twice)
	sameAbility[backend.PartialFiller](t, f.store, twice)
}

func sameAbility[T any](t *testing.T, bare, wrapped backend.Store) {
	_, has := backend.As[T](bare)
	_, found := backend.As[T](wrapped)
	if has != found {
		t.Errorf("ability %T: bare %v, wrapped %v", new(T), has, found)
	}
}

func locationHolds(t *testing.T, f *fixture) {
	locator, ok := backend.As[backend.Locator](f.store)
	if !ok {
		return // the ability is optional
	}
	for i, c := range f.chunks {
		size := int64(len(f.contents[i]))
		r := backend.Range{Offset: size / 3, Length: size - size/3}
		at, err := locator.Locate(context.Background(), c, r)
		if backend.KindOf(err) == backend.NotFound {
			continue
		}
		if err != nil {
			t.Fatalf("chunk %d: %v", i, err)
		}
		content, err := os.ReadFile(at.Path)
		if err != nil {
			t.Fatalf("chunk %d: %v", i, err)
		}
		if !bytes.Equal(content[at.Offset:at.Offset+r.Length], f.contents[i][r.Offset:]) {
			t.Errorf("chunk %d: other bytes at %s, %d", i, at.Path, at.Offset)
		}
		at.Release()
		_, err = locator.Locate(context.Background(), c, backend.Range{Offset: size, Length: 1})
		wantKind(t, "locate", err, backend.OutOfRange)
	}
	_, err := locator.Locate(context.Background(), missing(), backend.Range{})
	wantKind(t, "locate", err, backend.NotFound)
}
