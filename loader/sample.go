package loader

import (
	"time"

	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/shm"
)

// sample answers a request for one sample by number, whoever asks and whatever
// sessions there are: the bytes travel in a sealed memfd of their own.
func (c *connection) sample(request shm.SampleRequest) error {
	held, err := c.node.registry.acquire(request.Dataset)
	if err != nil {
		return err
	}
	defer held.release()
	view, err := held.view(cut{blockSize: request.BlockSize, columns: request.Select, missing: request.Missing})
	if err != nil {
		return err
	}
	if err := sameIndex(request.Dataset, request.IndexID, view); err != nil {
		return err
	}
	if err := withinDataset(request.Dataset, request.Index, view); err != nil {
		return err
	}
	source := newSource(view, held.bytes)
	f := &filler{source: &source, samples: []int64{request.Index}}
	return c.sendSample(held, f, request.Index)
}

func (c *connection) sendSample(held *attached, f *filler, number int64) error {
	bytes, err := f.prepare()
	if err != nil {
		return err
	}
	if limit := c.node.options.Session.BatchBytesMax; bytes > limit {
		return limitFailure("size of one sample", limit, "bytes", "raise session.batch_bytes_max in stokerd's configuration")
	}
	if err := c.account(bytes); err != nil {
		return err
	}
	memory, err := shm.NewMemory("stoker-sample", bytes)
	if err != nil {
		return ringFailure(err, bytes)
	}
	c.conn.Hand(memory)
	if _, err := f.fill(c.ctx, memory.Bytes()); err != nil {
		return err
	}
	c.node.hints.read(held, f)
	file, key, err := f.source.view.Key(number)
	if err != nil {
		return err
	}
	answer := shm.SampleAnswer{
		Type: shm.TypeSample, SampleKey: sampleKey(file, key), Samples: f.source.view.Len(), IndexID: f.source.view.ID(),
		Columns: sampleColumns(f), Bytes: bytes,
	}
	return c.conn.Send(answer, patience, memory.FD())
}

// account replaces what the connection's last sample took of the node's budget by
// what the next one takes.
func (c *connection) account(bytes int64) error {
	c.node.budget.give(c.sampleBytes)
	c.sampleBytes = 0
	if err := c.node.budget.take(bytes); err != nil {
		return err
	}
	c.sampleBytes = bytes
	return nil
}

// sampleColumns describes the single row that f holds.
func sampleColumns(f *filler) []shm.SampleColumn {
	specs := columnSpecs(f.source)
	columns := make([]shm.SampleColumn, len(specs))
	for i, spec := range specs {
		entry, shape := f.table[i], spec.Shape
		if spec.Ragged {
			shape = []int64{int64(entry.ValuesBytes) / dataset.DType(spec.DType).Size()}
		}
		columns[i] = shm.SampleColumn{
			Name: spec.Name, DType: spec.DType, Shape: shape,
			Offset: int64(entry.ValuesOffset), Bytes: int64(entry.ValuesBytes),
		}
	}
	return columns
}

// columnSpecs describes the columns of a source's batches, without the sample numbers.
func columnSpecs(s *source) []shm.ColumnSpec {
	specs := make([]shm.ColumnSpec, 0, s.tableColumns())
	for _, columns := range [][]dataset.Column{s.columns, s.valueColumns} {
		for _, c := range columns {
			shape := c.Shape
			if shape == nil {
				shape = []int64{}
			}
			specs = append(specs, shm.ColumnSpec{Name: c.Name, DType: string(c.DType), Shape: shape, Ragged: c.Ragged})
		}
	}
	return specs
}

// takeBound is how long one look at the ring may sleep on behalf of a trainer.
const takeBound = 100 * time.Millisecond

// next sends the next entry over the socket, for trainers that cannot map the ring.
func (c *connection) next(request shm.Next) error {
	s := c.session
	if s.taker == nil {
		return invalid("type", shm.TypeNext, "open the session with transport \"socket\"")
	}
	if request.Waited != nil {
		s.waited.addTransform(request.Waited, time.Since(s.opened))
	}
	asked := s.clock.Now()
	for c.ctx.Err() == nil && !c.conn.PeerGone() {
		over := s.over() // asked first: what was published before is still there to take
		if e, ok := s.taker.Take(takeBound); ok {
			if e.Kind == shm.KindBatch {
				s.waited.add(attribute(asked, s.clock.Now(), &e), &e)
			}
			return c.sendEntry(&e)
		}
		if over {
			return &shm.Failure{
				Code: "conflict", Where: "session " + s.id, What: "the session ended with the error that it has sent",
				Remedy: "seek to the place to go on from, or open another session",
			}
		}
	}
	return nil // the connection ends; its loop says why
}

func (c *connection) sendEntry(e *shm.Entry) error {
	s := c.session
	defer s.taker.Release(*e)
	payload := s.taker.Slot(*e)
	if e.Flags&shm.FlagOversized != 0 {
		defer s.settle(e.Slot, false)
		payload = s.large.of(e.Slot).Bytes()[:e.Bytes]
	}
	note := shm.BatchAnswer{Type: shm.TypeBatch, EntryBytes: shm.EntryBytes, Bytes: int64(len(payload))}
	if err := c.send(note); err != nil {
		return err
	}
	return c.sendCut(shm.EncodeEntry(e), payload)
}

// sendCut sends head and body as one stream of packets of RawPacketBytes.
func (c *connection) sendCut(head, body []byte) error {
	packet := make([]byte, 0, shm.RawPacketBytes)
	packet = append(packet, head...)
	for {
		n := min(len(body), shm.RawPacketBytes-len(packet))
		packet = append(packet, body[:n]...)
		if err := c.conn.SendRaw(packet, patience); err != nil {
			return err
		}
		if body = body[n:]; len(body) == 0 {
			return nil
		}
		packet = packet[:0]
	}
}
