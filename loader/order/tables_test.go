package order

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

var torchSpec = Spec{Kind: Torch, Seed: 42, Samples: 3*quantum + 7}

func mustAcquire(t testing.TB, tables *Tables, spec Spec, epoch int64) *Table {
	t.Helper()
	table, err := tables.Acquire(context.Background(), spec, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestEqualTablesAreShared(t *testing.T) {
	tables := NewTables(1 << 20)
	a := mustAcquire(t, tables, Spec{Kind: Torch, Seed: 3, Samples: 100}, 2)
	for _, same := range []struct {
		spec  Spec
		epoch int64
	}{
		{Spec{Kind: Torch, Seed: 3, Samples: 100}, 2},
		{Spec{Kind: Torch, Seed: 5, Samples: 100}, 0},         // seed + epoch
		{Spec{Kind: Torch, Seed: 1<<32 + 4, Samples: 100}, 1}, // its lower 32 bits
	} {
		b := mustAcquire(t, tables, same.spec, same.epoch)
		if a.Permutation() != b.Permutation() || tables.Used() != 400 {
			t.Errorf("%+v epoch %d: another table, %d bytes in use", same.spec, same.epoch, tables.Used())
		}
		b.Release()
		b.Release() // the second one is nothing
	}
	other := mustAcquire(t, tables, Spec{Kind: Numpy, Seed: 5, Samples: 100}, 0)
	if tables.Used() != 800 {
		t.Errorf("%d bytes in use by two tables", tables.Used())
	}
	p := a.Permutation()
	a.Release()
	other.Release()
	if tables.Used() != 0 {
		t.Errorf("%d bytes in use by none", tables.Used())
	}
	checkBijective(t, p) // its memory stays as long as it is used
}

// stopping is a context that ends after its Err was asked some times.
type stopping struct {
	context.Context
	left int
}

func (s *stopping) Err() error {
	if s.left--; s.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestAnotherGoesOnWithATableThatWasGivenUp(t *testing.T) {
	want := samplesOf(mustAcquire(t, NewTables(1<<20), torchSpec, 0).Permutation())
	for left := range 6 {
		tables := NewTables(1 << 20)
		key, err := torchSpec.key(0)
		if err != nil {
			t.Fatal(err)
		}
		waiting, err := tables.hold(key) // by one that waits meanwhile
		if err != nil {
			t.Fatal(err)
		}
		table, err := tables.Acquire(&stopping{context.Background(), left}, torchSpec, 0)
		if finished := left == 5; finished != (err == nil) || err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("%d steps: %v", left, err)
		}
		if err == nil {
			table.Release()
		}
		if left > 0 && waiting.drawing.filled == 0 {
			t.Errorf("%d steps left nothing", left)
		}
		if got := samplesOf(mustAcquire(t, tables, torchSpec, 0).Permutation()); !slices.Equal(got, want) {
			t.Errorf("given up after %d steps and gone on with: another order", left)
		}
	}
}

func TestATableThatIsGivenUpTakesNoMemory(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	tables := NewTables(1 << 20)
	if _, err := tables.Acquire(ctx, torchSpec, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if tables.Used() != 0 {
		t.Errorf("%d bytes in use", tables.Used())
	}
}

func TestMakingATableHoldsNobodyElseUp(t *testing.T) {
	tables := NewTables(1 << 20)
	key, err := torchSpec.key(1)
	if err != nil {
		t.Fatal(err)
	}
	busy, err := tables.hold(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := busy.enter(context.Background()); err != nil { // somebody makes it, and takes his time
		t.Fatal(err)
	}
	mustAcquire(t, tables, Spec{Kind: Torch, Samples: 10}, 0).Release()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := tables.Acquire(ctx, torchSpec, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for a busy table ends with %v", err)
	}
	busy.leave()
	mustAcquire(t, tables, torchSpec, 1).Release()
}

func TestTablesStayBelowTheirLimit(t *testing.T) {
	spec := Spec{Kind: Torch, Samples: 100}
	tables := NewTables(1000)
	a, b := mustAcquire(t, tables, spec, 0), mustAcquire(t, tables, spec, 1)
	var limit *LimitError
	if _, err := tables.Acquire(context.Background(), spec, 2); !errors.As(err, &limit) || *limit != (LimitError{400, 800, 1000}) {
		t.Errorf("a third of 400 bytes in 1000: %v", err)
	}
	if err := a.Invert(context.Background()); !errors.As(err, &limit) {
		t.Errorf("an inverse of 400 bytes in 200: %v", err)
	}
	b.Release()
	for range 2 {
		if err := a.Invert(context.Background()); err != nil {
			t.Error(err)
		}
	}
	if tables.Used() != 800 {
		t.Errorf("%d bytes in use by a table and its inverse", tables.Used())
	}
	a.Release()
	if tables.Used() != 0 {
		t.Errorf("%d bytes in use", tables.Used())
	}
}

func TestInvertedTablesFindTheirSamples(t *testing.T) {
	tables := NewTables(1 << 22)
	for _, n := range []int64{1, 2, 1000} {
		table := mustAcquire(t, tables, Spec{Kind: Numpy, Seed: 1, Samples: n}, 0)
		p := table.Permutation()
		checkBijective(t, p)
		if err := table.Invert(context.Background()); err != nil {
			t.Fatal(err)
		}
		checkBijective(t, p)
		table.Release()
	}
	table := mustAcquire(t, tables, torchSpec, 0)
	if err := table.Invert(&stopping{context.Background(), 2}); !errors.Is(err, context.Canceled) {
		t.Errorf("an interrupted inversion ends with %v", err)
	}
	if want := torchSpec.TableBytes(); tables.Used() != want {
		t.Errorf("%d bytes in use after an interrupted inversion, want %d", tables.Used(), want)
	}
	if err := table.Invert(context.Background()); err != nil {
		t.Fatal(err)
	}
	checkBijective(t, table.Permutation())
}

func TestTablesServeManyAtOnce(t *testing.T) {
	const workers, rounds = 8, 60
	spec := func(seed uint64) Spec { return Spec{Kind: Torch, Seed: seed, Samples: quantum + 100} }
	var want [5]int64
	for seed := range want {
		want[seed] = mustAcquire(t, NewTables(1<<30), spec(uint64(seed)), 0).Permutation().At(17)
	}
	tables := NewTables(4 * spec(0).TableBytes())
	var all sync.WaitGroup
	for worker := range workers {
		all.Go(func() {
			dice := rand.New(rand.NewPCG(1, uint64(worker)))
			for range rounds {
				seed := dice.Uint64N(5)
				table, err := tables.Acquire(&stopping{context.Background(), dice.IntN(6)}, spec(seed), 0)
				var limit *LimitError
				if err != nil {
					if !errors.Is(err, context.Canceled) && !errors.As(err, &limit) {
						t.Errorf("acquire: %v", err)
					}
					continue
				}
				if got := table.Permutation().At(17); got != want[seed] {
					t.Errorf("seed %d: sample %d, want %d", seed, got, want[seed])
				}
				if err := table.Invert(context.Background()); err == nil {
					if got := table.Permutation().PositionOf(want[seed]); got != 17 {
						t.Errorf("seed %d: position %d", seed, got)
					}
				}
				if used := tables.Used(); used > tables.Limit() {
					t.Errorf("%d bytes in use of %d", used, tables.Limit())
				}
				table.Release()
			}
		})
	}
	all.Wait()
	if tables.Used() != 0 || len(tables.mu.entries) != 0 {
		t.Errorf("%d bytes and %d tables are left", tables.Used(), len(tables.mu.entries))
	}
}

func TestListsGiveTheirIndices(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		samples := rapid.Int64Range(1, 50).Draw(t, "samples")
		indices := rapid.SliceOfN(rapid.Int64Range(0, samples-1), 1, 80).Draw(t, "indices")
		list, err := NewList(samples, indices)
		if err != nil {
			t.Fatal(err)
		}
		if list.Len() != int64(len(indices)) || !slices.Equal(samplesOf(list.Epoch(3)), indices) {
			t.Fatalf("the list is %v", samplesOf(list.Epoch(3)))
		}
		for range 2 {
			for sample := range samples {
				position, ok := list.Epoch(0).Find(sample)
				if want := slices.Index(indices, sample); ok != (want >= 0) || ok && position != int64(want) {
					t.Fatalf("sample %d: position %d, %v", sample, position, ok)
				}
			}
			if err := list.Invert(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestListsRefuseWhatNamesNoSamples(t *testing.T) {
	for _, c := range []struct {
		samples int64
		indices []int64
	}{
		{0, []int64{0}}, {MaxTableSamples + 1, []int64{0}}, {5, nil}, {5, []int64{4, 5}}, {5, []int64{-1}}, {1, []int64{1 << 40}},
	} {
		if _, err := NewList(c.samples, c.indices); err == nil {
			t.Errorf("%v of %d samples makes a list", c.indices, c.samples)
		}
	}
}

func TestPlacesOutsideATablePanic(t *testing.T) {
	list, err := NewList(10, []int64{3, 5})
	if err != nil {
		t.Fatal(err)
	}
	p := list.Epoch(0)
	for name, do := range map[string]func(){
		"At(2)": func() { p.At(2) }, "At(-1)": func() { p.At(-1) }, "PositionOf(10)": func() { p.PositionOf(10) },
		"PositionOf(4)": func() { p.PositionOf(4) }, "Find(-1)": func() { p.Find(-1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s does not panic", name)
				}
			}()
			do()
		}()
	}
}
