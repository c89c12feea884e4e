package tokens

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/internal/dirstore"
)

// memory is a store of two objects in memory.
type memory struct {
	dirstore.Store
	objects map[string][]byte
}

func (m memory) Objects(_ context.Context, visit func(backend.Object) error, _ func([]byte, string)) error {
	for name, content := range m.objects {
		err := visit(backend.Object{Origin: "memory", Name: []byte(name), Version: backend.Version{Size: int64(len(content))}})
		if err != nil {
			return err
		}
	}
	return nil
}

func (m memory) ReadAt(_ context.Context, c backend.Chunk, p []byte, off int64) error {
	content := m.objects[string(c.Object.Name)][c.Start:][:c.Size]
	copy(p, content[off:][:len(p)]) // panics if the caller reads outside, which a fuzz target must see
	return nil
}

// object describes one of m's objects.
func (m memory) object(name string) *backend.Object {
	return &backend.Object{Name: []byte(name), Version: backend.Version{Size: int64(len(m.objects[name]))}}
}

// checkFile holds what an inspection found against the size of the file.
func checkFile(t *testing.T, f File, size int) {
	t.Helper()
	if f.DType.Size() == 0 || f.Start < 0 || f.Tokens < 0 || f.Start+f.Tokens*f.DType.Size() > int64(size) {
		t.Fatalf("%+v in a file of %d bytes", f, size)
	}
}

func FuzzMegatronIndex(f *testing.F) {
	for _, name := range []string{"megatron/a", "megatron/b", "megatron-modes/text"} {
		f.Add(committed()[name+".bin"], committed()[name+".idx"])
	}
	f.Fuzz(func(t *testing.T, bin, idx []byte) {
		m := memory{objects: map[string][]byte{"a.bin": bin, "a.idx": idx}}
		if file, err := Inspect(context.Background(), m, m.object("a.bin"), m.object("a.idx"), ""); err == nil {
			checkFile(t, file, len(bin))
		}
	})
}

func FuzzTokenFile(f *testing.F) {
	for name, content := range committed() {
		if filepath.Ext(name) == ".bin" {
			f.Add(content, "uint16")
		}
	}
	f.Add(committed()["megatron/a.idx"], "")
	f.Fuzz(func(t *testing.T, bin []byte, dtype string) {
		m := memory{objects: map[string][]byte{"a.bin": bin}}
		if file, err := Inspect(context.Background(), m, m.object("a.bin"), nil, dataset.DType(dtype)); err == nil {
			checkFile(t, file, len(bin))
		}
	})
}

func FuzzScan(f *testing.F) {
	c := committed()
	f.Add("a.bin", c["megatron/a.bin"], "a.idx", c["megatron/a.idx"], "**/*.bin", int64(3))
	f.Add("x/a.bin", c["llmc/gpt2.bin"], "x/b.bin", c["llmc/gpt2.bin"], "x/{a..b,*}.bin", int64(20))
	f.Add("a", c["nanogpt/val.bin"], ".b", c["nanogpt/train.bin"], "?", int64(1))
	f.Fuzz(func(t *testing.T, nameA string, a []byte, nameB string, b []byte, include string, block int64) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		m := memory{objects: map[string][]byte{nameA: a, nameB: b}}
		info, err := Scan(context.Background(), m, Options{Include: []string{include}}, dir, nil)
		if err != nil {
			return
		}
		idx, err := dataset.OpenIndex(dataset.IndexPath(dir, info.ID))
		if err != nil {
			t.Fatal(err)
		}
		defer idx.Close()
		v, err := Open(idx, ViewOptions{BlockSize: block})
		if err != nil {
			if kind := backend.KindOf(err); kind != backend.OutOfRange {
				t.Fatal(err)
			}
			return
		}
		var p dataset.Plan
		for row := range min(v.Len(), 50) {
			if err := v.Plan(&p, []int64{row, v.Len() - 1 - row}); err != nil {
				t.Fatal(err)
			}
			for _, part := range p.Parts {
				o := p.Objects[part.Object]
				if part.Offset < 0 || part.Length <= 0 || part.Offset+part.Length > o.Version.Size {
					t.Fatalf("row %d: %+v of %d bytes", row, part, o.Version.Size)
				}
			}
		}
	})
}
