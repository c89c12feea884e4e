package shm

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// hintVectors is testdata/hints-v1.json: the messages of hints as both languages write
// them, and the bytes of a list of indices.
type hintVectors struct {
	Messages []any   `json:"messages"`
	Indices  []int64 `json:"indices"`
	List     []byte  `json:"list"` // base64
}

func makeHintVectors() hintVectors {
	v := hintVectors{Indices: []int64{0, 1, 258, 1<<40 + 7}}
	v.Messages = []any{
		HintRequest{Type: TypeHint, Hint: json.RawMessage(`{"dataset":"pets","indices":[3,1,2],"samples_per_second":640.5}`)},
		HintRequest{Type: TypeHint, Hint: json.RawMessage(`{"dataset":"pets","priority":2.0}`), Indices: int64(len(v.Indices))},
		HintRequest{Type: TypeHint, Hint: json.RawMessage(`{"dataset":"text","block_size":1024,"sampler":{"kind":"torch","seed":18446744073709551615,"rank":1,"world_size":2,"batch_size":8,"drop_last":true},` +
			`"window":{"from":64,"count":128},"deadline_seconds":10.0,"budget_bytes":1048576}`)},
		HintRequest{Type: TypeHint, Hint: json.RawMessage(`{"dataset":"pets","files":[{"path":"cats/1.jpg"},{"path":"dogs/2.jpg","offset":4096,"length":512}]}`)},
		HintReference{Type: TypeHintInfo, ID: "h-7"},
		HintReference{Type: TypeHintEnd, ID: "h-7"},
		HintAnswer{Type: TypeHinted, Hint: json.RawMessage(`{"id":"h-7","dataset":"pets","kind":"indices","client":{"pid":4711,"uid":1000},"created_at":"2026-11-22T18:00:00Z",` +
			`"state":"active","samples":3,"bytes":300,"resident_bytes":100,"resident_share":0.25,"estimated":false,"budget_bytes":4096,"fetch_bytes":200,` +
			`"fetched_bytes":0,"ready_samples":1,"read_share":0.5,"ready_at":"2026-11-22T18:00:09.5Z"}`)},
	}
	for _, index := range v.Indices {
		v.List = binary.LittleEndian.AppendUint64(v.List, uint64(index))
	}
	return v
}

func TestHintsAreWhatTheCommittedVectorsSay(t *testing.T) {
	text, err := json.MarshalIndent(makeHintVectors(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	path := filepath.Join("testdata", "hints-v1.json")
	if *update {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(committed, text) {
		t.Errorf("%s differs from what the code writes", path)
	}
}
