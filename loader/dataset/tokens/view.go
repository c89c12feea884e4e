package tokens

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"

	"github.com/zeebo/blake3"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
)

// extraBytes is the format's own data in an index record: u64 bytes before the first
// token, u64 tokens.
const extraBytes = 16

// ViewOptions are the choices of a session.
type ViewOptions struct {
	// BlockSize is the tokens of x, and of y, in a row; at least 1. A row holds one
	// token more.
	BlockSize int64
}

// view cuts files into rows. Row k of a file with T tokens is its tokens
// [k·b, k·b + b + 1) with b the block size, so that each token but the first is a
// target once: a file has floor((T-1)/b) rows.
type view struct {
	id    string
	info  dataset.Info
	block int64
	size  int64 // bytes of a token

	// files[i] holds rows [ends[i-1], ends[i]) of the dataset.
	files []tokenFile
	ends  []int64
}

type tokenFile struct {
	object backend.Object
	start  int64 // bytes before the first token
}

// Open returns the rows of an index. It keeps what it needs of the index in memory.
// Errors: Corrupt or Unavailable for the index, OutOfRange for a block size that
// leaves no row.
func Open(idx *dataset.Index, opts ViewOptions) (dataset.View, error) {
	info := idx.Info()
	if info.Format != Format {
		return nil, idx.CorruptIndex(fmt.Sprintf("it is of format %q, not %q", info.Format, Format))
	}
	if opts.BlockSize < 1 {
		return nil, &backend.Error{Kind: backend.OutOfRange, Op: "use block_size", Object: strconv.FormatInt(opts.BlockSize, 10),
			Detail: "need at least 1", Remedy: "pass the context length of the model as block_size"}
	}
	v := &view{info: info, block: opts.BlockSize, size: info.DType.Size()}
	if checkDType(info.DType) != nil || v.size == 0 || info.Files != idx.Len() || info.Files > MaxFiles {
		return nil, idx.CorruptIndex(fmt.Sprintf("metadata speaks of %d files of dtype %q; there are %d records", info.Files, info.DType, idx.Len()))
	}
	longest, err := v.load(idx)
	if err != nil {
		return nil, err
	}
	if v.Len() == 0 {
		return nil, noRows(v.block, longest)
	}
	v.id = viewID(info.ID, v.block)
	return v, nil
}

// longestFile is the file of a dataset that holds the most tokens.
type longestFile struct {
	name   string
	tokens int64
}

// noRows is the error for a block size that no file has a row of.
func noRows(block int64, longest longestFile) error {
	remedy := fmt.Sprintf("choose a block_size of at most %d", longest.tokens-1)
	if longest.tokens < 2 {
		remedy = "add files with more tokens: a row takes two or more"
	}
	return &backend.Error{Kind: backend.OutOfRange, Op: "cut", Object: longest.name, Remedy: remedy,
		Detail: fmt.Sprintf("block_size %d needs a file with more than %d tokens; the longest file has %d", block, block, longest.tokens)}
}

// viewID names an index and a block size together.
func viewID(index string, block int64) string {
	sum := blake3.Sum256(fmt.Appendf(nil, "tokens\x00%s\x00%d", index, block))
	return hex.EncodeToString(sum[:16])
}

// load reads the index's records and returns the longest file.
func (v *view) load(idx *dataset.Index) (longest longestFile, err error) {
	var scratch, names []byte
	n, origin, total, rows := idx.Len(), idx.Meta().Origin, int64(0), int64(0)
	v.files, v.ends = make([]tokenFile, n), make([]int64, n)
	lengths := make([]int, n)
	for i := range n {
		r, err := idx.Record(i, &scratch)
		if err != nil {
			return longest, err
		}
		start, tokens, ok := decodeExtra(r.Extra, r.Version.Size, v.size)
		if total += tokens; !ok || total < 0 {
			return longest, idx.CorruptIndex(fmt.Sprintf("record %d, %q, speaks of %d tokens from byte %d of %d", i, r.Name, tokens, start, r.Version.Size))
		}
		if i == 0 || tokens > longest.tokens {
			longest = longestFile{string(r.Name), tokens}
		}
		rows += max(tokens-1, 0) / v.block
		names = append(names, r.Name...)
		lengths[i], v.ends[i] = len(r.Name), rows
		v.files[i] = tokenFile{start: start, object: backend.Object{Origin: origin, Number: i, Version: r.Version}}
	}
	if total != v.info.Tokens {
		return longest, idx.CorruptIndex(fmt.Sprintf("its records hold %d tokens, its metadata says %d", total, v.info.Tokens))
	}
	for i, length := range lengths {
		v.files[i].object.Name, names = names[:length:length], names[length:]
	}
	return longest, nil
}

