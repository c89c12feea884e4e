package flash

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Files is the file system as a device's directory needs it. Names are slash-separated
// and relative to that directory. OpenDirectory returns the real one; tests put one in
// its place that forgets what was not synced, or that fails.
//
// Implementations are safe for parallel use.
type Files interface {
	// Open opens a file for reading and writing; it makes it if create is set, and fails
	// with fs.ErrExist if it is there then.
	Open(name string, create bool) (File, error)
	Remove(name string) error
	Rename(from, to string) error
	MakeDirectory(name string) error // no error if it is there
	List(name string) ([]string, error)
	// SyncDirectory makes what was made, renamed and removed in it durable.
	SyncDirectory(name string) error
	// Lock takes the lock that a file of that name stands for, and writes note into it;
	// ErrLocked if somebody has it, with his note.
	Lock(name, note string) (io.Closer, error)
	// Statistics describes the file system.
	Statistics() (Statistics, error)
	// Path is what a person, or another program, would call the file.
	Path(name string) string
}

// File is an open file. Implementations are safe for parallel use.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Allocate makes room for n bytes from off on: what is written there later does not
	// fail for want of space. They read as zero until they are written.
	Allocate(off, n int64) error
	// Sync makes what was written durable (fdatasync).
	Sync() error
	// WriteBack lets the kernel begin to write n bytes from off on; it does not wait.
	WriteBack(off, n int64)
	// Size is the file's size, bytes.
	Size() (int64, error)
	// Fd is the descriptor, -1 if there is none.
	Fd() int
}

// Statistics describes a file system.
type Statistics struct {
	Type      int64 // as statfs(2) has it
	FreeBytes int64 // for users without privilege
	AllBytes  int64
	ReadOnly  bool
}

// ErrLocked is what Lock answers while somebody has the lock.
var ErrLocked = errors.New("another process has it")

// directory is a real directory.
type directory struct{ path string }

// OpenDirectory returns the files of a real directory, which it makes if it is not there.
func OpenDirectory(path string) (Files, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := makeDurably(absolute); err != nil {
		return nil, err
	}
	return directory{absolute}, nil
}

// makeDurably makes a directory, and those that it is in, if it is not there.
func makeDurably(path string) error {
	if s, err := os.Stat(path); err == nil && s.IsDir() {
		return nil
	}
	parent := filepath.Dir(path)
	if err := makeDurably(parent); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return directory{parent}.SyncDirectory(".")
}

func (d directory) Path(name string) string { return filepath.Join(d.path, filepath.FromSlash(name)) }

func (d directory) Open(name string, create bool) (File, error) {
	flags := os.O_RDWR | unix.O_NOFOLLOW
	if create {
		flags |= os.O_CREATE | os.O_EXCL
	}
	f, err := os.OpenFile(d.Path(name), flags, 0o600)
	if err != nil {
		return nil, err
	}
	return &file{File: f, fd: int(f.Fd())}, nil
}

func (d directory) Remove(name string) error        { return os.Remove(d.Path(name)) }
func (d directory) Rename(from, to string) error    { return os.Rename(d.Path(from), d.Path(to)) }
func (d directory) MakeDirectory(name string) error { return os.MkdirAll(d.Path(name), 0o700) }

func (d directory) List(name string) ([]string, error) {
	entries, err := os.ReadDir(d.Path(name))
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, err
}

func (d directory) SyncDirectory(name string) error {
	f, err := os.Open(d.Path(name))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// lockNoteBytes is how much of somebody's note is read.
const lockNoteBytes = 128

func (d directory) Lock(name, note string) (io.Closer, error) {
	f, err := os.OpenFile(d.Path(name), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		whose := make([]byte, lockNoteBytes)
		n, _ := f.ReadAt(whose, 0)
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &lockedError{note: string(whose[:n])}
		}
		return nil, &os.PathError{Op: "flock", Path: f.Name(), Err: err}
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(note), 0)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return lockedFile{f}, nil
}

// lockedFile gives its lock back when it is closed: a process that is just being started
// has the descriptor as well until it runs, and would keep the lock.
type lockedFile struct{ *os.File }

func (f lockedFile) Close() error {
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.File.Close())
}

// lockedError is ErrLocked with what the holder wrote of itself.
type lockedError struct{ note string }

func (e *lockedError) Error() string { return ErrLocked.Error() + ": " + e.note }
func (e *lockedError) Unwrap() error { return ErrLocked }

func (d directory) Statistics() (Statistics, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(d.path, &s); err != nil {
		return Statistics{}, &os.PathError{Op: "statfs", Path: d.path, Err: err}
	}
	return Statistics{
		Type: s.Type, FreeBytes: int64(s.Bavail) * s.Bsize, AllBytes: int64(s.Blocks) * s.Bsize,
		ReadOnly: s.Flags&unix.ST_RDONLY != 0,
	}, nil
}

// file is a real file.
type file struct {
	*os.File
	fd     int
	bypass bypass
}

func (f *file) Fd() int { return f.fd }

func (f *file) Close() error { return errors.Join(f.bypass.close(), f.File.Close()) }

func (f *file) Allocate(off, n int64) error {
	for {
		err := unix.Fallocate(f.fd, 0, off, n)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP):
			// NFS before 4.2, some FUSE file systems: a sparse file then, and room is not certain.
			if size, err := f.Size(); err != nil || size >= off+n {
				return err
			}
			return f.Truncate(off + n)
		case err != nil:
			return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
		default:
			return nil
		}
	}
}

func (f *file) Sync() error {
	for {
		err := unix.Fdatasync(f.fd)
		switch {
		case errors.Is(err, unix.EINTR): // nothing was tried
		case err != nil:
			return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		default:
			return nil
		}
	}
}

func (f *file) WriteBack(off, n int64) {
	_ = unix.SyncFileRange(f.fd, off, n, unix.SYNC_FILE_RANGE_WRITE) // a wish
}

func (f *file) Size() (int64, error) {
	s, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return s.Size(), nil
}
