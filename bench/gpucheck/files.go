package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"github.com/stokerio/stoker/cufile"
	"golang.org/x/sys/unix"
)

// pieceBytes is what one read or copy moves: cuFile's own piece, and large enough
// that the cost of a call does not show.
const pieceBytes = 16 << 20

// writeFile makes a file of random bytes that are on the disk when it returns.
func writeFile(dir string, length int64) (path string, content []byte, err error) {
	content = make([]byte, length)
	random := rand.NewChaCha8([32]byte{'g', 'p', 'u'})
	if _, err := random.Read(content); err != nil {
		return "", nil, err
	}
	file, err := os.CreateTemp(dir, "gpucheck-*")
	if err != nil {
		return "", nil, err
	}
	_, err = file.Write(content)
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		removeFile(file.Name())
		return "", nil, fmt.Errorf("write %d bytes to %s: %w; make room there or name another folder", length, file.Name(), err)
	}
	return file.Name(), content, nil
}

// removeFile leaves nothing in the folder that was named; a failure shows there.
func removeFile(path string) { _ = os.Remove(path) }

// dropCache has the next read of a file come from the disk.
func dropCache(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// warmCache reads a file once through the page cache.
func warmCache(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(io.Discard, file)
	return err
}

// openFile opens a file for the storage library, buffered where it takes that: the
// page cache then counts, and any file system will do. Before cuFile 1.7 it wants
// direct I/O.
func openFile(driver *cufile.Driver, path string) (*cufile.File, error) {
	file, err := driver.OpenFile(path, cufile.FileOptions{Buffered: true})
	if err == nil {
		return file, nil
	}
	file, directErr := driver.OpenFile(path, cufile.FileOptions{})
	if directErr != nil {
		return nil, errors.Join(err, directErr)
	}
	return file, nil
}
