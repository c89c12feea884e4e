package flash_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/backend/flash/flashtest"
)

// tiny is a device in memory: segments of four spans of 64 KiB.
func tiny(files *flashtest.Files) flash.Device {
	return flash.Device{Path: "/in-memory", LimitBytes: 4 << 20, SpanBytes: 64 << 10, SegmentSpans: 4, Files: files}
}

// bytesOf are the bytes of the chunk of a number, which tells all chunks of a test apart.
// They are not to be changed.
func bytesOf(number uint64, size int) []byte { return contentOf(number, size).bytes }

// putOf and filledOf are chunks that are put and filled.
func putOf(number uint64, size int) backend.Chunk {
	return backend.Chunk{ID: contentOf(number, size).id, Size: int64(size)}
}

// content is that of a chunk.
type content struct {
	id    backend.ChunkID
	bytes []byte
}

// made are contents: to make them takes longer than to store them.
var made sync.Map

func contentOf(number uint64, size int) content {
	key := [2]uint64{number, uint64(size)}
	if c, found := made.Load(key); found {
		return c.(content)
	}
	p := make([]byte, size)
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], number)
	_, _ = rand.NewChaCha8(seed).Read(p)
	c := content{backend.ContentID(p), p}
	made.Store(key, c)
	return c
}

func filledOf(number uint64, size int) backend.Chunk {
	return backend.Chunk{
		Object: &backend.Object{Origin: "file:1:2", Name: fmt.Appendf(nil, "object-%d", number), Version: backend.Version{Size: int64(size)}},
		Size:   int64(size),
	}
}

// fact is what a witness knows of a chunk.
type fact struct {
	number uint64
	chunk  backend.Chunk
	put    bool // Put returned, and no Delete began since
}

// tester is what a witness needs of a test, whose repetitions may be rapid's.
type tester interface {
	Helper()
	Error(arguments ...any)
	Errorf(format string, arguments ...any)
	Fatal(arguments ...any)
	Fatalf(format string, arguments ...any)
	Cleanup(do func())
}

// witness uses stores and knows what they must have.
type witness struct {
	t       tester
	lenient bool // calls may fail
	mu      struct {
		sync.Mutex
		facts  map[backend.ChunkID]fact
		events []flash.Event
	}
}

func newWitness(t tester) *witness {
	w := &witness{t: t}
	w.mu.facts = map[backend.ChunkID]fact{}
	return w
}

// copy knows what w knows now.
func (w *witness) copy() *witness { return w.copyFor(w.t) }

func (w *witness) copyFor(t tester) *witness {
	c := newWitness(t)
	w.mu.Lock()
	defer w.mu.Unlock()
	c.mu.facts = maps.Clone(w.mu.facts)
	return c
}

// options are those of a store whose events it hears.
func (w *witness) options(devices ...flash.Device) flash.Options {
	return flash.Options{Devices: devices, Event: func(e flash.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.mu.events = append(w.mu.events, e)
	}}
}

func (w *witness) open(devices ...flash.Device) *flash.Store {
	w.t.Helper()
	s, err := flash.Open(context.Background(), w.options(devices...))
	if err != nil {
		w.t.Fatalf("open: %v", err)
	}
	return s
}

func (w *witness) close(s *flash.Store) {
	w.t.Helper()
	if err := s.Close(); err != nil {
		w.t.Errorf("close: %v", err)
	}
}

// heard is how many events of a kind there were.
func (w *witness) heard(k flash.EventKind) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.mu.events {
		if e.Kind == k {
			n++
		}
	}
	return n
}

func (w *witness) expect(k flash.EventKind) {
	w.t.Helper()
	if w.heard(k) == 0 {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.t.Errorf("no event %s; there were %v", k, w.mu.events)
	}
}

// must fails the test for what cannot fail, and for errors that are of no kind.
func (w *witness) must(err error) {
	w.t.Helper()
	if err != nil && !(w.lenient && (backend.KindOf(err) == backend.Unavailable || backend.KindOf(err) == backend.NoSpace)) {
		w.t.Error(err)
	}
}

func (w *witness) set(number uint64, c backend.Chunk, put bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := c.Identity()
	w.mu.facts[id] = fact{number, c, put}
}

func (w *witness) knows(c backend.Chunk) (f fact, found bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f, found = w.mu.facts[c.Identity()]
	return f, found
}

