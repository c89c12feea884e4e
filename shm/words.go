package shm

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"
)

// Words that the other process may write at any moment are read and written as
// atomics, once each; what was read is copied before it is checked.

func word32(mem []byte, off int64) *uint32 { return (*uint32)(unsafe.Pointer(&mem[off : off+4][0])) }
func word64(mem []byte, off int64) *uint64 { return (*uint64)(unsafe.Pointer(&mem[off : off+8][0])) }

func load32(mem []byte, off int64) uint32     { return atomic.LoadUint32(word32(mem, off)) }
func load64(mem []byte, off int64) uint64     { return atomic.LoadUint64(word64(mem, off)) }
func store32(mem []byte, off int64, v uint32) { atomic.StoreUint32(word32(mem, off), v) }
func store64(mem []byte, off int64, v uint64) { atomic.StoreUint64(word64(mem, off), v) }

// encodeEntry writes e into its 128 bytes.
func encodeEntry(b []byte, e *Entry) {
	_ = b[EntryBytes-1]
	le := binary.LittleEndian
	le.PutUint64(b[0:], e.Sequence)
	le.PutUint32(b[8:], uint32(e.Kind))
	le.PutUint32(b[12:], e.Slot)
	le.PutUint64(b[16:], e.Generation)
	le.PutUint64(b[24:], e.Bytes)
	le.PutUint32(b[32:], e.Rows)
	le.PutUint32(b[36:], e.Flags)
	le.PutUint64(b[40:], e.Epoch)
	le.PutUint64(b[48:], e.Position)
	le.PutUint64(b[56:], e.SamplesConsumed)
	le.PutUint64(b[64:], e.SourceBytes)
	le.PutUint64(b[72:], e.WaitSlotAt)
	le.PutUint64(b[80:], e.OrderAt)
	le.PutUint64(b[88:], e.IndexAt)
	le.PutUint64(b[96:], e.ReadAt)
	le.PutUint64(b[104:], e.DoneAt)
	le.PutUint64(b[112:], e.DiskBytes)
	le.PutUint64(b[120:], 0)
}

// decodeEntry reads an entry from its 128 bytes; it does not judge it.
func decodeEntry(b []byte) Entry {
	_ = b[EntryBytes-1]
	le := binary.LittleEndian
	return Entry{
		Sequence:        le.Uint64(b[0:]),
		Kind:            EntryKind(le.Uint32(b[8:])),
		Slot:            le.Uint32(b[12:]),
		Generation:      le.Uint64(b[16:]),
		Bytes:           le.Uint64(b[24:]),
		Rows:            le.Uint32(b[32:]),
		Flags:           le.Uint32(b[36:]),
		Epoch:           le.Uint64(b[40:]),
		Position:        le.Uint64(b[48:]),
		SamplesConsumed: le.Uint64(b[56:]),
		SourceBytes:     le.Uint64(b[64:]),
		WaitSlotAt:      le.Uint64(b[72:]),
		OrderAt:         le.Uint64(b[80:]),
		IndexAt:         le.Uint64(b[88:]),
		ReadAt:          le.Uint64(b[96:]),
		DoneAt:          le.Uint64(b[104:]),
		DiskBytes:       le.Uint64(b[112:]),
	}
}

// Column is one entry of a slot's column table, offsets in bytes from the slot's start.
type Column struct {
	ValuesOffset  uint64
	ValuesBytes   uint64
	OffsetsOffset uint64
	OffsetsBytes  uint64
}

// BatchHeaderBytes is the size of the batch header for that many columns, the
// sample numbers counted.
func BatchHeaderBytes(columns int) int64 {
	return Align(8+int64(columns)*ColumnEntryBytes, ColumnAlign)
}

// PutBatchHeader writes the column table at the start of a slot.
func PutBatchHeader(slot []byte, rows int, columns []Column) {
	le := binary.LittleEndian
	le.PutUint32(slot[0:], uint32(len(columns)))
	le.PutUint32(slot[4:], uint32(rows))
	for i := range columns {
		b := slot[8+i*ColumnEntryBytes:]
		le.PutUint64(b[0:], columns[i].ValuesOffset)
		le.PutUint64(b[8:], columns[i].ValuesBytes)
		le.PutUint64(b[16:], columns[i].OffsetsOffset)
		le.PutUint64(b[24:], columns[i].OffsetsBytes)
	}
}

// EncodeEntry returns e as the 128 bytes that stand in a queue.
func EncodeEntry(e *Entry) []byte {
	b := make([]byte, EntryBytes)
	encodeEntry(b, e)
	return b
}

// DecodeEntry reads an entry from its 128 bytes; it does not judge it.
func DecodeEntry(b []byte) Entry { return decodeEntry(b) }
