package object

import (
	"bytes"
	"context"
	"encoding/binary"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

const (
	// direntBytes is the buffer for one getdents64: some hundreds of names.
	direntBytes = 64 << 10
	// maxDirectoryLinks is how many links to directories one path may go through.
	// It bounds what directories that link to each other can be unrolled to.
	maxDirectoryLinks = 8
)

// List implements backend.Store: every object, cut into chunks of
// Options.ChunkBytes. An empty object has one chunk of no bytes.
func (d *Dir) List(ctx context.Context, visit func(backend.Info) error) error {
	visitObject := func(o backend.Object) error {
		for start := int64(0); start == 0 || start < o.Version.Size; start += d.options.ChunkBytes {
			size := min(d.options.ChunkBytes, o.Version.Size-start)
			info := backend.Info{Chunk: backend.Chunk{Object: &o, Start: start, Size: size}, Bytes: size}
			if err := visit(info); err != nil {
				return err
			}
		}
		return nil
	}
	return d.Objects(ctx, visitObject, nil)
}

// Objects implements backend.Lister. It names every regular file beneath the
// directory, hidden ones too, and what links that end beneath lead to. Links
// that lead out, dangle or lead to a directory that they are in are left out, told
// to leftOut and counted in the log; so is what vanishes meanwhile, uncounted. It
// keeps in memory the names of the sub-directories along one path, nothing else.
//
// Errors: what visit returns; Permission for a directory that cannot be read,
// naming it; OutOfRange for a path too long or through too many links;
// Unavailable.
func (d *Dir) Objects(ctx context.Context, visit func(backend.Object) error, leftOut func(name []byte, reason string)) error {
	if err := d.enter("list"); err != nil {
		return err
	}
	defer d.leave()
	w := &listing{dir: d, ctx: ctx, visit: visit, tell: leftOut, buf: make([]byte, direntBytes)}
	if err := w.directory(); err != nil {
		return err
	}
	if w.leftOut > 0 {
		d.options.Logger.Warn("links left out of the listing", "origin", d.origin, "directory", d.Path(),
			"count", w.leftOut, "first", w.firstLeftOut, "why", w.firstReason)
	}
	return nil
}

// directoryID identifies a directory for the detection of loops.
type directoryID struct{ device, inode uint64 }

// listing is the state of one walk.
type listing struct {
	dir   *Dir
	ctx   context.Context
	visit func(backend.Object) error
	tell  func(name []byte, reason string) // of what is left out; may be nil
	lane  lane
	buf   []byte

	path      []byte        // of the directory being listed, with a slash at its end unless empty
	ancestors []directoryID // of path, the origin's directory first
	links     int           // links to directories that path goes through

	leftOut                   int
	firstLeftOut, firstReason string
}

// directory lists the directory w.path, then its sub-directories.
func (w *listing) directory() error {
	name := bytes.TrimSuffix(w.path, []byte{'/'})
	fd, errno := w.dir.openDirectory(&w.lane, name)
	if len(name) > 0 && vanished(errno) {
		return nil
	}
	if errno != 0 {
		return w.dir.listError(name, errno)
	}
	entered, err := w.enter(fd)
	var below subdirectories
	if err == nil && entered {
		below, err = w.entries(fd)
	}
	w.dir.system.Close(fd)
	if err != nil || !entered {
		return err
	}
	err = w.descend(below)
	w.ancestors = w.ancestors[:len(w.ancestors)-1]
	return err
}

// enter appends the directory to the ancestors, unless it is one of them.
func (w *listing) enter(fd int) (bool, error) {
	if errno := w.dir.fstat(fd, &w.lane.stat); errno != 0 {
		return false, w.dir.listError(w.path, errno)
	}
	id := directoryID{uint64(w.lane.stat.Dev), w.lane.stat.Ino}
	for _, ancestor := range w.ancestors {
		if ancestor == id {
			w.leaveOut(w.path, backend.LinkToAncestor)
			return false, nil
		}
	}
	w.ancestors = append(w.ancestors, id)
	return true, nil
}

// subdirectories are names of one directory's sub-directories, each ended by a
// NUL and begun by 'l' for a link, 'd' for a directory.
type subdirectories []byte

func (w *listing) descend(below subdirectories) error {
	length := len(w.path)
	for len(below) > 0 {
		end := bytes.IndexByte(below, 0)
		isLink, name := below[0] == 'l', below[1:end]
		below = below[end+1:]
		if isLink {
			w.links++
		}
		w.path = append(append(w.path[:length], name...), '/')
		if w.links > maxDirectoryLinks {
			return &backend.Error{
				Kind: backend.OutOfRange, Op: "list", Object: string(w.path),
				Detail: "the path goes through more than 8 links to directories",
				Remedy: "remove links that lead from one directory of the dataset to another",
			}
		}
		if err := w.directory(); err != nil {
			return err
		}
		if isLink {
			w.links--
		}
	}
	w.path = w.path[:length]
	return nil
}

// entries visits the files of one directory and returns its sub-directories.
func (w *listing) entries(fd int) (below subdirectories, err error) {
	for {
		if w.ctx.Err() != nil {
			return nil, canceled("list", w.ctx)
		}
		n, errno := w.dir.system.Getdents(fd, w.buf)
		switch {
		case errno == unix.EINTR:
			continue
		case n == 0 || errno == unix.ENOENT: // the end, or the directory was removed
			return below, nil
		case errno != 0:
			return nil, w.dir.listError(w.path, errno)
		}
		for rest := w.buf[:n]; len(rest) > 0; {
			var name []byte
			var kind uint8
			name, kind, rest = nextEntry(rest)
			if string(name) == "." || string(name) == ".." {
				continue
			}
			if below, err = w.entry(fd, name, kind, below); err != nil {
				return nil, err
			}
		}
	}
}

// nextEntry cuts one linux_dirent64 off buf:
//
//	inode 8 | offset 8 | record length 2 | type 1 | name, NUL, padding
func nextEntry(buf []byte) (name []byte, kind uint8, rest []byte) {
	length := binary.LittleEndian.Uint16(buf[16:])
	name = buf[19:length]
	return name[:bytes.IndexByte(name, 0)], buf[18], buf[length:]
}

// entry visits one name of the directory fd if it is a file, and appends it to
// below if it is a directory.
func (w *listing) entry(fd int, name []byte, kind uint8, below subdirectories) (subdirectories, error) {
	if len(w.path)+len(name) > maxNameBytes {
		return nil, &backend.Error{
			Kind: backend.OutOfRange, Op: "list", Object: string(w.path) + string(name),
			Detail: "the path is longer than 4095 bytes", Remedy: "move the files nearer to the dataset's directory",
		}
	}
	switch kind {
	case unix.DT_DIR:
		return below.add('d', name), nil
	case unix.DT_REG, unix.DT_LNK, unix.DT_UNKNOWN:
	default:
		return below, nil
	}
	errno := w.dir.system.Fstatat(fd, w.lane.name.put(name), &w.lane.stat, unix.AT_SYMLINK_NOFOLLOW)
	isLink := errno == 0 && w.lane.stat.Mode&unix.S_IFMT == unix.S_IFLNK
	if isLink {
		errno = w.follow(name)
	}
	switch {
	case isLink && (errno == unix.ENOENT || errno == unix.EXDEV || errno == unix.ELOOP):
		w.leaveOutLink(fd, name, errno)
		return below, nil
	case vanished(errno):
		return below, nil
	case errno != 0:
		return nil, w.dir.listError(w.join(name), errno)
	}
	switch w.lane.stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return below, w.visit(backend.Object{Origin: w.dir.origin, Name: w.join(name), Version: versionOf(&w.lane.stat)})
	case unix.S_IFDIR:
		if isLink {
			return below.add('l', name), nil
		}
		return below.add('d', name), nil
	}
	return below, nil
}

