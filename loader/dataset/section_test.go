package dataset

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
)

// section is a section that a test writes.
type section struct {
	name    string
	content []byte
}

func testSections(bytesEach int) []section {
	return []section{
		{"first", bytes.Repeat([]byte("0123456789abcdef"), bytesEach/16)},
		{"empty", nil},
		{"last", bytes.Repeat([]byte{7, 1, 200}, bytesEach/3)},
	}
}

// writeSections writes an index of n records and sections, each in pieces, and returns
// its path.
func writeSections(t testing.TB, dir string, n int, sections []section) string {
	t.Helper()
	w, err := Create(dir, int64(n))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range makeRecords(n) {
		if err := w.Append(&r); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range sections {
		to, err := w.Section(s.name)
		if err != nil {
			t.Fatal(err)
		}
		for rest := s.content; len(rest) > 0; {
			n := min(len(rest), 1000)
			if _, err := to.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
	}
	meta, err := w.Commit(makeMeta(n))
	if err != nil {
		t.Fatal(err)
	}
	return IndexPath(dir, meta.Info.ID)
}

// checkSection compares a section with what was written.
func checkSection(x *Index, s section) error {
	var scratch []byte
	size, ok := x.SectionBytes(s.name)
	if !ok || size != int64(len(s.content)) {
		return fmt.Errorf("section %q: %d bytes (%v), want %d", s.name, size, ok, len(s.content))
	}
	for at := int64(0); at < size; at += 777 {
		n := min(777, size-at)
		b, err := x.ReadSection(s.name, at, n, &scratch)
		if err != nil {
			return err
		}
		if !bytes.Equal(b, s.content[at:at+n]) {
			return fmt.Errorf("section %q: other bytes at %d", s.name, at)
		}
	}
	return nil
}

func TestSectionsGiveBackWhatWasWritten(t *testing.T) {
	for _, size := range []int{48, 5 << 20} { // in memory, mapped
		path := writeSections(t, t.TempDir(), 5, testSections(size))
		mapped := openIndex(t, path)
		if (mapped.mapped != nil) != (size > smallIndexBytes) {
			t.Fatalf("%d bytes: mapped %v", size, mapped.mapped != nil)
		}
		read := openIndex(t, path) // as where a file cannot be mapped
		read.whole, read.mapped = nil, nil
		for _, x := range []*Index{mapped, read} {
			for _, s := range testSections(size) {
				if err := checkSection(x, s); err != nil {
					t.Error(err)
				}
			}
			if err := x.Verify(context.Background()); err != nil {
				t.Error(err)
			}
			if err := checkIndex(t, path, makeRecords(5)); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestSectionsRefuseBytesThatAreNotTheirs(t *testing.T) {
	x := openIndex(t, writeSections(t, t.TempDir(), 2, testSections(48)))
	var scratch []byte
	for _, r := range []struct {
		name      string
		offset, n int64
	}{{"first", -1, 1}, {"first", 0, 49}, {"first", 48, 1}, {"first", 1 << 62, 1 << 62}, {"first", 0, -1}, {"empty", 0, 1}, {"none", 0, 0}} {
		if _, err := x.ReadSection(r.name, r.offset, r.n, &scratch); backend.KindOf(err) != backend.Corrupt || backend.RemedyOf(err) == "" {
			t.Errorf("%+v: %v, want kind corrupt", r, err)
		}
	}
	if _, ok := x.SectionBytes("none"); ok {
		t.Error("there is a section \"none\"")
	}
}

func TestTheIDNamesTheSections(t *testing.T) {
	dir := t.TempDir()
	seen := map[string]int{}
	for i, sections := range [][]section{
		nil,
		{{"a", []byte("xy")}},
		{{"a", []byte("xz")}},
		{{"b", []byte("xy")}},
		{{"a", []byte("x")}, {"b", []byte("y")}},
		{{"a", []byte("xy")}, {"b", nil}},
	} {
		path := writeSections(t, dir, 3, sections)
		if before, ok := seen[path]; ok {
			t.Errorf("case %d has the id of case %d", i, before)
		}
		seen[path] = i
	}
	if again := writeSections(t, t.TempDir(), 3, []section{{"a", []byte("xy")}}); seen[filepath.Join(dir, filepath.Base(again))] != 1 {
		t.Error("equal content, but another id")
	}
}

func TestEveryDamagedByteOfAnIndexWithSectionsIsFound(t *testing.T) {
	path := writeSections(t, t.TempDir(), 3, testSections(96))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(t.TempDir(), "damaged.idx")
	for at := headerBytes; at < len(whole); at++ {
		content := bytes.Clone(whole)
		content[at] ^= 0x41
		if err := os.WriteFile(damaged, content, 0o600); err != nil {
			t.Fatal(err)
		}
		x, err := OpenIndex(damaged)
		if err == nil {
			err = x.Verify(context.Background())
			_ = x.Close()
		}
		if backend.KindOf(err) != backend.Corrupt {
			t.Errorf("byte %d of %d damaged: %v, want kind corrupt", at, len(whole), err)
		}
	}
}

func TestASectionTruncatedWhileOpenIsCorrupt(t *testing.T) {
	path := writeSections(t, t.TempDir(), 2, testSections(5<<20))
	x := openIndex(t, path)
	if err := os.Truncate(path, headerBytes+100); err != nil {
		t.Fatal(err)
	}
	var scratch []byte
	for _, mapped := range [][]byte{x.mapped, nil} {
		y := &Index{path: x.path, file: x.file, header: x.header, meta: x.meta, mapped: mapped}
		if _, err := y.ReadSection("first", 1<<20, 100, &scratch); backend.KindOf(err) != backend.Corrupt || backend.RemedyOf(err) == "" {
			t.Errorf("mapped %v: %v, want kind corrupt", mapped != nil, err)
		}
	}
}

func TestSectionsComeAfterRecordsAndOneByOne(t *testing.T) {
	w, err := Create(t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if _, err := w.Section("early"); err == nil {
		t.Error("a section is begun before the records are there")
	}
	records := makeRecords(2)
	if err := w.Append(&records[0]); err != nil {
		t.Fatal(err)
	}
	first, err := w.Section("first")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Section("first"); err == nil {
		t.Error("a name is given twice")
	}
	if err := w.Append(&records[1]); err == nil {
		t.Error("a record comes after a section")
	}
	if _, err := w.Section("second"); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Write([]byte("x")); err == nil {
		t.Error("an ended section takes more")
	}
}

func TestHostileTablesOfSectionsAreRefused(t *testing.T) {
	h := &header{records: 2, start: headerBytes + 24, metaStart: headerBytes + 1000}
	at := h.start + 2*recordFixedBytes
	for i, sections := range [][]Section{
		{{"a", at - 1, h.metaStart - at + 1}},
		{{"a", at, h.metaStart - at - 1}},
		{{"a", at, h.metaStart - at + 1}},
		{{"a", at, -1}},
		{{"a", at, 1 << 62}, {"b", at, 1 << 62}},
		{{"a", at, 10}, {"b", at + 11, h.metaStart - at - 11}},
		{{"a", at, 10}, {"a", at + 10, h.metaStart - at - 10}},
		make([]Section, maxSections+1),
	} {
		if checkSections(sections, h) == nil {
			t.Errorf("case %d: %+v is accepted", i, sections)
		}
	}
	if err := checkSections([]Section{{"a", at, 10}, {"b", at + 10, h.metaStart - at - 10}}, h); err != nil {
		t.Error(err)
	}
}

func TestReadingSectionsAllocatesNothing(t *testing.T) {
	x := openIndex(t, writeSections(t, t.TempDir(), 2, testSections(5<<20)))
	scratch := make([]byte, 1024)
	at := int64(0)
	if allocs := testing.AllocsPerRun(1000, func() {
		if _, err := x.ReadSection("last", at, 200, &scratch); err != nil {
			t.Fatal(err)
		}
		at += 1001
	}); allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
}

func TestRandomSectionsSurvive(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		var sections []section
		for i := range rapid.IntRange(0, 5).Draw(rt, "sections") {
			sections = append(sections, section{fmt.Sprint(i), rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(rt, "content")})
		}
		x := openIndex(t, writeSections(t, dir, rapid.IntRange(1, 9).Draw(rt, "records"), sections))
		for _, s := range sections {
			if err := checkSection(x, s); err != nil {
				rt.Fatal(err)
			}
		}
		if err := x.Verify(context.Background()); err != nil {
			rt.Fatal(err)
		}
	})
}

func TestObjectTablesFindFiles(t *testing.T) {
	var p Plan
	for _, n := range []int{0, 1, 8, 1000} {
		table := NewObjectTable(&p, n)
		places := map[uint32]int{}
		for i := range 4 * n {
			file := uint32(i*i*2654435761) % uint32(n)
			want, known := places[file]
			if !known {
				want = len(places)
			}
			if got, found := table.Find(file, len(places)); got != want || found != known {
				t.Fatalf("file %d: place %d, found %v; want %d, %v", file, got, found, want, known)
			}
			places[file] = want
		}
	}
	if allocs := testing.AllocsPerRun(100, func() { NewObjectTable(&p, 1000).Find(7, 0) }); allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
}
