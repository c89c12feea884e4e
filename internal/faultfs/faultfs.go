// Package faultfs puts faults between a store and the kernel: an FS forwards
// every system call to another System, except where a Fault says otherwise.
// Every fault counts how often it fired, and AssertFired fails a test whose fault
// never did: such a test proves nothing.
//
// An FS also keeps account of descriptors, so that AssertClosed finds leaks.
package faultfs

import (
	"path"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// System is what an FS wraps and is: the seam that backend/object declares.
type System interface {
	Openat2(dirfd int, name []byte, how *unix.OpenHow) (fd int, errno syscall.Errno)
	Openat(dirfd int, name []byte, flags int) (fd int, errno syscall.Errno)
	Fstat(fd int, stat *unix.Stat_t) syscall.Errno
	Fstatat(dirfd int, name []byte, stat *unix.Stat_t, flags int) syscall.Errno
	Pread(fd int, p []byte, off int64) (n int, errno syscall.Errno)
	Preadv2(fd int, p []byte, off int64, flags int) (n int, errno syscall.Errno)
	Getdents(fd int, p []byte) (n int, errno syscall.Errno)
	Fadvise(fd int, off, n int64, advice int) syscall.Errno
	Cachestat(fd int, asked *unix.CachestatRange, pages *unix.Cachestat_t) syscall.Errno
	Close(fd int) syscall.Errno
}

// Op names a system call.
type Op string

// The calls that faults may hit.
const (
	Openat2   Op = "openat2"
	Openat    Op = "openat"
	Fstat     Op = "fstat"
	Fstatat   Op = "fstatat"
	Pread     Op = "pread"
	Preadv2   Op = "preadv2"
	Getdents  Op = "getdents"
	Fadvise   Op = "fadvise"
	Cachestat Op = "cachestat"
	Close     Op = "close"
)

// Ops lists every Op.
func Ops() []Op {
	return []Op{Openat2, Openat, Fstat, Fstatat, Pread, Preadv2, Getdents, Fadvise, Cachestat, Close}
}

// Fault says which calls to disturb and how. The zero value of a field asks for
// nothing; effects combine in the order Hook, Latency, then Errno or the call
// itself with Short and Stat.
type Fault struct {
	Op   Op     // which call; empty: any
	Name string // path.Match pattern for the name relative to the directory; empty: any

	Nth   int // the first matching call to disturb, counted from 1; 0: 1
	Count int // how many to disturb from there on; 0: all

	Hook    func(name string)  // called first; may change the file, block, cancel
	Latency time.Duration      // then sleep as long
	Errno   syscall.Errno      // answer this instead of calling (Close closes all the same)
	Short   int                // reads: at most so many bytes; negative: none, as at the file's end
	Stat    func(*unix.Stat_t) // stats: change the answer, as of a replaced file

	Pages func(*unix.Cachestat_t) // cachestat: change the answer, as of memory that was short
}

// Injection is a Fault at work.
type Injection struct {
	fault Fault
	seen  int // matching calls, guarded by FS.mu
	fired int
}

// FS is a System with faults. It is safe for parallel use.
type FS struct {
	inner System

	mu struct {
		sync.Mutex
		faults []*Injection
		names  map[int]string // descriptors opened through the FS and not closed
	}
}

// New returns an FS over inner without faults.
func New(inner System) *FS {
	f := &FS{inner: inner}
	f.mu.names = map[int]string{}
	return f
}

// Inject adds a fault. Of several that match one call, all fire.
func (f *FS) Inject(fault Fault) *Injection {
	i := &Injection{fault: fault}
	f.mu.Lock()
	f.mu.faults = append(f.mu.faults, i)
	f.mu.Unlock()
	return i
}

// Clear removes all faults.
func (f *FS) Clear() {
	f.mu.Lock()
	f.mu.faults = nil
	f.mu.Unlock()
}

// Fired returns how many calls the injection has disturbed.
func (f *FS) Fired(i *Injection) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return i.fired
}

// AssertFired fails the test for every fault that disturbed nothing.
func (f *FS) AssertFired(t testing.TB) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range f.mu.faults {
		if i.fired == 0 {
			t.Errorf("fault never fired: op %q, name %q, from call %d on (%d matched)",
				i.fault.Op, i.fault.Name, max(i.fault.Nth, 1), i.seen)
		}
	}
}

// AssertClosed fails the test for every descriptor opened through the FS that is
// still open.
func (f *FS) AssertClosed(t testing.TB) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for fd, name := range f.mu.names {
		t.Errorf("descriptor %d of %q was never closed", fd, name)
	}
}

// effect is what the faults of one call add up to.
type effect struct {
	hooks   []func(string)
	latency time.Duration
	errno   syscall.Errno
	short   int
	stats   []func(*unix.Stat_t)
	pages   []func(*unix.Cachestat_t)
}

// before collects the faults of one call, runs their hooks and sleeps.
func (f *FS) before(op Op, name string) effect {
	var e effect
	f.mu.Lock()
	for _, i := range f.mu.faults {
		if i.matches(op, name) {
			i.fired++
			e.add(&i.fault)
		}
	}
	f.mu.Unlock()
	for _, hook := range e.hooks {
		hook(name)
	}
	if e.latency > 0 {
		time.Sleep(e.latency)
	}
	return e
}

// matches counts the call and says whether the fault hits it.
func (i *Injection) matches(op Op, name string) bool {
	if i.fault.Op != "" && i.fault.Op != op {
		return false
	}
	if i.fault.Name != "" {
		if ok, err := path.Match(i.fault.Name, name); err != nil || !ok {
			return false
		}
	}
	i.seen++
	first := max(i.fault.Nth, 1)
	return i.seen >= first && (i.fault.Count == 0 || i.seen < first+i.fault.Count)
}

func (e *effect) add(fault *Fault) {
	if fault.Hook != nil {
		e.hooks = append(e.hooks, fault.Hook)
	}
	e.latency += fault.Latency
	if fault.Errno != 0 {
		e.errno = fault.Errno
	}
	if fault.Short != 0 {
		e.short = fault.Short
	}
	if fault.Stat != nil {
		e.stats = append(e.stats, fault.Stat)
	}
	if fault.Pages != nil {
		e.pages = append(e.pages, fault.Pages)
	}
}

// nameOf returns the name that fd was opened by, "." for others: the directory.
func (f *FS) nameOf(fd int) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name, ok := f.mu.names[fd]; ok {
		return name
	}
	return "."
}

// join returns a NUL-terminated name relative to fd as a path.
func (f *FS) join(fd int, name []byte) string {
	return path.Join(f.nameOf(fd), string(name[:len(name)-1]))
}

func (f *FS) opened(fd int, errno syscall.Errno, name string) {
	if errno != 0 {
		return
	}
	f.mu.Lock()
	f.mu.names[fd] = name
	f.mu.Unlock()
}
