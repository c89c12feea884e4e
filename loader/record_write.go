package loader

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/order"
	"github.com/stokerio/stoker/prefetch"
	"github.com/stokerio/stoker/prefetch/trace"
)

// recordingBeat is how long what was written may wait to be sent, and how often a
// recording of which nothing comes says that it lives: so a client that went is noticed.
const recordingBeat = 250 * time.Millisecond

// recordedSession is a session as a trace defines it. It holds its dataset until
// release.
type recordedSession struct {
	number  int64
	view    dataset.View
	dataset trace.Dataset
	session trace.Session
	release func()
}

func newRecordedSession(s *session) *recordedSession {
	s.dataset.hold()
	s.dataset.watch()
	r, info := &s.request, &s.dataset.info
	text := fmt.Sprintf("%s, seed %d", r.Order, r.Seed)
	if order.Kind(r.Order) == order.Sequential {
		text = r.Order
	}
	return &recordedSession{
		number: s.number, view: s.source.view, release: s.dataset.unwatch,
		dataset: trace.Dataset{Name: r.Dataset, IndexID: info.IndexID, Samples: s.source.view.Len(), Bytes: info.Bytes},
		session: trace.Session{
			Job: r.JobID, BatchSize: int64(s.share.BatchSize), Order: text, Rank: int64(s.share.Rank), WorldSize: int64(s.share.WorldSize),
		},
	}
}

// recordedDataset is a dataset of a trace. Its chunks are pieces of objects, of at most
// backend.MaxChunkBytes each, numbered through.
type recordedDataset struct {
	number int
	firsts []int64 // the first chunk of each object; nil: objects are chunks
}

// recordedCut says which datasets of sessions are one in a trace: views of one index
// that divide it into as many samples.
type recordedCut struct {
	name, index string
	samples     int64
}

// recorder writes a recording. One goroutine uses it.
type recorder struct {
	*recording
	out      api.Sink
	trace    *trace.Writer
	datasets map[recordedCut]*recordedDataset
	sessions map[int64]recordedAs
	batches  []*recordedBatch // being written
	read     trace.Read
	wrote    bool // something since the last beat
	lost     trace.Lost
}

// recordedAs is how a session is known in the trace.
type recordedAs struct {
	number  int
	dataset *recordedDataset
}

// Run implements api.Recording.
func (r *recording) Run(ctx context.Context, out api.Sink) error {
	defer r.end()
	node, err := os.Hostname()
	if err != nil {
		node = ""
	}
	w, err := trace.NewWriter(out, trace.Header{Start: r.began, Node: node})
	if err != nil {
		return err
	}
	p := &recorder{recording: r, out: out, trace: w, datasets: map[recordedCut]*recordedDataset{}, sessions: map[int64]recordedAs{}}
	beat := time.NewTicker(recordingBeat)
	defer beat.Stop()
	for err = p.send(); err == nil; {
		select {
		case <-ctx.Done():
			return p.finish()
		case <-r.wake:
			err = p.drain()
		case <-beat.C:
			err = p.beat()
		}
	}
	return err
}

// finish writes what is left, and the end.
func (p *recorder) finish() error {
	err := p.drain()
	if err == nil {
		err = p.markLost()
	}
	if err == nil {
		err = p.trace.Close()
	}
	if err == nil {
		err = p.out.Flush()
	}
	return err
}

// beat sends what was written, or a mark if nothing was.
func (p *recorder) beat() error {
	if !p.wrote || p.lost != (trace.Lost{}) {
		if err := p.markLost(); err != nil {
			return err
		}
	}
	p.wrote = false
	return p.send()
}

// markLost writes a mark, with what was lost since the last one.
func (p *recorder) markLost() error {
	lost := p.lost
	p.lost = trace.Lost{}
	p.node.recordings.lost.Add(lost.Samples)
	return p.trace.Mark(p.since(p.node.clock.Now()), lost)
}

func (p *recorder) send() error {
	if err := p.trace.Flush(); err != nil {
		return err
	}
	return p.out.Flush()
}

// since is a time of the node's clock, from the beginning of the recording on.
func (p *recorder) since(at uint64) time.Duration { return time.Duration(int64(at) - int64(p.clock)) }

// drain writes all that is ready. What was lost was lost after it.
func (p *recorder) drain() error {
	p.mu.Lock()
	news, batches, lost := p.mu.news, p.mu.ready, p.mu.lost
	p.mu.news, p.mu.ready, p.mu.lost = nil, p.batches[:0], trace.Lost{}
	p.mu.Unlock()
	p.batches = batches
	for i, s := range news {
		if err := p.define(s); err != nil {
			for _, rest := range news[i+1:] {
				rest.release()
			}
			return err
		}
	}
	for i, b := range batches {
		if err := p.write(b); err != nil {
			return err
		}
		batches[i] = nil
	}
	p.lost.Reads += lost.Reads
	p.lost.Samples += lost.Samples
	return nil
}

