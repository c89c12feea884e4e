package flash_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/backend/flash/flashtest"
)

// world is what a model test varies.
type world struct {
	spanBytes int64
	limit     int64
	chunks    int // different ones
	sizes     func(n int) int
	steps     int // of one check
}

// model drives a store and knows what it may answer: a chunk that was put is there until it
// is deleted, one that was filled may be missing, and no byte is ever another.
type model struct {
	*rapid.T
	world  world
	store  *flash.Store
	files  []*flashtest.Files // of each device
	limits []int64
	put    map[int]bool // must be there
	held   []located
	fault  *flashtest.Fault // was injected since the store was opened: calls may fail
	faulty int              // the device of fault
}

// named are files with a path of their own, so that a Location tells whose they are.
type named struct {
	*flashtest.Files
	path string
}

func (n named) Path(name string) string { return n.path + "/" + name }

// located is a place that Locate named.
type located struct {
	number int
	r      backend.Range
	at     backend.Location
	files  *flashtest.Files
	name   string
}

func (m *model) size(n int) int { return m.world.sizes(n) }

// chunk is the one of a number: even ones are named by their content, odd ones by their
// origin. Both can be filled, and only the former put.
func (m *model) chunk(n int) backend.Chunk {
	if n%2 == 0 {
		return putOf(uint64(n), m.size(n))
	}
	return filledOf(uint64(n), m.size(n))
}

func (m *model) bytes(n int) []byte { return bytesOf(uint64(n), m.size(n)) }

func (m *model) devices() (all []flash.Device) {
	for i, f := range m.files {
		all = append(all, m.device(i, f))
	}
	return all
}

func (m *model) device(i int, f *flashtest.Files) flash.Device {
	path := fmt.Sprintf("/device-%d", i)
	return flash.Device{Path: path, LimitBytes: m.limits[i], SpanBytes: m.world.spanBytes, SegmentSpans: 4, Files: named{f, path}}
}

func (m *model) open() {
	if m.fault != nil {
		m.fault.End()
		if m.fault.Fired() > 0 && errors.Is(m.fault.Err, unix.EROFS) {
			// A file system that turned read-only is unmounted before it is written again: what
			// it had not written is gone, in the page cache as well.
			m.files[m.faulty] = m.files[m.faulty].Crash(flashtest.Nothing)
		}
		m.fault = nil
	}
	s, err := flash.Open(context.Background(), flash.Options{Devices: m.devices()})
	if err != nil {
		m.Fatalf("open: %v", err)
	}
	m.store = s
}

// allow fails for an error that cannot be at this time; it reports whether there was none.
func (m *model) allow(what string, n int, err error, kinds ...backend.Kind) bool {
	if err == nil {
		return true
	}
	if m.fault != nil {
		kinds = append(kinds, backend.Unavailable)
	}
	for _, k := range kinds {
		if backend.KindOf(err) == k {
			return false
		}
	}
	m.Fatalf("%s of chunk %d of %d bytes: %v", what, n, m.size(n), err)
	return false
}

// absent are the kinds of errors of reading a chunk that may be missing; one that was put
// and deleted, or whose Put was cut off, may come back damaged after a crash.
func (m *model) absent(n int) []backend.Kind {
	if m.put[n] {
		return nil
	}
	return []backend.Kind{backend.NotFound, backend.Corrupt}
}

func (m *model) number() int { return rapid.IntRange(0, m.world.chunks-1).Draw(m.T, "chunk") }

func (m *model) rangeOf(n int) backend.Range {
	off := rapid.IntRange(0, m.size(n)).Draw(m.T, "off")
	return backend.Range{Offset: int64(off), Length: int64(rapid.IntRange(0, m.size(n)-off).Draw(m.T, "length"))}
}

