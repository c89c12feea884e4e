package object

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

// kindOfErrno classifies what the kernel said of an object that an index names.
func kindOfErrno(errno syscall.Errno) backend.Kind {
	switch errno {
	case unix.ENOENT, unix.ENOTDIR, unix.EISDIR, unix.ESTALE, unix.ENXIO, unix.ENODEV:
		return backend.Changed
	case unix.EACCES, unix.EPERM, unix.EXDEV, unix.ELOOP:
		return backend.Permission
	case unix.ENAMETOOLONG:
		return backend.OutOfRange
	}
	return backend.Unavailable
}

// errnoError makes an error out of what the kernel said about name.
func (d *Dir) errnoError(op string, name []byte, errno syscall.Errno) error {
	e := &backend.Error{Kind: kindOfErrno(errno), Op: op, Object: string(name), Err: errno}
	switch errno {
	case unix.ENOENT, unix.ENOTDIR, unix.ESTALE:
		e.Detail = "file is gone"
	case unix.EISDIR, unix.ENXIO, unix.ENODEV:
		e.Detail = "expected a regular file, found another kind of file"
	case unix.EXDEV:
		e.Detail = "a symbolic link leads out of the dataset's directory " + d.Path()
		e.Remedy = "copy the file into the directory, or make the link relative and end within it"
	case unix.ELOOP:
		e.Detail = "symbolic links that cannot be followed"
		e.Remedy = "replace the link by the file"
	case unix.EACCES, unix.EPERM:
		e.Detail = "the daemon may not read it"
		e.Remedy = "give the daemon's user read permission on the file and its directories"
	case unix.EMFILE, unix.ENFILE:
		e.Detail = fmt.Sprintf("no descriptor left: this process may have %d open", openFilesLimit())
		e.Remedy = "raise the limit (ulimit -n, LimitNOFILE=) or lower the number of open files in the configuration"
	}
	switch {
	case e.Remedy != "":
	case e.Kind == backend.Changed:
		e.Remedy = d.replaceRemedy()
	case e.Kind == backend.Unavailable:
		e.Remedy = "look at the kernel's log for errors of the device or mount below " + d.Path()
	}
	return e
}

// changedError says how the file that was found differs from the one indexed.
func (d *Dir) changedError(op string, o *backend.Object, detail string) error {
	return &backend.Error{
		Kind: backend.Changed, Op: op, Object: string(o.Name), Detail: detail, Remedy: d.replaceRemedy(),
	}
}

func (d *Dir) replaceRemedy() string {
	return fmt.Sprintf("put the file back as it was, or index the directory again: stoker dataset add %s %s --replace",
		d.options.Dataset, d.Path())
}

func (d *Dir) closedError(op string) error {
	return &backend.Error{Kind: backend.Unavailable, Op: op, Object: d.origin, Err: errClosed}
}

var errClosed = errors.New("the origin is closed")

func rangeError(op string, c backend.Chunk, off, length int64, detail string) error {
	name := c.ID.String()
	if c.Object != nil {
		name = string(c.Object.Name)
	}
	return &backend.Error{
		Kind: backend.OutOfRange, Op: op, Object: name,
		Detail: fmt.Sprintf("%s: %d bytes from %d of the chunk of %d bytes at %d", detail, length, off, c.Size, c.Start),
	}
}

// versionOf returns the version that stat describes.
func versionOf(stat *unix.Stat_t) backend.Version {
	return backend.Version{
		Device: uint64(stat.Dev), Inode: stat.Ino, Size: stat.Size,
		ModifiedNs: stat.Mtim.Nano(), ChangedNs: stat.Ctim.Nano(),
	}
}

// isVersion says whether stat describes a regular file at version v.
func isVersion(v *backend.Version, stat *unix.Stat_t) bool {
	return stat.Mode&unix.S_IFMT == unix.S_IFREG && stat.Ino == v.Inode && uint64(stat.Dev) == v.Device &&
		stat.Size == v.Size && stat.Mtim.Nano() == v.ModifiedNs && stat.Ctim.Nano() == v.ChangedNs
}

// difference names every field in which stat is not version v.
func difference(v *backend.Version, stat *unix.Stat_t) string {
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return "expected a regular file, found a " + fileType(stat.Mode)
	}
	found := versionOf(stat)
	var expected, actual []string
	add := func(differs bool, name string, want, have any) {
		if differs {
			expected = append(expected, fmt.Sprintf("%s %v", name, want))
			actual = append(actual, fmt.Sprintf("%s %v", name, have))
		}
	}
	add(v.Device != found.Device, "device", v.Device, found.Device)
	add(v.Inode != found.Inode, "inode", v.Inode, found.Inode)
	add(v.Size != found.Size, "size", v.Size, found.Size)
	add(v.ModifiedNs != found.ModifiedNs, "modified", timeOf(v.ModifiedNs), timeOf(found.ModifiedNs))
	add(v.ChangedNs != found.ChangedNs, "status changed", timeOf(v.ChangedNs), timeOf(found.ChangedNs))
	if len(expected) == 0 {
		return "the file changed while it was read"
	}
	return fmt.Sprintf("expected %s; found %s", strings.Join(expected, ", "), strings.Join(actual, ", "))
}

func timeOf(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }

func fileType(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFIFO:
		return "named pipe"
	case unix.S_IFSOCK:
		return "socket"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "device"
	case unix.S_IFLNK:
		return "symbolic link"
	}
	return "file of another kind"
}
