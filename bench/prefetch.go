package bench

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/stokerio/stoker/prefetch"
	"github.com/stokerio/stoker/prefetch/sim"
)

// PrefetchOptions says how to measure foresight. The zero value works.
type PrefetchOptions struct {
	// Quick plays each world with one seed in place of three, and plans fewer samples.
	Quick bool
	// Root is the repository, for the commit in the report. Default: as CompareOptions.
	Root string
	// Progress is told of each step. Default: nobody.
	Progress Progress
}

// PrefetchReport is what Prefetch found; its JSON form is what `--json FILE` holds.
// Worlds are those of package sim; their deciders are "stoker" (the production planner)
// and what one would do without it.
type PrefetchReport struct {
	Version int               `json:"version"`
	Quick   bool              `json:"quick"`
	Machine Machine           `json:"machine"`
	Depth   []DepthRow        `json:"depth"`
	Budget  []BudgetRow       `json:"budget"`
	Keep    []KeepRow         `json:"keep"`
	Second  []SecondRow       `json:"second_dataset"`
	Cost    []CostRow         `json:"cost"`
	Figures map[string]Figure `json:"figures"`
}

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

// Prefetch measures what foresight does and what it costs: in simulated time with the
// production code, then the planner's own time and memory. Errors: those of a world, which
// are a defect, and the cause of ctx.
func Prefetch(ctx context.Context, o PrefetchOptions) (*PrefetchReport, error) {
	compare := CompareOptions{Root: o.Root}
	compare.findPlaces()
	b := &prefetchBench{o: o, report: &PrefetchReport{
		Version: ReportVersion, Quick: o.Quick, Machine: describeMachine(ctx, compare), Figures: map[string]Figure{},
	}}
	steps := []struct {
		label string
		run   func(context.Context) error
	}{
		{"depth under four laws of latency", b.depth}, {"budget of a link", b.budget}, {"hit ratios", b.keep},
		{"a second dataset", b.second}, {"cost of planning", b.cost},
	}
	for i, step := range steps {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if o.Progress != nil {
			o.Progress(i, len(steps), step.label)
		}
		if err := step.run(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", step.label, err)
		}
	}
	if o.Progress != nil {
		o.Progress(len(steps), len(steps), "done")
	}
	return b.report, nil
}

// prefetchBench is one run of Prefetch.
type prefetchBench struct {
	o      PrefetchOptions
	report *PrefetchReport
}

func (b *prefetchBench) seeds() []uint64 {
	if b.o.Quick {
		return []uint64{1}
	}
	return []uint64{1, 2, 3}
}

// planner makes the production planner for a node of a world.
func planner(w *sim.World, hedges float64) func(int) sim.Decider {
	return func(node int) sim.Decider {
		o := prefetch.Options{Capacity: w.Nodes[node].CacheBytes, WindowBytes: 1 << 34, HedgeShare: hedges}
		for source, s := range w.Nodes[node].Sources {
			if s.Law != nil {
				o.Links[source].Rate = w.Links[s.Link].BytesPerSecond
			}
		}
		return prefetch.New(o)
	}
}

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
	for _, f := range []struct {
		name, decider, field string
		target               *target
	}{
		{"depth_stall_share", "stoker", "stall", atMost(stallGoal)},
		{"depth_waste_share", "stoker", "waste", atMost(0.02)},
		{"depth_memory_ratio", "stoker", "ratio", atMost(1.3)},
		{"depth_stall_share_no_hedges", "stoker, no hedges", "stall", nil},
		{"depth_memory_ratio_no_hedges", "stoker, no hedges", "ratio", nil},
		{"depth_stall_share_fixed_2", "torch: 2 batches", "stall", nil},
		{"depth_stall_share_mean", "mean latency", "stall", nil},
	} {
		s, law := worst(f.decider, f.field)
		b.report.Figures[f.name] = figureOf(s, "ratio", f.target, "the worst law: "+law)
	}
}

