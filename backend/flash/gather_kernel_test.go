package flash

import (
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// faultyKernel makes the reads of gathers, by calls and by queues, and some of them badly.
type faultyKernel struct {
	cold  bool          // the page cache never has anything
	rough bool          // reads are cut and interrupted, calls are busy
	fail  syscall.Errno // of every read that has to be waited for; 0: none fails
	has   int           // how much of a read the page cache has at most, bytes; 0: all
	room  int           // of queues; 0: as they are

	waited, failed, cut, queues atomic.Int64
	queued, most                atomic.Int64 // reads that are in queues, and the most there were
	hook                        func()       // called in each read by a call that has to be waited for
	seed                        atomic.Uint64
}

// chance is true once in n times, in an order that is always the same.
func (k *faultyKernel) chance(n uint64) bool {
	x := k.seed.Add(1) * 0x9E3779B97F4A7C15 // splitmix64
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return (x^x>>31)%n == 0
}

// use puts the kernel in the place of the real one.
func (k *faultyKernel) use(s *Store) { s.preadv, s.newQueue = k.preadv, k.newQueue }

// cutOff is how many bytes a read is said to have given that gave n.
func (k *faultyKernel) cutOff(n int) int {
	if half := n / 2 &^ 511; k.rough && half > 0 && k.chance(2) {
		k.cut.Add(1)
		return half
	}
	return n
}

// wantSome panics if nothing is to be read: a run was not planned as it is made.
func wantSome(into []unix.Iovec) {
	if len(into) == 0 {
		panic("a read of nothing")
	}
}

// trouble is what befalls a read, 0 if it goes well.
func (k *faultyKernel) trouble() syscall.Errno {
	switch {
	case k.fail != 0:
		k.failed.Add(1)
		return k.fail
	case k.rough && k.chance(5):
		return unix.EINTR
	case k.rough && k.chance(5):
		return unix.EAGAIN
	}
	return 0
}

func (k *faultyKernel) preadv(fd int, into []unix.Iovec, off int64, flags int) (int, syscall.Errno) {
	wantSome(into)
	if flags&unix.RWF_NOWAIT != 0 {
		if k.cold {
			return -1, unix.EAGAIN
		}
		n, errno := preadv(fd, into, off, flags)
		if k.has > 0 {
			n = min(n, k.has)
		}
		return k.cutOff(n), errno
	}
	k.waited.Add(1)
	if k.hook != nil {
		k.hook()
	}
	if errno := k.trouble(); errno != 0 {
		return -1, errno
	}
	n, errno := preadv(fd, into, off, flags)
	return k.cutOff(n), errno
}

func (k *faultyKernel) newQueue(room int) (queue, error) {
	k.queues.Add(1)
	q, err := newRing(room)
	return &faultyQueue{q, k}, err
}

// faultyQueue is a ring of a faulty kernel.
type faultyQueue struct {
	queue
	kernel *faultyKernel
}

func (q *faultyQueue) push(fd int, into []unix.Iovec, off int64, number int32) {
	wantSome(into)
	q.kernel.waited.Add(1)
	now := q.kernel.queued.Add(1)
	q.kernel.most.Store(max(now, q.kernel.most.Load()))
	q.queue.push(fd, into, off, number)
}

func (q *faultyQueue) room() int {
	if q.kernel.room > 0 {
		return q.kernel.room
	}
	return q.queue.room()
}

func (q *faultyQueue) enter(wait int) error {
	for _, errno := range []syscall.Errno{unix.EINTR, unix.EAGAIN, unix.EBUSY} {
		if q.kernel.rough && q.kernel.chance(20) {
			return errno
		}
	}
	return q.queue.enter(wait)
}

func (q *faultyQueue) pop() (number int32, n int, ok bool) {
	number, n, ok = q.queue.pop()
	if ok {
		q.kernel.queued.Add(-1)
	}
	if ok && n > 0 {
		switch errno := q.kernel.trouble(); {
		case errno != 0:
			n = -int(errno)
		case q.kernel.rough && q.kernel.chance(10):
			n = -int(unix.ECANCELED)
		default:
			n = q.kernel.cutOff(n)
		}
	}
	return number, n, ok
}
