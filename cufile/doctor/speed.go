package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/cufile"
)

// sampler measures rates: sampleReaders read pieces of sampleBytes of a file, for a while.
type sampler struct {
	while     time.Duration
	fileBytes int64 // a multiple of sampleBytes
}

const (
	sampleBytes   = 4 << 20
	sampleReaders = 4
)

// oneSecond is the sampler of --prove. Its file is larger than the memory of most drives'
// own caches, and small enough to be written in a second.
var oneSecond = sampler{time.Second, 256 << 20}

// measure takes some seconds; a file that it writes is gone afterwards. direct says
// whether there is a direct route to measure.
func (r sampler) measure(ctx context.Context, driver *cufile.Driver, info *cufile.DeviceInfo, directory string, direct bool) (s *SpeedProbe) {
	s = &SpeedProbe{Directory: directory, Device: info.UUID.String()}
	device, err := driver.Device(info.UUID)
	if err != nil {
		s.Err = said(err)
		return s
	}
	defer closing(&s.Err, device.Close)
	slab, err := device.NewSlab(sampleBytes * sampleReaders)
	if err != nil {
		s.Err = said(err)
		return s
	}
	defer closing(&s.Err, slab.Close)
	path, err := r.writeFile(directory)
	if err != nil {
		s.Err = err.Error()
		return s
	}
	defer os.Remove(path)
	if s.Upload, err = r.upload(ctx, device, slab); err == nil {
		s.Disk, err = r.disk(ctx, path)
	}
	if err == nil && direct {
		s.Direct, err = r.direct(ctx, driver, slab, path)
	}
	if err != nil {
		s.Err = said(err)
	}
	return s
}

// writeFile writes a file of bytes that do not compress, and leaves none of it in the
// page cache.
func (r sampler) writeFile(directory string) (path string, err error) {
	file, err := os.CreateTemp(directory, ".stoker-doctor-*")
	if err != nil {
		return "", err
	}
	defer file.Close()
	pattern := sharedPattern()
	for written := int64(0); written < r.fileBytes && err == nil; written += int64(len(pattern)) {
		_, err = file.Write(pattern)
	}
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	if err != nil {
		os.Remove(file.Name())
		return "", fmt.Errorf("write %s for a sample of speed: %w", filepath.Base(file.Name()), err)
	}
	return file.Name(), nil
}

// rate runs readers for a while and says how many bytes a second they moved. move moves
// the n-th piece of one reader, and says how many bytes that were.
func (r sampler) rate(ctx context.Context, readers int, move func(reader, n int) (int, error)) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, r.while)
	defer cancel()
	var moved atomic.Int64
	var first atomic.Pointer[error]
	var all sync.WaitGroup
	begin := time.Now()
	for reader := range readers {
		all.Go(func() {
			for n := 0; n == 0 || ctx.Err() == nil; n++ {
				count, err := move(reader, n)
				if err != nil {
					first.CompareAndSwap(nil, &err)
					cancel()
					return
				}
				moved.Add(int64(count))
			}
		})
	}
	all.Wait()
	if err := first.Load(); err != nil {
		return 0, *err
	}
	return float64(moved.Load()) / time.Since(begin).Seconds(), nil
}

func (r sampler) upload(ctx context.Context, device *cufile.Device, slab *cufile.Slab) (perSecond float64, err error) {
	memory, err := unix.Mmap(-1, 0, int(slab.Bytes()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return 0, fmt.Errorf("host memory for a sample of speed: %w", err)
	}
	defer unix.Munmap(memory)
	pinned, err := device.RegisterHost(memory)
	if err != nil {
		return 0, err
	}
	perSecond, err = r.rate(ctx, 1, func(int, int) (int, error) {
		return len(memory), slab.CopyFromHost(pinned, 0, 0, int64(len(memory)))
	})
	if closeErr := pinned.Close(); err == nil {
		err = closeErr
	}
	return perSecond, err
}

// piece is where the n-th piece of a reader begins: they share the file.
func (r sampler) piece(reader, n int) int64 {
	return int64(n*sampleReaders+reader) % (r.fileBytes / sampleBytes) * sampleBytes
}

func (r sampler) disk(ctx context.Context, path string) (float64, error) {
	descriptor, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open %s with O_DIRECT: %w", path, err)
	}
	defer unix.Close(descriptor)
	memory, err := unix.Mmap(-1, 0, sampleBytes*sampleReaders, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return 0, fmt.Errorf("host memory for a sample of speed: %w", err)
	}
	defer unix.Munmap(memory)
	return r.rate(ctx, sampleReaders, func(reader, n int) (int, error) {
		return unix.Pread(descriptor, memory[reader*sampleBytes:][:sampleBytes], r.piece(reader, n))
	})
}

func (r sampler) direct(ctx context.Context, driver *cufile.Driver, slab *cufile.Slab, path string) (perSecond float64, err error) {
	if err := slab.Register(); err != nil {
		return 0, err
	}
	file, err := driver.OpenFile(path, cufile.FileOptions{})
	if err != nil {
		return 0, err
	}
	perSecond, err = r.rate(ctx, sampleReaders, func(reader, n int) (int, error) {
		return file.ReadAt(slab, int64(reader*sampleBytes), sampleBytes, r.piece(reader, n))
	})
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	return perSecond, err
}
