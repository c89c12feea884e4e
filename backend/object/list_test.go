package object_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/internal/faultfs"
)

// names returns the sorted names of a listing.
func names(t testing.TB, dir backend.Lister) []string {
	t.Helper()
	var found []string
	for _, o := range list(t, dir) {
		found = append(found, string(o.Name))
	}
	slices.Sort(found)
	return found
}

func wantNames(t testing.TB, dir backend.Lister, want ...string) {
	t.Helper()
	slices.Sort(want)
	if found := names(t, dir); !slices.Equal(found, want) {
		t.Errorf("listed %q, want %q", found, want)
	}
}

// tree makes a directory with every kind of thing that a listing meets.
func tree(t testing.TB) string {
	outer := t.TempDir()
	root := filepath.Join(outer, "root")
	for _, name := range []string{"a", ".hidden", "sub/b", "sub/.git/config", "sub/deep/er/c", "line\nbreak", "not utf8 \xff\xfe", "../outside/secret"} {
		write(t, filepath.Join(root, name), []byte(name))
	}
	must(t, os.Mkdir(filepath.Join(root, "empty"), 0o700))
	must(t, unix.Mkfifo(filepath.Join(root, "fifo"), 0o600))
	must(t, bindSocket(filepath.Join(root, "socket")))
	for name, target := range map[string]string{
		"to-file": "sub/b", "sub/up-to-file": "../a", "to-directory": "sub/deep", "to-link": "to-file",
		"dangling": "nowhere", "itself": "itself", "out": "../outside/secret", "out-directory": "../outside",
		"absolute": filepath.Join(root, "a"), "sub/loop": "..", "sub/deep/here": ".", "device": "/dev/zero", "to-fifo": "fifo",
	} {
		must(t, os.Symlink(target, filepath.Join(root, name)))
	}
	return root
}

