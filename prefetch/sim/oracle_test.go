package sim

import (
	"fmt"
	"slices"

	"github.com/stokerio/stoker/prefetch"
)

// oracle keeps accounts of its own of a run: where each stream must be, and which bytes
// each node has. It fails a run in which a consumer gets a batch of which anything had
// neither been there when it asked nor come since.
type oracle struct {
	engine  *engine
	streams []oracleStream
	nodes   []oracleNode
	err     error // what went wrong first
}

type oracleNode struct {
	cache map[chunkKey]bool
	holds map[int32]sight // by number
}

type oracleStream struct {
	epoch, place, taken int64
	seeks               int
	batch               int64
	waits               bool
	lacks               []prefetch.Piece
	bytes               int64 // of all samples taken
}

// runWatched runs a world under an oracle.
func runWatched(w *World, decide func(int) Decider) (*Result, *oracle, error) {
	if err := w.Validate(); err != nil {
		return nil, nil, err
	}
	e := newEngine(w, decide)
	o := &oracle{engine: e, streams: make([]oracleStream, len(e.streams)), nodes: make([]oracleNode, len(w.Nodes))}
	for i := range o.nodes {
		o.nodes[i] = oracleNode{map[chunkKey]bool{}, map[int32]sight{}}
	}
	for i := range o.streams {
		o.streams[i].epoch, o.streams[i].place = e.streams[i].spec.Epoch, e.streams[i].spec.Place
	}
	e.watch = o.see
	r, err := e.run()
	if err == nil {
		err = o.err
	}
	return r, o, err
}

func (o *oracle) fail(format string, args ...any) {
	if o.err == nil {
		o.err = fmt.Errorf("at %d: "+format, append([]any{o.engine.now}, args...)...)
	}
}

func (o *oracle) see(s sight) {
	n := &o.nodes[s.node]
	switch s.kind {
	case asks:
		o.asks(s.stream)
	case takes:
		o.takes(s.stream)
	case arrives:
		n.holds[s.hold] = s
		o.comes(s.node, s.chunkKey, func(p prefetch.Piece) bool {
			return p.Offset >= s.offset && p.Offset+p.Bytes <= s.offset+s.bytes
		})
	case frees:
		delete(n.holds, s.hold)
	case stores:
		n.cache[s.chunkKey] = true
		o.comes(s.node, s.chunkKey, func(prefetch.Piece) bool { return true })
	case drops:
		if !n.cache[s.chunkKey] {
			o.fail("node %d drops %v, which its cache does not have", s.node, s.chunkKey)
		}
		delete(n.cache, s.chunkKey)
	}
}

// asks checks which samples a consumer wants, and finds what of them is not there.
func (o *oracle) asks(index int32) {
	s, real := &o.streams[index], &o.engine.streams[index]
	spec := real.spec
	for ; s.seeks < len(spec.Seeks) && spec.Seeks[s.seeks].After <= s.taken; s.seeks++ {
		s.epoch, s.place = spec.Seeks[s.seeks].Epoch, spec.Seeks[s.seeks].Place
	}
	s.batch = int64(len(real.samples))
	want := spec.Order.At(s.epoch, s.place, s.batch, nil)
	if s.waits || s.batch < 1 || s.batch > max(1, spec.Batch) || !slices.Equal(real.samples, want) {
		o.fail("stream %d asks for %v, want %v at %d of epoch %d (it waits: %v)", index, real.samples, want, s.place, s.epoch, s.waits)
	}
	pieces, _, err := real.layout.Pieces(want, nil, nil)
	if err != nil {
		o.fail("%v", err)
	}
	s.waits, s.lacks = true, s.lacks[:0]
	n := &o.nodes[spec.Node]
	for _, p := range pieces {
		s.bytes += p.Bytes
		key := chunkKey{int32(spec.Dataset), p.Chunk}
		there := n.cache[key]
		for _, h := range n.holds {
			there = there || h.chunkKey == key && p.Offset >= h.offset && p.Offset+p.Bytes <= h.offset+h.bytes
		}
		if !there {
			s.lacks = append(s.lacks, p)
		}
	}
}

// comes takes what a node has now off what its streams lack.
func (o *oracle) comes(node int32, key chunkKey, covers func(prefetch.Piece) bool) {
	for i := range o.streams {
		spec := o.engine.streams[i].spec
		if int32(spec.Node) == node && int32(spec.Dataset) == key.dataset {
			o.streams[i].lacks = slices.DeleteFunc(o.streams[i].lacks, func(p prefetch.Piece) bool { return p.Chunk == key.chunk && covers(p) })
		}
	}
}

// takes checks that all of a batch had come.
func (o *oracle) takes(index int32) {
	s, spec := &o.streams[index], o.engine.streams[index].spec
	if !s.waits || len(s.lacks) > 0 {
		o.fail("stream %d takes a batch (asked for: %v) that lacks %v", index, s.waits, s.lacks)
	}
	s.waits = false
	s.taken += s.batch
	if s.place += s.batch; s.place == spec.Order.Len(s.epoch) {
		s.epoch, s.place = s.epoch+1, 0
	}
}

// check holds what the run says against the oracle's accounts.
func (o *oracle) check(w *World, r *Result) error {
	at := 0
	for i := range w.Jobs {
		for k := range w.Jobs[i].Streams {
			s, had := &o.streams[at], &r.Jobs[i].Streams[k]
			at++
			bytes := had.UsedBytes()
			if had.Samples != s.taken || bytes != s.bytes {
				return fmt.Errorf("job %d, stream %d took %d samples and %d bytes, want %d and %d", i, k, had.Samples, bytes, s.taken, s.bytes)
			}
		}
	}
	for i := range w.Nodes {
		held := int64(0)
		for key := range o.nodes[i].cache {
			held += w.Datasets[key.dataset].Layout.ChunkBytes(key.chunk)
		}
		if n := &r.Nodes[i]; n.CacheBytes != held || held > w.Nodes[i].CacheBytes || n.LostBytes > n.DroppedBytes {
			return fmt.Errorf("node %d: cache with %d bytes, want %d, at most %d: %+v", i, n.CacheBytes, held, w.Nodes[i].CacheBytes, *n)
		}
	}
	return nil
}
