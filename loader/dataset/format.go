package dataset

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"

	"github.com/stokerio/stoker/backend"
)

// The index file, version 1. All integers are little-endian.
//
//	+--------------------------------------------------------------------+
//	| header, 4096 bytes                                                 |
//	|  0  magic "STOKRIDX"                 8                             |
//	|  8  version                          u32                           |
//	| 12  header bytes (4096)              u32                           |
//	| 16  records N                        u64                           |
//	| 24  start of the offset table        u64 = 4096                    |
//	| 32  start of the records             u64 = 4096 + 8·(N+1)          |
//	| 40  start of the metadata            u64 = end of the records      |
//	| 48  bytes of the metadata            u64                           |
//	| 56  CRC32C of the metadata           u32                           |
//	| 60  zero                             u32                           |
//	| 64  id                               16                            |
//	| 80  zero ...                                                       |
//	| 4092  CRC32C of bytes [0, 4092)      u32                           |
//	+--------------------------------------------------------------------+
//	| offset table: u64[N+1]; record i is the file's bytes               |
//	|   [table[i], table[i+1])                                           |
//	+--------------------------------------------------------------------+
//	| records 0 .. N-1, each of (see Record)                             |
//	|  0  CRC32C of bytes [4, end of the record)                         |
//	|                                      u32                           |
//	|  4  bytes of the name                u16                           |
//	|  6  bytes of the tag                 u16                           |
//	|  8  bytes of the format's own data   u16                           |
//	| 10  zero                             u16                           |
//	| 12  label                            i32                           |
//	| 16  number of the record             u64                           |
//	| 24  device                           u64                           |
//	| 32  inode                            u64                           |
//	| 40  size                             i64                           |
//	| 48  mtime, ns                        i64                           |
//	| 56  ctime, ns                        i64                           |
//	| 64  name, tag, the format's own data                               |
//	+--------------------------------------------------------------------+
//	| sections, one after another: bytes whose layout is the format's    |
//	|   own; Meta.Sections names them and says where each lies. An index |
//	|   of a format that has none goes from the records to the metadata  |
//	+--------------------------------------------------------------------+
//	| metadata: JSON of Meta, to the end of the file                     |
//	+--------------------------------------------------------------------+
//
// The table has no checksum of its own: a wrong offset leads to bytes that do not
// check or to a record of another number. Neither have the sections: a format puts
// checksums where it reads, and Index.Verify covers all of them.
//
// The id is the start of BLAKE3 over the records, each without its CRC and device,
// the sections, and the metadata without origin. The device is left out because one file system
// has another number on the next node and after the next start.
const (
	indexVersion     = 1
	headerBytes      = 4096
	headerCRCOffset  = headerBytes - 4
	recordFixedBytes = 64
	recordHashOffset = 4                              // the id leaves out the CRC before it
	recordDevice     = 24                             // and 8 bytes here
	maxRecordBytes   = recordFixedBytes + 3*(1<<16-1) // three lengths of 16 bits
	maxMetaBytes     = 64 << 20                       // a damaged length must not be allocated
	maxRecords       = (1<<62 - headerBytes) / 8 / 64 // keeps all sums of sizes within int64
	maxSections      = 16
	idBytes          = 16       // of a BLAKE3 digest: no collision below 2^64 indexes
	smallIndexBytes  = 4 << 20  // an index up to this size is read whole when it is opened
	indexSuffix      = ".idx"   // of an index file's name
	temporaryPrefix  = ".scan-" // of what a scan has not finished
)

var indexMagic = [8]byte{'S', 'T', 'O', 'K', 'R', 'I', 'D', 'X'}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Meta is the metadata of an index.
type Meta struct {
	Info   Info   `json:"info"`
	Origin string `json:"origin"` // backend.Object.Origin of all records

	MaxBytes int64 `json:"max_bytes"` // source bytes of the largest record

	// Options are those of the scan, as its format wrote them.
	Options json.RawMessage `json:"options,omitempty"`

	// Sections is where the format's own bytes lie; Writer.Commit fills it in.
	Sections []Section `json:"sections,omitempty"`
}