func TestObjectsListsEveryRegularFileBeneathAndFollowsLinksThatStay(t *testing.T) {
	var log bytes.Buffer
	dir := openDir(t, tree(t), object.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	wantNames(t, dir, "a", ".hidden", "sub/b", "sub/.git/config", "sub/deep/er/c", "line\nbreak", "not utf8 \xff\xfe",
		"to-file", "to-link", "sub/up-to-file", "to-directory/er/c")
	if !strings.Contains(log.String(), "links left out") || !strings.Contains(log.String(), "count=9") {
		t.Errorf("the log does not tell of 9 links left out: %s", log.String())
	}
}

func TestObjectsTellsWhatItLeavesOutAndWhy(t *testing.T) {
	leftOut := func(dir *object.Dir) map[string]string {
		reasons := map[string]string{}
		must(t, dir.Objects(context.Background(), func(backend.Object) error { return nil },
			func(name []byte, reason string) { reasons[string(name)] = reason }))
		return reasons
	}
	root := tree(t)
	must(t, os.Symlink("../nothing", filepath.Join(root, "sub", "out-dangling")))
	want := map[string]string{
		"dangling": backend.LinkNowhere, "itself": backend.LinkNowhere, "sub/out-dangling": backend.LinkNowhere,
		"out": backend.LinkOutside, "out-directory/": backend.LinkOutside, "absolute": backend.LinkOutside, "device": backend.LinkOutside,
		"sub/loop/": backend.LinkToAncestor, "sub/deep/here/": backend.LinkToAncestor, "to-directory/here/": backend.LinkToAncestor,
	}
	if got := leftOut(openDir(t, root, object.Options{})); !maps.Equal(got, want) {
		t.Errorf("left out %q, want %q", got, want)
	}
	got := leftOut(openDir(t, root, without(faultfs.Openat2, unix.ENOSYS)(t)))
	if got["to-file"] != backend.LinkUnsupported || got["to-directory/"] != backend.LinkUnsupported {
		t.Errorf("left out %q", got)
	}
}

func TestObjectsWithoutOpenat2LeavesOutLinks(t *testing.T) {
	dir := openDir(t, tree(t), without(faultfs.Openat2, unix.ENOSYS)(t))
	wantNames(t, dir, "a", ".hidden", "sub/b", "sub/.git/config", "sub/deep/er/c", "line\nbreak", "not utf8 \xff\xfe")
}

// untyped is a file system that does not tell what its directory entries are.
type untyped struct{ object.System }

func (u untyped) Getdents(fd int, p []byte) (int, syscall.Errno) {
	n, errno := u.System.Getdents(fd, p)
	for rest := p[:max(n, 0)]; len(rest) > 0; rest = rest[int(rest[16])|int(rest[17])<<8:] {
		rest[18] = unix.DT_UNKNOWN
	}
	return n, errno
}

func TestObjectsAsksWhereTheFileSystemDoesNotTellTypes(t *testing.T) {
	root := tree(t)
	want := names(t, openDir(t, root, object.Options{}))
	wantNames(t, openDir(t, root, object.Options{System: untyped{object.Kernel()}}), want...)
}

func TestEveryObjectListedReadsAsItsFile(t *testing.T) {
	root := tree(t)
	dir := openDir(t, root, object.Options{})
	for _, o := range list(t, dir) {
		want, err := os.ReadFile(filepath.Join(root, string(o.Name)))
		must(t, err)
		p := make([]byte, o.Version.Size)
		must(t, dir.ReadAt(context.Background(), backend.Chunk{Object: &o, Size: o.Version.Size}, p, 0))
		if !bytes.Equal(p, want) {
			t.Errorf("%q: wrong bytes", o.Name)
		}
	}
}

func TestObjectsListsDirectoriesLargerThanItsBuffer(t *testing.T) {
	root := t.TempDir()
	var want []string
	for i := range 3000 {
		name := fmt.Sprintf("%04d-%s", i, strings.Repeat("x", 60))
		write(t, filepath.Join(root, name), nil)
		want = append(want, name)
	}
	wantNames(t, openDir(t, root, object.Options{}), want...)
}

func TestObjectsRefusesLinksThatUnrollWithoutEnd(t *testing.T) {
	root := t.TempDir()
	for i := range 12 {
		write(t, filepath.Join(root, fmt.Sprint(i), "file"), nil)
		must(t, os.Symlink(fmt.Sprintf("../%d", i+1), filepath.Join(root, fmt.Sprint(i), "next")))
	}
	dir := openDir(t, root, object.Options{})
	err := dir.Objects(context.Background(), func(backend.Object) error { return nil }, nil)
	if backend.KindOf(err) != backend.OutOfRange || backend.RemedyOf(err) == "" {
		t.Errorf("%v, want OutOfRange with a remedy", err)
	}
}

func TestObjectsRefusesPathsThatNobodyCouldOpen(t *testing.T) {
	root := t.TempDir()
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	component := strings.Repeat("d", 250)
	for range 18 {
		must(t, unix.Mkdirat(fd, component, 0o700))
		next, err := unix.Openat(fd, component, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	dir := openDir(t, root, object.Options{})
	err = dir.Objects(context.Background(), func(backend.Object) error { return nil }, nil)
	if backend.KindOf(err) != backend.OutOfRange {
		t.Errorf("%v, want OutOfRange", err)
	}
}

func TestFaultsOfAListingAreErrorsThatNameTheDirectory(t *testing.T) {
	for _, c := range []struct {
		fault faultfs.Fault
		kind  backend.Kind
	}{
		{faultfs.Fault{Op: faultfs.Openat2, Name: "sub", Errno: unix.EACCES}, backend.Permission},
		{faultfs.Fault{Op: faultfs.Openat2, Name: "sub", Errno: unix.EIO}, backend.Unavailable},
		{faultfs.Fault{Op: faultfs.Openat2, Name: "sub", Errno: unix.ESTALE}, backend.Unavailable},
		{faultfs.Fault{Op: faultfs.Openat2, Name: "sub", Errno: unix.EMFILE}, backend.Unavailable},
		{faultfs.Fault{Op: faultfs.Getdents, Name: "sub", Errno: unix.EIO}, backend.Unavailable},
		{faultfs.Fault{Op: faultfs.Fstat, Name: "sub", Errno: unix.EIO}, backend.Unavailable},
		{faultfs.Fault{Op: faultfs.Fstatat, Name: "sub/b", Errno: unix.EACCES}, backend.Permission},
		{faultfs.Fault{Op: faultfs.Fstatat, Name: "sub/b", Errno: unix.EIO}, backend.Unavailable},
	} {
		fs := faultfs.New(object.Kernel())
		root := t.TempDir()
		write(t, filepath.Join(root, "sub", "b"), []byte("b"))
		dir := openDir(t, root, object.Options{System: fs})
		fs.Inject(c.fault)
		err := dir.Objects(context.Background(), func(backend.Object) error { return nil }, nil)
		if backend.KindOf(err) != c.kind || !strings.Contains(err.Error(), "sub") {
			t.Errorf("%s %s: %v, want kind %s naming sub", c.fault.Op, c.fault.Errno, err, c.kind)
		}
		fs.AssertFired(t)
		must(t, dir.Close())
		fs.AssertClosed(t)
	}
}

func TestWhatVanishesDuringAListingIsLeftOut(t *testing.T) {
	for _, fault := range []faultfs.Fault{
		{Op: faultfs.Openat2, Name: "sub", Errno: unix.ENOENT},
		{Op: faultfs.Getdents, Name: "sub", Errno: unix.ENOENT},
		{Op: faultfs.Fstatat, Name: "sub/b", Errno: unix.ENOENT},
	} {
		fs := faultfs.New(object.Kernel())
		root := t.TempDir()
		write(t, filepath.Join(root, "sub", "b"), []byte("b"))
		write(t, filepath.Join(root, "a"), []byte("a"))
		dir := openDir(t, root, object.Options{System: fs})
		fs.Inject(fault)
		wantNames(t, dir, "a")
		fs.AssertFired(t)
	}
}

func TestAVisitMayReadAndEndTheListing(t *testing.T) {
	dir := openDir(t, tree(t), object.Options{})
	errStop := errors.New("enough")
	visits := 0
	err := dir.Objects(context.Background(), func(o backend.Object) error {
		visits++
		p := make([]byte, o.Version.Size)
		must(t, dir.ReadAt(context.Background(), backend.Chunk{Object: &o, Size: o.Version.Size}, p, 0))
		if visits == 3 {
			return errStop
		}
		return nil
	}, nil)
	if err != errStop || visits != 3 {
		t.Errorf("%v after %d visits, want visit's own error after 3", err, visits)
	}
}

// TestPermissionsOfRealFiles runs as a user whom modes bind, which root is not;
// for root the faults of the other tests stand in.
func TestPermissionsOfRealFiles(t *testing.T) {
	if os.Geteuid() == 0 {
		fs := faultfs.New(object.Kernel())
		_, dir, objects := changeFixture(t, object.Options{System: fs})
		fs.Inject(faultfs.Fault{Op: faultfs.Openat2, Name: victim, Errno: unix.EACCES})
		wantDenied(t, dir, objects[victim])
		fs.AssertFired(t)
		return
	}
	root, dir, objects := changeFixture(t, object.Options{})
	must(t, os.Chmod(filepath.Dir(filepath.Join(root, victim)), 0))
	defer os.Chmod(filepath.Dir(filepath.Join(root, victim)), 0o700)
	wantDenied(t, dir, objects[victim])
}

func wantDenied(t *testing.T, dir *object.Dir, o *backend.Object) {
	err := dir.Gather(context.Background(), []backend.Read{whole(o, make([]byte, 1))}, nil)
	if backend.KindOf(err) != backend.Permission {
		t.Errorf("%v, want Permission", err)
	}
	wantGoodError(t, err)
}
