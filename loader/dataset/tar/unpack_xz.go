package tar

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"strings"

	"github.com/ulikunitz/xz/lzma"
)

// The xz container (The .xz File Format 1.2.0): streams, with zeros in multiples of
// four bytes between and behind them, each of
//
//	┌───────────────┬───────┬───────┬───┬───────┬───────────────┐
//	│ header, 12 B  │ block │ block │...│ index │ footer, 12 B  │
//	└───────────────┴───────┴───────┴───┴───────┴───────────────┘
//
// The container is read here, and only LZMA2 by a library: the library's own reader of
// it allocates whatever dictionary a file asks for, up to 4 GiB, and keeps a record of
// every block in memory. Here the dictionary is bounded and the records are compared
// by their hash.
const (
	xzMagic      = "\xfd7zXZ\x00"
	xzFooter     = "YZ"
	xzFilterLZMA = 0x21
)

var errXZ = errors.New("damaged container")

func xzDamaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errXZ, fmt.Sprintf(format, args...))
}

// xzStream reads the streams of an xz file one after another.
type xzStream struct {
	from    *bufio.Reader
	flags   [2]byte // of the stream
	inside  bool    // a stream
	started bool    // the first stream
	block   *xzBlock
	records xzRecords // of the stream's blocks
}

// xzRecords sums up what an index says of blocks.
type xzRecords struct {
	count uint64
	hash  hash.Hash
}

func (r *xzRecords) reset() { *r = xzRecords{hash: sha256.New()} }

func (r *xzRecords) add(unpadded, uncompressed uint64) {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], unpadded)
	binary.LittleEndian.PutUint64(b[8:], uncompressed)
	r.hash.Write(b[:])
	r.count++
}

