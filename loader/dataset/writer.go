package dataset

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/zeebo/blake3"

	"github.com/stokerio/stoker/backend"
)

// IndexPath is where the index of that id lies in a directory.
func IndexPath(dir, id string) string { return filepath.Join(dir, id+indexSuffix) }

// RemoveTemporary removes what scans that were killed have left in dir. No scan into
// dir may be running.
func RemoveTemporary(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), temporaryPrefix) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// Temporary returns a new file in dir that has no name any more: it lives as long as it
// is open.
func Temporary(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, temporaryPrefix)
	if err != nil {
		return nil, FileError("create temporary file in", dir, err)
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close() // nothing was written
		return nil, FileError("remove", f.Name(), err)
	}
	return f, nil
}

// Writer writes an index file: Append each record, then the sections if there are any,
// then Commit. It streams: its memory does not depend on the number of records. Not for
// parallel use.
type Writer struct {
	dir      string
	file     *os.File
	table    *bufio.Writer
	records  *bufio.Writer
	expected int64
	count    int64
	end      int64 // of the last record or section
	sections []Section
	maximum  int64
	hash     *blake3.Hasher
	scratch  []byte
}

// Create begins an index of exactly that many records in dir, which is created if
// it is not there. The caller ends it with Commit or Abort. Errors are of backend's
// kinds.
func Create(dir string, records int64) (*Writer, error) {
	if records < 1 || records > maxRecords {
		return nil, fmt.Errorf("create index of %d records: an index holds 1 to %d", records, int64(maxRecords))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, FileError("create directory", dir, err)
	}
	f, err := os.CreateTemp(dir, temporaryPrefix)
	if err != nil {
		return nil, FileError("create index in", dir, err)
	}
	start := headerBytes + 8*(records+1)
	w := &Writer{
		dir: dir, file: f, expected: records, end: start, hash: blake3.New(),
		table:   bufio.NewWriterSize(io.NewOffsetWriter(f, headerBytes), int(min(start-headerBytes, 64<<10))),
		records: bufio.NewWriterSize(io.NewOffsetWriter(f, start), 64<<10),
	}
	return w, nil
}

// Append writes the next record; its numbers count from 0. It keeps nothing of r.
func (w *Writer) Append(r *Record) error {
	if w.count == w.expected || len(w.sections) > 0 {
		return fmt.Errorf("index of %d records is given one more: %q", w.expected, r.Name)
	}
	b, err := appendRecord(w.scratch[:0], w.count, r)
	w.scratch = b
	if err != nil {
		return err
	}
	if _, err := w.records.Write(b); err != nil {
		return FileError("write", w.file.Name(), err)
	}
	w.hash.Write(b[recordHashOffset:recordDevice])
	w.hash.Write(b[recordDevice+8:])
	if err := w.appendOffset(); err != nil {
		return err
	}
	w.count++
	w.end += int64(len(b))
	w.maximum = max(w.maximum, r.Version.Size)
	return nil
}

// appendOffset writes where the next record begins.
func (w *Writer) appendOffset() error {
	if _, err := w.table.Write(binary.LittleEndian.AppendUint64(w.table.AvailableBuffer(), uint64(w.end))); err != nil {
		return FileError("write", w.file.Name(), err)
	}
	return nil
}

// Section begins a section, once all records are there, and ends the one before. What
// is written to the result, before the next Section or Commit, is its content. A
// section may stay empty.
func (w *Writer) Section(name string) (io.Writer, error) {
	if w.count != w.expected {
		return nil, fmt.Errorf("section %q of an index of %d records comes after %d", name, w.expected, w.count)
	}
	if len(w.sections) == maxSections {
		return nil, fmt.Errorf("section %q is one more than %d", name, maxSections)
	}
	for _, s := range w.sections {
		if s.Name == name {
			return nil, fmt.Errorf("section %q is begun again", name)
		}
	}
	if len(w.sections) == 0 {
		if err := w.appendOffset(); err != nil { // where the last record ends
			return nil, err
		}
	}
	w.sections = append(w.sections, Section{Name: name, Offset: w.end})
	return &sectionWriter{w: w, number: len(w.sections) - 1}, nil
}

// sectionWriter writes the Writer's last section.
type sectionWriter struct {
	w      *Writer
	number int
}

