package bench

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/stokerio/stoker/backend/flash/flashtest"
)

// FlashChurnRow is what many simulated hours of arrivals at a nearly full device leave of
// its room.
type FlashChurnRow struct {
	Mix      string    `json:"mix"`
	Hours    int       `json:"hours"`
	Arrivals int64     `json:"arrivals"`
	Refused  int64     `json:"refused"`
	Lost     []float64 `json:"lost"` // at the end of each hour: room that neither holds chunks nor takes what comes next
	End      float64   `json:"lost_at_the_end"`
	Worst    float64   `json:"lost_at_worst"`
}

// flashMixes are the mixes of arrivals.
var flashMixes = []struct {
	name string
	mix  flashtest.Mix
}{
	{"chunks of 8 MiB", flashtest.Fixed},
	{"images, 110 kB in the mean", flashtest.Images},
	{"shards, and their tails", flashtest.Shards},
	{"images, shards, images", flashtest.Shifting},
}

func (b *flashBench) churnParts() int { return 1 }

// churn simulates a day with each mix: as many at once as there are processors, as nothing
// in them depends on time.
func (b *flashBench) churn(ctx context.Context) error {
	b.part("a day of arrivals")
	b.report.Churn = make([]FlashChurnRow, len(flashMixes))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, m := range flashMixes {
		group.Go(func() error {
			r, err := flashtest.Churn(ctx, flashtest.ChurnOptions{Mix: m.mix, Hours: b.o.sizes.churnHours, LimitBytes: b.o.sizes.churnBytes, Seed: 1})
			if err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			b.report.Churn[i] = churnRow(m.name, r)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	worst := slices.MaxFunc(b.report.Churn, func(a, b FlashChurnRow) int { return cmp.Compare(a.End, b.End) })
	b.figure("fragmentation_lost_share", only(worst.End), worst.Mix)
	return nil
}

func churnRow(mix string, r *flashtest.ChurnResult) FlashChurnRow {
	row := FlashChurnRow{Mix: mix, Hours: len(r.Hours), Arrivals: r.Arrivals, Refused: r.Refused, End: r.Lost()}
	for i := range r.Hours {
		row.Lost = append(row.Lost, r.Hours[i].Lost())
	}
	row.Worst = slices.Max(row.Lost)
	return row
}
