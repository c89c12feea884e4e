package tar

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/stokerio/stoker/loader/dataset"
)

// maxNotes bounds what is kept of single shards until all have been seen.
const maxNotes = 1 << 16

// shardParts is what a lint keeps of the parts of one shard.
type shardParts struct {
	names  map[string]*partStatistics
	shapes map[uint64]*shapeStatistics // by the sum of the hashes of their parts' names
	full   bool                        // there are more names or shapes than are counted
}

// partStatistics is about the parts of one name in a shard.
type partStatistics struct {
	hash     uint64
	count    int64
	sizes    [65]int64 // by the bits of the size
	empty    firstOf
	first    int64 // header of the first one
	largest  int64
	header   int64 // of the largest
	key      []byte
	firstKey string
}

// shapeStatistics is about the samples of a shard that have the same parts.
type shapeStatistics struct {
	names  []string
	count  int64
	header int64 // of the first
	key    string
}

func newShardParts() shardParts {
	return shardParts{names: map[string]*partStatistics{}, shapes: map[uint64]*shapeStatistics{}}
}

// add counts a sample and returns its bytes.
func (p *shardParts) add(s *Sample) (bytes int64) {
	shape := uint64(0)
	for i := range s.Parts {
		part := &s.Parts[i]
		bytes += part.Size
		stats := p.part(part, s.Key)
		if stats == nil {
			continue
		}
		shape += stats.hash
		stats.count++
		stats.sizes[bits.Len64(uint64(part.Size))]++
		if part.Size == 0 {
			stats.empty.add(part.Header, s.Key)
		}
		if part.Size > stats.largest {
			stats.largest, stats.header = part.Size, part.Header
			stats.key = append(stats.key[:0], s.Key...)
		}
	}
	p.shape(shape, s)
	return bytes
}

// part returns the statistics of a part's name, nil if there are too many names.
func (p *shardParts) part(part *Part, key []byte) *partStatistics {
	if stats := p.names[string(part.Suffix)]; stats != nil {
		return stats
	}
	if len(p.names) == maxShapeParts {
		p.full = true
		return nil
	}
	// Numbers of a fixed sequence, spread over 64 bits: names are told apart by them
	// within this shard only.
	stats := &partStatistics{hash: spread(uint64(len(p.names) + 1)), first: part.Header, firstKey: string(key)}
	p.names[string(part.Suffix)] = stats
	return stats
}

