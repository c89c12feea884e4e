package tar

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/internal/dirstore"
)

var updateIndex = flag.Bool("update-index", false, "write testdata/index-1.idx anew; only together with a new version of the index")

// mixed is a dataset in which samples lack parts.
func mixed(t testing.TB) scanned {
	return scanShards(t, shards(t, map[string][]byte{
		"a.tar": makeTar(t, []file{{"0.jpg", "j0"}, {"0.cls", "0"}, {"1.png", "p1!"}, {"1.cls", "1"}}),
		"b.tar": makeTar(t, []file{{"2.cls", "2"}, {"2.jpg", "j2--"}, {"3.jpg", ""}, {"4.webp", "w4"}}),
	}), Options{})
}

func names(columns []dataset.Column) string {
	var all []string
	for _, c := range columns {
		all = append(all, c.Name)
	}
	return strings.Join(all, " ")
}

func choose(text string) []dataset.Select {
	var all []dataset.Select
	for _, field := range strings.Fields(text) {
		name, parts, _ := strings.Cut(field, "=")
		all = append(all, dataset.Select{Name: name, Parts: strings.Split(parts, ";")})
	}
	return all
}

func TestColumnsAreTheSelectedParts(t *testing.T) {
	s := mixed(t)
	store := s.reader(t)
	for _, c := range []struct {
		opts    ViewOptions
		columns string
		rows    string // values separated by "/", samples by spaces
		present string
	}{
		{ViewOptions{}, "cls jpg png webp", "0/j0// 1//p1!/ 2/j2--// /// ///w4", "3 5 3 2 8"},
		{ViewOptions{Select: choose("image=jpg;png;webp")}, "image", "j0 p1! j2--  w4", ""},
		{ViewOptions{Select: choose("image=png;jpg label=cls"), Missing: MissingEmpty}, "image label", "j0/0 p1!/1 j2--/2 / /", "3 3 3 1 0"},
		{ViewOptions{Select: choose("x=jpg y=jpg"), Missing: MissingEmpty}, "x y", "j0/j0 / j2--/j2-- / /", "3 0 3 3 0"},
		{ViewOptions{Select: choose("a=none;webp;jpg;cls;png")}, "a", "j0 1 j2--  w4", ""},
	} {
		v := s.view(t, c.opts)
		if names(v.Columns()) != c.columns || v.ID() != s.info.ID {
			t.Errorf("columns %q of %s, want %q of %s", names(v.Columns()), v.ID(), c.columns, s.info.ID)
		}
		var p dataset.Plan
		if err := v.Plan(&p, []int64{0, 1, 2, 3, 4}); err != nil {
			t.Fatal(err)
		}
		var rows []string
		n, sum, largest := len(v.Columns()), int64(0), int64(0)
		for i := range 5 {
			var values []string
			size := int64(0)
			for _, part := range p.Parts[i*n:][:n] {
				values = append(values, readPart(t, store, &p, part))
				size += part.Length
			}
			rows = append(rows, strings.Join(values, "/"))
			sum, largest = sum+size, max(largest, size)
		}
		if got := strings.Join(rows, " "); got != c.rows {
			t.Errorf("%q: %q, want %q", c.columns, got, c.rows)
		}
		if got := strings.Trim(fmt.Sprint(p.Values), "[]"); got != c.present || (len(v.ValueColumns()) == 1) != (c.present != "") {
			t.Errorf("%q: present %q, want %q; %v", c.columns, got, c.present, v.ValueColumns())
		}
		if mean, most := v.SampleBytes(); mean != sum/5 || most < largest || most > largest+2 {
			t.Errorf("%q: %d and %d bytes, want %d and %d", c.columns, mean, most, sum/5, largest)
		}
	}
}

func TestAPartWithoutANameIsAColumn(t *testing.T) {
	s := scanShards(t, shards(t, map[string][]byte{"a.tar": makeTar(t, []file{{"a.", "1"}, {"a.x", "2"}, {"s/.", "33"}})}), Options{})
	for _, c := range []struct {
		opts    ViewOptions
		columns []string
		rows    string
	}{
		{ViewOptions{}, []string{"", "x"}, "1/2 33/"},
		{ViewOptions{Select: []dataset.Select{{Name: "y", Parts: []string{""}}}}, []string{"y"}, "1 33"},
		{ViewOptions{Select: []dataset.Select{{Name: "y", Parts: []string{"x", ""}}}}, []string{"y"}, "2 33"},
	} {
		v := s.view(t, c.opts)
		var found []string
		for _, column := range v.Columns() {
			found = append(found, column.Name)
		}
		var p dataset.Plan
		if err := v.Plan(&p, []int64{0, 1}); err != nil {
			t.Fatal(err)
		}
		var rows []string
		for i := range 2 {
			var values []string
			for _, part := range p.Parts[i*len(found):][:len(found)] {
				values = append(values, readPart(t, s.reader(t), &p, part))
			}
			rows = append(rows, strings.Join(values, "/"))
		}
		if !slices.Equal(found, c.columns) || strings.Join(rows, " ") != c.rows {
			t.Errorf("%q with %q, want %q with %q", found, rows, c.columns, c.rows)
		}
	}
	if _, err := Open(s.index, ViewOptions{Select: []dataset.Select{{Parts: []string{""}}}}); backend.KindOf(err) != backend.Invalid {
		t.Errorf("a selected column without a name: %v", err)
	}
}

