package flash

import (
	"encoding/hex"
	"encoding/json"
	"testing"
	"time"
)

// FuzzScrubState reads scrub.json as anybody may have written it: what is believed is
// bounded, and is written as it was read.
func FuzzScrubState(f *testing.F) {
	var id deviceID
	whole := scrubState{Format: scrubFormat, Device: hex.EncodeToString(id[:]), Began: time.Unix(1, 0).UTC(), At: scrubPlace{1, 2, 3}, Damaged: []ScrubDamage{{Put: true}}}
	text, err := json.Marshal(&whole)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(text), "", "{}", "null", `{"format":"stoker-flash-scrub-1","at":{"segment":-1}}`, `{"damaged":[{"chunk":"00"}]}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := decodeScrub(text, id)
		if err != nil {
			if s.Format != "" || len(s.Damaged) > 0 || s.inPass() {
				t.Errorf("something of what was refused is believed: %+v", s)
			}
			return
		}
		if len(s.Damaged) > scrubKept || s.Device != hex.EncodeToString(id[:]) {
			t.Errorf("%+v", s)
		}
		again, err := json.Marshal(&s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeScrub(again, id); err != nil {
			t.Errorf("what was read cannot be written: %v", err)
		}
	})
}
