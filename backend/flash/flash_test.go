package flash_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/backendtest"
	"github.com/stokerio/stoker/backend/flash"
)

// small is a device of little room, in real files.
func small(t testing.TB) flash.Device {
	return flash.Device{Path: t.TempDir(), LimitBytes: 256 << 20, SpanBytes: 16 << 20, SegmentSpans: 4}
}

func open(t testing.TB, o flash.Options) *flash.Store {
	t.Helper()
	s, err := flash.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// harness stores the contents by Put and Fill in turn.
func harness(options func(t testing.TB) flash.Options) backendtest.Harness {
	return backendtest.Harness{New: func(t testing.TB, contents [][]byte) (backend.Store, []backend.Chunk) {
		s := open(t, options(t))
		chunks := make([]backend.Chunk, len(contents))
		for i, content := range contents {
			if i%2 == 0 {
				id, err := s.Put(context.Background(), content)
				if err != nil {
					t.Fatal(err)
				}
				chunks[i] = backend.Chunk{ID: id, Size: int64(len(content))}
				continue
			}
			chunks[i] = backend.Chunk{
				Object: &backend.Object{Origin: "file:1:2", Name: fmt.Appendf(nil, "shard-%d", i), Version: backend.Version{Size: int64(len(content))}},
				Size:   int64(len(content)),
			}
			if err := s.Fill(context.Background(), chunks[i], content); err != nil {
				t.Fatal(err)
			}
		}
		return s, chunks
	}}
}

func TestStore(t *testing.T) {
	for name, options := range map[string]func(t testing.TB) flash.Options{
		"one device":  func(t testing.TB) flash.Options { return flash.Options{Devices: []flash.Device{small(t)}} },
		"two devices": func(t testing.TB) flash.Options { return flash.Options{Devices: []flash.Device{small(t), small(t)}} },
	} {
		t.Run(name, func(t *testing.T) { backendtest.Run(t, harness(options)) })
	}
}

func TestStoreWrapped(t *testing.T) {
	h := harness(func(t testing.TB) flash.Options { return flash.Options{Devices: []flash.Device{small(t)}} })
	bare := h.New
	h.New = func(t testing.TB, contents [][]byte) (backend.Store, []backend.Chunk) {
		s, chunks := bare(t, contents)
		return backendtest.Wrap(s), chunks
	}
	backendtest.Run(t, h)
}
