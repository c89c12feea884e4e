package bench

import (
	"fmt"
	"slices"
	"strings"
)

// Groups of cases, as CompareOptions.Cases names them.
const (
	GroupRaw    = "raw"
	GroupTokens = "tokens"
	GroupTar    = "tar"
)

// Groups returns all groups of cases.
func Groups() []string { return []string{GroupRaw, GroupTokens, GroupTar} }

// Names of the cases.
const (
	caseRaw      = "raw-100k"
	caseTar      = "tar-100k"
	caseTarSmall = "tar-4k"
	caseTokens   = "tokens-2048"
	caseMemory   = "memory" // no data at all
)

// Names of the datasets in the daemon.
const (
	datasetRaw      = "bench-raw"
	datasetTokens   = "bench-tokens"
	datasetSparse7  = "bench-sparse-1e7"
	datasetSparse8  = "bench-sparse-1e8"
	datasetTar      = "bench-tar-100k"
	datasetTarSmall = "bench-tar-4k"
)

// batchSize is that of all rows.
const batchSize = 64

// dataCase is one kind of data that rows read, all with equal tensors.
type dataCase struct {
	name, group string
	dataset     string // in the daemon
	dir         string // what the dataset is made of
	format      string // of the dataset
	samples     int64
	sampleBytes int64     // source bytes of a sample
	shapes      [][]int64 // of one sample's tensors
	blockSize   int       // tokens only
	parts       []string  // tar only: what a session selects
	column      string    // raw and tar: the column that holds the bytes
}

// allCases are the cases on that data, in the order in which they are shown.
func allCases(d Data) []dataCase {
	tar := func(name, dataset string, t TarData) dataCase {
		return dataCase{
			name: name, group: GroupTar, dataset: dataset, dir: t.Dir, format: "tar", samples: int64(t.Samples),
			sampleBytes: int64(t.SampleBytes), shapes: [][]int64{{int64(t.SampleBytes)}}, parts: []string{tarPart}, column: tarPart,
		}
	}
	return []dataCase{
		{
			name: caseRaw, group: GroupRaw, dataset: datasetRaw, dir: d.RawDir, format: "raw", samples: int64(d.RawFiles),
			sampleBytes: rawFileBytes, shapes: [][]int64{{rawFileBytes}}, column: "data",
		},
		{
			name: caseTokens, group: GroupTokens, dataset: datasetTokens, dir: d.TokensDir, format: "tokens", samples: d.TokenRows,
			sampleBytes: 2 * (tokenBlock + 1), shapes: [][]int64{{tokenBlock}, {tokenBlock}}, blockSize: tokenBlock,
		},
		tar(caseTar, datasetTar, d.Tar),
		tar(caseTarSmall, datasetTarSmall, d.TarSmall),
	}
}

// caseNamed returns a case by its name, which must be that of one.
func caseNamed(d Data, name string) dataCase {
	for _, c := range allCases(d) {
		if c.name == name {
			return c
		}
	}
	panic(fmt.Sprintf("no case is called %q", name))
}

// tarData is the shards of a case of tar shards.
func (c dataCase) tarData(d Data) TarData {
	if c.name == caseTarSmall {
		return d.TarSmall
	}
	return d.Tar
}

// groupOf returns the group of a case; "" for what belongs to all.
func groupOf(name string) string {
	for _, c := range allCases(Data{}) {
		if c.name == name {
			return c.group
		}
	}
	return ""
}

// runs tells whether a group of cases was asked for.
func (o *CompareOptions) runs(group string) bool {
	return group == "" || slices.Contains(o.Cases, group)
}

// chosenCases are those of the groups that were asked for.
func (o *CompareOptions) chosenCases(d Data) []dataCase {
	return slices.DeleteFunc(allCases(d), func(c dataCase) bool { return !o.runs(c.group) })
}

func checkGroups(cases []string) error {
	for _, group := range cases {
		if !slices.Contains(Groups(), group) {
			return fmt.Errorf("cases %q: say some of %s", group, strings.Join(Groups(), ", "))
		}
	}
	return nil
}
