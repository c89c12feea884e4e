package tar

import (
	stdtar "archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/seekable"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/internal/dirstore"
)

// file is a member of an archive that a test makes.
type file struct {
	name    string
	content string
}

// makeTar returns an archive of files, made by the standard library.
func makeTar(t testing.TB, files []file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := stdtar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&stdtar.Header{Name: f.name, Size: int64(len(f.content)), Mode: 0o644, Format: stdtar.FormatPAX}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// shards writes archives, and whatever else, below a new directory.
func shards(t testing.TB, files map[string][]byte) dirstore.Store {
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

// scanned is a dataset that a test has scanned.
type scanned struct {
	store backend.Store
	dir   string
	info  dataset.Info
	index *dataset.Index
}

// scanInto scans a store into dir.
func scanInto(t testing.TB, store backend.Store, opts Options, dir string) scanned {
	t.Helper()
	info, err := Scan(context.Background(), store, opts, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	idx, err := dataset.OpenIndex(dataset.IndexPath(dir, info.ID))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = idx.Close() })
	return scanned{store: store, dir: dir, info: info, index: idx}
}

func scanShards(t testing.TB, store backend.Store, opts Options) scanned {
	t.Helper()
	return scanInto(t, store, opts, t.TempDir())
}

// view opens the samples of a dataset.
func (s scanned) view(t testing.TB, opts ViewOptions) dataset.View {
	t.Helper()
	v, err := Open(s.index, opts)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// reader serves the dataset's bytes, those in seekable form as well.
func (s scanned) reader(t testing.TB) backend.Store {
	t.Helper()
	pool, err := seekable.NewPool(seekable.PoolOptions{})
	if err != nil {
		t.Fatal(err)
	}
	store, err := seekable.New(s.store, s.dir, seekable.Options{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = store.Close()
		_ = pool.Close()
	})
	return store
}

// row is a sample as a test compares it.
type row struct {
	file  string
	key   string
	parts map[string]string
}

// rows reads all samples of a dataset with all their parts, through the View.
func (s scanned) rows(t testing.TB) []row {
	t.Helper()
	v, store := s.view(t, ViewOptions{}), s.reader(t)
	var all []row
	var p dataset.Plan
	for i := range v.Len() {
		if err := v.Plan(&p, []int64{i}); err != nil {
			t.Fatal(err)
		}
		r := row{parts: map[string]string{}}
		var err error
		if r.file, r.key, err = v.Key(i); err != nil {
			t.Fatal(err)
		}
		for c, column := range v.Columns() {
			if len(v.ValueColumns()) > 0 && p.Values[0]>>c&1 == 0 {
				if p.Parts[c].Length != 0 {
					t.Fatalf("sample %d lacks %q, of %d bytes", i, column.Name, p.Parts[c].Length)
				}
				continue
			}
			r.parts[column.Name] = readPart(t, store, &p, p.Parts[c])
		}
		all = append(all, r)
	}
	return all
}

func readPart(t testing.TB, store backend.Store, p *dataset.Plan, part dataset.Part) string {
	t.Helper()
	b := make([]byte, part.Length)
	if err := dataset.ReadObject(context.Background(), store, &p.Objects[part.Object], b, part.Offset); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// expect returns the samples of an archive as the standard library reads it, grouped
// by the rules of this package.
func expect(t testing.TB, name string, archive []byte) []row {
	t.Helper()
	var all []row
	r := stdtar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		key, suffix, ok := SplitName([]byte(h.Name))
		if h.Typeflag != stdtar.TypeReg || !ok || Skipped([]byte(h.Name)) {
			continue
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(all); n == 0 || all[n-1].key != string(key) {
			all = append(all, row{file: name, key: string(key), parts: map[string]string{}})
		}
		all[len(all)-1].parts[string(suffix)] = string(content)
	}
}

func equalRows(t testing.TB, got, want []row) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d samples, want %d", len(got), len(want))
	}
	for i := range got {
		if fmt.Sprint(got[i]) != fmt.Sprint(want[i]) {
			t.Fatalf("sample %d: %.300v\nwant %.300v", i, got[i], want[i])
		}
	}
}

// plainFiles returns n samples of two parts.
func plainFiles(n, first int) []file {
	var files []file
	for i := range n {
		files = append(files, file{fmt.Sprintf("dir/%06d.jpg", first+i), fmt.Sprintf("image %d", first+i)},
			file{fmt.Sprintf("dir/%06d.cls", first+i), fmt.Sprint(i % 10)})
	}
	return files
}

func gunzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func checksumOf(s string) uint32 { return crc32.ChecksumIEEE([]byte(s)) }
