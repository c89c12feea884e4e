package loader

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/shm"
)

// coldDisk is a kernel whose page cache is as empty as a test wants it, whatever the file
// system: pages are in it once they were asked for or read.
type coldDisk struct {
	object.System
	mu struct {
		sync.Mutex
		pages  map[uint64]map[int64]bool // by inode
		waited map[uint64]int            // reads that had to wait, by inode
		asked  int                       // requests to read ahead
		hook   func(name string)         // called for each of them; may block; nil: nothing
	}
}

func newColdDisk() *coldDisk {
	d := &coldDisk{System: object.Kernel()}
	d.drop()
	return d
}

// drop empties the page cache.
func (d *coldDisk) drop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.pages, d.mu.waited = map[uint64]map[int64]bool{}, map[uint64]int{}
}

// onRequest sets the hook.
func (d *coldDisk) onRequest(hook func(name string)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.hook = hook
}

const testPage = 4096

// look counts the pages of a range that are cached, and puts the others there if bring is
// set.
func (d *coldDisk) look(inode uint64, off, n int64, bring bool) (cached, all int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	pages := d.mu.pages[inode]
	if pages == nil {
		pages = map[int64]bool{}
		d.mu.pages[inode] = pages
	}
	for page := off / testPage; page <= (off+n-1)/testPage; page++ {
		all++
		if pages[page] {
			cached++
		}
		pages[page] = pages[page] || bring
	}
	return cached, all
}

func inodeOf(fd int) uint64 {
	var stat unix.Stat_t
	_ = unix.Fstat(fd, &stat)
	return stat.Ino
}

func (d *coldDisk) Preadv2(fd int, p []byte, off int64, flags int) (int, syscall.Errno) {
	if cached, all := d.look(inodeOf(fd), off, int64(len(p)), false); cached < all && len(p) > 0 {
		return -1, unix.EAGAIN
	}
	return d.System.Preadv2(fd, p, off, flags)
}

func (d *coldDisk) Pread(fd int, p []byte, off int64) (int, syscall.Errno) {
	inode := inodeOf(fd)
	if cached, all := d.look(inode, off, int64(len(p)), true); cached < all {
		d.mu.Lock()
		d.mu.waited[inode]++
		d.mu.Unlock()
	}
	return d.System.Pread(fd, p, off)
}

func (d *coldDisk) Fadvise(fd int, off, n int64, _ int) syscall.Errno {
	d.mu.Lock()
	d.mu.asked++
	hook := d.mu.hook
	d.mu.Unlock()
	if hook != nil {
		name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		hook(filepath.Base(name))
	}
	d.look(inodeOf(fd), off, n, true)
	return 0
}

func (d *coldDisk) Cachestat(fd int, asked *unix.CachestatRange, pages *unix.Cachestat_t) syscall.Errno {
	cached, _ := d.look(inodeOf(fd), int64(asked.Off), int64(asked.Len), false)
	*pages = unix.Cachestat_t{Cache: uint64(cached)}
	return 0
}

// hasFile reports whether the first bytes of a file are cached.
func (d *coldDisk) hasFile(t testing.TB, name string, bytes int64) bool {
	var stat unix.Stat_t
	if err := unix.Stat(name, &stat); err != nil {
		t.Fatal(err)
	}
	cached, all := d.look(stat.Ino, 0, bytes, false)
	return cached == all
}

// waits counts the reads that had to wait.
func (d *coldDisk) waits() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, waited := range d.mu.waited {
		n += waited
	}
	return n
}

// coldFiles is a node over a cold disk with a dataset of files of one size, which have
// the numbers of their samples.
type coldFiles struct {
	*testNode
	disk  *coldDisk
	dir   string
	names []string // by sample
	bytes int
}

func newColdFiles(t testing.TB, count, bytes int, change func(*Options)) *coldFiles {
	t.Helper()
	c := &coldFiles{disk: newColdDisk(), bytes: bytes}
	options := testOptions(t)
	options.Object.System = c.disk
	options.Session.Slots = 4
	if change != nil {
		change(&options)
	}
	c.testNode = startNode(t, options)
	dir, contents := writeFiles(t, count, func(int) int { return bytes })
	for name := range contents {
		c.names = append(c.names, filepath.Join(dir, name))
	}
	slices.Sort(c.names)
	c.dir = dir
	c.add("files", dir)
	return c
}

// has reports whether samples [from, to) are cached.
func (c *coldFiles) has(from, to int) bool {
	for _, name := range c.names[from:to] {
		if !c.disk.hasFile(c.t, name, int64(c.bytes)) {
			return false
		}
	}
	return true
}

// session returns the only open session.
func (c *coldFiles) session() *session {
	c.t.Helper()
	all := c.sessions.all()
	if len(all) != 1 {
		c.t.Fatalf("%d sessions are open", len(all))
	}
	return all[0]
}

// openAhead opens a session whose batches are of 4 samples and waits until its ring is
// full.
func (c *coldFiles) openAhead(request shm.Open) *client {
	c.t.Helper()
	client := c.openSession(request)
	s := c.session()
	eventually(c.t, "the ring is full", func() bool { return s.counters.batches.Load() == 4 })
	return client
}