func (m *model) same(what string, n int, r backend.Range, found []byte) {
	if !bytes.Equal(found, m.bytes(n)[r.Offset:r.Offset+r.Length]) {
		m.Fatalf("%s of chunk %d, %d bytes from %d: other bytes than were stored", what, n, r.Length, r.Offset)
	}
}

var background = context.Background()

func (m *model) Put() {
	n := m.number() &^ 1
	id, err := m.store.Put(background, m.bytes(n))
	if m.allow("put", n, err, backend.NoSpace) {
		if id != m.chunk(n).ID {
			m.Fatalf("put of chunk %d answers %v", n, id)
		}
		m.put[n] = true
	}
}

func (m *model) Fill() {
	n := m.number()
	m.allow("fill", n, m.store.Fill(background, m.chunk(n), m.bytes(n)), backend.NoSpace)
}

func (m *model) FillRange() {
	n := m.number()
	blocks := (m.size(n) + backend.BlockBytes - 1) / backend.BlockBytes
	from := rapid.IntRange(0, blocks).Draw(m.T, "from block")
	to := rapid.IntRange(from, blocks).Draw(m.T, "to block")
	off, end := min(m.size(n), from*backend.BlockBytes), min(m.size(n), to*backend.BlockBytes)
	if off%backend.BlockBytes != 0 {
		return // behind the last block
	}
	m.allow("fill of a range", n, m.store.FillRange(background, m.chunk(n), int64(off), m.bytes(n)[off:end]), backend.NoSpace)
}

func (m *model) Delete() {
	n := m.number()
	delete(m.put, n)
	m.allow("delete", n, m.store.Delete(background, m.chunk(n)))
}

func (m *model) ReadAt() {
	n := m.number()
	r := m.rangeOf(n)
	p := make([]byte, r.Length)
	if m.allow("read", n, m.store.ReadAt(background, m.chunk(n), p, r.Offset), m.absent(n)...) {
		m.same("read", n, r, p)
	}
}

func (m *model) Gather() {
	reads := make([]backend.Read, rapid.IntRange(1, 6).Draw(m.T, "reads"))
	numbers := make([]int, len(reads))
	missing := false
	for i := range reads {
		n := m.number()
		r := m.rangeOf(n)
		numbers[i] = n
		reads[i] = backend.Read{Chunk: m.chunk(n), Offset: r.Offset, P: make([]byte, r.Length)}
		missing = missing || !m.put[n]
	}
	var kinds []backend.Kind
	if missing {
		kinds = []backend.Kind{backend.NotFound, backend.Corrupt}
	}
	if !m.allow("gather", numbers[0], backend.Gather(background, m.store, reads, nil), kinds...) {
		return
	}
	for i, r := range reads {
		m.same("gather", numbers[i], backend.Range{Offset: r.Offset, Length: int64(len(r.P))}, r.P)
	}
}

func (m *model) Stat() {
	n := m.number()
	i, err := m.store.Stat(background, m.chunk(n))
	if !m.allow("stat", n, err, m.absent(n)...) {
		return
	}
	if i.Chunk.Size != int64(m.size(n)) || i.Bytes > i.Chunk.Size || m.put[n] && i.Bytes != i.Chunk.Size {
		m.Fatalf("stat of chunk %d of %d bytes: %+v", n, m.size(n), i)
	}
}

func (m *model) List() {
	there := map[backend.ChunkID]int64{}
	err := m.store.List(background, func(i backend.Info) error {
		if _, found := there[i.Chunk.ID]; found {
			return fmt.Errorf("%v is listed twice", i.Chunk.ID)
		}
		there[i.Chunk.ID] = i.Chunk.Size
		return nil
	})
	if err != nil {
		m.Fatal(err)
	}
	for n := range m.world.chunks {
		id := m.chunk(n).Identity()
		size, found := there[id]
		if !found && m.put[n] {
			m.Fatalf("chunk %d was put and is not listed", n)
		}
		if found && size != int64(m.size(n)) {
			m.Fatalf("chunk %d of %d bytes is listed with %d", n, m.size(n), size)
		}
		delete(there, id)
	}
	if len(there) > 0 {
		m.Fatalf("%d chunks are listed that never were", len(there))
	}
}

