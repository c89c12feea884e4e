package tar

import (
	"encoding/binary"
	"fmt"

	"github.com/stokerio/stoker/backend"
)

// EnergonName returns where the index of a shard by Megatron Energon is looked for.
func EnergonName(shard string) string { return shard + ".idx" }

// ReadEnergon decodes the index of an archive of that many bytes as Megatron Energon
// writes it (energon: flavors/webdataset/itar.py): little-endian uint64, for each
// sample the offset of its first header, and at last the offset behind the last
// member. What it returns could be true: offsets are multiples of 512, ascend and lie
// within the archive. Whether it is must be seen in the archive. Errors: Corrupt.
func ReadEnergon(b []byte, size int64) ([]int64, error) {
	if len(b) == 0 || len(b)%8 != 0 {
		return nil, badEnergon("%d bytes, expected 8 for each sample and for the end", len(b))
	}
	offsets := make([]int64, len(b)/8)
	for i := range offsets {
		at := binary.LittleEndian.Uint64(b[8*i:])
		if at > uint64(size) || at%blockBytes != 0 || i > 0 && int64(at) <= offsets[i-1] {
			return nil, badEnergon("entry %d of %d is %d, expected multiples of 512 that ascend and are at most the archive's %d bytes", i, len(offsets), at, size)
		}
		offsets[i] = int64(at)
	}
	return offsets, nil
}

func badEnergon(format string, args ...any) error {
	return &backend.Error{Kind: backend.Corrupt, Op: "read", Object: "Energon index", Detail: fmt.Sprintf(format, args...), Remedy: remedyIndex}
}
