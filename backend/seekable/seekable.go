// Package seekable serves objects that are kept compressed on local disk, so that
// they can be read from any place: what a tar archive decompresses to, or what its
// sparse members expand to.
//
// A Writer makes such a file out of a stream. A Store is a decorator: it serves
// objects whose Version.Tag is "seekable:FILE:SIZE" from the files of one directory
// and passes everything else on to the store that it decorates.
//
// # The file
//
// It is in the zstd seekable format, which every zstd tool can decompress:
// independent zstd frames, then a table of their sizes in a frame that decoders skip.
//
//	┌─────────┬─────────┬───┬─────────┬──────────────────┬────────────┐
//	│ frame 0 │ frame 1 │...│frame n-1│   description    │ seek table │
//	└─────────┴─────────┴───┴─────────┴──────────────────┴────────────┘
//
// Every frame but the last decompresses to equally many bytes, at most FrameBytes.
// The description names the object (see description). The seek table holds the low
// half of XXH64 of each frame's content; files without are refused.
//
// # Guarantees
//
// A file is hostile until checked: a seek table that does not add up, a frame that
// decompresses to more or less than the table says and a wrong checksum are errors of
// kind Corrupt that name the file and the offset in it; a file that is gone is
// NotFound. Decompressed frames live outside Go's heap in a Pool of fixed size, and
// a Gather decompresses each frame that it needs at most once. A file that changes
// while it is open is opened anew at the next call; that it is the right one is the
// business of its name, which whoever writes it derives from the content's identity
// (NameOf).
package seekable

import (
	"encoding/binary"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"

	"github.com/zeebo/blake3"

	"github.com/stokerio/stoker/backend"
)

const (
	// FrameBytes is what a frame decompresses to, and the most that one may. Frames
	// share no window: of source code, files with frames of 64 KiB are 5 % larger,
	// with 256 KiB 4 % smaller, and there a read of 4 KB decompresses twice as much.
	// Samples of 100 KB lie in 1.8 frames of 128 KiB in the mean, in 2.5 of 64 KiB.
	FrameBytes = 128 << 10

	// MaxBytes is the most that one file may decompress to. It bounds the seek table
	// in memory: 8 Mi frames of 12 bytes.
	MaxBytes = 1 << 40

	tagPrefix  = "seekable:"
	nameSuffix = ".zst"
)

// namePattern is what a file may be called: it leaves no way out of the directory.
var namePattern = regexp.MustCompile(`^[0-9a-f]{32}\.zst$`)

// NameOf returns the name of the file that holds what purpose makes of o: a hash of
// both. Where the origin lies is left out, as the number of its device may differ
// after the machine has started anew; inode, size and both times (or the tag) and
// the name tell versions of objects in one dataset's directory apart.
func NameOf(purpose string, o *backend.Object) string {
	b := make([]byte, 0, 64+len(purpose)+len(o.Name)+len(o.Version.Tag))
	for _, field := range []string{purpose, string(o.Name), o.Version.Tag} {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(field)))
		b = append(b, field...)
	}
	v := &o.Version
	for _, n := range [...]uint64{v.Inode, uint64(v.Size), uint64(v.ModifiedNs), uint64(v.ChangedNs)} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	sum := blake3.Sum256(b)
	return hex.EncodeToString(sum[:16]) + nameSuffix
}

// Tag returns the Version.Tag of an object of that many bytes that lies in the file.
func Tag(file string, bytes int64) string {
	return tagPrefix + file + ":" + strconv.FormatInt(bytes, 10)
}

// FileOf returns the file and the bytes that a Version.Tag names; ok is false if the
// tag names none that a Store would open.
func FileOf(tag string) (file string, bytes int64, ok bool) {
	rest, is := strings.CutPrefix(tag, tagPrefix)
	file, digits, found := strings.Cut(rest, ":")
	bytes, err := strconv.ParseInt(digits, 10, 64)
	if !is || !found || err != nil || bytes < 0 || bytes > MaxBytes || !namePattern.MatchString(file) {
		return "", 0, false
	}
	return file, bytes, true
}

// isSeekable says whether a Store serves o itself.
func isSeekable(o *backend.Object) bool {
	return o != nil && strings.HasPrefix(o.Version.Tag, tagPrefix)
}
