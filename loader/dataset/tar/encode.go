package tar

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/stokerio/stoker/backend"
)

// What the index holds of a shard. Nothing in it refers to another shard, so that a
// journal and another index can hold it as it is. An index has one record a shard that
// has samples, in the order of their names, and three sections, which hold those of
// all shards one after another. Integers are little-endian or unsigned LEB128
// (uvarint).
//
//	record: name, version of the object that the members' offsets are of, and as the
//	        format's own data the description (see description.encode)
//
//	"groups": for every 16 samples (the last group of a shard may have fewer)
//	    CRC32C of the number of the group in the shard, as u32, and the rest   u32
//	    for each sample
//	        number of its shape                                                uvarint
//	        for each part, in the order of the archive
//	            blocks of 512 bytes between the padded end of the part before,
//	            at first the start of the archive, and the part's data         uvarint
//	            bytes                                                          uvarint
//	        but for a part that lies in the shard's expanded file
//	            bytes between the end of the expanded part before, at first the
//	            start of that file, and this one                               uvarint
//	            bytes                                                          uvarint
//
//	"keys": for the same groups
//	    CRC32C as above                                                        u32
//	    for each sample
//	        bytes that its key has in common with the one before in the group  uvarint
//	        bytes that follow                                                  uvarint
//	        those
//
//	"directory": for each group, and once more for their end
//	    where it begins in the shard's part of "groups"                        u32
//	    where it begins in the shard's part of "keys"                          u32
//
// A shape is a list of parts: samples that consist of the same parts in the same order
// share it. Samples of an image of 100 KB and a class take 7.9 bytes each, checksums
// and directory included, and their keys 4 more if they are numbers.
const (
	groupSamples   = 16
	groupCRCBytes  = 4
	directoryEntry = 8

	sectionGroups    = "groups"
	sectionKeys      = "keys"
	sectionDirectory = "directory"
)

