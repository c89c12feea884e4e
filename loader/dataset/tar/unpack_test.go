package tar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/backend/seekable"
	"github.com/stokerio/stoker/internal/pythonoracle"
)

// originOf opens a directory as an origin, closed at the test's end.
func originOf(t testing.TB, path string) *object.Dir {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	d, err := object.OpenDir(fd, object.Options{ColdReads: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// fileIn returns the object of the file called name.
func fileIn(t testing.TB, origin backend.Lister, name string) *backend.Object {
	t.Helper()
	var found *backend.Object
	err := origin.Objects(context.Background(), func(o backend.Object) error {
		if string(o.Name) == name {
			o.Name = bytes.Clone(o.Name)
			found = &o
		}
		return nil
	}, nil)
	if err != nil || found == nil {
		t.Fatalf("%s is not there: %v", name, err)
	}
	return found
}

// packed is a file that is opened as an archive, again and again.
type packed struct {
	t      testing.TB
	from   string // directory of the file
	origin *object.Dir
	dir    string // of the dataset
}

func newPacked(t testing.TB) *packed {
	p := &packed{t: t, from: t.TempDir(), dir: t.TempDir()}
	p.origin = originOf(t, p.from)
	return p
}

// open opens content as an archive.
func (p *packed) open(content []byte) (openedArchive, error) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.from, "shard"), content, 0o600); err != nil {
		p.t.Fatal(err)
	}
	return openArchive(context.Background(), p.origin, fileIn(p.t, p.origin, "shard"), p.dir)
}

// read opens content and returns all of it.
func (p *packed) read(content []byte) ([]byte, string, error) {
	p.t.Helper()
	a, err := p.open(content)
	if err != nil {
		return nil, "", err
	}
	b := make([]byte, a.Size())
	err = a.ReadAt(b, 0)
	return b, a.Kind, errors.Join(err, a.Close())
}

// files returns the names in the dataset's directory.
func (p *packed) files() []string {
	p.t.Helper()
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		p.t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func wantUnpackError(t testing.TB, err error, kind backend.Kind, words ...string) {
	t.Helper()
	var e *backend.Error
	if !errors.As(err, &e) || e.Kind != kind || e.Remedy == "" || e.Object != "shard" {
		t.Errorf("%v, want a full error of kind %s", err, kind)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestArchivesOfTheCompressorsThatPeopleUseAreUnpacked(t *testing.T) {
	p := newPacked(t)
	plain := readFile(t, "testdata/unpack/plain.tar")
	files, err := filepath.Glob("testdata/unpack/*.t*")
	if err != nil || len(files) < 25 {
		t.Fatalf("%d files: %v; make them with testdata/unpack/make.sh", len(files), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		if strings.HasPrefix(name, "refused") || strings.HasPrefix(name, "tiny") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			content, kind, err := p.read(readFile(t, file))
			if err != nil || !bytes.Equal(content, plain) {
				t.Fatalf("%d bytes, %v", len(content), err)
			}
			want, _, _ := strings.Cut(name, ".")
			want, _, _ = strings.Cut(strings.Replace(want, "plain", kindTar, 1), "-")
			if kind != want {
				t.Errorf("kind %q, want %q", kind, want)
			}
		})
	}
}

func TestArchivesOfPythonAreUnpacked(t *testing.T) {
	python, dir := pythonoracle.Interpreter(t), t.TempDir()
	script := `
import io, sys, tarfile
for mode in ("", "gz", "bz2", "xz"):
    with tarfile.open(f"{sys.argv[1]}/{mode}", f"w:{mode}") as archive:
        for i in range(40):
            member = tarfile.TarInfo(f"{i:04d}.txt")
            content = f"sample {i} ".encode() * 1000 * i
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
`
	if out, err := exec.Command(python, "-c", strings.ReplaceAll(script, `/{mode}"`, `/a{mode}"`), dir).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", python, err, out)
	}
	p := newPacked(t)
	plain := readFile(t, filepath.Join(dir, "a"))
	for mode, want := range map[string]string{"a": kindTar, "agz": kindGzip, "abz2": kindBzip2, "axz": kindXZ} {
		content, kind, err := p.read(readFile(t, filepath.Join(dir, mode)))
		if err != nil || kind != want || !bytes.Equal(content, plain) {
			t.Errorf("%s: kind %s, %d bytes, %v", mode, kind, len(content), err)
		}
	}
}

func TestStreamsThatAskForTooMuchOrAreOfOtherFormatsAreRefused(t *testing.T) {
	p := newPacked(t)
	for name, words := range map[string][]string{
		"refused.tar.lzma":          {"lzma", "plain"},
		"refused-dictionary.tar.xz": {"512 MiB", "xz -9"},
		"refused-filter.tar.xz":     {"filters", "xz -6"},
		"refused-window.tar.zst":    {"128 MiB", "--long"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := p.open(readFile(t, "testdata/unpack/"+name))
			wantUnpackError(t, err, backend.Invalid, words...)
		})
	}
	for _, first := range []string{"PK\x03\x04", "7z\xbc\xaf\x27\x1c", "LZIP\x01", "\x1f\x9d", "\x04\x22\x4d\x18"} {
		_, err := p.open([]byte(first + "and so on, and so on"))
		wantUnpackError(t, err, backend.Invalid, "gzip, bzip2, xz or zstd")
	}
	if names := p.files(); len(names) > 0 {
		t.Errorf("left: %v", names)
	}
}

