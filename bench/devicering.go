package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// readByRing is read with one goroutine and io_uring in place of a goroutine a read.
func (d *device) readByRing(ctx context.Context, p devicePattern, seed uint64) (_ DeviceRow, err error) {
	r, err := newRing(d.o.Depth)
	if err != nil {
		return DeviceRow{}, err
	}
	buffers, free, err := mapped(int64(d.o.Depth) * p.block)
	if err != nil {
		return DeviceRow{}, errors.Join(err, r.close())
	}
	l := &ringLoop{device: d, ring: r, pattern: p, order: p.order(d.size/p.block, seed), buffers: buffers, turns: make([]int64, d.o.Depth)}
	if d.refused != "" {
		l.count = d.size / p.block
		err = evictFile(d.path)
	}
	if err == nil {
		err = l.run(ctx)
	}
	return deviceRow(p.name, p.block, d.o.Depth, l.done), errors.Join(err, r.close(), free())
}

// ringLoop is one such loop.
type ringLoop struct {
	device  *device
	ring    *ring
	pattern devicePattern
	order   func(turn int64) int64
	buffers []byte
	turns   []int64 // of each flight: whose block it reads
	count   int64   // of turns; 0: until the time is up
	next    int64
	flying  int
	done    turned
}

// run reads until the section is over, and then waits for what is under way.
func (l *ringLoop) run(ctx context.Context) (err error) {
	began := time.Now()
	defer func() { l.done.took = time.Since(began) }()
	for flight := range l.turns {
		l.begin(flight, began)
	}
	for l.flying > 0 {
		if entered := l.ring.enter(1); entered != nil {
			return entered // what is under way cannot be told of any more
		}
		for {
			flight, n, ok := l.ring.pop()
			if !ok {
				break
			}
			l.flying--
			if landed := l.land(int(flight), n); err == nil {
				err = errors.Join(landed, context.Cause(ctx))
			}
			if err == nil {
				l.begin(int(flight), began)
			}
		}
	}
	return err
}

// begin reads the next block, if there is one and time.
func (l *ringLoop) begin(flight int, began time.Time) {
	if l.count > 0 && l.next >= l.count || time.Since(began) >= l.device.o.Section {
		return
	}
	l.turns[flight] = l.next
	l.next++
	l.flying++
	l.ring.push(int(l.device.file.Fd()), l.block(flight), l.order(l.turns[flight])*l.pattern.block, uint64(flight))
}

func (l *ringLoop) block(flight int) []byte {
	return l.buffers[int64(flight)*l.pattern.block:][:l.pattern.block]
}

// land looks whether the block is whole and the right one.
func (l *ringLoop) land(flight, n int) error {
	at := l.order(l.turns[flight]) * l.pattern.block
	switch {
	case n < 0:
		return fmt.Errorf("read %q at %d: %w", l.device.path, at, unix.Errno(-n))
	case n < int(l.pattern.block):
		return fmt.Errorf("read %q at %d: %d bytes: %w", l.device.path, at, n, io.ErrUnexpectedEOF)
	}
	l.done.turns++
	l.done.bytes += l.pattern.block
	return l.device.check(l.block(flight), at)
}
