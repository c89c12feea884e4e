package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lookAt asks the system about a directory. It leaves nothing in it.
func lookAt(path string) Directory {
	d := Directory{Path: path}
	if absolute, err := filepath.Abs(path); err == nil {
		d.Path = absolute
	}
	resolved, err := filepath.EvalSymlinks(d.Path)
	if err != nil {
		d.cannot(err)
		return d
	}
	d.Path = resolved
	if info, err := os.Stat(resolved); err != nil {
		d.cannot(err)
		return d
	} else if !info.IsDir() {
		d.Err = "it is no directory"
		return d
	}
	var system unix.Statfs_t
	if err := unix.Statfs(resolved, &system); err == nil {
		d.FreeBytes = int64(system.Bavail) * system.Bsize
	}
	d.lookAtFlags()
	d.tryDirectIO()
	d.countCached()
	return d
}

// cannot notes why a directory was not looked at. One that is another user's may be fine,
// and its mount can be told by its path.
func (d *Directory) cannot(err error) {
	if errors.Is(err, fs.ErrPermission) {
		d.NotTried = err.Error()
		return
	}
	d.Err = err.Error()
}

func (d *Directory) lookAtFlags() {
	descriptor, err := unix.Open(d.Path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(descriptor)
	if flags, err := unix.IoctlGetUint32(descriptor, unix.FS_IOC_GETFLAGS); err == nil {
		d.Flags, d.HasFlags = flags, true
	}
}

// directProbeBytes is what is written and read to try O_DIRECT: a multiple of any
// alignment that the kernel asks for.
const directProbeBytes = 64 << 10

// tryDirectIO writes a file that has no name, and reads it past the page cache.
func (d *Directory) tryDirectIO() {
	scratch, err := openScratch(d.Path)
	if err != nil {
		d.NotTried = err.Error()
		return
	}
	defer unix.Close(scratch)
	var stat unix.Statx_t
	if err := unix.Statx(scratch, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &stat); err == nil && stat.Mask&unix.STATX_DIOALIGN != 0 {
		d.MemoryAlignment, d.OffsetAlignment = int64(stat.Dio_mem_align), int64(stat.Dio_offset_align)
	}
	page, err := unix.Mmap(-1, 0, directProbeBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		d.NotTried = fmt.Sprintf("no memory: %v", err)
		return
	}
	defer unix.Munmap(page)
	if err := writeAndSync(scratch, page); err != nil {
		d.NotTried = err.Error()
		return
	}
	if err := readDirectly(scratch, page); err != nil {
		d.DirectErr = err.Error()
	}
}

// openScratch opens a file of which nothing is left when it is closed.
func openScratch(directory string) (descriptor int, err error) {
	descriptor, err = unix.Open(directory, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil || !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return descriptor, err
	}
	file, err := os.CreateTemp(directory, ".stoker-doctor-*") // a file system without O_TMPFILE
	if err != nil {
		return -1, err
	}
	defer file.Close()
	if err := os.Remove(file.Name()); err != nil {
		return -1, err
	}
	return unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
}

func writeAndSync(descriptor int, page []byte) error {
	if n, err := unix.Pwrite(descriptor, page, 0); err != nil || n < len(page) {
		return fmt.Errorf("write %d bytes: %d were written: %w", len(page), n, orNoSpace(err))
	}
	return unix.Fdatasync(descriptor)
}

// orNoSpace is why a write was short.
func orNoSpace(err error) error {
	if err == nil {
		return unix.ENOSPC
	}
	return err
}

func readDirectly(descriptor int, page []byte) error {
	if _, err := unix.FcntlInt(uintptr(descriptor), unix.F_SETFL, unix.O_DIRECT); err != nil {
		return fmt.Errorf("set O_DIRECT: %w", err)
	}
	n, err := unix.Pread(descriptor, page, 0)
	if err == nil && n < len(page) {
		err = fmt.Errorf("only %d bytes came", n)
	}
	if err != nil {
		return fmt.Errorf("read %d bytes with O_DIRECT: %w", len(page), err)
	}
	return nil
}

// cachedFilesMax bounds the files that are asked about: a store has one a GiB.
const cachedFilesMax = 4096

var errEnough = errors.New("enough files")

// countCached asks how much of the files below the directory is in the page cache:
// cachestat(2), kernel 6.5.
func (d *Directory) countCached() {
	err := filepath.WalkDir(d.Path, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		if d.Files == cachedFilesMax {
			return errEnough
		}
		held, cached, err := cachedOf(path)
		d.Files, d.Bytes, d.CachedBytes = d.Files+1, d.Bytes+held, d.CachedBytes+cached
		return err
	})
	d.More = errors.Is(err, errEnough)
	d.Counted = err == nil || d.More
}

// cachedOf is how many bytes a file takes on its device, and how many are in memory.
func cachedOf(path string) (held, cached int64, err error) {
	descriptor, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(descriptor)
	var stat unix.Stat_t
	if err := unix.Fstat(descriptor, &stat); err != nil {
		return 0, 0, err
	}
	var pages unix.Cachestat_t
	if err := unix.Cachestat(uint(descriptor), &unix.CachestatRange{}, &pages, 0); err != nil {
		return 0, 0, err
	}
	return stat.Blocks * 512, int64(pages.Cache) * int64(os.Getpagesize()), nil
}
