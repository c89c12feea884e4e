package object_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/backendtest"
	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/internal/faultfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dirHarness stores each chunk as a file of a temporary directory.
func dirHarness(options func(t testing.TB) object.Options, wrap func(backend.Store) backend.Store) backendtest.Harness {
	var root string
	return backendtest.Harness{
		ReadOnly: true,
		New: func(t testing.TB, contents [][]byte) (backend.Store, []backend.Chunk) {
			root = t.TempDir()
			for i, content := range contents {
				write(t, filepath.Join(root, fmt.Sprintf("sub-%d", i%3), fmt.Sprintf("%02d", i)), content)
			}
			dir := openDir(t, root, options(t))
			chunks := make([]backend.Chunk, len(contents))
			objects := list(t, dir)
			for i := range objects {
				var number int
				fmt.Sscanf(filepath.Base(string(objects[i].Name)), "%d", &number)
				chunks[number] = backend.Chunk{Object: &objects[i], Size: objects[i].Version.Size}
			}
			return wrap(dir), chunks
		},
		Change: func(t testing.TB, _ backend.Store, chunks []backend.Chunk, i int) {
			truncate(t, filepath.Join(root, string(chunks[i].Object.Name)))
		},
	}
}

func truncate(t testing.TB, name string) {
	if err := os.Truncate(name, 10); err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, name string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func bare(s backend.Store) backend.Store { return s }

// without returns options over a kernel that lacks something: op answers errno.
func without(op faultfs.Op, errno syscall.Errno) func(t testing.TB) object.Options {
	return func(t testing.TB) object.Options {
		fs := faultfs.New(object.Kernel())
		fs.Inject(faultfs.Fault{Op: op, Errno: errno})
		t.Cleanup(func() { fs.AssertFired(t) })
		return object.Options{System: fs, ColdReads: 3}
	}
}

func TestDirMeetsTheContract(t *testing.T) {
	fixed := func(o object.Options) func(testing.TB) object.Options {
		return func(testing.TB) object.Options { return o }
	}
	for _, c := range []struct {
		name    string
		options func(t testing.TB) object.Options
		wrap    func(backend.Store) backend.Store
	}{
		{"default", fixed(object.Options{}), bare},
		{"wrapped", fixed(object.Options{}), func(s backend.Store) backend.Store { return backendtest.Wrap(s) }},
		{"without cached handles, one cold read", fixed(object.Options{OpenFiles: -1, ColdReads: 1}), bare},
		{"with three cached handles", fixed(object.Options{OpenFiles: 3}), bare},
		{"over faultfs without faults", func(t testing.TB) object.Options {
			fs := faultfs.New(object.Kernel())
			return object.Options{System: fs}
		}, bare},
	} {
		t.Run(c.name, func(t *testing.T) { backendtest.Run(t, dirHarness(c.options, c.wrap)) })
	}
}

func TestDirMeetsTheContractOnKernelsThatLackSomething(t *testing.T) {
	for name, options := range map[string]func(t testing.TB) object.Options{
		"no openat2":           without(faultfs.Openat2, unix.ENOSYS),
		"openat2 forbidden":    without(faultfs.Openat2, unix.EPERM),
		"no RWF_NOWAIT":        without(faultfs.Preadv2, unix.EOPNOTSUPP),
		"nothing in the cache": without(faultfs.Preadv2, unix.EAGAIN),
	} {
		t.Run(name, func(t *testing.T) {
			h := dirHarness(options, bare)
			if strings.HasPrefix(name, "no RWF") || strings.HasPrefix(name, "nothing") {
				h = readingFirst(h)
			}
			backendtest.Run(t, h)
		})
	}
}

// foreign is the kernel for files of another user: their access times are not to be
// kept back.
type foreign struct {
	object.System
	refused *atomic.Int32
}

func (f foreign) Openat2(dirfd int, name []byte, how *unix.OpenHow) (int, syscall.Errno) {
	if how.Flags&unix.O_NOATIME != 0 {
		f.refused.Add(1)
		return -1, unix.EPERM
	}
	return f.System.Openat2(dirfd, name, how)
}

func TestFilesOfAnotherUserAreReadToo(t *testing.T) {
	t.Run("contract", func(t *testing.T) {
		backendtest.Run(t, dirHarness(func(testing.TB) object.Options {
			return object.Options{System: foreign{object.Kernel(), new(atomic.Int32)}}
		}, bare))
	})
	refused := new(atomic.Int32)
	dir, objects := filesFixture(t, 20, 100, object.Options{System: foreign{object.Kernel(), refused}, OpenFiles: -1})
	for i := range objects {
		must(t, dir.ReadAt(context.Background(), whole(&objects[i], nil).Chunk, make([]byte, 100), 0))
	}
	if n := refused.Load(); n != 1 {
		t.Errorf("%d opens were refused, want the first only", n)
	}
}

// readingFirst reads a byte of each store, so that faults of reads fire in every
// clause.
func readingFirst(h backendtest.Harness) backendtest.Harness {
	inner := h.New
	h.New = func(t testing.TB, contents [][]byte) (backend.Store, []backend.Chunk) {
		store, chunks := inner(t, contents)
		if err := store.ReadAt(context.Background(), chunks[1], make([]byte, 1), 0); err != nil {
			t.Fatal(err)
		}
		return store, chunks
	}
	return h
}

func BenchmarkDir(b *testing.B) {
	backendtest.Benchmark(b, dirHarness(func(testing.TB) object.Options { return object.Options{} }, bare))
}

func TestOpenDirRefusesWhatIsNoReadableDirectory(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "file"), []byte("x"))
	for _, c := range []struct {
		name    string
		path    string
		flags   int
		options object.Options
		kind    backend.Kind
	}{
		{"a file", filepath.Join(root, "file"), unix.O_RDONLY, object.Options{}, backend.OutOfRange},
		{"bad options", root, unix.O_RDONLY, object.Options{ColdReads: -1, ChunkBytes: -1}, backend.OutOfRange},
		{"a directory that may not be read", root, unix.O_RDONLY, denied(t, "."), backend.Permission},
	} {
		t.Run(c.name, func(t *testing.T) {
			fd, err := unix.Open(c.path, c.flags, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = object.OpenDir(fd, c.options)
			if backend.KindOf(err) != c.kind {
				t.Errorf("%v, want kind %s", err, c.kind)
			}
			if err := unix.Close(fd); err != unix.EBADF {
				t.Errorf("OpenDir left the descriptor open (%v)", err)
			}
		})
	}
	if _, err := object.OpenDir(-1, object.Options{}); backend.KindOf(err) != backend.Unavailable {
		t.Errorf("no descriptor: %v", err)
	}
}

