package prefetch

import (
	"testing"

	"pgregory.net/rapid"
)

func TestPinTableAgreesWithAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var table pinTable
		model := map[Chunk]int32{}
		chunk := rapid.Custom(func(t *rapid.T) Chunk {
			return Chunk{DatasetID(rapid.IntRange(0, 2).Draw(t, "dataset")), rapid.Int64Range(-1, 30).Draw(t, "number")}
		})
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			c, v := chunk.Draw(t, "chunk"), rapid.Int32Range(0, 3).Draw(t, "value")
			table.put(c, v)
			if model[c] = v; v == 0 {
				delete(model, c)
			}
			if table.used != len(model) {
				t.Fatalf("%d entries, want %d", table.used, len(model))
			}
		}
		for number := int64(-1); number <= 30; number++ {
			for dataset := range DatasetID(3) {
				c := Chunk{dataset, number}
				if got := table.get(c); got != model[c] {
					t.Fatalf("%v: %d, want %d", c, got, model[c])
				}
			}
		}
	})
}

func TestPinsAreCountedAndOutliveAChunk(t *testing.T) {
	k := NewKeeper(0)
	c := Chunk{7, 3}
	k.Unpin(c)
	k.Pin(c)
	k.Pin(c)
	k.Stored(c, 10)
	for range 2 {
		if dropped := keepObey(t, k); len(dropped) != 0 {
			t.Fatalf("%v was dropped though pinned", dropped)
		}
		k.Unpin(c)
	}
	if dropped := keepObey(t, k); len(dropped) != 1 || dropped[0] != c || k.Has(c) || k.Pinned(c) {
		t.Fatalf("dropped %v, want %v", dropped, c)
	}
	k.Pin(c)
	k.Stored(c, 10)
	if dropped := keepObey(t, k); len(dropped) != 0 {
		t.Fatalf("%v was dropped though pinned before it was stored", dropped)
	}
}

func TestPinsOfOthersLowerAThresholdOnlyWhileTheyLast(t *testing.T) {
	k := NewKeeper(1000)
	k.Add(1, 5, 100, 1000, 1) // all of it fits
	for i := range int64(100) {
		k.Stored(Chunk{1, i}, 10)
	}
	for i := range int64(50) {
		k.Pin(Chunk{2, i})
		k.Stored(Chunk{2, i}, 10)
	}
	if dropped := keepObey(t, k); k.Used() > 1000 || len(dropped) < 50 || k.Held(1) < 490 {
		t.Fatalf("%d dropped, %d stored, %d held", len(dropped), k.Used(), k.Held(1))
	}
	for i := range int64(50) {
		k.Unpin(Chunk{2, i})
	}
	for i := range int64(100) {
		if !k.Keeps(Chunk{1, i}) {
			t.Fatalf("chunk %d is not kept though there is room for all", i)
		}
	}
}

func TestADatasetOfPinnedChunksIsLeftAlone(t *testing.T) {
	k := NewKeeper(1000)
	k.Add(1, 5, 1000, 10_000, 1)
	for i := range int64(1000) {
		k.Pin(Chunk{1, i})
		k.Stored(Chunk{1, i}, 10)
	}
	if dropped := keepObey(t, k); len(dropped) != 0 || k.Over() != 9000 {
		t.Fatalf("%d dropped, %d over", len(dropped), k.Over())
	}
}
