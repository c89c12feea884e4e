package tar

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/stokerio/stoker/backend"
)

// The index of NVIDIA DALI (DALI: tools/wds2idx.py writes it,
// dali/operators/reader/loader/webdataset_loader.cc reads it) is text: a line with
// the version and the number of samples, then a line for each sample, which for each
// part holds the suffix, the offset of the data, the size and, from v1.2 on, the
// member's name.
//
//	v1.2 2
//	jpg 512 12345 000.jpg cls 13824 1 000.cls
//	jpg 14848 6789 001.jpg cls 22528 1 001.cls
const (
	daliWithoutNames = "v1.1"
	daliWithNames    = "v1.2"
	daliShortestLine = len("a 512 0\n")
)

// DALIIndex is a decoded index. Its slices are parts of the text.
type DALIIndex struct {
	Named  bool       // v1.2: parts have names
	Parts  []DALIPart // of all samples
	Starts []int      // sample i is Parts[Starts[i]:Starts[i+1]]
}

// DALIPart is one part of a sample.
type DALIPart struct {
	Suffix []byte // as written: not lower-cased
	Name   []byte // of the member, nil without names
	Data   int64  // offset
	Size   int64  // bytes
}

// Len is the number of samples.
func (d *DALIIndex) Len() int { return len(d.Starts) - 1 }

// Sample returns the parts of sample i.
func (d *DALIIndex) Sample(i int) []DALIPart { return d.Parts[d.Starts[i]:d.Starts[i+1]] }

// DALIName returns where the index of a shard is looked for: beside it, named for it up
// to the first dot of its file name.
func DALIName(shard string) string {
	base := strings.LastIndexByte(shard, '/') + 1
	if dot := strings.IndexByte(shard[base:], '.'); dot >= 0 {
		return shard[:base+dot] + ".idx"
	}
	return shard + ".idx"
}

// ReadDALI decodes the index of an archive of that many bytes. What it returns could
// be true: every part lies within the archive, on the border of a block, behind the
// one before and the header between them. Whether it is must be seen in the archive.
// Its memory is bounded by the text's. Errors: Corrupt.
func ReadDALI(text []byte, size int64) (*DALIIndex, error) {
	line, rest, _ := bytes.Cut(text, []byte{'\n'})
	version, count, ok := bytes.Cut(bytes.TrimRight(line, " \r"), []byte{' '})
	samples, isNumber := decimal(count)
	if !ok || !isNumber || string(version) != daliWithoutNames && string(version) != daliWithNames {
		return nil, badIndex("DALI index", 1, "it begins with %.40q, expected %q or %q and the number of samples", line, daliWithoutNames, daliWithNames)
	}
	if samples > int64(len(rest)/daliShortestLine+1) {
		return nil, badIndex("DALI index", 1, "it speaks of %d samples, for which its %d bytes are too few", samples, len(text))
	}
	d := &DALIIndex{Named: string(version) == daliWithNames, Starts: make([]int, 1, samples+1)}
	end := int64(0) // of what was read so far
	for number := 2; len(rest) > 0; number++ {
		line, rest, _ = bytes.Cut(rest, []byte{'\n'})
		if int64(d.Len()) == samples {
			if len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			return nil, badIndex("DALI index", number, "it speaks of %d samples and holds more lines", samples)
		}
		var problem string
		if end, problem = d.add(bytes.TrimRight(line, " \r"), end, size); problem != "" {
			return nil, badIndex("DALI index", number, "%s", problem)
		}
		d.Starts = append(d.Starts, len(d.Parts))
	}
	if int64(d.Len()) != samples {
		return nil, badIndex("DALI index", d.Len()+1, "it ends here and speaks of %d samples", samples)
	}
	return d, nil
}

// add reads the line of one sample. It says where the last part ends, or what is wrong.
func (d *DALIIndex) add(line []byte, end, size int64) (int64, string) {
	for more := true; more; {
		var p DALIPart
		var offset, length []byte
		p.Suffix, line, _ = bytes.Cut(line, []byte{' '})
		offset, line, _ = bytes.Cut(line, []byte{' '})
		length, line, more = bytes.Cut(line, []byte{' '})
		if d.Named {
			if !more {
				return 0, "a part has no name, as it must from v1.2 on"
			}
			p.Name, line, more = bytes.Cut(line, []byte{' '})
		}
		var okOffset, okLength bool
		p.Data, okOffset = decimal(offset)
		p.Size, okLength = decimal(length)
		switch {
		case !okOffset || !okLength:
			return 0, fmt.Sprintf("offset %.20q or size %.20q of part %.40q is no number; names with spaces cannot be written in this format", offset, length, p.Suffix)
		case p.Data%blockBytes != 0 || p.Data < end+blockBytes:
			return 0, fmt.Sprintf("part %.40q is at byte %d, expected a multiple of 512 from %d on", p.Suffix, p.Data, end+blockBytes)
		case p.Data > size || p.Size > size-p.Data:
			return 0, fmt.Sprintf("part %.40q has %d bytes at byte %d, the archive ends at byte %d", p.Suffix, p.Size, p.Data, size)
		}
		end = p.Data + padded(p.Size)
		d.Parts = append(d.Parts, p)
	}
	return end, ""
}

// badIndex is the error for an index that does not make sense.
func badIndex(kind string, line int, format string, args ...any) error {
	return &backend.Error{Kind: backend.Corrupt, Op: "read", Object: kind,
		Detail: fmt.Sprintf("line %d: %s", line, fmt.Sprintf(format, args...)), Remedy: remedyIndex}
}

const remedyIndex = "make the index again, or remove it: the archive is scanned without one"
