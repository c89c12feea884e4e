package object_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/internal/faultfs"
)

// victim is the file that changes, in a directory of its own.
const victim = "class/victim"

// change is one way in which an indexed file stops being what it was.
type change struct {
	name  string
	apply func(t testing.TB, root string)
	kind  backend.Kind // if it happened before the file is opened
	says  string       // what the error of a change before opening contains
}

func changes() []change {
	at := func(root string) string { return filepath.Join(root, victim) }
	remove := func(t testing.TB, root string) { must(t, os.Remove(at(root))) }
	return []change{
		{"truncated", func(t testing.TB, root string) { must(t, os.Truncate(at(root), 7)) }, backend.Changed, "size 7"},
		{"appended to", func(t testing.TB, root string) { write(t, at(root), bytes.Repeat([]byte{9}, 100_001)) }, backend.Changed, "size 100001"},
		{"rewritten in place", rewrite, backend.Changed, "status changed"},
		{"rewritten with its time put back", rewriteQuietly, backend.Changed, "status changed"},
		{"touched", func(t testing.TB, root string) { must(t, os.Chtimes(at(root), time.Time{}, time.Unix(1, 0))) }, backend.Changed, "1970-01-01T00:00:01Z"},
		{"replaced by renaming over it", func(t testing.TB, root string) {
			write(t, at(root)+".new", bytes.Repeat([]byte{9}, 100_000))
			must(t, os.Rename(at(root)+".new", at(root)))
		}, backend.Changed, "inode"},
		{"removed", remove, backend.Changed, "file is gone"},
		{"removed with its directory", func(t testing.TB, root string) { must(t, os.RemoveAll(filepath.Dir(at(root)))) }, backend.Changed, "file is gone"},
		{"its directory replaced by a file", func(t testing.TB, root string) {
			must(t, os.RemoveAll(filepath.Dir(at(root))))
			write(t, filepath.Dir(at(root)), []byte("file"))
		}, backend.Changed, "file is gone"},
		{"replaced by a directory", func(t testing.TB, root string) { remove(t, root); must(t, os.Mkdir(at(root), 0o700)) }, backend.Changed, "directory"},
		{"replaced by a FIFO", func(t testing.TB, root string) { remove(t, root); must(t, unix.Mkfifo(at(root), 0o600)) }, backend.Changed, "named pipe"},
		{"replaced by a socket", func(t testing.TB, root string) { remove(t, root); must(t, bindSocket(at(root))) }, backend.Changed, "another kind of file"},
		{"replaced by a link to a device", func(t testing.TB, root string) { remove(t, root); must(t, os.Symlink("/dev/zero", at(root))) }, backend.Permission, "leads out"},
		{"replaced by a link out", func(t testing.TB, root string) { remove(t, root); must(t, os.Symlink("../../outside", at(root))) }, backend.Permission, "leads out"},
		{"replaced by a link to another file", func(t testing.TB, root string) { remove(t, root); must(t, os.Symlink("../innocent", at(root))) }, backend.Changed, "inode"},
		{"replaced by a link to itself", func(t testing.TB, root string) { remove(t, root); must(t, os.Symlink("victim", at(root))) }, backend.Permission, "symbolic links"},
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func bindSocket(name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrUnix{Name: name})
}

// rewrite writes other bytes of the same length, until the clock of the file
// system has moved on since the file was indexed.
func rewrite(t testing.TB, root string) { rewriteThen(t, root, func(string, time.Time) {}) }

func rewriteQuietly(t testing.TB, root string) {
	rewriteThen(t, root, func(name string, modified time.Time) { must(t, os.Chtimes(name, time.Time{}, modified)) })
}

func rewriteThen(t testing.TB, root string, then func(name string, modified time.Time)) {
	name := filepath.Join(root, victim)
	var before, after unix.Stat_t
	must(t, unix.Stat(name, &before))
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		write(t, name, bytes.Repeat([]byte{9}, 100_000))
		then(name, time.Unix(before.Mtim.Unix()))
		must(t, unix.Stat(name, &after))
		if after.Ctim != before.Ctim {
			return
		}
	}
	t.Fatal("the file system's clock stands still")
}

// changeFixture is a directory with a victim and an innocent file.
func changeFixture(t testing.TB, options object.Options) (string, *object.Dir, map[string]*backend.Object) {
	root := filepath.Join(t.TempDir(), "root")
	write(t, filepath.Join(filepath.Dir(root), "outside"), bytes.Repeat([]byte{8}, 100_000))
	write(t, filepath.Join(root, victim), bytes.Repeat([]byte{1}, 100_000))
	write(t, filepath.Join(root, "innocent"), bytes.Repeat([]byte{2}, 100_000))
	options.Dataset = "birds"
	dir := openDir(t, root, options)
	objects := list(t, dir)
	byName := map[string]*backend.Object{}
	for i := range objects {
		byName[string(objects[i].Name)] = &objects[i]
	}
	return root, dir, byName
}

