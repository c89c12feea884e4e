package bench

import (
	"maps"
	"strings"
)

// batchSize is that of all rows.
const batchSize = 64

// Names of the cases and of what they read.
const (
	caseRaw    = "raw-100k"
	caseTokens = "tokens-2048"
)

// rowSpec is one row before it has run.
type rowSpec struct {
	loader  string // as it stands in the table
	source  string // which Python source
	data    string // case
	workers int
	collate string // "", "default", "best", "pool"
	dtype   string
	note    string
	// informative rows are context: no figure is made of them, and their sections
	// are shorter.
	informative bool
	options     map[string]any // more for the Python source
}

// name identifies a row within a report.
func (s rowSpec) name() string {
	parts := []string{s.data, s.loader}
	if s.collate != "" {
		parts = append(parts, s.collate)
	}
	if s.source == "dataloader" {
		parts = append(parts, "w"+string(rune('0'+s.workers)))
	}
	return strings.Join(append(parts, s.dtype), "/")
}

// sampleBytes is how many source bytes make one sample of a case.
func sampleBytes(data string) int64 {
	if data == caseRaw {
		return rawFileBytes
	}
	return 2 * (tokenBlock + 1)
}

// shapes are those of one sample's tensors, equal for all rows of a case.
func shapes(data string) [][]int64 {
	if data == caseRaw {
		return [][]int64{{rawFileBytes}}
	}
	return [][]int64{{tokenBlock}, {tokenBlock}}
}

// config is what the row's Python process is started with.
func (s rowSpec) config(d Data) map[string]any {
	c := map[string]any{
		"loader": s.source, "case": s.data, "workers": s.workers, "collate": s.collate,
		"dtype": s.dtype, "shapes": shapes(s.data), "batch_size": batchSize, "seed": 7,
		"block_size": tokenBlock, "file_bytes": rawFileBytes,
	}
	if s.data == caseRaw {
		c["path"], c["files"], c["dataset"] = d.RawDir, d.RawList, datasetRaw
	} else {
		c["path"], c["dataset"] = d.Tokens, datasetTokens
		c["tokens"] = d.TokenRows*tokenBlock + 1
	}
	maps.Copy(c, s.options)
	return c
}

// Names of the datasets in the daemon.
const (
	datasetRaw     = "bench-raw"
	datasetTokens  = "bench-tokens"
	datasetSparse7 = "bench-sparse-1e7"
	datasetSparse8 = "bench-sparse-1e8"
)

// rowSpecs are all rows, in the order in which they run and are shown.
func rowSpecs() []rowSpec {
	specs := []rowSpec{
		{loader: "stoker", source: "stoker", data: caseRaw, dtype: "uint8"},
		{
			loader: "stoker socket", source: "stoker", data: caseRaw, dtype: "uint8", informative: true,
			options: map[string]any{"transport": "socket"}, note: "the fallback where descriptors can not be passed",
		},
	}
	specs = append(specs, dataLoaderRows(caseRaw, "uint8")...)
	for workers := 1; workers <= 2; workers++ {
		specs = append(specs, rowSpec{
			loader: "DataLoader", source: "dataloader", data: caseRaw, dtype: "uint8", workers: workers,
			collate: "pool", informative: true,
			note: "a hand-made shared ring, no collate: a batch that the user keeps is overwritten",
		})
	}
	specs = append(specs,
		rowSpec{loader: "stoker", source: "stoker", data: caseTokens, dtype: "uint16"},
		rowSpec{loader: "memmap", source: "memmap", data: caseTokens, dtype: "uint16", note: "nanoGPT's get_batch without astype"},
		rowSpec{loader: "stoker", source: "stoker", data: caseTokens, dtype: "int64"},
		rowSpec{loader: "memmap", source: "memmap", data: caseTokens, dtype: "int64", note: "nanoGPT's get_batch"},
		rowSpec{
			loader: "memmap kept", source: "memmap", data: caseTokens, dtype: "uint16", informative: true,
			options: map[string]any{"keep_map": true}, note: "get_batch with one map for all batches",
		},
	)
	return append(specs, dataLoaderRows(caseTokens, "uint16")...)
}

func dataLoaderRows(data, dtype string) []rowSpec {
	var specs []rowSpec
	for _, collate := range []string{"default", "best"} {
		for workers := range 3 {
			specs = append(specs, rowSpec{
				loader: "DataLoader", source: "dataloader", data: data, dtype: dtype, workers: workers, collate: collate,
			})
		}
	}
	return specs
}

// residentSpecs are the consumer alone, for each kind of batch.
func residentSpecs() []rowSpec {
	spec := func(data, dtype string) rowSpec {
		return rowSpec{loader: "consumer alone", source: "resident", data: data, dtype: dtype, informative: true}
	}
	return []rowSpec{spec(caseRaw, "uint8"), spec(caseTokens, "uint16"), spec(caseTokens, "int64")}
}

// ceilingSpec is one bare loop.
type ceilingSpec struct {
	name        string
	data        string
	informative bool
	options     CeilingOptions
}

// ceilingSpecs are the bare loops, with as many threads and slots as a session has.
func ceilingSpecs(d Data, threads int, slots map[string]int) []ceilingSpec {
	raw := CeilingOptions{
		Kind: "raw", Dir: d.RawDir, List: d.RawList, RowBytes: rawFileBytes,
		Batch: batchSize, Threads: threads, Slots: slots[caseRaw], Seed: 7,
	}
	tokens := CeilingOptions{
		Kind: "tokens", File: d.Tokens, RowBytes: 2 * (tokenBlock + 1), RowStride: 2 * tokenBlock,
		Batch: batchSize, Threads: threads, Slots: slots[caseTokens], Seed: 7,
	}
	rawConsumed, tokensConsumed := raw, tokens
	rawConsumed.Consumer, tokensConsumed.Consumer = true, true
	return []ceilingSpec{
		{name: "bare loop", data: caseRaw, options: raw},
		{name: "bare loop + consumer", data: caseRaw, options: rawConsumed, informative: true},
		{name: "bare loop", data: caseTokens, options: tokens},
		{name: "bare loop + consumer", data: caseTokens, options: tokensConsumed, informative: true},
		{name: "memcpy, one core", data: "memory", options: CeilingOptions{Kind: "memcpy"}, informative: true},
	}
}
