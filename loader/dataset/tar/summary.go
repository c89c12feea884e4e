package tar

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
)

// maxPartNames is how many names of parts a dataset may have: each is described in the
// index's metadata, and is a column of whoever selects none.
const maxPartNames = 4096

// summary adds up the descriptions of a dataset's shards.
type summary struct {
	info    dataset.Info
	parts   map[string]*dataset.PartInfo
	largest int64 // bytes of the largest sample
}

// newSummary begins with what a listing has left out.
func newSummary(skipped map[string]int) *summary {
	return &summary{parts: map[string]*dataset.PartInfo{}, info: dataset.Info{
		Format: Format, Skipped: skipped, Archives: map[string]int{}, Indexes: map[string]int{}}}
}

// add counts a shard.
func (s *summary) add(d *description) error {
	if d.archive != "" {
		s.info.Archives[d.archive]++
	}
	if d.beside != "" {
		s.info.Indexes[d.beside]++
	}
	for _, left := range d.skipped {
		s.info.Skipped[left.reason] += int(left.count)
	}
	if d.samples == 0 && len(d.skipped) == 0 {
		s.info.Skipped[SkippedEmpty]++
	}
	if d.samples > math.MaxInt64/groupSamples-s.info.Samples || d.bytes > math.MaxInt64-s.info.Bytes {
		return fmt.Errorf("%d samples of %d bytes and as many again are too many", s.info.Samples, s.info.Bytes)
	}
	s.info.Samples += d.samples
	s.info.Bytes += d.bytes
	s.largest = max(s.largest, d.largest)
	return s.addParts(d)
}

func (s *summary) addParts(d *description) error {
	for i := range d.shapes {
		sh := &d.shapes[i]
		for k, p := range sh.parts {
			name, largest := d.suffixes[p.suffix].name, d.suffixes[p.suffix].largest
			info, known := s.parts[name]
			if !known {
				if len(s.parts) == maxPartNames {
					return tooManyParts(s.names())
				}
				info = &dataset.PartInfo{Name: name}
				s.parts[name] = info
			}
			info.Samples += sh.samples
			info.Bytes += sh.bytes[k]
			info.MaxBytes = max(info.MaxBytes, largest)
		}
	}
	return nil
}

func (s *summary) names() []string {
	names := make([]string, 0, len(s.parts))
	for name := range s.parts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func tooManyParts(names []string) error {
	return &backend.Error{Kind: backend.Invalid, Op: "index", Object: "parts of samples",
		Detail: fmt.Sprintf("there are more than %d, such as %s", maxPartNames, quoted(names[:3])),
		Remedy: "a part is named by what follows the first dot of the file name: write '0001-a.jpg' instead of '0001.a.jpg'"}
}

// finish returns the dataset's description, without the number of its files.
func (s *summary) finish() dataset.Info {
	for _, name := range s.names() {
		s.info.Parts = append(s.info.Parts, *s.parts[name])
	}
	return s.info
}

// words chooses the singular or the plural for a count of n.
func words(n int64, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

// counted is a count with its words, for people.
func counted(n int64, one, more string) string {
	return fmt.Sprintf("%d %s", n, words(n, one, more))
}

// quoted lists names for people.
func quoted(names []string) string {
	b := strings.Builder{}
	for i, name := range names {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%.60q", name)
	}
	return b.String()
}
