package flash

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/stokerio/stoker/backend"
)

// FormatVersion is the version of the layout below. A store reads its own version and
// refuses any other, saying what to do.
//
// Rule of migration: a later version that changes the layout either reads the older one
// beside its own, segment by segment (the header says which a segment is of), and writes
// only its own, so that segments move over as they are emptied; or it ships a command that
// copies every chunk that was put, and discards the cached ones, which can be fetched
// again. Chunks that were put are never discarded by a migration.
const FormatVersion = 1

// The layout of a device's directory:
//
//	format.json        version, identity and geometry; written once
//	LOCK               held by the daemon (flock); holds its process id
//	segments/00000007.seg
//	segments/00000007.seg.retired  empty: a write or a sync of the segment failed
//	scrub.json         how far the scrubber is; may be lost
//	aside/             files that Check moved out of the way; nobody reads them
//
// The layout of a segment of n spans (little endian):
//
//	0            header                                            512 B
//	512          nothing                                    to 1 MiB
//	1 MiB        span 0: extents of one size class         spanBytes
//	             ...
//	             span n-1
//	1 MiB + n·spanBytes                                ledger: of each span
//	             span 0: record of each extent    spanBytes/4096 · 128 B
//	             ...
//
// Everything is in a chunk's segment: an extent holds its bytes, the record of the same
// number says what they are. So one fdatasync makes both durable, what is damaged is what
// is lost, and an older copy of a segment is consistent in itself. Bytes of an extent
// behind the chunk's end, up to the next multiple of 4096, are zero.
const (
	pageBytes   = 4096
	headBytes   = 1 << 20
	headerBytes = 512
	recordBytes = 128
	maxBlocks   = backend.MaxChunkBytes / backend.BlockBytes
)

