package tar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/stokerio/stoker/backend"
)

// shardWalk finds out what one shard holds.
type shardWalk struct {
	*scanner
	ctx    context.Context //nolint:containedctx // of the one call that it lives for
	object *backend.Object

	spare *encoder // of a shard before, to be renewed
	plain bool     // not compressed

	bytes, samples atomic.Int64 // reported
}

// walk returns the shard's bytes of the index.
func (w *shardWalk) walk() (*blob, error) {
	a, err := openArchive(w.ctx, w.store, w.object, w.dir)
	if err != nil {
		return w.unreadable(err)
	}
	w.plain = a.Kind == kindTar
	b, err := w.walkArchive(a.Source)
	if closed := a.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return w.unreadable(err)
	}
	b.about.archive = a.Kind
	b.about.source = withoutDevice(w.object.Version)
	if !w.plain {
		b.about.unpacked = a.Object.Version
	}
	return b.encoded()
}

// unreadable is what becomes of a shard of which nothing can be kept.
func (w *shardWalk) unreadable(err error) (*blob, error) {
	reason := SkippedDamaged
	switch {
	case w.opts.Bad != BadSkip:
		return nil, err
	case errors.Is(err, errKinds):
		reason = SkippedKinds
	case backend.KindOf(err) == backend.Invalid:
		reason = SkippedUnsupported
	case backend.KindOf(err) != backend.Corrupt:
		return nil, err
	}
	b, err := newEncoder().finish()
	if err != nil {
		return nil, err
	}
	b.about.source = withoutDevice(w.object.Version)
	_, sidecar := w.sidecar(string(w.object.Name))
	b.about.sidecar = withoutDevice(sidecar.Version)
	b.about.skipped = []skip{{reason, 1}}
	return b.encoded()
}

// encoded encodes the description anew, after it was completed.
func (b *blob) encoded() (*blob, error) {
	b.description = b.about.encode(nil)
	if len(b.description) > maxDescription {
		return nil, fmt.Errorf("%w: %d names of parts, %d lists of them", errKinds, len(b.about.suffixes), len(b.about.shapes))
	}
	return b, nil
}

// explain completes the error of a shard that ends a scan.
func (w *shardWalk) explain(err error) error {
	if errors.Is(err, errKinds) {
		err = &backend.Error{Kind: backend.Invalid, Op: "index", Object: string(w.object.Name), Err: err,
			Remedy: "a part is named by what follows the first dot of the file name: write '0001-a.jpg' instead of '0001.a.jpg'; or leave the shard out with --bad skip"}
	}
	var e *backend.Error
	if errors.As(err, &e) && e.Kind == backend.Corrupt {
		if e.Object == "" {
			e.Object = string(w.object.Name)
		}
		if e.Remedy == "" {
			e.Remedy = remedyDamage
		} else {
			e.Remedy += "; " + remedyDamage
		}
	}
	return err
}

// walkArchive walks an archive: all of its headers, whatever an index beside it says.
// That serves to let several walkers begin at once.
func (w *shardWalk) walkArchive(src Source) (*blob, error) {
	beside := w.beside()
	defer beside.release()
	if pieces := beside.divide(w, w.pieces()); len(pieces) > 1 {
		b, err := w.walkPieces(pieces, beside)
		if b != nil || err != nil {
			return b, err
		}
		beside.misfit()
	}
	w.spare = w.spare.renewed()
	p := &piece{shard: w, beside: beside, encoder: w.spare, to: -1}
	if err := p.walk(src); err != nil {
		return nil, err
	}
	if err := w.expand(src, p); err != nil {
		return nil, err
	}
	return w.finish(p, beside)
}

// finish ends the walk of a whole shard.
func (w *shardWalk) finish(p *piece, beside *sidecar) (*blob, error) {
	if !p.complete() {
		beside.misfit()
	}
	p.encoder.about.skipped = p.skips()
	p.encoder.about.beside, p.encoder.about.sidecar = beside.note(), withoutDevice(beside.object.Version)
	return p.encoder.finish()
}