func TestSelectionsThatCannotBeAreRefused(t *testing.T) {
	s := mixed(t)
	for name, c := range map[string]struct {
		opts ViewOptions
		say  []string
	}{
		"unknown part":   {ViewOptions{Select: choose("image=tiff")}, []string{`"image"`, `"tiff"`, `"cls", "jpg", "png", "webp"`}},
		"no parts":       {ViewOptions{Select: []dataset.Select{{Name: "x"}}}, []string{`"x"`}},
		"same name":      {ViewOptions{Select: choose("x=jpg x=cls")}, []string{`"x"`}},
		"no name":        {ViewOptions{Select: choose("=jpg")}, []string{`""`}},
		"reserved name":  {ViewOptions{Select: choose("__present__=jpg")}, []string{"__present__"}},
		"some lack it":   {ViewOptions{Select: choose("label=cls")}, []string{`"label"`, "2 of 5 samples", `"3"`, `"b.tar"`}},
		"all are needed": {ViewOptions{Missing: MissingError}, []string{"2 of 5 samples"}},
		"odd missing":    {ViewOptions{Missing: "maybe"}, []string{"maybe"}},
	} {
		_, err := Open(s.index, c.opts)
		if backend.KindOf(err) != backend.Invalid || backend.RemedyOf(err) == "" {
			t.Errorf("%s: %v, want kind invalid", name, err)
			continue
		}
		for _, say := range c.say {
			if !strings.Contains(err.Error(), say) {
				t.Errorf("%s: %v does not say %s", name, err, say)
			}
		}
	}
}

func TestPresenceIsToldOfSoManyColumnsOnly(t *testing.T) {
	var members []file
	for i := range maxPresent + 1 {
		members = append(members, file{fmt.Sprintf("0.p%02d", i), "x"})
	}
	complete := scanShards(t, shards(t, map[string][]byte{"0.tar": makeTar(t, members)}), Options{})
	if v := complete.view(t, ViewOptions{}); len(v.Columns()) != maxPresent+1 || len(v.ValueColumns()) != 0 {
		t.Errorf("%d columns, %v", len(v.Columns()), v.ValueColumns())
	}
	lacking := scanShards(t, shards(t, map[string][]byte{"0.tar": makeTar(t, append(members, file{"1.p00", "x"}))}), Options{})
	if _, err := Open(lacking.index, ViewOptions{}); backend.KindOf(err) != backend.Invalid || !strings.Contains(backend.RemedyOf(err), "select") {
		t.Errorf("%v, want kind invalid", err)
	}
	if v := lacking.view(t, ViewOptions{Select: choose("a=p00 b=p62"), Missing: MissingEmpty}); len(v.ValueColumns()) != 1 {
		t.Error("presence is not told")
	}
}

func TestPlanAndKeyRefuseNumbersOutsideTheDataset(t *testing.T) {
	v := mixed(t).view(t, ViewOptions{})
	var p dataset.Plan
	for _, n := range []int64{-1, 5, 1 << 62} {
		if err := v.Plan(&p, []int64{0, n}); backend.KindOf(err) != backend.OutOfRange || backend.RemedyOf(err) == "" {
			t.Errorf("sample %d: %v, want kind out_of_range", n, err)
		}
		if _, _, err := v.Key(n); backend.KindOf(err) != backend.OutOfRange || backend.RemedyOf(err) == "" {
			t.Errorf("key of %d: %v, want kind out_of_range", n, err)
		}
	}
}

// manySamples is a dataset whose index is mapped if n is large enough.
func manySamples(t testing.TB, shardCount, n int) scanned {
	t.Helper()
	store := &synthetic{shards: shardCount, samples: n, size: 100_000}
	return scanShards(t, store, Options{})
}

