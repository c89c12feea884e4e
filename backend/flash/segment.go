package flash

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/stokerio/stoker/backend"
)

// segment is one large file of extents.
type segment struct {
	device  *device
	number  uint32
	name    string // in the device's directory
	file    File
	spans   []*span // nil: of no class. Guarded by the device's lock; see Store.slotOf for readers
	retired atomic.Bool

	draining bool // it is to go away; guarded by the device's lock
	tried    bool // the mover tried to empty it since it failed; guarded by the device's lock
	unknown  bool // it cannot be said of a span what there is: the file is never removed; set once
}

const segmentsFolder = "segments"

// maxSegments is how many a device has at most.
const maxSegments = 1 << 16

func segmentName(number uint32) string { return fmt.Sprintf("%s/%08d.seg", segmentsFolder, number) }

// segmentNumber is the number that a file's name stands for.
func segmentNumber(name string) (number uint32, ok bool) {
	digits, ok := strings.CutSuffix(name, ".seg")
	if !ok || len(digits) != 8 {
		return 0, false
	}
	_, err := fmt.Sscanf(digits, "%08d", &number)
	return number, err == nil && number < maxSegments && name == fmt.Sprintf("%08d.seg", number)
}

// unusedNumber is the first whose segment can be made; false if there is none. A file that
// is left alone, or that is another segment's, keeps its name. The device's lock is held.
func (d *device) unusedNumber() (uint32, bool) {
	all := *d.segments.Load()
	names := map[string]bool{}
	for _, s := range all {
		if s != nil {
			names[s.name] = true
		}
	}
	for n := range uint32(maxSegments) {
		if int(n) < len(all) && all[n] != nil {
			continue
		}
		name := segmentName(n)
		if _, kept := d.kept[name]; !kept && !names[name] {
			return n, true
		}
	}
	return 0, false
}

// unfinished is what ends the name of a segment's file while it is made. What a crash
// leaves of it holds nothing.
const unfinished = ".new"

// newSegment makes a segment's file, durably.
func (d *device) newSegment(number uint32, spans int) (_ *segment, err error) {
	name := segmentName(number)
	made := name + unfinished
	if err := d.files.Remove(made); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := d.unmark(name); err != nil {
		return nil, err
	}
	f, err := d.files.Open(made, true)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), d.files.Remove(made))
		}
	}()
	h := header{device: d.id, number: number, spans: uint32(spans), spanBytes: d.geometry.spanBytes}
	if err := d.preallocate(f, uint32(spans)); err != nil {
		return nil, err
	}
	if err := writeAll(f, h.encode(), 0); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	if err := d.files.Rename(made, name); err != nil {
		return nil, err
	}
	made = name
	if err := d.files.SyncDirectory(segmentsFolder); err != nil {
		return nil, err
	}
	return &segment{device: d, number: number, name: name, file: f, spans: make([]*span, spans)}, nil
}

// preallocate makes room for all extents of a segment, and its last page, so that its size
// tells whether it was cut short. The ledger gets room span by span, as it is used.
func (d *device) preallocate(f File, spans uint32) error {
	if err := f.Allocate(0, d.geometry.ledgerAt(spans, 0)); err != nil {
		return err
	}
	return f.Allocate(d.geometry.fileBytes(spans)-pageBytes, pageBytes)
}

// path is what somebody else would open.
func (s *segment) path() string { return s.device.files.Path(s.name) }

// count is how many spans it has.
func (s *segment) count() uint32 { return uint32(len(s.spans)) }

// writeRecord writes a record, or zeros for nil, to its place in the ledger.
func (s *segment) writeRecord(at place, r *record) error {
	var p [recordBytes]byte
	if r != nil {
		r.encode(&p, s.device.id, at)
	}
	return writeAll(s.file, p[:], s.device.geometry.recordAt(s.count(), at))
}

// writeAll writes all of p, or says why not.
func writeAll(f File, p []byte, off int64) error {
	n, err := f.WriteAt(p, off)
	if err == nil && n < len(p) {
		err = fmt.Errorf("write of %d bytes at %d: only %d were written", len(p), off, n)
	}
	return err
}

// writeBytes writes content to an extent, from off on of its chunk, a multiple of a page,
// and zeros up to the next page. Whole pages are written, so that none has to be read.
func (x *span) writeBytes(extent uint32, content []byte, off int64) error {
	writes := &x.segment.device.health.writes
	writes.begin()
	defer writes.end()
	x.segment.device.counters.wrote(len(content))
	f, at := x.segment.file, x.segment.device.geometry.extentAt(x.class, x.place(extent))+off
	whole := len(content) &^ (pageBytes - 1)
	if whole > 0 {
		if err := writeAll(f, content[:whole], at); err != nil {
			return err
		}
	}
	if whole < len(content) {
		page := pages.Get().(*[pageBytes]byte)
		defer pages.Put(page)
		clear(page[copy(page[:], content[whole:]):])
		if err := writeAll(f, page[:], at+int64(whole)); err != nil {
			return err
		}
	}
	if len(content) >= backend.BlockBytes {
		f.WriteBack(at, int64(len(content)))
	}
	return nil
}

// pages are for the last bytes of chunks.
var pages = sync.Pool{New: func() any { return new([pageBytes]byte) }}
