package flashtest

import (
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// Kind is what an operation does.
type Kind string

// The kinds of operations.
const (
	Open          Kind = "open"
	Create        Kind = "create"
	Remove        Kind = "remove"
	Rename        Kind = "rename"
	MakeDirectory Kind = "mkdir"
	List          Kind = "list"
	SyncDirectory Kind = "fsync"
	Lock          Kind = "flock"
	Statistics    Kind = "statfs"
	Read          Kind = "read"
	Write         Kind = "write"
	Allocate      Kind = "fallocate"
	Sync          Kind = "fdatasync"
	Size          Kind = "stat"
	Close         Kind = "close"
)

// changes reports whether operations of the kind change what a crash leaves.
func (k Kind) changes() bool {
	switch k {
	case Create, Remove, Rename, MakeDirectory, SyncDirectory, Write, Allocate, Sync:
		return true
	}
	return false
}

// Operation is one call of a Files or of a file of it.
type Operation struct {
	Kind   Kind
	Name   string
	Offset int64 // of reads, writes and allocations
	Bytes  int64 // of these
}

// Fault makes operations fail. Those that are of one of Kinds, on a name that Name matches
// and for which Where is true are counted; the first After of them succeed, the next Times
// fail, and what follows succeeds again.
type Fault struct {
	Kinds []Kind               // none: any, but Close
	Name  string               // as in path.Match; empty: any
	Where func(Operation) bool // nil: any
	After int
	Times int // 0: all that follow

	// Err is how they fail; nil: EIO, unless they hang. A Sync that fails writes
	// nothing, and a later one does not write it either.
	Err error
	// Short is how much of a write that fails is written, bytes.
	Short int
	// Hang, if it is not nil, makes them wait until it is closed, and then fail with Err,
	// if it is not nil.
	Hang chan struct{}

	files *Files // its lock guards what follows
	seen  int
	fired int
	ended bool
}

// T is what Inject needs of a test.
type T interface {
	Helper()
	Errorf(format string, arguments ...any)
	Cleanup(do func())
}

// Inject adds a fault. The test fails if it never fires.
func (f *Files) Inject(t T, fault Fault) *Fault {
	t.Helper()
	injected := f.Add(fault)
	t.Cleanup(func() {
		t.Helper()
		if injected.Fired() == 0 {
			t.Errorf("the fault of %v on %q never fired", fault.Kinds, fault.Name)
		}
	})
	return injected
}

// Add is Inject for who counts himself.
func (f *Files) Add(fault Fault) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	injected := &fault
	injected.files = f
	f.faults = append(f.faults, injected)
	return injected
}

// Fired is how often it fired.
func (x *Fault) Fired() int {
	x.files.mu.Lock()
	defer x.files.mu.Unlock()
	return x.fired
}

// End makes it fire no more. What hangs goes on hanging.
func (x *Fault) End() {
	x.files.mu.Lock()
	defer x.files.mu.Unlock()
	x.ended = true
}

func (x *Fault) matches(o Operation) bool {
	if len(x.Kinds) == 0 && o.Kind == Close || len(x.Kinds) > 0 && !slices.Contains(x.Kinds, o.Kind) {
		return false
	}
	if x.Name != "" {
		if ok, err := path.Match(x.Name, o.Name); err != nil || !ok {
			return false
		}
	}
	return x.Where == nil || x.Where(o)
}

// fires counts an operation and reports whether it fails. The lock is held.
func (x *Fault) fires(o Operation) bool {
	if x.ended || !x.matches(o) {
		return false
	}
	x.seen++
	if x.seen <= x.After || x.Times > 0 && x.seen > x.After+x.Times {
		return false
	}
	x.fired++
	return true
}

// begin is what each operation begins with: it says how it fails, if it does.
func (f *Files) begin(o Operation) (short int, err error) {
	if o.Kind.changes() && f.Before != nil {
		f.before.Lock()
		f.Before(o)
		f.before.Unlock()
	}
	fault := f.next(o)
	if fault == nil {
		return 0, nil
	}
	err = fault.Err
	if fault.Hang != nil {
		<-fault.Hang
	} else if err == nil {
		err = unix.EIO
	}
	if err != nil {
		err = pathError(o.Kind, o.Name, err)
	}
	return fault.Short, err
}

// next counts an operation and returns the fault that it meets.
func (f *Files) next(o Operation) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.operations++
	for _, x := range f.faults {
		if x.fires(o) {
			return x
		}
	}
	return nil
}