// Section is a named run of an index file's bytes, of the format's own layout.
type Section struct {
	Name   string `json:"name"`
	Offset int64  `json:"offset"` // from the start of the file
	Bytes  int64  `json:"bytes"`
}

// checkSections holds the table of sections against a header: they lie between the
// records and the metadata without a gap.
func checkSections(sections []Section, h *header) error {
	if len(sections) > maxSections {
		return fmt.Errorf("%d sections, at most %d", len(sections), maxSections)
	}
	if len(sections) == 0 {
		return nil
	}
	end := sections[0].Offset
	if end < h.start+h.records*recordFixedBytes || end > h.metaStart {
		return fmt.Errorf("section %q begins at %d, not between %d records from %d and the metadata at %d",
			sections[0].Name, end, h.records, h.start, h.metaStart)
	}
	for i, s := range sections {
		if s.Offset != end || s.Bytes < 0 || s.Bytes > h.metaStart-end {
			return fmt.Errorf("section %q lies at %d, %d bytes; it should begin at %d and end by %d", s.Name, s.Offset, s.Bytes, end, h.metaStart)
		}
		end += s.Bytes
		for _, before := range sections[:i] {
			if before.Name == s.Name {
				return fmt.Errorf("two sections %q", s.Name)
			}
		}
	}
	if end != h.metaStart {
		return fmt.Errorf("sections end at %d, the metadata begins at %d", end, h.metaStart)
	}
	return nil
}

// header is a decoded header.
type header struct {
	records   int64
	start     int64 // of the records
	metaStart int64
	metaBytes int64
	metaCRC   uint32
	id        [idBytes]byte
}

// encode returns the header's page.
func (h *header) encode() []byte {
	b := make([]byte, headerBytes)
	copy(b, indexMagic[:])
	le := binary.LittleEndian
	le.PutUint32(b[8:], indexVersion)
	le.PutUint32(b[12:], headerBytes)
	le.PutUint64(b[16:], uint64(h.records))
	le.PutUint64(b[24:], headerBytes)
	le.PutUint64(b[32:], uint64(h.start))
	le.PutUint64(b[40:], uint64(h.metaStart))
	le.PutUint64(b[48:], uint64(h.metaBytes))
	le.PutUint32(b[56:], h.metaCRC)
	copy(b[64:], h.id[:])
	le.PutUint32(b[headerCRCOffset:], crc32.Checksum(b[:headerCRCOffset], castagnoli))
	return b
}

// decodeHeader checks a header's page against the size of its file.
func decodeHeader(b []byte, fileBytes int64) (header, error) {
	le := binary.LittleEndian
	if [8]byte(b[:8]) != indexMagic {
		return header{}, fmt.Errorf("no index file: it begins with %q, want %q", b[:8], indexMagic[:])
	}
	if got, want := crc32.Checksum(b[:headerCRCOffset], castagnoli), le.Uint32(b[headerCRCOffset:]); got != want {
		return header{}, fmt.Errorf("header has CRC32C %08x, expected %08x", got, want)
	}
	if v := le.Uint32(b[8:]); v != indexVersion {
		return header{}, fmt.Errorf("index of version %d, this release reads version %d: add the dataset again", v, indexVersion)
	}
	h := header{metaCRC: le.Uint32(b[56:]), id: [idBytes]byte(b[64:])}
	records, start, metaStart, metaBytes := le.Uint64(b[16:]), le.Uint64(b[32:]), le.Uint64(b[40:]), le.Uint64(b[48:])
	switch size := uint64(fileBytes); {
	case le.Uint32(b[12:]) != headerBytes || le.Uint64(b[24:]) != headerBytes || records > maxRecords,
		start != headerBytes+8*(records+1), metaStart < start || metaStart > size,
		metaStart-start < records*recordFixedBytes, metaBytes > maxMetaBytes:
		return header{}, fmt.Errorf("header describes no possible file (%d records from %d, %d bytes of metadata from %d)",
			records, start, metaBytes, metaStart)
	case metaStart+metaBytes != size:
		return header{}, fmt.Errorf("file has %d bytes, its header says %d", size, metaStart+metaBytes)
	}
	h.records, h.start, h.metaStart, h.metaBytes = int64(records), int64(start), int64(metaStart), int64(metaBytes)
	return h, nil
}

