package bench

import (
	"maps"
	"slices"
	"strings"
)

// rowSpec is one row before it has run.
type rowSpec struct {
	loader  string // as it stands in the table
	source  string // which Python source
	data    string // case
	workers int
	collate string // "", "default", "best", "pool", "mapped", "extractfile"
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
	if hasWorkers(s.loader) {
		parts = append(parts, "w"+string(rune('0'+s.workers)))
	}
	return strings.Join(append(parts, s.dtype), "/")
}

// Loaders that run inside torch's DataLoader.
const (
	loaderDataLoader = "DataLoader"
	loaderTarfile    = "tarfile"
	loaderWebDataset = "webdataset"
)

// hasWorkers tells whether a loader has worker processes, be it none of them.
func hasWorkers(loader string) bool {
	return loader == loaderDataLoader || loader == loaderTarfile || loader == loaderWebDataset
}

// thorough tells whether quick runs leave a row out: no figure with a target needs it,
// and it is rarely the best of its kind.
func (s rowSpec) thorough() bool {
	isTar := groupOf(s.data) == GroupTar
	switch s.collate {
	case "mapped", "extractfile":
		return true
	case "pool":
		return s.workers == 1
	case "default":
		return s.workers == 1 || isTar && s.workers == 0
	case "best":
		return isTar && (s.loader == loaderWebDataset && s.workers == 0 || s.loader == loaderTarfile && s.workers == 1)
	}
	return s.informative && s.source != "resident"
}

// config is what the row's Python process is started with.
func (s rowSpec) config(d Data) map[string]any {
	of := caseNamed(d, s.data)
	c := map[string]any{
		"loader": s.source, "case": s.data, "workers": s.workers, "collate": s.collate,
		"dtype": s.dtype, "shapes": of.shapes, "batch_size": batchSize, "seed": 7,
		"dataset": of.dataset, "samples": of.samples, "path": of.dir, "column": of.column,
	}
	switch of.group {
	case GroupRaw:
		c["files"], c["file_bytes"] = d.RawList, of.sampleBytes
	case GroupTokens:
		c["path"], c["block_size"], c["tokens"] = d.Tokens, of.blockSize, d.TokenRows*tokenBlock+1
	case GroupTar:
		c["members"], c["part"], c["select"] = of.tarData(d).List, tarPart, of.parts
	}
	maps.Copy(c, s.options)
	return c
}

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
			loader: loaderDataLoader, source: "dataloader", data: caseRaw, dtype: "uint8", workers: workers,
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
	specs = append(specs, dataLoaderRows(caseTokens, "uint16")...)
	specs = append(specs, tarRows(caseTar)...)
	return append(specs, tarRows(caseTarSmall)...)
}

func dataLoaderRows(data, dtype string) []rowSpec {
	return withWorkers(rowSpec{loader: loaderDataLoader, source: "dataloader", data: data, dtype: dtype}, "default", "best")
}

// withWorkers are rows of 0, 1 and 2 workers for each collate.
func withWorkers(spec rowSpec, collates ...string) []rowSpec {
	var specs []rowSpec
	for _, spec.collate = range collates {
		for spec.workers = range 3 {
			specs = append(specs, spec)
		}
	}
	return specs
}

// tarRows are all rows of a case of tar shards.
func tarRows(data string) []rowSpec {
	listed := rowSpec{loader: loaderTarfile, source: "tarfile", data: data, dtype: "uint8"}
	mapped, extracted := listed, listed
	mapped.note = "copied out of memory maps of the shards, which count as its memory"
	extracted.note = "TarFile.extractfile for each member"
	extracted.collate, extracted.workers, extracted.informative = "extractfile", 2, true
	sequential := rowSpec{
		loader: loaderWebDataset, source: "webdataset", data: data, dtype: "uint8",
		note: "reads shards from end to end, shuffles in a buffer of 1000 samples",
	}
	return slices.Concat(
		[]rowSpec{{loader: "stoker", source: "stoker", data: data, dtype: "uint8"}},
		withWorkers(listed, "default", "best"), withWorkers(mapped, "mapped"), []rowSpec{extracted},
		withWorkers(sequential, "best"),
	)
}

// residentSpecs are the consumer alone, for each kind of batch.
func residentSpecs() []rowSpec {
	spec := func(data, dtype string) rowSpec {
		return rowSpec{loader: "consumer alone", source: "resident", data: data, dtype: dtype, informative: true}
	}
	return []rowSpec{spec(caseRaw, "uint8"), spec(caseTokens, "uint16"), spec(caseTokens, "int64"), spec(caseTar, "uint8"), spec(caseTarSmall, "uint8")}
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
	specs := bareLoops(caseRaw, raw)
	specs = append(specs, bareLoops(caseTokens, tokens)...)
	for _, of := range allCases(d) {
		if of.group == GroupTar {
			t := of.tarData(d)
			specs = append(specs, bareLoops(of.name, CeilingOptions{
				Kind: "tar", Dir: t.Dir, List: t.List, RowBytes: of.sampleBytes,
				Batch: batchSize, Threads: threads, Slots: slots[of.name], Seed: 7,
			})...)
		}
	}
	return append(specs, ceilingSpec{name: "memcpy, one core", data: caseMemory, options: CeilingOptions{Kind: "memcpy"}, informative: true})
}

// bareLoops are a loop without and with a consumer.
func bareLoops(data string, options CeilingOptions) []ceilingSpec {
	consumed := options
	consumed.Consumer = true
	return []ceilingSpec{
		{name: "bare loop", data: data, options: options},
		{name: "bare loop + consumer", data: data, options: consumed, informative: true},
	}
}