func TestWhatIsNoArchiveIsLeftToTheWalker(t *testing.T) {
	p := newPacked(t)
	for _, content := range []string{"", "x", "BZh9", "BZh9 is the name of a file", "\x1f\x8b", "\xfd7zXY\x00"} {
		b, kind, err := p.read([]byte(content))
		if err != nil || kind != kindTar || string(b) != content {
			t.Errorf("%q: kind %s, %q, %v", content, kind, b, err)
		}
	}
}

// TestCompressedStreamsCutOffAnywhereAreCorrupt cuts at every length near both ends,
// and at some between.
func TestCompressedStreamsCutOffAnywhereAreCorrupt(t *testing.T) {
	p := newPacked(t)
	plain := readFile(t, "testdata/unpack/plain.tar")
	for _, name := range []string{"gzip.tar.gz", "gzip-members.tgz", "bzip2.tar.bz2", "bzip2-streams.tbz", "xz-crc64.tar.xz", "xz-blocks.tar.xz", "xz-streams.txz", "zstd.tar.zst", "zstd-frames.tzst"} {
		t.Run(name, func(t *testing.T) {
			whole := readFile(t, "testdata/unpack/"+name)
			for n := 12; n < len(whole); n++ {
				if n > 40 && n < len(whole)-40 && n%307 > 0 {
					continue
				}
				content, kind, err := p.read(whole[:n])
				if err == nil {
					// What is left out may be padding, or whole streams: the Walker sees the
					// latter, as the archive then ends within a member or without its end.
					if kind == kindTar || !bytes.HasPrefix(plain, content) || len(content) == len(plain) && !isZero(whole[n:]) {
						t.Errorf("cut after %d of %d: kind %s, %d bytes and no error", n, len(whole), kind, len(content))
					}
					continue
				}
				wantUnpackError(t, err, backend.Corrupt, "compressed byte")
			}
		})
	}
}

func TestBitFlipsAreCorruptOrChangeNothing(t *testing.T) {
	p := newPacked(t)
	plain := readFile(t, "testdata/unpack/plain.tar")
	random := rand.New(rand.NewPCG(5, 5))
	for _, name := range []string{"gzip.tar.gz", "bzip2.tar.bz2", "xz-crc64.tar.xz", "xz-sha256.tar.xz", "xz-blocks.tar.xz", "zstd.tar.zst"} {
		t.Run(name, func(t *testing.T) {
			whole := readFile(t, "testdata/unpack/"+name)
			for i := range 60 {
				damaged := bytes.Clone(whole)
				at := 16 + random.IntN(len(damaged)-16)
				if i%3 == 0 {
					at = len(damaged) - 1 - random.IntN(40)
				}
				damaged[at] ^= 1 << random.IntN(8)
				content, _, err := p.read(damaged)
				switch {
				case err == nil && !bytes.Equal(content, plain):
					t.Errorf("bit flipped in byte %d: other bytes and no error", at)
				case err != nil && backend.KindOf(err) == backend.Invalid: // flags became those of something else
				case err != nil:
					wantUnpackError(t, err, backend.Corrupt)
				}
			}
		})
	}
}

