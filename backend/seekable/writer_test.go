package seekable

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/internal/faultfs"
)

// TestReadsEqualWhatWasWritten writes in pieces of any size, and reads and gathers
// anywhere.
func TestReadsEqualWhatWasWritten(t *testing.T) {
	dir := t.TempDir()
	pool := smallPool(t, 3, 2)
	rapid.Check(t, func(t *rapid.T) {
		content := mixed(rapid.IntRange(0, 5*FrameBytes).Draw(t, "size"), rapid.Uint64().Draw(t, "seed"))
		w, err := Create(dir)
		if err != nil {
			t.Fatal(err)
		}
		for rest := content; len(rest) > 0; {
			n := min(len(rest), rapid.IntRange(1, 2*FrameBytes).Draw(t, "write"))
			if _, err := w.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		of := &backend.Object{Origin: "origin", Name: []byte("shard"), Version: backend.Version{Inode: 3}}
		o, err := w.Finish(NameOf("property", of), of)
		if err != nil || o.Version.Size != int64(len(content)) {
			t.Fatal(o, err)
		}
		s, err := New(emptyStore{}, dir, Options{Pool: pool})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var reads []backend.Read
		var want [][]byte
		for range rapid.IntRange(1, 40).Draw(t, "reads") {
			from := rapid.IntRange(0, len(content)).Draw(t, "from")
			n := rapid.IntRange(0, len(content)-from).Draw(t, "length")
			reads = append(reads, backend.Read{Chunk: wholeOf(&o), Offset: int64(from), P: make([]byte, n)})
			want = append(want, content[from:from+n])
		}
		if err := s.Gather(context.Background(), reads, nil); err != nil {
			t.Fatal(err)
		}
		for i := range reads {
			if !bytes.Equal(reads[i].P, want[i]) {
				t.Fatalf("read of %d bytes at %d gave other bytes", len(want[i]), reads[i].Offset)
			}
		}
	})
}

// emptyStore is a decorated store that is never asked.
type emptyStore struct{ backend.Store }

func (emptyStore) Close() error { return nil }

// TestAnyDecoderReadsTheFile decompresses a file front to back, as `zstd -dc` does.
func TestAnyDecoderReadsTheFile(t *testing.T) {
	dir := t.TempDir()
	content := mixed(2*FrameBytes+123, 6)
	o := put(t, dir, "shard", content)
	file, err := os.Open(fileOf(dir, &o))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	d, err := zstd.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	got, err := io.ReadAll(d)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("error %v, equal bytes %v", err, bytes.Equal(got, content))
	}
}

// TestFilesOfAnotherWriterAreRead reads a file that
// github.com/SaveTheRbtz/zstd-seekable-format-go v0.10.0 wrote.
func TestFilesOfAnotherWriterAreRead(t *testing.T) {
	file, err := os.ReadFile("testdata/other-writer.zst")
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	for line := range 400 {
		fmt.Fprintf(&want, "%09d\n", line)
	}
	want.WriteString("end\n")
	dir := t.TempDir()
	o := raw(t, dir, int64(want.Len()), file)
	s := open(t, dir, Options{Pool: smallPool(t, 2, 0)})
	if got, err := readAll(s, &o); err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("error %v, read %q", err, got)
	}
}

func TestAbortLeavesNothingAndATemporaryNameIsAScans(t *testing.T) {
	dir := t.TempDir()
	w, err := Create(filepath.Join(dir, "new"))
	if err != nil {
		t.Fatal(err)
	}
	if name := filepath.Base(w.file.Name()); !strings.HasPrefix(name, ".scan-") {
		t.Errorf("temporary file %s is not one that dataset.RemoveTemporary removes", name)
	}
	if _, err := w.Write(make([]byte, 3*FrameBytes)); err != nil {
		t.Fatal(err)
	}
	w.Abort()
	entries, err := os.ReadDir(filepath.Join(dir, "new"))
	if err != nil || len(entries) > 0 {
		t.Errorf("%v left, %v", entries, err)
	}
	o := put(t, dir, "shard", []byte("content"))
	w.Abort()
	if _, err := os.Stat(fileOf(dir, &o)); err != nil {
		t.Error(err)
	}
}

func TestExamineTellsWhatAFileHolds(t *testing.T) {
	dir := t.TempDir()
	o := put(t, dir, "train/\xff-0.tar", mixed(FrameBytes+9, 7))
	s := open(t, dir, Options{Pool: smallPool(t, 2, 0)})
	name, bytes, ok := FileOf(o.Version.Tag)
	if !ok || bytes != o.Version.Size {
		t.Fatal(o.Version)
	}
	for _, deep := range []bool{false, true} {
		found, err := s.Examine(context.Background(), name, deep)
		if err != nil || string(found.Name) != string(o.Name) || found.Origin != "origin" || found.Version != o.Version {
			t.Errorf("deep %v: %+v, %v; want %+v", deep, found, err, o)
		}
	}
	path := filepath.Join(dir, name)
	damaged, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged[100] ^= 1
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Examine(context.Background(), name, false); err != nil {
		t.Errorf("a quick look found %v", err)
	}
	_, err = s.Examine(context.Background(), name, true)
	wantKind(t, err, backend.Corrupt, "frame 0")
	_, err = s.Examine(context.Background(), "../x.zst", true)
	wantKind(t, err, backend.NotFound)
}

