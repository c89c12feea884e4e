package seekable

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

// maxRestarts bounds how often an interrupted system call is begun again.
const maxRestarts = 64

// maxTableBytes bounds the memory of all seek tables that a Store keeps, unless one
// alone is larger.
const maxTableBytes = 32 << 20

// openFile is a file whose seek table has been read. Its fields do not change while
// it has users, but for those guarded by the Store's lock.
type openFile struct {
	table
	tag    string // under which the Store knows it
	name   string
	fd     int
	number uint64 // of the Pool
	stat   unix.Stat_t

	users int    // guarded; those who read
	used  uint64 // guarded; the Store's clock at the last use
	dead  bool   // guarded; nobody finds it any more, the last user closes it
}

// unchanged says whether now describes the state in which the file was opened.
func (f *openFile) unchanged(now *unix.Stat_t) bool {
	then := &f.stat
	return now.Nlink > 0 && now.Size == then.Size && now.Mtim == then.Mtim && now.Ctim == then.Ctim
}

// acquireFile returns the file that o is served from, with one more user: an open one
// if it is still as it was, else a new one. stat is scratch.
func (s *Store) acquireFile(o *backend.Object, stat *unix.Stat_t) (*openFile, error) {
	tag := o.Version.Tag
	s.mu.Lock()
	f := s.mu.files[tag]
	if f != nil {
		f.users++
		s.mu.clock++
		f.used = s.mu.clock
	}
	s.mu.Unlock()
	if f != nil {
		if s.fstat(f.fd, stat) == 0 && f.unchanged(stat) {
			return f, nil
		}
		s.releaseFile(f, true)
	}
	f, err := s.openFile(o)
	if err != nil {
		return nil, err
	}
	return s.keepFile(f), nil
}

// keepFile makes a new file known, with one user, unless another caller has opened
// the same meanwhile. It makes room for it.
func (s *Store) keepFile(f *openFile) *openFile {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.clock++
	if other := s.mu.files[f.tag]; other != nil && other.unchanged(&f.stat) {
		s.retire(f)
		f = other
	} else {
		if other != nil {
			s.forget(other)
		}
		s.mu.files[f.tag] = f
		s.mu.tables += f.memory()
	}
	f.users++
	f.used = s.mu.clock
	for len(s.mu.files) > s.options.OpenFiles || s.mu.tables > maxTableBytes {
		if !s.evictOldest() {
			break
		}
	}
	return f
}

// evictOldest closes the file that nobody has used for the longest time; false if
// all are in use. The caller holds the lock.
func (s *Store) evictOldest() bool {
	var oldest *openFile
	for _, f := range s.mu.files {
		if f.users == 0 && (oldest == nil || f.used < oldest.used) {
			oldest = f
		}
	}
	if oldest != nil {
		s.forget(oldest)
	}
	return oldest != nil
}

// forget lets nobody find the file any more. The caller holds the lock.
func (s *Store) forget(f *openFile) {
	if f.dead {
		return
	}
	f.dead = true
	s.mu.tables -= f.memory()
	if s.mu.files[f.tag] == f {
		delete(s.mu.files, f.tag)
	}
	if f.users == 0 {
		s.retire(f)
	}
}

// retire closes a file that nobody uses and keeps its memory for the next one. The
// caller holds the lock.
func (s *Store) retire(f *openFile) {
	s.system.Close(f.fd)
	*f = openFile{table: table{offsets: f.offsets, checksums: f.checksums}}
	if f.memory() <= maxSpareBytes {
		s.mu.spare = f
	}
}

// maxSpareBytes is how large a table may be whose memory is kept for the next.
const maxSpareBytes = 1 << 20

// releaseFile ends one use; with drop the file serves nobody anew.
func (s *Store) releaseFile(f *openFile, drop bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.users--
	switch {
	case drop:
		s.forget(f)
	case f.dead && f.users == 0:
		s.retire(f)
	}
}

// EvictIdle closes the files that no call is using and returns how many, for a
// process that has run out of descriptors elsewhere.
func (s *Store) EvictIdle() (closed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.evictOldest() {
		closed++
	}
	return closed
}