func TestPlanningAllocatesNothing(t *testing.T) {
	sizes := []int{500, 130_000} // in memory, mapped
	if raceEnabled {
		sizes = sizes[:1]
	}
	for _, n := range sizes {
		s := manySamples(t, 3, n)
		if stat, err := os.Stat(s.index.Path()); err != nil || (stat.Size() > 4<<20) != (n > 500) {
			t.Fatalf("the index has %v bytes (%v)", stat.Size(), err)
		}
		v := s.view(t, ViewOptions{})
		var p dataset.Plan
		samples, next := make([]int64, 64), int64(0)
		plan := func() {
			for i := range samples {
				next = (next + 7919*7919) % v.Len()
				samples[i] = next
			}
			if err := v.Plan(&p, samples); err != nil {
				t.Fatal(err)
			}
		}
		for range 100 {
			plan()
		}
		if allocs := testing.AllocsPerRun(200, plan); allocs != 0 {
			t.Errorf("%d samples: %v allocations a batch, want 0", n, allocs)
		}
	}
}

func TestOneViewServesManyGoroutines(t *testing.T) {
	s := manySamples(t, 4, 1000)
	v := s.view(t, ViewOptions{})
	var wait sync.WaitGroup
	for g := range 4 {
		wait.Go(func() {
			var p dataset.Plan
			for i := range int64(200) {
				n := (i*131 + int64(g)) % v.Len()
				if err := v.Plan(&p, []int64{n}); err != nil {
					t.Error(err)
					return
				}
				image := dataset.Part{Offset: n%1000*synthStride(100_000) + blockBytes, Length: 100_000}
				if p.Parts[1] != image || string(p.Objects[0].Name) != fmt.Sprintf("shard-%06d.tar", n/1000) {
					t.Errorf("sample %d: %+v", n, p.Parts)
					return
				}
				if _, key, err := v.Key(n); err != nil || key != fmt.Sprintf("%09d", n%1000) {
					t.Errorf("sample %d: key %q (%v)", n, key, err)
					return
				}
			}
		})
	}
	wait.Wait()
}

func TestEveryDamagedByteOfATarIndexIsFound(t *testing.T) {
	s := mixed(t)
	want := s.rows(t)
	whole, err := os.ReadFile(s.index.Path())
	if err != nil {
		t.Fatal(err)
	}
	end := s.index.Meta().Sections[2]
	for at := 4096; int64(at) < end.Offset+end.Bytes; at++ {
		b := bytes.Clone(whole)
		b[at] ^= 0x15
		path := filepath.Join(t.TempDir(), "damaged.idx")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkRows(t, path, s, want); backend.KindOf(err) != backend.Corrupt || backend.RemedyOf(err) == "" {
			t.Errorf("byte %d of %d damaged: %v, want kind corrupt", at, len(whole), err)
		}
	}
}

// checkRows reads the samples of the index at path; what reads without an error must be
// what is in s. It returns the first error.
func checkRows(t testing.TB, path string, s scanned, want []row) error {
	x, err := dataset.OpenIndex(path)
	if err != nil {
		return err
	}
	defer x.Close()
	v, err := Open(x, ViewOptions{})
	if err != nil {
		return err
	}
	var p dataset.Plan
	var first error
	store := s.reader(t)
	for i := range v.Len() {
		_, key, err := v.Key(i)
		if err != nil {
			first = err
		} else if key != want[i].key {
			t.Fatalf("sample %d: key %q, want %q", i, key, want[i].key)
		}
		if err := v.Plan(&p, []int64{i}); err != nil {
			first = err
			continue
		}
		for c, column := range v.Columns() {
			if got := readPart(t, store, &p, p.Parts[c]); got != want[i].parts[column.Name] {
				t.Fatalf("sample %d, part %q: %q, want %q", i, column.Name, got, want[i].parts[column.Name])
			}
		}
	}
	return first
}

// hostile writes an index whose checksums are right, of one shard of size bytes.
func hostile(t *testing.T, size int64, change func(b *blob, meta *dataset.Meta)) *dataset.Index {
	t.Helper()
	b := encodeAll(t, []encoded{{"k", []located{{suffix: []byte("a"), offset: 512, size: 1000}}}, {"l", []located{{suffix: []byte("a"), offset: 2048, size: 7}}}})
	sum := newSummary(map[string]int{})
	if err := sum.add(&b.about); err != nil {
		t.Fatal(err)
	}
	meta := dataset.Meta{Origin: "dir:x", MaxBytes: b.about.largest, Info: sum.finish()}
	meta.Info.Files = 1
	change(b, &meta)
	e := encoder{groups: b.groups, keys: b.keys, directory: b.directory[:directoryEntry]}
	e.endGroup()
	dir := t.TempDir()
	w, err := dataset.Create(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Append(&dataset.Record{Name: []byte("0.tar"), Version: backend.Version{Size: size}, Label: -1, Extra: b.about.encode(nil)}); err != nil {
		t.Fatal(err)
	}
	for _, section := range []struct {
		name    string
		content []byte
	}{{sectionGroups, b.groups}, {sectionKeys, b.keys}, {sectionDirectory, b.directory}} {
		to, err := w.Section(section.name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := to.Write(section.content); err != nil {
			t.Fatal(err)
		}
	}
	done, err := w.Commit(meta)
	if err != nil {
		t.Fatal(err)
	}
	x, err := dataset.OpenIndex(dataset.IndexPath(dir, done.Info.ID))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Close() })
	return x
}

