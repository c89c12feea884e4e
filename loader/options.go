package loader

import (
	"log/slog"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/shm"
)

// Options configure a Node. Zero values of numbers take the default given here.
type Options struct {
	// DataDir is where datasets and their indexes are kept. Required.
	DataDir string

	// Version of this build, told to clients.
	Version api.Version

	// Logger; nil discards.
	Logger *slog.Logger

	// UID is who may use the session socket; -1: this process's own.
	UID int

	Session SessionOptions

	Prefetch PrefetchOptions

	// MessagesPerSecond bounds what one connection may ask. Default 10000.
	MessagesPerSecond int

	// ConnectionsMax bounds connections of the node. Default: 1024, or an eighth of
	// the process's descriptors: a connection takes two (socket and pidfd), and new
	// clients must not take what the reads of the others need.
	ConnectionsMax int

	// ConnectionsPerPeer bounds connections of one process. Default 64, or half of
	// ConnectionsMax where that is less.
	ConnectionsPerPeer int

	// Hints bound what is announced.
	Hints HintOptions

	// Object tunes the file origins of all datasets; Dataset and Logger in it are
	// set by the Node.
	Object object.Options

	// Flash says where chunks are kept; without Devices, nowhere. Logger and Event in it
	// are set by the Node.
	Flash flash.Options
}

// SessionOptions bound sessions. Sizes are bytes.
type SessionOptions struct {
	Readers         int   // goroutines that fill batches, each session. Default: CPUs-1, from 1 to 4
	Slots           int   // batches a ring holds. Default: 8, fewer if they do not fit RingBytesMax
	RingBytesMax    int64 // of one session. Default 256 MiB
	RingBytesTotal  int64 // of the node. Default 8 GiB
	OrderTableBytes int64 // tables of drawn orders, of the node. Default 2 GiB
	BatchBytesMax   int64 // largest batch. Default 1 GiB
	SessionsMax     int   // of the node. Default 64
	SessionsPerPeer int   // of one process. Default 16
}

// EnsureDefaults puts the documented defaults in place of zero values.
func (o *Options) EnsureDefaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.UID < 0 {
		o.UID = os.Getuid()
	}
	setDefault(&o.MessagesPerSecond, 10_000)
	setDefault(&o.ConnectionsMax, max(4, min(1024, descriptorLimit()/8)))
	setDefault(&o.ConnectionsPerPeer, max(2, min(64, o.ConnectionsMax/2)))
	o.Hints.EnsureDefaults()
	s := &o.Session
	setDefault(&s.Readers, min(max(runtime.GOMAXPROCS(0)-1, 1), 4))
	setDefault(&s.RingBytesMax, 256<<20)
	setDefault(&s.RingBytesTotal, 8<<30)
	setDefault(&s.OrderTableBytes, 2<<30)
	setDefault(&s.BatchBytesMax, 1<<30)
	setDefault(&s.SessionsMax, 64)
	setDefault(&s.SessionsPerPeer, 16)
	o.Prefetch.EnsureDefaults()
	if o.Object.Budget == nil {
		o.Object.Budget = object.NewBudget(cachedDescriptors())
	}
}

// descriptorLimit is how many descriptors this process may have open. Go raises
// the soft limit to the hard one at start.
func descriptorLimit() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	return int(min(limit.Cur, 1<<20))
}

// cachedDescriptors is how many files all datasets together may keep open: what
// is left by sockets, memory files and reads under way.
func cachedDescriptors() int {
	limit := descriptorLimit()
	return max(limit/2, limit*3/4-512)
}

func setDefault[T int | int64](v *T, value T) {
	if *v == 0 {
		*v = value
	}
}

// defaultSlots is one read by the trainer, one waiting for it, and enough ahead
// to hide one slow batch among fast ones.
const defaultSlots = 8

// fewestSlots is what the default shrinks to before slots do.
const fewestSlots = 4

// ringShape chooses slots and slot bytes for batches of rows samples: a slot
// holds the largest batch where all samples have one size, else twice the mean
// batch, at least the largest sample. What does not fit travels in its own memory.
func (o *SessionOptions) ringShape(s *source, rows, slots int) (count int, bytes int64) {
	mean, largest := s.view.SampleBytes()
	n := int64(rows)
	want := n * largest
	if mean > 0 && largest > 2*mean {
		want = max(2*n*mean, largest)
	}
	want += shm.BatchHeaderBytes(s.tableColumns()) + int64(s.tableColumns())*(8*(n+1)+2*shm.ColumnAlign)
	want = max(shm.Align(want, shm.PageBytes), shm.PageBytes)
	count = slots
	if count == 0 {
		count = o.Slots
	}
	if count == 0 {
		count = int(min(defaultSlots, max(fewestSlots, o.RingBytesMax/want)))
	}
	count = min(max(count, shm.MinSlots), shm.MaxSlots)
	room := o.RingBytesMax - shm.NewGeometry(count, shm.PageBytes).SlotsOffset
	room = room / int64(count) &^ (shm.PageBytes - 1)
	return count, min(want, max(room, shm.PageBytes))
}

// budget is memory shared by all sessions of the node.
type budget struct {
	limit int64
	mu    struct {
		sync.Mutex
		used int64
	}
}

func (b *budget) take(n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.used+n > b.limit {
		return limitFailure("shared memory of all sessions", b.limit, "bytes",
			"close sessions, lower batch_size or slots, or raise session.ring_bytes_total")
	}
	b.mu.used += n
	return nil
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.used -= n
}

func (b *budget) used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.used
}