// pieces is into how many pieces a shard may be divided so that no walker is idle.
func (s *scanner) pieces() int { return s.walkers / max(1, len(s.shards)) }

// expand writes the file of the shard's sparse members, if it has any.
func (w *shardWalk) expand(src Source, p *piece) error {
	if len(p.sparse) == 0 {
		return nil
	}
	object, offsets, err := expandSparse(w.ctx, src, p.sparse, w.dir, w.object)
	if err != nil {
		return err
	}
	at := int64(0)
	for i := range p.sparse {
		if offsets[i] != at {
			return fmt.Errorf("expand sparse members of %q: member %d is at %d, expected %d", w.object.Name, i, offsets[i], at)
		}
		at += p.sparse[i].Size
	}
	p.encoder.about.expanded = object.Version
	return nil
}

// piece walks a part of an archive, or all of it.
type piece struct {
	shard   *shardWalk
	beside  *sidecar
	encoder *encoder
	from    int64            // offset of the header to begin with
	to      int64            // and of the one to end before, -1: the end of the archive
	first   int              // number of the piece's first sample in the index beside
	sparse  []sparsePart     // in the order of the archive, in which they are expanded
	runs    int              // of them
	end     int64            // of the last part
	endOf   int64            // of the last sparse part, in the expanded file
	counts  map[string]int64 // samples left out, by reason
	misfits bool             // the index beside says something else

	bytes, samples int64     // reported
	parts          []located // scratch
}

// walk reads the samples of the piece from src.
func (p *piece) walk(src Source) error {
	w := NewWalker(src)
	w.Object = string(p.shard.object.Name)
	w.WalkRange(p.from, p.to)
	samples := NewSamples(w)
	for count := int64(1); ; count++ {
		s, err := p.next(w, samples)
		if err != nil {
			p.report(w.Offset())
			if err == io.EOF {
				return nil
			}
			return p.damaged(w, err)
		}
		if err := p.add(s); err != nil {
			return err
		}
		if count%reportAfter == 0 {
			if p.shard.ctx.Err() != nil {
				return context.Cause(p.shard.ctx)
			}
			p.report(w.Offset())
		}
	}
}

// next returns the next sample. Samples that cannot be right are errors, or left out.
func (p *piece) next(w *Walker, samples *Samples) (*Sample, error) {
	leaving, key := false, "" // of the sample that is being left out
	for {
		s, err := samples.Next()
		if err == nil {
			if leaving && string(s.Key) == key { // the rest of it
				continue
			}
			return s, nil
		}
		fault := w.Fault()
		reason, perSample := reasons[fault.Code]
		if p.shard.opts.Bad != BadSkip || err == io.EOF || !perSample {
			return nil, err
		}
		if !leaving || fault.Key != key {
			p.leave(reason)
		}
		leaving, key = true, fault.Key
		w.WalkRange(w.Offset(), p.to)
		samples.Reset()
	}
}

// reasons are those for faults that concern one sample only.
var reasons = map[FaultCode]string{
	FaultDuplicate: SkippedDuplicate,
	FaultReserved:  SkippedReserved,
	FaultParts:     SkippedParts,
}

// damaged is what becomes of an error that ends the walk.
func (p *piece) damaged(w *Walker, err error) error {
	if p.shard.opts.Bad != BadSkip || backend.KindOf(err) != backend.Corrupt {
		return err
	}
	if w.Fault().Code == FaultEmpty {
		p.leave(SkippedEmpty)
	} else {
		p.leave(SkippedDamaged)
	}
	return nil
}

func (p *piece) leave(reason string) {
	if p.counts == nil {
		p.counts = map[string]int64{}
	}
	p.counts[reason]++
	p.misfits = true
}

