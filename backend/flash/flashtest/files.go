// Package flashtest has a file system in memory for tests of the flash store: one that
// loses power, that fails as devices do, and that is damaged behind the store's back.
package flashtest

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend/flash"
)

// Files implements flash.Files in memory. Files are sparse: they cost what was written to
// them. What was written, and names that were made, renamed or removed, last over Crash
// only where Sync or SyncDirectory made them durable; see Loss.
type Files struct {
	// Before, if it is not nil, is called before each operation that changes something,
	// one call at a time and with nothing locked: it may call Crash. To be set before the
	// store is opened.
	Before func(Operation)
	before sync.Mutex

	mu         sync.Mutex
	hollow     bool
	statistics flash.Statistics
	capacity   int64 // bytes that files may take; 0: any number
	taken      int64 // bytes that they take
	operations int64
	faults     []*Fault
	lock       string // note of who has the lock
	locked     bool
	entries    entries // as they are seen
	durable    entries // as they are after a crash, but for
	journal    []change
}

// entries are names: files, and directories, which have no node.
type entries map[string]*node

// change is one of names that is not durable. From a name, to a name: renamed; from
// nothing: made; to nothing: removed.
type change struct {
	from, to string
	node     *node // nil: a directory
}

// New returns an empty directory on flash with much room.
func New() *Files {
	f := &Files{entries: entries{".": nil}, durable: entries{".": nil}}
	f.statistics = flash.Statistics{Type: unix.EXT4_SUPER_MAGIC, FreeBytes: 1 << 50, AllBytes: 1 << 50}
	return f
}

// NewHollow is New, but payload is not kept: of whole pages of 4096 bytes that are written at
// once, all but the first eight bytes read as zero. For simulations that only count.
func NewHollow() *Files {
	f := New()
	f.hollow = true
	return f
}

// SetStatistics says what Statistics answers.
func (f *Files) SetStatistics(s flash.Statistics) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.statistics = s
}

// SetCapacity makes files take so many bytes at most: ENOSPC beyond. 0: any number.
func (f *Files) SetCapacity(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.capacity = bytes
}

// Taken is how many bytes the files take.
func (f *Files) Taken() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.taken
}

// Operations is how many operations there were.
func (f *Files) Operations() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.operations
}

func pathError(op Kind, name string, err error) error {
	return &fs.PathError{Op: string(op), Path: name, Err: err}
}

// Open implements flash.Files.
func (f *Files) Open(name string, create bool) (flash.File, error) {
	kind := Open
	if create {
		kind = Create
	}
	if _, err := f.begin(Operation{Kind: kind, Name: name}); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n, found := f.entries[name]
	switch {
	case create && found:
		return nil, pathError(kind, name, fs.ErrExist)
	case create && !f.hasDirectory(path.Dir(name)), !create && !found:
		return nil, pathError(kind, name, fs.ErrNotExist)
	case found && n == nil:
		return nil, pathError(kind, name, unix.EISDIR)
	case create:
		n = newNode()
		f.change(change{to: name, node: n})
	}
	n.opened++
	return &handle{files: f, node: n}, nil
}

func (f *Files) hasDirectory(name string) bool {
	n, found := f.entries[name]
	return found && n == nil
}

// change changes names and notes that it is not durable. The lock is held.
func (f *Files) change(c change) {
	if c.to != "" {
		f.drop(f.entries[c.to])
	}
	if c.to == "" {
		f.drop(c.node)
	}
	if c.to != "" && c.node != nil {
		c.node.name = c.to
	}
	f.entries.apply(c)
	f.journal = append(f.journal, c)
}

func (e entries) apply(c change) {
	if c.from != "" {
		delete(e, c.from)
	}
	if c.to != "" {
		e[c.to] = c.node
	}
}

// drop gives the room of a file back that has no name any more, if it is not open.
func (f *Files) drop(n *node) {
	if n != nil {
		n.unlinked = true
		f.reclaim(n)
	}
}

func (f *Files) reclaim(n *node) {
	if n.unlinked && n.opened == 0 {
		f.taken -= n.room.bytes()
		n.room = nil
	}
}

// Remove implements flash.Files.
func (f *Files) Remove(name string) error {
	if _, err := f.begin(Operation{Kind: Remove, Name: name}); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n, found := f.entries[name]
	if !found {
		return pathError(Remove, name, fs.ErrNotExist)
	}
	f.change(change{from: name, node: n})
	return nil
}

// Rename implements flash.Files.
func (f *Files) Rename(from, to string) error {
	if _, err := f.begin(Operation{Kind: Rename, Name: from}); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n, found := f.entries[from]
	if !found || !f.hasDirectory(path.Dir(to)) {
		return pathError(Rename, from, fs.ErrNotExist)
	}
	f.change(change{from: from, to: to, node: n})
	return nil
}

// MakeDirectory implements flash.Files.
func (f *Files) MakeDirectory(name string) error {
	if _, err := f.begin(Operation{Kind: MakeDirectory, Name: name}); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hasDirectory(name) {
		return nil
	}
	f.change(change{to: name})
	return nil
}

// List implements flash.Files.
func (f *Files) List(name string) ([]string, error) {
	if _, err := f.begin(Operation{Kind: List, Name: name}); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.hasDirectory(name) {
		return nil, pathError(List, name, fs.ErrNotExist)
	}
	return f.names(name), nil
}

// names are those in a directory. The lock is held.
func (f *Files) names(directory string) (all []string) {
	for _, name := range slices.Sorted(maps.Keys(f.entries)) {
		if name != "." && path.Dir(name) == directory {
			all = append(all, path.Base(name))
		}
	}
	return all
}

// SyncDirectory implements flash.Files.
func (f *Files) SyncDirectory(name string) error {
	if _, err := f.begin(Operation{Kind: SyncDirectory, Name: name}); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.journal = slices.DeleteFunc(f.journal, func(c change) bool {
		in := c.from != "" && path.Dir(c.from) == name || c.to != "" && path.Dir(c.to) == name
		if in {
			f.durable.apply(c)
		}
		return in
	})
	return nil
}

// Lock implements flash.Files.
func (f *Files) Lock(name, note string) (io.Closer, error) {
	if _, err := f.begin(Operation{Kind: Lock, Name: name}); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.locked {
		return nil, fmt.Errorf("%w: %s", flash.ErrLocked, f.lock)
	}
	if _, found := f.entries[name]; !found {
		f.change(change{to: name, node: newNode()})
	}
	f.locked, f.lock = true, note
	return &unlock{files: f}, nil
}

// unlock gives the lock back, once.
type unlock struct {
	files *Files
	once  sync.Once
}

// Close implements io.Closer.
func (u *unlock) Close() error {
	u.once.Do(func() {
		u.files.mu.Lock()
		defer u.files.mu.Unlock()
		u.files.locked = false
	})
	return nil
}

// Statistics implements flash.Files.
func (f *Files) Statistics() (flash.Statistics, error) {
	if _, err := f.begin(Operation{Kind: Statistics, Name: "."}); err != nil {
		return flash.Statistics{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.statistics, nil
}

// Path implements flash.Files.
func (f *Files) Path(name string) string { return path.Join("/in-memory", name) }
