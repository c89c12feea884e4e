package backend_test

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
)

func TestChunkIDsAreHexadecimalInJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := backend.ContentID(rapid.SliceOf(rapid.Byte()).Draw(t, "content"))
		text, err := json.Marshal(want)
		if err != nil || string(text) != `"`+want.String()+`"` {
			t.Fatalf("%s, %v", text, err)
		}
		var got backend.ChunkID
		if err := json.Unmarshal(text, &got); err != nil || got != want {
			t.Fatalf("%v, %v, want %v", got, err, want)
		}
	})
}

func TestWhatIsNoChunkIDIsRefusedAndChangesNothing(t *testing.T) {
	before := backend.ContentID(nil)
	for _, text := range []string{"", "00", strings.Repeat("0", 63), strings.Repeat("0", 65), strings.Repeat("0", 63) + "g", strings.Repeat("é", 32)} {
		id := before
		if err := id.UnmarshalText([]byte(text)); err == nil || id != before {
			t.Errorf("%q: %v, %v", text, id, err)
		}
	}
}
