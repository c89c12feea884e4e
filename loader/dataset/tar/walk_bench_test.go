package tar

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// fileSource is an archive in a file, read as a scan reads it.
type fileSource struct {
	*os.File
	size int64
}

func (f fileSource) Size() int64 { return f.size }

func (f fileSource) ReadAt(p []byte, off int64) error {
	_, err := f.File.ReadAt(p, off)
	return err
}

// benchArchive writes an archive of about bytes whose samples are one picture of
// sampleBytes and a class. It returns where the headers are.
func benchArchive(b *testing.B, bytes, sampleBytes int) (fileSource, []int64) {
	b.Helper()
	path := filepath.Join(b.TempDir(), "a.tar")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
	picture := string(make([]byte, sampleBytes))
	var headers []int64
	at := int64(0)
	for i := 0; at < int64(bytes); i++ {
		var a archive
		a.file(fmt.Sprintf("%08d.cls", i), "7")
		headers = append(headers, at, at+int64(len(a.b)))
		a.file(fmt.Sprintf("%08d.jpg", i), picture)
		if _, err := f.Write(a.b); err != nil {
			b.Fatal(err)
		}
		at += int64(len(a.b))
	}
	if _, err := f.Write(make([]byte, 2*blockBytes)); err != nil {
		b.Fatal(err)
	}
	return fileSource{f, at + 2*blockBytes}, headers
}

// BenchmarkWalk compares a walk, and one that groups samples, with nothing but one
// pread for each page that holds a header. An operation is a member.
func BenchmarkWalk(b *testing.B) {
	for _, c := range []struct{ bytes, sample int }{{64 << 20, 4 << 10}, {64 << 20, 100 << 10}} {
		src, headers := benchArchive(b, c.bytes, c.sample)
		label := fmt.Sprintf("sample=%dKiB", c.sample>>10)
		b.Run(label+"/read=pages", func(b *testing.B) {
			page := make([]byte, pageBytes)
			for i := 0; i < b.N; {
				last := int64(-1)
				for _, h := range headers {
					if h /= pageBytes; h != last {
						if err := src.ReadAt(page[:min(pageBytes, src.size-h*pageBytes)], h*pageBytes); err != nil {
							b.Fatal(err)
						}
						last = h
					}
				}
				i += len(headers)
			}
		})
		b.Run(label+"/read=members", func(b *testing.B) {
			b.ReportAllocs()
			w := NewWalker(src)
			for i := 0; i < b.N; i += len(headers) {
				w.Reset(src)
				if n, _ := drainErr(w); n != len(headers) {
					b.Fatal(n, w.err)
				}
			}
		})
		b.Run(label+"/read=samples", func(b *testing.B) {
			b.ReportAllocs()
			w := NewWalker(src)
			s := NewSamples(w)
			for i := 0; i < b.N; i += len(headers) {
				w.Reset(src)
				s.Reset()
				for n := 0; ; n++ {
					if _, err := s.Next(); err != nil {
						if 2*n != len(headers) {
							b.Fatal(n, err)
						}
						break
					}
				}
			}
		})
	}
}

// BenchmarkHeader is the cost of a header that is in memory.
func BenchmarkHeader(b *testing.B) {
	src := &memory{b: archiveOf(make([]string, 1000)...)}
	w := NewWalker(src)
	for i := 0; i < b.N; i += 1000 {
		src.last = 0
		w.Reset(src)
		if n, err := drainErr(w); n != 1000 {
			b.Fatal(n, err)
		}
	}
}
