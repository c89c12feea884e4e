//go:build cgo && linux

package cufile

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stokerio/stoker/cufile/stub"
)

// Many goroutines call what they like on what they share. The stand-ins abort where
// memory goes under a read or a handle is used after its end.
func TestGoroutinesCannotBreakTheOrder(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	path, _ := randomFile(t, 1<<20)
	for round := range 10 {
		slabs := []*Slab{r.slab(g, 1<<20), r.slab(g, 1<<20)}
		var files []*File
		for range 2 {
			f, err := d.OpenFile(path, FileOptions{})
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		var group sync.WaitGroup
		for worker := range 8 {
			group.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(round), uint64(worker)))
				s := &sequence{r: r, rng: rng, path: path, content: make([]byte, 1<<12), d: d, slabs: slabs, files: files}
				for range 50 {
					s.shared()
				}
			})
		}
		group.Wait()
		(&sequence{r: r, slabs: slabs, files: files, d: d}).closeShared()
	}
	r.close(g, d)
}

// shared is one step on what other goroutines use as well.
func (s *sequence) shared() {
	slab, f := s.slabs[s.rng.IntN(2)], s.files[s.rng.IntN(2)]
	switch s.rng.IntN(12) {
	case 0:
		s.check(slab.Register())
	case 1:
		s.check(slab.Unregister())
	case 2:
		s.check(slab.CopyIn(s.content, 1<<19)) // beside the reads: both at one place are the caller's mistake
	case 3:
		if e, err := slab.Export(); !s.check(err) {
			s.r.close(e)
		}
	case 4:
		if s.rng.IntN(20) == 0 {
			s.check(slab.Close())
			s.check(f.Close())
		}
	case 5:
		s.check(s.d.Close()) // always in use
	default:
		_, err := f.ReadAt(slab, 0, Alignment*(1+s.rng.IntN(64)), Alignment*s.rng.Int64N(128))
		s.check(err)
	}
}

func (s *sequence) closeShared() {
	for _, f := range s.files {
		s.check(f.Close())
	}
	for _, slab := range s.slabs {
		s.check(slab.Close())
	}
}

func TestNothingIsLeftInTheTemporaryFolder(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	r := newRig(t, stub.V1_15)
	d := r.open()
	r.close(r.gpu(d), d)
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "*")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
