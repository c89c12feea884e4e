package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// coldPattern is a way in which samples lie in files.
type coldPattern struct {
	name, dir string
	files     []string
	samples   []member // of files[shard]
	reopens   bool     // a file is opened for each sample
}

func rawPattern(d Data) coldPattern {
	p := coldPattern{name: GroupRaw, dir: d.RawDir, files: d.files(GroupRaw), reopens: true}
	for i := range p.files {
		p.samples = append(p.samples, member{shard: int32(i), size: rawFileBytes})
	}
	return p
}

func tarPattern(t TarData) coldPattern {
	p := coldPattern{name: GroupTar, dir: t.Dir, files: t.files()}
	for shard := range p.files {
		first, end := t.samplesOf(shard)
		for n := range end - first {
			p.samples = append(p.samples, member{int32(shard), int64(n*t.stored() + tarBlock), int64(t.SampleBytes)})
		}
	}
	return p
}

// sync writes what is dirty to the disk: the page cache keeps it otherwise.
func (p *coldPattern) sync() error { return syncFilesystem(p.dir) }

// drop takes the files out of the page cache and asks whether they are gone. Pages that
// are being read stay, so it is tried for some time.
func (p *coldPattern) drop(ctx context.Context) error {
	for attempt := 0; ; attempt++ {
		left, all, err := p.dropOnce()
		switch {
		case err != nil:
			return err
		case left <= all/1000:
			return nil
		case attempt == dropAttempts:
			return fmt.Errorf("the page cache keeps %d of the %d pages of %s: choose a data directory on a disk, and stop what reads or writes it", left, all, p.dir)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// dropAttempts bounds how often files are dropped again.
const dropAttempts = 20

// dropOnce says how many pages are left, of how many.
func (p *coldPattern) dropOnce() (left, all int64, err error) {
	for _, path := range p.files {
		if err := evictFile(path); err != nil {
			return 0, 0, err
		}
		cached, pages, err := cachedPages(path)
		if err != nil {
			return 0, 0, err
		}
		left, all = left+cached, all+pages
	}
	return left, all, nil
}

// cachedPages counts the pages of a file that the page cache has: by cachestat(2), or by
// mincore(2) where the kernel lacks it (before Linux 6.5).
func cachedPages(path string) (cached, all int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	page := int64(os.Getpagesize())
	all = (info.Size() + page - 1) / page
	var pages unix.Cachestat_t
	err = unix.Cachestat(uint(f.Fd()), new(unix.CachestatRange), &pages, 0)
	switch {
	case err == nil:
		return int64(pages.Cache), all, nil
	case !errors.Is(err, unix.ENOSYS), all == 0:
		return 0, all, fmt.Errorf("ask what of %q is in the page cache: %w", path, err)
	}
	memory, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, 0, fmt.Errorf("map %q: %w", path, err)
	}
	there := make([]byte, all)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&memory[0])), uintptr(len(memory)), uintptr(unsafe.Pointer(&there[0])))
	if err = unix.Munmap(memory); errno != 0 {
		err = errors.Join(fmt.Errorf("ask what of %q is in memory: %w", path, errno), err)
	}
	for _, b := range there {
		cached += int64(b & 1)
	}
	return cached, all, err
}

// deviceRate reads all samples once, in random order, with so many reads under way. It
// returns bytes/s.
func (p *coldPattern) deviceRate(ctx context.Context, flights int, seed uint64) (float64, error) {
	var opened []*os.File
	defer func() {
		for _, f := range opened {
			_ = f.Close() // was only read
		}
	}()
	for i := 0; !p.reopens && i < len(p.files); i++ {
		f, err := os.Open(p.files[i])
		if err != nil {
			return 0, err
		}
		opened = append(opened, f)
	}
	order := rand.New(rand.NewPCG(seed, 1)).Perm(len(p.samples))
	buffers := make([][]byte, flights)
	loop := turns{flights: flights, count: int64(len(order))}
	done, err := loop.run(ctx, func(flight int, turn int64) (int64, error) {
		s := p.samples[order[turn]]
		if int64(len(buffers[flight])) < s.size {
			buffers[flight] = make([]byte, s.size)
		}
		return s.size, p.read(opened, s, buffers[flight][:s.size])
	})
	return done.perSecond(), err
}

func (p *coldPattern) read(opened []*os.File, s member, buffer []byte) error {
	if !p.reopens {
		_, err := opened[s.shard].ReadAt(buffer, s.offset)
		return err
	}
	fd, err := unix.Open(p.files[s.shard], unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %q: %w", filepath.Base(p.files[s.shard]), err)
	}
	n, err := unix.Pread(fd, buffer, s.offset)
	if err == nil && n < len(buffer) {
		err = fmt.Errorf("%q has %d bytes, expected %d", p.files[s.shard], n, len(buffer))
	}
	return errors.Join(err, unix.Close(fd))
}
