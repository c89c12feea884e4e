package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/stokerio/stoker/cufile"
	"golang.org/x/sys/unix"
)

// workers is how many threads load at once: enough for pread to outrun PCIe 5.
const workers = 16

// parallel calls load for each piece of bytes, from as many goroutines as there
// are workers, and returns what they failed with.
func parallel(bytes, piece int64, load func(worker int, at int64, n int) error) error {
	var next atomic.Int64
	var group sync.WaitGroup
	failures := make([]error, workers)
	for worker := range workers {
		group.Go(func() {
			for failures[worker] == nil {
				at := next.Add(piece) - piece
				if at >= bytes {
					return
				}
				failures[worker] = load(worker, at, int(min(piece, bytes-at)))
			}
		})
	}
	group.Wait()
	return errors.Join(failures...)
}

// staging is shared host memory that the GPU's copy engine reads by itself: a
// registered memfd, one piece a worker, as the daemon's slabs are.
type staging struct {
	memory []byte
	host   *cufile.HostMemory
}

func newStaging(device *cufile.Device, bytes int64) (*staging, error) {
	fd, err := unix.MemfdCreate("gpucheck", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, bytes); err != nil {
		return nil, fmt.Errorf("memfd of %d bytes: %w", bytes, err)
	}
	memory, err := unix.Mmap(fd, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", bytes, err)
	}
	host, err := device.RegisterHost(memory)
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(memory))
	}
	return &staging{memory, host}, nil
}

func (s *staging) close() error { return errors.Join(s.host.Close(), unix.Munmap(s.memory)) }

// load brings the first bytes of a file into a slab: read into host memory by
// pread, copied from there by the GPU.
func (s *staging) load(path string, slab *cufile.Slab, bytes int64) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return parallel(bytes, pieceBytes, func(worker int, at int64, n int) error {
		from := int64(worker) * pieceBytes
		if _, err := file.ReadAt(s.memory[from:from+int64(n)], at); err != nil {
			return err
		}
		return slab.CopyFromHost(s.host, from, at, int64(n))
	})
}

// loadDirect brings them in by cuFile, in pieces that several threads ask for.
func loadDirect(file *cufile.File, slab *cufile.Slab, bytes int64) error {
	const piece = 4 << 20
	return parallel(bytes, piece, func(_ int, at int64, n int) error {
		got, err := file.ReadAt(slab, at, n, at)
		if err == nil && got < n {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
}

// readRaw reads a file past the page cache and throws it away: what the disk has.
func readRaw(path string, bytes int64) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s with O_DIRECT: %w", path, err)
	}
	defer unix.Close(fd)
	const piece = 4 << 20
	memory, err := unix.Mmap(-1, 0, workers*piece, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(memory) }()
	return parallel(bytes, piece, func(worker int, at int64, n int) error {
		got, err := unix.Pread(fd, memory[worker*piece:][:n], at)
		if err == nil && got < n {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
}
