package tar

import (
	"bytes"

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
	pieceSamples = 4096      // that are worth a walker of their own
	largeSidecar = 8 << 20   // one of these is in memory at a time
	maxSidecar   = 256 << 20 // more are not read
)

// sidecar is an index beside a shard. It is never believed: it says where walkers of
// one shard may begin, and is compared with all that they find.
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
		p.misfits = number >= c.dali.Len() || !equalSample(c.dali.Sample(number), s)
	}
}

// equalSample reports whether an index says of a sample what was found.
func equalSample(said []DALIPart, found *Sample) bool {
	if len(said) != len(found.Parts) {
		return false
	}
	for i := range said {
		s, f := &said[i], &found.Parts[i]
		if s.Data != f.Data || s.Size != f.Size || !equalLower(s.Suffix, f.Suffix) {
			return false
		}
		if s.Name == nil { // v1.1
			continue
		}
		suffix, ok := bytes.CutPrefix(s.Name, found.Key)
		if !ok || len(suffix) == 0 || suffix[0] != '.' || !equalLower(suffix[1:], f.Suffix) {
			return false
		}
	}
	return true
}

// equalLower reports whether what is written becomes a suffix.
func equalLower(written, suffix []byte) bool {
	return bytes.Equal(written, suffix) || !isLower(written) && bytes.Equal(appendSuffix(nil, written), suffix)
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
