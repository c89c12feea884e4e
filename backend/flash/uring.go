package flash

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// queue is how many reads are given to the kernel by one call, and reaped by one. It is
// for one goroutine at a time.
type queue interface {
	// push adds a read of fd at off; into, and what it points to, is the kernel's until
	// the read is reaped. At most room reads are in the queue at once.
	push(fd int, into []unix.Iovec, off int64, number int32)
	// enter tells the kernel of what was pushed, and waits until so many reads can be
	// reaped.
	enter(wait int) error
	// pop reaps a read; n is what preadv(2) would have returned, an errno negative.
	pop() (number int32, n int, ok bool)
	room() int
	close()
}

// ring is a queue by io_uring(7), without any library: what is shared with the kernel is
// two rings of indices, of what is asked and of what was done, and the entries of both.
// It needs Linux 5.6. Containers' default filters of system calls refuse it.
type ring struct {
	fd             int
	memory         []byte // the rings and the completions
	entriesMemory  []byte
	asked, told    *uint32 // tail of the submissions; head and tail of the completions
	done           *uint32
	array          []uint32
	entries        []ringEntry
	completions    []ringCompletion
	pushed         int // not told to the kernel
	askMask, dones uint32
}

// Of include/uapi/linux/io_uring.h.
const (
	ringOpNop         = 0
	ringOpReadv       = 1
	ringEnterGet      = 1 << 0 // IORING_ENTER_GETEVENTS
	ringOneMapping    = 1 << 0 // IORING_FEAT_SINGLE_MMAP, 5.4
	ringNoDrop        = 1 << 1 // IORING_FEAT_NODROP, 5.5
	ringStable        = 1 << 2 // IORING_FEAT_SUBMIT_STABLE, 5.5
	ringPosition      = 1 << 3 // IORING_FEAT_RW_CUR_POS, 5.6
	ringFeatures      = ringOneMapping | ringNoDrop | ringStable | ringPosition
	ringEntriesOffset = 0x10000000 // IORING_OFF_SQES
)

// ringOffsets are struct io_sqring_offsets and io_cqring_offsets.
type ringOffsets struct {
	head, tail, mask, entries, flags, dropped, array, _ uint32
	_                                                   uint64
}

type completionOffsets struct {
	head, tail, mask, entries, overflow, completions, flags, _ uint32
	_                                                          uint64
}

// ringParameters is struct io_uring_params.
type ringParameters struct {
	entries, completionEntries, flags, cpu, idle, features, queue uint32
	_                                                             [3]uint32
	asked                                                         ringOffsets
	done                                                          completionOffsets
}

// ringEntry is struct io_uring_sqe.
type ringEntry struct {
	op, flags uint8
	priority  uint16
	fd        int32
	offset    uint64
	address   uint64
	length    uint32
	how       uint32
	user      uint64
	_         [3]uint64
}

// ringCompletion is struct io_uring_cqe.
type ringCompletion struct {
	user   uint64
	result int32
	flags  uint32
}

var errRing = errors.New("the kernel's io_uring is too old: Linux 5.6 is needed")

// newRing returns a ring for at least so many reads, after it has seen it work.
func newRing(room int) (queue, error) {
	var p ringParameters
	room = 1 << bits.Len(uint(max(1, room-1)))
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(room), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	r := &ring{fd: int(fd)}
	if p.features&ringFeatures != ringFeatures {
		r.close()
		return nil, errRing
	}
	if err := r.share(&p); err != nil {
		r.close()
		return nil, err
	}
	if err := r.test(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// share maps what is shared with the kernel.
func (r *ring) share(p *ringParameters) (err error) {
	size := max(int(p.asked.array)+int(p.entries)*4, int(p.done.completions)+int(p.completionEntries)*int(unsafe.Sizeof(ringCompletion{})))
	const how, kind = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if r.memory, err = unix.Mmap(r.fd, 0, size, how, kind); err != nil {
		return os.NewSyscallError("mmap", err)
	}
	if r.entriesMemory, err = unix.Mmap(r.fd, ringEntriesOffset, int(p.entries)*int(unsafe.Sizeof(ringEntry{})), how, kind); err != nil {
		return os.NewSyscallError("mmap", err)
	}
	at := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.memory[offset])) }
	r.asked, r.told, r.done = at(p.asked.tail), at(p.done.head), at(p.done.tail)
	r.askMask, r.dones = *at(p.asked.mask), *at(p.done.mask)
	r.array = unsafe.Slice(at(p.asked.array), p.entries)
	r.entries = unsafe.Slice((*ringEntry)(unsafe.Pointer(&r.entriesMemory[0])), p.entries)
	r.completions = unsafe.Slice((*ringCompletion)(unsafe.Pointer(&r.memory[p.done.completions])), p.completionEntries)
	return nil
}

