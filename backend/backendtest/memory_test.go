package backendtest_test

import (
	"context"
	"testing"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/backendtest"
)

func memoryHarness(wrap func(backend.Store) backend.Store) backendtest.Harness {
	return backendtest.Harness{New: func(t testing.TB, contents [][]byte) (backend.Store, []backend.Chunk) {
		memory := backendtest.NewMemory()
		var chunks []backend.Chunk
		for _, content := range contents {
			id, err := memory.Put(context.Background(), content)
			if err != nil {
				t.Fatal(err)
			}
			chunks = append(chunks, backend.Chunk{ID: id, Size: int64(len(content))})
		}
		return wrap(memory), chunks
	}}
}

func TestMemory(t *testing.T) {
	backendtest.Run(t, memoryHarness(func(s backend.Store) backend.Store { return s }))
}

func TestMemoryWrapped(t *testing.T) {
	backendtest.Run(t, memoryHarness(func(s backend.Store) backend.Store { return backendtest.Wrap(s) }))
}

func BenchmarkMemory(b *testing.B) {
	backendtest.Benchmark(b, memoryHarness(func(s backend.Store) backend.Store { return s }))
}
