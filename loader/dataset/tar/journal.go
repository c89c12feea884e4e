package tar

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/stokerio/stoker/loader/dataset"
)

// journal holds the shards that a scan has finished until it writes the index, out of
// memory and, if it has a name, beyond the end of the process: a scan that was
// interrupted goes on with what it had. Integers are little-endian.
//
//	+--------------------------------------------------------------------+
//	| magic "STOKRJNL"                     8                             |
//	| version                              u32                           |
//	+--------------------------------------------------------------------+
//	| entries, each of                                                   |
//	|  0  CRC32C of the rest of the entry  u32                           |
//	|  4  bytes of the name                u32                           |
//	|  8  bytes of the description         u32                           |
//	| 12  bytes of groups                  u32                           |
//	| 16  bytes of keys                    u32                           |
//	| 20  bytes of the directory           u32                           |
//	| 24  name of the shard, description, groups, keys, directory        |
//	+--------------------------------------------------------------------+
//
// The version grows with every change of what a shard's bytes mean, also of how
// archives are read. Entries are only appended; what follows the first that is not
// whole is cut off. Nothing is synced: after a crash of the machine an entry is there
// or its checksum says that it is not, and its shard is scanned again.
const (
	journalVersion = 1
	journalHeader  = 12
	entryHeader    = 24
	// maxName bounds the name of a shard; index records hold no longer one.
	maxName = 1<<16 - 1
	// shortEntry is up to how many bytes an entry is written by one call.
	shortEntry = 64 << 10
)

var journalMagic = [8]byte{'S', 'T', 'O', 'K', 'R', 'J', 'N', 'L'}

// journal is not for parallel use.
type journal struct {
	file  *os.File
	named bool
	end   int64

	scratch []byte
}

// place is where the journal holds a shard.
type place struct {
	start                          int64 // of the description
	about, groups, keys, directory uint32
}

// bytes is the size of a shard in the journal, without its name.
func (p *place) bytes() int64 {
	return int64(p.about) + int64(p.groups) + int64(p.keys) + int64(p.directory)
}