// add takes a sample.
func (p *piece) add(s *Sample) error {
	p.beside.compare(p, s)
	p.parts = p.parts[:0]
	for i := range s.Parts {
		part := &s.Parts[i]
		at := located{suffix: part.Suffix, offset: part.Data, size: part.Size}
		if part.Sparse != nil {
			if p.runs += len(part.Sparse); p.runs > maxShardRuns {
				return p.tooManyRuns()
			}
			p.sparse = append(p.sparse, sparsePart{Size: part.Size, Runs: slices.Clone(part.Sparse)})
			at.expanded, at.offset = true, p.endOf
			p.endOf += part.Size
		}
		p.parts = append(p.parts, at)
		p.end = part.Data + padded(part.Stored)
	}
	err := p.encoder.add(s.Key, p.parts)
	if err != nil && !errors.Is(err, errKinds) {
		err = &backend.Error{Kind: backend.Corrupt, Op: "index", Object: string(p.shard.object.Name), Err: err}
	}
	return err
}

// tooManyRuns is the error for a shard whose sparse members would take too much memory.
func (p *piece) tooManyRuns() error {
	return &backend.Error{
		Kind: backend.Invalid, Op: "index", Object: string(p.shard.object.Name),
		Detail: fmt.Sprintf("its sparse members have more than %d runs of bytes between their holes", maxShardRuns),
		Remedy: "write the archive again without --sparse, or in smaller shards; or leave it out with --bad skip",
	}
}

// complete reports whether the index beside the shard speaks of the samples that were
// found, and of no others.
func (p *piece) complete() bool { return !p.misfits && p.beside.ends(p) }

// skips returns what was left out, in an order that does not change.
func (p *piece) skips() []skip {
	var list []skip
	for _, reason := range []string{SkippedEmpty, SkippedDamaged, SkippedDuplicate, SkippedReserved, SkippedParts} {
		if n := p.counts[reason]; n > 0 {
			list = append(list, skip{reason, n})
		}
	}
	return list
}

// report tells how far the piece is.
func (p *piece) report(offset int64) {
	w := p.shard
	if !w.plain {
		offset = p.from // offsets say little about the compressed bytes
	}
	bytes, samples := offset-p.from-p.bytes, p.encoder.about.samples-p.samples
	p.bytes += bytes
	p.samples += samples
	w.bytes.Add(bytes)
	w.samples.Add(samples)
	w.scanner.report(0, bytes, samples)
}

// walkPieces walks the pieces of a shard at once and joins them. It returns nothing
// if they turn out not to be those of the archive, or something is wrong with it: the
// walk of the whole says what.
func (w *shardWalk) walkPieces(pieces []*piece, beside *sidecar) (*blob, error) {
	failures := make([]error, len(pieces))
	var wait sync.WaitGroup
	for i, p := range pieces {
		wait.Go(func() { failures[i] = p.open() })
	}
	wait.Wait()
	if w.ctx.Err() != nil {
		return nil, context.Cause(w.ctx)
	}
	whole := &piece{shard: w, beside: beside, encoder: newEncoder()}
	var last []byte // key
	for i, p := range pieces {
		if err := failures[i]; err != nil && backend.KindOf(err) != backend.Corrupt && !errors.Is(err, ErrRange) && !errors.Is(err, errKinds) {
			return nil, err
		} else if err != nil || p.misfits || len(p.sparse) > 0 {
			return nil, nil
		}
		if err := whole.join(p, &last); errors.Is(err, errDivided) || errors.Is(err, errKinds) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
	}
	if !whole.complete() {
		return nil, nil
	}
	return w.finish(whole, beside)
}

// errDivided is the error for a sample that lies in two pieces.
var errDivided = errors.New("a sample is divided")

// join appends the samples of the piece that follows. last is the key of the sample
// before them.
func (p *piece) join(next *piece, last *[]byte) error {
	b, err := next.encoder.finish()
	if err != nil {
		return err
	}
	first := p.encoder.about.samples > 0
	err = b.each(func(key []byte, parts []located) error {
		if first && bytes.Equal(key, *last) {
			return errDivided
		}
		first = false
		*last = append((*last)[:0], key...)
		return p.encoder.add(key, parts)
	})
	p.end = next.end
	return err
}

// open walks a piece through a Source of its own.
func (p *piece) open() error {
	w := p.shard
	a, err := openArchive(w.ctx, w.store, w.object, w.dir)
	if err != nil {
		return err
	}
	err = p.walk(a)
	if closed := a.Close(); err == nil {
		err = closed
	}
	return err
}
