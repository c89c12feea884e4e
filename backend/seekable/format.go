package seekable

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// The seek table, as zstd's contrib/seekable_format describes it; little-endian:
//
//	┌───────────────┬──────────────┬───────────────────────────────────────────────┐
//	│ magic         │ size of rest │ for each frame                                │
//	│ 5E 2A 4D 18   │ u32          │ u32 compressed, u32 decompressed, u32 XXH64   │ ...
//	├───────────────┼──────────────┼───────────────────────────────────────────────┤
//	│ u32 frames    │ u8 0x80      │ magic B1 EA 92 8F                             │ the footer
//	└───────────────┴──────────────┴───────────────────────────────────────────────┘
//
// 0x80 in the footer says that the third field is there.
const (
	tableMagic     = 0x184D2A5E
	footerMagic    = 0x8F92EAB1
	skippableBytes = 8 // magic and size
	entryBytes     = 12
	footerBytes    = 9
	withChecksums  = 0x80
	reservedBits   = 0x7C

	// maxEntries is MaxBytes in frames of FrameBytes, and the description.
	maxEntries = MaxBytes/FrameBytes + 1
)

// maxCompressed is the most that a frame may take: one block that could not be
// compressed for each 128 KiB, with the frame's header and checksum (RFC 8878).
const maxCompressed = FrameBytes + 3*(FrameBytes/(128<<10)+1) + 18 + 4

// table says where the frames of a file lie.
type table struct {
	bytes       int64    // decompressed, all frames
	frameBytes  int64    // decompressed, every frame but the last; > 0
	offsets     []int64  // frame i is bytes [offsets[i], offsets[i+1]) of the file
	checksums   []uint32 // of frame i's content
	description int64    // bytes of the description, which follows the frames
}

func (t *table) frames() int64 { return int64(len(t.checksums)) }

// length returns what frame i decompresses to.
func (t *table) length(i int64) int64 { return min(t.frameBytes, t.bytes-i*t.frameBytes) }

// memory returns the bytes that the table holds.
func (t *table) memory() int64 { return int64(8*cap(t.offsets) + 4*cap(t.checksums)) }

// parseFooter returns how many entries the seek table of a file of size bytes has.
// footer is its last footerBytes.
func parseFooter(footer []byte, size int64) (entries int64, complaint string) {
	if binary.LittleEndian.Uint32(footer[5:]) != footerMagic {
		return 0, "it does not end in a seek table: it is cut off or of another format"
	}
	entries = int64(binary.LittleEndian.Uint32(footer))
	switch flags := footer[4]; {
	case flags&reservedBits != 0:
		return 0, fmt.Sprintf("the seek table's flags are %#x, with bits that have no meaning", flags)
	case flags&withChecksums == 0:
		return 0, "the seek table has no checksums"
	case entries > maxEntries:
		return 0, fmt.Sprintf("the seek table has %d entries, expected at most %d", entries, maxEntries)
	case tableBytes(entries) > size:
		return 0, fmt.Sprintf("a seek table of %d entries does not fit a file of %d bytes", entries, size)
	}
	return entries, ""
}

// tableBytes is the size of a seek table with its frame.
func tableBytes(entries int64) int64 { return skippableBytes + entries*entryBytes + footerBytes }

