package tokens

import (
	"encoding/binary"
	"fmt"

	"github.com/stokerio/stoker/loader/dataset"
)

// The header of llm.c's data files (llm.c: dev/data/data_common.py):
//
//	+--------------+--------------+--------------+-----------------+--------+
//	| magic i32    | version i32  | tokens i32   | zero 253 x i32  | tokens |
//	+--------------+--------------+--------------+-----------------+--------+
//	0              4              8              12                1024
const (
	llmcHeaderBytes = 1024
	llmcMagicGPT2   = 20240520 // version 1, uint16
	llmcMagicLlama3 = 20240801 // version 7, uint32

	// llm.c's magics are dates. An unknown one in this range, followed by an
	// otherwise empty header, is a kind of file that this release does not know,
	// not a bare one.
	llmcFirstDate = 20230101
	llmcLastDate  = 20991231
)

// decodeLLMC reads an llm.c header at the start of a file of that size. It says false
// if the file does not begin with one.
func decodeLLMC(head []byte, size int64) (File, bool, error) {
	if len(head) < 8 {
		return File{}, false, nil
	}
	le := binary.LittleEndian
	magic, version := le.Uint32(head), le.Uint32(head[4:])
	f, expected := File{Layout: LLMC, Start: llmcHeaderBytes}, uint32(0)
	switch magic {
	case llmcMagicGPT2:
		f.DType, expected = dataset.Uint16, 1
	case llmcMagicLlama3:
		f.DType, expected = dataset.Uint32, 7
	default:
		if magic >= llmcFirstDate && magic <= llmcLastDate && emptyAfter(head, 12) {
			return File{}, false, fmt.Errorf("it begins with an llm.c header of magic %d; known are %d and %d", magic, llmcMagicGPT2, llmcMagicLlama3)
		}
		return File{}, false, nil
	}
	if len(head) < llmcHeaderBytes {
		return File{}, false, fmt.Errorf("its %d bytes begin as an llm.c header, which alone has %d", size, llmcHeaderBytes)
	}
	if version != expected {
		return File{}, false, fmt.Errorf("llm.c header of magic %d has version %d, expected %d", magic, version, expected)
	}
	count := int64(int32(le.Uint32(head[8:])))
	if held := size - llmcHeaderBytes; count < 0 || count*f.DType.Size() != held {
		return File{}, false, fmt.Errorf("its llm.c header says %d tokens of %s, %d bytes; %d bytes follow it", count, f.DType, count*f.DType.Size(), held)
	}
	f.Tokens = count
	return f, true, nil
}

// emptyAfter reports whether a whole header holds zeros from byte at on.
func emptyAfter(head []byte, at int) bool {
	if len(head) < llmcHeaderBytes {
		return false
	}
	for _, b := range head[at:llmcHeaderBytes] {
		if b != 0 {
			return false
		}
	}
	return true
}
