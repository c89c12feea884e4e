package flash

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/stokerio/stoker/backend"
)

// CheckOptions configure Check.
type CheckOptions struct {
	// Repair mends what can be mended. What was put and is whole is never taken away, and
	// no file is removed: those that are not used are moved into the folder "aside".
	Repair bool

	// DropCorrupt lets Repair forget chunks that were put and are damaged, too. Without it
	// they stay, and go on being errors when they are read.
	DropCorrupt bool

	// Progress is told of how many bytes of how many were checked. Default: nobody is.
	Progress func(done, total int64)

	// Files replaces the file system, in tests.
	Files Files
}

// FindingKind says what Check found.
type FindingKind string

// The kinds of findings.
const (
	FoundFormat     FindingKind = "format_damaged"   // format.json is lost or is not what the segments say
	FoundStray      FindingKind = "stray_file"       // no segment of this device
	FoundCopy       FindingKind = "segment_copy"     // a second file of one segment
	FoundHeader     FindingKind = "header_damaged"   // of a segment
	FoundShort      FindingKind = "segment_short"    // it was cut
	FoundRecords    FindingKind = "records_damaged"  // of a span: nobody knows what their extents hold
	FoundMendable   FindingKind = "record_mendable"  // a damaged record whose chunk tells its own name
	FoundStale      FindingKind = "records_stale"    // of what the span held before it was divided anew
	FoundDuplicate  FindingKind = "chunk_duplicate"  // the same chunk at two places
	FoundCorrupt    FindingKind = "chunk_corrupt"    // it is not what was stored
	FoundUnreadable FindingKind = "chunk_unreadable" // the device could not read it, or the file ends before it
)

// Finding is something that is not as it should be.
type Finding struct {
	Kind     FindingKind     `json:"kind"`
	File     string          `json:"file"`
	Offset   int64           `json:"offset"` // in the file, bytes; -1: all of it
	Chunk    backend.ChunkID `json:"chunk,omitzero"`
	Put      bool            `json:"put,omitempty"` // the chunk was put: as far as the store knows, it is nowhere else
	Detail   string          `json:"detail,omitempty"`
	Lost     string          `json:"lost,omitempty"` // empty: nothing
	Remedy   string          `json:"remedy,omitempty"`
	Repaired bool            `json:"repaired"`
}

// CheckReport is what Check found.
type CheckReport struct {
	Path         string    `json:"path"`
	Device       string    `json:"device"` // its identity, 32 hexadecimal digits
	Segments     int       `json:"segments"`
	Chunks       int64     `json:"chunks"` // that are what was stored, those that were put included
	PutChunks    int64     `json:"put_chunks"`
	CheckedBytes int64     `json:"checked_bytes"`
	Findings     []Finding `json:"findings"`
	Omitted      int64     `json:"omitted"` // findings beyond those above
	Repaired     int64     `json:"repaired"`
	Unrepaired   int64     `json:"unrepaired"`
}

// findingsKept bounds the findings of a report; the rest are counted.
const findingsKept = 10_000

// ErrNoFlash is what Check answers for a directory that holds no flash store.
var ErrNoFlash = errors.New("it is no directory of flash chunks")

// Check reads all of a device's directory that no store uses: format.json, the headers,
// every record, the CRC32C of every block, and the name of every chunk that was put. It
// reads past the page cache where it can. An error means that it could not go on; what it
// found until then is in the report. ErrLocked: a store has the directory.
func Check(ctx context.Context, path string, o CheckOptions) (CheckReport, error) {
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	k := &checker{files: o.Files, options: o, chunks: map[backend.ChunkID]checkedChunk{}}
	k.report = CheckReport{Path: path, Findings: []Finding{}}
	if err := k.begin(path); err != nil {
		return k.report, fmt.Errorf("check %s: %w", path, err)
	}
	lock, err := k.files.Lock(lockName, fmt.Sprintf("process %d, which checks it", os.Getpid()))
	if err != nil {
		return k.report, fmt.Errorf("check %s: %w", path, err)
	}
	if err := errors.Join(k.run(ctx), k.end(), lock.Close()); err != nil {
		return k.report, fmt.Errorf("check %s: %w", path, err)
	}
	return k.report, nil
}

