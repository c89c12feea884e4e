package sim_test

import (
	"fmt"
	"time"

	"github.com/stokerio/stoker/prefetch"
	"github.com/stokerio/stoker/prefetch/sim"
)

// A consumer that takes a sample each millisecond, from a source whose requests take 40 ms
// on average and 400 ms one time in a hundred.
func ExampleRun() {
	world := sim.DepthScenario(sim.Mixture{Common: 36 * time.Millisecond, Rare: 400 * time.Millisecond, Share: 0.01})
	world.Jobs[0].Streams[0].Limit = 20_000
	for _, decider := range []struct {
		name string
		make func(node int) sim.Decider
	}{
		{"two samples", func(int) sim.Decider { return sim.NewFixedDepth(2, 0) }},
		{"the mean", func(int) sim.Decider { return sim.NewMeanDepth(0) }},
		{"the tail", func(int) sim.Decider { return prefetch.New(prefetch.Options{}) }},
	} {
		result, err := sim.Run(world, decider.make)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("as deep as %s: the job waits for %.0f %% of its time\n", decider.name, 100*result.WorstStall())
	}
	// Output:
	// as deep as two samples: the job waits for 95 % of its time
	// as deep as the mean: the job waits for 71 % of its time
	// as deep as the tail: the job waits for 0 % of its time
}
