package bench

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/stokerio/stoker/prefetch"
	"github.com/stokerio/stoker/prefetch/sim"
)

// WorldRow is one world under one decider: medians over the seeds of what is measured in
// it, by name.
type WorldRow struct {
	World    string             `json:"world"`
	Decider  string             `json:"decider"`
	Measures map[string]float64 `json:"measures"`
}

// sharedWorld is a world in which jobs share something.
type sharedWorld struct {
	name     string
	play     func(seed uint64, by sim.Deciders) (map[string]float64, error)
	deciders []namedDeciders
	figures  []measured
}

// namedDeciders decide for the nodes of a world.
type namedDeciders struct {
	name string
	by   sim.Deciders
}

// measured is a figure: what is measured under one decider of a world.
type measured struct{ figure, decider, measure string }

// stoker is the production planner with that much memory for its windows, 0 the default.
func stoker(windowBytes int64) namedDeciders {
	return namedDeciders{"stoker", sim.Planners(prefetch.Options{WindowBytes: windowBytes})}
}

// roomy has half as much memory again as windows have by default.
func roomy() namedDeciders { return namedDeciders{"stoker, 1.5 GiB", stoker(3 << 29).by} }

// fixed is a window of so many samples.
func fixed(samples int64) namedDeciders {
	return namedDeciders{fmt.Sprintf("window of %d", samples), sim.FixedDepths(samples)}
}

// meanDepth is a window as deep as the mean latency asks for.
func meanDepth() sim.Deciders {
	return func(w *sim.World, node int) sim.Decider { return sim.NewMeanDepth(w.Nodes[node].CacheBytes) }
}

const (
	// hiding is a window that hides what the worlds' sources take, with some to spare, and
	// that knows nothing of the other jobs.
	hiding = 128
	// reserved is the share of the link that is kept for the jobs' own collectives.
	reserved = 0.25
	// nearlyAll is the share of a dataset that a cache holds.
	nearlyAll = 0.99
	// smallSamples is how many samples of 100 KB a chunk of 8 MiB holds.
	smallSamples = 84
	// evenPart is how many such samples each of 32 ranks has in an even part of 1 GiB, if
	// each is a request of its own.
	evenPart = 335
)

// shares plays jobs that leave to others what is theirs.
func (b *prefetchBench) shares(ctx context.Context) error {
	return b.play(ctx, []sharedWorld{
		{
			"weights 1, 2, 4", weights, []namedDeciders{stoker(windowBytes), fixed(hiding)},
			[]measured{{"weights_error", "stoker", "error"}, {"weights_error_unmanaged", fixed(hiding).name, "error"}},
		},
		{
			"a quarter reserved", reserve, []namedDeciders{stoker(windowBytes), fixed(hiding)},
			[]measured{{"reserve_used", "stoker", "used"}, {"reserve_held", "stoker", "peak"}, {"reserve_held_unmanaged", fixed(hiding).name, "peak"}},
		},
		{
			"a cache of 99 %", cached, []namedDeciders{stoker(windowBytes), fixed(2)},
			[]measured{{"cache_99_stall_share", "stoker", "stalled"}, {"cache_99_hit_ratio", "stoker", "hits"}, {"cache_99_stall_share_fixed_2", fixed(2).name, "stalled"}},
		},
	})
}