// follow puts what the link leads to into the lane's stat, if it is beneath.
func (w *listing) follow(name []byte) syscall.Errno {
	if w.dir.noOpenat2 {
		return unix.ELOOP
	}
	fd, errno := w.dir.openAs(&w.lane, w.join(name), unix.O_PATH|unix.O_CLOEXEC)
	if errno != 0 {
		return errno
	}
	errno = w.dir.fstat(fd, &w.lane.stat)
	w.dir.system.Close(fd)
	return errno
}

// join returns the full name of an entry, in storage behind w.path that the next
// join uses again.
func (w *listing) join(name []byte) []byte {
	length := len(w.path)
	full := append(w.path, name...)
	w.path = full[:length]
	return full
}

// leaveOutLink leaves out a link that could not be followed beneath the directory.
func (w *listing) leaveOutLink(fd int, name []byte, errno syscall.Errno) {
	reason := backend.LinkNowhere
	switch {
	case w.dir.noOpenat2:
		reason = backend.LinkUnsupported
	case errno == unix.EXDEV:
		reason = backend.LinkOutside
	}
	full := w.join(name)
	// Where it leads is asked for its type only, and nothing there is opened: a link
	// to a directory may have been a whole class.
	errno = w.dir.system.Fstatat(fd, w.lane.name.put(name), &w.lane.stat, 0)
	switch {
	case vanished(errno) && reason == backend.LinkOutside:
		reason = backend.LinkNowhere
	case errno == 0 && w.lane.stat.Mode&unix.S_IFMT == unix.S_IFDIR:
		full = append(full, '/')
	}
	w.leaveOut(full, reason)
}

func (w *listing) leaveOut(name []byte, reason string) {
	w.leftOut++
	if w.leftOut == 1 {
		w.firstLeftOut, w.firstReason = string(name), reason
	}
	if w.tell != nil {
		w.tell(name, reason)
	}
}

func (s subdirectories) add(kind byte, name []byte) subdirectories {
	return append(append(append(s, kind), name...), 0)
}

func vanished(errno syscall.Errno) bool { return errno == unix.ENOENT || errno == unix.ENOTDIR }

// listError is errnoError for the listing, where nothing was indexed yet that
// could have changed.
func (d *Dir) listError(name []byte, errno syscall.Errno) error {
	if len(name) == 0 {
		name = []byte(d.Path())
	}
	if kindOfErrno(errno) == backend.Changed {
		return &backend.Error{Kind: backend.Unavailable, Op: "list", Object: string(name), Err: errno}
	}
	return d.errnoError("list", name, errno)
}