// openJournal opens the journal at path, which is made if it is not there, and tells
// visit of every shard in it; of two of one name the second counts. Without a path it
// makes one in dir that ends with the process. visit borrows its arguments.
func openJournal(path, dir string, visit func(name []byte, about *description, at place)) (*journal, error) {
	if path == "" {
		f, err := dataset.Temporary(dir)
		if err != nil {
			return nil, err
		}
		return &journal{file: f}, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, dataset.FileError("create directory", filepath.Dir(path), err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, dataset.FileError("open journal", path, err)
	}
	j := &journal{file: f, named: true}
	if err := j.recover(visit); err != nil {
		j.close()
		return nil, dataset.FileError("read journal", path, err)
	}
	return j, nil
}

// recover reads what is there and cuts off what is not whole.
func (j *journal) recover(visit func(name []byte, about *description, at place)) error {
	stat, err := j.file.Stat()
	if err != nil {
		return err
	}
	header := binary.LittleEndian.AppendUint32(journalMagic[:len(journalMagic):len(journalMagic)], journalVersion)
	found := make([]byte, journalHeader)
	if _, err := j.file.ReadAt(found, 0); err != nil && err != io.EOF {
		return err
	}
	if !bytes.Equal(found, header) { // new, or of another release
		if err := j.file.Truncate(0); err != nil {
			return err
		}
		_, err := j.file.WriteAt(header, 0)
		j.end = journalHeader
		return err
	}
	for j.end = journalHeader; ; {
		n, err := j.entry(stat.Size(), visit)
		if errors.Is(err, errTorn) {
			return j.file.Truncate(j.end)
		}
		if err != nil {
			return err
		}
		j.end += n
	}
}

// errTorn is the error for an entry that is not whole.
var errTorn = errors.New("no whole entry")

// entry reads the entry at j.end and returns its size.
func (j *journal) entry(size int64, visit func(name []byte, about *description, at place)) (int64, error) {
	head := make([]byte, entryHeader)
	if size-j.end < entryHeader {
		return 0, errTorn
	}
	if _, err := j.file.ReadAt(head, j.end); err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	nameBytes := int64(le.Uint32(head[4:]))
	at := place{start: j.end + entryHeader + nameBytes,
		about: le.Uint32(head[8:]), groups: le.Uint32(head[12:]), keys: le.Uint32(head[16:]), directory: le.Uint32(head[20:])}
	whole := entryHeader + nameBytes + at.bytes()
	if nameBytes > maxName || at.about > maxDescription || whole > size-j.end {
		return 0, errTorn
	}
	sum := crc32.New(castagnoli)
	sum.Write(head[4:])
	if _, err := io.Copy(sum, io.NewSectionReader(j.file, j.end+entryHeader, whole-entryHeader)); err != nil {
		return 0, err
	}
	if sum.Sum32() != le.Uint32(head) {
		return 0, errTorn
	}
	text := make([]byte, nameBytes+int64(at.about))
	if _, err := j.file.ReadAt(text, j.end+entryHeader); err != nil {
		return 0, err
	}
	about, err := decodeDescription(text[nameBytes:])
	if err != nil || !at.fits(about) {
		return 0, errTorn // written by something else
	}
	visit(text[:nameBytes], about, at)
	return whole, nil
}

// fits reports whether a shard's bytes have the sizes that its description says.
func (p *place) fits(d *description) bool {
	return int64(p.groups) == d.groupBytes && int64(p.keys) == d.keyBytes && int64(p.directory) == d.directoryBytes()
}

// append writes a finished shard and says where it is.
func (j *journal) append(name []byte, b *blob) (place, error) {
	if len(name) > maxName {
		return place{}, fmt.Errorf("note shard %q: its name has %d bytes, at most %d", shorten(name), len(name), maxName)
	}
	le := binary.LittleEndian
	head := make([]byte, entryHeader, entryHeader+len(name)+len(b.description))
	le.PutUint32(head[4:], uint32(len(name)))
	for i, part := range [][]byte{b.description, b.groups, b.keys, b.directory} {
		le.PutUint32(head[8+4*i:], uint32(len(part)))
	}
	head = append(append(head, name...), b.description...)
	sum := crc32.Update(0, castagnoli, head[4:])
	for _, part := range [][]byte{b.groups, b.keys, b.directory} {
		sum = crc32.Update(sum, castagnoli, part)
	}
	le.PutUint32(head, sum)
	at := place{start: j.end + entryHeader + int64(len(name)), about: uint32(len(b.description)),
		groups: uint32(len(b.groups)), keys: uint32(len(b.keys)), directory: uint32(len(b.directory))}
	end := j.end
	parts := [][]byte{head, b.groups, b.keys, b.directory}
	if at.bytes() <= shortEntry {
		j.scratch = j.scratch[:0]
		for _, part := range parts {
			j.scratch = append(j.scratch, part...)
		}
		parts = [][]byte{j.scratch}
	}
	for _, part := range parts {
		if _, err := j.file.WriteAt(part, end); err != nil {
			return place{}, dataset.FileError("write journal", j.file.Name(), err)
		}
		end += int64(len(part))
	}
	j.end = end
	return at, nil
}

// about reads the description of a shard.
func (j *journal) about(at place) ([]byte, error) {
	b := make([]byte, at.about)
	if _, err := j.file.ReadAt(b, at.start); err != nil {
		return nil, dataset.FileError("read journal", j.file.Name(), err)
	}
	return b, nil
}

// copy writes one section of a shard to w.
func (j *journal) copy(w io.Writer, at place, section string, scratch []byte) error {
	start, n := at.start+int64(at.about), int64(at.groups)
	switch section {
	case sectionKeys:
		start, n = start+n, int64(at.keys)
	case sectionDirectory:
		start, n = start+n+int64(at.keys), int64(at.directory)
	}
	for n > 0 {
		b := scratch[:min(int64(len(scratch)), n)]
		if _, err := j.file.ReadAt(b, start); err != nil {
			return dataset.FileError("read journal", j.file.Name(), err)
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		start, n = start+int64(len(b)), n-int64(len(b))
	}
	return nil
}

// close keeps the journal for a later scan, if it has a name and holds a shard.
func (j *journal) close() {
	_ = j.file.Close() // an entry that is lost is scanned again
	if j.named && j.end <= journalHeader {
		_ = os.Remove(j.file.Name()) // there is nothing in it
	}
}

// remove ends the journal: the index is there.
func (j *journal) remove() {
	j.close()
	if j.named {
		_ = os.Remove(j.file.Name()) // one that stays costs space, and is checked when it is used
	}
}
