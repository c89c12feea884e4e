package seekable

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"

	"github.com/stokerio/stoker/backend"
)

// temporaryPrefix begins the name of a file that is not finished: that by which
// loader/dataset knows what a scan that was killed has left.
const temporaryPrefix = ".scan-"

// Writer makes a file out of a stream: Write what it shall decompress to, then
// Finish. Its memory is 12 bytes a frame beside a fixed 1 MB. Not for parallel use.
//
// The fastest level: what is unpacked was compressed as its owner liked it, and here
// only the time of a scan and of every later read counts.
type Writer struct {
	dir     string
	file    *os.File
	out     *bufio.Writer
	encoder *zstd.Encoder
	frame   []byte // content of the frame that is being collected; cap is its size
	scratch []byte
	entries []byte // of the seek table
	bytes   int64  // written to the Writer
	stored  int64  // written to the file
	err     error  // the first
}

var _ io.Writer = (*Writer)(nil)

// Create begins a file in dir, which is created if it is not there. The caller ends it
// with Finish or Abort. Errors: NotFound, Permission, NoSpace, Unavailable.
func Create(dir string) (*Writer, error) { return create(dir, FrameBytes) }

func create(dir string, frameBytes int) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fileError("create directory", dir, err)
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(true), zstd.WithWindowSize(frameBytes))
	if err != nil {
		return nil, fmt.Errorf("make an encoder: %w", err)
	}
	file, err := os.CreateTemp(dir, temporaryPrefix)
	if err != nil {
		return nil, fileError("create file in", dir, err)
	}
	return &Writer{
		dir: dir, file: file, out: bufio.NewWriterSize(file, 256<<10), encoder: encoder,
		frame: make([]byte, 0, frameBytes), scratch: make([]byte, 0, maxCompressed),
	}, nil
}

// Size returns how many bytes have been written.
func (w *Writer) Size() int64 { return w.bytes }

// Write implements io.Writer. More than MaxBytes in all are refused as Invalid.
func (w *Writer) Write(p []byte) (n int, err error) {
	if w.err == nil && int64(len(p)) > MaxBytes-w.bytes {
		w.err = &backend.Error{
			Kind: backend.Invalid, Op: "write", Object: w.file.Name(),
			Detail: fmt.Sprintf("more than %d bytes in one file", int64(MaxBytes)), Remedy: "divide it into smaller files",
		}
	}
	for w.err == nil && len(p) > 0 {
		k := min(len(p), cap(w.frame)-len(w.frame))
		w.frame = append(w.frame, p[:k]...)
		p, n, w.bytes = p[k:], n+k, w.bytes+int64(k)
		if len(w.frame) == cap(w.frame) {
			w.err = w.flush()
		}
	}
	return n, w.err
}

// flush writes the collected frame.
func (w *Writer) flush() error {
	w.scratch = w.encoder.EncodeAll(w.frame, w.scratch[:0])
	w.entries = appendEntry(w.entries, len(w.scratch), len(w.frame), uint32(xxhash.Sum64(w.frame)))
	w.frame = w.frame[:0]
	return w.put(w.scratch)
}

func (w *Writer) put(b []byte) error {
	n, err := w.out.Write(b)
	w.stored += int64(n)
	if err != nil {
		return fileError("write", w.file.Name(), err)
	}
	return nil
}

// Finish completes the file, makes it durable as name (of NameOf) in place of what
// is there, and returns the object that it holds: of's origin and name, with the
// Version by which a Store finds the file. After an error nothing is left.
// Errors: as Create.
func (w *Writer) Finish(name string, of *backend.Object) (backend.Object, error) {
	err := w.finish(name, of)
	if err != nil {
		w.Abort()
		return backend.Object{}, err
	}
	return backend.Object{
		Origin: of.Origin, Number: of.Number, Name: bytes.Clone(of.Name),
		Version: backend.Version{Size: w.bytes, Tag: Tag(name, w.bytes)},
	}, nil
}

func (w *Writer) finish(name string, of *backend.Object) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("finish %q: want a name of the pattern %s", name, namePattern)
	}
	if w.err == nil && len(w.frame) > 0 {
		w.err = w.flush()
	}
	if w.err != nil {
		return w.err
	}
	about := description{origin: []byte(of.Origin), name: of.Name}
	tail := about.append(nil)
	if len(tail) > maxDescription {
		return fmt.Errorf("finish %q: the object's name has %d bytes, at most %d fit", name, len(tail), maxDescription)
	}
	w.entries = appendEntry(w.entries, len(tail), 0, checksumOfNothing)
	if err := w.put(appendTable(tail, w.entries)); err != nil {
		return err
	}
	if err := errors.Join(w.out.Flush(), w.file.Sync(), w.file.Close()); err != nil {
		return fileError("write", w.file.Name(), err)
	}
	if err := os.Rename(w.file.Name(), filepath.Join(w.dir, name)); err != nil {
		return fileError("rename", w.file.Name(), err)
	}
	return syncDirectory(w.dir)
}

// Abort removes the unfinished file. After Finish it does nothing.
func (w *Writer) Abort() {
	// Nothing to report: the file may be closed or renamed, and one that stays is
	// removed before its dataset is scanned again.
	_ = w.file.Close()
	_ = os.Remove(w.file.Name())
}

// syncDirectory makes a rename in dir durable.
func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fileError("open directory", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fileError("sync directory", dir, err)
	}
	return nil
}

// fileError gives an error of writing its kind.
func fileError(op, path string, err error) error {
	kind, remedy := backend.Unavailable, "check the device that the daemon's data directory is on"
	switch {
	case errors.Is(err, os.ErrNotExist):
		kind = backend.NotFound
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EROFS):
		kind, remedy = backend.Permission, "give the daemon's user the right to write its data directory, or choose another with --data-dir"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		kind, remedy = backend.NoSpace, "free space there, or choose another data directory with --data-dir"
	}
	return &backend.Error{Kind: kind, Op: op, Object: path, Err: err, Remedy: remedy}
}
