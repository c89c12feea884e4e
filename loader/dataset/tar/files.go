package tar

import (
	"fmt"

	"github.com/stokerio/stoker/loader/dataset"
)

// Files names the files beside an index, in its directory, that hold archives and
// sparse members in seekable form: what must be kept as long as the index is.
// Errors: Corrupt or Unavailable for the index.
func Files(idx *dataset.Index) ([]string, error) {
	var scratch []byte
	var files []string
	for i := range idx.Len() {
		r, err := idx.Record(i, &scratch)
		if err != nil {
			return nil, err
		}
		about, err := decodeDescription(r.Extra)
		if err != nil {
			return nil, idx.CorruptIndex(fmt.Sprintf("record %d, %q: %v", i, r.Name, err))
		}
		for _, tag := range []string{r.Version.Tag, about.expanded.Tag} {
			if name, ok := SeekableFiles(tag); ok {
				files = append(files, name)
			}
		}
	}
	return files, nil
}
