package loader

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stokerio/stoker/loader/order"
	"github.com/stokerio/stoker/shm"
)

// epochOf reads a session's epoch to its end.
func (c *client) epochOf(epoch uint64) [][]int64 {
	c.t.Helper()
	var batches [][]int64
	for {
		b := c.next()
		switch {
		case b.failure != nil:
			c.t.Fatalf("epoch %d: %v", epoch, b.failure)
		case b.Epoch != epoch:
			c.t.Fatalf("entry of epoch %d, expected %d", b.Epoch, epoch)
		case b.Kind == shm.KindEndOfEpoch:
			return batches
		}
		batches = append(batches, b.index)
	}
}

// drawn is what a rank must get of an epoch from consumed on.
func drawn(t *testing.T, request shm.Open, samples, epoch, consumed int64) [][]int64 {
	t.Helper()
	spec := order.Spec{Kind: order.Kind(request.Order), Seed: request.Seed, Samples: samples}
	table, err := order.NewTables(1<<20).Acquire(t.Context(), spec, epoch)
	if err != nil {
		t.Fatal(err)
	}
	share := order.Share{
		Rank: request.Rank, WorldSize: request.WorldSize, BatchSize: request.BatchSize, DropLast: request.DropLast,
		Padded: request.Order == "torch",
	}
	var batches [][]int64
	for {
		step, more := share.Next(samples, consumed)
		if !more {
			return batches
		}
		var batch []int64
		for i := range step.Length {
			batch = append(batch, table.Permutation().At(step.Position(i, samples)))
		}
		batches, consumed = append(batches, batch), step.Consumed
	}
}

func drawnRequest(kind string, seed uint64) shm.Open {
	request := openRequest("files")
	request.Order, request.Seed = kind, seed
	return request
}

func TestSessionsGiveDrawnOrders(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir, _ := writeFiles(t, 23, func(int) int { return 10 })
	n.add("files", dir)
	for _, kind := range []string{"torch", "numpy"} {
		for _, world := range []int{1, 2, 3, 30} {
			if world > 23 && kind == "numpy" {
				continue // only torch pads
			}
			for _, dropLast := range []bool{false, true} {
				request := drawnRequest(kind, 5)
				request.WorldSize, request.Rank, request.DropLast = world, world/2, dropLast && world < 23
				c := n.openSession(request)
				for epoch := range int64(4) {
					if got, want := c.epochOf(uint64(epoch)), drawn(t, request, 23, epoch, 0); !slices.EqualFunc(got, want, slices.Equal) {
						t.Errorf("%+v: epoch %d is %v, want %v", request, epoch, got, want)
					}
				}
				_ = c.Close()
				if world > 23 {
					continue
				}
				request.Epoch, request.SamplesConsumed = 9, int64(4*world) // after the first step
				c = n.openSession(request)
				if got, want := c.epochOf(9), drawn(t, request, 23, 9, request.SamplesConsumed); !slices.EqualFunc(got, want, slices.Equal) {
					t.Errorf("%+v: the rest of epoch 9 is %v, want %v", request, got, want)
				}
				_ = c.Close()
			}
		}
	}
}

func TestAnEpochThatPadsIsContinuedByItsWorldOnly(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir, _ := writeFiles(t, 23, func(int) int { return 10 })
	n.add("files", dir)
	request := drawnRequest("torch", 5)
	request.WorldSize, request.SamplesConsumed = 3, 8
	if failure := n.greeted().failure(request); failure.Code != "invalid" {
		t.Errorf("opened after 8 samples by 3 ranks: %v", failure)
	}
	request.SamplesConsumed = 24 // the end, with one sample repeated
	c := n.openSession(request)
	if got := c.epochOf(0); len(got) != 0 {
		t.Errorf("after the end come %v", got)
	}
	if failure := c.failure(shm.Seek{Type: shm.TypeSeek, SamplesConsumed: 27}); failure.Code != "invalid" {
		t.Errorf("went beyond the end: %v", failure)
	}
}

func TestSessionsOfEqualSeedsShareTables(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir, _ := writeFiles(t, 50, func(int) int { return 10 })
	n.add("files", dir)
	for range 3 {
		n.openSession(drawnRequest("torch", 1)).next()
	}
	const table = 4 * 50
	eventually(t, "the next epoch's table is made", func() bool { return n.tables.Used() == 2*table })
}

func TestTheMemoryOfTablesIsBounded(t *testing.T) {
	dir, _ := writeFiles(t, 50, func(int) int { return 10 })
	for _, c := range []struct {
		tables   int64 // that fit
		sessions int   // that get their order
	}{{0, 0}, {1, 1}, {2, 1}} {
		t.Run(fmt.Sprintf("tables=%d", c.tables), func(t *testing.T) {
			options := testOptions(t)
			options.Session.OrderTableBytes = 4*50*c.tables + 3
			n := startNode(t, options)
			n.add("files", dir)
			if c.sessions == 0 {
				if failure := n.greeted().failure(drawnRequest("torch", 1)); failure.Code != "limit" {
					t.Errorf("failure %v", failure)
				}
				return
			}
			first := n.openSession(drawnRequest("torch", 1))
			for epoch := range uint64(3) { // with one table each is made where epochs meet
				first.epochOf(epoch)
			}
			first.next() // of epoch 3, whose end is beyond what the ring holds
			eventually(t, "all tables are in use", func() bool { return n.tables.Used() == 4*50*c.tables })
			if b := n.openSession(drawnRequest("torch", 9)).next(); b.failure == nil || b.failure.Code != "limit" {
				t.Errorf("the second session gets %+v", b)
			}
		})
	}
}

func TestDrawnOrdersThatCannotBeAreRefused(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir, _ := writeFiles(t, 5, func(int) int { return 10 })
	n.add("files", dir)
	if failure := n.greeted().failure(drawnRequest("numpy", 1<<32)); failure.Code != "invalid" {
		t.Errorf("seed 2^32: %v", failure)
	}
	c := n.openSession(drawnRequest("numpy", 1<<32-1))
	c.epochOf(0)
	if b := c.next(); b.failure == nil || b.failure.Code != "invalid" {
		t.Errorf("epoch 1 of seed 2^32-1 gives %+v", b)
	}
}
