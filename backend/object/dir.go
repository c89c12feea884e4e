// Package object serves chunks of origins, the places where a dataset's bytes
// come from. Dir is the origin of local files: a directory, read in place.
//
// # What Dir guarantees
//
// A Dir never serves a byte of a file that is not at the version that the index
// was built from. Version is (device, inode, size, mtime, ctime), compared by
// fstat before and after the reads of each file in each call. What cannot be
// seen that way is a write that leaves all five equal: one within the clock
// granularity of the file system (a few milliseconds before Linux 6.13) of the
// listing that recorded the version, or one through a writable mapping made
// before the listing on file systems that stamp mappings late.
//
// Nothing outside the directory is opened: names are resolved by openat2 with
// RESOLVE_BENEATH, links that stay beneath are followed. On kernels without
// openat2 names are walked one component at a time and links are refused.
// Opening never hangs on a FIFO (O_NONBLOCK) and only regular files are read.
package object

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

// Dir is a directory of local files as a read-only backend.Store. It also is a
// backend.Gatherer, a backend.Lister, a backend.Locator and a backend.Warmer.
type Dir struct {
	options Options
	system  System
	fd      int
	device  uint64
	inode   uint64
	origin  string

	howPlain  *unix.OpenHow // beneath, may wait for the device
	howCached *unix.OpenHow // beneath, only what needs no waiting
	noOpenat2 bool          // the kernel lacks openat2: walk by components

	// Files are opened with O_NOATIME: whether a read should change the access time
	// is a tenth of what a short one costs. The kernel grants that to the files' owner only.
	atimePlain  *unix.OpenHow // howPlain and howCached without it
	atimeCached *unix.OpenHow
	keepsAtime  atomic.Bool // it was refused once

	noCachedOpen atomic.Bool // RESOLVE_CACHED is not supported (before Linux 5.12)
	noNowait     atomic.Bool // the file system does not support RWF_NOWAIT
	noCachestat  atomic.Bool // the kernel lacks cachestat (before Linux 6.5)

	handles *handleCache
	idle    chan *gather  // scratch of calls that have ended; any call takes and returns
	warm    chan *warming // the same for Warm
	jobs    chan job      // calls send, workers receive, Close closes
	started sync.Once     // of workers, by the first job
	workers sync.WaitGroup

	mu struct {
		sync.Mutex
		calls  int // in flight
		closed bool
		ended  *sync.Cond // signalled when calls reaches 0
	}
}

var (
	_ backend.Store    = (*Dir)(nil)
	_ backend.Gatherer = (*Dir)(nil)
	_ backend.Lister   = (*Dir)(nil)
	_ backend.Locator  = (*Dir)(nil)
)

const (
	openFlags = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK
	resolve   = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS
	// resolveCached is RESOLVE_CACHED of openat2(2), Linux 5.12.
	resolveCached = 0x20
	// idleScratch is how many calls' scratch is kept for the next calls.
	idleScratch = 64
)

// OpenDir makes an origin of the directory behind dirfd, which it takes over:
// the descriptor is closed by Close, or by OpenDir itself when it fails. The
// descriptor must be open for reading (not O_PATH). The first read that has to
// wait for the device starts Options.ColdReads goroutines, which Close stops.
//
// Errors: OutOfRange (not a directory, or options out of range), Permission (not
// readable by this process), Unavailable.
func OpenDir(dirfd int, options Options) (*Dir, error) {
	options.EnsureDefaults()
	d := &Dir{
		options: options, system: options.System, fd: dirfd,
		howPlain:    &unix.OpenHow{Flags: openFlags | unix.O_NOATIME, Resolve: resolve},
		howCached:   &unix.OpenHow{Flags: openFlags | unix.O_NOATIME, Resolve: resolve | resolveCached},
		atimePlain:  &unix.OpenHow{Flags: openFlags, Resolve: resolve},
		atimeCached: &unix.OpenHow{Flags: openFlags, Resolve: resolve | resolveCached},
		handles:     newHandleCache(options.System, options.OpenFiles, options.Budget),
		idle:        make(chan *gather, idleScratch),
		warm:        make(chan *warming, idleScratch),
	}
	d.mu.ended = sync.NewCond(&d.mu)
	if err := d.examine(); err != nil {
		d.system.Close(dirfd)
		return nil, err
	}
	d.jobs = make(chan job, options.ColdReads)
	return d, nil
}

// examine checks that the descriptor is of use and learns what it is.
func (d *Dir) examine() error {
	where := "descriptor " + strconv.Itoa(d.fd)
	if err := d.options.Validate(); err != nil {
		return &backend.Error{Kind: backend.OutOfRange, Op: "open directory", Object: where, Err: err}
	}
	unix.CloseOnExec(d.fd)
	stat := new(unix.Stat_t)
	if errno := d.system.Fstat(d.fd, stat); errno != 0 {
		return &backend.Error{Kind: backend.Unavailable, Op: "stat directory", Object: where, Err: errno}
	}
	if path := d.Path(); path != "" {
		where = path
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		return &backend.Error{
			Kind: backend.OutOfRange, Op: "open directory", Object: where,
			Detail: "it is a " + fileType(stat.Mode), Err: unix.ENOTDIR, Remedy: "pass a directory",
		}
	}
	d.device, d.inode = uint64(stat.Dev), stat.Ino
	d.origin = fmt.Sprintf("file:%d:%d", d.device, d.inode)
	if errno := d.probe(); errno != 0 {
		kind := kindOfErrno(errno)
		if kind == backend.Changed {
			kind = backend.Unavailable
		}
		return &backend.Error{
			Kind: kind, Op: "open directory", Object: where, Err: errno,
			Remedy: "give the daemon's user read and execute permission on the directory",
		}
	}
	return nil
}