func whole(o *backend.Object, p []byte) backend.Read {
	return backend.Read{Chunk: backend.Chunk{Object: o, Size: o.Version.Size}, P: p}
}

func TestAFileThatChangedBeforeTheReadIsNeverServed(t *testing.T) {
	for _, openFiles := range []int{-1, 16} {
		for _, c := range changes() {
			t.Run(c.name, func(t *testing.T) {
				root, dir, objects := changeFixture(t, object.Options{OpenFiles: openFiles})
				p, q := make([]byte, 100_000), make([]byte, 100_000)
				reads := []backend.Read{whole(objects["innocent"], q), whole(objects[victim], p)}
				must(t, dir.Gather(context.Background(), reads, nil)) // which opens the handle
				c.apply(t, root)
				err := dir.Gather(context.Background(), reads, nil)
				if backend.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v; want kind %s, saying %q", err, c.kind, c.says)
				}
				wantGoodError(t, err)
				must(t, dir.Gather(context.Background(), reads[:1], nil))
				if !bytes.Equal(q, bytes.Repeat([]byte{2}, len(q))) {
					t.Error("the innocent file's bytes are wrong")
				}
			})
		}
	}
}

// wantGoodError checks that the error names the file and, for a changed one, the
// command that indexes it again.
func wantGoodError(t *testing.T, err error) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), victim) {
		t.Errorf("error %v does not name %s", err, victim)
	}
	if backend.RemedyOf(err) == "" {
		t.Errorf("error %v has no remedy", err)
	}
	if backend.KindOf(err) == backend.Changed && !strings.Contains(backend.RemedyOf(err), "stoker dataset add birds ") {
		t.Errorf("remedy %q does not name the command", backend.RemedyOf(err))
	}
}

// TestAFileThatChangesDuringTheReadIsNeverServed changes the file after its
// version was checked: before the first bytes are read, between two reads, and
// before the second check, from the page cache and from the device.
func TestAFileThatChangesDuringTheReadIsNeverServed(t *testing.T) {
	moments := []faultfs.Fault{
		{Op: faultfs.Preadv2, Nth: 1}, {Op: faultfs.Preadv2, Nth: 2}, {Op: faultfs.Fstat, Nth: 2},
		{Op: faultfs.Pread, Nth: 1}, {Op: faultfs.Pread, Nth: 2},
	}
	for _, c := range changes() {
		t.Run(c.name, func(t *testing.T) {
			for _, moment := range moments {
				changeDuring(t, c, moment)
			}
		})
	}
}

func changeDuring(t *testing.T, c change, moment faultfs.Fault) {
	fs := faultfs.New(object.Kernel())
	root, dir, objects := changeFixture(t, object.Options{System: fs, ColdReads: 2})
	if moment.Op == faultfs.Pread {
		fs.Inject(faultfs.Fault{Op: faultfs.Preadv2, Errno: unix.EAGAIN})
	}
	var once sync.Once
	moment.Name, moment.Count = victim, 1
	moment.Hook = func(string) { once.Do(func() { c.apply(t, root) }) }
	fs.Inject(moment)
	p := make([]byte, 100_000)
	o := objects[victim]
	chunk := backend.Chunk{Object: o, Size: o.Version.Size}
	reads := []backend.Read{{Chunk: chunk, P: p[:50_000]}, {Chunk: chunk, Offset: 50_000, P: p[50_000:]}}
	err := dir.Gather(context.Background(), reads, nil)
	if backend.KindOf(err) != backend.Changed {
		t.Errorf("at %s %d: %v, want Changed", moment.Op, moment.Nth, err)
	}
	wantGoodError(t, err)
	fs.AssertFired(t)
	fs.Clear()
	if err := dir.Gather(context.Background(), reads, nil); err == nil {
		t.Errorf("at %s %d: the next gather served the file", moment.Op, moment.Nth)
	}
}

func TestAChangedFileIsServedAgainOnceItIsIndexedAgain(t *testing.T) {
	root, dir, objects := changeFixture(t, object.Options{})
	p := make([]byte, 100_000)
	must(t, dir.Gather(context.Background(), []backend.Read{whole(objects[victim], p)}, nil))
	rewrite(t, root)
	objectsAgain := list(t, dir)
	for i := range objectsAgain {
		if string(objectsAgain[i].Name) == victim {
			must(t, dir.Gather(context.Background(), []backend.Read{whole(&objectsAgain[i], p)}, nil))
		}
	}
	if !bytes.Equal(p, bytes.Repeat([]byte{9}, len(p))) {
		t.Error("not the new bytes")
	}
}
