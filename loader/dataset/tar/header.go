package tar

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
)

// A tar archive is blocks of 512 bytes: a header, the member's data padded to whole
// blocks, the next header, and at the end two blocks of zeros. Fields of a header:
//
//	+------+------+-----+-----+------+-------+----------+------+------+-------+ - -
//	| name | mode | uid | gid | size | mtime | checksum | type | link | magic |
//	| 100  | 8    | 8   | 8   | 12   | 12    | 8        | 1    | 100  | 8     |
//	+------+------+-----+-----+------+-------+----------+------+------+-------+ - -
//	0      100    108   116   124    136     148        156    157    257     265
//
//	POSIX (magic "ustar\0"): prefix 155 bytes at 345, joined to the name by a slash
//	GNU (magic "ustar  \0"): four runs of a sparse file at 386 (each offset 12 and
//	    length 12), 1 byte at 482 that says whether more of them follow, 12 bytes of
//	    expanded size at 483
//
// Mode, owner, times, links and device numbers are not looked at.
const (
	blockBytes = 512

	nameField     = 0
	nameBytes     = 100
	sizeField     = 124
	numberBytes   = 12
	checksumField = 148
	checksumBytes = 8
	typeField     = 156
	magicField    = 257
	prefixField   = 345
	prefixBytes   = 155
	starPrefix    = 131 // bytes of it where times follow (star's own header)
	starTrailer   = 508

	sparseField      = 386
	sparseInHeader   = 4
	sparseMoreField  = 482
	sparseSizeField  = 483
	sparseInBlock    = 21
	sparseBlockMore  = 504
	sparseEntryBytes = 2 * numberBytes
)

// Types of members.
const (
	typeRegular    = '0'
	typeRegularOld = 0
	typeContiguous = '7'
	typeSparse     = 'S'
	typeLongName   = 'L'
	typeLongLink   = 'K'
	typeExtended   = 'x'
	typeSolaris    = 'X'
	typeGlobal     = 'g'
)

// Magics of a header.
var (
	magicGNU  = []byte("ustar  \x00")
	magicStar = []byte("tar\x00")
)

// isRegular reports whether a member of that type is a file with bytes of its own.
func isRegular(kind byte) bool {
	return kind == typeRegular || kind == typeRegularOld || kind == typeContiguous || kind == typeSparse
}

// hasData reports whether blocks of data follow the header of a member. Links, devices
// and directories have none, whatever their size says; what is unknown has.
func hasData(kind byte) bool { return kind < '1' || kind > '6' }

// isZero reports whether a whole block is zeros, as the two at the end are.
func isZero(block []byte) bool {
	for len(block) >= 8 {
		if binary.LittleEndian.Uint64(block) != 0 {
			return false
		}
		block = block[8:]
	}
	for _, c := range block {
		if c != 0 {
			return false
		}
	}
	return true
}

// checksumOK reports whether a header's checksum is the sum of its bytes, those of the
// field itself counted as spaces. Old tars of Sun and NeXT summed signed bytes.
func checksumOK(h *[blockBytes]byte) bool {
	want, ok := number(h[checksumField : checksumField+checksumBytes])
	if !ok {
		return false
	}
	sum := sumBytes(h)
	for _, c := range h[checksumField : checksumField+checksumBytes] {
		sum += ' ' - int64(c)
	}
	return want == sum || want == sum-256*highBytes(h)
}

// sumBytes adds the bytes eight at a time, in four lanes of 16 bits: 64 words of two
// bytes a lane add up to at most 32640.
func sumBytes(h *[blockBytes]byte) int64 {
	const even = 0x00ff00ff00ff00ff
	var low, high uint64
	for i := 0; i < blockBytes; i += 32 { // most of a header is zeros
		words := h[i : i+32 : i+32]
		a, b := binary.LittleEndian.Uint64(words), binary.LittleEndian.Uint64(words[8:])
		c, d := binary.LittleEndian.Uint64(words[16:]), binary.LittleEndian.Uint64(words[24:])
		if a|b|c|d == 0 {
			continue
		}
		low += a&even + b&even + c&even + d&even
		high += a>>8&even + b>>8&even + c>>8&even + d>>8&even
	}
	lanes := low + high
	lanes = lanes&0x0000ffff0000ffff + lanes>>16&0x0000ffff0000ffff
	return int64(lanes&0xffffffff + lanes>>32)
}

// highBytes counts the bytes above 127 outside the checksum field.
func highBytes(h *[blockBytes]byte) int64 {
	const high = 0x8080808080808080
	n := 0
	for i := 0; i < blockBytes; i += 8 {
		n += bits.OnesCount64(binary.LittleEndian.Uint64(h[i:]) & high)
	}
	for _, c := range h[checksumField : checksumField+checksumBytes] {
		n -= int(c >> 7)
	}
	return int64(n)
}

// number reads a field that holds a number: octal digits between spaces, ended by NUL,
// nothing at all for 0, or, after a byte of 0x80 (0xff if negative), big-endian bytes.
// It says false for what is none or does not fit int64.
func number(field []byte) (int64, bool) {
	if field[0]&0x80 != 0 {
		return binaryNumber(field)
	}
	i := 0
	for i < len(field) && isSpace(field[i]) {
		i++
	}
	n, digits := uint64(0), field[i:]
	for i = 0; i < len(digits); i++ {
		c := digits[i] - '0'
		if c > 7 {
			break
		}
		n = n<<3 | uint64(c) // at most 12 digits of 3 bits
	}
	for ; i < len(digits) && digits[i] != 0; i++ {
		if !isSpace(digits[i]) {
			return 0, false
		}
	}
	return int64(n), true
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// binaryNumber reads a number in base 256.
func binaryNumber(field []byte) (int64, bool) {
	var n int64
	switch field[0] {
	case 0x80:
	case 0xff:
		n = -1
	default:
		return 0, false
	}
	for _, c := range field[1:] {
		if n > math.MaxInt64>>8 || n < math.MinInt64>>8 {
			return 0, false
		}
		n = n<<8 | int64(c)
	}
	return n, true
}

// text returns a field up to its first NUL.
func text(field []byte) []byte {
	if end := bytes.IndexByte(field, 0); end >= 0 {
		return field[:end]
	}
	return field
}

// prefix returns what goes before the name and a slash. GNU's headers keep times in
// that place, star's behind its first 131 bytes.
func prefix(h *[blockBytes]byte) []byte {
	if h[prefixField] == 0 || [8]byte(h[magicField:magicField+8]) == [8]byte(magicGNU) {
		return nil
	}
	n := prefixBytes
	if [4]byte(h[starTrailer:]) == [4]byte(magicStar) {
		n = starPrefix
	}
	return text(h[prefixField : prefixField+n])
}
