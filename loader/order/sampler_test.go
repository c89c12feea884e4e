package order

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// samplerCase is one case of testdata/samplers.json, which torch and numpy wrote.
type samplerCase struct {
	Spec    Spec        `json:"spec"`
	Epoch   int64       `json:"epoch"`
	Share   *sharedCase `json:"share,omitempty"`
	First   []int64     `json:"first"`
	Last    []int64     `json:"last"`
	SHA256  string      `json:"sha256"` // of all samples as little-endian int64
	Batches []int64     `json:"batches"`
}

// sharedCase is a padded share in JSON.
type sharedCase struct {
	Rank      int  `json:"rank"`
	WorldSize int  `json:"world_size"`
	BatchSize int  `json:"batch_size"`
	DropLast  bool `json:"drop_last"`
}

func (c *sharedCase) share() Share {
	return Share{Rank: c.Rank, WorldSize: c.WorldSize, BatchSize: c.BatchSize, DropLast: c.DropLast, Padded: true}
}

// permutationOf returns the order of an epoch, of a table if its kind has tables.
func permutationOf(t testing.TB, tables *Tables, spec Spec, epoch int64) Permutation {
	t.Helper()
	if !spec.Kind.Tabled() {
		return mustNew(t, spec).Epoch(epoch)
	}
	table, err := tables.Acquire(context.Background(), spec, epoch)
	if err != nil {
		t.Fatalf("%+v: %v", spec, err)
	}
	t.Cleanup(table.Release)
	return table.Permutation()
}

func samplesOf(p Permutation) []int64 {
	samples := make([]int64, p.Len())
	for i := range samples {
		samples[i] = p.At(int64(i))
	}
	return samples
}

// batchesOf reads an epoch to its end.
func batchesOf(p Permutation, share Share) [][]int64 {
	batches := [][]int64{}
	for consumed := int64(0); ; {
		step, more := share.Next(p.Len(), consumed)
		if !more {
			return batches
		}
		var batch []int64
		for i := range step.Length {
			batch = append(batch, p.At(step.Position(i, p.Len())))
		}
		batches, consumed = append(batches, batch), step.Consumed
	}
}

func digest(samples []int64) string {
	var all []byte
	for _, s := range samples {
		all = binary.LittleEndian.AppendUint64(all, uint64(s))
	}
	sum := sha256.Sum256(all)
	return hex.EncodeToString(sum[:])
}

func TestSamplersGiveWhatTheLibrariesGave(t *testing.T) {
	text, err := os.ReadFile("testdata/samplers.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cases []samplerCase `json:"cases"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) < 300 {
		t.Fatalf("%d cases", len(file.Cases))
	}
	tables := NewTables(1 << 30)
	for _, c := range file.Cases {
		p := permutationOf(t, tables, c.Spec, c.Epoch)
		samples := samplesOf(p)
		if c.Share != nil {
			batches := batchesOf(p, c.Share.share())
			samples = slices.Concat(batches...)
			var lengths []int64
			for _, batch := range batches {
				lengths = append(lengths, int64(len(batch)))
			}
			if !slices.Equal(lengths, c.Batches) {
				t.Errorf("%+v epoch %d share %+v: batches of %v, want %v", c.Spec, c.Epoch, *c.Share, lengths, c.Batches)
			}
		}
		if digest(samples) != c.SHA256 {
			t.Errorf("%+v epoch %d share %+v: begins %v, want %v", c.Spec, c.Epoch, c.Share, samples[:min(12, len(samples))], c.First)
		}
	}
}

func TestTheGeneratorSkipsWords(t *testing.T) {
	var all []uint32
	var m mt19937
	m.seed(5489)
	for range 3 * words {
		all = append(all, m.word())
	}
	if all[0] != 3499211612 { // the first word of the authors' program
		t.Errorf("first word %d", all[0])
	}
	for _, before := range []int{0, 1, words - 1, words} {
		for _, n := range []int{0, 1, 5, words - 1, words, words + 1, 2*words - 1} {
			m.seed(5489)
			for range before {
				m.word()
			}
			m.skip(int64(n))
			if got := m.word(); got != all[before+n] {
				t.Errorf("word %d after skipping %d: %d, want %d", before, n, got, all[before+n])
			}
		}
	}
}

func TestTorchDrawsLongsFromTwentiethOfTheWordsOn(t *testing.T) {
	for n, words := range map[int64]int64{1: 0, 2: 1, 214_748_363: 214_748_362, 214_748_364: 429_496_728} {
		key := tableKey{kind: Torch, samples: n}
		if got := key.drawWords(); got != words {
			t.Errorf("%d samples take %d words, want %d", n, got, words)
		}
	}
}

