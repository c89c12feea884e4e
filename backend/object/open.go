package object

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

// lane is the scratch of one goroutine at a time: what system calls point into,
// so that nothing escapes to the heap in a call.
type lane struct {
	name nameBuffer
	stat unix.Stat_t
}

// maxRestarts bounds how often an interrupted system call is begun again.
const maxRestarts = 64

// openObject opens name beneath the directory. Errno EAGAIN with howCached means
// that opening may wait. It makes room among the cached handles when the process
// is out of descriptors.
func (d *Dir) openObject(l *lane, name []byte, how *unix.OpenHow) (int, syscall.Errno) {
	for attempt := 0; ; attempt++ {
		fd, errno := d.openBeneath(l, name, how)
		switch {
		case errno == unix.EINTR && attempt < maxRestarts:
		case errno == unix.EAGAIN && how == d.howPlain && attempt < maxRestarts:
			// RESOLVE_BENEATH answers EAGAIN when a rename elsewhere ran beside the
			// walk; see openat2(2).
		case (errno == unix.EMFILE || errno == unix.ENFILE) && attempt < maxRestarts && d.handles.evictIdle() > 0:
		default:
			return fd, errno
		}
	}
}

// openBeneath is one attempt to open name, and a second one where O_NOATIME is refused.
func (d *Dir) openBeneath(l *lane, name []byte, how *unix.OpenHow) (int, syscall.Errno) {
	if how.Flags&unix.O_NOATIME == 0 {
		return d.openOnce(l, name, how)
	}
	if !d.keepsAtime.Load() {
		fd, errno := d.openOnce(l, name, how)
		if errno != unix.EPERM {
			return fd, errno
		}
		d.keepsAtime.Store(true)
	}
	if how == d.howCached {
		return d.openOnce(l, name, d.atimeCached)
	}
	return d.openOnce(l, name, d.atimePlain)
}

func (d *Dir) openOnce(l *lane, name []byte, how *unix.OpenHow) (int, syscall.Errno) {
	if d.noOpenat2 {
		if how.Resolve&resolveCached != 0 {
			return -1, unix.EAGAIN
		}
		return d.openByComponents(l.name.put(name), int(how.Flags))
	}
	return d.system.Openat2(d.fd, l.name.put(name), how)
}

// openByComponents walks name (NUL-terminated, in a buffer it may write to) from
// the directory, following no link.
func (d *Dir) openByComponents(name []byte, flags int) (int, syscall.Errno) {
	at, start := d.fd, 0
	for i, b := range name {
		if b != '/' {
			continue
		}
		name[i] = 0
		next, errno := d.system.Openat(at, name[start:i+1], unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC)
		if at != d.fd {
			d.system.Close(at)
		}
		if errno != 0 {
			return -1, errno
		}
		at, start = next, i+1
	}
	fd, errno := d.system.Openat(at, name[start:], flags|unix.O_NOFOLLOW)
	if at != d.fd {
		d.system.Close(at)
	}
	return fd, errno
}

// openDirectory opens a directory beneath for listing; an empty name is the
// origin's own.
func (d *Dir) openDirectory(l *lane, name []byte) (int, syscall.Errno) {
	if len(name) == 0 {
		name = []byte(".")
	}
	return d.openAs(l, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
}

// openAs is openObject with flags of the caller's choice; it allocates.
func (d *Dir) openAs(l *lane, name []byte, flags int) (int, syscall.Errno) {
	how := &unix.OpenHow{Flags: uint64(flags), Resolve: resolve}
	for attempt := 0; ; attempt++ {
		fd, errno := d.openObject(l, name, how)
		if errno != unix.EAGAIN || attempt == maxRestarts {
			return fd, errno
		}
	}
}

// checkChunk says whether c can be one of this origin's.
func (d *Dir) checkChunk(op string, c backend.Chunk) error {
	o := c.Object
	if o == nil {
		return &backend.Error{
			Kind: backend.NotFound, Op: op, Object: c.ID.String(),
			Detail: "an origin holds objects, not chunks named by content",
		}
	}
	if o.Origin != "" && o.Origin != d.origin {
		return &backend.Error{
			Kind: backend.NotFound, Op: op, Object: string(o.Name),
			Detail: "expected an object of " + d.origin + ", found one of " + o.Origin,
		}
	}
	if complaint := checkName(o.Name); complaint != "" {
		return &backend.Error{Kind: backend.OutOfRange, Op: op, Object: string(o.Name), Detail: complaint}
	}
	if c.Start < 0 || c.Size < 0 || c.Start > o.Version.Size || c.Size > o.Version.Size-c.Start {
		return rangeError(op, c, 0, 0, "the chunk is not within the object")
	}
	return nil
}

// openFile gives f a descriptor whose state is f's version: a cached one, else a
// new one opened as how says. wait is true, with no descriptor and no error, if
// how is howCached and opening may have to wait for the device.
func (d *Dir) openFile(l *lane, f *file, how *unix.OpenHow) (wait bool, err error) {
	var key handleKey
	if d.handles.enabled() {
		key = keyOf(f.object)
		if h := d.handles.acquire(key); h != nil {
			// A handle that is no longer right says nothing about the name: open anew.
			if d.fstat(h.fd, &l.stat) == 0 && l.stat.Nlink > 0 && isVersion(&f.object.Version, &l.stat) {
				f.fd, f.handle = h.fd, h
				return false, nil
			}
			d.handles.release(h, true)
		}
	}
	fd, errno := d.openObject(l, f.object.Name, how)
	if errno == unix.EAGAIN && how == d.howCached {
		return true, nil
	}
	if errno != 0 {
		return false, d.errnoError("open", f.object.Name, errno)
	}
	f.fd, f.handle = fd, nil
	if err := d.checkVersion(l, f); err != nil {
		d.system.Close(fd)
		return false, err
	}
	if d.handles.enabled() {
		f.handle = d.handles.insert(key, fd)
	}
	return false, nil
}

// fstat is the system call, begun again when a signal interrupts it, which file
// systems over networks let happen.
func (d *Dir) fstat(fd int, stat *unix.Stat_t) syscall.Errno {
	for attempt := 0; ; attempt++ {
		if errno := d.system.Fstat(fd, stat); errno != unix.EINTR || attempt == maxRestarts {
			return errno
		}
	}
}

// checkVersion compares the open file with its version.
func (d *Dir) checkVersion(l *lane, f *file) error {
	if errno := d.fstat(f.fd, &l.stat); errno != 0 {
		return d.errnoError("stat", f.object.Name, errno)
	}
	if !isVersion(&f.object.Version, &l.stat) {
		return d.changedError("read", f.object, difference(&f.object.Version, &l.stat))
	}
	return nil
}

// releaseFile gives f's descriptor back: to the cache, which forgets it if drop
// is set, or to the kernel.
func (d *Dir) releaseFile(f *file, drop bool) {
	if f.handle != nil {
		d.handles.release(f.handle, drop)
	} else {
		d.system.Close(f.fd)
	}
	f.fd, f.handle = -1, nil
}
