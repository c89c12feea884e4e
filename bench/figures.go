package bench

import (
	"fmt"
	"maps"
	"slices"
)

// target is a bound on a figure.
type target struct {
	atLeast bool
	bound   float64
}

// figureOf makes a figure out of a spread; a nil target makes it informative.
func figureOf(s Spread, unit string, t *target, note string) Figure {
	f := Figure{Value: s.Median, Min: s.Min, Max: s.Max, Unit: unit, Note: note}
	if t == nil {
		return f
	}
	met := s.Median <= t.bound
	f.Target = fmt.Sprintf("<= %.4g", t.bound)
	if t.atLeast {
		met = s.Median >= t.bound
		f.Target = fmt.Sprintf(">= %.4g", t.bound)
	}
	f.Met = &met
	return f
}

func atLeast(bound float64) *target { return &target{atLeast: true, bound: bound} }
func atMost(bound float64) *target  { return &target{bound: bound} }

// find returns the row with a key, nil if it did not run.
func find(rows []Row, key string) *Row {
	for i := range rows {
		if rows[i].key == key && len(rows[i].repeats) > 0 {
			return &rows[i]
		}
	}
	return nil
}

// bestWithWorkers returns the fastest row of a case with at least one worker,
// whatever its collate. Informative rows do not take part.
func bestWithWorkers(rows []Row, data string) *Row {
	return best(rows, func(r *Row) bool {
		return r.Case == data && r.Loader == "DataLoader" && r.Workers > 0 && !r.Informative
	})
}

func best(rows []Row, eligible func(*Row) bool) *Row {
	var found *Row
	for i := range rows {
		if r := &rows[i]; eligible(r) && (found == nil || r.MBPerS > found.MBPerS) {
			found = r
		}
	}
	return found
}

// rowFigures computes what follows from rows and ceilings alone. A figure whose
// rows did not run is left out.
func rowFigures(rows, ceilings []Row) map[string]Figure {
	figures := map[string]Figure{}
	raw := find(rows, caseRaw+"/stoker/uint8")
	tokens := find(rows, caseTokens+"/stoker/uint16")
	wide := find(rows, caseTokens+"/stoker/int64")
	workers := bestWithWorkers(rows, caseRaw)
	ratio := func(name string, above, below *Row, t *target, note string) {
		if above != nil && below != nil {
			s := spreadOf(ratios(above.repeats["mb_per_s"], below.repeats["mb_per_s"]))
			figures[name] = figureOf(s, "ratio", t, note+" "+below.key)
		}
	}
	ratio("raw_share_of_bare_loop", raw, find(ceilings, caseRaw+"/bare loop"), atLeast(0.85), "of")
	ratio("tokens_share_of_bare_loop", tokens, find(ceilings, caseTokens+"/bare loop"), atLeast(0.70), "of")
	ratio("raw_share_of_consumed_bare_loop", raw, find(ceilings, caseRaw+"/bare loop + consumer"), nil, "of")
	ratio("tokens_share_of_consumed_bare_loop", tokens, find(ceilings, caseTokens+"/bare loop + consumer"), nil, "of")
	ratio("raw_vs_best_workers", raw, workers, atLeast(4), "best row with workers:")
	ratio("raw_vs_handmade_ring", raw, best(rows, func(r *Row) bool { return r.Collate == "pool" }), nil, "against")
	ratio("raw_vs_zero_workers", raw, find(rows, caseRaw+"/DataLoader/default/w0/uint8"), atLeast(1.2), "against")
	ratio("raw_vs_best_zero_workers", raw, find(rows, caseRaw+"/DataLoader/best/w0/uint8"), nil, "against")
	ratio("tokens_vs_memmap", tokens, find(rows, caseTokens+"/memmap/uint16"), atLeast(4), "equal dtype uint16, against")
	ratio("tokens_vs_memmap_kept", tokens, find(rows, caseTokens+"/memmap kept/uint16"), nil, "against")
	ratio("tokens_int64_vs_memmap_int64", wide, find(rows, caseTokens+"/memmap/int64"), nil, "against")
	ratio("tokens_vs_best_workers", tokens, bestWithWorkers(rows, caseTokens), nil, "best row with workers:")
	cpuFigures(figures, raw, workers)
	return figures
}

func cpuFigures(figures map[string]Figure, raw, workers *Row) {
	if raw == nil {
		return
	}
	cpu := raw.repeats["cpu_s_per_gb"]
	figures["raw_cpu_s_per_gb"] = figureOf(spreadOf(cpu), "CPU s/GB", atMost(0.30), "daemon and trainer, without the consumer's touching")
	if workers != nil {
		figures["raw_cpu_vs_best_workers"] = figureOf(spreadOf(ratios(cpu, workers.repeats["cpu_s_per_gb"])),
			"ratio", atMost(0.25), "of the CPU of "+workers.key)
	}
}

// memoryFigure checks the daemon's memory against 64 MiB, its rings, and 16
// bytes of location a sample.
func memoryFigure(raw *Row, ringBytes, samples int64) Figure {
	bound := float64(64<<20+ringBytes+16*samples) / (1 << 20)
	return figureOf(spreadOf(raw.repeats["daemon_pss_mb"]), "MiB", atMost(bound),
		fmt.Sprintf("bound = 64 MiB + %.1f MiB of ring + 16 bytes for each of %d samples", float64(ringBytes)/(1<<20), samples))
}

func figureNames(figures map[string]Figure) []string {
	return slices.Sorted(maps.Keys(figures))
}
