package tar

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stokerio/stoker/backend"
)

// sparseFile adds a member with a map of version 0.1.
func (a *archive) sparseFile(name string, size int, runs, data string) *archive {
	return a.pax('x', fmt.Sprintf("GNU.sparse.size=%d", size), "GNU.sparse.map="+strings.TrimSuffix(runs, ",")).file(name, data)
}

// manyRuns is a map of n runs of one byte each.
func manyRuns(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%d,1,", 2*i)
	}
	return b.String()
}

func TestRunsOfNoBytesAreDropped(t *testing.T) {
	b := new(archive).sparseFile("a.x", 9, strings.Repeat("0,0,", 130_000), "").
		sparseFile("b.x", 9, "0,0,1,2,3,0,3,0,5,1,9,0", "123").
		sparseFile("c.x", 4, "0,0,4,0", "").end()
	s := NewSamples(NewWalker(&memory{b: b}))
	for _, want := range [][]SparseRun{
		{{Offset: 9}}, {{Offset: 1, Length: 2}, {Offset: 5, Length: 1, Data: 2}}, {{Offset: 4}},
	} {
		sample, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		p := sample.Parts[0]
		for i := range want {
			want[i].Data += p.Data
		}
		if fmt.Sprint(p.Sparse) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", sample.Key, p.Sparse, want)
		}
	}
}

// A map of 1 MiB that says nothing is a few bytes of a compressed archive.
func TestEmptyRunsTakeNoMemoryOfAShard(t *testing.T) {
	runs := strings.Repeat("0,0,", 130_000)
	var a archive
	for i := range 12 {
		a.sparseFile(fmt.Sprintf("%02d.x", i), 0, runs, "")
	}
	b := a.end()
	p := &piece{shard: &shardWalk{scanner: &scanner{}, ctx: t.Context(), object: &backend.Object{}, plain: true}, beside: &sidecar{}, encoder: newEncoder(), to: -1}
	if err := p.walk(&memory{b: b}); err != nil {
		t.Fatal(err)
	}
	kept := 0
	for _, part := range p.sparse {
		kept += cap(part.Runs)
	}
	if len(p.sparse) != 12 || kept > 4*12 {
		t.Errorf("%d runs of %d members are kept", kept, len(p.sparse))
	}
	if s := scanShards(t, shards(t, map[string][]byte{"a.tar.gz": gzipped(t, b)}), Options{}); s.info.Samples != 12 {
		t.Errorf("%d samples", s.info.Samples)
	}
}

func TestMoreRunsThanAShardMayHaveAreRefused(t *testing.T) {
	const each = 60_000 // a map of less than 1 MiB
	runs, data := manyRuns(each), strings.Repeat("d", each)
	var a archive
	for i := range maxShardRuns/each + 1 {
		a.sparseFile(fmt.Sprintf("%02d.x", i), 2*each, runs, data)
	}
	store := shards(t, map[string][]byte{"a.tar.gz": gzipped(t, a.end()), "b.tar": archiveOf("a.x")})
	_, err := Scan(t.Context(), store, Options{}, t.TempDir(), nil)
	if backend.KindOf(err) != backend.Invalid || !strings.Contains(err.Error(), "a.tar.gz") || !strings.Contains(err.Error(), "runs of bytes") || backend.RemedyOf(err) == "" {
		t.Errorf("%v", err)
	}
	if s := scanShards(t, store, Options{Bad: BadSkip}); s.info.Samples != 1 || s.info.Skipped[SkippedUnsupported] != 1 {
		t.Errorf("%d samples, %v", s.info.Samples, s.info.Skipped)
	}
}

func TestMoreRunsThanASampleMayHaveAreRefused(t *testing.T) {
	const each = 60_000
	runs, data := manyRuns(each), strings.Repeat("d", each)
	var a archive
	for i := range maxSampleRuns/each + 1 {
		a.sparseFile(fmt.Sprintf("a.%d", i), 2*each, runs, data)
	}
	s := NewSamples(NewWalker(&memory{b: a.end()}))
	_, err := s.Next()
	if backend.KindOf(err) != backend.Corrupt || !strings.Contains(err.Error(), "--sparse") || len(s.both[0].runs) > maxSampleRuns {
		t.Errorf("%d runs, %v", len(s.both[0].runs), err)
	}
}
