package seekable

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/backendtest"
	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/internal/faultfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// put writes a file that holds content and returns its object.
func put(t testing.TB, dir, name string, content []byte) backend.Object {
	t.Helper()
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	return finish(t, w, name, content)
}

func finish(t testing.TB, w *Writer, name string, content []byte) backend.Object {
	t.Helper()
	if n, err := w.Write(content); err != nil || n != len(content) {
		t.Fatalf("wrote %d of %d: %v", n, len(content), err)
	}
	of := &backend.Object{Origin: "origin", Name: []byte(name), Version: backend.Version{Size: 7, Inode: 1}}
	o, err := w.Finish(NameOf("test", of), of)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// fileOf is the path of the file that serves o.
func fileOf(dir string, o *backend.Object) string {
	name, _, _ := FileOf(o.Version.Tag)
	return filepath.Join(dir, name)
}

// open makes a Store over nothing, closed at the test's end.
func open(t testing.TB, dir string, options Options) *Store {
	t.Helper()
	s, err := New(backendtest.NewMemory(), dir, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// smallPool makes a Pool of n frames, closed after what is opened later.
func smallPool(t testing.TB, frames, reads int) *Pool {
	t.Helper()
	p, err := NewPool(PoolOptions{Bytes: int64(frames) * FrameBytes, Reads: reads})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func wholeOf(o *backend.Object) backend.Chunk {
	return backend.Chunk{Object: o, Size: o.Version.Size}
}

func readAll(s backend.Store, o *backend.Object) ([]byte, error) {
	p := make([]byte, o.Version.Size)
	err := s.ReadAt(context.Background(), wholeOf(o), p, 0)
	return p, err
}

func emptyDir(t testing.TB) *object.Dir {
	return openDir(t, t.TempDir())
}

func openDir(t testing.TB, path string) *object.Dir {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	d, err := object.OpenDir(fd, object.Options{ColdReads: 2})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// seekableHarness keeps every chunk, or every second one, in a seekable file.
func seekableHarness(options func(testing.TB) Options, every int, wrap func(backend.Store) backend.Store) backendtest.Harness {
	return backendtest.Harness{
		ReadOnly: true,
		New: func(t testing.TB, contents [][]byte) (backend.Store, []backend.Chunk) {
			files, dir := t.TempDir(), t.TempDir()
			o := options(t)
			objects := make([]backend.Object, len(contents))
			for i, content := range contents {
				if i%every == 0 {
					objects[i] = put(t, dir, fmt.Sprintf("shard-%d", i), content)
				} else if err := os.WriteFile(filepath.Join(files, fmt.Sprint(i)), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			origin := openDir(t, files)
			err := origin.Objects(context.Background(), func(o backend.Object) error {
				i := int(o.Name[0] - '0')
				o.Name = bytes.Clone(o.Name)
				objects[i] = o
				return nil
			}, nil)
			if err != nil {
				t.Fatal(err)
			}
			s, err := New(origin, dir, o)
			if err != nil {
				t.Fatal(err)
			}
			chunks := make([]backend.Chunk, len(contents))
			for i := range objects {
				chunks[i] = wholeOf(&objects[i])
			}
			return wrap(s), chunks
		},
	}
}

func bare(s backend.Store) backend.Store { return s }

func TestStoreMeetsTheContract(t *testing.T) {
	shared := func(t testing.TB) Options { return Options{Pool: smallPool(t, 2, 3), OpenFiles: 2} }
	for _, c := range []struct {
		name    string
		options func(testing.TB) Options
		every   int
		wrap    func(backend.Store) backend.Store
	}{
		{"default", func(testing.TB) Options { return Options{} }, 1, bare},
		{"wrapped", func(testing.TB) Options { return Options{} }, 1, func(s backend.Store) backend.Store { return backendtest.Wrap(s) }},
		{"two frames, two open files", shared, 1, bare},
		{"mixed with objects of the origin", shared, 2, bare},
	} {
		t.Run(c.name, func(t *testing.T) { backendtest.Run(t, seekableHarness(c.options, c.every, c.wrap)) })
	}
}

func TestStoreMeetsTheContractOnKernelsThatLackSomething(t *testing.T) {
	for name, errno := range map[string]unix.Errno{"no RWF_NOWAIT": unix.EOPNOTSUPP, "nothing in the cache": unix.EAGAIN} {
		t.Run(name, func(t *testing.T) {
			options := func(t testing.TB) Options {
				fs := faultfs.New(object.Kernel())
				fs.Inject(faultfs.Fault{Op: faultfs.Preadv2, Errno: errno})
				return Options{System: fs, Pool: smallPool(t, 8, 4)}
			}
			backendtest.Run(t, seekableHarness(options, 1, bare))
		})
	}
}

// TestStoreDecorates runs the suite on what the Store passes on.
func TestStoreDecorates(t *testing.T) {
	pool := smallPool(t, 2, 1)
	backendtest.Run(t, backendtest.Harness{
		New: func(t testing.TB, contents [][]byte) (backend.Store, []backend.Chunk) {
			memory := backendtest.NewMemory()
			chunks := make([]backend.Chunk, len(contents))
			for i, content := range contents {
				id, err := memory.Put(context.Background(), content)
				if err != nil {
					t.Fatal(err)
				}
				chunks[i] = backend.Chunk{ID: id, Size: int64(len(content))}
			}
			s, err := New(memory, t.TempDir(), Options{Pool: pool})
			if err != nil {
				t.Fatal(err)
			}
			return s, chunks
		},
	})
}

func BenchmarkStore(b *testing.B) {
	backendtest.Benchmark(b, seekableHarness(func(testing.TB) Options { return Options{} }, 1, bare))
}