// checker is one Check.
type checker struct {
	files    Files
	options  CheckOptions
	report   CheckReport
	id       deviceID
	geometry *geometry
	names    []string // in the folder of segments
	opened   []*checkedFile
	segments []*checkedFile // of them, those that a store uses
	copies   []*checkedFile // of them, those that are not used since another has their number
	chunks   map[backend.ChunkID]checkedChunk
	buffers  buffers
	window   window
	sequence uint64 // greatest of all records
	total    int64  // bytes to be checked
}

// begin opens the directory, and makes sure that it is one of ours before anything is
// written to it, if only a lock.
func (k *checker) begin(path string) (err error) {
	if k.files == nil {
		if _, err := os.Stat(path); err != nil {
			return err
		}
		if k.files, err = OpenDirectory(path); err != nil {
			return err
		}
	}
	names, err := k.files.List(".")
	if err != nil {
		return err
	}
	if !slices.Contains(names, manifestName) && !slices.Contains(names, segmentsFolder) {
		return ErrNoFlash
	}
	return nil
}

func (k *checker) run(ctx context.Context) error {
	defer k.buffers.close()
	lent := k.buffers.take(backend.BlockBytes)
	defer k.buffers.give(lent)
	k.window.p = lent.p
	if err := k.openSegments(); err != nil {
		return err
	}
	if err := k.checkFormat(); err != nil {
		return err
	}
	if err := k.arrange(); err != nil {
		return err
	}
	for _, f := range k.segments {
		if err := k.count(f); err != nil {
			return err
		}
	}
	for _, f := range k.segments {
		if err := k.checkSegment(ctx, f); err != nil {
			return err
		}
	}
	return k.checkCopies()
}

// end makes what was mended durable and closes the files.
func (k *checker) end() error {
	var failed []error
	for _, f := range k.opened {
		if f.changed {
			failed = append(failed, f.file.Sync())
		}
		failed = append(failed, f.file.Close())
	}
	return errors.Join(failed...)
}

const remedyOfRepair = "stoker cache check --repair mends it"

// found notes a finding. mend mends it, nil if nothing can.
func (k *checker) found(f Finding, mend func() error) error {
	switch {
	case mend == nil:
	case !k.options.Repair:
		f.Remedy = remedyOfRepair
	default:
		if err := mend(); err != nil {
			return fmt.Errorf("repair %s: %w", f.File, err)
		}
		f.Remedy, f.Repaired = "", true
	}
	if f.Repaired {
		k.report.Repaired++
	} else {
		k.report.Unrepaired++
	}
	if len(k.report.Findings) == findingsKept {
		k.report.Omitted++
		return nil
	}
	k.report.Findings = append(k.report.Findings, f)
	return nil
}

// moveAside moves a file of the segments out of the way, under a name that is not taken.
func (k *checker) moveAside(name string) error {
	if err := k.files.MakeDirectory(asideFolder); err != nil {
		return err
	}
	taken, err := k.files.List(asideFolder)
	if err != nil {
		return err
	}
	to := name
	for n := 1; slices.Contains(taken, to); n++ {
		to = fmt.Sprintf("%s.%d", name, n)
	}
	if err := k.files.SyncDirectory("."); err != nil { // the folder is there once the file is in it
		return err
	}
	if err := k.files.Rename(segmentsFolder+"/"+name, asideFolder+"/"+to); err != nil {
		return err
	}
	return errors.Join(k.files.SyncDirectory(asideFolder), k.files.SyncDirectory(segmentsFolder))
}

// readSmall reads a file of which no more than a page is believed. That it is not there is
// no error.
func readSmall(files Files, name string) (text []byte, found bool, err error) {
	f, err := files.Open(name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	text = make([]byte, smallBytes)
	n, err := readFull(f, text, 0)
	return text[:n], true, errors.Join(err, f.Close())
}
