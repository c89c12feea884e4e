package bench

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// turns are how often several goroutines together do the same.
type turns struct {
	flights int           // goroutines
	count   int64         // of turns; 0: until the time is up
	within  time.Duration // no turn begins later; 0: that does not end them
}

// turned is what came of turns.
type turned struct {
	turns, bytes int64
	took         time.Duration
}

// perSecond is bytes/s.
func (t turned) perSecond() float64 { return float64(t.bytes) / max(1e-9, t.took.Seconds()) }

// run calls do with the number of each turn and of the goroutine whose turn it is. do
// returns the bytes that it moved. Errors: the first of do, and the cause of ctx.
func (t turns) run(ctx context.Context, do func(flight int, turn int64) (int64, error)) (turned, error) {
	var next, done, bytes atomic.Int64
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for flight := range t.flights {
		group.Go(func() error {
			for ctx.Err() == nil {
				turn := next.Add(1) - 1
				if t.count > 0 && turn >= t.count || t.within > 0 && time.Since(began) >= t.within {
					return nil
				}
				n, err := do(flight, turn)
				if err != nil {
					return err
				}
				bytes.Add(n)
				done.Add(1)
			}
			return context.Cause(ctx)
		})
	}
	err := group.Wait()
	return turned{done.Load(), bytes.Load(), time.Since(began)}, err
}
