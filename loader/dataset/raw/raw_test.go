package raw

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/internal/dirstore"
)

// writeTree writes files, by name, below a new directory.
func writeTree(t testing.TB, files map[string]string) dirstore.Store {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dirstore.Store{Dir: dir}
}

// scanOpen scans a store and opens what comes of it.
func scanOpen(t testing.TB, store backend.Store, opts Options) (dataset.Info, dataset.View) {
	t.Helper()
	dir := t.TempDir()
	info, err := Scan(context.Background(), store, opts, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	idx, err := dataset.OpenIndex(dataset.IndexPath(dir, info.ID))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = idx.Close() })
	v, err := Open(idx)
	if err != nil {
		t.Fatal(err)
	}
	return info, v
}

// keys returns the keys of all samples.
func keys(t testing.TB, v dataset.View) []string {
	t.Helper()
	all := []string{}
	for i := range v.Len() {
		_, k, err := v.Key(i)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, k)
	}
	return all
}

func TestClassesAreThoseOfImageFolder(t *testing.T) {
	store := writeTree(t, map[string]string{
		"dog/1.jpg": "d1", "cat/2.jpg": "c2", "cat/1.jpg": "c1", "cat/deep/3.jpg": "c3",
		"cat-big/1.jpg": "b1", "readme.txt": "root", "dog/.hidden": "x", ".git/config": "x", "empty/none.jpg": "",
	})
	info, v := scanOpen(t, store, Options{})
	wantKeys := []string{"cat-big/1.jpg", "cat/1.jpg", "cat/2.jpg", "cat/deep/3.jpg", "dog/1.jpg", "empty/none.jpg", "readme.txt"}
	if got := keys(t, v); !slices.Equal(got, wantKeys) {
		t.Errorf("samples %q, want %q", got, wantKeys)
	}
	if want := []string{"cat", "cat-big", "dog", "empty"}; !slices.Equal(info.Classes, want) {
		t.Errorf("classes %q, want %q", info.Classes, want)
	}
	var p dataset.Plan
	if err := v.Plan(&p, []int64{0, 1, 2, 3, 4, 5, 6}); err != nil {
		t.Fatal(err)
	}
	if want := []int64{1, 0, 0, 0, 2, 3, -1}; !slices.Equal(p.Values, want) {
		t.Errorf("labels %v, want %v", p.Values, want)
	}
	if info.Samples != 7 || info.Files != 7 || info.Bytes != 14 || info.Skipped["hidden"] != 2 || info.Format != "raw" {
		t.Errorf("%+v", info)
	}
	if mean, max := v.SampleBytes(); mean != 2 || max != 4 {
		t.Errorf("SampleBytes = %d, %d", mean, max)
	}
	if v.ID() != info.ID || v.Columns()[0].Name != "data" || !v.Columns()[0].Ragged || v.ValueColumns()[0].Name != "label" {
		t.Errorf("id %s, columns %+v %+v", v.ID(), v.Columns(), v.ValueColumns())
	}
}

func TestFilesInTheRootHaveNoClass(t *testing.T) {
	info, v := scanOpen(t, writeTree(t, map[string]string{"a.bin": "1", "b.bin": ""}), Options{})
	var p dataset.Plan
	if err := v.Plan(&p, []int64{1, 0}); err != nil {
		t.Fatal(err)
	}
	if len(info.Classes) != 0 || !slices.Equal(p.Values, []int64{-1, -1}) || p.Parts[0].Length != 0 {
		t.Errorf("classes %q, labels %v, parts %v", info.Classes, p.Values, p.Parts)
	}
}

func TestIncludeChoosesFilesAndClasses(t *testing.T) {
	store := writeTree(t, map[string]string{"s-001/a.jpg": "1", "s-002/a.jpg": "2", "s-003/a.jpg": "3", "s-002/a.txt": "4"})
	info, v := scanOpen(t, store, Options{Include: []string{"s-{002..009}/*.jpg"}})
	if got, want := keys(t, v), []string{"s-002/a.jpg", "s-003/a.jpg"}; !slices.Equal(got, want) ||
		!slices.Equal(info.Classes, []string{"s-002", "s-003"}) || info.Skipped["not included"] != 2 {
		t.Errorf("samples %q, info %+v", got, info)
	}
}

func TestPlansOfRandomTreesGiveTheVeryBytes(t *testing.T) {
	part := rapid.StringMatching(`[a-zA-Z0-9_+ -][a-z.-]{0,6}`)
	rapid.Check(t, func(rt *rapid.T) {
		files := map[string]string{}
		for range rapid.IntRange(1, 12).Draw(rt, "files") {
			name := strings.Join(rapid.SliceOfN(part, 0, 3).Draw(rt, "directories"), "/")
			name = strings.TrimPrefix(name+"/"+part.Draw(rt, "name")+"#", "/") // # is in no directory's name
			files[name] = rapid.StringN(0, 50, 200).Draw(rt, "content")
		}
		store := writeTree(t, files)
		_, v := scanOpen(t, store, Options{})
		names := keys(t, v)
		if !slices.IsSorted(names) || len(names) != len(files) {
			rt.Fatalf("samples %q of files %q", names, files)
		}
		samples := rapid.SliceOf(rapid.Int64Range(0, v.Len()-1)).Draw(rt, "samples")
		var p dataset.Plan
		for range 2 { // again with used storage
			if err := v.Plan(&p, samples); err != nil {
				rt.Fatal(err)
			}
			checkPlan(rt, store, &p, samples, names, files)
		}
	})
}

