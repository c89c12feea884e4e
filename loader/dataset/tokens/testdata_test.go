package tokens

import (
	"bytes"
	"encoding/binary"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write testdata anew")

// The writers below put the bytes down as the projects' own do, field by field:
// struct.pack and numpy's tobytes write little-endian on the machines they run on.

// megatronIdx writes an .idx as Megatron-LM's IndexWriter does: lengths in tokens,
// each document's first sequence, no modes unless given.
func megatronIdx(code byte, tokenBytes int, lengths []int32, documents []int64, modes []int8) []byte {
	le := binary.LittleEndian
	b := []byte("MMIDIDX\x00\x00")                 // _INDEX_HEADER
	b = le.AppendUint64(b, 1)                      // struct.pack("<Q", 1): version
	b = append(b, code)                            // struct.pack("<B", DType.code_from_dtype)
	b = le.AppendUint64(b, uint64(len(lengths)))   // sequence count
	b = le.AppendUint64(b, uint64(len(documents))) // document count
	for _, n := range lengths {                    // int32
		b = le.AppendUint32(b, uint32(n))
	}
	pointer := int64(0)
	for _, n := range lengths { // int64, exclusive sum of lengths in bytes
		b = le.AppendUint64(b, uint64(pointer))
		pointer += int64(n) * int64(tokenBytes)
	}
	for _, d := range documents { // int64
		b = le.AppendUint64(b, uint64(d))
	}
	for _, m := range modes { // int8
		b = append(b, byte(m))
	}
	return b
}

// llmcFile writes a file as llm.c's write_datafile does.
func llmcFile(magic, version uint32, tokens []int64, tokenBytes int) []byte {
	header := make([]byte, 256*4)
	le := binary.LittleEndian
	le.PutUint32(header[0:], magic)
	le.PutUint32(header[4:], version)
	le.PutUint32(header[8:], uint32(len(tokens)))
	return append(header, bare(tokens, tokenBytes)...)
}

// bare writes tokens as numpy's tobytes does.
func bare(tokens []int64, tokenBytes int) []byte {
	b := make([]byte, 0, len(tokens)*tokenBytes)
	for _, v := range tokens {
		b = append(b, binary.LittleEndian.AppendUint64(nil, uint64(v))[:tokenBytes]...)
	}
	return b
}

// count returns n different small tokens from first on.
func count(first, n int) []int64 {
	tokens := make([]int64, n)
	for i := range tokens {
		tokens[i] = int64(first+i) % 125
	}
	return tokens
}

// committed is the content of testdata.
func committed() map[string][]byte {
	return map[string][]byte{
		"nanogpt/train.bin":       bare(count(0, 33), 2),
		"nanogpt/val.bin":         bare(count(33, 9), 2),
		"llmc/gpt2.bin":           llmcFile(20240520, 1, count(0, 21), 2),
		"llmc3/llama3.bin":        llmcFile(20240801, 7, count(0, 21), 4),
		"megatron/a.bin":          bare(count(0, 20), 2),
		"megatron/a.idx":          megatronIdx(8, 2, []int32{7, 0, 8, 5}, []int64{0, 2, 4}, nil),
		"megatron/b.bin":          bare(count(20, 6), 2),
		"megatron/b.idx":          megatronIdx(8, 2, []int32{6}, []int64{0, 1}, nil),
		"megatron-modes/text.bin": bare(count(0, 12), 4),
		"megatron-modes/text.idx": megatronIdx(4, 4, []int32{4, 8}, []int64{0, 1, 2}, []int8{0, 1}),
	}
}

func TestCommittedFilesAreWhatTheWritersWrite(t *testing.T) {
	for name, want := range committed() {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes (%v), the writer writes %d others", path, len(got), err, len(want))
		}
	}
}
