package seekable

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

// Options tune a Store. The zero value works.
type Options struct {
	// Pool holds the memory and the goroutines; several Stores of one process should
	// share one, which must be closed after them. nil: the Store makes its own, of
	// PoolOptions, and closes it.
	Pool        *Pool
	PoolOptions PoolOptions

	// OpenFiles is how many files stay open between reads. 0: 128.
	OpenFiles int

	// ChunkBytes is how List cuts objects into chunks. 0: backend.MaxChunkBytes.
	ChunkBytes int64

	// Dataset is what people call the data; it appears in the remedies of errors.
	// Empty: "NAME".
	Dataset string

	// System is what stands for the kernel. nil: Kernel().
	System System
}

const (
	defaultOpenFiles = 128
	// idleScratch is how many calls' scratch is kept for the next calls: 160 KiB each.
	idleScratch = 32
)

// EnsureDefaults puts the documented defaults in place of zero values.
func (o *Options) EnsureDefaults() {
	if o.OpenFiles == 0 {
		o.OpenFiles = defaultOpenFiles
	}
	if o.ChunkBytes == 0 {
		o.ChunkBytes = backend.MaxChunkBytes
	}
	if o.Dataset == "" {
		o.Dataset = "NAME"
	}
	if o.System == nil {
		o.System = Kernel()
	}
	o.PoolOptions.EnsureDefaults()
}

// Validate reports every value that cannot be used, all at once.
func (o *Options) Validate() error {
	var problems []error
	if o.OpenFiles < 0 {
		problems = append(problems, fmt.Errorf("OpenFiles is %d, want 0 or more", o.OpenFiles))
	}
	if o.ChunkBytes < 0 {
		problems = append(problems, fmt.Errorf("ChunkBytes is %d, want 0 or more", o.ChunkBytes))
	}
	if o.Pool == nil {
		problems = append(problems, o.PoolOptions.Validate())
	}
	return errors.Join(problems...)
}

// Store serves the seekable files of a directory and, for everything else, the store
// that it decorates. Seekable objects are read-only: Delete of one answers Permission,
// Locate NotFound. Put and Fill are the decorated store's. It also is a
// backend.Gatherer, a backend.Opener, a backend.Locator, a backend.Warmer and a
// backend.Prober.
type Store struct {
	origin  backend.Store
	options Options
	system  System
	pool    *Pool
	ownPool bool
	dir     string // for people
	dirfd   int

	noNowait atomic.Bool  // the file system does not support RWF_NOWAIT
	idle     chan *gather // scratch of calls that have ended; any call takes and returns

	mu struct {
		sync.Mutex
		files  map[string]*openFile // by tag
		tables int64                // bytes of their seek tables
		clock  uint64
		spare  *openFile // memory for the next file
		calls  int       // in flight
		closed bool
		ended  *sync.Cond // signalled when calls reaches 0
	}
}

var (
	_ backend.Store     = (*Store)(nil)
	_ backend.Gatherer  = (*Store)(nil)
	_ backend.Opener    = (*Store)(nil)
	_ backend.Locator   = (*Store)(nil)
	_ backend.Unwrapper = (*Store)(nil)
)

// New decorates origin, which the Store takes over: Close closes it, too. dir need
// hold no file yet, but must be there. After an error origin is still the caller's.
// Errors: OutOfRange (options), NotFound, Permission, NoSpace (memory), Unavailable.
func New(origin backend.Store, dir string, options Options) (*Store, error) {
	options.EnsureDefaults()
	if err := options.Validate(); err != nil {
		return nil, &backend.Error{Kind: backend.OutOfRange, Op: "open directory", Object: dir, Err: err}
	}
	dirfd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fileError("open directory", dir, err)
	}
	if absolute, err := filepath.Abs(dir); err == nil {
		dir = absolute
	}
	s := &Store{
		origin: origin, options: options, system: options.System, pool: options.Pool, dir: dir, dirfd: dirfd,
		idle: make(chan *gather, idleScratch),
	}
	s.mu.files = map[string]*openFile{}
	s.mu.ended = sync.NewCond(&s.mu)
	if s.pool == nil {
		s.ownPool = true
		if s.pool, err = NewPool(options.PoolOptions); err != nil {
			_ = unix.Close(dirfd)
			return nil, &backend.Error{Kind: backend.NoSpace, Op: "open directory", Object: dir, Err: err}
		}
	}
	return s, nil
}

