package tokens

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/internal/dirstore"
)

// writeFiles writes files, by name, below a new directory.
func writeFiles(t testing.TB, files map[string][]byte) dirstore.Store {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dirstore.Store{Dir: dir}
}

// scanIndex scans a store and opens the index.
func scanIndex(t testing.TB, store backend.Store, opts Options) *dataset.Index {
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
	return idx
}

func openRows(t testing.TB, idx *dataset.Index, block int64) dataset.View {
	t.Helper()
	v, err := Open(idx, ViewOptions{BlockSize: block})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// readRow returns a row's bytes as its plan says.
func readRow(t testing.TB, store dirstore.Store, v dataset.View, row int64) []byte {
	t.Helper()
	var p dataset.Plan
	if err := v.Plan(&p, []int64{row}); err != nil {
		t.Fatal(err)
	}
	b, err := store.ReadPart(context.Background(), p.Objects[p.Parts[0].Object], p.Parts[0].Offset, p.Parts[0].Length)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCommittedFilesGiveTheirRows(t *testing.T) {
	for _, c := range []struct {
		dir   string
		dtype dataset.DType
		files [][]int64 // tokens
	}{
		{"nanogpt", dataset.Uint16, [][]int64{count(0, 33), count(33, 9)}},
		{"llmc", dataset.Uint16, [][]int64{count(0, 21)}},
		{"llmc3", dataset.Uint32, [][]int64{count(0, 21)}},
		{"megatron", dataset.Uint16, [][]int64{count(0, 20), count(20, 6)}},
		{"megatron-modes", dataset.Int32, [][]int64{count(0, 12)}},
	} {
		store := dirstore.Store{Dir: filepath.Join("testdata", c.dir)}
		idx := scanIndex(t, store, Options{})
		info := idx.Info()
		if info.DType != c.dtype || info.Files != int64(len(c.files)) || info.Samples != 0 {
			t.Errorf("%s: %+v", c.dir, info)
		}
		for block := 1; block <= 11; block++ {
			checkRows(t, store, openRows(t, idx, int64(block)), c.files, block, int(c.dtype.Size()))
		}
	}
}

// checkRows holds all rows of a view against the files' tokens.
func checkRows(t testing.TB, store dirstore.Store, v dataset.View, files [][]int64, block, tokenBytes int) {
	t.Helper()
	row := int64(0)
	for _, tokens := range files {
		for k := 0; (k+1)*block+1 <= len(tokens); k++ {
			want := bare(tokens[k*block:(k+1)*block+1], tokenBytes)
			if got := readRow(t, store, v, row); !bytes.Equal(got, want) {
				t.Fatalf("block size %d, row %d: %x, want %x", block, row, got, want)
			}
			row++
		}
	}
	if v.Len() != row {
		t.Fatalf("block size %d: %d rows, want %d", block, v.Len(), row)
	}
}

func TestRowsAreSlicesOfTheConcatenatedTokens(t *testing.T) {
	widths := map[dataset.DType]byte{dataset.Uint8: 1, dataset.Int8: 2, dataset.Int16: 3, dataset.Int32: 4, dataset.Int64: 5, dataset.Uint16: 8}
	rapid.Check(t, func(rt *rapid.T) {
		dtype := rapid.SampledFrom([]dataset.DType{dataset.Uint8, dataset.Int8, dataset.Int16, dataset.Int32, dataset.Int64, dataset.Uint16}).Draw(rt, "dtype")
		megatron, width := rapid.Bool().Draw(rt, "megatron"), int(dtype.Size())
		files, content, longest := [][]int64{}, map[string][]byte{}, 0
		for i := range rapid.IntRange(1, 5).Draw(rt, "files") {
			lengths := rapid.SliceOfN(rapid.Int32Range(0, 40), 1, 6).Draw(rt, "lengths")
			total := 0
			for _, n := range lengths {
				total += int(n)
			}
			tokens := count(i*17, total)
			name := fmt.Sprintf("part-%d/x", i)
			content[name+".bin"] = bare(tokens, width)
			if megatron {
				content[name+".idx"] = megatronIdx(widths[dtype], width, lengths, []int64{0, int64(len(lengths))}, nil)
			}
			if total > 0 {
				files, longest = append(files, tokens), max(longest, total)
			}
		}
		if longest < 2 {
			return
		}
		store := writeFiles(t, content)
		block := rapid.IntRange(1, longest-1).Draw(rt, "block")
		idx := scanIndex(t, store, Options{DType: dtype})
		checkRows(t, store, openRows(t, idx, int64(block)), files, block, width)
	})
}

func TestAPlanNamesEachFileOnce(t *testing.T) {
	files := map[string][]byte{}
	for i := range 40 {
		files[fmt.Sprintf("%02d.bin", i)] = bare(count(i, 41), 2)
	}
	v := openRows(t, scanIndex(t, writeFiles(t, files), Options{}), 4)
	var p dataset.Plan
	rows := make([]int64, 3*v.Len())
	for i := range rows {
		rows[i] = int64(i) * 7 % v.Len()
	}
	if err := v.Plan(&p, rows); err != nil {
		t.Fatal(err)
	}
	if len(p.Objects) != 40 || len(p.Parts) != len(rows) {
		t.Fatalf("%d objects and %d parts for %d rows of 40 files", len(p.Objects), len(p.Parts), len(rows))
	}
	for i, part := range p.Parts {
		want := fmt.Sprintf("%02d.bin", rows[i]/10)
		if o := p.Objects[part.Object]; string(o.Name) != want || o.Number != rows[i]/10 || part.Offset != rows[i]%10*8 || part.Length != 10 {
			t.Fatalf("row %d: part %+v of %q", rows[i], part, o.Name)
		}
	}
}

func TestKeysNameFileAndTokens(t *testing.T) {
	v := openRows(t, scanIndex(t, dirstore.Store{Dir: "testdata/nanogpt"}, Options{}), 8)
	for row, want := range map[int64]string{0: "train.bin[0:9]", 3: "train.bin[24:33]", 4: "val.bin[0:9]"} {
		if file, got, err := v.Key(row); err != nil || got != want || !strings.HasPrefix(want, file+"[") {
			t.Errorf("row %d: key %q in %q (%v), want %q", row, got, file, err, want)
		}
	}
}

func TestIDsNameIndexAndBlockSize(t *testing.T) {
	idx := scanIndex(t, dirstore.Store{Dir: "testdata/nanogpt"}, Options{})
	a, again, b := openRows(t, idx, 8), openRows(t, idx, 8), openRows(t, idx, 4)
	if a.ID() != again.ID() || a.ID() == b.ID() || a.ID() == idx.Info().ID || len(a.ID()) != 32 {
		t.Errorf("ids %s, %s and %s of index %s", a.ID(), again.ID(), b.ID(), idx.Info().ID)
	}
}

func TestScanRefusesWhatIsNoTokenDataset(t *testing.T) {
	good := megatronIdx(8, 2, []int32{4, 6}, []int64{0, 1, 2}, nil)
	changed := func(change func(b []byte) []byte) []byte { return change(bytes.Clone(good)) }
	put := func(at int, v uint64) []byte {
		return changed(func(b []byte) []byte { binary.LittleEndian.PutUint64(b[at:], v); return b })
	}
	bin := bare(count(0, 10), 2)
	llmc := llmcFile(20240520, 1, count(0, 10), 2)
	llmcAt := func(at int, v uint32) []byte {
		b := bytes.Clone(llmc)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	for name, c := range map[string]struct {
		files map[string][]byte
		opts  Options
		kind  backend.Kind
		want  string
	}{
		"nothing":              {nil, Options{}, backend.NotFound, "no file at all"},
		"no token file":        {map[string][]byte{"a.txt": nil}, Options{}, backend.NotFound, "**/*.bin"},
		"only empty":           {map[string][]byte{"a.bin": nil}, Options{}, backend.NotFound, "hold no tokens"},
		"odd length":           {map[string][]byte{"a.bin": bin[:19]}, Options{}, backend.Corrupt, "19 bytes are no whole number of uint16"},
		"length for dtype":     {map[string][]byte{"a.bin": bin[:18]}, Options{DType: "int32"}, backend.Corrupt, "no whole number of int32"},
		"dtype":                {map[string][]byte{"a.bin": bin}, Options{DType: "float32"}, backend.Invalid, "no type of tokens"},
		"llm.c unknown magic":  {map[string][]byte{"a.bin": llmcAt(0, 20240522)}, Options{}, backend.Corrupt, "magic 20240522"},
		"llm.c version":        {map[string][]byte{"a.bin": llmcAt(4, 7)}, Options{}, backend.Corrupt, "version 7, expected 1"},
		"llm.c count":          {map[string][]byte{"a.bin": llmcAt(8, 11)}, Options{}, backend.Corrupt, "says 11 tokens"},
		"llm.c absurd count":   {map[string][]byte{"a.bin": llmcAt(8, 1<<31)}, Options{}, backend.Corrupt, "says -2147483648 tokens"},
		"llm.c cut short":      {map[string][]byte{"a.bin": llmc[:500]}, Options{}, backend.Corrupt, "500 bytes begin as an llm.c header"},
		"idx as bin":           {map[string][]byte{"a.bin": good}, Options{}, backend.Corrupt, "begins as the .idx"},
		"idx magic":            {map[string][]byte{"a.bin": bin, "a.idx": changed(func(b []byte) []byte { b[0] = 'X'; return b })}, Options{}, backend.Corrupt, `begins with "XMIDIDX`},
		"idx version":          {map[string][]byte{"a.bin": bin, "a.idx": put(9, 2)}, Options{}, backend.Corrupt, "version 2"},
		"idx float":            {map[string][]byte{"a.bin": bin, "a.idx": changed(func(b []byte) []byte { b[17] = 7; return b })}, Options{}, backend.Corrupt, "dtype code 7"},
		"idx header cut":       {map[string][]byte{"a.bin": bin, "a.idx": good[:33]}, Options{}, backend.Corrupt, "cut short"},
		"idx cut":              {map[string][]byte{"a.bin": bin, "a.idx": good[:len(good)-1]}, Options{}, backend.Corrupt, "the file has"},
		"idx absurd sequences": {map[string][]byte{"a.bin": bin, "a.idx": put(18, 1<<63)}, Options{}, backend.Corrupt, "too few"},
		"idx overflow":         {map[string][]byte{"a.bin": bin, "a.idx": put(18, (1<<64-1)/12+2)}, Options{}, backend.Corrupt, "too few"},
		"idx absurd documents": {map[string][]byte{"a.bin": bin, "a.idx": put(26, 1<<61)}, Options{}, backend.Corrupt, "too few"},
		"idx negative length":  {map[string][]byte{"a.bin": bin, "a.idx": megatronIdx(8, 2, []int32{10, -2}, []int64{0, 2}, nil)}, Options{}, backend.Corrupt, "has -2 tokens"},
		"idx gap":              {map[string][]byte{"a.bin": bin, "a.idx": put(34+8+8, 10)}, Options{}, backend.Corrupt, "sequence 1 has 6 tokens at byte 10, expected at byte 8"},
		"idx negative pointer": {map[string][]byte{"a.bin": bin, "a.idx": put(34+8, 1<<63)}, Options{}, backend.Corrupt, "expected at byte 0"},
		"idx documents":        {map[string][]byte{"a.bin": bin, "a.idx": megatronIdx(8, 2, []int32{4, 6}, []int64{0, 2, 1}, nil)}, Options{}, backend.Corrupt, "document entry 2 is 1"},
		"idx first document":   {map[string][]byte{"a.bin": bin, "a.idx": megatronIdx(8, 2, []int32{4, 6}, []int64{1, 2}, nil)}, Options{}, backend.Corrupt, "document entry 0 is 1"},
		"idx last document":    {map[string][]byte{"a.bin": bin, "a.idx": megatronIdx(8, 2, []int32{4, 6}, []int64{0, 1}, nil)}, Options{}, backend.Corrupt, "ends at sequence 1 of 2"},
		"idx no documents":     {map[string][]byte{"a.bin": bin, "a.idx": megatronIdx(8, 2, []int32{4, 6}, nil, nil)}, Options{}, backend.Corrupt, "no document entries"},
		"bin shorter than idx": {map[string][]byte{"a.bin": bin[:18], "a.idx": good}, Options{}, backend.Corrupt, "18 bytes, but sequence 1"},
		"idx without bin":      {map[string][]byte{"a.bin": bin, "b.idx": good}, Options{}, backend.NotFound, "b.bin"},
		"two dtypes":           {map[string][]byte{"a.bin": llmc, "b.bin": llmcFile(20240801, 7, count(0, 9), 4)}, Options{}, backend.Invalid, `"a.bin" holds uint16 tokens (llm.c), "b.bin" holds uint32`},
		"two layouts":          {map[string][]byte{"a.bin": bin, "b.bin": llmc}, Options{}, backend.Invalid, `"a.bin" holds uint16 tokens (bare), "b.bin" holds uint16 (llm.c)`},
	} {
		dir := t.TempDir()
		_, err := Scan(context.Background(), writeFiles(t, c.files), c.opts, dir, nil)
		if err == nil || backend.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) || backend.RemedyOf(err) == "" {
			t.Errorf("%s: %v, want kind %q with %q and a remedy", name, err, c.kind, c.want)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s: left behind: %v", name, left)
		}
	}
}

func TestScanTakesWhatIsOnlyUnusual(t *testing.T) {
	bin := bare(count(0, 10), 2)
	for name, c := range map[string]struct {
		files  map[string][]byte
		opts   Options
		tokens int64
	}{
		"an .idx that is not Megatron's": {map[string][]byte{"a.bin": bin, "notes.idx": []byte("word 1\n")}, Options{}, 10},
		"an empty file among others":     {map[string][]byte{"a.bin": bin, "b.bin": nil}, Options{}, 10},
		"more bytes than the .idx says":  {map[string][]byte{"a.bin": append(bytes.Clone(bin), 1, 2, 3), "a.idx": megatronIdx(8, 2, []int32{10}, []int64{0, 1}, nil)}, Options{}, 10},
		"a pattern that matches .idx":    {map[string][]byte{"a.bin": bin, "a.idx": megatronIdx(8, 2, []int32{10}, []int64{0, 1}, nil)}, Options{Include: []string{"a.*"}}, 10},
		"other suffixes":                 {map[string][]byte{"a.tok": bin, "b.tok": bin, "c.bin": bin[:1]}, Options{Include: []string{"*.tok"}}, 20},
		"a date without a header":        {map[string][]byte{"a.bin": append([]byte{0x8A, 0xD8, 0x34, 0x01}, bin...)}, Options{}, 12},
	} {
		info := scanIndex(t, writeFiles(t, c.files), c.opts).Info()
		if info.Tokens != c.tokens || info.DType != dataset.Uint16 || info.Bytes != 2*c.tokens {
			t.Errorf("%s: %+v", name, info)
		}
	}
}

func TestSkippedCountsOnlyWhatIsNotRead(t *testing.T) {
	bin, idx := bare(count(0, 10), 2), megatronIdx(8, 2, []int32{10}, []int64{0, 1}, nil)
	store := writeFiles(t, map[string][]byte{"a.bin": bin, "a.idx": idx, "b.idx": []byte("words"), "note.txt": nil, ".x.bin": nil, "c.bin": nil})
	got := scanIndex(t, store, Options{}).Info().Skipped
	want := map[string]int{"not included": 1, "idx without bin": 1, "hidden": 1, "empty": 1}
	if !maps.Equal(got, want) {
		t.Errorf("skipped %v, want %v", got, want)
	}
}

func TestLinksThatLeadOutsideAreCounted(t *testing.T) {
	bin := bare(count(0, 10), 2)
	elsewhere, store := writeFiles(t, map[string][]byte{"b.bin": bin, "c/d.bin": bin, "note.txt": nil}), writeFiles(t, map[string][]byte{"a.bin": bin})
	for _, name := range []string{"b.bin", "c", "note.txt"} {
		if err := os.Symlink(filepath.Join(elsewhere.Dir, name), filepath.Join(store.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]int{backend.LinkOutside: 2} // not the note, which no pattern takes
	if got := scanIndex(t, store, Options{}).Info().Skipped; !maps.Equal(got, want) {
		t.Errorf("skipped %v, want %v", got, want)
	}
}

func TestOpenRefusesBlockSizesWithoutRows(t *testing.T) {
	idx := scanIndex(t, dirstore.Store{Dir: "testdata/nanogpt"}, Options{})
	for _, block := range []int64{-1, 0, 33, 1 << 62} {
		_, err := Open(idx, ViewOptions{BlockSize: block})
		if backend.KindOf(err) != backend.OutOfRange || backend.RemedyOf(err) == "" || strings.Contains(err.Error(), ".idx") {
			t.Errorf("block size %d: %v, want kind out_of_range with a remedy", block, err)
		}
		if block > 0 && (!strings.Contains(err.Error(), `"train.bin"`) || !strings.Contains(err.Error(), "longest file has 33") || !strings.Contains(err.Error(), "at most 32")) {
			t.Errorf("block size %d: %v, want the longest file, its 33 tokens and what would do", block, err)
		}
	}
	v := openRows(t, idx, 32)
	var p dataset.Plan
	for _, row := range []int64{-1, 1} {
		if err := v.Plan(&p, []int64{row}); backend.KindOf(err) != backend.OutOfRange || backend.RemedyOf(err) == "" {
			t.Errorf("row %d: %v, want kind out_of_range", row, err)
		}
		if _, _, err := v.Key(row); backend.KindOf(err) != backend.OutOfRange || backend.RemedyOf(err) == "" {
			t.Errorf("key of row %d: %v, want kind out_of_range", row, err)
		}
	}
}

func TestOpenHoldsHostileRecordsAgainstTheirFiles(t *testing.T) {
	extra := func(start, tokens uint64) []byte {
		return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, start), tokens)
	}
	for name, c := range map[string]struct {
		extra  []byte
		tokens int64
		dtype  dataset.DType
	}{
		"too many tokens":  {extra(0, 51), 51, "uint16"},
		"start beyond":     {extra(101, 0), 0, "uint16"},
		"negative start":   {extra(1<<63, 1), 1, "uint16"},
		"negative tokens":  {extra(0, 1<<63), -1 << 63, "uint16"},
		"short data":       {extra(0, 1)[:15], 1, "uint16"},
		"unlike the total": {extra(0, 50), 49, "uint16"},
		"no dtype":         {extra(0, 50), 50, ""},
		"float":            {extra(0, 25), 25, "float32"},
	} {
		dir := t.TempDir()
		w, err := dataset.Create(dir, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Append(&dataset.Record{Name: []byte("a"), Version: backend.Version{Size: 100}, Extra: c.extra}); err != nil {
			t.Fatal(err)
		}
		meta, err := w.Commit(dataset.Meta{Info: dataset.Info{Format: Format, Files: 1, Tokens: c.tokens, DType: c.dtype}})
		if err != nil {
			t.Fatal(err)
		}
		idx, err := dataset.OpenIndex(dataset.IndexPath(dir, meta.Info.ID))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(idx, ViewOptions{BlockSize: 1}); backend.KindOf(err) != backend.Corrupt || backend.RemedyOf(err) == "" {
			t.Errorf("%s: %v, want kind corrupt", name, err)
		}
		if err := idx.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAHundredMillionRowsOpenAtOnce(t *testing.T) {
	const rows, block = 100_000_000, 2048
	store := writeFiles(t, map[string][]byte{"a.bin": nil})
	if err := os.Truncate(filepath.Join(store.Dir, "a.bin"), (rows*block+1)*2); err != nil {
		t.Fatal(err) // a hole: it takes no room
	}
	start := time.Now()
	v := openRows(t, scanIndex(t, store, Options{}), block)
	if took := time.Since(start); v.Len() != rows || took > time.Second {
		t.Errorf("%d rows in %v, want %d in less than 1 s", v.Len(), took, rows)
	}
	if got := readRow(t, store, v, rows-1); len(got) != (block+1)*2 {
		t.Errorf("last row has %d bytes", len(got))
	}
}

func TestPlansAllocateNothing(t *testing.T) {
	files := map[string][]byte{}
	for i := range 100 {
		files[fmt.Sprintf("%03d.bin", i)] = make([]byte, 2*1001)
	}
	v := openRows(t, scanIndex(t, writeFiles(t, files), Options{}), 10)
	var p dataset.Plan
	rows := make([]int64, 64)
	for i := range rows {
		rows[i] = int64(i) * 6101 % v.Len()
	}
	plan := func() {
		rows[0] = (rows[0] + 7) % v.Len()
		if err := v.Plan(&p, rows); err != nil {
			t.Fatal(err)
		}
	}
	plan()
	if allocs := testing.AllocsPerRun(200, plan); allocs != 0 {
		t.Errorf("%v allocations a plan, want 0", allocs)
	}
}