// Limits of what is accepted, so that nothing that an archive or an index says leads
// to much memory.
const (
	maxShapes       = 4096      // of a shard
	maxShapeParts   = 1 << 14   // of all shapes of a shard
	maxDescription  = 1<<16 - 1 // bytes, as index records allow
	maxKeyBytes     = 1 << 16
	maxSection      = math.MaxUint32 // bytes of a shard's groups or keys: the directory has 32 bits
	maxGroupBytes   = groupCRCBytes + groupSamples*(MaxParts+1)*2*binary.MaxVarintLen64
	maxKeyGroup     = groupCRCBytes + groupSamples*(maxKeyBytes+2*binary.MaxVarintLen64)
	maxArchiveBytes = math.MaxInt64 - 1<<20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// located is a part of a sample and where it is.
type located struct {
	suffix   []byte
	offset   int64 // in the archive, a multiple of 512; or in the expanded file
	size     int64
	expanded bool
}

// shapePart is one part of a shape.
type shapePart struct {
	suffix   int // number of its name in the description
	expanded bool
}

// shape is what samples that consist of the same parts have in common.
type shape struct {
	parts   []shapePart
	samples int64
	bytes   []int64 // of each part, over all samples
}

// encoder makes a shard's bytes of the index, sample by sample.
type encoder struct {
	about     description
	groups    []byte
	keys      []byte
	directory []byte

	groupAt, keysAt int    // where the current group begins
	lastKey         []byte // in the current group
	at, expandedAt  int64  // in the current group: end of the part before

	last       int // number of the shape before, -1 for none
	suffixes   map[string]int
	shapes     map[string]int
	shapeParts int
	shapeKey   []byte // scratch
}

func newEncoder() *encoder { return new(encoder).renewed() }

// renewed returns an encoder for another shard, in the memory of e, which is used up
// like the blob that it finished.
func (e *encoder) renewed() *encoder {
	return &encoder{last: -1, suffixes: map[string]int{}, shapes: map[string]int{},
		groups: e.groups[:0], keys: e.keys[:0], directory: e.directory[:0], lastKey: e.lastKey[:0], shapeKey: e.shapeKey[:0]}
}

// errKinds is the error for a shard whose samples have nothing in common.
var errKinds = errors.New("the shard's samples are of too many kinds")

// add appends a sample. Its parts lie behind one another, those that are expanded
// among themselves.
func (e *encoder) add(key []byte, parts []located) error {
	if len(parts) > MaxParts {
		return fmt.Errorf("%w: sample %q has %d parts, at most %d", errKinds, shorten(key), len(parts), MaxParts)
	}
	number := e.last
	if !e.isShape(number, parts) { // most samples are like the one before
		var err error
		if number, err = e.shapeOf(parts); err != nil {
			return fmt.Errorf("sample %q: %w", shorten(key), err)
		}
		e.last = number
	}
	if e.about.samples%groupSamples == 0 {
		e.beginGroup()
	}
	s, sum := &e.about.shapes[number], int64(0)
	s.samples++
	e.groups = binary.AppendUvarint(e.groups, uint64(number))
	for i := range parts {
		p := &parts[i]
		gap, err := e.gap(p)
		if err != nil {
			return fmt.Errorf("sample %q, part %q: %w", shorten(key), shorten(p.suffix), err)
		}
		e.groups = binary.AppendUvarint(e.groups, gap)
		e.groups = binary.AppendUvarint(e.groups, uint64(p.size))
		s.bytes[i] += p.size
		sum += p.size
		info := &e.about.suffixes[s.parts[i].suffix]
		info.largest = max(info.largest, p.size)
	}
	e.about.largest = max(e.about.largest, sum)
	e.about.bytes += sum
	e.addKey(key)
	e.about.samples++
	if max(len(e.groups), len(e.keys)) > maxSection || e.about.bytes < 0 {
		return fmt.Errorf("the shard has too many samples to be indexed (%d)", e.about.samples)
	}
	return nil
}

// gap returns the distance of a part from the one before, and moves on behind it.
func (e *encoder) gap(p *located) (uint64, error) {
	if p.size < 0 || p.offset < 0 || p.offset > maxArchiveBytes-p.size {
		return 0, fmt.Errorf("%d bytes at %d are in no archive", p.size, p.offset)
	}
	if p.expanded {
		gap := p.offset - e.expandedAt
		e.expandedAt = p.offset + p.size
		if gap < 0 {
			return 0, fmt.Errorf("at %d of the expanded file, within the part before", p.offset)
		}
		return uint64(gap), nil
	}
	gap := p.offset - e.at
	if gap < 0 || gap%blockBytes != 0 {
		return 0, fmt.Errorf("at %d, which is not behind the end of the part before at %d by whole blocks", p.offset, e.at)
	}
	e.at = p.offset + padded(p.size)
	return uint64(gap / blockBytes), nil
}

// isShape reports whether a sample's parts are of a shape, none if it is negative.
func (e *encoder) isShape(number int, parts []located) bool {
	if number < 0 || len(e.about.shapes[number].parts) != len(parts) {
		return false
	}
	for i, p := range e.about.shapes[number].parts {
		if p.expanded != parts[i].expanded || e.about.suffixes[p.suffix].name != string(parts[i].suffix) {
			return false
		}
	}
	return true
}

// shapeOf returns the number of the shape of a sample's parts.
func (e *encoder) shapeOf(parts []located) (int, error) {
	b := e.shapeKey[:0]
	for i := range parts {
		p := &parts[i]
		number, known := e.suffixes[string(p.suffix)]
		if !known {
			number = len(e.about.suffixes)
			e.suffixes[string(p.suffix)] = number
			e.about.suffixes = append(e.about.suffixes, suffix{name: string(p.suffix)})
		}
		b = binary.AppendUvarint(b, partCode(shapePart{number, p.expanded}))
	}
	e.shapeKey = b
	if number, known := e.shapes[string(b)]; known {
		return number, nil
	}
	number := len(e.about.shapes)
	if e.shapeParts += len(parts); number == maxShapes || e.shapeParts > maxShapeParts {
		return 0, fmt.Errorf("%w: %d different lists of parts before it, %d parts in them", errKinds, number, e.shapeParts)
	}
	s := shape{parts: make([]shapePart, len(parts)), bytes: make([]int64, len(parts))}
	for i := range parts {
		s.parts[i] = shapePart{e.suffixes[string(parts[i].suffix)], parts[i].expanded}
	}
	e.shapes[string(b)] = number
	e.about.shapes = append(e.about.shapes, s)
	return number, nil
}

// partCode is how a part of a shape is written.
func partCode(p shapePart) uint64 {
	code := uint64(p.suffix) << 1
	if p.expanded {
		code |= 1
	}
	return code
}

// beginGroup ends the group before and begins the next.
func (e *encoder) beginGroup() {
	e.endGroup()
	e.groupAt, e.keysAt = len(e.groups), len(e.keys)
	e.directory = binary.LittleEndian.AppendUint32(e.directory, uint32(e.groupAt))
	e.directory = binary.LittleEndian.AppendUint32(e.directory, uint32(e.keysAt))
	e.groups = append(e.groups, 0, 0, 0, 0)
	e.keys = append(e.keys, 0, 0, 0, 0)
	e.lastKey, e.at, e.expandedAt = e.lastKey[:0], 0, 0
}

// endGroup fills in the checksums of the current group.
func (e *encoder) endGroup() {
	if len(e.directory) == 0 {
		return
	}
	number := uint32(len(e.directory)/directoryEntry - 1)
	binary.LittleEndian.PutUint32(e.groups[e.groupAt:], groupCRC(number, e.groups[e.groupAt+groupCRCBytes:]))
	binary.LittleEndian.PutUint32(e.keys[e.keysAt:], groupCRC(number, e.keys[e.keysAt+groupCRCBytes:]))
}

// groupCRC is the checksum of a group. That it covers the number as well shows a
// directory that leads to another group.
func groupCRC(number uint32, b []byte) uint32 {
	return crc32.Update(number, castagnoli, b)
}

// addKey appends a key to the current group.
func (e *encoder) addKey(key []byte) {
	common := 0
	for common < min(len(key), len(e.lastKey)) && key[common] == e.lastKey[common] {
		common++
	}
	e.keys = binary.AppendUvarint(e.keys, uint64(common))
	e.keys = binary.AppendUvarint(e.keys, uint64(len(key)-common))
	e.keys = append(e.keys, key[common:]...)
	e.lastKey = append(e.lastKey[:0], key...)
}

// blob is a finished shard.
type blob struct {
	about       description
	description []byte // about, encoded
	groups      []byte
	keys        []byte
	directory   []byte
}

// finish ends the shard. The encoder is used up.
func (e *encoder) finish() (*blob, error) {
	e.endGroup()
	e.directory = binary.LittleEndian.AppendUint32(e.directory, uint32(len(e.groups)))
	e.directory = binary.LittleEndian.AppendUint32(e.directory, uint32(len(e.keys)))
	e.about.groupBytes, e.about.keyBytes = int64(len(e.groups)), int64(len(e.keys))
	encoded := e.about.encode(nil)
	if len(encoded) > maxDescription {
		return nil, fmt.Errorf("%w: %d names of parts, %d lists of them", errKinds, len(e.about.suffixes), len(e.about.shapes))
	}
	return &blob{about: e.about, description: encoded, groups: e.groups, keys: e.keys, directory: e.directory}, nil
}

// description is what the index says of a whole shard.
type description struct {
	samples    int64
	groupBytes int64
	keyBytes   int64
	bytes      int64 // of all parts of all samples
	largest    int64 // bytes of the largest sample

	archive string // how the shard is stored: "tar", "gzip", ...
	beside  string // what came of an index beside the shard; "" if there is none
	skipped []skip // samples left out

	// source is the version of the shard itself, without its device: what a later scan
	// compares. sidecar is that of the index beside it, zero if there is none.
	source  backend.Version
	sidecar backend.Version
	// unpacked is the version of the file that holds a compressed shard in seekable
	// form, expanded that of the one that holds the shard's sparse members; without a
	// tag there is none.
	unpacked backend.Version
	expanded backend.Version

	suffixes []suffix
	shapes   []shape
}

// suffix is the name of a part.
type suffix struct {
	name    string
	largest int64 // bytes
}

// skip counts samples that were left out for one reason.
type skip struct {
	reason string
	count  int64
}

// groupCount is the number of groups.
func (d *description) groupCount() int64 { return (d.samples + groupSamples - 1) / groupSamples }

// directoryBytes is the size of the shard's part of the directory.
func (d *description) directoryBytes() int64 { return (d.groupCount() + 1) * directoryEntry }

// encode appends the description: its fields in the order below, numbers as uvarint,
// strings and lists after their lengths.
func (d *description) encode(b []byte) []byte {
	for _, n := range []int64{d.samples, d.groupBytes, d.keyBytes, d.bytes, d.largest} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	b = appendText(appendText(b, d.archive), d.beside)
	b = binary.AppendUvarint(b, uint64(len(d.skipped)))
	for _, s := range d.skipped {
		b = binary.AppendUvarint(appendText(b, s.reason), uint64(s.count))
	}
	for _, v := range []*backend.Version{&d.source, &d.sidecar, &d.unpacked, &d.expanded} {
		b = binary.AppendUvarint(b, v.Inode)
		b = binary.AppendUvarint(b, uint64(v.Size))
		b = binary.AppendVarint(b, v.ModifiedNs)
		b = binary.AppendVarint(b, v.ChangedNs)
		b = appendText(b, v.Tag)
	}
	b = binary.AppendUvarint(b, uint64(len(d.suffixes)))
	for _, s := range d.suffixes {
		b = binary.AppendUvarint(appendText(b, s.name), uint64(s.largest))
	}
	b = binary.AppendUvarint(b, uint64(len(d.shapes)))
	for i := range d.shapes {
		b = d.shapes[i].encodeParts(b)
	}
	for i := range d.shapes {
		b = binary.AppendUvarint(b, uint64(d.shapes[i].samples))
		for _, n := range d.shapes[i].bytes {
			b = binary.AppendUvarint(b, uint64(n))
		}
	}
	return b
}

func (s *shape) encodeParts(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(s.parts)))
	for _, p := range s.parts {
		b = binary.AppendUvarint(b, partCode(p))
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// shorten makes a name from an archive fit an error message.
func shorten(name []byte) []byte {
	if len(name) > 200 {
		return name[:200]
	}
	return name
}
