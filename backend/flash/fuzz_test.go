package flash

import (
	"bytes"
	"testing"
)

func FuzzHeader(f *testing.F) {
	h := header{device: deviceID{1, 2, 3}, number: 7, spans: 16, spanBytes: 64 << 20}
	f.Add(h.encode())
	f.Add(make([]byte, headerBytes))
	f.Fuzz(func(t *testing.T, p []byte) {
		h, err := decodeHeader(p)
		if err != nil {
			return
		}
		// What is not told by the fields may be anything, but is sealed.
		again := h.encode()
		if !bytes.Equal(p[:8], again[:8]) || !bytes.Equal(p[16:48], again[16:48]) {
			t.Errorf("% x was read as %+v", p[:48], h)
		}
	})
}

// seeded makes a fuzzer's bytes pass the checksum, so that what is behind it is reached.
func sealedRecord(p []byte, device deviceID, at place) []byte {
	var q [recordBytes]byte
	copy(q[8:], p)
	var r record
	r.encode(&q, device, at)
	copy(q[8:], p)
	s := seal(q[:], device, at)
	q[4], q[5], q[6], q[7] = byte(s), byte(s>>8), byte(s>>16), byte(s>>24)
	return q[:]
}

func FuzzRecord(f *testing.F) {
	device, at := deviceID{1, 2, 3}, place{4, 5, 6}
	r := record{id: [32]byte{9}, sequence: 3, extents: 16, size: 1<<20 + 1, kind: put, blocks: 3, crcs: [maxBlocks]uint32{1, 2}}
	var p [recordBytes]byte
	r.encode(&p, device, at)
	f.Add(p[8:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, p []byte) {
		var r record
		bare := make([]byte, recordBytes)
		copy(bare, p)
		_ = r.decode(bare, device, at)
		sealed := sealedRecord(p, device, at)
		if err := r.decode(sealed, device, at); err != nil {
			return
		}
		if r.kind != filled && r.kind != put || blocksOf(r.size) > maxBlocks || r.blocks&^allBlocks(r.size) != 0 {
			t.Errorf("% x was read as %+v", sealed, r)
		}
		for _, other := range []place{{5, 5, 6}, {4, 4, 6}, {4, 5, 7}} {
			if r.decode(sealed, device, other) == nil {
				t.Errorf("a record of %v was read at %v", at, other)
			}
		}
		if r.decode(sealed, deviceID{}, at) == nil {
			t.Errorf("a record was read on another device")
		}
	})
}

func FuzzManifest(f *testing.F) {
	m := manifest{Format: manifestFormat, Version: FormatVersion, Device: "000102030405060708090a0b0c0d0e0f", SpanBytes: 64 << 20, SegmentSpans: 16}
	f.Add(m.encode())
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, _, err := decodeManifest(text)
		if err == nil && !geometryIsSane(m.SpanBytes, m.SegmentSpans) {
			t.Errorf("%q was read as %+v", text, m)
		}
	})
}