// budget plays four jobs of unequal demand on a link that is a little wider, and one that
// is narrower, than what they need together.
func (b *prefetchBench) budget(context.Context) error {
	for _, link := range []float64{1.1, 0.8} {
		var stalls, unfair, unmanaged []float64
		for i, seed := range b.seeds() {
			w := sim.BudgetScenario(link)
			w.Seed = seed
			r, err := sim.Run(w, planner(w, 0))
			if err != nil {
				return err
			}
			stalls, unfair = append(stalls, r.WorstStall()), append(unfair, r.Links[0].Unfairness)
			if i == 0 {
				b.budgetRows(link, r)
			}
			// The same planner that does not know how wide the link is.
			free, err := sim.Run(w, func(int) sim.Decider { return prefetch.New(prefetch.Options{WindowBytes: 1 << 34}) })
			if err != nil {
				return err
			}
			unmanaged = append(unmanaged, free.Links[0].Unfairness)
		}
		if link > 1 {
			b.report.Figures["budget_stall_share"] = figureOf(spreadOf(stalls), "ratio", atMost(stallGoal), "the worst of four jobs on a link of 1.1 times their demand")
			continue
		}
		b.report.Figures["budget_fairness"] = figureOf(spreadOf(unfair), "ratio", atMost(0.05), "greatest distance from the max-min rates on a link of 0.8 times the demand")
		b.report.Figures["budget_fairness_unmanaged"] = figureOf(spreadOf(unmanaged), "ratio", nil, "the same where nobody divides the link")
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
		b.report.Figures[fmt.Sprintf("keep_hit_ratio_%.0f", 100*c)] = figureOf(spreadOf([]float64{row.Stoker}), "ratio", nil, note)
	}
	b.report.Figures["keep_hit_error"] = figureOf(spreadOf([]float64{worst}), "ratio", atMost(0.01), "greatest distance of the hit ratio from the cached share c")
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
	b.report.Figures["keep_second_dataset_share"] = figureOf(
		spreadOf([]float64{1 - math.Abs(b.report.Second[first].ShareReached-1)}), "ratio", atLeast(0.99),
		"how near to its share of the cache a second dataset is after its first epoch; more than the share counts as less")
	return nil
}

// Write stores the report as JSON, whole or not at all.
func (r *PrefetchReport) Write(path string) error { return writeReport(path, r) }

// Missed names the figures that miss their targets.
func (r *PrefetchReport) Missed() []string { return missedOf(r.Figures) }

// Print writes the report for people.
func (r *PrefetchReport) Print(w io.Writer) error {
	out := &printer{w: w}
	out.machine(&r.Machine)
	out.line("%s, %s, commit %s; simulated time, but for the cost of planning", r.Machine.Go, r.Machine.Date.Format("2006-01-02 15:04 UTC"), r.Machine.Commit)
	out.line("")
	lines := [][]string{{"latency", "window by", "stalled", "wasted", "mean depth", "max", "by the least fixed depth"}}
	for _, d := range r.Depth {
		lines = append(lines, []string{d.Law, d.Decider, percent(d.StallShare), percent(d.WasteShare), number(d.MeanDepth), number(d.MaxDepth), number(d.Ratio)})
	}
	out.table(lines)
	out.line("")
	lines = [][]string{{"link", "job", "needs MB/s", "fair", "had", "stalled"}}
	for _, j := range r.Budget {
		lines = append(lines, []string{number(j.Link), fmt.Sprint(j.Job), number(j.DemandMBPS), number(j.FairMBPS), number(j.RateMBPS), percent(j.StallShare)})
	}
	out.table(lines)
	out.line("")
	lines = [][]string{{"cache", "hits: stoker", "OPT", "never evict", "SIEVE", "S3-FIFO", "LRU", "LRU, closed form"}}
	for _, k := range r.Keep {
		lines = append(lines, []string{percent(k.C), number(k.Stoker), number(k.OPT), number(k.NeverEvict), number(k.SIEVE), number(k.S3FIFO), number(k.LRU), number(k.LRUForm)})
	}
	out.table(lines)
	out.line("")
	lines = [][]string{{"two datasets, one cache", "epoch", "hits", "of its share"}}
	for _, s := range r.Second {
		lines = append(lines, []string{fmt.Sprintf("job %d", s.Job), fmt.Sprint(s.Epoch), number(s.HitRatio), number(s.ShareReached)})
	}
	out.table(lines)
	out.line("")
	lines = [][]string{{"planning", "jobs", "samples a chunk", "µs a sample", "bytes a chunk"}}
	for _, c := range r.Cost {
		lines = append(lines, []string{fmt.Sprintf("%.0e samples", float64(c.Samples)), fmt.Sprint(c.Jobs), fmt.Sprint(c.PerChunk), number(c.UsPerSample), number(c.BytesPerChunk)})
	}
	out.table(lines)
	out.line("")
	out.figures(r.Figures)
	out.missed(r.Missed())
	return out.err
}

func percent(share float64) string { return fmt.Sprintf("%.2f %%", 100*share) }
