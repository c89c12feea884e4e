// Package tokens makes a dataset of token files: arrays of integers that a language
// model is trained on, cut into rows of block_size + 1 tokens.
//
// Three layouts are read, told apart by what the files hold:
//
//   - bare: nothing but little-endian tokens (nanoGPT's train.bin). The file does not
//     say their type; Options.DType does.
//   - llm.c: 256 int32 of header, magic 20240520 version 1 (uint16 tokens) or magic
//     20240801 version 7 (uint32 tokens), the number of tokens, then the tokens.
//   - Megatron: X.bin with bare tokens beside X.idx, which says their type and how
//     they are cut into sequences and documents. The sequences are read as one
//     stream; rows do not stop at their borders.
//
// All files of a dataset have one layout and one type. Files are taken in the order
// of their paths by bytes, rows never cross from one into the next.
package tokens

import (
	"context"
	"fmt"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
)

// Format is the name of this format.
const Format = "tokens"

// DefaultInclude is what a dataset is made of where no pattern is given.
const DefaultInclude = "**/*.bin"

// DefaultDType is the type of the tokens of bare files where none is given.
const DefaultDType = dataset.Uint16

// MaxFiles is how many token files a dataset may have. An open dataset keeps about
// 170 bytes for each in memory.
const MaxFiles = 1 << 20

// Layout is how a token file is laid out.
type Layout string

// The layouts.
const (
	Bare     Layout = "bare"
	LLMC     Layout = "llm.c"
	Megatron Layout = "Megatron"
)

// File is what a look at a token file's header found.
type File struct {
	Layout Layout
	DType  dataset.DType
	Start  int64 // bytes before the first token
	Tokens int64
}

// Inspect reads the headers of a token file: of bin itself and, unless it is nil, of
// the .idx beside it. bare is the type of tokens where the file does not say it; ""
// means DefaultDType.
// Errors: Corrupt if the file is not what it begins as, those of the store.
func Inspect(ctx context.Context, store backend.Store, bin, idx *backend.Object, bare dataset.DType) (File, error) {
	if err := checkDType(bare); err != nil {
		return File{}, err
	}
	if idx != nil {
		return inspectMegatron(ctx, store, bin, idx)
	}
	head := make([]byte, min(llmcHeaderBytes, bin.Version.Size))
	if err := dataset.ReadObject(ctx, store, bin, head, 0); err != nil {
		return File{}, err
	}
	if hasMegatronMagic(head) {
		return File{}, corrupt(bin, "it begins as the .idx of a Megatron dataset", "give it that name, beside its .bin, or leave it out with --include")
	}
	if f, ok, err := decodeLLMC(head, bin.Version.Size); ok || err != nil {
		if err != nil {
			return File{}, corrupt(bin, err.Error(), remedyFile)
		}
		return f, nil
	}
	if bare == "" {
		bare = DefaultDType
	}
	size := bin.Version.Size
	if size%bare.Size() != 0 {
		return File{}, corrupt(bin, fmt.Sprintf("its %d bytes are no whole number of %s tokens", size, bare), remedyLength)
	}
	return File{Layout: Bare, DType: bare, Tokens: size / bare.Size()}, nil
}

// checkDType refuses what cannot be the type of a token.
func checkDType(d dataset.DType) error {
	switch d {
	case "", dataset.Uint8, dataset.Int8, dataset.Uint16, dataset.Int16, dataset.Uint32, dataset.Int32, dataset.Uint64, dataset.Int64:
		return nil
	}
	return &backend.Error{Kind: backend.Invalid, Op: "use dtype", Object: string(d), Detail: "it is no type of tokens",
		Remedy: "use uint8, int8, uint16, int16, uint32, int32, uint64 or int64"}
}

// What to do about files that are not what they should be.
const (
	remedyFile   = "write it again, leave it out with --include, or index it as a file with --format raw"
	remedyLength = "say its type with --dtype, leave it out with --include, or index it as a file with --format raw"
	remedyPair   = "copy .bin and .idx again, leave them out with --include, or index them as files with --format raw"
)

// corrupt is the error for a file that is not what it should be.
func corrupt(o *backend.Object, detail, remedy string) error {
	return &backend.Error{Kind: backend.Corrupt, Op: "read token file", Object: string(o.Name), Detail: detail, Remedy: remedy}
}
