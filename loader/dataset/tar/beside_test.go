package tar

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/internal/dirstore"
)

// members lists the regular members of an archive.
func members(t testing.TB, archive []byte) []Member {
	t.Helper()
	var all []Member
	w := NewWalker(&memory{b: archive})
	for {
		m, err := w.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if m.Regular {
			kept := *m
			kept.Name = bytes.Clone(m.Name)
			all = append(all, kept)
		}
	}
}

// daliIndex writes the index that wds2idx writes.
func daliIndex(t testing.TB, archive []byte, version string) []byte {
	t.Helper()
	var lines []string
	last := ""
	for _, m := range members(t, archive) {
		key, suffix, ok := SplitName(m.Name)
		if !ok {
			continue
		}
		text := fmt.Sprintf("%s %d %d", suffix, m.Data, m.Size)
		if version == daliWithNames {
			text += " " + string(m.Name)
		}
		if len(lines) > 0 && last == string(key) {
			lines[len(lines)-1] += " " + text
		} else {
			lines = append(lines, text)
		}
		last = string(key)
	}
	out := fmt.Appendf(nil, "%s %d\n", version, len(lines))
	for _, line := range lines {
		out = append(append(out, line...), '\n')
	}
	return out
}

// energonIndex writes the index that energon writes.
func energonIndex(t testing.TB, archive []byte) []byte {
	t.Helper()
	var out []byte
	last, end := "", int64(0)
	for i, m := range members(t, archive) {
		key, _, ok := SplitName(m.Name)
		if !ok {
			continue
		}
		if i == 0 || last != string(key) {
			out = binary.LittleEndian.AppendUint64(out, uint64(m.Header))
		}
		last, end = string(key), m.End()
	}
	return binary.LittleEndian.AppendUint64(out, uint64(end))
}

// later makes files of a directory younger than all others.
func later(t testing.TB, store dirstore.Store, names ...string) {
	t.Helper()
	for _, name := range names {
		when := time.Now().Add(time.Hour)
		if err := os.Chtimes(filepath.Join(store.Dir, name), when, when); err != nil {
			t.Fatal(err)
		}
	}
}

func TestIndexesBesideShardsThatFitAreUsed(t *testing.T) {
	archive := makeTar(t, append(plainFiles(300, 0), file{"with.é", "pax"}, file{"z.jpg", ""}))
	want := scanShards(t, shards(t, map[string][]byte{"a.tar": archive}), Options{})
	for note, files := range map[string]map[string][]byte{
		"dali used":    {"a.idx": daliIndex(t, archive, daliWithNames)},
		"energon used": {"a.tar.idx": energonIndex(t, archive)},
	} {
		for _, version := range []string{daliWithNames, daliWithoutNames} {
			if note == "dali used" {
				files["a.idx"] = daliIndex(t, archive, version)
			}
			files["a.tar"] = archive
			store := shards(t, files)
			for name := range files {
				if name != "a.tar" {
					later(t, store, name)
				}
			}
			s := scanShards(t, store, Options{})
			if s.info.Indexes[note] != 1 {
				t.Errorf("%s %s: %v", note, version, s.info.Indexes)
			}
			equalRows(t, s.rows(t), want.rows(t))
		}
	}
}

// Every sample is compared, however many there are.
func TestAStaleIndexChangesNothing(t *testing.T) {
	label := func(i int) string { return fmt.Sprint(i % 10) }
	build := func(label func(int) string) []byte {
		var files []file
		for i := range 600 {
			files = append(files, file{fmt.Sprintf("%04d.cls", i), label(i)}, file{fmt.Sprintf("%04d.jpg", i), strings.Repeat("x", 700)})
		}
		return makeTar(t, files)
	}
	rewritten := build(func(i int) string {
		if i == 101 || i == 302 {
			return "57" // in the same block, longer
		}
		return label(i)
	})
	var few []file // parts that are small enough to lie in what an index leaves between others
	for i := range 600 {
		few = append(few, file{fmt.Sprintf("%04d.jpg", i), strings.Repeat("x", 700)})
		if i == 100 {
			few = append(few, file{"0100.cls", "7"})
		}
	}
	omitted := makeTar(t, few)
	renamed := makeTar(t, []file{{"9999.cls", "0"}, {"9999.jpg", "x"}})
	for _, version := range []string{daliWithNames, daliWithoutNames} {
		before, after, _ := bytes.Cut(daliIndex(t, omitted, version), []byte(" cls "))
		without := append(bytes.Clone(before), after[bytes.IndexByte(after, '\n'):]...)
		for name, c := range map[string]struct{ archive, index []byte }{
			"rewritten labels": {rewritten, daliIndex(t, build(label), version)},
			"omitted part":     {omitted, without},
			"renamed sample":   {renamed, bytes.ReplaceAll(daliIndex(t, renamed, version), []byte("9999.cls"), []byte("9998.cls"))},
		} {
			if name == "renamed sample" && version == daliWithoutNames {
				continue // it has no names
			}
			if _, err := ReadDALI(c.index, int64(len(c.archive))); err != nil {
				t.Fatal(err)
			}
			store := shards(t, map[string][]byte{"a.tar": c.archive, "a.idx": c.index})
			later(t, store, "a.idx")
			s := scanShards(t, store, Options{})
			if s.info.Indexes["dali does not fit"] != 1 {
				t.Errorf("%s, %s: %v", name, version, s.info.Indexes)
			}
			equalRows(t, s.rows(t), expect(t, "a.tar", c.archive))
		}
	}
}

