package tar

import (
	"bytes"
	"hash/maphash"
	"io"
)

// MaxParts is how many parts a sample may have. More come of names that do not follow
// the rule of SplitName, such as "img.000001.jpg", which would all be one sample.
const MaxParts = 4096

// hashedParts is from how many parts on a sample's suffixes are compared by hashes.
const hashedParts = 16

// Part is one member of a sample.
type Part struct {
	Suffix []byte
	Header int64       // offset of the member's first header
	Data   int64       // offset of its bytes
	Size   int64       // bytes, when expanded
	Stored int64       // bytes in the archive
	Sparse []SparseRun // nil unless sparse, then at least one run, ascending
}

// Sample is a run of consecutive members of one key, in the order of the archive. It
// is borrowed from Samples until the next call.
type Sample struct {
	Key    []byte
	Header int64 // of the first part
	Parts  []Part
}

// Samples groups the members of an archive as WebDataset does (webdataset:
// tariterators.py, group_by_keys): members that are no regular files, that Skipped
// names, or that SplitName makes no part of a sample are passed over, also within a
// sample. The same key again behind another one is another sample.
type Samples struct {
	w    *Walker
	seed maphash.Seed
	both [2]group      // the sample that was returned, and the one after it as far as known
	next int           // which of them Next will return
	each func(*Member) // is shown every member, may be nil
}

// group is a sample that is being put together. What its parts refer to stays where it
// is: memory that text or runs have outgrown is not written to again.
type group struct {
	sample Sample
	text   []byte   // key and suffixes
	hashes []uint64 // of the suffixes, of none as long as there are few
	runs   []SparseRun
	open   bool
}

// NewSamples returns the samples of what w walks from now on.
func NewSamples(w *Walker) *Samples { return &Samples{w: w, seed: maphash.MakeSeed()} }

// Reset begins anew, for a Walker that was Reset or sent elsewhere by WalkRange.
func (s *Samples) Reset() {
	s.both[0].open, s.both[1].open = false, false
}

// Next returns the next sample, io.EOF behind the last one.
//
// Errors: as Walker.Next; Corrupt also for a second part of one suffix, which
// webdataset refuses too, for a Reserved suffix, for more than MaxParts, and for sparse
// parts of more runs than are worth their memory. After these the walk cannot go on.
func (s *Samples) Next() (*Sample, error) {
	g := &s.both[s.next]
	for {
		m, err := s.w.Next()
		if err == io.EOF && g.open {
			break // the next call finds no group and asks again
		}
		if err != nil {
			return nil, err
		}
		if s.each != nil {
			s.each(m)
		}
		if !m.Regular || Skipped(m.Name) {
			continue
		}
		at := splitAt(m.Name)
		if at < 0 {
			continue
		}
		if g.open && !bytes.Equal(g.sample.Key, m.Name[:at]) {
			s.other().begin(m, at)
			_ = s.add(s.other(), m, at) // an error is the next call's: g is whole
			break
		}
		if !g.open {
			g.begin(m, at)
		}
		if err := s.add(g, m, at); err != nil {
			return nil, err
		}
	}
	g.open = false
	s.next = 1 - s.next
	return &g.sample, nil
}

func (s *Samples) other() *group { return &s.both[1-s.next] }

// begin makes g the sample that m is the first part of.
func (g *group) begin(m *Member, at int) {
	g.open = true
	g.text = append(g.text[:0], m.Name[:at]...)
	g.hashes, g.runs = g.hashes[:0], g.runs[:0]
	g.sample = Sample{Key: g.text[:at:at], Header: m.Header, Parts: g.sample.Parts[:0]}
}

// add makes m a part of g.
func (s *Samples) add(g *group, m *Member, at int) error {
	start := len(g.text)
	g.text = appendSuffix(g.text, m.Name[at+1:])
	suffix := g.text[start:len(g.text):len(g.text)]
	if i := s.find(g, suffix); i >= 0 {
		return s.refuse(FaultDuplicate, m, g, "the sample has a part %.120q already, at byte %d", suffix, g.sample.Parts[i].Header)
	}
	if Reserved(suffix) {
		return s.refuse(FaultReserved, m, g, "a part cannot be named %q", suffix)
	}
	if len(g.sample.Parts) == MaxParts {
		return s.refuse(FaultParts, m, g, "%.120q is one more than %d parts of one sample", m.Name, MaxParts)
	}
	if len(m.Sparse) > maxSampleRuns-len(g.runs) {
		return s.refuse(FaultHeader, m, g, "the sparse members of the sample have more than %d runs of bytes between their holes; write it without --sparse", maxSampleRuns)
	}
	part := Part{Suffix: suffix, Header: m.Header, Data: m.Data, Size: m.Size, Stored: m.Stored}
	if from := len(g.runs); len(m.Sparse) > 0 {
		g.runs = append(g.runs, m.Sparse...)
		part.Sparse = g.runs[from:len(g.runs):len(g.runs)]
	}
	g.sample.Parts = append(g.sample.Parts, part)
	return nil
}

// find returns the part of g with that suffix, -1 for none. Samples have a few parts;
// only where there are many is comparing hashes worth making them.
func (s *Samples) find(g *group, suffix []byte) int {
	parts := len(g.sample.Parts)
	if parts < hashedParts {
		for i := range parts {
			if bytes.Equal(suffix, g.sample.Parts[i].Suffix) {
				return i
			}
		}
		return -1
	}
	for i := len(g.hashes); i < parts; i++ {
		g.hashes = append(g.hashes, maphash.Bytes(s.seed, g.sample.Parts[i].Suffix))
	}
	hash := maphash.Bytes(s.seed, suffix)
	for i, h := range g.hashes {
		if h == hash && bytes.Equal(suffix, g.sample.Parts[i].Suffix) {
			return i
		}
	}
	return -1
}

func (s *Samples) refuse(code FaultCode, m *Member, g *group, format string, args ...any) error {
	s.w.err = s.w.corrupt(code, m.Header, string(g.sample.Key), format, args...)
	return s.w.err
}
