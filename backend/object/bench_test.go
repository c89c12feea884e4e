package object_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/object"
)

const benchBatch = 64

// BenchmarkFiles reads whole files of 100 KB in random order, in batches of 64:
// route=bare is the loop that anybody would write, the others are Gather with
// that many cached handles.
func BenchmarkFiles(b *testing.B) {
	const files, size = 10485, 100_000
	root := b.TempDir()
	content := make([]byte, size)
	for i := range files {
		if err := os.WriteFile(filepath.Join(root, fmt.Sprintf("%05d.jpg", i)), content, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	order := rand.New(rand.NewPCG(1, 2)).Perm(files)
	buf := make([]byte, benchBatch*size)
	b.Run("route=bare", func(b *testing.B) {
		b.SetBytes(benchBatch * size)
		for n := 0; b.Loop(); n++ {
			for i := range benchBatch {
				name := filepath.Join(root, fmt.Sprintf("%05d.jpg", order[(n*benchBatch+i)%files]))
				bareRead(b, name, buf[i*size:(i+1)*size])
			}
		}
	})
	for _, open := range []int{-1, 1024, 16384} {
		b.Run(fmt.Sprintf("route=gather/open_files=%d", max(open, 0)), func(b *testing.B) {
			dir := openDir(b, root, object.Options{OpenFiles: open})
			objects := list(b, dir)
			benchGather(b, dir, size, func(n, i int, r *backend.Read) {
				o := &objects[order[(n*benchBatch+i)%files]]
				r.Chunk = backend.Chunk{Object: o, Size: size}
				r.P = buf[i*size : (i+1)*size]
			})
		})
	}
}

// BenchmarkRows reads rows of 4 KiB at random places of one file of 1 GiB.
func BenchmarkRows(b *testing.B) {
	const rows, size = 1 << 18, 4096
	root := b.TempDir()
	name := filepath.Join(root, "train.bin")
	if err := os.WriteFile(name, make([]byte, rows*size), 0o600); err != nil {
		b.Fatal(err)
	}
	order := rand.New(rand.NewPCG(1, 2)).Perm(rows - 1)
	buf := make([]byte, benchBatch*size)
	b.Run("route=bare", func(b *testing.B) {
		fd, err := syscall.Open(name, syscall.O_RDONLY, 0)
		if err != nil {
			b.Fatal(err)
		}
		defer syscall.Close(fd)
		b.SetBytes(benchBatch * size)
		for n := 0; b.Loop(); n++ {
			for i := range benchBatch {
				off := int64(order[(n*benchBatch+i)%len(order)])*size + 2
				if got, err := syscall.Pread(fd, buf[i*size:(i+1)*size], off); got != size || err != nil {
					b.Fatal(got, err)
				}
			}
		}
	})
	for _, open := range []int{-1, 1024} {
		b.Run(fmt.Sprintf("route=gather/open_files=%d", max(open, 0)), func(b *testing.B) {
			dir := openDir(b, root, object.Options{OpenFiles: open})
			objects := list(b, dir)
			benchGather(b, dir, size, func(n, i int, r *backend.Read) {
				off := int64(order[(n*benchBatch+i)%len(order)])*size + 2
				start := off / backend.MaxChunkBytes * backend.MaxChunkBytes
				length := min(objects[0].Version.Size-start, backend.MaxChunkBytes+size)
				r.Chunk = backend.Chunk{Object: &objects[0], Start: start, Size: length}
				r.Offset, r.P = off-start, buf[i*size:(i+1)*size]
			})
		})
	}
}

func benchGather(b *testing.B, dir *object.Dir, size int, fill func(n, i int, r *backend.Read)) {
	reads := make([]backend.Read, benchBatch)
	var report backend.GatherReport
	b.SetBytes(int64(benchBatch * size))
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		for i := range reads {
			fill(n, i, &reads[i])
		}
		if err := dir.Gather(context.Background(), reads, &report); err != nil {
			b.Fatal(err)
		}
	}
	total := report.CachedBytes + report.DiskBytes
	b.ReportMetric(float64(report.CachedBytes)/float64(max(total, 1)), "cached-share")
}

func bareRead(b *testing.B, name string, p []byte) {
	fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	if n, err := syscall.Pread(fd, p, 0); n != len(p) || err != nil {
		b.Fatal(n, err)
	}
	syscall.Close(fd)
}

// openDir opens an origin over root and closes it at the test's end.
func openDir(t testing.TB, root string, options object.Options) *object.Dir {
	t.Helper()
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := object.OpenDir(fd, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dir.Close(); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// list returns every object of the origin, numbered.
func list(t testing.TB, dir backend.Lister) []backend.Object {
	t.Helper()
	var objects []backend.Object
	err := dir.Objects(context.Background(), func(o backend.Object) error {
		o.Name = append([]byte(nil), o.Name...)
		o.Number = int64(len(objects))
		objects = append(objects, o)
		return nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// BenchmarkShortReads is what a read of 512 cached bytes costs by how the file was opened
// and by which call it is read.
func BenchmarkShortReads(b *testing.B) {
	const stride, reads = 100_352, 600
	path := filepath.Join(b.TempDir(), "shard.tar")
	if err := os.WriteFile(path, make([]byte, stride*reads), 0o600); err != nil {
		b.Fatal(err)
	}
	kernel, p := object.Kernel(), make([]byte, 512)
	for _, c := range []struct {
		name  string
		flags int
		read  func(fd int, off int64) (int, syscall.Errno)
	}{
		{"pread", 0, func(fd int, off int64) (int, syscall.Errno) { return kernel.Pread(fd, p, off) }},
		{"pread/no atime", unix.O_NOATIME, func(fd int, off int64) (int, syscall.Errno) { return kernel.Pread(fd, p, off) }},
		{"nowait/no atime", unix.O_NOATIME, func(fd int, off int64) (int, syscall.Errno) {
			return kernel.Preadv2(fd, p, off, unix.RWF_NOWAIT)
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|c.flags, 0)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = unix.Close(fd) }()
			for i := int64(0); b.Loop(); i++ {
				if n, errno := c.read(fd, i%reads*stride); n != len(p) || errno != 0 {
					b.Fatal(n, errno)
				}
			}
		})
	}
}