func TestIndexesWithCapitalsFit(t *testing.T) {
	archive := makeTar(t, []file{{"A.JPG", "1"}, {"A.cls", "2"}})
	index := bytes.ReplaceAll(daliIndex(t, archive, daliWithNames), []byte("jpg "), []byte("JPG ")) // as wds2idx writes it
	store := shards(t, map[string][]byte{"a.tar": archive, "a.idx": index})
	later(t, store, "a.idx")
	if s := scanShards(t, store, Options{}); s.info.Indexes["dali used"] != 1 {
		t.Errorf("%v", s.info.Indexes)
	}
}

func TestIndexesBesideShardsThatDoNotFitAreNot(t *testing.T) {
	archive := makeTar(t, plainFiles(300, 0))
	other := makeTar(t, plainFiles(299, 0))
	shifted := makeTar(t, append([]file{{"0.x", "first"}}, plainFiles(300, 0)...))
	named := makeTar(t, append([]file{{"other/000000.jpg", "image 0"}}, plainFiles(300, 0)[1:]...))
	dali, energon := daliIndex(t, archive, daliWithNames), energonIndex(t, archive)
	for name, c := range map[string]struct {
		file  string
		index []byte
	}{
		"shorter":             {"a.idx", daliIndex(t, other, daliWithNames)},
		"shifted":             {"a.idx", daliIndex(t, shifted, daliWithNames)},
		"other name":          {"a.idx", daliIndex(t, named, daliWithNames)},
		"last missing":        {"a.idx", withoutLastPart(dali)},
		"without names":       {"a.idx", daliIndex(t, other, daliWithoutNames)},
		"shifted, no names":   {"a.idx", daliIndex(t, shifted, daliWithoutNames)},
		"no index":            {"a.idx", []byte("MMIDIDX\x00\x00 and so on")},
		"empty":               {"a.idx", nil},
		"energon":             {"a.tar.idx", energonIndex(t, other)},
		"energon, shifted":    {"a.tar.idx", energonIndex(t, shifted)},
		"energon, no end":     {"a.tar.idx", energon[:len(energon)-8]},
		"energon, cut":        {"a.tar.idx", energon[:len(energon)-3]},
		"energon, one moved":  {"a.tar.idx", moved(energon)},
		"energon, huge":       {"a.tar.idx", bytes.Repeat([]byte{0xff}, 64)},
		"a sample left out":   {"a.idx", withoutSample(dali, 7)},
		"two samples swapped": {"a.idx", swapped(dali)},
	} {
		store := shards(t, map[string][]byte{"a.tar": archive, c.file: c.index})
		later(t, store, c.file)
		s := scanShards(t, store, Options{})
		if s.info.Indexes["dali does not fit"]+s.info.Indexes["energon does not fit"] != 1 {
			t.Errorf("%s: %v", name, s.info.Indexes)
		}
		equalRows(t, s.rows(t), expect(t, "a.tar", archive))
	}
}

func withoutLastPart(index []byte) []byte {
	line := bytes.LastIndexByte(index[:len(index)-1], '\n')
	fields := bytes.Fields(index[line:])
	return append(append(bytes.Clone(index[:line+1]), bytes.Join(fields[:4], []byte{' '})...), '\n')
}

// withoutSample leaves out a sample and says so.
func withoutSample(index []byte, number int) []byte {
	lines := bytes.SplitAfter(bytes.Clone(index), []byte{'\n'})
	kept := [][]byte{bytes.Replace(lines[0], []byte("300"), []byte("299"), 1)}
	kept = append(append(kept, lines[1:1+number]...), lines[2+number:]...)
	return bytes.Join(kept, nil)
}

