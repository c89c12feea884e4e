package cufile

import (
	"encoding/binary"
	"fmt"
)

// The slab message, 160 bytes, little-endian; testdata/slab-message.json holds
// vectors that Go and Python both read.
//
//	+------+------+-------+--------+-------------+--------+-----+------+--------+------+
//	| SLB1 | kind | bytes | mapped | granularity | device | pid | zero | handle | zero |
//	|    4 |    4 |     8 |      8 |           8 |     16 |   8 |    8 |     64 |   32 |
//	+------+------+-------+--------+-------------+--------+-----+------+--------+------+
//
// A VMM slab (kind 1) comes with one descriptor in SCM_RIGHTS and a zero handle; a
// legacy one (kind 2) with a handle and no descriptor.
const (
	messageBytes = 160
	messageMagic = "SLB1"

	// maxSlabBytes is the user half of a 48-bit address space.
	maxSlabBytes = 1 << 47
)

// encode gives the message of an export.
func (e Export) encode() [messageBytes]byte {
	var m [messageBytes]byte
	copy(m[0:], messageMagic)
	binary.LittleEndian.PutUint32(m[4:], uint32(e.Kind))
	binary.LittleEndian.PutUint64(m[8:], uint64(e.Bytes))
	binary.LittleEndian.PutUint64(m[16:], uint64(e.MappedBytes))
	binary.LittleEndian.PutUint64(m[24:], uint64(e.Granularity))
	copy(m[32:48], e.Device[:])
	binary.LittleEndian.PutUint64(m[48:], uint64(e.Process))
	copy(m[64:128], e.Handle[:])
	return m
}

// decodeExport reads a message, which is hostile until checked. File is not set.
func decodeExport(m []byte) (Export, error) {
	if len(m) != messageBytes || string(m[:4]) != messageMagic {
		return Export{}, fmt.Errorf("%w: want %d bytes that begin with %s", ErrMessage, messageBytes, messageMagic)
	}
	for _, zero := range [][]byte{m[56:64], m[128:160]} {
		if !allZero(zero) {
			return Export{}, fmt.Errorf("%w: bytes that must be zero are not; the sender is newer", ErrMessage)
		}
	}
	for _, offset := range []int{8, 16, 24, 48} {
		if value := binary.LittleEndian.Uint64(m[offset:]); value > maxSlabBytes {
			return Export{}, fmt.Errorf("%w: %d at byte %d is too much", ErrMessage, value, offset)
		}
	}
	e := Export{
		Kind:        SlabKind(binary.LittleEndian.Uint32(m[4:])),
		Bytes:       int64(binary.LittleEndian.Uint64(m[8:])),
		MappedBytes: int64(binary.LittleEndian.Uint64(m[16:])),
		Granularity: int64(binary.LittleEndian.Uint64(m[24:])),
		Process:     int(binary.LittleEndian.Uint64(m[48:])),
	}
	copy(e.Device[:], m[32:48])
	copy(e.Handle[:], m[64:128])
	return e, e.validate()
}

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// validate refuses what no exporter makes.
func (e Export) validate() error {
	g := e.Granularity
	switch {
	case e.Kind != SlabVMM && e.Kind != SlabLegacy:
		return fmt.Errorf("%w: %s", ErrMessage, e.Kind)
	case e.Bytes <= 0 || e.Bytes > e.MappedBytes || e.MappedBytes > maxSlabBytes:
		return fmt.Errorf("%w: %d bytes of %d mapped", ErrMessage, e.Bytes, e.MappedBytes)
	case g < 0 || g&(g-1) != 0 || g == 0 && e.Kind == SlabVMM:
		return fmt.Errorf("%w: granularity %d", ErrMessage, g)
	case g > 0 && e.MappedBytes%g != 0:
		return fmt.Errorf("%w: %d bytes mapped in granules of %d", ErrMessage, e.MappedBytes, g)
	case e.Kind == SlabVMM && !allZero(e.Handle[:]):
		return fmt.Errorf("%w: a descriptor and a handle", ErrMessage)
	}
	return nil
}
