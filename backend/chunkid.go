package backend

import (
	"encoding/hex"
	"fmt"
)

// MarshalText implements encoding.TextMarshaler: 64 hexadecimal digits.
func (id ChunkID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ChunkID) UnmarshalText(text []byte) error {
	if len(text) != 2*len(id) {
		return fmt.Errorf("a chunk's name has %d hexadecimal digits, not %d", 2*len(id), len(text))
	}
	var read ChunkID
	if _, err := hex.Decode(read[:], text); err != nil {
		return fmt.Errorf("a chunk's name: %w", err)
	}
	*id = read
	return nil
}