// Record is what an index holds of one object. Its slices are borrowed from whoever
// decoded it.
type Record struct {
	Name    []byte // slash-separated, relative to the origin's root
	Version backend.Version
	Label   int32  // raw: class number, -1 for none
	Extra   []byte // the format's own data
}

// appendRecord appends the encoding of a record. Names and tags come from an origin
// and may be too long, which is an error.
func appendRecord(b []byte, number int64, r *Record) ([]byte, error) {
	const limit = 1<<16 - 1
	if len(r.Name) > limit || len(r.Version.Tag) > limit || len(r.Extra) > limit {
		return b, refused(fmt.Sprintf("%.80s...", r.Name), fmt.Sprintf("name of %d, tag of %d, data of %d bytes: an index holds at most %d each",
			len(r.Name), len(r.Version.Tag), len(r.Extra), limit), "give the file a shorter path")
	}
	at, le := len(b), binary.LittleEndian
	b = le.AppendUint32(b, 0)
	b = le.AppendUint16(b, uint16(len(r.Name)))
	b = le.AppendUint16(b, uint16(len(r.Version.Tag)))
	b = le.AppendUint16(b, uint16(len(r.Extra)))
	b = le.AppendUint16(b, 0)
	b = le.AppendUint32(b, uint32(r.Label))
	b = le.AppendUint64(b, uint64(number))
	b = le.AppendUint64(b, r.Version.Device)
	b = le.AppendUint64(b, r.Version.Inode)
	b = le.AppendUint64(b, uint64(r.Version.Size))
	b = le.AppendUint64(b, uint64(r.Version.ModifiedNs))
	b = le.AppendUint64(b, uint64(r.Version.ChangedNs))
	b = append(b, r.Name...)
	b = append(b, r.Version.Tag...)
	b = append(b, r.Extra...)
	le.PutUint32(b[at:], crc32.Checksum(b[at+4:], castagnoli))
	return b, nil
}

// decodeRecord checks and decodes a record. The result borrows b.
func decodeRecord(b []byte, number int64) (Record, error) {
	le := binary.LittleEndian
	if len(b) < recordFixedBytes {
		return Record{}, fmt.Errorf("%d bytes, need at least %d", len(b), recordFixedBytes)
	}
	if got, want := crc32.Checksum(b[4:], castagnoli), le.Uint32(b); got != want {
		return Record{}, fmt.Errorf("CRC32C %08x, expected %08x", got, want)
	}
	if got := le.Uint64(b[16:]); got != uint64(number) {
		return Record{}, fmt.Errorf("record of number %d", got)
	}
	name, tag, extra := int(le.Uint16(b[4:])), int(le.Uint16(b[6:])), int(le.Uint16(b[8:]))
	if recordFixedBytes+name+tag+extra != len(b) {
		return Record{}, fmt.Errorf("%d bytes, its fields need %d", len(b), recordFixedBytes+name+tag+extra)
	}
	rest := b[recordFixedBytes:]
	r := Record{
		Name:  rest[:name:name],
		Label: int32(le.Uint32(b[12:])),
		Extra: rest[name+tag:],
		Version: backend.Version{
			Device:     le.Uint64(b[24:]),
			Inode:      le.Uint64(b[32:]),
			Size:       int64(le.Uint64(b[40:])),
			ModifiedNs: int64(le.Uint64(b[48:])),
			ChangedNs:  int64(le.Uint64(b[56:])),
		},
	}
	if tag > 0 {
		r.Version.Tag = string(rest[name : name+tag]) // local files have none
	}
	if r.Version.Size < 0 {
		return Record{}, fmt.Errorf("%q has size %d", r.Name, r.Version.Size)
	}
	return r, nil
}

// idString is the form in which people and protocols see an id.
func idString(id [idBytes]byte) string { return hex.EncodeToString(id[:]) }
