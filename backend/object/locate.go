package object

import (
	"context"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

// pathOf returns the path of what is behind fd, "" if that cannot be told. The
// kernel appends " (deleted)" to what has no name any more. It is for people and
// for Locate, which checks it.
func pathOf(fd int) string {
	buf := make([]byte, maxNameBytes+1)
	n, err := unix.Readlink("/proc/self/fd/"+strconv.Itoa(fd), buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

// Locate implements backend.Locator. The Location holds a descriptor, so the
// file's blocks stay allocated even if its name is removed; that nobody writes
// to the file meanwhile is not in Stoker's hands, so a direct reader compares
// versions (Stat) after its read. A file whose path does not lead to it in this
// process's mount namespace answers NotFound.
func (d *Dir) Locate(ctx context.Context, c backend.Chunk, r backend.Range) (backend.Location, error) {
	if err := d.enter("locate"); err != nil {
		return backend.Location{}, err
	}
	defer d.leave()
	if ctx.Err() != nil {
		return backend.Location{}, canceled("locate", ctx)
	}
	if err := d.checkChunk("locate", c); err != nil {
		return backend.Location{}, err
	}
	if r.Offset < 0 || r.Length < 0 || r.Offset > c.Size || r.Length > c.Size-r.Offset {
		return backend.Location{}, rangeError("locate", c, r.Offset, r.Length, "the range is not within the chunk")
	}
	l, f := new(lane), &file{object: c.Object}
	fd, errno := d.openObject(l, c.Object.Name, d.howPlain)
	if errno != 0 {
		return backend.Location{}, d.errnoError("locate", c.Object.Name, errno)
	}
	f.fd = fd
	if err := d.checkVersion(l, f); err != nil {
		d.system.Close(fd)
		return backend.Location{}, err
	}
	path := pathOf(fd)
	var stat unix.Stat_t
	if unix.Stat(path, &stat) != nil || !isVersion(&c.Object.Version, &stat) {
		d.system.Close(fd)
		return backend.Location{}, &backend.Error{
			Kind: backend.NotFound, Op: "locate", Object: string(c.Object.Name),
			Detail: "the daemon sees no path that leads to the file",
		}
	}
	release := sync.OnceFunc(func() { d.system.Close(fd) })
	return backend.Location{Path: path, Offset: c.Start + r.Offset, Release: release}, nil
}
