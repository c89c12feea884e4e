package shm

import "encoding/json"

// Message types of hints.
const (
	TypeHint     = "hint"      // announces what will be read; answered by hinted
	TypeHintInfo = "hint_info" // asks how far a hint of this connection is; answered by hinted
	TypeHintEnd  = "hint_end"  // ends it; answered by hinted, as it was then
	TypeHinted   = "hinted"
)

// HintRequest announces what will be read of a dataset. Hint is the object that the HTTP
// API takes, without a lease: the hint lives as long as the connection. Indices that do
// not fit the message lie in the file or memfd whose descriptor comes along, from its
// beginning on: so many int64, little-endian.
type HintRequest struct {
	Type    string          `json:"type"`
	Hint    json.RawMessage `json:"hint"`
	Indices int64           `json:"indices,omitempty"`
}

// HintReference names a hint of this connection, for TypeHintInfo and TypeHintEnd.
type HintReference struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

// HintAnswer carries a hint as the HTTP API describes it.
type HintAnswer struct {
	Type string          `json:"type"`
	Hint json.RawMessage `json:"hint"`
}
