package formats

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/internal/dirstore"
)

// writeFiles writes files of that content below a new directory.
func writeFiles(t *testing.T, names, content string) dirstore.Store {
	t.Helper()
	dir := t.TempDir()
	for _, name := range strings.Fields(names) {
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

// tarFiles writes archives of empty members, and other files beside them.
func tarFiles(t *testing.T, archives, others, members string) dirstore.Store {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range strings.Fields(members) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	store := writeFiles(t, others, "ab")
	for _, name := range strings.Fields(archives) {
		path := filepath.Join(store.Dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

// packed writes archives without a member, packed with gzip.
func packed(t *testing.T, names string) dirstore.Store {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(make([]byte, 1024)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return writeFiles(t, names, b.String())
}

const classesSaw = "8 bare .bin files, uint16 (assumed: bare files do not say it); all are small and in sub-directories: " +
	"if each is a sample and its directory a class, add them with --format raw"

func TestDetectSaysWhatItSaw(t *testing.T) {
	testdata := func(name string) dirstore.Store { return dirstore.Store{Dir: "../tokens/testdata/" + name} }
	for name, c := range map[string]struct {
		store   dirstore.Store
		include string
		format  string
		saw     string
	}{
		"nanoGPT":         {testdata("nanogpt"), "", "tokens", "2 bare .bin files, uint16 (assumed: bare files do not say it)"},
		"llm.c":           {testdata("llmc"), "", "tokens", "1 llm.c .bin file, uint16"},
		"Megatron":        {testdata("megatron"), "", "tokens", "2 Megatron .bin/.idx pairs, uint16"},
		"one Megatron":    {testdata("megatron-modes"), "", "tokens", "1 Megatron .bin/.idx pair, int32"},
		"included":        {testdata("megatron"), "a.bin", "tokens", "1 Megatron .bin/.idx pair, uint16"},
		"beside notes":    {writeFiles(t, "a.bin README.md prepare.py meta.pkl .git/x", "ab"), "", "tokens", "1 bare .bin file, uint16 (assumed: bare files do not say it)"},
		"images":          {writeFiles(t, "cat/a.jpg dog/b.jpg", "x"), "", "raw", `files that are no token files, such as "cat/a.jpg"`},
		"mixed":           {writeFiles(t, "a.bin b.jpg", "xy"), "", "raw", `files that are no token files, such as "b.jpg", beside .bin files such as "a.bin": if those alone are meant, add them with --format tokens`},
		"stray before":    {writeFiles(t, "a.jpg b.bin", "xy"), "", "raw", `files that are no token files, such as "a.jpg", beside .bin files such as "b.bin": if those alone are meant, add them with --format tokens`},
		"classes":         {writeFiles(t, "0/a.bin 0/b.bin 0/c.bin 0/d.bin 1/a.bin 1/b.bin 1/c.bin 1/d.bin", "xy"), "", "tokens", classesSaw},
		"one class":       {writeFiles(t, "0/a.bin 0/b.bin 0/c.bin 0/d.bin 0/e.bin 0/f.bin 0/g.bin 0/h.bin", "xy"), "", "tokens", "8 bare .bin files, uint16 (assumed: bare files do not say it)"},
		"only notes":      {writeFiles(t, "a.json", "xy"), "", "raw", `files that are no token files, such as "a.json"`},
		"only idx":        {writeFiles(t, "a.idx", "xy"), "", "raw", `files that are no token files, such as "a.idx"`},
		"archives":        {tarFiles(t, "b.tar a.tar", "", "a.jpg a.cls b.jpg"), "", "tar", "2 tar shards, 5 KiB; samples of cls, jpg"},
		"one archive":     {tarFiles(t, "x/a.tar", "x/a.idx README.md meta.json", "a.jpg"), "", "tar", "1 tar shard, 1.5 KiB; samples of jpg"},
		"no samples":      {tarFiles(t, "a.tar", "", "a"), "", "tar", "1 tar shard, 1.5 KiB; \"a.tar\" begins with no sample"},
		"no archive":      {writeFiles(t, "a.tar", strings.Repeat("x", 2048)), "", "tar", "1 tar shard, 2 KiB; \"a.tar\" is damaged or no archive"},
		"zip":             {writeFiles(t, "a.tar", "PK\x03\x04"+strings.Repeat("z", 600)), "", "tar", "1 tar shard, 604 bytes; \"a.tar\" cannot be read"},
		"nine parts":      {tarFiles(t, "a.tar", "", "a.0 a.1 a.2 a.3 a.4 a.5 a.6 a.7 a.8"), "", "tar", "1 tar shard, 5.5 KiB; samples of 0, 1, 2, 3, 4, 5, 6, 7 and 1 more part"},
		"packed":          {packed(t, "a.tar.gz"), "", "tar", "1 tar shard, 32 bytes, packed with gzip; \"a.tar.gz\" begins with no sample"},
		"first packed":    {packed(t, "a.tar.gz b.tar"), "", "tar", "2 tar shards, 64 bytes, the first packed with gzip; \"a.tar.gz\" begins with no sample"},
		"many parts":      {tarFiles(t, "a.tar", "", "a.0 a.1 a.2 a.3 a.4 a.5 a.6 a.7 a.8 a.9"), "", "tar", "1 tar shard, 6 KiB; samples of 0, 1, 2, 3, 4, 5, 6, 7 and 2 more parts"},
		"beside archives": {tarFiles(t, "a.tar", "b.jpg", "a.jpg"), "", "raw", `files that are no tar archives, such as "b.jpg", beside archives such as "a.tar": if those alone are meant, add them with --format tar`},
		"bin and tar":     {tarFiles(t, "a.tar", "b.bin", "a.jpg"), "", "raw", `tar archives such as "a.tar" beside .bin files such as "b.bin": if one kind alone is meant, add it with --format tar or --format tokens`},
		"tar included":    {tarFiles(t, "{a}-1.tar 2.tar", "b.bin", "a.jpg"), "[1-9].tar", "tar", "1 tar shard, 1.5 KiB; samples of jpg"},
		"include chooses": {writeFiles(t, "a.bin b.jpg", "xy"), "*.bin", "tokens", "1 bare .bin file, uint16 (assumed: bare files do not say it)"},
	} {
		var include []string
		if c.include != "" {
			include = []string{c.include}
		}
		d, err := Detect(context.Background(), c.store, include, "")
		if err != nil || d.Format != c.format || d.Saw != c.saw {
			t.Errorf("%s: %+v (%v), want %s: %s", name, d, err, c.format, c.saw)
		}
	}
	if _, err := Detect(context.Background(), writeFiles(t, ".x", ""), nil, ""); backend.KindOf(err) != backend.NotFound || backend.RemedyOf(err) == "" {
		t.Errorf("nothing: %v, want kind not_found", err)
	}
	if _, err := Detect(context.Background(), writeFiles(t, "a.bin", "xyz"), nil, ""); backend.KindOf(err) != backend.Corrupt || !strings.Contains(backend.RemedyOf(err), "--format raw") {
		t.Errorf("odd length: %v, want kind corrupt", err)
	}
}

func TestADirectoryOfLinksThatLeadOutsideSaysSo(t *testing.T) {
	elsewhere := writeFiles(t, "cat/1.jpg dog/1.jpg", "x")
	store := dirstore.Store{Dir: t.TempDir()}
	for _, class := range []string{"cat", "dog"} {
		if err := os.Symlink(filepath.Join(elsewhere.Dir, class), filepath.Join(store.Dir, class)); err != nil {
			t.Fatal(err)
		}
	}
	for format, include := range map[string][]string{"auto": nil, "raw": {"**/*.jpg"}} {
		_, _, err := Scan(context.Background(), store, Options{Format: format, Include: include}, t.TempDir(), nil)
		if backend.KindOf(err) != backend.NotFound || !strings.Contains(err.Error(), "lead out of the directory or nowhere: 2") ||
			!strings.Contains(backend.RemedyOf(err), "copy the files") {
			t.Errorf("format %s: %v", format, err)
		}
	}
}

func TestLintGoesByTheFormat(t *testing.T) {
	for format, store := range map[string]dirstore.Store{
		"raw": writeFiles(t, "a.jpg", "x"), "tokens": {Dir: "../tokens/testdata/megatron"}, "tar": tarFiles(t, "a.tar", "", "1.jpg"),
	} {
		for _, given := range []string{format, Auto} {
			summary, err := Lint(context.Background(), store, Options{Format: given}, func(dataset.Finding) error { return nil }, nil)
			if err != nil || summary.Format != format || summary.Files == 0 {
				t.Errorf("%s as %s: %+v (%v)", format, given, summary, err)
			}
		}
	}
	if _, err := Lint(context.Background(), writeFiles(t, "a", ""), Options{Format: "parquet"}, nil, nil); backend.KindOf(err) != backend.Invalid {
		t.Errorf("unknown format: %v", err)
	}
}

func TestScanAndOpenGoByTheFormat(t *testing.T) {
	store := dirstore.Store{Dir: "../tokens/testdata/megatron"}
	for format, want := range map[string]int64{"auto": 4, "": 4, "tokens": 4, "raw": 4} {
		dir := t.TempDir()
		info, saw, err := Scan(context.Background(), store, Options{Format: format}, dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		if auto := format == "auto" || format == ""; auto != (saw != "") {
			t.Errorf("format %q: saw %q", format, saw)
		}
		idx, err := dataset.OpenIndex(dataset.IndexPath(dir, info.ID))
		if err != nil {
			t.Fatal(err)
		}
		v, err := Open(idx, ViewOptions{BlockSize: 5})
		if err != nil || v.Len() != want { // tokens: 3 rows and 1; raw: 4 files
			t.Errorf("format %q: %v, %v", format, v, err)
		}
		if err := idx.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, format := range []string{"auto", "tar"} {
		dir := t.TempDir()
		archives := tarFiles(t, "a.tar b.tar", "README", "1.jpg 1.cls 2.jpg 2.cls")
		info, _, err := Scan(context.Background(), archives, Options{Format: format}, dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		idx, err := dataset.OpenIndex(dataset.IndexPath(dir, info.ID))
		if err != nil {
			t.Fatal(err)
		}
		v, err := Open(idx, ViewOptions{Select: []dataset.Select{{Name: "x", Parts: []string{"cls"}}}})
		if err != nil || v.Len() != 4 || len(v.Columns()) != 1 || v.Columns()[0].Name != "x" {
			t.Errorf("format %q: %v, %v", format, v, err)
		}
		if err := idx.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := Scan(context.Background(), store, Options{Format: "parquet"}, t.TempDir(), nil); err == nil ||
		!strings.Contains(err.Error(), "parquet") || backend.RemedyOf(err) == "" {
		t.Errorf("unknown format: %v", err)
	}
}