// parse makes t what the seek table b of a file of size bytes says, reusing t's
// memory. len(b) = tableBytes(entries) for the entries of parseFooter.
func (t *table) parse(b []byte, size int64) (complaint string) {
	if binary.LittleEndian.Uint32(b) != tableMagic || int64(binary.LittleEndian.Uint32(b[4:])) != int64(len(b)-skippableBytes) {
		return "the seek table does not begin where its length says"
	}
	entries := b[skippableBytes : len(b)-footerBytes]
	*t = table{frameBytes: FrameBytes, offsets: t.offsets[:0], checksums: t.checksums[:0]}
	t.offsets = slices.Grow(t.offsets, len(entries)/entryBytes+1)
	t.checksums = slices.Grow(t.checksums, len(entries)/entryBytes)
	at, last := int64(0), false
	for i := int64(0); len(entries) > 0; i, entries = i+1, entries[entryBytes:] {
		compressed, length := int64(binary.LittleEndian.Uint32(entries)), int64(binary.LittleEndian.Uint32(entries[4:]))
		switch {
		case length == 0 && len(entries) == entryBytes:
			t.description = compressed
			continue
		case length == 0 || length > FrameBytes || compressed == 0 || compressed > maxCompressed:
			return fmt.Sprintf("frame %d takes %d bytes for %d; frames hold 1 to %d bytes", i, compressed, length, FrameBytes)
		case i == 0:
			t.frameBytes = length
		case last || length > t.frameBytes:
			return fmt.Sprintf("frame %d holds %d bytes, expected %d as in all frames but the last", i, length, t.frameBytes)
		}
		last = length < t.frameBytes
		t.offsets = append(t.offsets, at)
		t.checksums = append(t.checksums, binary.LittleEndian.Uint32(entries[8:]))
		at += compressed
		t.bytes += length
	}
	t.offsets = append(t.offsets, at)
	if end := at + t.description + int64(len(b)); end != size {
		return fmt.Sprintf("the seek table accounts for %d bytes of a file of %d", end, size)
	}
	return ""
}

// appendTable appends the seek table of frames whose entries have been encoded.
func appendTable(b, entries []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, tableMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(entries)+footerBytes))
	b = append(b, entries...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(entries)/entryBytes))
	b = append(b, withChecksums)
	return binary.LittleEndian.AppendUint32(b, footerMagic)
}

func appendEntry(b []byte, compressed, length int, checksum uint32) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(compressed))
	b = binary.LittleEndian.AppendUint32(b, uint32(length))
	return binary.LittleEndian.AppendUint32(b, checksum)
}

// description names the object that a file holds. It is a skippable frame, the last
// entry of the seek table, decompresses to nothing, and lets a Store list what its
// directory holds:
//
//	┌─────────────┬──────────────┬───────────────┬────────────┬────────┬──────────┬──────┐
//	│ 50 2A 4D 18 │ size of rest │ "stokobj\x01" │ u32 origin │ origin │ u32 name │ name │
//	└─────────────┴──────────────┴───────────────┴────────────┴────────┴──────────┴──────┘
type description struct{ origin, name []byte }

const (
	descriptionMagic = 0x184D2A50
	descriptionMark  = "stokobj\x01"
	maxDescription   = 16 << 10
	// checksumOfNothing is the low half of XXH64 of no bytes.
	checksumOfNothing = 0x51D8E999
)

func (d *description) append(b []byte) []byte {
	rest := len(descriptionMark) + 8 + len(d.origin) + len(d.name)
	b = binary.LittleEndian.AppendUint32(b, descriptionMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(rest))
	b = append(b, descriptionMark...)
	for _, field := range [][]byte{d.origin, d.name} {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(field)))
		b = append(b, field...)
	}
	return b
}

// parse reads what append wrote; d's fields are borrowed from b.
func (d *description) parse(b []byte) bool {
	start := skippableBytes + len(descriptionMark)
	if len(b) < start || binary.LittleEndian.Uint32(b) != descriptionMagic ||
		int64(binary.LittleEndian.Uint32(b[4:])) != int64(len(b)-skippableBytes) ||
		string(b[skippableBytes:start]) != descriptionMark {
		return false
	}
	b = b[start:]
	for _, field := range []*[]byte{&d.origin, &d.name} {
		if len(b) < 4 || int64(binary.LittleEndian.Uint32(b)) > int64(len(b)-4) {
			return false
		}
		n := 4 + int(binary.LittleEndian.Uint32(b))
		*field, b = b[4:n:n], b[n:]
	}
	return len(b) == 0
}
