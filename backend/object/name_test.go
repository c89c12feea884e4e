package object_test

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/internal/faultfs"
)

func TestNamesThatNoListingProducesAreOutOfRange(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "sub", "a"), []byte("abc"))
	dir := openDir(t, root, object.Options{})
	o := list(t, dir)[0]
	for _, name := range []string{
		"", "/", "/sub/a", "sub//a", "sub/a/", "./sub/a", "sub/./a", "../" + filepath.Base(root) + "/sub/a", "sub/../sub/a",
		"..", ".", "sub/a\x00", "\x00", strings.Repeat("x/", 2100) + "x", strings.Repeat("x", 256),
	} {
		o.Name = []byte(name)
		err := dir.ReadAt(context.Background(), backend.Chunk{Object: &o, Size: 3}, make([]byte, 3), 0)
		if backend.KindOf(err) != backend.OutOfRange {
			t.Errorf("name %.40q: %v, want OutOfRange", name, err)
		}
	}
}

// FuzzNames reads any name with the version of a file outside and of one inside:
// the first is never served, the second only under its own name.
func FuzzNames(f *testing.F) {
	outer := f.TempDir()
	root := filepath.Join(outer, "root")
	write(f, filepath.Join(outer, "secret"), []byte("secret"))
	write(f, filepath.Join(root, "sub", "inside"), []byte("inside"))
	for name, target := range map[string]string{"out": "../secret", "up": "..", "absolute": filepath.Join(outer, "secret"), "same": "sub"} {
		must(f, os.Symlink(target, filepath.Join(root, name)))
	}
	dir := openDir(f, root, object.Options{})
	versions := []backend.Version{versionAt(f, filepath.Join(outer, "secret")), versionAt(f, filepath.Join(root, "sub/inside"))}
	for _, seed := range []string{"sub/inside", "same/inside", "../secret", "out", "up/secret", "absolute", "sub/../../secret", "/proc/self/exe", "a\x00b", "sub//inside", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, name []byte) {
		for i := range versions {
			o := backend.Object{Name: name, Version: versions[i]}
			p := make([]byte, o.Version.Size)
			err := dir.ReadAt(context.Background(), backend.Chunk{Object: &o, Size: o.Version.Size}, p, 0)
			if err != nil {
				if backend.KindOf(err) == "" {
					t.Fatalf("name %q: error %v without a kind", name, err)
				}
				continue
			}
			if i == 0 || string(p) != "inside" || path.Clean(string(name)) != string(name) {
				t.Fatalf("name %q was served %q", name, p)
			}
		}
	})
}

func versionAt(t testing.TB, name string) backend.Version {
	var stat unix.Stat_t
	must(t, unix.Stat(name, &stat))
	return backend.Version{
		Device: uint64(stat.Dev), Inode: stat.Ino, Size: stat.Size, ModifiedNs: stat.Mtim.Nano(), ChangedNs: stat.Ctim.Nano(),
	}
}

func TestWithoutOpenat2NoLinkIsFollowed(t *testing.T) {
	outer := t.TempDir()
	root := filepath.Join(outer, "root")
	write(t, filepath.Join(outer, "secret"), []byte("secret"))
	write(t, filepath.Join(root, "sub", "inside"), []byte("inside"))
	dir := openDir(t, root, without(faultfs.Openat2, unix.ENOSYS)(t))
	for name, target := range map[string]string{"out": "../secret", "up": "..", "same": "sub", "file": "sub/inside"} {
		must(t, os.Symlink(target, filepath.Join(root, name)))
	}
	for name, behind := range map[string]string{
		"out": "secret", "up/secret": "secret", "same/inside": "root/sub/inside", "file": "root/sub/inside",
	} {
		o := backend.Object{Name: []byte(name), Version: versionAt(t, filepath.Join(outer, behind))}
		err := dir.ReadAt(context.Background(), backend.Chunk{Object: &o, Size: 6}, make([]byte, 6), 0)
		if kind := backend.KindOf(err); kind != backend.Permission && kind != backend.Changed {
			t.Errorf("%s: %v, want the link refused", name, err)
		}
	}
}
