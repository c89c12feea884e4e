package tar

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/internal/dirstore"
)

func TestSamplesOfSeveralShardsAreNumberedByTheirPaths(t *testing.T) {
	a, b, c := makeTar(t, plainFiles(40, 0)), makeTar(t, plainFiles(1, 40)), makeTar(t, plainFiles(17, 41))
	s := scanShards(t, shards(t, map[string][]byte{"x/2.tar": b, "x/10.tar": a, "y.tar": c, "notes.txt": nil}), Options{})
	want := append(append(expect(t, "x/10.tar", a), expect(t, "x/2.tar", b)...), expect(t, "y.tar", c)...)
	equalRows(t, s.rows(t), want)
	info := s.info
	if info.Samples != 58 || info.Files != 3 || info.Archives["tar"] != 3 || info.Skipped["not included"] != 1 || info.Format != "tar" {
		t.Errorf("%+v", info)
	}
	bytes, largest := int64(0), int64(0)
	for _, r := range want {
		n := int64(0)
		for _, content := range r.parts {
			n += int64(len(content))
		}
		bytes, largest = bytes+n, max(largest, n)
	}
	if v := s.view(t, ViewOptions{}); info.Bytes != bytes || s.index.Meta().MaxBytes != largest || v.ID() != info.ID {
		t.Errorf("%d bytes, the largest sample of %d; want %d, %d", info.Bytes, s.index.Meta().MaxBytes, bytes, largest)
	}
	parts := []dataset.PartInfo{{Name: "cls", Samples: 58, Bytes: 58, MaxBytes: 1}, {Name: "jpg", Samples: 58, Bytes: bytes - 58, MaxBytes: largest - 1}}
	if !slices.Equal(info.Parts, parts) {
		t.Errorf("parts %+v, want %+v", info.Parts, parts)
	}
	if err := s.index.Verify(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestRandomArchivesGiveWhatTheStandardLibraryReads(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		content := rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 1500), func(b []byte) string { return string(b) })
		key := rapid.SampledFrom([]string{"a", "b", "dir/c", "./d", "e/../f", "ключ", "with space", "new-\t-tab", "a\\b", strings.Repeat("long/", 60) + "k"})
		files := map[string][]byte{}
		var want []row
		for number := range rapid.IntRange(1, 3).Draw(rt, "shards") {
			var members []file
			for i := range rapid.IntRange(0, 40).Draw(rt, "samples") {
				// Every key differs from the one before, or is the same again later.
				k := fmt.Sprintf("%s%d", key.Draw(rt, "key"), i%7)
				for _, suffix := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"jpg", "cls", "seg.png", "TXT", "json"}), 1, 4, rapid.ID).Draw(rt, "parts") {
					members = append(members, file{k + "." + suffix, content.Draw(rt, "content")})
				}
				if i%5 == 4 {
					members = append(members, file{"__meta__/x.json", "{}"}, file{"README", "no part"})
				}
			}
			name := fmt.Sprintf("shard-%d.tar", number)
			files[name] = makeTar(t, members)
			want = append(want, expect(t, name, files[name])...)
		}
		if len(want) == 0 {
			return
		}
		s := scanShards(t, shards(t, files), Options{})
		equalRows(t, s.rows(t), want)
		checkPieces(t, s, want)
	})
}

// checkPieces reads batches in another order and compares them with the samples.
func checkPieces(t testing.TB, s scanned, want []row) {
	t.Helper()
	v, store := s.view(t, ViewOptions{}), s.reader(t)
	var numbers []int64
	for i := range int64(len(want)) {
		numbers = append(numbers, (i*7919+3)%int64(len(want)))
	}
	var p dataset.Plan
	if err := v.Plan(&p, numbers); err != nil {
		t.Fatal(err)
	}
	columns := v.Columns()
	for i, n := range numbers {
		for c, column := range columns {
			part := p.Parts[i*len(columns)+c]
			if got := readPart(t, store, &p, part); got != want[n].parts[column.Name] || string(p.Objects[part.Object].Name) != want[n].file {
				t.Fatalf("sample %d, part %q: %.60q of %q, want %.60q", n, column.Name, got, p.Objects[part.Object].Name, want[n].parts[column.Name])
			}
		}
	}
	objects := map[string]bool{}
	for _, o := range p.Objects {
		objects[string(o.Name)+o.Version.Tag] = true
	}
	if len(objects) != len(p.Objects) {
		t.Errorf("%d objects, %d of them different", len(p.Objects), len(objects))
	}
}

