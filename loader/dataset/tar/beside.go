package tar

import (
	"bytes"
	"context"
	"io"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
)

// What comes of an index beside a shard, after its kind: keys of Info.Indexes.
const (
	besideUsed   = " used"
	besideMisfit = " does not fit"
	besideOlder  = " is older than its shard"

	kindDALI    = "dali"
	kindEnergon = "energon"
)

const (
	checkedHeaders = 256       // of an index with names that are compared with the archive
	gapBlocks      = 4         // between parts, unless the headers in it are looked at
	pieceSamples   = 4096      // that are worth a walker of their own
	largeSidecar   = 8 << 20   // one of these is in memory at a time
	maxSidecar     = 256 << 20 // more are not read
	fewParts       = 64        // of a sample, for what is taken from an index
)

// sidecar is an index beside a shard. It is believed only as far as it was compared
// with the archive.
type sidecar struct {
	object  backend.Object // no name: there is none
	kind    string
	state   string // what came of it; "": nothing was tried
	dali    *DALIIndex
	energon []int64
	locked  func() // gives back the right to much memory; may be nil
}

// sidecar returns the index beside a shard, or an object without a name.
func (s *scanner) sidecar(shard string) (kind string, o backend.Object) {
	if o, ok := s.indexes[DALIName(shard)]; ok {
		return kindDALI, o
	}
	return kindEnergon, s.indexes[EnergonName(shard)]
}

// beside reads the index beside the shard.
func (w *shardWalk) beside() *sidecar {
	c := &sidecar{}
	c.kind, c.object = w.sidecar(string(w.object.Name))
	size := c.object.Version.Size
	switch {
	case c.object.Name == nil || !w.plain: // offsets in an index are those in a plain archive
		return c
	case c.object.Version.ModifiedNs < w.object.Version.ModifiedNs:
		c.state = besideOlder
		return c
	case size > maxSidecar:
		c.misfit()
		return c
	case size > largeSidecar:
		w.large.Lock()
		c.locked = w.large.Unlock
	}
	content := make([]byte, size)
	err := dataset.ReadObject(w.ctx, w.store, &c.object, content, 0)
	if err == nil && c.kind == kindDALI {
		c.dali, err = ReadDALI(content, w.object.Version.Size)
	} else if err == nil {
		c.energon, err = ReadEnergon(content, w.object.Version.Size)
	}
	c.state = besideUsed
	if err != nil { // whatever is wrong with it: the archive can be walked without
		c.misfit()
	}
	return c
}

func (c *sidecar) misfit() {
	if c.state != "" || c.object.Name != nil {
		c.state, c.dali, c.energon = besideMisfit, nil, nil
	}
}

func (c *sidecar) release() {
	if c.locked != nil {
		c.locked()
	}
}

// note says what came of the index, "" if there is none.
func (c *sidecar) note() string {
	if c.state == "" {
		return ""
	}
	return c.kind + c.state
}

// compare holds a sample against what the index says of it.
func (c *sidecar) compare(p *piece, s *Sample) {
	if p.misfits {
		return
	}
	number := p.first + int(p.encoder.about.samples)
	switch {
	case c.energon != nil:
		p.misfits = number >= len(c.energon)-1 || c.energon[number] != s.Header
	case c.dali != nil:
		p.misfits = number >= c.dali.Len() || !equalParts(c.dali.Sample(number), s.Parts)
	}
}

func equalParts(said []DALIPart, found []Part) bool {
	if len(said) != len(found) {
		return false
	}
	for i := range said {
		if said[i].Data != found[i].Data || said[i].Size != found[i].Size || !bytes.EqualFold(said[i].Suffix, found[i].Suffix) {
			return false
		}
	}
	return true
}

// ends reports whether the index ends with the last sample of a shard.
func (c *sidecar) ends(p *piece) bool {
	samples := int(p.encoder.about.samples)
	switch {
	case c.energon != nil:
		last := len(c.energon) - 1
		return samples == last && (samples == 0 || c.energon[last] == p.end)
	case c.dali != nil:
		return samples == c.dali.Len()
	}
	return true
}

