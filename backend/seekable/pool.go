package seekable

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/pprof"
	"sync"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// PoolOptions tune a Pool. The zero value works.
type PoolOptions struct {
	// Bytes is the memory for decompressed frames. 0: 64 MiB. At least one frame.
	Bytes int64

	// Reads is how many goroutines the Pool starts, and so how many reads that miss the
	// page cache run at once beside those of the callers. 0: 32, as backend/object.
	// Decompressing runs on GOMAXPROCS of them at a time.
	Reads int
}

const (
	defaultPoolBytes = 64 << 20
	defaultReads     = 32
	maxReads         = 4096
	maxPoolBytes     = 1 << 40
)

// EnsureDefaults puts the documented defaults in place of zero values.
func (o *PoolOptions) EnsureDefaults() {
	if o.Bytes == 0 {
		o.Bytes = defaultPoolBytes
	}
	if o.Reads == 0 {
		o.Reads = defaultReads
	}
}

// Validate reports every value that cannot be used, all at once.
func (o *PoolOptions) Validate() error {
	var problems []error
	if o.Bytes < FrameBytes || o.Bytes > maxPoolBytes {
		problems = append(problems, fmt.Errorf("option Bytes is %d, want %d to %d", o.Bytes, FrameBytes, int64(maxPoolBytes)))
	}
	if o.Reads < 0 || o.Reads > maxReads {
		problems = append(problems, fmt.Errorf("option Reads is %d, want 0 to %d", o.Reads, maxReads))
	}
	return errors.Join(problems...)
}

// Pool is what the Stores of one process share: memory for decompressed frames, taken
// from the kernel and not from Go's heap, and the goroutines that read and decompress.
// A frame stays until its place is needed. Safe for parallel use.
type Pool struct {
	decoder *zstd.Decoder // bounds how many frames are decompressed at once
	memory  []byte        // slots of FrameBytes
	work    chan *gather  // callers send to workers that wait, Close closes
	workers sync.WaitGroup

	mu struct {
		sync.Mutex
		slots   []slot
		heads   []int32 // hash -> first slot of its chain, -1: none; len is a power of two
		hand    int     // of the clock that chooses whose place is taken
		changed *sync.Cond
		waiting int    // on changed
		files   uint64 // how many numbers newFile has given
		closed  bool
	}
}

// frameKey names a frame: of the file that newFile gave the number.
type frameKey struct {
	file  uint64
	frame int64
}

func (k frameKey) hash() uint64 {
	h := (k.file*0x9E3779B97F4A7C15 ^ uint64(k.frame)) * 0xFF51AFD7ED558CCD
	return h ^ h>>32
}

// slot is the place of one frame, guarded by the Pool's lock. Its memory belongs to
// the filler while filling, and is read only while users > 0 and ready.
type slot struct {
	key   frameKey
	next  int32 // of the same chain, -1: none
	users int32
	state slotState
	again bool // used since the clock's hand last passed
}

type slotState uint8

const (
	empty slotState = iota // in no chain
	filling
	ready
)

// NewPool takes the memory (which costs pages only when it is used) and starts the
// goroutines; Close ends both. Errors: of the options, or of the kernel.
func NewPool(options PoolOptions) (*Pool, error) {
	options.EnsureDefaults()
	if err := options.Validate(); err != nil {
		return nil, fmt.Errorf("make a pool of frames: %w", err)
	}
	// The seek table's checksum says that the frame is the right one as well, so the
	// frame's own would be a second pass for nothing.
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(FrameBytes), zstd.IgnoreChecksum(true))
	if err != nil {
		return nil, fmt.Errorf("make a decoder: %w", err)
	}
	slots := int(options.Bytes / FrameBytes)
	memory, err := unix.Mmap(-1, 0, slots*FrameBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		decoder.Close()
		return nil, fmt.Errorf("map %d bytes for frames: %w", slots*FrameBytes, err)
	}
	p := &Pool{decoder: decoder, memory: memory, work: make(chan *gather)}
	p.mu.changed = sync.NewCond(&p.mu)
	p.mu.slots = make([]slot, slots)
	heads := 1
	for heads < 2*slots {
		heads *= 2
	}
	p.mu.heads = make([]int32, heads)
	for i := range p.mu.heads {
		p.mu.heads[i] = -1
	}
	p.start(options.Reads)
	return p, nil
}

