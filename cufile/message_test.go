package cufile

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"
)

// vectors are testdata/slab-message.json, which Python reads too.
type vectors struct {
	Accepted []struct {
		Name        string
		Hex         string
		Kind        SlabKind
		Bytes       int64
		MappedBytes int64 `json:"mapped_bytes"`
		Granularity int64
		Device      string
		PID         int
		Handle      string
	}
	Refused []struct{ Name, Hex string }
}

func slabVectors(t testing.TB) vectors {
	t.Helper()
	text, err := os.ReadFile("testdata/slab-message.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Accepted) == 0 || len(v.Refused) == 0 {
		t.Fatal("slab-message.json has no vectors")
	}
	return v
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	raw, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestSlabMessageIsWhatTheVectorsSay(t *testing.T) {
	for _, v := range slabVectors(t).Accepted {
		want := Export{Kind: v.Kind, Bytes: v.Bytes, MappedBytes: v.MappedBytes, Granularity: v.Granularity, Process: v.PID}
		copy(want.Device[:], unhex(t, v.Device))
		copy(want.Handle[:], unhex(t, v.Handle))
		got, err := decodeExport(unhex(t, v.Hex))
		if err != nil || got != want {
			t.Errorf("%s: decoded %+v, %v, want %+v", v.Name, got, err, want)
		}
		encoded := want.encode()
		if hex.EncodeToString(encoded[:]) != v.Hex {
			t.Errorf("%s: encoded %x, want %s", v.Name, encoded, v.Hex)
		}
	}
}

func TestSlabMessageRefusesWhatNoExporterMakes(t *testing.T) {
	for _, v := range slabVectors(t).Refused {
		if e, err := decodeExport(unhex(t, v.Hex)); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: decoded %+v, %v, want ErrMessage", v.Name, e, err)
		}
	}
}

func FuzzSlabMessage(f *testing.F) {
	v := slabVectors(f)
	for _, accepted := range v.Accepted {
		f.Add(unhex(f, accepted.Hex))
	}
	for _, refused := range v.Refused {
		f.Add(unhex(f, refused.Hex))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		e, err := decodeExport(message)
		if err != nil {
			return
		}
		if again := e.encode(); !bytes.Equal(again[:], message) {
			t.Errorf("encoded %x, want %x", again, message)
		}
	})
}