// Write implements io.Writer.
func (s *sectionWriter) Write(p []byte) (int, error) {
	w := s.w
	if s.number != len(w.sections)-1 {
		return 0, fmt.Errorf("write to section %q after it has ended", w.sections[s.number].Name)
	}
	n, err := w.records.Write(p)
	if err != nil {
		return n, FileError("write", w.file.Name(), err)
	}
	w.hash.Write(p)
	w.end += int64(n)
	w.sections[s.number].Bytes += int64(n)
	return n, nil
}

// Commit completes the index, makes it durable under its final name and returns its
// metadata with ID set. MaxBytes is filled in if it is 0. After an error nothing is
// left.
func (w *Writer) Commit(meta Meta) (Meta, error) {
	meta, err := w.commit(meta)
	if err != nil {
		w.Abort()
	}
	return meta, err
}

func (w *Writer) commit(meta Meta) (Meta, error) {
	if w.count != w.expected {
		return meta, fmt.Errorf("index of %d records was given %d", w.expected, w.count)
	}
	if meta.MaxBytes == 0 {
		meta.MaxBytes = w.maximum
	}
	meta.Info.ID, meta.Sections = "", w.sections
	id, err := indexID(w.hash, meta)
	if err != nil {
		return meta, err
	}
	content, err := json.Marshal(meta)
	if err != nil {
		return meta, fmt.Errorf("encode metadata: %w", err)
	}
	if len(content) > maxMetaBytes {
		return meta, fmt.Errorf("metadata of %d bytes, an index holds at most %d: too many class names (%d)",
			len(content), maxMetaBytes, len(meta.Info.Classes))
	}
	h := header{
		records: w.count, start: headerBytes + 8*(w.count+1), metaStart: w.end,
		metaBytes: int64(len(content)), metaCRC: crc32.Checksum(content, castagnoli), id: id,
	}
	if err := w.finish(&h, content); err != nil {
		return meta, err
	}
	meta.Info.ID = idString(id)
	return meta, w.publish(meta.Info.ID)
}

// finish writes what is buffered, the metadata and the header, and syncs the file.
func (w *Writer) finish(h *header, content []byte) error {
	if len(w.sections) == 0 {
		if err := w.appendOffset(); err != nil {
			return err
		}
	}
	err := errors.Join(w.table.Flush(), w.records.Flush())
	if err == nil {
		_, err = w.file.WriteAt(content, h.metaStart)
	}
	if err == nil {
		_, err = w.file.WriteAt(h.encode(), 0)
	}
	if err == nil {
		err = w.file.Sync()
	}
	if err != nil {
		return FileError("write", w.file.Name(), err)
	}
	return nil
}

// publish gives the file its final name and makes that durable.
func (w *Writer) publish(id string) error {
	if err := w.file.Close(); err != nil {
		return FileError("close", w.file.Name(), err)
	}
	if err := os.Rename(w.file.Name(), IndexPath(w.dir, id)); err != nil {
		return FileError("rename", w.file.Name(), err)
	}
	return SyncDirectory(w.dir)
}

// Abort removes the unfinished file. After Commit it does nothing.
func (w *Writer) Abort() {
	// Nothing to report: the file may be closed or renamed, and a file that stays is
	// what RemoveTemporary is for.
	_ = w.file.Close()
	_ = os.Remove(w.file.Name())
}

// indexID adds the metadata to a hash of all records and sections and returns the id.
func indexID(h *blake3.Hasher, meta Meta) (id [idBytes]byte, err error) {
	meta.Origin, meta.Info.ID = "", ""
	content, err := json.Marshal(meta)
	if err != nil {
		return id, fmt.Errorf("encode metadata: %w", err)
	}
	h.Write(content)
	copy(id[:], h.Sum(nil))
	return id, nil
}

// SyncDirectory makes what was renamed or removed in dir durable. Errors are of
// backend's kinds.
func SyncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return FileError("open directory", dir, err)
	}
	err = errors.Join(d.Sync(), d.Close())
	if err != nil {
		return FileError("sync directory", dir, err)
	}
	return nil
}

// FileError gives an error of the local file system, met on a file of the daemon, its
// kind and remedy.
func FileError(op, path string, err error) error {
	kind, remedy := backend.Unavailable, "check the device that the daemon's data directory is on"
	switch {
	case errors.Is(err, os.ErrNotExist):
		kind, remedy = backend.NotFound, remedyIndex
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EROFS):
		kind, remedy = backend.Permission, "give the daemon's user the right to write its data directory, or choose another with --data-dir"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		kind, remedy = backend.NoSpace, "free space there, or choose another data directory with --data-dir"
	}
	return &backend.Error{Kind: kind, Op: op, Object: path, Err: err, Remedy: remedy}
}
