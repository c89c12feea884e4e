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

// dropCache has the next read of a file come from the disk. Below a loop device lies
// another file, which only the kernel's own switch drops; root alone may use it. What
// stays in memory all the same is an error: a cold speed would be none.
func dropCache(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return err
	}
	_ = os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0)
	held, err := inMemory(file)
	if errors.Is(err, unix.ENOSYS) {
		return nil // checkCold says so
	}
	if err == nil && held > mostHeld {
		err = fmt.Errorf("%d MiB of %s stay in the page cache", held>>20, path)
	}
	return err
}

// mostHeld is what may stay in memory of a file that was dropped.
const mostHeld = 1 << 20

// inMemory is how many bytes of a file the page cache holds: cachestat(2), kernel 6.5.
func inMemory(file *os.File) (int64, error) {
	var pages unix.Cachestat_t
	if err := unix.Cachestat(uint(file.Fd()), &unix.CachestatRange{}, &pages, 0); err != nil {
		return 0, fmt.Errorf("ask what of %s is in the page cache: %w", file.Name(), err)
	}
	return int64(pages.Cache) * int64(os.Getpagesize()), nil
}

// checkCold says where nothing tells whether a file has left the page cache.
func checkCold(r *report, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := inMemory(file); err != nil {
		return r.none("T6", "cold", "cold figures may be warm: "+err.Error())
	}
	return nil
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
