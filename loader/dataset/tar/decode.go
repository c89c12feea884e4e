package tar

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/stokerio/stoker/backend"
)

// errIndex is the cause of errors of what an index says about a shard; callers add
// which one.
var errIndex = errors.New("it says what cannot be")

// fields reads numbers and strings of hostile bytes. Once one is not there, all that
// follow are zero and bad is true.
type fields struct {
	b   []byte
	bad bool
}

// number returns the next uvarint, at most limit.
func (f *fields) number(limit int64) int64 {
	n, size := binary.Uvarint(f.b)
	if size <= 0 || limit < 0 || n > uint64(limit) {
		f.fail()
		return 0
	}
	f.b = f.b[size:]
	return int64(n)
}

// unsigned returns the next uvarint.
func (f *fields) unsigned() uint64 {
	n, size := binary.Uvarint(f.b)
	if size <= 0 {
		f.fail()
		return 0
	}
	f.b = f.b[size:]
	return n
}

// signed returns the next varint.
func (f *fields) signed() int64 {
	n, size := binary.Varint(f.b)
	if size <= 0 {
		f.fail()
		return 0
	}
	f.b = f.b[size:]
	return n
}

// count returns the length of a list whose items take at least a byte each, of which
// there are enough.
func (f *fields) count() int {
	n := f.number(math.MaxInt64)
	if n > int64(len(f.b)) {
		f.fail()
		return 0
	}
	return int(n)
}

// text returns the next string.
func (f *fields) text() string {
	n := f.count()
	s := string(f.b[:n])
	f.b = f.b[n:]
	return s
}

func (f *fields) fail() { f.b, f.bad = nil, true }

// decodeDescription reads what an index says of a shard. What it returns is possible
// in itself; whether it fits the index and the shard is for the caller.
func decodeDescription(b []byte) (*description, error) {
	f := fields{b: b}
	d := &description{
		samples: f.number(math.MaxInt64 / groupSamples), groupBytes: f.number(maxSection), keyBytes: f.number(maxSection),
		bytes: f.number(math.MaxInt64), largest: f.number(math.MaxInt64), archive: f.text(), beside: f.text(),
	}
	for range f.count() {
		d.skipped = append(d.skipped, skip{f.text(), f.number(math.MaxInt64)})
	}
	for _, v := range []*backend.Version{&d.source, &d.sidecar, &d.unpacked, &d.expanded} {
		*v = backend.Version{Inode: f.unsigned(), Size: f.number(math.MaxInt64), ModifiedNs: f.signed(), ChangedNs: f.signed(), Tag: f.text()}
	}
	for range f.count() {
		d.suffixes = append(d.suffixes, suffix{f.text(), f.number(math.MaxInt64)})
	}
	f.shapes(d)
	if f.bad || len(f.b) > 0 {
		return nil, fmt.Errorf("%w: description of %d bytes is cut short or too long", errIndex, len(b))
	}
	return d, d.check()
}

// shapes reads the shapes.
func (f *fields) shapes(d *description) {
	d.shapes = make([]shape, f.count())
	for i := range d.shapes {
		parts := make([]shapePart, f.count())
		for k := range parts {
			code := f.number(int64(len(d.suffixes))*2 - 1)
			parts[k] = shapePart{int(code >> 1), code&1 == 1}
		}
		d.shapes[i] = shape{parts: parts, bytes: make([]int64, len(parts))}
	}
	for i := range d.shapes {
		s := &d.shapes[i]
		s.samples = f.number(math.MaxInt64)
		for k := range s.bytes {
			s.bytes[k] = f.number(math.MaxInt64)
		}
	}
}

// check holds the sums of a description against its parts.
func (d *description) check() error {
	samples, bytes := int64(0), int64(0)
	for i := range d.shapes {
		s := &d.shapes[i]
		if len(s.parts) == 0 || len(s.parts) > MaxParts {
			return fmt.Errorf("%w: a sample of %d parts", errIndex, len(s.parts))
		}
		if s.samples > d.samples-samples {
			return fmt.Errorf("%w: %d samples of shape %d and %d before, %d in all", errIndex, s.samples, i, samples, d.samples)
		}
		samples += s.samples
		for k, p := range s.parts {
			if s.bytes[k] > d.bytes-bytes {
				return fmt.Errorf("%w: parts of more than %d bytes", errIndex, d.bytes)
			}
			bytes += s.bytes[k]
			if p.expanded && d.expanded.Tag == "" {
				return fmt.Errorf("%w: an expanded part, but no file of them", errIndex)
			}
		}
	}
	if samples != d.samples || bytes != d.bytes || d.largest > d.bytes {
		return fmt.Errorf("%w: %d samples of %d bytes, the largest of %d; its shapes add up to %d of %d", errIndex,
			d.samples, d.bytes, d.largest, samples, bytes)
	}
	return nil
}