func (m *model) Locate() {
	n := m.number()
	r := m.rangeOf(n)
	at, err := m.store.Locate(background, m.chunk(n), r)
	if !m.allow("locate", n, err, m.absent(n)...) {
		return
	}
	for i, f := range m.files {
		if name, found := strings.CutPrefix(at.Path, fmt.Sprintf("/device-%d/", i)); found {
			m.held = append(m.held, located{n, r, at, f, name})
		}
	}
	m.unchanged(&m.held[len(m.held)-1])
}

// unchanged checks that what is held is where it was.
func (m *model) unchanged(h *located) {
	p, err := h.read()
	if err != nil && m.fault != nil {
		return
	}
	if err != nil {
		m.Fatalf("what is held of chunk %d: %v", h.number, err)
	}
	m.same("what is held", h.number, h.r, p)
}

// read reads what is there, past the store.
func (h *located) read() ([]byte, error) {
	f, err := h.files.Open(h.name, false)
	if err != nil {
		return nil, err
	}
	p := make([]byte, h.r.Length)
	if _, err := f.ReadAt(p, h.at.Offset); err != nil && h.r.Length > 0 {
		return nil, errors.Join(err, f.Close())
	}
	return p, f.Close()
}

// Release checks that what is held is still where it was.
func (m *model) Release() {
	if len(m.held) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.held)-1).Draw(m.T, "hold")
	h := m.held[i]
	m.held = append(m.held[:i], m.held[i+1:]...)
	m.unchanged(&h)
	h.at.Release()
}

func (m *model) Wait() {
	time.Sleep(time.Duration(rapid.IntRange(1, 3000).Draw(m.T, "ms")) * time.Millisecond)
}

func (m *model) SetLimit() {
	i := rapid.IntRange(0, len(m.files)-1).Draw(m.T, "device")
	m.limits[i] = m.world.limit * rapid.Int64Range(1, 4).Draw(m.T, "quarters") / 4
	if err := m.store.SetLimit(fmt.Sprintf("/device-%d", i), m.limits[i]); err != nil {
		m.Fatal(err)
	}
}

func (m *model) AddDevice() {
	if len(m.files) == 3 || len(m.files) > 0 && rapid.IntRange(0, 3).Draw(m.T, "rarely") > 0 {
		return
	}
	m.files, m.limits = append(m.files, flashtest.New()), append(m.limits, m.world.limit)
	last := len(m.files) - 1
	if err := m.store.AddDevice(background, m.device(last, m.files[last])); err != nil {
		m.Fatal(err)
	}
}

// letGo releases all holds.
func (m *model) letGo() {
	for _, h := range m.held {
		h.at.Release()
	}
	m.held = nil
}

// Reopen closes the store and opens it. Half of the holds outlast it.
func (m *model) Reopen() {
	late := rapid.Bool().Draw(m.T, "released after close")
	if !late {
		m.letGo()
	}
	if err := m.store.Close(); err != nil && m.fault == nil {
		m.Fatalf("close: %v", err)
	}
	m.letGo()
	m.open()
}

// Crash loses power.
func (m *model) Crash() {
	seed := rapid.Uint64().Draw(m.T, "loss")
	synctest.Wait() // all devices lose it at one moment
	left := make([]*flashtest.Files, len(m.files))
	for i, f := range m.files {
		loss := flashtest.Some(rand.New(rand.NewPCG(seed, uint64(i))))
		switch seed % 4 {
		case 0:
			loss = flashtest.Nothing
		case 1:
			loss = flashtest.Everything
		}
		left[i] = f.Crash(loss)
	}
	m.letGo()
	_ = m.store.Close()
	m.files = left
	m.open()
}

