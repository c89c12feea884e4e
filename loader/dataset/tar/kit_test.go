package tar

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stokerio/stoker/backend"
)

// memory is an archive in memory. It holds a Walker to what Source promises it.
type memory struct {
	b    []byte
	last int64
}

func (m *memory) Size() int64 { return int64(len(m.b)) }

func (m *memory) ReadAt(p []byte, off int64) error {
	if off < m.last || len(p) == 0 || off+int64(len(p)) > m.Size() {
		return fmt.Errorf("read of %d bytes at %d of %d after one at %d", len(p), off, m.Size(), m.last)
	}
	m.last = off
	copy(p, m.b[off:])
	return nil
}

// found is a sample as a test compares it.
type found struct {
	key   string
	parts []foundPart
}

type foundPart struct {
	suffix string
	size   int64
	crc    uint32
}

// outcome is what a reader makes of an archive.
type outcome struct {
	samples []found
	end     End
	fault   Fault
	err     error
}

// read reads all samples of an archive.
func read(archive []byte) outcome { return drain(NewWalker(&memory{b: archive}), archive) }

func drain(w *Walker, archive []byte) outcome {
	var out outcome
	samples := NewSamples(w)
	for {
		s, err := samples.Next()
		if err == io.EOF {
			out.end = w.End()
			return out
		}
		if err != nil {
			out.err, out.fault = err, w.Fault()
			return out
		}
		f := found{key: string(s.Key)}
		for _, p := range s.Parts {
			f.parts = append(f.parts, foundPart{string(p.Suffix), p.Size, checksum(archive, p)})
		}
		out.samples = append(out.samples, f)
	}
}

// maxExpanded is what a test expands of one member.
const maxExpanded = 16 << 20

// checksum is the CRC-32 of a part when expanded, 0 if it is too large.
func checksum(archive []byte, p Part) uint32 {
	if p.Sparse == nil {
		return crc32.ChecksumIEEE(archive[p.Data : p.Data+p.Size])
	}
	if p.Size > maxExpanded {
		return 0
	}
	b := make([]byte, p.Size)
	for _, r := range p.Sparse {
		copy(b[r.Offset:r.Offset+r.Length], archive[r.Data:r.Data+r.Length])
	}
	return crc32.ChecksumIEEE(b)
}

func same(a, b []found) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

// header makes one block; zero fields get what is usual.
type header struct {
	name, magic, prefix string
	kind                byte
	size                string // as written; "" for that of the data
	change              func(h []byte)
}

// archive puts blocks together, right ones or wrong ones.
type archive struct{ b []byte }

func (a *archive) header(h header, size int) *archive {
	b := make([]byte, blockBytes)
	copy(b, h.name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	if h.size == "" {
		h.size = fmt.Sprintf("%011o", size)
	}
	copy(b[sizeField:sizeField+numberBytes], h.size)
	copy(b[136:], "00000000000\x00")
	b[typeField] = h.kind
	if h.magic == "" {
		h.magic = "ustar\x0000"
	}
	copy(b[magicField:], h.magic)
	copy(b[prefixField:prefixField+prefixBytes], h.prefix)
	if h.change != nil {
		h.change(b)
	}
	sum(b)
	a.b = append(a.b, b...)
	return a
}

// sum writes a header's checksum.
func sum(b []byte) {
	copy(b[checksumField:], "        ")
	total := 0
	for _, c := range b {
		total += int(c)
	}
	copy(b[checksumField:], fmt.Sprintf("%06o\x00 ", total))
}

func (a *archive) member(h header, data string) *archive {
	return a.header(h, len(data)).data(data)
}

func (a *archive) file(name, data string) *archive {
	return a.member(header{name: name, kind: '0'}, data)
}

func (a *archive) pax(kind byte, records ...string) *archive {
	return a.member(header{name: "PaxHeader", kind: kind}, paxRecords(records...))
}

// paxRecords encodes "key=value" records.
func paxRecords(records ...string) string {
	var all strings.Builder
	for _, r := range records {
		n := len(r) + 2
		for len(fmt.Sprint(n))+len(r)+2 != n {
			n = len(fmt.Sprint(n)) + len(r) + 2
		}
		fmt.Fprintf(&all, "%d %s\n", n, r)
	}
	return all.String()
}

// data appends bytes and their padding.
func (a *archive) data(s string) *archive {
	a.b = append(append(a.b, s...), make([]byte, padded(int64(len(s)))-int64(len(s)))...)
	return a
}

func (a *archive) end() []byte { return append(a.b, make([]byte, 2*blockBytes)...) }

func archiveOf(names ...string) []byte {
	var a archive
	for _, n := range names {
		a.file(n, n)
	}
	return a.end()
}

// golden returns the archives in testdata, by name.
func golden(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/*.tar*")
	if err != nil || len(files) < 16 {
		t.Fatalf("%d archives in testdata: %v; make them with testdata/make.py", len(files), err)
	}
	all := map[string][]byte{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && strings.HasSuffix(f, ".gz") {
			var z *gzip.Reader
			if z, err = gzip.NewReader(bytes.NewReader(b)); err == nil {
				b, err = io.ReadAll(z)
			}
		}
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		all[strings.TrimSuffix(filepath.Base(f), ".gz")] = b
	}
	return all
}

// wantCorrupt fails unless the archive was refused with that fault and a full error.
func wantCorrupt(t testing.TB, out outcome, code FaultCode) {
	t.Helper()
	var e *backend.Error
	if !errors.As(out.err, &e) || e.Kind != backend.Corrupt || e.Remedy == "" || !strings.Contains(e.Detail, "at byte") {
		t.Errorf("got %v and %d samples, want a full error of kind corrupt", out.err, len(out.samples))
		return
	}
	if out.fault.Code != code {
		t.Errorf("fault %q, want %q: %v", out.fault.Code, code, out.err)
	}
}