func TestASampleWhoseKeyComesAgainIsAnotherOne(t *testing.T) {
	archive := makeTar(t, []file{{"a.jpg", "1"}, {"b.jpg", "2"}, {"a.jpg", "3"}})
	s := scanShards(t, shards(t, map[string][]byte{"0.tar": archive}), Options{})
	got := s.rows(t)
	if len(got) != 3 || got[0].key != "a" || got[2].key != "a" || got[2].parts["jpg"] != "3" {
		t.Errorf("%v", got)
	}
}

func TestIncludePatternsChooseShards(t *testing.T) {
	archive := makeTar(t, plainFiles(1, 0))
	store := shards(t, map[string][]byte{
		"train-000.tar": archive, "train-001.tar": archive, "train-002.tar": archive, "val-000.tar": archive, "other.bin": archive,
		"a.tar.gz": gzipped(t, archive), "b.tgz": gzipped(t, archive), "train-000.idx": []byte("v1.2 9\n"),
	})
	for include, want := range map[string]int64{"train-{000..001}.tar": 2, "*.tar": 4, "": 6, "other.bin": 1, "{train,val}-000.*": 2} {
		opts := Options{}
		if include != "" {
			opts.Include = []string{include}
		}
		if s := scanShards(t, store, opts); s.info.Files != want {
			t.Errorf("%q: %d shards, want %d", include, s.info.Files, want)
		}
	}
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestCompressedShardsAreReadInSeekableForm(t *testing.T) {
	a, b := makeTar(t, plainFiles(300, 0)), makeTar(t, plainFiles(20, 300))
	s := scanShards(t, shards(t, map[string][]byte{"0.tar.gz": gzipped(t, a), "1.tar": b, "2.tar": gzipped(t, b)}), Options{})
	want := append(append(expect(t, "0.tar.gz", a), expect(t, "1.tar", b)...), expect(t, "2.tar", b)...)
	equalRows(t, s.rows(t), want)
	checkPieces(t, s, want)
	if s.info.Archives["gzip"] != 2 || s.info.Archives["tar"] != 1 {
		t.Errorf("%v", s.info.Archives)
	}
}

func TestSparseMembersAreReadExpanded(t *testing.T) {
	for _, name := range []string{"tar-gnu-sparse", "tar-posix-sparse-0.0", "tar-posix-sparse-0.1", "tar-posix-sparse-1.0"} {
		packed, err := os.ReadFile("testdata/" + name + ".tar.gz")
		if err != nil {
			t.Fatal(err)
		}
		plain := gunzipped(t, packed)
		want := read(plain)
		if want.err != nil {
			t.Fatal(want.err)
		}
		for file, content := range map[string][]byte{"x.tar": plain, "x.tar.gz": packed} {
			s := scanShards(t, shards(t, map[string][]byte{file: content}), Options{})
			got, expanded := s.rows(t), 0
			if len(got) != len(want.samples) {
				t.Fatalf("%s of %s: %d samples, want %d", file, name, len(got), len(want.samples))
			}
			for i, sample := range want.samples {
				for _, p := range sample.parts {
					content := got[i].parts[p.suffix]
					if int64(len(content)) != p.size || p.size <= maxExpanded && checksumOf(content) != p.crc {
						t.Errorf("%s of %s: sample %q, part %q differs", file, name, sample.key, p.suffix)
					}
				}
			}
			var p dataset.Plan
			all := make([]int64, len(got))
			for i := range all {
				all[i] = int64(i)
			}
			if err := s.view(t, ViewOptions{}).Plan(&p, all); err != nil {
				t.Fatal(err)
			}
			for _, o := range p.Objects {
				if o.Version.Tag != "" {
					expanded++
				}
			}
			if expanded == 0 {
				t.Errorf("%s of %s: nothing was expanded", file, name)
			}
		}
	}
}

func TestDamageEndsAScanOrIsCounted(t *testing.T) {
	good := makeTar(t, plainFiles(20, 0))
	members := plainFiles(20, 0)
	duplicate := makeTar(t, append(append(slices.Clone(members[:21]), file{"dir/000010.jpg", "again"}, file{"dir/000010.cls", "c"}, file{"dir/000010.cls", "c"}), members[22:]...))
	truncated := good[:len(good)/2+100]
	garbage := bytes.Clone(good)
	copy(garbage[20*1024:], bytes.Repeat([]byte("garbage!"), 64))
	empty := makeTar(t, nil)
	for name, c := range map[string]struct {
		archive []byte
		kept    int    // samples under skip
		reason  string // under skip
		key     string // in the error under fail
		fails   bool
	}{
		"truncated":         {truncated, 9, SkippedDamaged, "", true},
		"garbage":           {garbage, 9, SkippedDamaged, "", true},
		"no tar":            {bytes.Repeat([]byte("no archive "), 300), 0, SkippedDamaged, "", true},
		"0 bytes":           {nil, 0, SkippedEmpty, "", true},
		"empty":             {empty, 0, SkippedEmpty, "", false},
		"duplicate":         {duplicate, 19, SkippedDuplicate, "dir/000010", true},
		"no parts":          {makeTar(t, []file{{"README", "x"}, {"__meta__/a.json", "y"}}), 0, SkippedEmpty, "", false},
		"reserved at first": {makeTar(t, []file{{"0.jpg", "x"}, {"a.__key__", "y"}, {"a.jpg", "z"}, {"b.jpg", "z"}, {"a.jpg", "again"}}), 3, SkippedReserved, "", true},
		"twice":             {makeTar(t, []file{{"a.jpg", "1"}, {"a.jpg", "2"}, {"a.jpg", "3"}, {"b.cls", "4"}, {"b.cls", "5"}, {"c.cls", "6"}}), 1, "", "", true},
		"reserved":          {makeTar(t, []file{{"a.jpg", "x"}, {"a.__key__", "y"}, {"b.jpg", "z"}}), 1, SkippedReserved, "a", true},
	} {
		t.Run(name, func(t *testing.T) {
			store := shards(t, map[string][]byte{"0.tar": good, "bad.tar": c.archive, "z.tar": good})
			_, err := Scan(context.Background(), store, Options{}, t.TempDir(), nil)
			if c.fails != (err != nil) {
				t.Fatalf("fail: %v", err)
			}
			if err != nil && (backend.KindOf(err) != backend.Corrupt || !strings.Contains(err.Error(), "bad.tar") || !strings.Contains(err.Error(), c.key) ||
				!strings.Contains(backend.RemedyOf(err), "dataset lint") || !strings.Contains(err.Error(), "byte ")) {
				t.Errorf("fail: %v", err)
			}
			s := scanShards(t, store, Options{Bad: BadSkip})
			if got := s.info.Samples - 40; got != int64(c.kept) || c.reason != "" && s.info.Skipped[c.reason] != 1 {
				t.Errorf("skip: %d samples of the bad shard, want %d; %v", got, c.kept, s.info.Skipped)
			}
			for _, r := range s.rows(t) {
				if r.key == c.key && r.file == "bad.tar" && c.key != "" {
					t.Errorf("skip: kept %v", r)
				}
			}
		})
	}
}

func TestShardsPackedInAnotherWayAreNamed(t *testing.T) {
	lz4 := append([]byte("\x04\x22\x4d\x18"), make([]byte, 100)...)
	store := shards(t, map[string][]byte{"0.tar": makeTar(t, plainFiles(3, 0)), "1.tar": lz4})
	_, err := Scan(context.Background(), store, Options{}, t.TempDir(), nil)
	if backend.KindOf(err) != backend.Invalid || !strings.Contains(err.Error(), "1.tar") || backend.RemedyOf(err) == "" {
		t.Errorf("fail: %v", err)
	}
	if s := scanShards(t, store, Options{Bad: BadSkip}); s.info.Samples != 3 || s.info.Skipped[SkippedUnsupported] != 1 {
		t.Errorf("skip: %+v", s.info)
	}
}

func TestIndexesBesideShardsAreNotLeftOut(t *testing.T) {
	archive := makeTar(t, plainFiles(3, 0))
	store := shards(t, map[string][]byte{"a.tar": archive, "a.idx": daliIndex(t, archive, daliWithNames), "b.idx": nil, "x.json": nil})
	s := scanShards(t, store, Options{})
	if n := s.info.Skipped["not included"]; n != 2 {
		t.Errorf("%d files left out (%v), want b.idx and x.json", n, s.info.Skipped)
	}
}

func TestADatasetWithoutASampleIsAnError(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string][]byte
		opts  Options
		kind  backend.Kind
	}{
		"nothing":     {nil, Options{}, backend.NotFound},
		"no shard":    {map[string][]byte{"a.jpg": nil}, Options{}, backend.NotFound},
		"empty":       {map[string][]byte{"a.tar": makeTar(t, nil)}, Options{}, backend.NotFound},
		"all damaged": {map[string][]byte{"a.tar": []byte("xx")}, Options{Bad: BadSkip}, backend.NotFound},
		"odd bad":     {map[string][]byte{"a.tar": makeTar(t, plainFiles(1, 0))}, Options{Bad: "maybe"}, backend.Invalid},
	} {
		dir := t.TempDir()
		_, err := Scan(context.Background(), shards(t, c.files), c.opts, dir, nil)
		if backend.KindOf(err) != c.kind || backend.RemedyOf(err) == "" {
			t.Errorf("%s: %v, want kind %s", name, err, c.kind)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s: left behind: %v", name, left)
		}
	}
}

