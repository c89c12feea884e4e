package order_test

import (
	"fmt"

	"github.com/stokerio/stoker/loader/order"
)

// Two ranks read 10 samples in batches of 3; after the first step the job goes on with
// one rank and batches of 2.
func Example() {
	o, err := order.New(order.Spec{Kind: order.Global, Seed: 7, Samples: 10})
	if err != nil {
		panic(err)
	}
	epoch := o.Epoch(0)
	consumed := int64(0)
	read := func(share order.Share) bool {
		step, ok := share.Next(o.Len(), consumed)
		for i := range step.Length {
			position := step.Start + i
			if sample := epoch.At(position); epoch.PositionOf(sample) != position {
				panic("At and PositionOf are inverse")
			}
		}
		if ok {
			fmt.Printf("rank %d of %d reads positions [%d, %d)\n", share.Rank, share.WorldSize, step.Start, step.Start+step.Length)
			if share.Rank == share.WorldSize-1 {
				consumed = step.Consumed
			}
		}
		return ok
	}
	read(order.Share{Rank: 0, WorldSize: 2, BatchSize: 3})
	read(order.Share{Rank: 1, WorldSize: 2, BatchSize: 3})
	for read(order.Share{Rank: 0, WorldSize: 1, BatchSize: 2}) {
	}
	// Output:
	// rank 0 of 2 reads positions [0, 3)
	// rank 1 of 2 reads positions [3, 6)
	// rank 0 of 1 reads positions [6, 8)
	// rank 0 of 1 reads positions [8, 10)
}
