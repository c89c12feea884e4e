package seekable

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/internal/faultfs"
)

// mixed returns n bytes of which a part can be compressed.
func mixed(n int, seed uint64) []byte {
	random := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, 0, n+64)
	for len(b) < n {
		if random.IntN(2) == 0 {
			b = append(b, bytes.Repeat([]byte{byte(random.Uint32())}, random.IntN(5000))...)
			continue
		}
		for range random.IntN(2000) {
			b = append(b, byte(random.Uint32()))
		}
	}
	return b[:n]
}

func wantKind(t testing.TB, err error, kind backend.Kind, words ...string) {
	t.Helper()
	if backend.KindOf(err) != kind {
		t.Fatalf("%v, want an error of kind %s", err, kind)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

func TestAFileCutOffAnywhereIsCorrupt(t *testing.T) {
	dir := t.TempDir()
	o := put(t, dir, "shard", mixed(3*FrameBytes+1000, 1))
	path := fileOf(dir, &o)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, Options{Pool: smallPool(t, 2, 0)})
	for n := 0; n < len(whole); n += 1 + n/37 {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := readAll(s, &o)
		wantKind(t, err, backend.Corrupt, "shard", filepath.Base(path), "remove")
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readAll(s, &o); err != nil {
		t.Errorf("after the file is whole again: %v", err)
	}
}

// TestNoBitFlipChangesWhatIsRead flips bits all over a file: each read is right or an
// error of kind Corrupt.
func TestNoBitFlipChangesWhatIsRead(t *testing.T) {
	dir := t.TempDir()
	content := mixed(2*FrameBytes+77, 2)
	o := put(t, dir, "shard", content)
	path := fileOf(dir, &o)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(3, 3))
	pool := smallPool(t, 2, 0)
	for i := range 250 {
		at := random.IntN(len(whole))
		if i%2 == 0 {
			at = len(whole) - 1 - random.IntN(120) // table and description
		}
		damaged := bytes.Clone(whole)
		damaged[at] ^= 1 << random.IntN(8)
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := New(emptyDir(t), dir, Options{Pool: pool})
		if err != nil {
			t.Fatal(err)
		}
		got, err := readAll(s, &o)
		if err != nil && backend.KindOf(err) != backend.Corrupt || err == nil && !bytes.Equal(got, content) {
			t.Errorf("bit flipped in byte %d: error %v, equal bytes %v", at, err, bytes.Equal(got, content))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// craft writes a file of frames as they are given.
func craft(t testing.TB, dir string, size int64, frames ...crafted) backend.Object {
	t.Helper()
	var file, entries []byte
	for _, f := range frames {
		file = append(file, f.compressed...)
		entries = appendEntry(entries, len(f.compressed), f.length, f.checksum)
	}
	return raw(t, dir, size, appendTable(file, entries))
}

type crafted struct {
	compressed []byte
	length     int
	checksum   uint32
}

// raw writes a file and returns an object of that size in it.
func raw(t testing.TB, dir string, size int64, file []byte) backend.Object {
	t.Helper()
	name := NameOf("raw", &backend.Object{})
	if err := os.WriteFile(filepath.Join(dir, name), file, 0o600); err != nil {
		t.Fatal(err)
	}
	return backend.Object{Name: []byte("shard"), Version: backend.Version{Size: size, Tag: Tag(name, size)}}
}

func frameOf(t testing.TB, content []byte, says int, options ...zstd.EOption) crafted {
	e, err := zstd.NewWriter(nil, append(options, zstd.WithEncoderConcurrency(1))...)
	if err != nil {
		t.Fatal(err)
	}
	return crafted{e.EncodeAll(content, nil), says, uint32(xxhash.Sum64(content))}
}

func TestFramesThatLieAreCorrupt(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{Pool: smallPool(t, 2, 0)})
	zeros := make([]byte, 64<<20)
	short := frameOf(t, zeros[:99], 100)
	for name, f := range map[string]crafted{
		"a bomb":                  frameOf(t, zeros, 100),
		"one byte more":           frameOf(t, zeros[:101], 100),
		"one byte less":           short,
		"another checksum":        {frameOf(t, zeros[:100], 100).compressed, 100, 1},
		"no frame":                {[]byte("this is no frame of zstd"), 100, 0},
		"two frames in one":       {append(bytes.Clone(short.compressed), frameOf(t, zeros[:1], 1).compressed...), 99, 5},
		"a skippable frame alone": {[]byte{0x50, 0x2A, 0x4D, 0x18, 0, 0, 0, 0}, 100, checksumOfNothing},
		"a large window":          frameOf(t, zeros[:100], 100, zstd.WithWindowSize(512<<20), zstd.WithSingleSegment(false)),
	} {
		t.Run(name, func(t *testing.T) {
			o := craft(t, dir, int64(f.length), f)
			got, err := readAll(s, &o)
			if err == nil && bytes.Equal(got, zeros[:f.length]) && name == "a large window" {
				return // it says that it needs much, and needs nothing
			}
			wantKind(t, err, backend.Corrupt, "frame 0")
		})
	}
}

func TestTablesThatLieAreCorrupt(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{Pool: smallPool(t, 2, 0)})
	good := frameOf(t, make([]byte, 100), 100)
	entry := appendEntry(nil, len(good.compressed), 100, good.checksum)
	whole := appendTable(bytes.Clone(good.compressed), entry)
	change := func(fromEnd int, b ...byte) []byte {
		c := bytes.Clone(whole)
		copy(c[len(c)-fromEnd:], b)
		return c
	}
	for name, file := range map[string][]byte{
		"an empty file":          nil,
		"entries without end":    change(9, 0xFF, 0xFF, 0xFF, 0xFF),
		"no checksums":           change(5, 0),
		"reserved bits":          change(5, 0xC0),
		"bytes before the table": append([]byte("x"), whole...),
	} {
		t.Run(name, func(t *testing.T) {
			o := raw(t, dir, 100, file)
			_, err := readAll(s, &o)
			wantKind(t, err, backend.Corrupt)
		})
	}
	for name, frames := range map[string][]crafted{
		"another size than wanted": {{good.compressed, 99, good.checksum}},
		"a frame of no bytes":      {{nil, 100, 0}},
		"a frame too large":        {{good.compressed, FrameBytes + 1, 0}},
		"an empty frame in front":  {{good.compressed, 0, 0}, good},
		"a short frame inside":     {good, {good.compressed, 50, 0}, good},
		"a frame that grows":       {{good.compressed, 1, 0}, good},
		"compressed to far more":   {{make([]byte, maxCompressed+1), 100, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			o := craft(t, dir, 100, frames...)
			_, err := readAll(s, &o)
			wantKind(t, err, backend.Corrupt)
		})
	}
}

func TestTagsThatNameNoFileOfTheDirectoryAreRefused(t *testing.T) {
	s := open(t, t.TempDir(), Options{Pool: smallPool(t, 1, 0)})
	name := NameOf("", &backend.Object{})
	for _, tag := range []string{
		"seekable:", "seekable::", "seekable:../../etc/passwd:5", "seekable:/etc/passwd:5", "seekable:" + name,
		"seekable:" + name + ":-1", "seekable:" + name + ":5:5", "seekable:" + name + ":6", "seekable:" + name + "\x00:5",
		"seekable:" + strings.ToUpper(name) + ":5", "seekable:./" + name + ":5", "seekable:" + name + ":99999999999999999999",
	} {
		o := backend.Object{Name: []byte("shard"), Version: backend.Version{Size: 5, Tag: tag}}
		_, err := readAll(s, &o)
		wantKind(t, err, backend.OutOfRange)
	}
	o := backend.Object{Name: []byte("shard"), Version: backend.Version{Size: 5, Tag: Tag(name, 5)}}
	_, err := readAll(s, &o)
	wantKind(t, err, backend.NotFound, "index the dataset again")
}

func TestLinksAndOtherKindsOfFilesAreNotFollowed(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	o := put(t, elsewhere, "shard", []byte("content"))
	name := filepath.Base(fileOf(dir, &o))
	s := open(t, dir, Options{Pool: smallPool(t, 1, 0)})
	if err := os.Symlink(filepath.Join(elsewhere, name), filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
	_, err := readAll(s, &o)
	wantKind(t, err, backend.Permission)
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = readAll(s, &o)
	wantKind(t, err, backend.Corrupt)
}

func TestAFileThatVanishesIsNotFound(t *testing.T) {
	dir := t.TempDir()
	o := put(t, dir, "shard", mixed(FrameBytes+5, 4))
	s := open(t, dir, Options{Pool: smallPool(t, 4, 0)})
	if _, err := readAll(s, &o); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(fileOf(dir, &o)); err != nil {
		t.Fatal(err)
	}
	_, err := readAll(s, &o)
	wantKind(t, err, backend.NotFound)
	reads := []backend.Read{{Chunk: wholeOf(&o), P: make([]byte, 1)}}
	wantKind(t, s.Gather(context.Background(), reads, nil), backend.NotFound)
}

func TestSystemCallsThatFail(t *testing.T) {
	dir := t.TempDir()
	content := mixed(3*FrameBytes, 5)
	o := put(t, dir, "shard", content)
	for _, c := range []struct {
		name  string
		fault faultfs.Fault
		kind  backend.Kind // "": the read succeeds all the same
	}{
		{"openat", faultfs.Fault{Op: faultfs.Openat, Errno: unix.EIO}, backend.Unavailable},
		{"openat interrupted", faultfs.Fault{Op: faultfs.Openat, Errno: unix.EINTR, Count: 5}, ""},
		{"openat forbidden", faultfs.Fault{Op: faultfs.Openat, Errno: unix.EACCES}, backend.Permission},
		{"openat without descriptors", faultfs.Fault{Op: faultfs.Openat, Errno: unix.EMFILE}, backend.Unavailable},
		{"fstat", faultfs.Fault{Op: faultfs.Fstat, Errno: unix.EIO}, backend.Unavailable},
		{"pread of the footer", faultfs.Fault{Op: faultfs.Pread, Errno: unix.EIO}, backend.Unavailable},
		{"pread of the table", faultfs.Fault{Op: faultfs.Pread, Nth: 2, Errno: unix.EIO}, backend.Unavailable},
		{"pread interrupted", faultfs.Fault{Op: faultfs.Pread, Errno: unix.EINTR, Count: 9}, ""},
		{"pread that is short", faultfs.Fault{Op: faultfs.Pread, Short: 3}, ""},
		{"pread at the file's end", faultfs.Fault{Op: faultfs.Pread, Nth: 2, Short: -1}, backend.Corrupt},
		{"preadv2", faultfs.Fault{Op: faultfs.Preadv2, Errno: unix.EIO}, ""},
		{"preadv2 that is short", faultfs.Fault{Op: faultfs.Preadv2, Short: 100}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := faultfs.New(object.Kernel())
			fs.Inject(c.fault)
			pool := smallPool(t, 2, 2)
			s, err := New(emptyDir(t), dir, Options{System: fs, Pool: pool})
			if err != nil {
				t.Fatal(err)
			}
			got, err := readAll(s, &o)
			if c.kind != "" {
				wantKind(t, err, c.kind)
			} else if err != nil || !bytes.Equal(got, content) {
				t.Errorf("error %v, equal bytes %v", err, bytes.Equal(got, content))
			}
			fs.AssertFired(t)
			fs.Clear()
			if got, err := readAll(s, &o); err != nil || !bytes.Equal(got, content) {
				t.Errorf("after the fault: error %v, equal bytes %v", err, bytes.Equal(got, content))
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			fs.AssertClosed(t)
		})
	}
}

// FuzzFile opens and reads whatever is in a file: right bytes for what the table
// promises, or Corrupt, and no more memory than the pool's.
func FuzzFile(f *testing.F) {
	dir := f.TempDir()
	for _, n := range []int{0, 1, 1000} {
		o := put(f, dir, "shard", mixed(n, 9))
		b, err := os.ReadFile(fileOf(dir, &o))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint16(0))
	}
	pool := smallPool(f, 2, 0)
	name := NameOf("fuzz", &backend.Object{})
	f.Fuzz(func(t *testing.T, file []byte, at uint16) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), file, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := New(emptyDir(t), dir, Options{Pool: pool})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		size, entries := int64(0), int64(0)
		if n := len(file); n >= int(tableBytes(0)) {
			entries = int64(binary.LittleEndian.Uint32(file[n-9:]))
		}
		if o, err := s.Examine(context.Background(), name, false); err == nil {
			size = o.Version.Size
		} else if backend.KindOf(err) != backend.Corrupt {
			t.Fatal(err)
		}
		if size > entries*FrameBytes {
			t.Fatalf("%d entries hold %d bytes", entries, size)
		}
		o := backend.Object{Name: []byte("x"), Version: backend.Version{Size: size, Tag: Tag(name, size)}}
		off := min(int64(at)*16, size)
		p := make([]byte, min(size-off, 3*FrameBytes))
		err = s.ReadAt(context.Background(), wholeOf(&o), p, off)
		if err != nil && backend.KindOf(err) != backend.Corrupt {
			t.Fatal(err)
		}
	})
}