// Fault makes a few writes, syncs or reads of a device fail. So few that it stays in use.
func (m *model) Fault() {
	if m.fault != nil {
		return
	}
	kinds := []flashtest.Kind{
		flashtest.Write, flashtest.Sync, flashtest.Allocate, flashtest.Create, flashtest.Remove, flashtest.Rename, flashtest.SyncDirectory, flashtest.Read,
	}
	k := rapid.SampledFrom(kinds).Draw(m.T, "kind")
	i := rapid.IntRange(0, len(m.files)-1).Draw(m.T, "device")
	m.faulty = i
	m.fault = m.files[i].Add(flashtest.Fault{
		Kinds: []flashtest.Kind{k}, After: rapid.IntRange(0, 5).Draw(m.T, "after"), Times: 1, Short: rapid.IntRange(0, 4096).Draw(m.T, "short"),
		Err: rapid.SampledFrom([]error{nil, nil, unix.EROFS, unix.ENOSPC}).Draw(m.T, "error"),
	})
}

// verify checks that the store agrees with itself.
func (m *model) verify() {
	synctest.Wait()
	for m.store.Settle() {
		synctest.Wait()
	}
	synctest.Wait()
	if err := m.store.Invariants(); err != nil {
		m.Fatal(err)
	}
}

// empty deletes everything: all room must come back.
func (m *model) empty() {
	m.Reopen()
	for n := range m.world.chunks {
		if err := m.store.Delete(background, m.chunk(n)); err != nil {
			m.Fatal(err)
		}
	}
	time.Sleep(5 * time.Second)
	m.verify()
	if used, all := m.store.Spans(); used > 0 {
		m.Fatalf("everything is deleted, and %d of %d spans are in use", used, all)
	}
}

// step does something; what happens often comes often.
func (m *model) step() {
	common := []func(){m.Put, m.Fill, m.Fill, m.FillRange, m.Delete, m.ReadAt, m.ReadAt, m.Gather, m.Locate, m.Release, m.Release, m.Stat}
	rare := []func(){m.List, m.Wait, m.Wait, m.Wait, m.SetLimit, m.AddDevice, m.Reopen, m.Crash, m.Fault, m.verify}
	if i := rapid.IntRange(0, len(common)*4).Draw(m.T, "what"); i < len(common)*4 {
		common[i/4]()
	} else {
		rapid.SampledFrom(rare).Draw(m.T, "rarely")()
	}
}

// timeless is a test without a deadline: there is none in a bubble of virtual time.
type timeless struct{ testing.TB }

func (w world) check(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(timeless{t}, func(t *rapid.T) {
			m := &model{T: t, world: w, put: map[int]bool{}, files: []*flashtest.Files{flashtest.New()}, limits: []int64{w.limit}}
			m.open()
			defer func() {
				m.letGo()
				_ = m.store.Close()
			}()
			for range w.steps {
				m.step()
			}
			m.empty()
		})
	})
}

// The steps below times the checks that rapid does, a hundred, are a million.

func TestModelOfSmallChunks(t *testing.T) {
	sizes := []int{100, 4095, 4096, 4097, 12000, 20000, 32768, 40000, 65536}
	world{
		spanBytes: 64 << 10, limit: 3 << 20, chunks: 120, steps: 9800,
		sizes: func(n int) int {
			if n < 2 { // of equal contents there is one chunk
				return n
			}
			return sizes[n*7%len(sizes)]
		},
	}.check(t)
}

func TestModelOfChunksOfSeveralBlocks(t *testing.T) {
	sizes := []int{70000, 300 << 10, 1 << 20, 1<<20 + 1, 3<<20 - 5, 4 << 20}
	world{
		spanBytes: 4 << 20, limit: 40 << 20, chunks: 24, steps: 200,
		sizes: func(n int) int { return sizes[n*5%len(sizes)] },
	}.check(t)
}