// denied returns options over a system that may not open name.
func denied(t testing.TB, name string) object.Options {
	fs := faultfs.New(object.Kernel())
	fs.Inject(faultfs.Fault{Op: faultfs.Openat2, Name: name, Errno: unix.EACCES})
	t.Cleanup(func() { fs.AssertFired(t) })
	return object.Options{System: fs}
}

func TestDirKnowsItself(t *testing.T) {
	root := t.TempDir()
	dir := openDir(t, root, object.Options{})
	var stat unix.Stat_t
	if err := unix.Stat(root, &stat); err != nil {
		t.Fatal(err)
	}
	if dir.Device() != uint64(stat.Dev) || dir.Inode() != stat.Ino {
		t.Errorf("device %d, inode %d; want %d, %d", dir.Device(), dir.Inode(), stat.Dev, stat.Ino)
	}
	if want := fmt.Sprintf("file:%d:%d", stat.Dev, stat.Ino); dir.Origin() != want {
		t.Errorf("origin %q, want %q", dir.Origin(), want)
	}
	if path, _ := filepath.EvalSymlinks(root); dir.Path() != path {
		t.Errorf("path %q, want %q", dir.Path(), path)
	}
}

func TestObjectsOfOtherOriginsAreNotFound(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "a"), []byte("abc"))
	dir := openDir(t, root, object.Options{})
	o := list(t, dir)[0]
	p := make([]byte, 3)
	for origin, kind := range map[string]backend.Kind{dir.Origin(): "", "": "", "file:0:0": backend.NotFound} {
		o.Origin = origin
		err := dir.ReadAt(context.Background(), backend.Chunk{Object: &o, Size: 3}, p, 0)
		if backend.KindOf(err) != kind {
			t.Errorf("origin %q: %v, want kind %q", origin, err, kind)
		}
	}
}

func TestChunksBeyondTheObjectAreOutOfRange(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "a"), []byte("abcdef"))
	dir := openDir(t, root, object.Options{})
	o := list(t, dir)[0]
	good := backend.Read{Chunk: backend.Chunk{Object: &o, Size: 6}, P: make([]byte, 1)}
	for _, c := range []backend.Chunk{
		{Object: &o, Start: -1, Size: 2}, {Object: &o, Start: 0, Size: 7}, {Object: &o, Start: 7}, {Object: &o, Start: 3, Size: 4},
		{Object: &o, Start: 1, Size: -1}, {Object: &o, Start: 1 << 62, Size: 1 << 62}, {Object: &o, Start: 1, Size: 1<<63 - 1},
	} {
		for _, reads := range [][]backend.Read{{{Chunk: c}}, {good, {Chunk: c}}} {
			if err := dir.Gather(context.Background(), reads, nil); backend.KindOf(err) != backend.OutOfRange {
				t.Errorf("chunk [%d, +%d): %v, want OutOfRange", c.Start, c.Size, err)
			}
		}
	}
	p := make([]byte, 2)
	if err := dir.ReadAt(context.Background(), backend.Chunk{Object: &o, Start: 3, Size: 3}, p, 1); err != nil || string(p) != "ef" {
		t.Errorf("read %q, %v; want \"ef\"", p, err)
	}
}

func TestListCutsObjectsIntoChunks(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "a"), make([]byte, 2500))
	write(t, filepath.Join(root, "empty"), nil)
	dir := openDir(t, root, object.Options{ChunkBytes: 1000})
	found := map[string]bool{}
	err := dir.List(context.Background(), func(i backend.Info) error {
		found[fmt.Sprint(string(i.Chunk.Object.Name), i.Chunk.Start, i.Chunk.Size, i.Bytes)] = true
		return nil
	})
	if err != nil || len(found) != 4 {
		t.Fatalf("%v, %v; want 4 chunks", found, err)
	}
	for _, want := range []string{"a0 1000 1000", "a1000 1000 1000", "a2000 500 500", "empty0 0 0"} {
		if !found[want] {
			t.Errorf("no chunk %q in %v", want, found)
		}
	}
}