func TestNamesTellVersionsApartAndNotMachines(t *testing.T) {
	o := backend.Object{Origin: "file:1:2", Name: []byte("a.tar"), Version: backend.Version{Device: 1, Inode: 2, Size: 3, ModifiedNs: 4, ChangedNs: 5}}
	name := NameOf("unpacked", &o)
	if !namePattern.MatchString(name) {
		t.Errorf("name %q", name)
	}
	same := o
	same.Origin, same.Version.Device = "file:9:2", 9
	if NameOf("unpacked", &same) != name {
		t.Error("another device number made another name")
	}
	seen := map[string]bool{name: true, NameOf("expanded", &o): true}
	for _, change := range []func(*backend.Object){
		func(o *backend.Object) { o.Name = []byte("b.tar") },
		func(o *backend.Object) { o.Version.Inode++ },
		func(o *backend.Object) { o.Version.Size++ },
		func(o *backend.Object) { o.Version.ModifiedNs++ },
		func(o *backend.Object) { o.Version.ChangedNs++ },
		func(o *backend.Object) { o.Version.Tag = "etag" },
	} {
		other := o
		change(&other)
		seen[NameOf("unpacked", &other)] = true
	}
	if len(seen) != 8 {
		t.Errorf("%d names, want 8", len(seen))
	}
}

func TestReadsAllocateNoPayloadInSteadyState(t *testing.T) {
	dir := t.TempDir()
	content := mixed(20*FrameBytes, 8)
	o := put(t, dir, "shard", content)
	s := open(t, dir, Options{Pool: smallPool(t, 4, 2)})
	random := rand.New(rand.NewPCG(1, 1))
	reads := make([]backend.Read, 64)
	for i := range reads {
		reads[i] = backend.Read{Chunk: wholeOf(&o), P: make([]byte, 4096)}
	}
	run := func() {
		for i := range reads {
			reads[i].Offset = random.Int64N(int64(len(content) - 4096))
		}
		if err := s.Gather(context.Background(), reads, new(backend.GatherReport)); err != nil {
			t.Error(err)
		}
	}
	for range 20 {
		run()
	}
	// Bytes, not allocations: the race detector makes the decoder's sync.Pool forget
	// now and then. A frame alone would be 128 KiB.
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 50 {
		run()
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / 50; n > FrameBytes/2 {
		t.Errorf("%d bytes allocated a gather of 64 reads, want at most half a frame", n)
	}
}

func TestEachFrameIsDecompressedOnceAGather(t *testing.T) {
	dir := t.TempDir()
	o := put(t, dir, "shard", mixed(4*FrameBytes, 10))
	s := open(t, dir, Options{Pool: smallPool(t, 1, 0)})
	var reads []backend.Read
	for i := range int64(400) {
		reads = append(reads, backend.Read{Chunk: wholeOf(&o), Offset: i * 7919 % (4*FrameBytes - 10), P: make([]byte, 10)})
	}
	g := s.takeGather()
	if err := g.run(context.Background(), reads, nil); err != nil {
		t.Fatal(err)
	}
	if len(g.frames) != 4 {
		t.Errorf("%d frames were served, want 4", len(g.frames))
	}
	for _, f := range g.files {
		s.releaseFile(f, false)
	}
	s.putGather(g)
}

// TestTheReportNamesTheSlowestRead has the page cache lack the one seekable object
// among others of the decorated store.
func TestTheReportNamesTheSlowestRead(t *testing.T) {
	dir := t.TempDir()
	o := put(t, dir, "shard", mixed(1000, 11))
	fs := faultfs.New(object.Kernel())
	fs.Inject(faultfs.Fault{Op: faultfs.Preadv2, Errno: unix.EAGAIN})
	s := open(t, dir, Options{Pool: smallPool(t, 1, 1), System: fs})
	id, err := s.Put(context.Background(), []byte("another"))
	if err != nil {
		t.Fatal(err)
	}
	other := backend.Chunk{ID: id, Size: 7}
	reads := []backend.Read{{Chunk: other, P: make([]byte, 7)}, {Chunk: wholeOf(&o), P: make([]byte, 10)}, {Chunk: other, P: make([]byte, 7)}}
	var report backend.GatherReport
	if err := s.Gather(context.Background(), reads, &report); err != nil {
		t.Fatal(err)
	}
	if report.Slowest != 1 || report.SlowestNs <= 0 || report.DiskReads != 3 || report.DiskBytes != 24 {
		t.Errorf("%+v, want 24 bytes from disk in 3 reads, and number 1 as the slowest", report)
	}
	if reads[1].WaitNs != report.SlowestNs {
		t.Errorf("read 1 was waited for %d ns, and took %d", reads[1].WaitNs, report.SlowestNs)
	}
}

func TestCancelledGatherEndsWithTheCause(t *testing.T) {
	dir := t.TempDir()
	o := put(t, dir, "shard", mixed(4*FrameBytes, 10))
	s := open(t, dir, Options{Pool: smallPool(t, 1, 1)})
	ctx, cancel := context.WithCancelCause(context.Background())
	cause := errors.New("cause")
	cancel(cause)
	reads := []backend.Read{{Chunk: wholeOf(&o), P: make([]byte, 10)}}
	if err := s.Gather(ctx, reads, nil); !errors.Is(err, cause) {
		t.Error(err)
	}
}

func TestOptionsOutOfRangeAreRefused(t *testing.T) {
	_, err := New(emptyStore{}, t.TempDir(), Options{OpenFiles: -1, ChunkBytes: -1})
	wantKind(t, err, backend.OutOfRange, "OpenFiles", "ChunkBytes")
	_, err = New(emptyStore{}, filepath.Join(t.TempDir(), "none"), Options{})
	wantKind(t, err, backend.NotFound)
	if _, err := NewPool(PoolOptions{Bytes: 1, Reads: -1}); err == nil {
		t.Error("a pool of 1 byte was made")
	}
}
