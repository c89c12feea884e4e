package flash

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/stokerio/stoker/backend"
)

// checkedFile is a segment's file in a Check.
type checkedFile struct {
	name      string // in the folder of segments
	file      File
	size      int64
	header    header
	headerErr error // errHeader, or why it is none that is known
	changed   bool
	retired   bool // a write or a sync of it failed: what the page cache has of it may not be on flash
}

// openSegments opens every file that has a segment's name.
func (k *checker) openSegments() error {
	names, err := k.files.List(segmentsFolder)
	if err != nil {
		return err
	}
	slices.Sort(names)
	k.names = names
	for _, name := range names {
		if strings.HasSuffix(name, unfinished) {
			continue // a crash came while it was made: a store removes it
		}
		if strings.HasSuffix(name, retiredMark) {
			continue // the segment's own file comes before
		}
		if _, ok := segmentNumber(name); !ok {
			err = k.found(Finding{Kind: FoundStray, File: k.pathOf(name), Offset: -1, Detail: "its name is no segment's"}, func() error { return k.moveAside(name) })
		} else {
			err = k.openSegment(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (k *checker) pathOf(name string) string { return k.files.Path(segmentsFolder + "/" + name) }

func (k *checker) openSegment(name string) error {
	file, err := k.files.Open(segmentsFolder+"/"+name, false)
	if err != nil {
		return k.found(Finding{Kind: FoundStray, File: k.pathOf(name), Offset: -1, Detail: "it cannot be opened: " + err.Error(), Lost: "what is in it"}, nil)
	}
	f := &checkedFile{name: name, file: file, retired: slices.Contains(k.names, name+retiredMark)}
	k.opened = append(k.opened, f)
	if f.size, err = file.Size(); err != nil {
		return err
	}
	p := make([]byte, headerBytes)
	if _, err := readFull(file, p, 0); err != nil {
		f.headerErr = fmt.Errorf("its header cannot be read: %w", err)
		return nil
	}
	f.header, f.headerErr = decodeHeader(p)
	return nil
}

// arrange says which files are the device's segments. Of two with one number, that is one
// whose name is the number's, or the first, as for a store.
func (k *checker) arrange() error {
	byNumber := map[uint32]*checkedFile{}
	for _, f := range k.opened {
		ours, err := k.isOurs(f)
		if err != nil {
			return err
		}
		if !ours {
			continue
		}
		used, spare := byNumber[f.header.number], f
		if used == nil || f.name == path.Base(segmentName(f.header.number)) {
			byNumber[f.header.number], spare = f, used
		}
		if spare != nil {
			k.copies = append(k.copies, spare)
		}
	}
	for _, f := range k.opened {
		if byNumber[f.header.number] == f {
			k.segments = append(k.segments, f)
		}
	}
	k.report.Segments = len(k.segments)
	return nil
}

// isOurs reports whether a file is a segment of the device, and mends its header.
func (k *checker) isOurs(f *checkedFile) (bool, error) {
	foreign := func(detail string, mend func() error) (bool, error) {
		return false, k.found(Finding{Kind: FoundStray, File: k.pathOf(f.name), Offset: -1, Detail: detail, Lost: "what is in it, as long as it is here"}, mend)
	}
	aside := func() error { return k.moveAside(f.name) }
	spans := k.spansBySize(f.size)
	switch {
	case f.headerErr == nil:
	case errors.Is(f.headerErr, errHeader) && spans == 0:
		return foreign("its header is damaged, and it is too short for a segment", aside)
	case errors.Is(f.headerErr, errHeader):
		return true, k.mendHeader(f, spans)
	default:
		return foreign(f.headerErr.Error(), nil)
	}
	h := &f.header
	switch {
	case h.device != k.id:
		return foreign(fmt.Sprintf("it is of another device, %x", h.device), aside)
	case h.spanBytes != k.geometry.spanBytes, !geometryIsSane(h.spanBytes, int(h.spans)), h.number >= maxSegments:
		return foreign(fmt.Sprintf("segment %d of %d spans of %d bytes is none of this device", h.number, h.spans, h.spanBytes), aside)
	}
	return true, nil
}

// spansBySize is how many spans a segment of that size has, as far as a store sees: one
// that is too short for any has 0.
func (k *checker) spansBySize(size int64) uint32 {
	for n := uint32(maxSegmentSpans); n > 0; n-- {
		if size >= k.geometry.ledgerAt(n, 0) {
			return n
		}
	}
	return 0
}

// mendHeader finds out what a damaged header said: the size tells the spans, the records
// know the number. Without records it is what the name says.
func (k *checker) mendHeader(f *checkedFile, spans uint32) error {
	named, _ := segmentNumber(f.name)
	f.header = header{device: k.id, number: named, spans: spans, spanBytes: k.geometry.spanBytes}
	some, err := k.someRecords(f)
	if err != nil {
		return err
	}
	if len(some) > 0 && !some[0].isOf(k.id, named) {
		for number := range uint32(maxSegments) {
			if slices.ContainsFunc(some, func(r foundRecord) bool { return r.isOf(k.id, number) }) {
				f.header.number = number
				break
			}
		}
	}
	found := Finding{
		Kind: FoundHeader, File: k.pathOf(f.name), Offset: 0,
		Detail: fmt.Sprintf("its size and its records say that it is segment %d of %d spans", f.header.number, spans),
	}
	if f.size > k.geometry.fileBytes(spans)+pageBytes { // rounding of the last records' room
		found.Lost = "its chunks: by its size it was also cut short"
	}
	return k.found(found, func() error {
		f.changed = true
		return writeAll(f.file, f.header.encode(), 0)
	})
}

// foundRecord is a record, as it is on the device.
type foundRecord struct {
	span, extent uint32
	p            [recordBytes]byte
}

func (r *foundRecord) isOf(device deviceID, number uint32) bool {
	var decoded record
	return decoded.decode(r.p[:], device, place{number, r.span, r.extent}) == nil
}

// recordsTried is how many records are asked for the number of their segment.
const recordsTried = 4

// someRecords are the first records of a segment.
func (k *checker) someRecords(f *checkedFile) (some []foundRecord, err error) {
	err = k.eachSpan(f, func(number uint32, ledger []byte) error {
		for i := uint32(0); int(i+1)*recordBytes <= len(ledger) && len(some) < recordsTried; i++ {
			if p := ledger[int(i)*recordBytes:][:recordBytes]; !isNothing(p) {
				some = append(some, foundRecord{number, i, [recordBytes]byte(p)})
			}
		}
		return nil
	})
	return some, err
}

// eachSpan reads the ledger of each span. What is behind the end of the file is zeros.
func (k *checker) eachSpan(f *checkedFile, visit func(number uint32, ledger []byte) error) error {
	ledger := make([]byte, k.geometry.ledgerBytes())
	for number := range f.header.spans {
		at := k.geometry.ledgerAt(f.header.spans, number)
		n, err := readFull(f.file, ledger, at)
		if err != nil {
			lost := fmt.Sprintf("the chunks of span %d", number)
			if err := k.found(Finding{Kind: FoundRecords, File: k.pathOf(f.name), Offset: at, Detail: err.Error(), Lost: lost, Remedy: "look at the kernel's log for errors of the device"}, nil); err != nil {
				return err
			}
			continue
		}
		clear(ledger[n:])
		if err := visit(number, ledger); err != nil {
			return err
		}
	}
	return nil
}

// count adds up what is to be read of a segment.
func (k *checker) count(f *checkedFile) error {
	var r record
	return k.eachSpan(f, func(number uint32, ledger []byte) error {
		for i := range uint32(len(ledger) / recordBytes) {
			p := ledger[int(i)*recordBytes:][:recordBytes]
			if !isNothing(p) && r.decode(p, k.id, place{f.header.number, number, i}) == nil {
				k.sequence = max(k.sequence, r.sequence)
				k.total += r.bytes()
			}
		}
		return nil
	})
}

// bytes are those of a record's blocks.
func (r *record) bytes() (n int64) {
	for b := range blocksOf(r.size) {
		if r.blocks&(1<<b) != 0 {
			n += int64(blockBytes(r.size, b))
		}
	}
	return n
}

func (k *checker) checkSegment(ctx context.Context, f *checkedFile) error {
	if whole := k.geometry.fileBytes(f.header.spans); f.size < whole {
		found := Finding{
			Kind: FoundShort, File: k.pathOf(f.name), Offset: f.size, Detail: fmt.Sprintf("it has %d bytes of %d", f.size, whole),
			Lost: "the chunks whose records were behind its end, and what is behind it of others",
		}
		err := k.found(found, func() error {
			f.changed = true
			d := device{geometry: k.geometry}
			return d.preallocate(f.file, f.header.spans)
		})
		if err != nil {
			return err
		}
	}
	return k.eachSpan(f, func(number uint32, ledger []byte) error { return k.checkSpan(ctx, f, number, ledger) })
}

// checkCopies says what is in files that stores do not use and nowhere else.
func (k *checker) checkCopies() error {
	for _, f := range k.copies {
		only := 0
		var first backend.ChunkID
		var r record
		err := k.eachSpan(f, func(number uint32, ledger []byte) error {
			for i := range uint32(len(ledger) / recordBytes) {
				p := ledger[int(i)*recordBytes:][:recordBytes]
				if isNothing(p) || r.decode(p, k.id, place{f.header.number, number, i}) != nil || r.kind != put {
					continue
				}
				if _, known := k.chunks[r.id]; !known {
					if only++; only == 1 {
						first = r.id
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		found := Finding{Kind: FoundCopy, File: k.pathOf(f.name), Offset: -1, Chunk: first, Put: only > 0, Detail: fmt.Sprintf("another file is segment %d as well, and stores use that one", f.header.number)}
		if only > 0 {
			found.Lost = fmt.Sprintf("%d chunks that were put are only in it: those that were deleted since, or all that the other file lacks", only)
		}
		if err := k.found(found, func() error { return k.moveAside(f.name) }); err != nil {
			return err
		}
	}
	return nil
}
