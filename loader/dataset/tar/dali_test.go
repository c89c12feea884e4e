package tar

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stokerio/stoker/backend"
)

// daliIndexOf makes the index of an archive by the documented format of DALI's
// tools/wds2idx.py, which this machine does not have.
func daliIndexOf(t testing.TB, archive []byte, named bool) []byte {
	t.Helper()
	var lines []string
	s := NewSamples(NewWalker(&memory{b: archive}))
	names := map[int64]string{}
	s.each = func(m *Member) { names[m.Data] = string(m.Name) }
	for sample, err := s.Next(); err == nil; sample, err = s.Next() {
		var line []string
		for _, p := range sample.Parts {
			part := fmt.Sprintf("%s %d %d", p.Suffix, p.Data, p.Size)
			if named {
				part += " " + names[p.Data]
			}
			line = append(line, part)
		}
		lines = append(lines, strings.Join(line, " "))
	}
	version := daliWithoutNames
	if named {
		version = daliWithNames
	}
	return fmt.Appendf(nil, "%s %d\n%s\n", version, len(lines), strings.Join(lines, "\n"))
}

// energonIndexOf makes the index of an archive by the documented format of Energon.
func energonIndexOf(archive []byte) []byte {
	var b []byte
	w := NewWalker(&memory{b: archive})
	s := NewSamples(w)
	for sample, err := s.Next(); err == nil; sample, err = s.Next() {
		b = binary.LittleEndian.AppendUint64(b, uint64(sample.Header))
	}
	return binary.LittleEndian.AppendUint64(b, uint64(w.End().Offset))
}