// Whoever holds an epoch of a generator that goes on gets the next one without drawing
// again what came before; the result must not depend on that.
func TestEpochsThatGoOnAreThoseFromTheStart(t *testing.T) {
	for _, spec := range []Spec{
		{Kind: Torch, Seeding: SeedOnce}, {Kind: Torch, Seeding: SeedLoader}, {Kind: Torch, Seeding: SeedLoaderPersistent},
		{Kind: Torch, Seeding: SeedLoaderGenerator}, {Kind: Numpy, Seeding: SeedOnce}, {Kind: Numpy, Seeding: SeedInPlace},
	} {
		spec.Seed, spec.Samples = 9, 700
		held, fresh := NewTables(1<<20), NewTables(1<<20)
		for epoch := range int64(6) {
			on := samplesOf(permutationOf(t, held, spec, epoch))
			again, err := fresh.Acquire(context.Background(), spec, epoch)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(on, samplesOf(again.Permutation())) {
				t.Errorf("%+v: epoch %d differs", spec, epoch)
			}
			again.Release()
		}
	}
}

func TestTabledSpecsSayWhatIsWrong(t *testing.T) {
	tables := NewTables(1 << 20)
	for _, c := range []struct {
		spec  Spec
		epoch int64
		want  string
	}{
		{Spec{Kind: Torch, Samples: 0}, 0, "at least 1"},
		{Spec{Kind: Torch, Samples: MaxTableSamples + 1}, 0, "at most 4294967296"},
		{Spec{Kind: Torch, Samples: 1 << 19}, 0, "needs 2097152 bytes"},
		{Spec{Kind: Torch, Samples: 10}, -1, "epoch -1"},
		{Spec{Kind: Torch, Samples: 10, Seeding: SeedInPlace}, 0, `not seeded as "in_place"`},
		{Spec{Kind: Torch, Samples: 10, Seeding: "fifo"}, 0, `not seeded as "fifo"`},
		{Spec{Kind: Torch, Samples: 1000, Seeding: SeedOnce}, 1 << 40, "too far"},
		{Spec{Kind: Torch, Samples: 10, Seeding: SeedLoader}, 1 << 40, "too far"},
		{Spec{Kind: Numpy, Samples: 10, Seeding: SeedLoader}, 0, `not seeded as "loader"`},
		{Spec{Kind: Numpy, Samples: 10, Seed: 1 << 32}, 0, "numpy takes seeds"},
		{Spec{Kind: Numpy, Samples: 10, Seed: 1<<32 - 1}, 1, "numpy takes seeds"},
		{Spec{Kind: Global, Samples: 10}, 0, "use New"},
		{Spec{Kind: Listed, Samples: 10}, 0, "use New"},
	} {
		if _, err := tables.Acquire(context.Background(), c.spec, c.epoch); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v epoch %d: error %v, want one with %q", c.spec, c.epoch, err, c.want)
		}
	}
	if used := tables.Used(); used != 0 {
		t.Errorf("%d bytes in use by what was refused", used)
	}
	for _, kind := range []Kind{Torch, Numpy, Listed} {
		if _, err := New(Spec{Kind: kind, Samples: 10}); err == nil {
			t.Errorf("New makes %q", kind)
		}
	}
}

func BenchmarkTable(b *testing.B) {
	for _, kind := range []Kind{Torch, Numpy} {
		for _, n := range []int64{1_281_167, 1e7} {
			b.Run(fmt.Sprintf("kind=%s/samples=%d", kind, n), func(b *testing.B) {
				tables := NewTables(1 << 30)
				b.SetBytes(tableBytes(n))
				for b.Loop() {
					table, err := tables.Acquire(context.Background(), Spec{Kind: kind, Seed: 42, Samples: n}, 0)
					if err != nil {
						b.Fatal(err)
					}
					table.Release()
				}
			})
		}
	}
}

func BenchmarkTableAt(b *testing.B) {
	for _, n := range []int64{1e4, 1e7} {
		b.Run(fmt.Sprintf("kind=torch/samples=%d", n), func(b *testing.B) {
			p := permutationOf(b, NewTables(1<<30), Spec{Kind: Torch, Samples: n}, 0)
			sum, i := int64(0), int64(0)
			for b.Loop() {
				sum += p.At(i)
				if i++; i == n {
					i = 0
				}
			}
			_ = sum
		})
	}
}