// divide cuts the shard into at most n pieces of about equally many samples. None of
// them is large if there is no index that says where.
func (c *sidecar) divide(w *shardWalk, n int) []*piece {
	samples := max(0, len(c.energon)-1)
	if c.dali != nil {
		samples = c.dali.Len()
	}
	n = min(n, samples/pieceSamples)
	var pieces []*piece
	for i := range n {
		p := &piece{shard: w, beside: c, encoder: newEncoder(), first: i * samples / n, to: -1}
		if i > 0 {
			p.from = c.border(p.first)
			pieces[i-1].to = p.from
		}
		pieces = append(pieces, p)
	}
	return pieces
}

// border is the offset that sample number begins at, according to the index.
func (c *sidecar) border(number int) int64 {
	if c.energon != nil {
		return c.energon[number]
	}
	before := &c.dali.Parts[c.dali.Starts[number]-1]
	return before.Data + padded(before.Size)
}

// fromNames makes the shard's bytes of an index with names, without walking the
// archive. It returns nothing if the index does not fit.
func (w *shardWalk) fromNames(src Source, c *sidecar) (*blob, error) {
	fits, err := w.check(src, c.dali.Parts)
	if err != nil || !fits {
		return nil, err
	}
	p := &piece{shard: w, beside: &sidecar{}, encoder: newEncoder()}
	var key []byte
	flush := func() bool {
		if len(p.parts) == 0 {
			return true
		}
		err := p.encoder.add(key, p.parts)
		p.parts = p.parts[:0]
		return err == nil
	}
	for i := range c.dali.Parts {
		part := &c.dali.Parts[i]
		at := splitAt(part.Name)
		if at < 0 || Skipped(part.Name) {
			continue
		}
		if len(p.parts) > 0 && !bytes.Equal(key, part.Name[:at]) && !flush() {
			return nil, nil
		}
		key = part.Name[:at]
		suffix := appendLower(nil, part.Name[at+1:])
		if !p.fresh(suffix) {
			return nil, nil // the walk of the archive says what is wrong
		}
		p.parts = append(p.parts, located{suffix: suffix, offset: part.Data, size: part.Size})
	}
	if !flush() {
		return nil, nil
	}
	return w.finish(p, c)
}

// fresh reports whether a part may be added to the current sample.
func (p *piece) fresh(suffix []byte) bool {
	for i := range p.parts {
		if bytes.Equal(p.parts[i].suffix, suffix) {
			return false
		}
	}
	return len(p.parts) < fewParts && !Reserved(suffix)
}

// check compares an index with the archive: the headers of up to 256 members spread
// over it, the first and the last among them, those before which there is more room
// than a header with its long name takes, and the end.
//
// What it relies on besides is that members lie as ReadDALI has found them: with one
// block between two of them there is no room for anything that the index leaves out.
func (w *shardWalk) check(src Source, parts []DALIPart) (fits bool, err error) {
	walker := NewWalker(src)
	walker.Object = string(w.object.Name)
	every, end := (len(parts)+checkedHeaders-1)/checkedHeaders, int64(0)
	for i := range parts {
		part := &parts[i]
		if i%every == 0 || i == len(parts)-1 || part.Data-end > gapBlocks*blockBytes {
			if w.ctx.Err() != nil {
				return false, context.Cause(w.ctx)
			}
			walker.WalkRange(end, -1)
			m, err := nextRegular(walker)
			if err != nil {
				return false, besideError(err)
			}
			if m == nil || m.Sparse != nil || m.Data != part.Data || m.Size != part.Size || !bytes.Equal(m.Name, part.Name) {
				return false, nil
			}
		}
		end = part.Data + padded(part.Size)
	}
	walker.WalkRange(end, -1)
	m, err := nextRegular(walker)
	return m == nil && err == nil, besideError(err)
}

// nextRegular returns the next regular file of a walk, nil at the end.
func nextRegular(w *Walker) (*Member, error) {
	for {
		m, err := w.Next()
		switch {
		case err == io.EOF:
			return nil, nil
		case err != nil:
			return nil, err
		case m.Regular:
			return m, nil
		}
	}
}

// besideError drops the error of an archive that is not what its index says: the walk
// without the index finds out.
func besideError(err error) error {
	if backend.KindOf(err) == backend.Corrupt {
		return nil
	}
	return err
}
