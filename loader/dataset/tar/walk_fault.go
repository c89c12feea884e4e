package tar

import (
	"fmt"

	"github.com/stokerio/stoker/backend"
)

// FaultCode classifies what is wrong with an archive; lint reports it under that name.
type FaultCode string

// What can be wrong with an archive.
const (
	FaultEmpty     FaultCode = "empty-shard"    // 0 bytes
	FaultNoTar     FaultCode = "no-tar"         // begins with something else
	FaultGarbage   FaultCode = "garbage"        // something between members that is no header
	FaultTruncated FaultCode = "truncated"      // ends within a member
	FaultHeader    FaultCode = "bad-header"     // a header contradicts itself or what follows
	FaultName      FaultCode = "long-name"      // more than 4096 bytes
	FaultDuplicate FaultCode = "duplicate-part" // two parts of one suffix in a sample
	FaultReserved  FaultCode = "reserved-part"  // see Reserved
	FaultParts     FaultCode = "too-many-parts" // more than MaxParts in a sample
)

// Fault is what ended a walk of an archive.
type Fault struct {
	Code   FaultCode // "" for none
	Offset int64     // in the archive
	Key    string    // the member's name or the sample's key, where there is one
	What   string
	Remedy string
}

// Fault says what is wrong with the archive once a call has returned an error of
// kind Corrupt.
func (w *Walker) Fault() Fault { return w.fault }

// remedies say what to do about an archive.
var remedies = map[FaultCode]string{
	FaultEmpty:     "copy or write the archive again, or leave it out with --include or --bad skip",
	FaultNoTar:     "choose the archives with --include, or index the files as they are with --format raw",
	FaultGarbage:   "copy or write the archive again; members behind that place cannot be found",
	FaultTruncated: "copy or write the archive again, or leave it out with --include or --bad skip",
	FaultHeader:    "write the archive again, for instance with webdataset.ShardWriter or GNU tar",
	FaultName:      "write the archive again with shorter names",
	FaultDuplicate: "give the parts of a sample different suffixes; remember that a sample's key ends at the first dot of the file name, so 'a.1.jpg' and 'a.2.jpg' are parts '1.jpg' and '2.jpg' of 'a'",
	FaultReserved:  "rename the part: readers keep values of their own under that name",
	FaultParts:     "a sample's key ends at the first dot of the file name: write 'img000001.jpg' or 'img/000001.jpg' instead of 'img.000001.jpg'",
}

// corrupt notes a fault and returns its error.
func (w *Walker) corrupt(code FaultCode, offset int64, key, format string, args ...any) error {
	w.fault = Fault{Code: code, Offset: offset, Key: key, What: fmt.Sprintf(format, args...), Remedy: remedies[code]}
	detail := fmt.Sprintf("at byte %d: %s", offset, w.fault.What)
	if key != "" {
		detail = fmt.Sprintf("at byte %d, %.120q: %s", offset, key, w.fault.What)
	}
	return &backend.Error{Kind: backend.Corrupt, Op: "read archive", Object: w.Object, Detail: detail, Remedy: w.fault.Remedy}
}

// notHeader is the error for a block that should be a header.
func (w *Walker) notHeader(h *[blockBytes]byte) error {
	if w.at == 0 {
		return w.corrupt(FaultNoTar, 0, "", "it begins with %q, which is no header of a tar archive", h[:16])
	}
	return w.corrupt(FaultGarbage, w.at, "", "%q and so on is neither a header nor the end of the archive", h[:16])
}

// truncated is the error for a member whose data ends at offset end.
func (w *Walker) truncated(m *Member, end int64) error {
	return w.corrupt(FaultTruncated, m.Header, string(m.Name), "the member's %d bytes and their padding end at byte %d, the archive at byte %d: it is cut short, or the header's size is wrong",
		m.Stored, end, w.src.size)
}
