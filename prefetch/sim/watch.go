package sim

// sight is what a watcher of a run sees happen.
type sight struct {
	kind sightKind
	node int32
	chunkKey
	stream, hold  int32
	offset, bytes int64
}

// sightKind is what happens, and to what.
type sightKind uint8

const (
	asks    sightKind = iota // stream: the consumer wants the batch of stream.samples
	takes                    // stream: it has it
	arrives                  // hold: the node's memory has these bytes of the chunk
	frees                    // hold: it no longer has
	stores                   // chunk: the node's cache has it
	drops                    // chunk: it no longer has
)

// see tells the watcher, if there is one: a test that keeps accounts of its own.
func (e *engine) see(s sight) {
	if e.watch != nil {
		e.watch(s)
	}
}

func (e *engine) seeStream(kind sightKind, s *stream) {
	e.see(sight{kind: kind, node: int32(s.spec.Node), stream: s.index})
}

func (e *engine) seeHold(kind sightKind, at int32) {
	h := e.holds.at(at)
	e.see(sight{kind: kind, node: h.node, chunkKey: h.chunkKey, stream: h.stream, hold: at, offset: h.offset, bytes: h.bytes})
}