// chunks plays datasets whose chunks hold many samples, or are large beside the memory.
func (b *prefetchBench) chunks(ctx context.Context) error {
	return b.play(ctx, []sharedWorld{
		{
			"64 a chunk, windowed", chunksIn(sim.Windowed), []namedDeciders{stoker(windowBytes), fixed(hiding)},
			[]measured{
				{"chunk_read_amplification", "stoker", "moved"}, {"chunk_stall_share", "stoker", "stalled"},
				{"chunk_read_amplification_fixed", fixed(hiding).name, "moved"},
			},
		},
		{
			"64 a chunk, shuffled", chunksIn(sim.Permuted), []namedDeciders{stoker(windowBytes), fixed(hiding)},
			[]measured{
				{"chunk_read_amplification_shuffled", "stoker", "moved"}, {"chunk_stall_share_shuffled", "stoker", "stalled"},
				{"chunk_stall_share_shuffled_fixed", fixed(hiding).name, "stalled"},
			},
		},
		{
			"32 ranks, a sample a chunk", ranks(1), []namedDeciders{stoker(0), fixed(2)},
			[]measured{{"many_ranks_stall_share", "stoker", "stalled"}, {"many_ranks_stall_share_fixed_2", fixed(2).name, "stalled"}},
		},
		{
			fmt.Sprintf("32 ranks, %d a chunk", smallSamples), ranks(smallSamples), []namedDeciders{stoker(0), roomy(), fixed(evenPart)},
			[]measured{
				{"many_ranks_stall_share_small", "stoker", "stalled"}, {"many_ranks_stall_share_small_even", fixed(evenPart).name, "stalled"},
				{"many_ranks_stall_share_small_roomy", roomy().name, "stalled"},
			},
		},
	})
}

// play plays worlds under each of their deciders.
func (b *prefetchBench) play(ctx context.Context, worlds []sharedWorld) error {
	for _, w := range worlds {
		for _, d := range w.deciders {
			values := map[string][]float64{}
			for _, seed := range b.seeds() {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				measures, err := w.play(seed, d.by)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", w.name, d.name, err)
				}
				for name, v := range measures {
					values[name] = append(values[name], v)
				}
			}
			b.note(w, d.name, values)
		}
	}
	return nil
}

// note adds the row of a world under one decider, and its figures.
func (b *prefetchBench) note(w sharedWorld, decider string, values map[string][]float64) {
	row := WorldRow{World: w.name, Decider: decider, Measures: map[string]float64{}}
	for name, v := range values {
		row.Measures[name] = spreadOf(v).Median
	}
	b.report.Worlds = append(b.report.Worlds, row)
	for _, f := range w.figures {
		if f.decider == decider {
			b.figure(f.figure, spreadOf(values[f.measure]), "")
		}
	}
}

// text shows what was measured, sorted by name.
func (r *WorldRow) text() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(r.Measures)) {
		parts = append(parts, name+" "+number(r.Measures[name]))
	}
	return strings.Join(parts, "  ")
}

func weights(seed uint64, by sim.Deciders) (map[string]float64, error) {
	r, err := sim.Weights(seed, by)
	measures := map[string]float64{"error": r.Error}
	for i := range r.Rates {
		measures[fmt.Sprintf("job_%d_mb_per_s", i+1)] = r.Rates[i] / 1e6
	}
	return measures, err
}

func reserve(seed uint64, by sim.Deciders) (map[string]float64, error) {
	r, err := sim.Reserve(seed, reserved, by)
	return map[string]float64{"used": r.Used, "peak": r.Peak, "stalled": r.StallShare}, err
}

func cached(seed uint64, by sim.Deciders) (map[string]float64, error) {
	r, err := sim.Cached(seed, nearlyAll, by)
	return map[string]float64{"hits": r.HitRatio, "stalled": r.StallShare}, err
}

func chunksIn(kind sim.OrderKind) func(uint64, sim.Deciders) (map[string]float64, error) {
	return func(seed uint64, by sim.Deciders) (map[string]float64, error) {
		r, err := sim.Chunks(seed, kind, by)
		return map[string]float64{"moved": r.Amplification, "stalled": r.StallShare}, err
	}
}

func ranks(perChunk int64) func(uint64, sim.Deciders) (map[string]float64, error) {
	return func(seed uint64, by sim.Deciders) (map[string]float64, error) {
		r, err := sim.Ranks(seed, perChunk, by)
		return map[string]float64{"moved": r.Amplification, "stalled": r.StallShare, "windows_mb": float64(r.MaxWindow) / 1e6}, err
	}
}