const (
	headerMagic = "STKSEG01"
	recordMagic = 0x31435253 // "SRC1"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is CRC32C.
func checksum(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// deviceID tells one directory of segments from all others.
type deviceID [16]byte

// header is the first 512 bytes of a segment.
//
//	 0  magic "STKSEG01"    8 B
//	 8  format version      4 B
//	12  CRC32C of the rest  4 B
//	16  device             16 B
//	32  number of segment   4 B
//	36  spans               4 B
//	40  bytes of a span     8 B
//	48  nothing
type header struct {
	device    deviceID
	number    uint32
	spans     uint32
	spanBytes int64
}

func (h *header) encode() []byte {
	p := make([]byte, headerBytes)
	copy(p, headerMagic)
	binary.LittleEndian.PutUint32(p[8:], FormatVersion)
	copy(p[16:], h.device[:])
	binary.LittleEndian.PutUint32(p[32:], h.number)
	binary.LittleEndian.PutUint32(p[36:], h.spans)
	binary.LittleEndian.PutUint64(p[40:], uint64(h.spanBytes))
	binary.LittleEndian.PutUint32(p[12:], headerChecksum(p))
	return p
}

// headerChecksum is that of all of a header but the magic and itself.
func headerChecksum(p []byte) uint32 {
	return crc32.Update(checksum(p[8:12]), castagnoli, p[16:headerBytes])
}

var errHeader = errors.New("its header is damaged")

func decodeHeader(p []byte) (h header, err error) {
	if len(p) != headerBytes || string(p[:8]) != headerMagic || headerChecksum(p) != binary.LittleEndian.Uint32(p[12:]) {
		return header{}, errHeader
	}
	if v := binary.LittleEndian.Uint32(p[8:]); v != FormatVersion {
		return header{}, fmt.Errorf("it is of format version %d, this program knows %d", v, FormatVersion)
	}
	copy(h.device[:], p[16:])
	h.number = binary.LittleEndian.Uint32(p[32:])
	h.spans = binary.LittleEndian.Uint32(p[36:])
	h.spanBytes = int64(binary.LittleEndian.Uint64(p[40:]))
	return h, nil
}

// place is where an extent is within its device.
type place struct {
	segment uint32
	span    uint32
	extent  uint32 // number in its span
}

// kind says what a chunk is to the store.
type kind uint8

// The kinds.
const (
	filled kind = 1 // a copy of what an origin has: may be dropped
	put    kind = 2 // the only copy, as far as the store knows
)

// record describes what an extent holds. All zero bytes are the record of nothing.
//
//	 0  magic "SRC1"         4 B
//	 4  CRC32C of [8, 128), device and place, 4 B
//	 8  chunk               32 B
//	40  sequence number      8 B   greater than that of all records before it
//	48  extents of the span  4 B   its size class
//	52  bytes of the chunk   4 B
//	56  kind                 1 B
//	57  blocks               1 B   bit b: block b is there
//	58  nothing              6 B
//	64  CRC32C of each block 8 x 4 B, 0 for those that are not there
//	96  nothing             32 B
type record struct {
	id       backend.ChunkID
	sequence uint64
	extents  uint32
	size     uint32
	kind     kind
	blocks   uint8
	crcs     [maxBlocks]uint32
}

// seal is the checksum of a record, which is worth nothing at any other place.
func seal(p []byte, device deviceID, at place) uint32 {
	var where [28]byte
	copy(where[:], device[:])
	binary.LittleEndian.PutUint32(where[16:], at.segment)
	binary.LittleEndian.PutUint32(where[20:], at.span)
	binary.LittleEndian.PutUint32(where[24:], at.extent)
	return crc32.Update(checksum(p[8:recordBytes]), castagnoli, where[:])
}

func (r *record) encode(p *[recordBytes]byte, device deviceID, at place) {
	clear(p[:])
	binary.LittleEndian.PutUint32(p[0:], recordMagic)
	copy(p[8:], r.id[:])
	binary.LittleEndian.PutUint64(p[40:], r.sequence)
	binary.LittleEndian.PutUint32(p[48:], r.extents)
	binary.LittleEndian.PutUint32(p[52:], r.size)
	p[56], p[57] = byte(r.kind), r.blocks
	for b, crc := range r.crcs {
		binary.LittleEndian.PutUint32(p[64+4*b:], crc)
	}
	binary.LittleEndian.PutUint32(p[4:], seal(p[:], device, at))
}

// isNothing reports whether p is the record of an extent that holds nothing.
func isNothing(p []byte) bool { return [recordBytes]byte(p) == [recordBytes]byte{} }

var errRecord = errors.New("the record is damaged")

// decode reads a record and believes nothing of it that it cannot check.
func (r *record) decode(p []byte, device deviceID, at place) error {
	if binary.LittleEndian.Uint32(p) != recordMagic || binary.LittleEndian.Uint32(p[4:]) != seal(p, device, at) {
		return errRecord
	}
	copy(r.id[:], p[8:])
	r.sequence = binary.LittleEndian.Uint64(p[40:])
	r.extents = binary.LittleEndian.Uint32(p[48:])
	r.size = binary.LittleEndian.Uint32(p[52:])
	r.kind, r.blocks = kind(p[56]), p[57]
	for b := range r.crcs {
		r.crcs[b] = binary.LittleEndian.Uint32(p[64+4*b:])
	}
	switch {
	case r.kind != filled && r.kind != put, r.size > backend.MaxChunkBytes,
		r.blocks&^allBlocks(r.size) != 0, r.kind == put && r.blocks != allBlocks(r.size):
		return errRecord
	}
	return nil
}

// blocksOf is how many blocks a chunk of so many bytes has: an empty one has none.
func blocksOf(size uint32) int { return int((size + backend.BlockBytes - 1) / backend.BlockBytes) }

// allBlocks has a bit for each block of a chunk of so many bytes.
func allBlocks(size uint32) uint8 { return uint8(1<<blocksOf(size) - 1) }

// blockBytes is the size of block b of a chunk of so many bytes.
func blockBytes(size uint32, b int) int {
	return min(backend.BlockBytes, int(size)-b*backend.BlockBytes)
}

// manifest is format.json.
type manifest struct {
	Format       string `json:"format"` // manifestFormat
	Version      int    `json:"version"`
	Device       string `json:"device"` // 32 hexadecimal digits
	SpanBytes    int64  `json:"span_bytes"`
	SegmentSpans int    `json:"segment_spans"`
}

const manifestFormat = "stoker-flash"

func (m *manifest) encode() []byte {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		panic(err) // strings and numbers
	}
	return append(text, '\n')
}

func decodeManifest(text []byte) (m manifest, id deviceID, err error) {
	if err := json.Unmarshal(text, &m); err != nil {
		return m, id, fmt.Errorf("format.json: %w", err)
	}
	switch n := len(m.Device); {
	case m.Format != manifestFormat:
		return m, id, fmt.Errorf("format.json: it is of %q, not of %q", m.Format, manifestFormat)
	case m.Version != FormatVersion:
		return m, id, fmt.Errorf("format.json: it is of version %d, this program knows %d", m.Version, FormatVersion)
	case n != 2*len(id):
		return m, id, fmt.Errorf("format.json: a device of %d digits, not %d", n, 2*len(id))
	case !geometryIsSane(m.SpanBytes, m.SegmentSpans):
		return m, id, fmt.Errorf("format.json: %d spans of %d bytes make no segment", m.SegmentSpans, m.SpanBytes)
	}
	if _, err := hex.Decode(id[:], []byte(m.Device)); err != nil {
		return m, id, fmt.Errorf("format.json: device: %w", err)
	}
	return m, id, nil
}