// groupReader reads a group's samples one after another.
type groupReader struct {
	b        []byte
	i        int    // in b
	at       uint64 // blocks: padded end of the part before
	expanded uint64 // bytes: end of the expanded part before
}

// uvarint reads a number; false if there is none. Most take one byte, and then no call.
func (g *groupReader) uvarint() (n uint64, ok bool) {
	if i := g.i; i < len(g.b) && g.b[i] < 0x80 {
		g.i++
		return uint64(g.b[i]), true
	}
	return g.long()
}

// long reads a number of any length.
func (g *groupReader) long() (n uint64, ok bool) {
	b := g.b[g.i:]
	if len(b) > 2 { // most of the others are sizes of up to 2 MiB
		if b[1] < 0x80 {
			g.i += 2
			return uint64(b[0]&0x7f) | uint64(b[1])<<7, true
		}
		if b[2] < 0x80 {
			g.i += 3
			return uint64(b[0]&0x7f) | uint64(b[1]&0x7f)<<7 | uint64(b[2])<<14, true
		}
	}
	n, size := binary.Uvarint(b)
	if size <= 0 {
		return 0, false
	}
	g.i += size
	return n, true
}

// part reads where the next part is. It is false for what no archive can hold.
func (g *groupReader) part(expanded bool) (offset, size int64, ok bool) {
	gap, ok1 := g.uvarint()
	length, ok2 := g.uvarint()
	if !ok1 || !ok2 || length > maxArchiveBytes || gap > maxArchiveBytes {
		return 0, 0, false
	}
	if expanded {
		start := g.expanded + gap
		g.expanded = start + length
		return int64(start), int64(length), g.expanded <= maxArchiveBytes
	}
	const limit = maxArchiveBytes / blockBytes
	start := g.at + gap
	g.at = start + (length+blockBytes-1)/blockBytes
	return int64(start * blockBytes), int64(length), start <= limit && g.at <= limit
}

// checkGroup returns the content of a group whose checksum is right.
func checkGroup(b []byte, number uint32) ([]byte, error) {
	if len(b) < groupCRCBytes {
		return nil, fmt.Errorf("%w: group %d has %d bytes", errIndex, number, len(b))
	}
	content := b[groupCRCBytes:]
	if got, want := groupCRC(number, content), binary.LittleEndian.Uint32(b); got != want {
		return nil, fmt.Errorf("%w: group %d has CRC32C %08x, expected %08x", errIndex, number, got, want)
	}
	return content, nil
}

// keyReader reads a group's keys one after another.
type keyReader struct {
	fields
	key []byte // the one read last, storage of the reader
}

// next returns the next key, valid until the next call.
func (k *keyReader) next() ([]byte, error) {
	common, rest := k.number(int64(len(k.key))), k.count()
	if k.bad {
		return nil, fmt.Errorf("%w: a key is cut short", errIndex)
	}
	k.key = append(k.key[:common], k.b[:rest]...)
	k.b = k.b[rest:]
	return k.key, nil
}

// each visits the samples of a shard in order; what visit is given is borrowed.
func (b *blob) each(visit func(key []byte, parts []located) error) error {
	le := binary.LittleEndian
	var parts []located
	for number := range int(b.about.groupCount()) {
		entry := b.directory[number*directoryEntry:]
		g := groupReader{b: b.groups[le.Uint32(entry)+groupCRCBytes : le.Uint32(entry[8:])]}
		keys := keyReader{fields: fields{b: b.keys[le.Uint32(entry[4:])+groupCRCBytes : le.Uint32(entry[12:])]}}
		for range min(groupSamples, int(b.about.samples)-number*groupSamples) {
			n, _ := g.uvarint()
			parts = parts[:0]
			for _, p := range b.about.shapes[n].parts {
				offset, size, _ := g.part(p.expanded)
				parts = append(parts, located{[]byte(b.about.suffixes[p.suffix].name), offset, size, p.expanded})
			}
			key, err := keys.next()
			if err != nil {
				return err
			}
			if err := visit(key, parts); err != nil {
				return err
			}
		}
	}
	return nil
}