func TestDALIIndexesOfBothVersionsAreRead(t *testing.T) {
	const text = "v1.2 2\njpg 512 700 000.jpg cls 2048 1 000.cls\njpg 3072 0 001.jpg\n"
	d, err := ReadDALI([]byte(text), 1<<20)
	if err != nil || !d.Named || d.Len() != 2 || len(d.Sample(0)) != 2 {
		t.Fatalf("%+v, %v", d, err)
	}
	if p := d.Sample(0)[1]; string(p.Suffix) != "cls" || string(p.Name) != "000.cls" || p.Data != 2048 || p.Size != 1 {
		t.Errorf("%+v", p)
	}
	d, err = ReadDALI([]byte("v1.1 1\njpg 512 700 seg.png 2048 1"), 1<<20)
	if err != nil || d.Named || d.Len() != 1 || string(d.Sample(0)[1].Suffix) != "seg.png" {
		t.Fatalf("%+v, %v", d, err)
	}
	if d, err := ReadDALI([]byte("v1.2 0\n"), 1024); err != nil || d.Len() != 0 {
		t.Errorf("no samples: %+v, %v", d, err)
	}
	for name, archive := range golden(t) {
		if strings.HasPrefix(name, "webdataset") {
			for _, named := range []bool{true, false} {
				d, err := ReadDALI(daliIndexOf(t, archive, named), int64(len(archive)))
				if err != nil || d.Len() != len(read(archive).samples) {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
}

func TestDALIIndexesThatCannotBeTrueAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "", "no version": "2\n", "other version": "v1.3 1\njpg 512 7 a.jpg\n", "no number": "v1.2 x\n", "negative": "v1.2 -1\n",
		"absurd number": "v1.2 9000000000000000000\njpg 512 7 a.jpg\n", "too few lines": "v1.2 3\njpg 512 7 a.jpg\njpg 1536 7 b.jpg\n",
		"too many lines": "v1.2 1\njpg 512 7 a.jpg\njpg 1536 7 b.jpg\n", "no name": "v1.2 1\njpg 512 7\n", "space in the name": "v1.2 1\njpg 512 7 a b.jpg\n",
		"not on a border": "v1.1 1\njpg 513 7\n", "behind the end": "v1.1 1\njpg 4096 1\n", "too long": "v1.1 1\njpg 512 4000\n",
		"negative size": "v1.1 1\njpg 512 -1\n", "overlap": "v1.1 2\njpg 512 600\njpg 1024 1\n", "no header between": "v1.1 2\njpg 512 512\njpg 1024 1\n",
		"overflow": "v1.1 1\njpg 512 9223372036854775807\n", "huge offset": "v1.1 1\njpg 99999999999999999999 1\n", "empty line": "v1.1 2\njpg 512 1\n\n",
		"first block": "v1.1 1\njpg 0 1\n",
	} {
		d, err := ReadDALI([]byte(text), 4096)
		if backend.KindOf(err) != backend.Corrupt || backend.RemedyOf(err) == "" {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
}

func TestDALIIndexesAreNamedUpToTheFirstDot(t *testing.T) {
	for shard, want := range map[string]string{"a.tar": "a.idx", "d.e/a.b.tar.gz": "d.e/a.idx", "a": "a.idx", "d/.tar": "d/.idx"} {
		if got := DALIName(shard); got != want {
			t.Errorf("%s: %s, want %s", shard, got, want)
		}
	}
	if EnergonName("d/a.tar") != "d/a.tar.idx" {
		t.Error(EnergonName("d/a.tar"))
	}
}

func TestEnergonIndexesAreChecked(t *testing.T) {
	archive := archiveOf("a.x", "a.y", "b.x")
	offsets, err := ReadEnergon(energonIndexOf(archive), int64(len(archive)))
	if err != nil || !slices.Equal(offsets, []int64{0, 2048, 3072}) {
		t.Errorf("%v, %v", offsets, err)
	}
	encode := func(offsets ...uint64) []byte {
		var b []byte
		for _, o := range offsets {
			b = binary.LittleEndian.AppendUint64(b, o)
		}
		return b
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "half an entry": encode(0, 512)[:12], "not on a border": encode(0, 513), "behind the end": encode(0, 1<<20),
		"negative": encode(0, 1<<63), "twice": encode(512, 512), "descending": encode(1024, 512),
	} {
		if offsets, err := ReadEnergon(b, 4096); backend.KindOf(err) != backend.Corrupt {
			t.Errorf("%s: %v, %v", name, offsets, err)
		}
	}
}

func TestIndexesAreReadInMemoryBoundedByTheirText(t *testing.T) {
	text := []byte("v1.1 100000\n" + strings.Repeat("a 512 0\n", 10))
	allocs := testing.AllocsPerRun(10, func() {
		if _, err := ReadDALI(text, 1<<20); err == nil {
			t.Fatal("accepted")
		}
	})
	if allocs > 20 {
		t.Errorf("%v allocations", allocs)
	}
}

func FuzzReadDALI(f *testing.F) {
	archive := archiveOf("a.x", "a.y", "b.x")
	f.Add(daliIndexOf(f, archive, true), int64(len(archive)))
	f.Add(daliIndexOf(f, archive, false), int64(len(archive)))
	f.Add([]byte("v1.1 2\njpg 512 600\njpg 1024 1\n"), int64(4096))
	f.Fuzz(func(t *testing.T, text []byte, size int64) {
		d, err := ReadDALI(text, size)
		if err != nil {
			if backend.KindOf(err) != backend.Corrupt {
				t.Fatal(err)
			}
			return
		}
		end := int64(0)
		for i := range d.Len() {
			for _, p := range d.Sample(i) {
				if p.Data%blockBytes != 0 || p.Data < end+blockBytes || p.Size < 0 || p.Data+p.Size > size || !bytes.Contains(text, p.Suffix) {
					t.Fatalf("%+v after %d of %d", p, end, size)
				}
				end = p.Data + p.Size
			}
		}
	})
}

func FuzzReadEnergon(f *testing.F) {
	archive := archiveOf("a.x", "a.y", "b.x")
	f.Add(energonIndexOf(archive), int64(len(archive)))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		offsets, err := ReadEnergon(b, size)
		if err != nil {
			if backend.KindOf(err) != backend.Corrupt {
				t.Fatal(err)
			}
			return
		}
		for i, o := range offsets {
			if o < 0 || o%blockBytes != 0 || size >= 0 && o > size || i > 0 && o <= offsets[i-1] {
				t.Fatalf("%v of %d", offsets, size)
			}
		}
	})
}
