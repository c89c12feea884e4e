package bench

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/loader/order"
)

// planCall is a kind of call of the planner.
type planCall uint8

const (
	callNext planCall = iota
	callWake
	callIsReady
	callDone
	callConsumed
	callDrop
	planCalls
)

var planCallNames = [planCalls]string{"Next", "Wake", "IsReady", "Done", "Consumed", "Drop"}

// callClock times calls one by one by the CPU time of the thread that makes them. A nil
// clock does nothing. What lies between two calls counts with the second: it is a few
// instructions, and reading the clock.
type callClock struct {
	last int64 // ns
	took [planCalls][]int64
}

func (c *callClock) begin() {
	if c != nil {
		c.last = threadCPU()
	}
}

// note ends a call.
func (c *callClock) note(call planCall) {
	if c != nil {
		now := threadCPU()
		c.took[call] = append(c.took[call], now-c.last)
		c.last = threadCPU() // growing the slice is not the planner's
	}
}

// threadCPU is the CPU time of the calling thread, ns.
func threadCPU() int64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return t.Nano()
}

// timed takes batches and says how long each kind of call took.
func (c *costRun) timed(ctx context.Context, batches int64) ([]CallRow, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	runtime.GC() // of what was made before, not while we look
	c.clock = new(callClock)
	if err := c.batches(ctx, batches); err != nil {
		return nil, err
	}
	var rows []CallRow
	for call, took := range c.clock.took {
		if len(took) > 0 {
			rows = append(rows, callRow(planCallNames[call], took))
		}
	}
	return rows, nil
}

// callRow sorts took.
func callRow(name string, took []int64) CallRow {
	slices.Sort(took)
	sum := 0.0
	for _, ns := range took {
		sum += float64(ns)
	}
	n := len(took)
	us := func(ns int64) float64 { return float64(ns) / float64(time.Microsecond) }
	return CallRow{
		Call: name, Calls: int64(n), MeanUs: sum / float64(n) / 1e3,
		P9999Us: us(took[min(n-1, int(0.9999*float64(n)))]), WorstUs: us(took[n-1]),
	}
}

const (
	// tableOrders is how many streams of equal seeds tableBytes has.
	tableOrders = 2
	// tableSamples is how many samples the larger of its datasets has: what else happens on
	// the heap is less than a hundredth of a byte a sample.
	tableSamples = 10 << 20
)

// tableBytes measures what torch's order takes a sample, for two streams of equal seeds
// that both hold the tables of this epoch and the next, as they do at an epoch's end. It is
// what the memory grows by with the number of samples, in hundredths of bytes.
func tableBytes(ctx context.Context, samples int64) (float64, error) {
	const part = 8 // whole pages in both, if samples are
	small, err := tableHeap(ctx, samples/part)
	if err != nil {
		return 0, err
	}
	large, err := tableHeap(ctx, samples)
	if err != nil {
		return 0, err
	}
	return math.Round(100*float64(large-small)/float64(samples-samples/part)) / 100, nil
}

// tableHeap is what the tables of so many samples take on the heap, bytes.
func tableHeap(ctx context.Context, samples int64) (bytes int64, err error) {
	before := heapBytes()
	tables := order.NewTables(math.MaxInt64)
	var held []*order.Table
	defer func() {
		for _, t := range held {
			t.Release()
		}
	}()
	for range tableOrders {
		for epoch := range int64(2) {
			t, err := tables.Acquire(ctx, order.Spec{Kind: order.Torch, Seed: 1, Samples: samples}, epoch)
			if err != nil {
				return 0, fmt.Errorf("order of %d samples: %w", samples, err)
			}
			held = append(held, t)
		}
	}
	bytes = heapBytes() - before
	runtime.KeepAlive(held)
	return bytes, nil
}