// define writes what a session is, and its dataset unless that is known. A session that
// the trace has no room for is not written.
func (p *recorder) define(s *recordedSession) error {
	defer s.release()
	cut := recordedCut{s.dataset.Name, s.dataset.IndexID, s.dataset.Samples}
	d := p.datasets[cut]
	if d == nil {
		d = &recordedDataset{}
		s.dataset.Chunks, d.firsts = chunksOf(s.view)
		var err error
		if d.number, err = p.trace.Dataset(s.dataset); err != nil {
			return p.refused(err)
		}
		p.datasets[cut] = d
	}
	s.session.Dataset = d.number
	number, err := p.trace.Session(s.session)
	if err != nil {
		return p.refused(err)
	}
	p.sessions[s.number] = recordedAs{number, d}
	return nil
}

// refused is nil if the trace can go on: what it was given does not fit, and the reads
// of it will be counted as lost.
func (p *recorder) refused(err error) error {
	if broken := p.trace.Flush(); broken != nil {
		return broken
	}
	p.node.log.Warn("recording leaves something out", "error", err)
	return nil
}

// countedObjects bounds the objects of which the first chunks are remembered.
const countedObjects = 1 << 22

// chunksOf numbers the chunks of a View's objects. Where most objects are samples, or
// there are very many, or one cannot be told, objects are chunks.
func chunksOf(view dataset.View) (chunks int64, firsts []int64) {
	objects := view.Objects()
	_, largest := view.SampleBytes()
	if objects == view.Len() && largest <= backend.MaxChunkBytes || objects > countedObjects {
		return objects, nil
	}
	var scratch []byte
	firsts = make([]int64, objects)
	for number := range objects {
		firsts[number] = chunks
		o, err := view.Object(number, &scratch)
		if err != nil || o.Version.Size < 0 || o.Version.Size > trace.MaxNumber-chunks {
			return objects, nil
		}
		chunks += max(1, (o.Version.Size+backend.MaxChunkBytes-1)/backend.MaxChunkBytes)
	}
	return chunks, firsts
}

// write writes a batch and gives its room back.
func (p *recorder) write(b *recordedBatch) error {
	as, known := p.sessions[b.session]
	err := error(nil)
	if known {
		p.read.At, p.read.Session, p.read.Epoch, p.read.Position = p.since(b.at), as.number, b.epoch, b.position
		p.read.Accesses = b.accesses(as.dataset, p.read.Accesses[:0])
		err = p.trace.Read(&p.read)
	}
	switch {
	case known && err == nil:
		p.node.recordings.accesses.Add(int64(len(p.read.Accesses)))
		p.wrote = true
	default:
		p.lost.Reads++
		p.lost.Samples += int64(len(b.samples))
		if err != nil {
			err = p.refused(err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.pieces -= b.room
	p.mu.free = append(p.mu.free, b)
	return err
}

// accesses appends what a batch read, sample by sample. Pieces of a sample that lie close
// together in a chunk are one access.
func (b *recordedBatch) accesses(d *recordedDataset, accesses []trace.Access) []trace.Access {
	slices.SortStableFunc(b.pieces, func(x, y recordedPiece) int { return cmp.Compare(x.row, y.row) })
	for i := 0; i < len(b.pieces); {
		from, row := len(accesses), b.pieces[i].row
		empty := accessOf(d, &b.pieces[i], b.samples[row])
		for ; i < len(b.pieces) && b.pieces[i].row == row; i++ {
			if piece := &b.pieces[i]; piece.bytes > 0 {
				accesses = addAccess(accesses, from, accessOf(d, piece, b.samples[row]))
			}
		}
		if len(accesses) == from { // a sample without bytes is one all the same
			accesses = append(accesses, empty)
		}
	}
	return accesses
}

// accessOf is the access to one piece.
func accessOf(d *recordedDataset, p *recordedPiece, sample int64) trace.Access {
	a := trace.Access{Sample: sample, Chunk: p.object, Offset: p.offset, Bytes: int64(p.bytes), Waited: time.Duration(p.waitNs)}
	if d.firsts != nil {
		within := p.offset / backend.MaxChunkBytes
		a.Chunk, a.Offset = d.firsts[p.object]+within, p.offset-within*backend.MaxChunkBytes
	}
	if p.waitNs > 0 {
		a.Source = prefetch.Origin
	}
	return a
}

// addAccess appends an access, or widens the one of accesses[from:] that it lies close
// to, as addPiece does.
func addAccess(accesses []trace.Access, from int, a trace.Access) []trace.Access {
	for i := from; i < len(accesses); i++ {
		near := &accesses[i]
		start, end := min(near.Offset, a.Offset), max(near.Offset+near.Bytes, a.Offset+a.Bytes)
		if near.Chunk == a.Chunk && end-start <= near.Bytes+a.Bytes+nearGap {
			near.Offset, near.Bytes = start, end-start
			near.Source, near.Waited = max(near.Source, a.Source), max(near.Waited, a.Waited)
			return accesses
		}
	}
	a.Further = len(accesses) > from
	return append(accesses, a)
}
