package bench

import (
	"errors"
	"math/bits"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is io_uring(7) as a bare loop needs it: reads, for one goroutine. It needs Linux 5.6.
type ring struct {
	fd                 int
	shared, entryBytes []byte
	asked, told, done  *uint32 // tail of what is asked; head and tail of what is done
	askMask, doneMask  uint32
	array              []uint32
	entries            []ringEntry
	completions        []ringCompletion
	pushed             int // that the kernel was not told of
}

// Of include/uapi/linux/io_uring.h: io_uring_sqe, io_uring_cqe, io_uring_params.
type ringEntry struct {
	op, flags       uint8
	priority        uint16
	fd              int32
	offset, address uint64
	length, how     uint32
	user            uint64
	_               [3]uint64
}

type ringCompletion struct {
	user   uint64
	result int32
	flags  uint32
}

type ringParameters struct {
	entries, completionEntries, flags, cpu, idle, features, queue uint32
	_                                                             [3]uint32
	askHead, askTail, askMask, askEntries, _, _, array, _         uint32
	_                                                             uint64
	doneHead, doneTail, doneMask, _, _, completions, _, _         uint32
	_                                                             uint64
}

const (
	ringRead          = 22         // IORING_OP_READ
	ringWait          = 1          // IORING_ENTER_GETEVENTS
	ringOneMapping    = 1          // IORING_FEAT_SINGLE_MMAP
	ringEntriesOffset = 0x10000000 // IORING_OFF_SQES
)

// newRing makes a ring for so many reads. Errors: the kernel's, of which a container's
// filter of system calls is the most frequent reason.
func newRing(depth int) (_ *ring, err error) {
	var p ringParameters
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(1)<<bits.Len(uint(max(1, depth-1))), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	r := &ring{fd: int(fd)}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if p.features&ringOneMapping == 0 {
		return nil, errors.New("io_uring: the kernel is too old: Linux 5.6 is needed")
	}
	size := max(int(p.array+4*p.entries), int(p.completions)+int(p.completionEntries)*int(unsafe.Sizeof(ringCompletion{})))
	if r.shared, err = unix.Mmap(r.fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	if r.entryBytes, err = unix.Mmap(r.fd, ringEntriesOffset, int(p.entries)*int(unsafe.Sizeof(ringEntry{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	at := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.shared[offset])) }
	r.asked, r.told, r.done = at(p.askTail), at(p.doneHead), at(p.doneTail)
	r.askMask, r.doneMask = *at(p.askMask), *at(p.doneMask)
	r.array = unsafe.Slice(at(p.array), p.entries)
	r.entries = unsafe.Slice((*ringEntry)(unsafe.Pointer(&r.entryBytes[0])), p.entries)
	r.completions = unsafe.Slice((*ringCompletion)(unsafe.Pointer(&r.shared[p.completions])), p.completionEntries)
	return r, nil
}

// push adds a read that fills p, which is the kernel's until the read of that number is
// popped.
func (r *ring) push(fd int, p []byte, off int64, number uint64) {
	tail := *r.asked // only written here
	at := tail & r.askMask
	r.entries[at] = ringEntry{op: ringRead, fd: int32(fd), offset: uint64(off), address: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p)))), length: uint32(len(p)), user: number}
	r.array[at] = at
	atomic.StoreUint32(r.asked, tail+1)
	r.pushed++
}

// enter tells the kernel of what was pushed, and waits until so many reads can be popped.
func (r *ring) enter(wait int) error {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.pushed), uintptr(wait), ringWait, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return os.NewSyscallError("io_uring_enter", errno)
		default:
			r.pushed -= int(n)
			return nil
		}
	}
}

// pop takes a read that is done: its number, and what pread(2) would have returned.
func (r *ring) pop() (number uint64, n int, ok bool) {
	head := *r.told // only written here
	if head == atomic.LoadUint32(r.done) {
		return 0, 0, false
	}
	c := r.completions[head&r.doneMask]
	atomic.StoreUint32(r.told, head+1)
	return c.user, int(c.result), true
}

// close frees the ring; no read is under way.
func (r *ring) close() (err error) {
	for _, p := range [][]byte{r.shared, r.entryBytes} {
		if p != nil {
			err = errors.Join(err, unix.Munmap(p))
		}
	}
	return errors.Join(err, unix.Close(r.fd))
}
