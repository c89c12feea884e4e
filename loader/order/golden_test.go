package order

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write testdata anew; only together with a new Version")

const goldenFile = "testdata/sequences.json"

// goldenSequences is the form of the golden file.
type goldenSequences struct {
	Version int              `json:"version"`
	Cases   []goldenSequence `json:"cases"`
}

// goldenSequence fixes the order of one epoch.
type goldenSequence struct {
	Spec   Spec    `json:"spec"`
	Epoch  int64   `json:"epoch"`
	First  []int64 `json:"first"`            // samples at the first positions
	Last   []int64 `json:"last"`             // samples at the last positions
	SHA256 string  `json:"sha256,omitempty"` // of all samples as little-endian int64, for short epochs
}

func goldenSpecs() []goldenSequence {
	var cases []goldenSequence
	add := func(spec Spec, epochs ...int64) {
		for _, e := range epochs {
			cases = append(cases, goldenSequence{Spec: spec, Epoch: e})
		}
	}
	for _, n := range []int64{1, 2, 3, 7, 1000, 10485, 65535, 65536, 65537} {
		add(Spec{Kind: Global, Seed: 0, Samples: n}, 0, 1)
	}
	add(Spec{Kind: Global, Seed: 1<<64 - 1, Samples: 1000}, 0, 1<<63-1)
	add(Spec{Kind: Global, Seed: 42, Samples: 1e8}, 0, 3)
	add(Spec{Kind: Global, Seed: 42, Samples: 1e12}, 0, 3)
	add(Spec{Kind: Windowed, Seed: 7, Samples: 1000, Window: 64}, 0, 1)
	add(Spec{Kind: Windowed, Seed: 7, Samples: 1000, Window: 1000}, 0)
	add(Spec{Kind: Windowed, Seed: 7, Samples: 10, Window: 4}, 0, 1, 2)
	add(Spec{Kind: Windowed, Seed: 7, Samples: 1e9, Window: 65536}, 0, 9)
	add(Spec{Kind: Sequential, Seed: 7, Samples: 100}, 0, 1)
	return cases
}

func (g *goldenSequence) fill(t *testing.T) {
	p := mustNew(t, g.Spec).Epoch(g.Epoch)
	count := min(g.Spec.Samples, 16)
	for i := range count {
		g.First = append(g.First, p.At(i))
		g.Last = append(g.Last, p.At(g.Spec.Samples-count+i))
	}
	if g.Spec.Samples > 100000 {
		return
	}
	var all []byte
	for i := range g.Spec.Samples {
		all = binary.LittleEndian.AppendUint64(all, uint64(p.At(i)))
	}
	sum := sha256.Sum256(all)
	g.SHA256 = hex.EncodeToString(sum[:])
}

func TestSequencesAreThoseOfThisVersion(t *testing.T) {
	now := goldenSequences{Version: Version, Cases: goldenSpecs()}
	for i := range now.Cases {
		now.Cases[i].fill(t)
	}
	got := encodeGolden(t, now)
	if *update {
		if err := os.WriteFile(goldenFile, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(got, want) {
		return
	}
	var committed goldenSequences
	if err := json.Unmarshal(want, &committed); err != nil {
		t.Fatalf("%s: %v", goldenFile, err)
	}
	if committed.Version != Version {
		t.Fatalf("%s is of version %d, the package of version %d: run this test with -update", goldenFile, committed.Version, Version)
	}
	for i := range min(len(committed.Cases), len(now.Cases)) {
		if a, b := encodeGolden(t, committed.Cases[i]), encodeGolden(t, now.Cases[i]); !bytes.Equal(a, b) {
			t.Errorf("sequence changed: was %s now %s", a, b)
		}
	}
	t.Error("sequences differ from the committed ones, on which checkpoints of users rest: undo that, or raise Version and run with -update")
}

func encodeGolden(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.ReplaceAll(b, []byte(`{"spec"`), []byte("\n  {\"spec\""))
	return append(b, '\n')
}