// Read implements io.Reader.
func (x *xzStream) Read(p []byte) (int, error) {
	for {
		if x.block == nil {
			if err := x.next(); err != nil {
				return 0, err
			}
			continue
		}
		n, err := x.block.read(p)
		if err == io.EOF {
			x.records.add(x.block.unpadded(), x.block.uncompressed)
			x.block, err = nil, nil
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

// next begins a stream or a block, or ends a stream.
func (x *xzStream) next() error {
	if !x.inside {
		return x.begin()
	}
	first, err := x.from.ReadByte()
	if err != nil {
		return cutShort(err)
	}
	if first == 0 {
		x.inside = false
		return x.end()
	}
	x.block, err = newXZBlock(x.from, first, x.flags[1])
	return err
}

// begin reads the header of a stream; io.EOF if there is none.
func (x *xzStream) begin() error {
	if x.started {
		if err := x.skipPadding(); err != nil {
			return err
		}
		if b, _ := x.from.Peek(len(xzMagic)); !strings.HasPrefix(xzMagic, string(b)) {
			return errBehind // or the origin's error, which explain prefers
		}
	}
	var h [12]byte
	if _, err := io.ReadFull(x.from, h[:]); err != nil {
		return cutShort(err)
	}
	if string(h[:6]) != xzMagic || crc32.ChecksumIEEE(h[6:8]) != binary.LittleEndian.Uint32(h[8:]) {
		return xzDamaged("%q is no header of a stream", h[:])
	}
	if h[6] != 0 || h[7] > 0x0F {
		return &unsupported{fmt.Sprintf("flags %x of a later version", h[6:8]), "compress it again with an older xz"}
	}
	x.flags = [2]byte(h[6:8])
	x.inside, x.started = true, true
	x.records.reset()
	return nil
}

func (x *xzStream) skipPadding() error {
	for {
		b, err := x.from.Peek(4)
		if len(b) == 0 {
			return err
		}
		if len(b) < 4 || !bytes.Equal(b, make([]byte, 4)) {
			return nil // the header says what is wrong, if it is none
		}
		if _, err := x.from.Discard(4); err != nil {
			return err
		}
	}
}

// end reads the index, whose first byte has been read, and the footer of a stream.
func (x *xzStream) end() error {
	in := &xzFields{from: x.from, sum: crc32.NewIEEE()}
	in.sum.Write([]byte{0})
	in.bytes = 1
	count, err := in.number()
	if err != nil {
		return err
	}
	if count != x.records.count {
		return xzDamaged("the index has %d blocks, there were %d", count, x.records.count)
	}
	var found xzRecords
	found.reset()
	for range count {
		unpadded, err := in.number()
		if err != nil {
			return err
		}
		uncompressed, err := in.number()
		if err != nil {
			return err
		}
		found.add(unpadded, uncompressed)
	}
	if !bytes.Equal(found.hash.Sum(nil), x.records.hash.Sum(nil)) {
		return xzDamaged("the index has other sizes than the blocks")
	}
	for in.bytes%4 != 0 {
		if b, err := in.byte(); err != nil || b != 0 {
			return orDamaged(err, "the index is not padded with zeros")
		}
	}
	if err := in.checkSum("index"); err != nil {
		return err
	}
	var f [12]byte
	if _, err := io.ReadFull(x.from, f[:]); err != nil {
		return cutShort(err)
	}
	if crc32.ChecksumIEEE(f[4:10]) != binary.LittleEndian.Uint32(f[:]) || string(f[10:]) != xzFooter ||
		[2]byte(f[8:10]) != x.flags || (int64(binary.LittleEndian.Uint32(f[4:]))+1)*4 != in.bytes+4 {
		return xzDamaged("the footer does not fit the stream")
	}
	return nil
}

// xzFields reads the fields of a header or index and sums them up.
type xzFields struct {
	from  io.ByteReader
	sum   hash.Hash32
	bytes int64
}

func (f *xzFields) byte() (byte, error) {
	b, err := f.from.ReadByte()
	if err != nil {
		return 0, cutShort(err)
	}
	f.sum.Write([]byte{b})
	f.bytes++
	return b, nil
}

// number reads a number of up to 63 bits, seven in a byte, the low ones first.
func (f *xzFields) number() (uint64, error) {
	var n uint64
	for shift := 0; shift < 63; shift += 7 {
		b, err := f.byte()
		if err != nil {
			return 0, err
		}
		n |= uint64(b&0x7F) << shift
		if b < 0x80 {
			if b == 0 && shift > 0 {
				break // not the shortest form
			}
			return n, nil
		}
	}
	return 0, xzDamaged("a number that is none")
}

// checkSum reads a CRC32 and compares it with that of the fields.
func (f *xzFields) checkSum(of string) error {
	want := f.sum.Sum32()
	var b [4]byte
	for i := range b {
		c, err := f.from.ReadByte()
		if err != nil {
			return cutShort(err)
		}
		b[i] = c
	}
	if binary.LittleEndian.Uint32(b[:]) != want {
		return xzDamaged("the checksum of the %s is wrong", of)
	}
	return nil
}

// cutShort makes the end of the file an error.
func cutShort(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func orDamaged(err error, what string) error {
	if err != nil {
		return err
	}
	return xzDamaged("%s", what)
}

// xzBlock reads one block.
type xzBlock struct {
	from         *bufio.Reader
	headerBytes  int64
	compressed   int64 // as the header says, -1: it does not
	size         int64 // uncompressed, as the header says, -1: it does not
	dictionary   int
	data         countingReader
	lzma         *lzma.Reader2
	check        hash.Hash // nil: none
	uncompressed uint64    // read so far
}

// countingReader counts what is read.
type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// newXZBlock reads a block's header, whose first byte has been read.
func newXZBlock(from *bufio.Reader, first, check byte) (*xzBlock, error) {
	b := &xzBlock{from: from, headerBytes: (int64(first) + 1) * 4, compressed: -1, size: -1}
	var err error
	if b.check, err = xzCheck(check); err != nil {
		return nil, err
	}
	if err := b.readHeader(first); err != nil {
		return nil, err
	}
	b.data.r = from
	config := lzma.Reader2Config{DictCap: b.dictionary}
	if b.lzma, err = config.NewReader2(&b.data); err != nil {
		return nil, cutShort(err)
	}
	return b, nil
}

// xzCheck returns the hash of the check of that number, nil for none.
func xzCheck(number byte) (hash.Hash, error) {
	switch number {
	case 0:
		return nil, nil
	case 1:
		return crc32.NewIEEE(), nil
	case 4:
		return crc64.New(crc64.MakeTable(crc64.ECMA)), nil
	case 10:
		return sha256.New(), nil
	}
	return nil, &unsupported{fmt.Sprintf("integrity check %d is not known", number), "compress it again with xz --check=crc64"}
}

func (b *xzBlock) readHeader(first byte) error {
	in := &xzFields{from: b.from, sum: crc32.NewIEEE(), bytes: 1}
	in.sum.Write([]byte{first})
	flags, err := in.byte()
	if err != nil {
		return err
	}
	for _, field := range []struct {
		bit byte
		to  *int64
	}{{0x40, &b.compressed}, {0x80, &b.size}} {
		if flags&field.bit != 0 {
			n, err := in.number()
			if err != nil {
				return err
			}
			*field.to = int64(n)
		}
	}
	if err := b.readFilters(in, flags); err != nil {
		return err
	}
	for in.bytes < b.headerBytes-4 {
		if c, err := in.byte(); err != nil || c != 0 {
			return orDamaged(err, "a block's header is not padded with zeros")
		}
	}
	if in.bytes != b.headerBytes-4 {
		return xzDamaged("a block's header is longer than it says")
	}
	return in.checkSum("block's header")
}

// readFilters reads what the block was made with: LZMA2 alone is read.
func (b *xzBlock) readFilters(in *xzFields, flags byte) error {
	id, err := in.number()
	if err != nil {
		return err
	}
	if flags&0x3F != 0 || id != xzFilterLZMA {
		return &unsupported{fmt.Sprintf("filters (%#x, flags %#x) other than LZMA2 alone", id, flags), "compress it again without filters, for example with xz -6"}
	}
	bytes, err := in.number()
	if err != nil {
		return err
	}
	bits, err := in.byte()
	if err != nil {
		return err
	}
	if bytes != 1 || bits > 40 {
		return xzDamaged("properties of LZMA2 that make no sense")
	}
	size := int64(1)<<32 - 1
	if bits < 40 {
		size = int64(2|bits&1) << (bits/2 + 11)
	}
	if size > maxWindow {
		return &unsupported{fmt.Sprintf("it asks for a dictionary of %d MiB, at most %d are given", size>>20, maxWindow>>20), "compress it again with xz -9 or less"}
	}
	b.dictionary = int(size)
	return nil
}

// unpadded is the block's size as the index has it.
func (b *xzBlock) unpadded() uint64 {
	n := b.headerBytes + b.data.n
	if b.check != nil {
		n += int64(b.check.Size())
	}
	return uint64(n)
}

// read reads content; io.EOF once the block was whole.
func (b *xzBlock) read(p []byte) (int, error) {
	n, err := b.lzma.Read(p)
	if b.check != nil {
		b.check.Write(p[:n])
	}
	b.uncompressed += uint64(n)
	switch {
	case b.size >= 0 && b.uncompressed > uint64(b.size), b.compressed >= 0 && b.data.n > b.compressed:
		return n, xzDamaged("a block is larger than its header says")
	case err == nil:
		return n, nil
	case err != io.EOF:
		return n, err
	case b.size >= 0 && b.uncompressed != uint64(b.size), b.compressed >= 0 && b.data.n != b.compressed:
		return n, xzDamaged("a block is smaller than its header says")
	}
	if err := b.readEnd(); err != nil {
		return n, err
	}
	return n, io.EOF
}

// readEnd reads the padding and the check behind the data.
func (b *xzBlock) readEnd() error {
	for at := b.data.n; at%4 != 0; at++ {
		c, err := b.from.ReadByte()
		if err != nil || c != 0 {
			return orDamaged(cutShort(err), "a block is not padded with zeros")
		}
	}
	if b.check == nil {
		return nil
	}
	want := b.check.Sum(nil)
	if b.check.Size() < sha256.Size { // the CRCs are little-endian here
		for i, j := 0, len(want)-1; i < j; i, j = i+1, j-1 {
			want[i], want[j] = want[j], want[i]
		}
	}
	found := make([]byte, len(want))
	if _, err := io.ReadFull(b.from, found); err != nil {
		return cutShort(err)
	}
	if !bytes.Equal(found, want) {
		return xzDamaged("the checksum of a block is wrong")
	}
	return nil
}
