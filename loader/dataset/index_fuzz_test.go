package dataset

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
)

func FuzzIndex(f *testing.F) {
	records := makeRecords(4)
	content, err := os.ReadFile(writeIndex(f, f.TempDir(), records, makeMeta(4)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content, false)
	f.Add(content, true)
	f.Add(content[:headerBytes], true)
	sections, err := os.ReadFile(writeSections(f, f.TempDir(), 3, testSections(96)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sections, true)
	path := filepath.Join(f.TempDir(), "fuzz.idx")
	f.Fuzz(func(t *testing.T, content []byte, seal bool) {
		if seal {
			content = resealed(bytes.Clone(content))
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		x, err := OpenIndex(path)
		if err != nil {
			return
		}
		defer x.Close()
		var scratch []byte
		for i := range min(x.Len(), 100) {
			if r, err := x.Record(i, &scratch); err == nil && r.Version.Size < 0 {
				t.Fatalf("record %d: %+v", i, r)
			}
		}
		for _, s := range x.Meta().Sections {
			if size, ok := x.SectionBytes(s.Name); !ok || size < 0 || size > int64(len(content)) {
				t.Fatalf("section %+v", s)
			}
			b, err := x.ReadSection(s.Name, s.Bytes/2, s.Bytes-s.Bytes/2, new([]byte))
			if err != nil || int64(len(b)) != s.Bytes-s.Bytes/2 {
				t.Fatalf("section %+v: %d bytes (%v)", s, len(b), err)
			}
		}
		if cap(scratch) > maxRecordBytes {
			t.Fatalf("scratch of %d bytes", cap(scratch))
		}
		_ = x.Verify(context.Background())
	})
}

func FuzzRecord(f *testing.F) {
	for _, r := range makeRecords(5) {
		b, err := appendRecord(nil, 3, &r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true)
		f.Add(b, false)
	}
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if seal && len(b) >= recordFixedBytes {
			b = sealRecord(bytes.Clone(b))
		}
		r, err := decodeRecord(b, 3)
		if err != nil {
			return
		}
		again, err := appendRecord(nil, 3, &r)
		if err != nil {
			t.Fatal(err)
		}
		// The reserved field may differ; all else must survive.
		copy(again[10:12], b[10:12])
		if !bytes.Equal(sealRecord(again), b) {
			t.Fatalf("%x decodes to %+v, which encodes to %x", b, r, again)
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	for _, n := range []int{10_485, 1_000_000} {
		b.Run(fmt.Sprintf("records=%d", n), func(b *testing.B) {
			x := openIndex(b, writeIndex(b, b.TempDir(), makeRecords(n), makeMeta(n)))
			var scratch []byte
			i := int64(0)
			for b.Loop() {
				if _, err := x.Record(i%x.Len(), &scratch); err != nil {
					b.Fatal(err)
				}
				i += 7919_7919
			}
		})
	}
}

// resealed gives a damaged index, as an attacker would, the checksums of its header, its metadata and of
// those records that its table finds.
func resealed(b []byte) []byte {
	if len(b) < headerBytes {
		return b
	}
	le := binary.LittleEndian
	start, size := le.Uint64(b[40:]), le.Uint64(b[48:])
	if start <= uint64(len(b)) && size <= uint64(len(b))-start {
		le.PutUint32(b[56:], crc32.Checksum(b[start:start+size], castagnoli))
	}
	le.PutUint32(b[headerCRCOffset:], crc32.Checksum(b[:headerCRCOffset], castagnoli))
	for at := headerBytes; at+16 <= len(b) && at < headerBytes+8*100; at += 8 {
		from, to := le.Uint64(b[at:]), le.Uint64(b[at+8:])
		if from >= headerBytes && to <= uint64(len(b)) && from <= to && to-from >= recordFixedBytes {
			sealRecord(b[from:to])
		}
	}
	return b
}

// sealRecord gives an encoded record its checksum.
func sealRecord(b []byte) []byte {
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}