// test asks for nothing, and awaits it: a filter may let a ring be made and not be used.
func (r *ring) test() error {
	r.ask(ringEntry{op: ringOpNop, fd: -1})
	if err := r.enter(1); err != nil {
		return err
	}
	if _, _, ok := r.pop(); !ok {
		return fmt.Errorf("io_uring_enter: %w", unix.EIO)
	}
	return nil
}

func (r *ring) room() int { return len(r.entries) }

func (r *ring) push(fd int, into []unix.Iovec, off int64, number int32) {
	r.ask(ringEntry{
		op: ringOpReadv, fd: int32(fd), offset: uint64(off), user: uint64(number),
		address: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(into)))), length: uint32(len(into)),
	})
}

func (r *ring) ask(e ringEntry) {
	tail := *r.asked // only written here
	at := tail & r.askMask
	r.entries[at], r.array[at] = e, at
	atomic.StoreUint32(r.asked, tail+1)
	r.pushed++
}

// enter is io_uring_enter(2). Where the kernel has no memory for all that was pushed, or
// is busy, what is left is told the next time.
func (r *ring) enter(wait int) error {
	flags := uintptr(0)
	if wait > 0 {
		flags = ringEnterGet
	}
	n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.pushed), uintptr(wait), flags, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("io_uring_enter", errno)
	}
	r.pushed -= int(n)
	return nil
}

func (r *ring) pop() (number int32, n int, ok bool) {
	head := *r.told // only written here
	if head == atomic.LoadUint32(r.done) {
		return 0, 0, false
	}
	c := r.completions[head&r.dones]
	atomic.StoreUint32(r.told, head+1)
	return int32(c.user), int(c.result), true
}

func (r *ring) close() {
	for _, shared := range [][]byte{r.memory, r.entriesMemory} {
		if shared != nil {
			_ = unix.Munmap(shared)
		}
	}
	_ = unix.Close(r.fd) // nothing is in it
}

// pushesAtOnce is how many reads are collected before the kernel is told of them, so that
// the device begins while the caller's goroutine still looks into the page cache.
const pushesAtOnce = 8

// openQueue opens the gather's queue; false if there is none to be had.
func (g *gather) openQueue() bool {
	s := g.store
	if g.queue != nil {
		return true
	}
	if s.options.NoUring || s.noUring.Load() {
		return false
	}
	q, err := s.newQueue(min(4, len(g.lanes)) * s.options.Reads)
	if err == nil {
		g.queue = q
		return true
	}
	passing := errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
	if !passing && !s.noUring.Swap(true) {
		s.options.Logger.Info("flash: no io_uring: goroutines wait for reads instead, which costs more processor time", "error", err.Error())
	}
	return false
}

// enqueue pushes a run.
func (g *gather) enqueue(number int32) {
	r := &g.runs[number]
	g.queue.push(r.descriptor(), r.into, r.from+r.done, number)
	if g.queued++; g.queued == pushesAtOnce {
		g.enter(0)
	}
}

// enter tells the kernel what was pushed. An error is a moment's: the ring was seen to
// work, and what is in flight cannot be abandoned.
func (g *gather) enter(wait int) {
	g.queued = 0
	err := g.queue.enter(wait)
	switch {
	case err == nil, errors.Is(err, unix.EINTR):
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EBUSY), errors.Is(err, unix.ENOMEM):
		time.Sleep(time.Millisecond)
	default:
		panic(fmt.Sprintf("flash: %v, with %d reads in flight", err, g.flying))
	}
}

// reap waits until at least one read has come, and lands those that are whole.
func (g *gather) reap() {
	g.enter(1)
	for {
		number, n, ok := g.queue.pop()
		if !ok {
			return
		}
		if g.runs[number].progress(max(0, n), unix.Errno(max(0, -n))) {
			g.enqueue(number)
			continue
		}
		g.land(number)
	}
}
