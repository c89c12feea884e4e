package bench

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/stokerio/stoker/prefetch/sim"
)

// DepthRow is one decider under one law of latency: medians over the seeds.
type DepthRow struct {
	Law        string  `json:"law"`
	Decider    string  `json:"decider"`
	StallShare float64 `json:"stall_share"`
	WasteShare float64 `json:"waste_share"`
	MeanDepth  float64 `json:"mean_depth"` // samples held or under way
	MaxDepth   float64 `json:"max_depth"`
	Ratio      float64 `json:"memory_ratio"` // MeanDepth by the least fixed depth that stalls at most 0.01

	spread map[string]Spread
}

// BudgetRow is one job on a link that all share.
type BudgetRow struct {
	Link       float64 `json:"link"` // by the sum of the demands
	Job        int     `json:"job"`
	DemandMBPS float64 `json:"demand_mb_per_s"`
	FairMBPS   float64 `json:"fair_mb_per_s"` // by max-min fairness
	RateMBPS   float64 `json:"rate_mb_per_s"`
	StallShare float64 `json:"stall_share"`
}

// KeepRow is the hit ratio of the last epoch with a cache of the share C of the dataset.
type KeepRow struct {
	C          float64 `json:"c"`
	Stoker     float64 `json:"stoker"`
	OPT        float64 `json:"opt"`
	NeverEvict float64 `json:"never_evict"`
	SIEVE      float64 `json:"sieve"`
	S3FIFO     float64 `json:"s3_fifo"`
	LRU        float64 `json:"lru"`
	LRUForm    float64 `json:"lru_closed_form"` // c + (1-c) ln (1-c)
}

// SecondRow is an epoch of one of two jobs whose datasets share a cache.
type SecondRow struct {
	Job          int     `json:"job"`
	Epoch        int64   `json:"epoch"`
	HitRatio     float64 `json:"hit_ratio"`
	ShareReached float64 `json:"share_reached"` // bytes in the cache at its end by the even share
}

// hedged is the share of fetches that the deciders of the depth table may begin twice.
const hedged = 0.01

// stallGoal is the stall share that every window is to stay below.
const stallGoal = 0.01

// depth plays one job under each law of latency.
func (b *prefetchBench) depth(ctx context.Context) error {
	deciders := []string{"stoker", "stoker, no hedges", "torch: 2 batches", "mean latency"}
	for _, law := range sim.DepthLaws() {
		values := map[string]map[string][]float64{}
		for _, seed := range b.seeds() {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := depthOf(law.Law, seed, values); err != nil {
				return fmt.Errorf("%s: %w", law.Name, err)
			}
		}
		for _, name := range append(deciders, "least fixed depth, in hindsight") {
			row := DepthRow{Law: law.Name, Decider: name, spread: map[string]Spread{}}
			for field, to := range map[string]*float64{
				"stall": &row.StallShare, "waste": &row.WasteShare, "mean": &row.MeanDepth, "max": &row.MaxDepth, "ratio": &row.Ratio,
			} {
				row.spread[field] = spreadOf(values[name][field])
				*to = row.spread[field].Median
			}
			b.report.Depth = append(b.report.Depth, row)
		}
	}
	b.depthFigures()
	return nil
}

// depthOf plays one law with one seed under all deciders.
func depthOf(law sim.Law, seed uint64, values map[string]map[string][]float64) error {
	w := sim.DepthScenario(law)
	w.Seed = seed
	least, best, ok, err := sim.LeastDepth(w, stallGoal, 8192)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("a depth of %d stalls more than %g", least, stallGoal)
	}
	note := func(name string, r *sim.Result) {
		s := &r.Jobs[0].Streams[0]
		if values[name] == nil {
			values[name] = map[string][]float64{}
		}
		for field, v := range map[string]float64{
			"stall": s.StallShare(), "waste": s.WasteShare(), "mean": s.MeanDepth, "max": float64(s.MaxDepth), "ratio": s.MeanDepth / float64(least),
		} {
			values[name][field] = append(values[name][field], v)
		}
	}
	note("least fixed depth, in hindsight", best)
	for name, decide := range map[string]func(int) sim.Decider{
		"stoker": planner(w, hedged), "stoker, no hedges": planner(w, 0),
		// A batch is one sample in this world; torch's default is two batches a worker.
		"torch: 2 batches": func(int) sim.Decider { return sim.NewFixedDepth(2, 0) },
		"mean latency":     func(int) sim.Decider { return sim.NewMeanDepth(0) },
	} {
		r, err := sim.Run(w, decide)
		if err != nil {
			return err
		}
		note(name, r)
	}
	return nil
}

// depthFigures are those of the worst law.
func (b *prefetchBench) depthFigures() {
	worst := func(decider, field string) (s Spread, law string) {
		for _, row := range b.report.Depth {
			if v := row.spread[field]; row.Decider == decider && (law == "" || v.Median > s.Median) {
				s, law = v, row.Law
			}
		}
		return s, law
	}
	for _, f := range []struct{ name, decider, field string }{
		{"depth_stall_share", "stoker", "stall"},
		{"depth_waste_share", "stoker", "waste"},
		{"depth_memory_ratio", "stoker", "ratio"},
		{"depth_stall_share_no_hedges", "stoker, no hedges", "stall"},
		{"depth_memory_ratio_no_hedges", "stoker, no hedges", "ratio"},
		{"depth_stall_share_fixed_2", "torch: 2 batches", "stall"},
		{"depth_stall_share_mean", "mean latency", "stall"},
	} {
		s, law := worst(f.decider, f.field)
		b.figure(f.name, s, law)
	}
}