// checkPlan reads what a plan describes and holds it against the files.
func checkPlan(t *rapid.T, store dirstore.Store, p *dataset.Plan, samples []int64, names []string, files map[string]string) {
	if len(p.Parts) != len(samples) || len(p.Values) != len(samples) {
		t.Fatalf("%d parts and %d values for %d samples", len(p.Parts), len(p.Values), len(samples))
	}
	for i, part := range p.Parts {
		name := names[samples[i]]
		o := p.Objects[part.Object]
		if string(o.Name) != name || o.Number != samples[i] || !strings.HasPrefix(o.Origin, "dir:") {
			t.Fatalf("sample %d: object %+v, want %q", samples[i], o, name)
		}
		got, err := store.ReadPart(context.Background(), o, part.Offset, part.Length)
		if err != nil || string(got) != files[name] {
			t.Fatalf("sample %d, %q: %q, want %q (%v)", samples[i], name, got, files[name], err)
		}
	}
}

func TestClassesBehindLinksThatLeadOutsideAreCounted(t *testing.T) {
	elsewhere, store := writeTree(t, map[string]string{"cat/1.jpg": "x", "2.jpg": "x"}), writeTree(t, map[string]string{"dog/1.jpg": "x"})
	for link, target := range map[string]string{"cat": "cat", "dog/2.jpg": "2.jpg", ".hidden": "cat"} {
		if err := os.Symlink(filepath.Join(elsewhere.Dir, target), filepath.Join(store.Dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, include := range [][]string{nil, {"**/*.jpg"}, {"*/*.jpg"}} {
		info, err := Scan(context.Background(), store, Options{Include: include}, t.TempDir(), nil)
		if err != nil || len(info.Skipped) != 1 || info.Skipped[backend.LinkOutside] != 2 {
			t.Errorf("%q: skipped %v, %v", include, info.Skipped, err)
		}
	}
}

func TestScanErrorsSayWhatWasSoughtAndSeen(t *testing.T) {
	for name, c := range map[string]struct {
		files   map[string]string
		include []string
		kind    backend.Kind
		want    string
	}{
		"empty directory": {nil, nil, backend.NotFound, "no file at all"},
		"only hidden":     {map[string]string{".a": ""}, nil, backend.NotFound, `".a"`},
		"no match":        {map[string]string{"a.png": ""}, []string{"*.jpg"}, backend.NotFound, `looked for *.jpg; saw 1 other files, among them "a.png"`},
		"bad pattern":     {map[string]string{"a.png": ""}, []string{"{"}, backend.Invalid, "not closed"},
	} {
		dir := t.TempDir()
		_, err := Scan(context.Background(), writeTree(t, c.files), Options{Include: c.include}, dir, nil)
		if err == nil || backend.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) || backend.RemedyOf(err) == "" {
			t.Errorf("%s: %v, want kind %q with %q", name, err, c.kind, c.want)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s: left behind: %v", name, left)
		}
	}
}

func TestScanReportsProgressAndIsCancelled(t *testing.T) {
	store := synthetic{files: 2500}
	var last dataset.Done
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	if _, err := Scan(ctx, store, Options{}, t.TempDir(), func(d dataset.Done) { last = d }); err != nil {
		t.Fatal(err)
	}
	if want := (dataset.Done{Files: 2500, FilesTotal: 2500, Bytes: 250_000_000, BytesTotal: 250_000_000}); last != want {
		t.Errorf("last progress %+v", last)
	}
	dir := t.TempDir()
	_, err := Scan(ctx, store, Options{}, dir, func(d dataset.Done) {
		if d.Files >= 1000 {
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

func TestPlanRefusesNumbersOutsideTheDataset(t *testing.T) {
	_, v := scanOpen(t, writeTree(t, map[string]string{"a": "1"}), Options{})
	var p dataset.Plan
	for _, n := range []int64{-1, 1} {
		if err := v.Plan(&p, []int64{0, n}); backend.KindOf(err) != backend.OutOfRange {
			t.Errorf("sample %d: %v, want kind out_of_range", n, err)
		}
		if _, _, err := v.Key(n); backend.KindOf(err) != backend.OutOfRange {
			t.Errorf("key of %d: %v, want kind out_of_range", n, err)
		}
	}
}

func TestOpenRefusesIndexesThatAreNotItsOwn(t *testing.T) {
	for name, change := range map[string]func(*dataset.Meta){
		"another format": func(m *dataset.Meta) { m.Info.Format = "tokens" },
		"sample count":   func(m *dataset.Meta) { m.Info.Samples = 2 },
		"bytes":          func(m *dataset.Meta) { m.Info.Bytes = -1 },
		"largest":        func(m *dataset.Meta) { m.MaxBytes = 1 << 40 },
	} {
		idx := writeIndex(t, dataset.Record{Name: []byte("a"), Label: -1, Version: backend.Version{Size: 3}}, change)
		if _, err := Open(idx); backend.RemedyOf(err) == "" {
			t.Errorf("%s: %v, want an error with a remedy", name, err)
		}
	}
	idx := writeIndex(t, dataset.Record{Name: []byte("a"), Label: 7, Version: backend.Version{Size: 3}}, func(*dataset.Meta) {})
	v, err := Open(idx)
	if err != nil {
		t.Fatal(err)
	}
	var p dataset.Plan
	if err := v.Plan(&p, []int64{0}); backend.KindOf(err) != backend.Corrupt || backend.RemedyOf(err) == "" {
		t.Errorf("label of no class: %v, want kind corrupt", err)
	}
}

// writeIndex writes an index of one record with changed metadata.
func writeIndex(t *testing.T, r dataset.Record, change func(*dataset.Meta)) *dataset.Index {
	t.Helper()
	dir := t.TempDir()
	w, err := dataset.Create(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Append(&r); err != nil {
		t.Fatal(err)
	}
	meta := dataset.Meta{Info: dataset.Info{Format: Format, Samples: 1, Files: 1, Bytes: 3}}
	change(&meta)
	meta, err = w.Commit(meta)
	if err != nil {
		t.Fatal(err)
	}
	idx, err := dataset.OpenIndex(dataset.IndexPath(dir, meta.Info.ID))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = idx.Close() })
	return idx
}

// synthetic is an origin of made-up files, for sizes that no test writes to disk.
type synthetic struct {
	dirstore.Store
	files int
}

func (s synthetic) Objects(_ context.Context, visit func(backend.Object) error, _ func([]byte, string)) error {
	name := make([]byte, 0, 64)
	for i := range s.files {
		k := i * 7919 % s.files // in no order
		name = fmt.Appendf(name[:0], "class-%03d/image-%09d.jpg", k%1000, k)
		err := visit(backend.Object{Origin: "synthetic", Name: name, Version: backend.Version{
			Device: 1, Inode: uint64(k), Size: 100_000, ModifiedNs: 1, ChangedNs: 1}})
		if err != nil {
			return err
		}
	}
	return nil
}

func TestPlansAllocateNothing(t *testing.T) {
	for _, files := range []int{1000, 60000} { // kept in memory, and read by pread
		_, v := scanOpen(t, synthetic{files: files}, Options{})
		var p dataset.Plan
		samples := make([]int64, 64)
		round := int64(0)
		plan := func() {
			for i := range samples {
				samples[i] = (round*64 + int64(i)) * 7907 % v.Len()
			}
			round++
			if err := v.Plan(&p, samples); err != nil {
				t.Fatal(err)
			}
		}
		plan()
		if allocs := testing.AllocsPerRun(200, plan); allocs != 0 {
			t.Errorf("%d files: %v allocations a plan, want 0", files, allocs)
		}
	}
}

func TestOpeningTakesNoLongerForManySamples(t *testing.T) {
	const files = 60_000
	dir := t.TempDir()
	info, err := Scan(context.Background(), synthetic{files: files}, Options{}, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	fastest := time.Hour
	for range 20 {
		start := time.Now()
		idx, err := dataset.OpenIndex(dataset.IndexPath(dir, info.ID))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(idx); err != nil {
			t.Fatal(err)
		}
		fastest = min(fastest, time.Since(start))
		if err := idx.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if fastest > 10*time.Millisecond {
		t.Errorf("opening %d samples takes %v, want less than 10 ms", files, fastest)
	}
}

func TestEqualTreesGiveEqualIndexesWhateverTheListingsOrder(t *testing.T) {
	a, _ := scanOpen(t, synthetic{files: 1000}, Options{})
	b, _ := scanOpen(t, reversed{synthetic{files: 1000}}, Options{})
	if a.ID != b.ID {
		t.Errorf("ids %s and %s", a.ID, b.ID)
	}
}

// reversed lists another origin's objects from the last to the first.
type reversed struct{ synthetic }

func (r reversed) Objects(ctx context.Context, visit func(backend.Object) error, leftOut func([]byte, string)) error {
	var all []backend.Object
	err := r.synthetic.Objects(ctx, func(o backend.Object) error {
		o.Name = bytes.Clone(o.Name)
		all = append(all, o)
		return nil
	}, leftOut)
	if err != nil {
		return err
	}
	slices.Reverse(all)
	for _, o := range all {
		if err := visit(o); err != nil {
			return err
		}
	}
	return nil
}