func TestGarbageBehindACompressedStreamIsCorrupt(t *testing.T) {
	p := newPacked(t)
	for _, name := range []string{"gzip.tar.gz", "bzip2.tar.bz2", "xz-crc64.tar.xz", "zstd.tar.zst"} {
		for _, garbage := range []string{"x", "garbage", strings.Repeat("\x00", 5) + "garbage"} {
			_, err := p.open(append(readFile(t, "testdata/unpack/"+name), garbage...))
			if backend.KindOf(err) != backend.Corrupt {
				t.Errorf("%s and %q: %v", name, garbage, err)
			}
			long := len(garbage) > 4 && (garbage[0] != 0 || strings.HasSuffix(name, "z"))
			if long && !strings.Contains(err.Error(), "garbage behind the end of the compressed data") {
				t.Errorf("%s and %q: %v does not say what it is", name, garbage, err)
			}
		}
	}
}

// bomb writes that many zeros, compressed.
func bomb(t testing.TB, bytes int64, compress func(io.Writer) (io.WriteCloser, error), to io.Writer) {
	t.Helper()
	w, err := compress(to)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for ; bytes > 0; bytes -= int64(len(zeros)) {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestABombIsRefusedAndTakesLittle(t *testing.T) {
	var b bytes.Buffer
	bomb(t, freeUnpacked+8<<20, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1)) }, &b)
	if int64(b.Len()) > freeUnpacked/maxRatio {
		t.Fatalf("%d bytes are no bomb", b.Len())
	}
	p := newPacked(t)
	_, err := p.open(b.Bytes())
	wantUnpackError(t, err, backend.Invalid, "2000", "plain")
	if names := p.files(); len(names) > 0 {
		t.Errorf("left: %v", names)
	}
}