func swapped(index []byte) []byte {
	lines := bytes.SplitAfter(bytes.Clone(index), []byte{'\n'})
	lines[10], lines[11] = lines[11], lines[10]
	return bytes.Join(lines, nil)
}

// moved makes a sample begin with its second part.
func moved(index []byte) []byte {
	b := bytes.Clone(index)
	binary.LittleEndian.PutUint64(b[8*9:], binary.LittleEndian.Uint64(b[8*9:])+1024)
	return b
}

func TestAnIndexOlderThanItsShardIsNotRead(t *testing.T) {
	archive := makeTar(t, plainFiles(5, 0))
	store := shards(t, map[string][]byte{"a.tar": archive, "a.idx": daliIndex(t, archive, daliWithNames)})
	later(t, store, "a.tar")
	s := scanShards(t, store, Options{})
	if s.info.Indexes["dali is older than its shard"] != 1 {
		t.Errorf("%v", s.info.Indexes)
	}
	if err := os.Remove(filepath.Join(store.Dir, "a.idx")); err != nil {
		t.Fatal(err)
	}
	if again := scanInto(t, store, Options{Reuse: s.index}, s.dir); len(again.info.Indexes) != 0 {
		t.Errorf("without the index: %v", again.info.Indexes)
	}
}

func TestAShardIsWalkedInPiecesThatItsIndexNames(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	}
	archive := makeTar(t, plainFiles(2*pieceSamples+17, 0))
	broken := makeTar(t, append(plainFiles(2*pieceSamples+1, 0), file{"dir/000000.cls", "again"}))
	alone := scanShards(t, shards(t, map[string][]byte{"a.tar": archive}), Options{})
	half := pieceSamples + 8
	for name, c := range map[string]struct {
		file  string
		index []byte
		fits  bool
	}{
		"energon":           {"a.tar.idx", energonIndex(t, archive), true},
		"dali":              {"a.idx", daliIndex(t, archive, daliWithoutNames), true},
		"dali with names":   {"a.idx", daliIndex(t, archive, daliWithNames), true},
		"dali of others":    {"a.idx", daliIndex(t, broken, daliWithNames), false},
		"energon of others": {"a.tar.idx", energonIndex(t, broken), false},
		"border in a part":  {"a.tar.idx", borders(energonIndex(t, archive), half, 512), false},
		"border in sample":  {"a.tar.idx", borders(energonIndex(t, archive), half, 1024), false},
	} {
		store := shards(t, map[string][]byte{"a.tar": archive, c.file: c.index})
		later(t, store, c.file)
		s := scanShards(t, store, Options{})
		if (s.info.Indexes["energon used"]+s.info.Indexes["dali used"] == 1) != c.fits {
			t.Errorf("%s: %v", name, s.info.Indexes)
		}
		equalSections(t, s.index, alone.index)
	}
	// With one walker the same is found out in another way: the index must not tell.
	store := shards(t, map[string][]byte{"a.tar": archive, "a.tar.idx": energonIndex(t, archive)})
	later(t, store, "a.tar.idx")
	several := scanShards(t, store, Options{})
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if one := scanShards(t, store, Options{}); one.info.ID != several.info.ID {
		t.Error("a shard walked in pieces gives another index")
	}
}

// equalSections compares what two indexes hold of samples.
func equalSections(t testing.TB, a, b *dataset.Index) {
	t.Helper()
	for _, section := range []string{sectionGroups, sectionKeys, sectionDirectory} {
		size, _ := a.SectionBytes(section)
		other, _ := b.SectionBytes(section)
		content, err := a.ReadSection(section, 0, size, new([]byte))
		if err != nil {
			t.Fatal(err)
		}
		want, err := b.ReadSection(section, 0, other, new([]byte))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(content, want) {
			t.Errorf("section %q differs", section)
		}
	}
}

// borders moves the beginnings of samples around number.
func borders(index []byte, number, by int) []byte {
	b := bytes.Clone(index)
	for i := number - 300; i < number+300; i++ {
		binary.LittleEndian.PutUint64(b[8*i:], binary.LittleEndian.Uint64(b[8*i:])+uint64(by))
	}
	return b
}

func TestTheRestOfADividedShardIsCancelled(t *testing.T) {
	archive := makeTar(t, plainFiles(2*pieceSamples, 0))
	store := shards(t, map[string][]byte{"a.tar": archive, "a.tar.idx": energonIndex(t, archive)})
	later(t, store, "a.tar.idx")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Scan(ctx, store, Options{}, t.TempDir(), nil); err == nil {
		t.Error("a cancelled scan succeeds")
	}
}
