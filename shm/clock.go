package shm

import (
	"time"

	"golang.org/x/sys/unix"
)

// Clock gives CLOCK_MONOTONIC in nanoseconds, the clock that Python calls
// time.monotonic_ns, without a system call. Go's monotonic reading is the same
// clock with a hidden origin; a Clock finds the origin once.
type Clock struct {
	start  time.Time
	origin uint64
}

// NewClock finds the origin.
func NewClock() Clock {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("shm: CLOCK_MONOTONIC is not readable: " + err.Error())
	}
	return Clock{start: time.Now(), origin: uint64(ts.Nano())}
}

// Now returns nanoseconds of CLOCK_MONOTONIC.
func (c Clock) Now() uint64 { return c.origin + uint64(time.Since(c.start)) }