func TestAnArchiveThatStaysTheSameIsUnpackedOnce(t *testing.T) {
	p := newPacked(t)
	content := readFile(t, "testdata/unpack/gzip.tar.gz")
	a, err := p.open(content)
	if err != nil {
		t.Fatal(err)
	}
	o := fileIn(t, p.origin, "shard")
	if a.Object.Origin != o.Origin || string(a.Object.Name) != "shard" || a.Object.Version.Size != a.Size() {
		t.Errorf("object %+v", a.Object)
	}
	name, ok := SeekableFiles(a.Object.Version.Tag)
	if names := p.files(); !ok || len(names) != 1 || names[0] != name {
		t.Errorf("file %q, %v; in the directory: %v", name, ok, names)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(p.dir, name)
	before := inodeOf(t, path)
	again := func() error {
		a, err := openArchive(context.Background(), p.origin, o, p.dir)
		if err != nil {
			return err
		}
		return a.Close()
	}
	if err := again(); err != nil || inodeOf(t, path) != before {
		t.Errorf("unpacked again, or %v", err)
	}
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	if err := again(); err != nil || inodeOf(t, path) == before {
		t.Errorf("a damaged file was used, or %v", err)
	}
	if _, ok := SeekableFiles(o.Version.Tag); ok {
		t.Error("an object of the origin has a seekable file")
	}
}

func inodeOf(t testing.TB, path string) uint64 {
	t.Helper()
	var stat syscall.Stat_t
	if err := syscall.Stat(path, &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Ino
}

// faultyOrigin is a store whose series of reads end with an error of Close.
type faultyOrigin struct {
	backend.Store
	read, close error
	after       int64
}

func (f faultyOrigin) OpenObject(ctx context.Context, o *backend.Object) (backend.Reader, error) {
	r, err := backend.OpenObject(ctx, f.Store, o)
	return faultySeries{r, f}, err
}

type faultySeries struct {
	backend.Reader
	faultyOrigin
}

func (f faultySeries) ReadAt(p []byte, off int64) error {
	if f.read != nil && off+int64(len(p)) > f.after {
		return f.read
	}
	return f.Reader.ReadAt(p, off)
}

func (f faultySeries) Close() error { return errors.Join(f.Reader.Close(), f.faultyOrigin.close) }

func TestErrorsOfTheOriginEndTheUnpackingAndLeaveNothing(t *testing.T) {
	p := newPacked(t)
	if err := os.WriteFile(filepath.Join(p.from, "shard"), readFile(t, "testdata/unpack/zstd.tar.zst"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := fileIn(t, p.origin, "shard")
	changed := &backend.Error{Kind: backend.Changed, Op: "read", Object: "shard"}
	for name, store := range map[string]faultyOrigin{
		"a read that fails":     {Store: p.origin, read: changed, after: 16},
		"the first read fails":  {Store: p.origin, read: changed},
		"changed in the end":    {Store: p.origin, close: changed},
		"cancelled in the read": {Store: p.origin, read: context.Canceled, after: 16},
	} {
		_, err := openArchive(context.Background(), store, o, p.dir)
		if want := errors.Join(store.read, store.close); !errors.Is(want, err) && !errors.Is(err, context.Canceled) && backend.KindOf(err) != backend.Changed {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if names := p.files(); len(names) > 0 {
			t.Errorf("%s left %v", name, names)
		}
	}
	cause := errors.New("cause")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	if _, err := openArchive(ctx, p.origin, o, p.dir); !errors.Is(err, cause) {
		t.Errorf("cancelled: %v", err)
	}
}

// stuck is a store whose reads wait for ever behind the first bytes.
type stuck struct{ backend.Store }

func (s stuck) OpenObject(ctx context.Context, o *backend.Object) (backend.Reader, error) {
	r, err := backend.OpenObject(ctx, s.Store, o)
	return stuckReader{r}, err
}

type stuckReader struct{ backend.Reader }

func (s stuckReader) ReadAt(p []byte, off int64) error {
	if off > 0 {
		select {}
	}
	return s.Reader.ReadAt(p, off)
}

// TestWhatAKilledUnpackingLeavesIsATemporaryFile kills a process in the middle.
func TestWhatAKilledUnpackingLeavesIsATemporaryFile(t *testing.T) {
	if from := os.Getenv("STOKER_TEST_UNPACK_FROM"); from != "" {
		origin := originOf(t, from)
		_, err := openArchive(context.Background(), stuck{origin}, fileIn(t, origin, "shard"), os.Getenv("STOKER_TEST_UNPACK_TO"))
		t.Fatalf("unpacking ended: %v", err)
	}
	p := newPacked(t)
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	random := rand.NewChaCha8([32]byte{})
	if _, err := io.CopyN(w, random, 4<<20); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.from, "shard"), b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0], "-test.run=^TestWhatAKilledUnpackingLeavesIsATemporaryFile$")
	child.Env = append(os.Environ(), "STOKER_TEST_UNPACK_FROM="+p.from, "STOKER_TEST_UNPACK_TO="+p.dir)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); len(p.files()) == 0 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // it was killed
	names := p.files()
	if len(names) != 1 || !strings.HasPrefix(names[0], ".scan-") {
		t.Fatalf("left %v, want one file .scan-*, which dataset.RemoveTemporary removes", names)
	}
	if err := os.Remove(filepath.Join(p.dir, names[0])); err != nil {
		t.Fatal(err)
	}
	content, kind, err := p.read(b.Bytes())
	if err != nil || kind != kindGzip || len(content) != 4<<20 {
		t.Errorf("afterwards: kind %s, %d bytes, %v", kind, len(content), err)
	}
}

func TestTheSourceOfACompressedArchiveIsWalked(t *testing.T) {
	p := newPacked(t)
	a, err := p.open(readFile(t, "testdata/unpack/xz-blocks.tar.xz"))
	if err != nil {
		t.Fatal(err)
	}
	samples := NewSamples(NewWalker(a))
	n := 0
	for ; ; n++ {
		if _, err = samples.Next(); err != nil {
			break
		}
	}
	if err != io.EOF || n != 6 {
		t.Errorf("%d samples, %v", n, err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

func TestSparseMembersAreExpandedIntoOneFile(t *testing.T) {
	p := newPacked(t)
	random := rand.New(rand.NewPCG(8, 8))
	archive := make([]byte, 1<<20)
	for i := range archive {
		archive[i] = byte(random.Uint32())
	}
	var parts []sparsePart
	var want []byte
	for _, size := range []int64{0, 1, 1000, 3 << 20, 5_000_000} {
		part := sparsePart{Size: size}
		content := make([]byte, size)
		for at := random.Int64N(size/3 + 1); at < size; at += 1 + random.Int64N(size/3+1) {
			n := min(random.Int64N(size/4+2), size-at, int64(len(archive)))
			data := random.Int64N(int64(len(archive)) - n + 1)
			part.Runs = append(part.Runs, SparseRun{Offset: at, Length: n, Data: data})
			copy(content[at:at+n], archive[data:])
			at += n
		}
		parts, want = append(parts, part), append(want, content...)
	}
	shard := &backend.Object{Origin: "origin", Name: []byte("shard"), Version: backend.Version{Inode: 4, Size: 1 << 20}}
	anywhere := &randomAccess{archive}
	o, offsets, err := expandSparse(context.Background(), anywhere, parts, p.dir, shard)
	if err != nil || o.Version.Size != int64(len(want)) || len(offsets) != len(parts) {
		t.Fatal(o, offsets, err)
	}
	store, err := seekable.New(lent{p.origin}, p.dir, seekable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	got := make([]byte, len(want))
	if err := store.ReadAt(context.Background(), backend.Chunk{Object: &o, Size: o.Version.Size}, got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("error %v, equal bytes %v", err, bytes.Equal(got, want))
	}
	at := int64(0)
	for i := range parts {
		if offsets[i] != at {
			t.Errorf("part %d at %d, want %d", i, offsets[i], at)
		}
		at += parts[i].Size
	}
	name, _ := SeekableFiles(o.Version.Tag)
	before := inodeOf(t, filepath.Join(p.dir, name))
	if _, _, err := expandSparse(context.Background(), nil, parts, p.dir, shard); err != nil || inodeOf(t, filepath.Join(p.dir, name)) != before {
		t.Errorf("expanded again, or %v", err)
	}
	other, _, err := expandSparse(context.Background(), anywhere, parts[1:], p.dir, shard)
	if err != nil || other.Version.Tag == o.Version.Tag {
		t.Errorf("other parts have the same file %s, or %v", other.Version.Tag, err)
	}
}

type randomAccess struct{ b []byte }

func (r *randomAccess) Size() int64 { return int64(len(r.b)) }

func (r *randomAccess) ReadAt(p []byte, off int64) error {
	if off < 0 || off+int64(len(p)) > r.Size() {
		return fmt.Errorf("read of %d bytes at %d of %d", len(p), off, len(r.b))
	}
	copy(p, r.b[off:])
	return nil
}

func TestASparseMemberThatExpandsToTooMuchIsInvalid(t *testing.T) {
	p := newPacked(t)
	shard := &backend.Object{Name: []byte("shard")}
	parts := []sparsePart{{Size: 10}, {Size: maxExpandedMember + 1}}
	_, _, err := expandSparse(context.Background(), &randomAccess{}, parts, p.dir, shard)
	wantUnpackError(t, err, backend.Invalid, "1073741824", "--sparse")
	bad := []sparsePart{{Size: 10, Runs: []SparseRun{{Offset: 8, Length: 3}}}}
	if _, _, err := expandSparse(context.Background(), &randomAccess{}, bad, p.dir, shard); err == nil {
		t.Error("a run outside of its member was expanded")
	}
	if names := p.files(); len(names) > 0 {
		t.Errorf("left %v", names)
	}
}

// FuzzDecompress decompresses whatever there is: every error has its kind, and nothing
// panics or asks for more memory than maxWindow.
func FuzzDecompress(f *testing.F) {
	files, err := filepath.Glob("testdata/unpack/tiny*")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		f.Add(readFile(f, file))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		o := &backend.Object{Name: []byte("shard"), Version: backend.Version{Size: int64(len(b))}}
		in := memoryReader{b}
		kind, err := archiveKind(in, o)
		if err != nil || kind == kindTar {
			return
		}
		stream, err := newCompressed(in, o).decompress(kind)
		if err == nil {
			_, err = io.Copy(io.Discard, io.LimitReader(stream, 16<<20))
		}
		if kind := backend.KindOf(err); err != nil && kind != backend.Corrupt && kind != backend.Invalid {
			t.Fatal(err)
		}
	})
}

// memoryReader is an object in memory, read at any place.
type memoryReader struct{ b []byte }

func (m memoryReader) ReadAt(p []byte, off int64) error {
	return (&randomAccess{m.b}).ReadAt(p, off)
}

func (m memoryReader) Close() error { return nil }