func (p *Pool) start(workers int) {
	labels := pprof.WithLabels(context.Background(), pprof.Labels("stoker", "seekable-read"))
	for range workers {
		p.workers.Go(func() {
			pprof.SetGoroutineLabels(labels)
			var l lane
			for g := range p.work {
				g.drain(&l)
				g.helpers.Done()
			}
		})
	}
}

// Close stops the goroutines and gives the memory back. All Stores that use the Pool
// must have been closed. Closing again does nothing.
func (p *Pool) Close() error {
	p.mu.Lock()
	again := p.mu.closed
	p.mu.closed = true
	p.mu.Unlock()
	if again {
		return nil
	}
	close(p.work)
	p.workers.Wait()
	p.decoder.Close()
	if err := unix.Munmap(p.memory); err != nil {
		return fmt.Errorf("give the memory for frames back: %w", err)
	}
	return nil
}

// newFile returns a number that no file had before: frames of a file that was opened
// anew are not those of the one before.
func (p *Pool) newFile() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.files++
	return p.mu.files
}

// bytes returns the memory of slot i.
func (p *Pool) bytes(i int32) []byte {
	start := int(i) * FrameBytes
	return p.memory[start : start+FrameBytes : start+FrameBytes]
}

// acquire returns the slot of a frame with one more user. If it is not filled, the
// caller fills it and says so by filled. It waits for others who are filling it, and
// for a free slot; as nobody waits here who has one, it does not wait for ever.
func (p *Pool) acquire(key frameKey) (i int32, isFilled bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if i := p.find(key); i >= 0 {
			s := &p.mu.slots[i]
			if s.state == ready {
				s.users++
				s.again = true
				return i, true
			}
		} else if i := p.victim(); i >= 0 {
			p.unlink(i)
			p.link(i, key)
			return i, false
		}
		p.mu.waiting++
		p.mu.changed.Wait()
		p.mu.waiting--
	}
}

// filled says that the slot's content is there (ok), or that it will not come: then
// the caller's use of it ends, too.
func (p *Pool) filled(i int32, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ok {
		p.mu.slots[i].state = ready
	} else {
		p.unlink(i)
		p.mu.slots[i].users = 0
	}
	p.wake()
}

// release ends one use of a filled slot.
func (p *Pool) release(i int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.mu.slots[i]
	s.users--
	if s.users == 0 {
		p.wake()
	}
}

func (p *Pool) wake() {
	if p.mu.waiting > 0 {
		p.mu.changed.Broadcast()
	}
}

func (p *Pool) head(key frameKey) *int32 {
	return &p.mu.heads[key.hash()&uint64(len(p.mu.heads)-1)]
}

// find returns the slot of a frame, -1 if there is none.
func (p *Pool) find(key frameKey) int32 {
	i := *p.head(key)
	for i >= 0 && p.mu.slots[i].key != key {
		i = p.mu.slots[i].next
	}
	return i
}

// victim returns a slot that nobody uses, preferring those not used twice since the
// hand last passed (which keeps a batch's frames from the once-used ones of a scan);
// -1 if all are in use.
func (p *Pool) victim() int32 {
	for range 2 * len(p.mu.slots) {
		i := p.mu.hand
		p.mu.hand = (i + 1) % len(p.mu.slots)
		s := &p.mu.slots[i]
		switch {
		case s.users > 0:
		case s.state == ready && s.again:
			s.again = false
		default:
			return int32(i)
		}
	}
	return -1
}

func (p *Pool) unlink(i int32) {
	s := &p.mu.slots[i]
	if s.state == empty {
		return
	}
	at := p.head(s.key)
	for *at != i {
		at = &p.mu.slots[*at].next
	}
	*at = s.next
	s.state = empty
}

// link gives the slot to a frame, to be filled by its one user.
func (p *Pool) link(i int32, key frameKey) {
	head := p.head(key)
	p.mu.slots[i] = slot{key: key, next: *head, users: 1, state: filling}
	*head = i
}
