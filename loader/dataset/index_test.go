package dataset

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
)

var update = flag.Bool("update", false, "write testdata anew; only together with a new version of the index file")

// makeRecords returns n records that differ in everything.
func makeRecords(n int) []Record {
	records := make([]Record, n)
	for i := range records {
		records[i] = Record{
			Name:  fmt.Appendf(nil, "class-%d/file-%06d.bin", i%3, i),
			Label: int32(i%3) - 1,
			Extra: bytes.Repeat([]byte{byte(i)}, i%5),
			Version: backend.Version{Device: 66, Inode: uint64(1000 + i), Size: int64(i) * 7,
				ModifiedNs: 1_700_000_000_000_000_000 + int64(i), ChangedNs: int64(-i)},
		}
		if i%4 == 3 {
			records[i].Version.Tag = fmt.Sprintf("etag-%d", i)
		}
	}
	return records
}

func makeMeta(n int) Meta {
	return Meta{Origin: "dir:/somewhere", Options: []byte(`{"include":["**"]}`),
		Info: Info{Format: "test", Samples: int64(n), Files: int64(n), Bytes: 12345, Classes: []string{"a", "b"}}}
}

// writeIndex writes an index of records and returns its path.
func writeIndex(t testing.TB, dir string, records []Record, meta Meta) string {
	t.Helper()
	w, err := Create(dir, int64(len(records)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range records {
		if err := w.Append(&records[i]); err != nil {
			t.Fatal(err)
		}
	}
	done, err := w.Commit(meta)
	if err != nil {
		t.Fatal(err)
	}
	return IndexPath(dir, done.Info.ID)
}

func openIndex(t testing.TB, path string) *Index {
	t.Helper()
	x, err := OpenIndex(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Close() })
	return x
}

func TestAnIndexGivesBackWhatWasWritten(t *testing.T) {
	for _, n := range []int{1, 2, 1000, 60000} { // the last is read by pread
		dir := filepath.Join(t.TempDir(), "made/by/create")
		records := makeRecords(n)
		path := writeIndex(t, dir, records, makeMeta(n))
		x := openIndex(t, path)
		if small := x.whole != nil; small != (n < 60000) {
			t.Errorf("%d records: kept in memory: %v", n, small)
		}
		var scratch []byte
		for i, want := range records {
			got, err := x.Record(int64(i), &scratch)
			if err != nil {
				t.Fatal(err)
			}
			if len(want.Extra) == 0 && len(got.Extra) == 0 {
				got.Extra = want.Extra
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("record %d: %+v, want %+v", i, got, want)
			}
		}
		meta := x.Meta()
		if meta.Info.Samples != int64(n) || meta.MaxBytes != int64(n-1)*7 || meta.Origin != "dir:/somewhere" ||
			path != IndexPath(dir, meta.Info.ID) || len(meta.Info.ID) != 32 {
			t.Errorf("metadata %+v at %s", meta, path)
		}
		if err := x.Verify(context.Background()); err != nil {
			t.Error(err)
		}
		if names, _ := os.ReadDir(dir); len(names) != 1 {
			t.Errorf("left behind: %v", names)
		}
	}
}

func TestTheIDNamesTheContent(t *testing.T) {
	dir, records := t.TempDir(), makeRecords(10)
	id := func(records []Record, meta Meta) string {
		return openIndex(t, writeIndex(t, dir, records, meta)).Info().ID
	}
	first := id(records, makeMeta(10))
	if again := id(makeRecords(10), makeMeta(10)); again != first {
		t.Errorf("equal content: ids %s and %s", first, again)
	}
	elsewhere, meta := makeRecords(10), makeMeta(10)
	for i := range elsewhere {
		elsewhere[i].Version.Device = 9
	}
	meta.Origin = "dir:/elsewhere"
	if again := id(elsewhere, meta); again != first {
		t.Errorf("other device and origin: ids %s and %s", first, again)
	}
	for name, change := range map[string]func(*Record){
		"name":  func(r *Record) { r.Name = []byte("other") },
		"size":  func(r *Record) { r.Version.Size++ },
		"inode": func(r *Record) { r.Version.Inode++ },
		"mtime": func(r *Record) { r.Version.ModifiedNs++ },
		"ctime": func(r *Record) { r.Version.ChangedNs++ },
		"label": func(r *Record) { r.Label++ },
		"extra": func(r *Record) { r.Extra = []byte("x") },
	} {
		changed := makeRecords(10)
		change(&changed[4])
		if id(changed, makeMeta(10)) == first {
			t.Errorf("another %s, but the same id", name)
		}
	}
	meta = makeMeta(10)
	meta.Options = []byte(`{}`)
	if id(records, meta) == first {
		t.Error("other options, but the same id")
	}
}

func TestEveryDamagedByteIsAnErrorOrHarmless(t *testing.T) {
	records := makeRecords(8)
	path := writeIndex(t, t.TempDir(), records, makeMeta(8))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(t.TempDir(), "damaged.idx")
	for at := range whole {
		if at > 100 && at < headerCRCOffset-1 && at%97 != 0 {
			continue // the header's zeros: a few are enough
		}
		content := bytes.Clone(whole)
		content[at] ^= 0x41
		if err := os.WriteFile(damaged, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if checkIndex(t, damaged, records) == nil {
			t.Errorf("byte %d damaged, and no record or header shows it", at)
		}
	}
	for _, size := range []int{0, 7, headerBytes - 1, headerBytes, len(whole) / 2, len(whole) - 1} {
		if err := os.WriteFile(damaged, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenIndex(damaged); backend.KindOf(err) != backend.Corrupt {
			t.Errorf("cut to %d bytes: %v, want kind corrupt", size, err)
		}
	}
}

// checkIndex reads all records of the index at path. What reads without an error must
// be what was written. It returns the first error, which must be of kind Corrupt.
func checkIndex(t testing.TB, path string, want []Record) error {
	t.Helper()
	x, err := OpenIndex(path)
	if err != nil {
		if backend.KindOf(err) != backend.Corrupt {
			t.Fatalf("open: %v, want kind corrupt", err)
		}
		return err
	}
	defer x.Close()
	var first error
	var scratch []byte
	for i := range min(x.Len(), int64(len(want))) {
		r, err := x.Record(i, &scratch)
		switch {
		case err != nil && backend.KindOf(err) != backend.Corrupt:
			t.Fatalf("record %d: %v, want kind corrupt", i, err)
		case err != nil:
			first = errors.Join(first, err)
		case !bytes.Equal(r.Name, want[i].Name) || r.Version != want[i].Version || r.Label != want[i].Label:
			t.Fatalf("record %d: %+v, want %+v", i, r, want[i])
		}
	}
	return first
}

func TestAnIndexTruncatedWhileOpenIsCorrupt(t *testing.T) {
	path := writeIndex(t, t.TempDir(), makeRecords(60000), makeMeta(60000))
	x := openIndex(t, path)
	if err := os.Truncate(path, headerBytes+100); err != nil {
		t.Fatal(err)
	}
	var scratch []byte
	if x.mapped == nil {
		t.Fatal("the offset table is not mapped")
	}
	for _, mapped := range [][]byte{x.mapped, nil} { // mapped, and where that cannot be
		y := &Index{path: x.path, file: x.file, header: x.header, meta: x.meta, mapped: mapped}
		for _, n := range []int64{0, 59999} {
			if _, err := y.Record(n, &scratch); backend.KindOf(err) != backend.Corrupt || backend.RemedyOf(err) == "" {
				t.Errorf("record %d: %v, want kind corrupt", n, err)
			}
		}
	}
}

func TestRecordRefusesNumbersOutsideTheIndex(t *testing.T) {
	x := openIndex(t, writeIndex(t, t.TempDir(), makeRecords(3), makeMeta(3)))
	var scratch []byte
	for _, n := range []int64{-1, 3, 1 << 62} {
		if _, err := x.Record(n, &scratch); backend.KindOf(err) != backend.OutOfRange || backend.RemedyOf(err) == "" {
			t.Errorf("record %d: %v, want kind out_of_range", n, err)
		}
	}
}

func TestOpenIndexTellsWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenIndex(filepath.Join(dir, "none.idx")); backend.KindOf(err) != backend.NotFound || backend.RemedyOf(err) == "" {
		t.Errorf("%v, want kind not_found", err)
	}
	if _, err := OpenIndex(dir); backend.KindOf(err) != backend.Corrupt || backend.RemedyOf(err) == "" {
		t.Errorf("%v, want kind corrupt", err)
	}
}

func TestAWriterLeavesNothingAfterAnError(t *testing.T) {
	dir, records := t.TempDir(), makeRecords(3)
	w, err := Create(dir, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Append(&records[0]); err != nil {
		t.Fatal(err)
	}
	if err := w.Append(&Record{Name: make([]byte, 1<<16)}); err == nil {
		t.Error("a name of 65536 bytes is taken")
	}
	if _, err := w.Commit(makeMeta(3)); err == nil {
		t.Error("an index of 3 records with 1 is committed")
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := Create(dir, 0); err == nil {
		t.Error("an index of 0 records is created")
	}
	full, err := Create(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(full.Append(&records[0]), full.Append(&records[1])); err == nil {
		t.Error("an index of 1 record takes 2")
	}
	if err := RemoveTemporary(dir); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestRandomRecordsSurvive(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		record := rapid.Custom(func(t *rapid.T) Record {
			return Record{
				Name:  rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "name"),
				Label: rapid.Int32().Draw(t, "label"),
				Extra: rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "extra"),
				Version: backend.Version{
					Device: rapid.Uint64().Draw(t, "device"), Inode: rapid.Uint64().Draw(t, "inode"),
					Size:       rapid.Int64Range(0, 1<<62).Draw(t, "size"),
					ModifiedNs: rapid.Int64().Draw(t, "mtime"), ChangedNs: rapid.Int64().Draw(t, "ctime"),
					Tag: rapid.StringN(0, 20, 60).Draw(t, "tag"),
				},
			}
		})
		records := rapid.SliceOfN(record, 1, 20).Draw(rt, "records")
		path := writeIndex(t, dir, records, makeMeta(len(records)))
		if err := checkIndex(t, path, records); err != nil {
			rt.Fatal(err)
		}
	})
}

func TestIndexesOfVersionOneStayReadable(t *testing.T) {
	const golden = "testdata/version-1.idx"
	records := makeRecords(5)
	if *update {
		content, err := os.ReadFile(writeIndex(t, t.TempDir(), records, makeMeta(5)))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	x := openIndex(t, golden)
	if err := checkIndex(t, golden, records); err != nil {
		t.Error(err)
	}
	if err := x.Verify(context.Background()); err != nil {
		t.Error(err)
	}
	fresh, err := os.ReadFile(writeIndex(t, t.TempDir(), records, makeMeta(5)))
	if err != nil {
		t.Fatal(err)
	}
	committed, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(fresh, committed) {
		t.Errorf("the writer no longer writes %s:\n%s", golden, hex.Dump(fresh[headerBytes:]))
	}
}

func TestReadingRecordsAllocatesNothing(t *testing.T) {
	for _, n := range []int{1000, 60000} {
		records := makeRecords(n)
		for i := range records {
			records[i].Version.Tag = ""
		}
		x := openIndex(t, writeIndex(t, t.TempDir(), records, makeMeta(n)))
		var scratch []byte
		if _, err := x.Record(0, &scratch); err != nil { // grows scratch
			t.Fatal(err)
		}
		i := int64(0)
		allocs := testing.AllocsPerRun(1000, func() {
			if _, err := x.Record(i%x.Len(), &scratch); err != nil {
				t.Fatal(err)
			}
			i += 7919
		})
		if allocs != 0 {
			t.Errorf("%d records: %v allocations a record, want 0", n, allocs)
		}
	}
}