// budget plays four jobs of unequal demand on a link that is a little wider, and one that
// is narrower, than what they need together.
func (b *prefetchBench) budget(context.Context) error {
	for _, link := range []float64{1.1, 0.8} {
		var stalls []float64
		unfair := map[string][]float64{}
		for i, seed := range b.seeds() {
			w := sim.BudgetScenario(link)
			w.Seed = seed
			for name, decide := range map[string]func(int) sim.Decider{
				"budget_fairness": planner(w, 0), "budget_fairness_unmanaged": meanDepth().Of(w), "budget_fairness_fixed": fixed(hiding).by.Of(w),
			} {
				r, err := sim.Run(w, decide)
				if err != nil {
					return err
				}
				unfair[name] = append(unfair[name], r.Links[0].Unfairness)
				if name != "budget_fairness" {
					continue
				}
				stalls = append(stalls, r.WorstStall())
				if i == 0 {
					b.budgetRows(link, r)
				}
			}
		}
		if link > 1 {
			b.figure("budget_stall_share", spreadOf(stalls), "")
			continue
		}
		for name, values := range unfair {
			b.figure(name, spreadOf(values), "")
		}
	}
	return nil
}

func (b *prefetchBench) budgetRows(link float64, r *sim.Result) {
	for i := range r.Jobs {
		j := &r.Jobs[i]
		b.report.Budget = append(b.report.Budget, BudgetRow{
			Link: link, Job: i + 1, DemandMBPS: j.Demand / 1e6, FairMBPS: j.FairRate / 1e6, RateMBPS: j.Rate / 1e6, StallShare: j.StallShare(),
		})
	}
}

// keep plays one job with caches of several sizes.
func (b *prefetchBench) keep(ctx context.Context) error {
	worst := 0.0
	for _, c := range []float64{0.25, 0.5, 0.75, 0.9} {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		w := sim.KeepScenario(c)
		r, err := sim.Run(w, planner(w, 0))
		if err != nil {
			return err
		}
		epochs := r.Jobs[0].Streams[0].Epochs
		row := KeepRow{C: c, Stoker: epochs[len(epochs)-1].HitRatio(), LRUForm: c + (1-c)*math.Log(1-c)}
		cacheRatios(w, c, &row)
		b.report.Keep = append(b.report.Keep, row)
		worst = max(worst, math.Abs(row.Stoker-c))
		note := fmt.Sprintf("OPT %.3f, never evict %.3f, SIEVE %.3f, S3-FIFO %.3f, LRU %.3f", row.OPT, row.NeverEvict, row.SIEVE, row.S3FIFO, row.LRU)
		b.figure(fmt.Sprintf("keep_hit_ratio_%.0f", 100*c), only(row.Stoker), note)
	}
	b.figure("keep_hit_error", only(worst), "")
	return nil
}

// cacheRatios runs the same epochs through the baselines' caches.
func cacheRatios(w *sim.World, c float64, row *KeepRow) {
	order, samples := w.Jobs[0].Streams[0].Order, w.Datasets[0].Layout.Samples()
	var items []int64
	for epoch := range w.Jobs[0].Streams[0].Epochs {
		items = order.At(epoch, 0, samples, items)
	}
	sequence := make([]sim.Access, len(items))
	for i, item := range items {
		sequence[i] = sim.Access{Item: item, Bytes: 1}
	}
	capacity := int64(c * float64(samples))
	last := len(items) - int(samples)
	row.OPT = sim.HitRatio(sim.NewOPT(capacity, sequence), items, last)
	row.NeverEvict = sim.HitRatio(sim.NewNeverEvict(capacity), items, last)
	row.SIEVE = sim.HitRatio(sim.NewSIEVE(capacity), items, last)
	row.S3FIFO = sim.HitRatio(sim.NewS3FIFO(capacity), items, last)
	row.LRU = sim.HitRatio(sim.NewLRU(capacity), items, last)
}

// second lets a second dataset arrive at a full cache.
func (b *prefetchBench) second(context.Context) error {
	w := sim.SecondDatasetScenario()
	r, err := sim.Run(w, planner(w, 0))
	if err != nil {
		return err
	}
	even := float64(w.Nodes[0].CacheBytes) / float64(len(w.Jobs))
	for i := range r.Jobs {
		for _, e := range r.Jobs[i].Streams[0].Epochs {
			b.report.Second = append(b.report.Second, SecondRow{Job: i + 1, Epoch: e.Epoch, HitRatio: e.HitRatio(), ShareReached: float64(e.ResidentBytes) / even})
		}
	}
	first := slices.IndexFunc(b.report.Second, func(row SecondRow) bool { return row.Job == 2 })
	b.figure("keep_second_dataset_share", only(1-math.Abs(b.report.Second[first].ShareReached-1)), "")
	return nil
}