func TestAHostileIndexNamesNoBytesOutsideItsShards(t *testing.T) {
	le := binary.LittleEndian
	for name, c := range map[string]struct {
		size   int64
		change func(b *blob, meta *dataset.Meta)
	}{
		"beyond the shard":   {1500, func(*blob, *dataset.Meta) {}},
		"shape":              {4096, func(b *blob, _ *dataset.Meta) { b.groups[4] = 9 }},
		"huge gap":           {4096, func(b *blob, _ *dataset.Meta) { b.groups[5] = 0x7f }},
		"larger than all":    {1 << 30, func(_ *blob, meta *dataset.Meta) { meta.MaxBytes = 999 }},
		"directory":          {4096, func(b *blob, _ *dataset.Meta) { le.PutUint32(b.directory[8:], 1<<31) }},
		"directory back":     {4096, func(b *blob, _ *dataset.Meta) { le.PutUint32(b.directory, 5) }},
		"keys":               {4096, func(b *blob, _ *dataset.Meta) { b.keys[5] = 200 }},
		"other sample count": {4096, func(_ *blob, meta *dataset.Meta) { meta.Info.Samples++ }},
		"other shard count":  {4096, func(_ *blob, meta *dataset.Meta) { meta.Info.Files++ }},
		"section too short":  {4096, func(b *blob, _ *dataset.Meta) { b.about.groupBytes++ }},
		"more samples":       {4096, func(b *blob, m *dataset.Meta) { b.about.samples++; b.about.shapes[0].samples++; m.Info.Samples++ }},
		"no samples":         {4096, func(b *blob, m *dataset.Meta) { b.about = description{}; m.Info.Samples = 0 }},
		"format":             {4096, func(_ *blob, meta *dataset.Meta) { meta.Info.Format = "raw" }},
	} {
		x := hostile(t, c.size, c.change)
		v, err := Open(x, ViewOptions{})
		if err == nil {
			var p dataset.Plan
			for i := range v.Len() {
				if failed := v.Plan(&p, []int64{i}); failed != nil {
					err = failed
				}
				if _, _, failed := v.Key(i); failed != nil {
					err = failed
				}
			}
		}
		if backend.KindOf(err) != backend.Corrupt || backend.RemedyOf(err) == "" {
			t.Errorf("%s: %v, want kind corrupt", name, err)
		}
	}
	v, err := Open(hostile(t, 4096, func(*blob, *dataset.Meta) {}), ViewOptions{})
	if err != nil || v.Len() != 2 {
		t.Errorf("the index without any change: %v, %v", v, err)
	}
}

// The golden index holds the layout that encode.go documents: it stays readable.
func TestTarIndexesOfVersionOneStayReadable(t *testing.T) {
	const golden = "testdata/index-1.idx"
	archive := makeTar(t, append(plainFiles(20, 0), file{"x.json", "{}"}))
	store := fixed{shards(t, map[string][]byte{"shard-0.tar": archive})}
	s := scanShards(t, store, Options{})
	fresh, err := os.ReadFile(s.index.Path())
	if err != nil {
		t.Fatal(err)
	}
	if *updateIndex {
		if err := os.WriteFile(golden, fresh, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(fresh, committed) {
		t.Errorf("the scan no longer writes %s:\n%s", golden, hex.Dump(fresh[4096:]))
	}
	x, err := dataset.OpenIndex(golden)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if err := x.Verify(context.Background()); err != nil {
		t.Error(err)
	}
	equalRows(t, scanned{store: store, dir: s.dir, index: x}.rows(t), expect(t, "shard-0.tar", archive))
}

// fixed is a directory whose files have the same versions whenever they were written.
type fixed struct{ dirstore.Store }

func (f fixed) Objects(ctx context.Context, visit func(backend.Object) error, leftOut func(name []byte, reason string)) error {
	return f.Store.Objects(ctx, func(o backend.Object) error {
		o.Origin = "dir:/fixed"
		o.Version = backend.Version{Device: 66, Inode: 1000, Size: o.Version.Size, ModifiedNs: 1_700_000_000_000_000_000, ChangedNs: 1_700_000_000_000_000_001}
		return visit(o)
	}, leftOut)
}

func TestMetadataTellsWhatAShardIsMadeOf(t *testing.T) {
	b, err := json.Marshal(mixed(t).info)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"parts":[{"name":"cls","samples":3,"bytes":3,"max_bytes":1}`, `"archives":{"tar":2}`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s does not hold %s", b, want)
		}
	}
	if !slices.IsSortedFunc(mixed(t).info.Parts, func(a, b dataset.PartInfo) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("parts are not sorted")
	}
}