// openFile opens the file that o's tag names and reads its seek table.
func (s *Store) openFile(o *backend.Object) (*openFile, error) {
	object := string(o.Name)
	name, bytes, ok := FileOf(o.Version.Tag)
	if !ok || bytes != o.Version.Size {
		return nil, &backend.Error{
			Kind: backend.OutOfRange, Op: "open", Object: object,
			Detail: fmt.Sprintf("the tag %.100q names no file for %d bytes", o.Version.Tag, o.Version.Size),
		}
	}
	f := s.spareFile()
	f.tag, f.name = o.Version.Tag, name
	if err := s.openNamed(f, object); err != nil {
		return nil, err
	}
	if f.bytes != bytes {
		s.system.Close(f.fd)
		return nil, s.corrupt(name, object, 0, fmt.Sprintf("it holds %d bytes, expected %d", f.bytes, bytes), nil)
	}
	return f, nil
}

func (s *Store) spareFile() *openFile {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.mu.spare; f != nil {
		s.mu.spare = nil
		return f
	}
	return new(openFile)
}

// openNamed opens f.name and fills f in; object is for errors.
func (s *Store) openNamed(f *openFile, object string) error {
	fd, errno := s.open(f.name)
	if errno != 0 {
		return s.errnoError("open", f.name, object, errno)
	}
	f.fd, f.number = fd, s.pool.newFile()
	err := s.readTable(f, object)
	if err != nil {
		s.system.Close(fd)
	}
	return err
}

// open opens a file for reading, making room among the open ones when the process is
// out of descriptors. O_NONBLOCK: a FIFO in its place must not hang.
func (s *Store) open(name string) (int, syscall.Errno) {
	path := append([]byte(name), 0)
	for attempt := 0; ; attempt++ {
		fd, errno := s.system.Openat(s.dirfd, path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK)
		switch {
		case errno == unix.EINTR && attempt < maxRestarts:
		case (errno == unix.EMFILE || errno == unix.ENFILE) && attempt < maxRestarts && s.EvictIdle() > 0:
		default:
			return fd, errno
		}
	}
}

func (s *Store) readTable(f *openFile, object string) error {
	if errno := s.fstat(f.fd, &f.stat); errno != 0 {
		return s.errnoError("stat", f.name, object, errno)
	}
	size := f.stat.Size
	if f.stat.Mode&unix.S_IFMT != unix.S_IFREG || size < tableBytes(0) {
		return s.corrupt(f.name, object, 0, fmt.Sprintf("expected a regular file that ends in a seek table, found %d bytes", size), nil)
	}
	footer := make([]byte, footerBytes)
	if err := s.pread(f, object, footer, size-footerBytes); err != nil {
		return err
	}
	entries, complaint := parseFooter(footer, size)
	if complaint != "" {
		return s.corrupt(f.name, object, size-footerBytes, complaint, nil)
	}
	b := make([]byte, tableBytes(entries))
	start := size - int64(len(b))
	if err := s.pread(f, object, b, start); err != nil {
		return err
	}
	if complaint := f.parse(b, size); complaint != "" {
		return s.corrupt(f.name, object, start, complaint, nil)
	}
	return nil
}

// describe returns what object the file says that it holds.
func (s *Store) describe(f *openFile) (description, error) {
	var d description
	at := f.offsets[f.frames()]
	if f.description > maxDescription {
		return d, s.corrupt(f.name, f.name, at, fmt.Sprintf("a description of %d bytes, at most %d are expected", f.description, maxDescription), nil)
	}
	b := make([]byte, f.description)
	if err := s.pread(f, f.name, b, at); err != nil {
		return d, err
	}
	if !d.parse(b) {
		return d, s.corrupt(f.name, f.name, at, "it does not say which object it holds", nil)
	}
	return d, nil
}

// pread fills p, however long it takes.
func (s *Store) pread(f *openFile, object string, p []byte, off int64) error {
	restarts := 0
	for done := 0; done < len(p); {
		n, errno := s.system.Pread(f.fd, p[done:], off+int64(done))
		switch {
		case errno == unix.EINTR && restarts < maxRestarts:
			restarts++
		case errno != 0:
			return s.errnoError("read", f.name, object, errno)
		case n == 0:
			return s.corrupt(f.name, object, off+int64(done), "the file ends there: it was cut off while it was read", nil)
		default:
			done += n
		}
	}
	return nil
}

// fstat is the system call, begun again when a signal interrupts it.
func (s *Store) fstat(fd int, stat *unix.Stat_t) syscall.Errno {
	for attempt := 0; ; attempt++ {
		if errno := s.system.Fstat(fd, stat); errno != unix.EINTR || attempt == maxRestarts {
			return errno
		}
	}
}
