package tokens

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
)

// The .idx of a Megatron dataset (Megatron-LM: megatron/core/datasets/indexed_dataset.py),
// for S sequences and D document entries. Nothing behind byte 34 is aligned.
//
//	+--------------------+------------+--------+---------+---------+
//	| "MMIDIDX\0\0"      | version u64| dtype  | S u64   | D u64   |
//	| 9                  | 1          | u8     |         |         |
//	+--------------------+------------+--------+---------+---------+
//	0                    9            17       18        26        34
//	+--------------------+-------------------+---------------------+-------------------+
//	| length i32[S]      | pointer i64[S]    | document i64[D]     | mode i8[S]        |
//	| tokens             | bytes into .bin   | sequence numbers    | multimodal only   |
//	+--------------------+-------------------+---------------------+-------------------+
//
// Document d is the sequences [document[d], document[d+1]), so that D is the number
// of documents plus one.
const megatronHeaderBytes = 34

var megatronMagic = []byte("MMIDIDX\x00\x00")

// megatronBlock is how many entries of an array are looked at in one go: 768 KiB of
// buffers whatever the header says.
const megatronBlock = 64 << 10

// megatronIndex is an .idx that is being checked against its .bin.
type megatronIndex struct {
	ctx                  context.Context // of the one call that it lives for
	store                backend.Store
	idx                  *backend.Object
	bin                  *backend.Object
	dtype                dataset.DType
	sequences, documents int64
}

func hasMegatronMagic(head []byte) bool { return bytes.HasPrefix(head, megatronMagic) }

// inspectMegatron checks an .idx in full, and that its .bin holds what it speaks of.
func inspectMegatron(ctx context.Context, store backend.Store, bin, idx *backend.Object) (File, error) {
	m := &megatronIndex{ctx: ctx, store: store, idx: idx, bin: bin}
	if err := m.readHeader(); err != nil {
		return File{}, err
	}
	end, err := m.checkSequences()
	if err != nil {
		return File{}, err
	}
	if err := m.checkDocuments(); err != nil {
		return File{}, err
	}
	return File{Layout: Megatron, DType: m.dtype, Tokens: end / m.dtype.Size()}, nil
}

func (m *megatronIndex) corrupt(format string, args ...any) error {
	return corrupt(m.idx, fmt.Sprintf(format, args...), remedyPair)
}

// readHeader reads the header and holds its counts against the file's size.
func (m *megatronIndex) readHeader() error {
	size := m.idx.Version.Size
	if size < megatronHeaderBytes {
		return m.corrupt("%d bytes, the header alone has %d: it is cut short", size, megatronHeaderBytes)
	}
	var head [megatronHeaderBytes]byte
	if err := dataset.ReadObject(m.ctx, m.store, m.idx, head[:], 0); err != nil {
		return err
	}
	if !hasMegatronMagic(head[:]) {
		return m.corrupt("it begins with %q, a Megatron .idx, which it is by its name beside %q, with %q",
			head[:len(megatronMagic)], m.bin.Name, megatronMagic)
	}
	le := binary.LittleEndian
	if v := le.Uint64(head[9:]); v != 1 {
		return m.corrupt("version %d, known is 1", v)
	}
	var ok bool
	if m.dtype, ok = megatronDType(head[17]); !ok {
		return m.corrupt("dtype code %d is no type of tokens (known are 1 uint8, 2 int8, 3 int16, 4 int32, 5 int64, 8 uint16)", head[17])
	}
	sequences, documents, rest := le.Uint64(head[18:]), le.Uint64(head[26:]), uint64(size-megatronHeaderBytes)
	if sequences > rest/12 || documents > rest/8 {
		return m.corrupt("header says %d sequences and %d document entries, for which its %d bytes are too few: it is cut short or damaged",
			sequences, documents, size)
	}
	if need := 12*sequences + 8*documents; rest != need && rest != need+sequences { // with or without modes
		return m.corrupt("header says %d sequences and %d document entries, which take %d bytes; the file has %d",
			sequences, documents, megatronHeaderBytes+need, size)
	}
	m.sequences, m.documents = int64(sequences), int64(documents)
	return nil
}

// megatronDType returns the element type of a code. The codes 6 and 7 are floats.
func megatronDType(code byte) (dataset.DType, bool) {
	switch code {
	case 1:
		return dataset.Uint8, true
	case 2:
		return dataset.Int8, true
	case 3:
		return dataset.Int16, true
	case 4:
		return dataset.Int32, true
	case 5:
		return dataset.Int64, true
	case 8:
		return dataset.Uint16, true
	}
	return "", false
}

// checkSequences checks that the sequences lie one after another in the .bin, and
// returns where the last one ends.
func (m *megatronIndex) checkSequences() (end int64, err error) {
	size, limit, le := m.dtype.Size(), m.bin.Version.Size, binary.LittleEndian
	block := min(m.sequences, megatronBlock)
	lengths, pointers := make([]byte, 4*block), make([]byte, 8*block)
	for first := int64(0); first < m.sequences; first += block {
		n := min(block, m.sequences-first)
		if err := m.read(lengths[:4*n], megatronHeaderBytes+4*first); err != nil {
			return 0, err
		}
		if err := m.read(pointers[:8*n], megatronHeaderBytes+4*m.sequences+8*first); err != nil {
			return 0, err
		}
		for i := range n {
			length, pointer := int64(int32(le.Uint32(lengths[4*i:]))), int64(le.Uint64(pointers[8*i:]))
			if length < 0 || pointer != end {
				return 0, m.corrupt("sequence %d has %d tokens at byte %d, expected at byte %d, where the one before ends", first+i, length, pointer, end)
			}
			if end += length * size; end > limit {
				return 0, corrupt(m.bin, fmt.Sprintf("%d bytes, but sequence %d of %q ends at byte %d: it is cut short or belongs to another .idx",
					limit, first+i, m.idx.Name, end), remedyPair)
			}
		}
	}
	return end, nil
}

// checkDocuments checks that the documents lie one after another over all sequences.
func (m *megatronIndex) checkDocuments() error {
	if m.documents == 0 {
		return m.corrupt("no document entries, expected at least the end of the last document")
	}
	block, last := min(m.documents, megatronBlock), int64(0)
	entries := make([]byte, 8*block)
	for first := int64(0); first < m.documents; first += block {
		n := min(block, m.documents-first)
		if err := m.read(entries[:8*n], megatronHeaderBytes+12*m.sequences+8*first); err != nil {
			return err
		}
		for i := range n {
			at := int64(binary.LittleEndian.Uint64(entries[8*i:]))
			if first+i == 0 && at != 0 || at < last || at > m.sequences {
				return m.corrupt("document entry %d is %d, expected 0 for the first and then between %d and %d", first+i, at, last, m.sequences)
			}
			last = at
		}
	}
	if last != m.sequences {
		return m.corrupt("the last document ends at sequence %d of %d", last, m.sequences)
	}
	return nil
}

func (m *megatronIndex) read(p []byte, offset int64) error {
	return dataset.ReadObject(m.ctx, m.store, m.idx, p, offset)
}