// spread is the mixing step of SplitMix64.
func spread(n uint64) uint64 {
	n *= 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

func (p *shardParts) shape(sum uint64, s *Sample) {
	if shape := p.shapes[sum]; shape != nil {
		shape.count++
		return
	}
	if len(p.shapes) == maxShapes {
		p.full = true
		return
	}
	shape := &shapeStatistics{count: 1, header: s.Header, key: string(s.Key)}
	for _, part := range s.Parts {
		shape.names = append(shape.names, string(part.Suffix))
	}
	slices.Sort(shape.names)
	p.shapes[sum] = shape
}

// judge tells of what can be said of the shard alone.
func (p *shardParts) judge(r *shardReport) {
	for _, name := range p.sorted() {
		if e := p.names[name].empty; e.count > 0 {
			r.find("empty-part", e.offset, e.name, "%d of %d parts %.60q %s 0 bytes; this is the first",
				e.count, p.names[name].count, name, words(e.count, "has", "have"))
		}
	}
}

func (p *shardParts) sorted() []string {
	names := make([]string, 0, len(p.names))
	for name := range p.names {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// partTable is what a lint keeps of the parts of all shards.
type partTable struct {
	samples int64
	names   map[string]*partTotals
	lists   []shapeNote
	largest []partNote
}

type partTotals struct {
	count int64
	sizes [65]int64
	shard int // where the first one is
	first int64
	key   string
}

// shapeNote is that samples of a shard have these parts, partNote how large the
// largest part of a name is.
type (
	shapeNote struct {
		shard int
		*shapeStatistics
	}
	partNote struct {
		shard        int
		name, key    string
		header, size int64
	}
)

func newPartTable() *partTable { return &partTable{names: map[string]*partTotals{}} }

// merge adds a shard.
func (t *partTable) merge(shard int, r *shardReport) {
	t.samples += r.samples
	for _, name := range r.parts.sorted() {
		p := r.parts.names[name]
		total := t.names[name]
		if total == nil {
			if len(t.names) == maxNotes {
				continue
			}
			total = &partTotals{shard: shard, first: p.first, key: p.firstKey}
			t.names[name] = total
		}
		total.count += p.count
		for i, n := range p.sizes {
			total.sizes[i] += n
		}
		if p.largest > hugePart && len(t.largest) < maxNotes {
			t.largest = append(t.largest, partNote{shard, name, string(p.key), p.header, p.largest})
		}
	}
	at := len(t.lists)
	for _, shape := range r.parts.shapes {
		if len(t.lists) < maxNotes {
			t.lists = append(t.lists, shapeNote{shard, shape})
		}
	}
	slices.SortFunc(t.lists[at:], func(a, b shapeNote) int { return cmp.Compare(a.header, b.header) })
}

// sumUp tells of what takes all shards to be seen.
func (t *partTable) sumUp(l *linter) error {
	names := make([]string, 0, len(t.names))
	for name := range t.names {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		p := t.names[name]
		if isPickle(name) {
			err := l.Add(dataset.Finding{Code: "pickle", File: string(l.shards[p.shard].Name), Offset: p.first, Key: p.key,
				What: fmt.Sprintf("%s a part %.60q; this is the first", counted(p.count, "sample has", "samples have"), name)})
			if err != nil {
				return err
			}
		}
		if name == "" {
			err := l.Add(dataset.Finding{Code: "empty-part-name", File: string(l.shards[p.shard].Name), Offset: p.first, Key: p.key,
				What: fmt.Sprintf("%s a part without a name; this is the first", counted(p.count, "sample has", "samples have"))})
			if err != nil {
				return err
			}
		}
		if 2*p.count > t.samples && p.count < t.samples {
			if err := t.missing(l, name, p.count); err != nil {
				return err
			}
		}
	}
	if err := t.many(l, names); err != nil {
		return err
	}
	return t.huge(l)
}

// many tells of more parts than the columns of a session can be if samples lack some.
func (t *partTable) many(l *linter, names []string) error {
	lacked := slices.IndexFunc(names, func(name string) bool { return t.names[name].count < t.samples })
	if len(names) <= maxPresent || lacked < 0 {
		return nil
	}
	return l.Add(dataset.Finding{Code: "many-parts", Offset: -1,
		What: fmt.Sprintf("%d parts, of which samples lack some: %.60q is in %d of %d; without select at most %d such parts can be read",
			len(names), names[lacked], t.names[names[lacked]].count, t.samples, maxPresent)})
}

// missing tells of the shards whose samples lack a part.
func (t *partTable) missing(l *linter, name string, count int64) error {
	for i := 0; i < len(t.lists); {
		shard, lacking := t.lists[i].shard, int64(0)
		var first shapeNote
		for ; i < len(t.lists) && t.lists[i].shard == shard; i++ {
			if _, has := slices.BinarySearch(t.lists[i].names, name); !has {
				if lacking == 0 {
					first = t.lists[i]
				}
				lacking += t.lists[i].count
			}
		}
		if lacking == 0 {
			continue
		}
		err := l.Add(dataset.Finding{Code: "missing-part", File: string(l.shards[shard].Name), Offset: first.header, Key: first.key,
			What: fmt.Sprintf("%s part %.60q, which %.4g %% of all samples have; this is the first",
				counted(lacking, "sample of this archive lacks", "samples of this archive lack"), name,
				100*float64(count)/float64(t.samples))})
		if err != nil {
			return err
		}
	}
	return nil
}

// huge tells of the largest parts of shards, where they are far above the median.
func (t *partTable) huge(l *linter) error {
	for _, n := range t.largest {
		median := t.names[n.name].median()
		if n.size/hugeRatio <= median {
			continue
		}
		err := l.Add(dataset.Finding{Code: "huge-part", File: string(l.shards[n.shard].Name), Offset: n.header, Key: n.key,
			What: fmt.Sprintf("part %.60q has %d bytes, the largest of this archive; half of all parts of that name have less than %d", n.name, n.size, median)})
		if err != nil {
			return err
		}
	}
	return nil
}

// median returns a power of two: at least half of the parts have fewer bytes.
func (p *partTotals) median() int64 {
	seen := int64(0)
	for i, n := range p.sizes {
		if seen += n; 2*seen >= p.count {
			return 1 << min(i, 62)
		}
	}
	return 0
}

// isPickle reports whether a part is decoded as a pickle, by its last extension.
func isPickle(name string) bool {
	switch name[strings.LastIndexByte(name, '.')+1:] {
	case "pkl", "pickle", "pyd", "pth":
		return true
	}
	return false
}