func TestSamplesOfTooManyKindsAreRefused(t *testing.T) {
	var members []file
	for i := range maxShapes + 10 {
		members = append(members, file{fmt.Sprintf("%06d.v%d", i, i), "x"})
	}
	store := shards(t, map[string][]byte{"0.tar": makeTar(t, members), "1.tar": makeTar(t, plainFiles(3, 0))})
	_, err := Scan(context.Background(), store, Options{}, t.TempDir(), nil)
	if backend.KindOf(err) != backend.Invalid || !strings.Contains(backend.RemedyOf(err), "first dot") {
		t.Errorf("%v, want kind invalid", err)
	}
	if s := scanShards(t, store, Options{Bad: BadSkip}); s.info.Samples != 3 || s.info.Skipped[SkippedKinds] != 1 {
		t.Errorf("skip: %+v", s.info)
	}
}

func TestScanReportsProgressAndIsCancelled(t *testing.T) {
	files := map[string][]byte{}
	total := int64(0)
	for i := range 9 {
		name := fmt.Sprintf("%d.tar", i)
		files[name] = makeTar(t, plainFiles(600, 600*i))
		total += int64(len(files[name]))
	}
	store := shards(t, files)
	var last dataset.Done
	if _, err := Scan(context.Background(), store, Options{}, t.TempDir(), func(d dataset.Done) { last = d }); err != nil {
		t.Fatal(err)
	}
	if want := (dataset.Done{Files: 9, FilesTotal: 9, Bytes: total, BytesTotal: total, Samples: 5400}); last != want {
		t.Errorf("last progress %+v, want %+v", last, want)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	dir := t.TempDir()
	_, err := Scan(ctx, store, Options{}, dir, func(d dataset.Done) {
		if d.Samples > 1000 {
			cancel(cause)
		}
	})
	if !errors.Is(err, cause) {
		t.Errorf("cancelled: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// counting is a store that counts reads of each object.
type counting struct {
	dirstore.Store
	reads func(name string)
}

func (c counting) ReadAt(ctx context.Context, chunk backend.Chunk, p []byte, off int64) error {
	c.reads(string(chunk.Object.Name))
	return c.Store.ReadAt(ctx, chunk, p, off)
}

func TestAnInterruptedScanGoesOnWhereItWas(t *testing.T) {
	files := map[string][]byte{}
	for i := range 24 {
		files[fmt.Sprintf("%02d.tar", i)] = makeTar(t, plainFiles(50, 50*i))
	}
	plain := shards(t, files)
	want := scanShards(t, plain, Options{})
	dir, journal := t.TempDir(), filepath.Join(t.TempDir(), "sub", "journal")
	opts := Options{Journal: journal}
	ctx, cancel := context.WithCancel(context.Background())
	if _, err := Scan(ctx, plain, opts, dir, func(d dataset.Done) {
		if d.Files >= 10 {
			cancel()
		}
	}); !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted: %v", err)
	}
	finished := map[string]bool{}
	j, err := openJournal(journal, dir, func(name []byte, _ *description, _ place) { finished[string(name)] = true })
	if err != nil {
		t.Fatal(err)
	}
	j.close()
	if len(finished) < 10 || len(finished) > 10+runtime.GOMAXPROCS(0) {
		t.Fatalf("the journal holds %d shards", len(finished))
	}
	var again atomic.Int64
	s := scanInto(t, counting{plain, func(name string) {
		if finished[name] {
			again.Add(1)
		}
	}}, opts, dir)
	if again.Load() != 0 {
		t.Errorf("finished shards were read %d times", again.Load())
	}
	if s.info.ID != want.info.ID {
		t.Errorf("resumed scan gives index %s, a whole one %s", s.info.ID, want.info.ID)
	}
	if _, err := os.Stat(journal); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the journal stays: %v", err)
	}
	equalRows(t, s.rows(t), want.rows(t))
}

func TestShardsThatChangedAreScannedAgain(t *testing.T) {
	files := map[string][]byte{}
	for i := range 6 {
		files[fmt.Sprintf("%d.tar", i)] = makeTar(t, plainFiles(10, 10*i))
	}
	files["4.tar.gz"] = gzipped(t, makeTar(t, plainFiles(10, 100)))
	store, dir := shards(t, files), t.TempDir()
	first := scanInto(t, store, Options{}, dir)
	changed := makeTar(t, plainFiles(12, 500))
	if err := os.WriteFile(filepath.Join(store.Dir, "3.tar"), changed, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(store.Dir, "1.tar")); err != nil {
		t.Fatal(err)
	}
	whole := scanInto(t, store, Options{}, dir)
	seen := map[string]bool{}
	s := scanInto(t, counting{store, func(name string) { seen[name] = true }}, Options{Reuse: first.index}, dir)
	if len(seen) != 1 || !seen["3.tar"] {
		t.Errorf("read %v, only 3.tar has changed", seen)
	}
	if s.info.ID != whole.info.ID {
		t.Error("an index that reuses another differs from one that does not")
	}
	equalRows(t, s.rows(t), whole.rows(t))
}

func TestAnEarlierIndexThatIsDamagedIsNotReused(t *testing.T) {
	store, dir := shards(t, map[string][]byte{"0.tar": makeTar(t, plainFiles(100, 0))}), t.TempDir()
	first := scanInto(t, store, Options{}, dir)
	path := first.index.Path()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sections := first.index.Meta().Sections
	for _, at := range []int64{sections[0].Offset + 10, sections[1].Offset + 10, sections[2].Offset + 9, sections[0].Offset - 20} {
		b := bytes.Clone(whole)
		b[at] ^= 0x55
		damaged := filepath.Join(t.TempDir(), "damaged.idx")
		if err := os.WriteFile(damaged, b, 0o600); err != nil {
			t.Fatal(err)
		}
		x, err := dataset.OpenIndex(damaged)
		if err != nil {
			t.Fatal(err)
		}
		s := scanInto(t, store, Options{Reuse: x}, t.TempDir())
		if s.info.ID != first.info.ID {
			t.Errorf("byte %d: damage was taken over", at)
		}
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDamageThatWasSkippedIsAnErrorWhenItIsNot(t *testing.T) {
	good := makeTar(t, plainFiles(20, 0))
	store, dir := shards(t, map[string][]byte{"0.tar": good[:len(good)/2]}), t.TempDir()
	first := scanInto(t, store, Options{Bad: BadSkip}, dir)
	if _, err := Scan(context.Background(), store, Options{Reuse: first.index}, dir, nil); backend.KindOf(err) != backend.Corrupt {
		t.Errorf("%v, want kind corrupt", err)
	}
	if s := scanInto(t, store, Options{Bad: BadSkip, Reuse: first.index}, dir); s.info.ID != first.info.ID || s.info.Skipped[SkippedDamaged] != 1 {
		t.Errorf("%+v", s.info)
	}
}