// put puts the chunk of a number.
func (w *witness) put(ctx context.Context, s *flash.Store, number uint64, size int) error {
	c := putOf(number, size)
	if f, found := w.knows(c); !found || !f.put {
		w.set(number, c, false)
	}
	id, err := s.Put(ctx, bytesOf(number, size))
	if err == nil {
		if id != c.ID {
			w.t.Errorf("put of %v answers %v", c.ID, id)
		}
		w.set(number, c, true)
	}
	return err
}

// fill fills the chunk of a number, from off on.
func (w *witness) fill(ctx context.Context, s *flash.Store, number uint64, size int, off int64) error {
	c := filledOf(number, size)
	w.set(number, c, false)
	return s.FillRange(ctx, c, off, bytesOf(number, size)[off:])
}

func (w *witness) delete(ctx context.Context, s *flash.Store, c backend.Chunk) error {
	if f, found := w.knows(c); found {
		w.set(f.number, c, false)
	}
	return s.Delete(ctx, c)
}

func (w *witness) facts() []fact {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.SortedFunc(maps.Values(w.mu.facts), func(a, b fact) int { return int(a.number) - int(b.number) })
}

// verdict is what reading a chunk came to.
type verdict struct {
	fact
	err error
}

// read reads all chunks: none may have other bytes than were stored.
func (w *witness) read(s *flash.Store) (all []verdict) {
	w.t.Helper()
	for _, f := range w.facts() {
		p := make([]byte, f.chunk.Size)
		err := readOne(s, f, p)
		if err == nil && !bytes.Equal(p, bytesOf(f.number, int(f.chunk.Size))) {
			w.t.Errorf("chunk %d: other bytes than were stored", f.number)
		}
		all = append(all, verdict{f, err})
	}
	return all
}

// readOne reads a chunk, every second one as a gather does.
func readOne(s *flash.Store, f fact, p []byte) error {
	ctx := context.Background()
	if f.number%2 == 0 {
		return s.ReadAt(ctx, f.chunk, p, 0)
	}
	half := len(p) / 2
	return s.Gather(ctx, []backend.Read{{Chunk: f.chunk, Offset: int64(half), P: p[half:]}, {Chunk: f.chunk, P: p[:half]}}, nil)
}

// check reads all chunks: those that were put must be whole, the others may be missing.
func (w *witness) check(s *flash.Store) {
	w.t.Helper()
	for _, v := range w.read(s) {
		kind := backend.KindOf(v.err)
		switch {
		case v.err == nil:
		case v.put:
			w.t.Errorf("chunk %d of %d bytes, which was put: %v", v.number, v.chunk.Size, v.err)
		case kind == backend.NotFound:
		case kind == backend.Corrupt && v.chunk.Object == nil: // a crash came while it was put
		default:
			w.t.Errorf("chunk %d of %d bytes: %v", v.number, v.chunk.Size, v.err)
		}
	}
	w.list(s)
}

// list checks that everything that the store lists was stored.
func (w *witness) list(s *flash.Store) {
	w.t.Helper()
	w.mu.Lock()
	known := maps.Clone(w.mu.facts)
	w.mu.Unlock()
	err := s.List(context.Background(), func(i backend.Info) error {
		if f, found := known[i.Chunk.ID]; !found || f.chunk.Size != i.Chunk.Size {
			return fmt.Errorf("it lists %v of %d bytes, which was never stored", i.Chunk.ID, i.Chunk.Size)
		}
		return nil
	})
	if err != nil {
		w.t.Error(err)
	}
}

// goesOn uses a store after something happened to it: what was put before is put again,
// and is whole then; other chunks are put, filled and read.
func (w *witness) goesOn(s *flash.Store) {
	w.t.Helper()
	ctx := context.Background()
	for _, f := range w.facts() {
		if f.chunk.Object != nil {
			continue
		}
		if err := w.put(ctx, s, f.number, int(f.chunk.Size)); err != nil {
			w.t.Errorf("put chunk %d again: %v", f.number, err)
		}
	}
	const first = 1 << 40
	for i := range uint64(3) {
		if err := w.put(ctx, s, first+i, 5000+int(i)); err != nil {
			w.t.Errorf("put: %v", err)
		}
		if err := w.fill(ctx, s, first+100+i, 9000+int(i), 0); err != nil {
			w.t.Errorf("fill: %v", err)
		}
	}
	w.check(s)
	if err := s.ReadAt(ctx, filledOf(first+102, 9002), make([]byte, 9002), 0); err != nil {
		w.t.Errorf("what was filled last: %v", err)
	}
}