// probe opens the directory anew, which tells whether this process may read it
// and whether the kernel has openat2. Some sandboxes answer EPERM for system
// calls that they do not know.
func (d *Dir) probe() syscall.Errno {
	lane := new(lane)
	fd, errno := d.openDirectory(lane, nil)
	if errno == unix.ENOSYS || errno == unix.EPERM {
		d.noOpenat2 = true
		fd, errno = d.openDirectory(lane, nil)
	}
	if errno == 0 {
		d.system.Close(fd)
	}
	return errno
}

// Origin is the identity that objects of this origin carry: "file:DEVICE:INODE".
func (d *Dir) Origin() string { return d.origin }

// Device and Inode identify the directory.
func (d *Dir) Device() uint64 { return d.device }

// Inode is the directory's inode number.
func (d *Dir) Inode() uint64 { return d.inode }

// Path is where the directory is now, for people; "" if that cannot be told.
func (d *Dir) Path() string { return pathOf(d.fd) }

// EvictIdle closes the cached descriptors that no call is using and returns how
// many, for a process that has run out of them elsewhere.
func (d *Dir) EvictIdle() int {
	if d.enter("evict") != nil {
		return 0
	}
	defer d.leave()
	return d.handles.evictIdle()
}

// enter counts a call in; every call that entered leaves.
func (d *Dir) enter(op string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.closed {
		return d.closedError(op)
	}
	d.mu.calls++
	return nil
}

func (d *Dir) leave() {
	d.mu.Lock()
	d.mu.calls--
	if d.mu.calls == 0 {
		d.mu.ended.Broadcast()
	}
	d.mu.Unlock()
}

// Close waits for calls in flight, stops the goroutines and closes every
// descriptor but those of Locations, which last until their Release. Calls made
// after Close answer Unavailable; closing again does nothing.
func (d *Dir) Close() error {
	d.mu.Lock()
	again := d.mu.closed
	d.mu.closed = true
	for d.mu.calls > 0 {
		d.mu.ended.Wait()
	}
	d.mu.Unlock()
	if again {
		d.workers.Wait()
		return nil
	}
	close(d.jobs)
	d.workers.Wait()
	d.handles.evictIdle()
	if errno := d.system.Close(d.fd); errno != 0 {
		return &backend.Error{Kind: backend.Unavailable, Op: "close", Object: d.origin, Err: errno}
	}
	return nil
}

// ReadAt implements backend.Store.
func (d *Dir) ReadAt(ctx context.Context, c backend.Chunk, p []byte, off int64) error {
	if err := d.enter("read"); err != nil {
		return err
	}
	defer d.leave()
	g := d.takeGather()
	g.single[0] = backend.Read{Chunk: c, Offset: off, P: p}
	err := g.run(ctx, g.single[:])
	d.putGather(g)
	return err
}

// Stat implements backend.Store: it compares the file with its version.
func (d *Dir) Stat(ctx context.Context, c backend.Chunk) (backend.Info, error) {
	if err := d.enter("stat"); err != nil {
		return backend.Info{}, err
	}
	defer d.leave()
	if ctx.Err() != nil {
		return backend.Info{}, canceled("stat", ctx)
	}
	if err := d.checkChunk("stat", c); err != nil {
		return backend.Info{}, err
	}
	f, l := new(file), new(lane)
	f.object = c.Object
	if _, err := d.openFile(l, f, d.howPlain); err != nil {
		return backend.Info{}, err
	}
	d.releaseFile(f, false)
	return backend.Info{Chunk: c, Bytes: c.Size}, nil
}

// Put implements backend.Store: a directory of origin files is never written.
func (d *Dir) Put(context.Context, []byte) (backend.ChunkID, error) {
	return backend.ChunkID{}, d.readOnly("put")
}

// Fill implements backend.Store as Put does.
func (d *Dir) Fill(context.Context, backend.Chunk, []byte) error { return d.readOnly("fill") }

// Delete implements backend.Store as Put does.
func (d *Dir) Delete(context.Context, backend.Chunk) error { return d.readOnly("delete") }

func (d *Dir) readOnly(op string) error {
	return &backend.Error{
		Kind: backend.Permission, Op: op, Object: d.origin, Err: errReadOnly,
		Remedy: "change the files in " + d.Path() + " yourself and index them again",
	}
}

var errReadOnly = errors.New("an origin's directory is only read, never written")

// canceled wraps the cause of ctx's end.
func canceled(op string, ctx context.Context) error {
	return fmt.Errorf("%s: %w", op, context.Cause(ctx))
}
