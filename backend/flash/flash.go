// Package flash keeps chunks on local flash: in extents of large preallocated files, on
// one or several devices. It is a backend.Store.
//
// A chunk that was Put is there after a crash or a loss of power at any moment after Put
// returned. A chunk that was filled may be lost then. No crash, and no damage of the
// files that a start finds, makes the store serve other bytes than were stored: that is
// checked against its CRC32C when it is first read, and no extent is written while a
// record that could survive a crash says that it holds something else. What rots after its
// first read is found by the scrubber.
//
// What is full drops chunks that were filled, those first that were not read lately. A
// device that fails is left out with an event; the others go on.
//
// See format.go for the layout on disk and its rule of migration.
package flash

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

// Options configure a Store. Devices must be given; the rest has defaults.
type Options struct {
	Devices []Device

	// SyncInterval is after which time what was filled is made durable, and its record with
	// the next time: a crash loses what was filled in the last two. SyncBytes is after how
	// many bytes that is not waited for. Defaults 1 s and 64 MiB.
	SyncInterval time.Duration
	SyncBytes    int64

	// Direct reads past the page cache (O_DIRECT), where the file system can.
	Direct bool

	// Reads is how many reads a device does at once for one Gather. Default 32.
	Reads int
	// NoUring leaves io_uring(7) alone, which a Gather uses with Direct: goroutines wait for
	// its reads, as they do where the kernel, or a filter of system calls, refuses it.
	NoUring bool

	// ScrubBytesPerSecond is how fast each device is read through, to find what has rotted.
	// Default: what the device may hold within a week, 64 KiB/s to 16 MiB/s. Negative: not
	// at all.
	ScrubBytesPerSecond int64

	// Event is told of what somebody should know: a device that fails, a chunk that is
	// not what it was, a segment that is not used any more. It must not block and must
	// not call the store. Events are logged as well.
	Event func(Event)

	Logger *slog.Logger // default: discards
}

// Device is a directory with a share of a device's room.
type Device struct {
	Path string
	// LimitBytes is what the files in it may take together; up to a thirty-second more for
	// records where chunks of a few KB come after large ones, and a segment more while one
	// that failed is emptied. 0: nine tenths of what the file system has free, with what the
	// directory has already.
	LimitBytes int64

	// SpanBytes and SegmentSpans are the geometry of a directory that is made anew: a
	// power of two of at least 64 KiB, and how many of them make a segment. Chunks larger
	// than a span are refused. Default: by the limit, 64 MiB and 16 from 16 GiB to 2 TiB,
	// spans of up to 256 MiB above.
	SpanBytes    int64
	SegmentSpans int

	// Files replaces the file system, in tests. Path is only a name then.
	Files Files
}

func (o *Options) ensureDefaults() {
	if o.SyncInterval <= 0 {
		o.SyncInterval = time.Second
	}
	if o.SyncBytes <= 0 {
		o.SyncBytes = 64 << 20
	}
	if o.Reads <= 0 {
		o.Reads = 32
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Event == nil {
		o.Event = func(Event) {}
	}
}

// Store is chunks on devices. It implements backend.Store, backend.Gatherer,
// backend.Locator and backend.PartialFiller. Its methods are safe for parallel use.
type Store struct {
	options  Options
	index    index
	devices  [maxDevices + 1]atomic.Pointer[device] // by number, from 1; nil: none
	sequence atomic.Uint64                          // of the last record
	buffers  buffers
	gathers  gathers
	preadv   func(fd int, into []unix.Iovec, off int64, flags int) (int, syscall.Errno)
	newQueue func(room int) (queue, error)
	noUring  atomic.Bool // io_uring was refused
	noNowait atomic.Bool // reading only what is in the page cache was
	events   tally[eventKey]

	life struct {
		sync.RWMutex // read-locked by every call; locked by Close
		closed       bool
	}
	changing sync.Mutex // held by AddDevice, SetLimit and Close
	names    int        // devices ever added; guarded by changing
}

// Open opens the directories, makes those that are not there, and finds the chunks in
// them. A directory that cannot be opened is left out with an event unless none can:
// ErrNoDevice then, joined with the reasons.
func Open(ctx context.Context, o Options) (*Store, error) {
	o.ensureDefaults()
	s := &Store{options: o, preadv: preadv, newQueue: newRing}
	s.gathers.idle = make(chan *gather, gathersKept)
	s.index.init(s)
	var failed []error
	for i := range o.Devices {
		if err := s.AddDevice(ctx, o.Devices[i]); err != nil {
			failed = append(failed, err)
			s.event(Event{Kind: DeviceFailed, Device: o.Devices[i].Path, Err: err})
		}
	}
	if len(failed) == len(o.Devices) {
		return nil, errors.Join(append([]error{ErrNoDevice}, failed...)...)
	}
	return s, nil
}

// ErrNoDevice is what Open answers if no device could be opened.
var ErrNoDevice = errors.New("flash: no device could be opened")

// AddDevice opens a directory more, while the store is used.
func (s *Store) AddDevice(ctx context.Context, o Device) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.enter("add device", nil); err != nil {
		return err
	}
	s.leave() // Close waits for changing
	number := 0
	for n := 1; n < len(s.devices) && number == 0; n++ {
		if s.devices[n].Load() == nil && n > s.names {
			number = n
		}
	}
	if number == 0 {
		return fmt.Errorf("add device %s: a store has %d devices at most", o.Path, maxDevices)
	}
	if _, err := s.openDevice(ctx, number, o); err != nil {
		return fmt.Errorf("open device %s: %w", o.Path, err)
	}
	s.names = number
	return nil
}

// enter begins a call.
func (s *Store) enter(op string, c *backend.Chunk) error {
	s.life.RLock()
	if s.life.closed {
		s.life.RUnlock()
		return &backend.Error{Kind: backend.Unavailable, Op: op, Object: nameOf(c), Err: errClosed}
	}
	return nil
}

func (s *Store) leave() { s.life.RUnlock() }

var errClosed = errors.New("the flash store is closed")

// Close implements backend.Store. What was filled is made durable first.
func (s *Store) Close() error {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.life.Lock()
	closed := s.life.closed
	s.life.closed = true
	s.life.Unlock()
	if closed {
		return nil
	}
	var failed []error
	for d := range s.all() { // what moves may move from any of them to any other
		d.rest()
	}
	for d := range s.all() { // what is made durable on one may take the place of what another has
		failed = append(failed, d.syncer.stop())
	}
	for d := range s.all() {
		failed = append(failed, d.close())
	}
	s.index.close()
	s.gathers.close()
	s.buffers.close()
	return errors.Join(failed...)
}

// all are the devices that are used.
func (s *Store) all() func(yield func(*device) bool) {
	return func(yield func(*device) bool) {
		for n := range s.devices {
			if d := s.devices[n].Load(); d != nil && d.ready.Load() && !yield(d) {
				return
			}
		}
	}
}

// slotOf returns the slot of a ref of the index, whose shard's lock is held: it is live.
func (s *Store) slotOf(r ref) (*span, *slot) {
	at := r.place()
	x := (*s.devices[r.device()].Load().segments.Load())[at.segment].spans[at.span]
	return x, &x.slots[at.extent]
}