// Unwrap implements backend.Unwrapper.
func (s *Store) Unwrap() backend.Store { return s.origin }

// enter counts a call in; every call that entered leaves.
func (s *Store) enter(op string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return s.closedError(op)
	}
	s.mu.calls++
	return nil
}

func (s *Store) leave() {
	s.mu.Lock()
	s.mu.calls--
	if s.mu.calls == 0 {
		s.mu.ended.Broadcast()
	}
	s.mu.Unlock()
}

// Close waits for calls in flight, closes every file, the decorated store and the
// Pool if it is the Store's own. Calls made after Close answer Unavailable; closing
// again does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	again := s.mu.closed
	s.mu.closed = true
	for s.mu.calls > 0 {
		s.mu.ended.Wait()
	}
	s.mu.Unlock()
	if again {
		return nil
	}
	s.EvictIdle()
	err := s.origin.Close()
	if s.ownPool {
		err = errors.Join(err, s.pool.Close())
	}
	if e := unix.Close(s.dirfd); e != nil {
		err = errors.Join(err, fileError("close", s.dir, e))
	}
	return err
}

// ReadAt implements backend.Store.
func (s *Store) ReadAt(ctx context.Context, c backend.Chunk, p []byte, off int64) error {
	if !isSeekable(c.Object) {
		return s.origin.ReadAt(ctx, c, p, off)
	}
	if err := s.enter("read"); err != nil {
		return err
	}
	defer s.leave()
	return s.read(ctx, backend.Read{Chunk: c, Offset: off, P: p})
}

// read serves one read for a caller that has entered. It is a copy of gather because
// the read must lie in scratch to stay off the heap.
func (s *Store) read(ctx context.Context, r backend.Read) error {
	g := s.takeGather()
	g.single[0] = r
	err := g.run(ctx, g.single[:], nil)
	for _, f := range g.files {
		s.releaseFile(f, err != nil)
	}
	s.putGather(g)
	return err
}

// Put implements backend.Store: it is the decorated store's.
func (s *Store) Put(ctx context.Context, content []byte) (backend.ChunkID, error) {
	return s.origin.Put(ctx, content)
}

// Fill implements backend.Store: it is the decorated store's.
func (s *Store) Fill(ctx context.Context, c backend.Chunk, content []byte) error {
	if isSeekable(c.Object) {
		return s.readOnly("fill", c)
	}
	return s.origin.Fill(ctx, c, content)
}

// Stat implements backend.Store: it opens the file and reads its seek table.
func (s *Store) Stat(ctx context.Context, c backend.Chunk) (backend.Info, error) {
	if !isSeekable(c.Object) {
		return s.origin.Stat(ctx, c)
	}
	if err := s.enter("stat"); err != nil {
		return backend.Info{}, err
	}
	defer s.leave()
	if ctx.Err() != nil {
		return backend.Info{}, canceled("stat", ctx)
	}
	if err := checkChunk("stat", c); err != nil {
		return backend.Info{}, err
	}
	f, err := s.acquireFile(c.Object, new(unix.Stat_t))
	if err != nil {
		return backend.Info{}, err
	}
	s.releaseFile(f, false)
	return backend.Info{Chunk: c, Bytes: c.Size}, nil
}

// Delete implements backend.Store.
func (s *Store) Delete(ctx context.Context, c backend.Chunk) error {
	if isSeekable(c.Object) {
		return s.readOnly("delete", c)
	}
	return s.origin.Delete(ctx, c)
}

var errReadOnly = errors.New("files in seekable form are written by a scan, as a whole")

func (s *Store) readOnly(op string, c backend.Chunk) error {
	return &backend.Error{
		Kind: backend.Permission, Op: op, Object: string(c.Object.Name), Err: errReadOnly,
		Remedy: fmt.Sprintf("index the dataset again: stoker dataset add %s DIR --replace", s.options.Dataset),
	}
}

// Locate implements backend.Locator: what is compressed lies in no file as it is.
func (s *Store) Locate(ctx context.Context, c backend.Chunk, r backend.Range) (backend.Location, error) {
	if !isSeekable(c.Object) {
		if locator, ok := backend.As[backend.Locator](s.origin); ok {
			return locator.Locate(ctx, c, r)
		}
	}
	object := c.ID.String()
	if c.Object != nil {
		object = string(c.Object.Name)
	}
	return backend.Location{}, &backend.Error{
		Kind: backend.NotFound, Op: "locate", Object: object, Detail: "its bytes lie in no file as they are",
	}
}