// decodeExtra reads a record's own data and holds it against the file's size.
func decodeExtra(extra []byte, fileBytes, tokenBytes int64) (start, tokens int64, ok bool) {
	if len(extra) != extraBytes {
		return 0, 0, false
	}
	start, tokens = int64(binary.LittleEndian.Uint64(extra)), int64(binary.LittleEndian.Uint64(extra[8:]))
	ok = start >= 0 && start <= fileBytes && tokens >= 0 && tokens <= (fileBytes-start)/tokenBytes
	return start, tokens, ok
}

// ID implements dataset.View.
func (v *view) ID() string { return v.id }

// Len implements dataset.View.
func (v *view) Len() int64 {
	if len(v.ends) == 0 {
		return 0
	}
	return v.ends[len(v.ends)-1]
}

// Columns implements dataset.View: tokens, of shape [block_size+1].
func (v *view) Columns() []dataset.Column {
	return []dataset.Column{{Name: "tokens", DType: v.info.DType, Shape: []int64{v.block + 1}}}
}

// ValueColumns implements dataset.View: none.
func (v *view) ValueColumns() []dataset.Column { return nil }

// SampleBytes implements dataset.View: all rows are of one size.
func (v *view) SampleBytes() (mean, max int64) {
	n := (v.block + 1) * v.size
	return n, n
}

// Objects implements dataset.View: objects are files.
func (v *view) Objects() int64 { return int64(len(v.files)) }

// Object implements dataset.View. Its name is the View's own.
func (v *view) Object(number int64, _ *[]byte) (backend.Object, error) {
	if number < 0 || number >= v.Objects() {
		return backend.Object{}, dataset.NoObject(number, v.Objects())
	}
	return v.files[number].object, nil
}

// locate returns the file of a row, and the row's number within it.
func (v *view) locate(row int64) (file int, within int64, err error) {
	if row < 0 || row >= v.Len() {
		return 0, 0, &backend.Error{Kind: backend.OutOfRange, Op: "find", Object: fmt.Sprintf("row %d", row),
			Detail: fmt.Sprintf("it is not in [0, %d)", v.Len()), Remedy: "ask for a row within [0, len)"}
	}
	file, _ = slices.BinarySearch(v.ends, row+1) // the first that ends after row
	if file > 0 {
		row -= v.ends[file-1]
	}
	return file, row, nil
}

// Plan implements dataset.View: one part a row, one object a file. Object names are
// the View's own and live as long as it does.
func (v *view) Plan(p *dataset.Plan, rows []int64) error {
	p.Reset()
	objects := dataset.NewObjectTable(p, len(rows))
	for _, row := range rows {
		file, within, err := v.locate(row)
		if err != nil {
			return err
		}
		f := &v.files[file]
		at, found := objects.Find(uint32(file), len(p.Objects))
		if !found {
			p.Objects = append(p.Objects, f.object)
		}
		p.Parts = append(p.Parts, dataset.Part{
			Object: at, Offset: f.start + within*v.block*v.size, Length: (v.block + 1) * v.size,
		})
	}
	return nil
}

// Key implements dataset.View: the file's path and the range of tokens in it.
func (v *view) Key(row int64) (file, key string, err error) {
	at, within, err := v.locate(row)
	if err != nil {
		return "", "", err
	}
	file = string(v.files[at].object.Name)
	return file, fmt.Sprintf("%s[%d:%d]", file, within*v.block, (within+1)*v.block+1), nil
}
