package main

import (
	"bufio"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// traceFile is a file that is written under another name, and has its own once it is
// whole. What is no regular file, such as a pipe, is written as it is.
type traceFile struct {
	path    string
	file    *os.File // nil once it is closed
	out     *bufio.Writer
	written int64
	force   bool
	direct  bool
}

// newTraceFile begins a file. keep or discard must follow; discard after keep does
// nothing.
func newTraceFile(path string, force bool) (*traceFile, error) {
	f := &traceFile{path: path, force: force}
	stat, err := os.Stat(path)
	switch {
	case err == nil && !force:
		return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.EEXIST}
	case err == nil && stat.IsDir():
		return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.EISDIR}
	case err == nil && !stat.Mode().IsRegular():
		f.direct = true
		f.file, err = os.OpenFile(path, os.O_WRONLY, 0)
	default:
		hidden := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"-"+rand.Text()[:8])
		f.file, err = os.OpenFile(hidden, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	}
	if err != nil {
		return nil, err
	}
	f.out = bufio.NewWriterSize(f.file, 256<<10)
	return f, nil
}

// Write implements io.Writer.
func (f *traceFile) Write(p []byte) (int, error) {
	n, err := f.out.Write(p)
	f.written += int64(n)
	return n, err
}

// keep gives the file its name and says how large it is.
func (f *traceFile) keep() (int64, error) {
	if err := f.out.Flush(); err != nil {
		return 0, err
	}
	name := f.file.Name()
	err := f.file.Close()
	if !f.direct && err == nil {
		err = f.rename(name)
	}
	if err != nil {
		return 0, err
	}
	f.file = nil
	return f.written, nil
}

// rename replaces another file only if that is wanted.
func (f *traceFile) rename(name string) error {
	if !f.force {
		err := unix.Renameat2(unix.AT_FDCWD, name, unix.AT_FDCWD, f.path, unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) { // which some filesystems do not know
			return err
		}
	}
	return os.Rename(name, f.path)
}

// discard removes a file that was not kept: half a trace is of no use.
func (f *traceFile) discard() {
	if f.file == nil {
		return
	}
	_ = f.file.Close()
	if !f.direct {
		_ = os.Remove(f.file.Name())
	}
	f.file = nil
}
