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
	if t.atLeast {
		met = s.Median >= t.bound
	}
	f.Met, f.Target = &met, t.text()
	return f
}

// text is the target as it stands beside a figure, "" for none.
func (t *target) text() string {
	switch {
	case t == nil:
		return ""
	case t.atLeast:
		return fmt.Sprintf(">= %.4g", t.bound)
	}
	return fmt.Sprintf("<= %.4g", t.bound)
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

// bestWithWorkers returns a loader's fastest row of a case with at least one worker,
// whatever its collate. Informative rows do not take part.
func bestWithWorkers(rows []Row, data, loader string) *Row {
	return best(rows, func(r *Row) bool {
		return r.Case == data && r.Loader == loader && r.Workers > 0 && !r.Informative
	})
}

// bestOf returns a loader's fastest row of a case, with workers or without.
func bestOf(rows []Row, data, loader string) *Row {
	return best(rows, func(r *Row) bool { return r.Case == data && r.Loader == loader && !r.Informative })
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
	f := figuresOfRows{rows: rows, ceilings: ceilings, figures: map[string]Figure{}}
	f.raw()
	f.tokens()
	f.tar()
	f.tarSmall()
	return f.figures
}

// figuresOfRows collects figures case by case.
type figuresOfRows struct {
	rows, ceilings []Row
	figures        map[string]Figure
}

// ratio adds how many times as fast one row is as another, if both ran.
func (f figuresOfRows) ratio(name string, above, below *Row, t *target, note string) {
	if above != nil && below != nil {
		s := spreadOf(ratios(above.repeats["mb_per_s"], below.repeats["mb_per_s"]))
		f.figures[name] = figureOf(s, "ratio", t, note+" "+below.key)
	}
}

// shares adds how close a row comes to the bare loops of its case.
func (f figuresOfRows) shares(prefix string, row *Row, t *target) {
	if row == nil {
		return
	}
	f.ratio(prefix+"_share_of_bare_loop", row, find(f.ceilings, row.Case+"/bare loop"), t, "of")
	f.ratio(prefix+"_share_of_consumed_bare_loop", row, find(f.ceilings, row.Case+"/bare loop + consumer"), nil, "of")
}

func (f figuresOfRows) raw() {
	raw, workers := find(f.rows, caseRaw+"/stoker/uint8"), bestWithWorkers(f.rows, caseRaw, loaderDataLoader)
	f.shares("raw", raw, atLeast(0.85))
	f.ratio("raw_vs_best_workers", raw, workers, atLeast(4), "best row with workers:")
	f.ratio("raw_vs_handmade_ring", raw, best(f.rows, func(r *Row) bool { return r.Collate == "pool" }), nil, "against")
	f.ratio("raw_vs_zero_workers", raw, find(f.rows, caseRaw+"/DataLoader/default/w0/uint8"), atLeast(1.2), "against")
	f.ratio("raw_vs_best_zero_workers", raw, find(f.rows, caseRaw+"/DataLoader/best/w0/uint8"), nil, "against")
	f.cpu("raw", raw, atMost(0.30))
	if raw != nil && workers != nil {
		f.figures["raw_cpu_vs_best_workers"] = figureOf(spreadOf(ratios(raw.repeats["cpu_s_per_gb"], workers.repeats["cpu_s_per_gb"])),
			"ratio", atMost(0.25), "of the CPU of "+workers.key)
	}
}

func (f figuresOfRows) tokens() {
	tokens, wide := find(f.rows, caseTokens+"/stoker/uint16"), find(f.rows, caseTokens+"/stoker/int64")
	f.shares("tokens", tokens, atLeast(0.70))
	f.ratio("tokens_vs_memmap", tokens, find(f.rows, caseTokens+"/memmap/uint16"), atLeast(4), "equal dtype uint16, against")
	f.ratio("tokens_vs_memmap_kept", tokens, find(f.rows, caseTokens+"/memmap kept/uint16"), nil, "against")
	f.ratio("tokens_int64_vs_memmap_int64", wide, find(f.rows, caseTokens+"/memmap/int64"), nil, "against")
	f.ratio("tokens_vs_best_workers", tokens, bestWithWorkers(f.rows, caseTokens, loaderDataLoader), nil, "best row with workers:")
}

func (f figuresOfRows) tar() {
	tar := find(f.rows, caseTar+"/stoker/uint8")
	f.shares("tar", tar, atLeast(0.85))
	f.tarPeers("tar", tar, caseTar, atLeast(4))
	f.cpu("tar", tar, atMost(0.30))
}

func (f figuresOfRows) tarSmall() {
	small := find(f.rows, caseTarSmall+"/stoker/uint8")
	f.shares("tar_4k", small, atLeast(0.6))
	f.tarPeers("tar_4k", small, caseTarSmall, nil)
	f.cpu("tar_4k", small, nil)
}

// tarPeers compares with the best of what reads tar shards in Python: with workers,
// as training scripts do, and whatever the number of workers.
func (f figuresOfRows) tarPeers(prefix string, row *Row, data string, t *target) {
	f.ratio(prefix+"_vs_tarfile_workers", row, bestWithWorkers(f.rows, data, loaderTarfile), t, "best row with workers:")
	f.ratio(prefix+"_vs_tarfile", row, bestOf(f.rows, data, loaderTarfile), nil, "best row:")
	f.ratio(prefix+"_vs_webdataset", row, bestWithWorkers(f.rows, data, loaderWebDataset), t, "best row with workers:")
	f.ratio(prefix+"_vs_webdataset_any", row, bestOf(f.rows, data, loaderWebDataset), nil, "best row:")
}

func (f figuresOfRows) cpu(prefix string, row *Row, t *target) {
	if row != nil {
		f.figures[prefix+"_cpu_s_per_gb"] = figureOf(spreadOf(row.repeats["cpu_s_per_gb"]), "CPU s/GB", t,
			"daemon and trainer, without the consumer's touching")
	}
}

// memoryFigures adds the daemon's memory while it serves raw files and small members.
func (c *comparison) memoryFigures() {
	for name, data := range map[string]string{"daemon_pss_mb": caseRaw, "tar_4k_daemon_pss_mb": caseTarSmall} {
		if row := find(c.report.Rows, data+"/stoker/uint8"); row != nil {
			c.report.Figures[name] = memoryFigure(row, c.rings[data].TotalBytes, caseNamed(c.data, data).samples)
		}
	}
}

// memoryFigure checks the daemon's memory against 64 MiB, its rings, and 16
// bytes of location a sample.
func memoryFigure(row *Row, ringBytes, samples int64) Figure {
	bound := float64(64<<20+ringBytes+16*samples) / (1 << 20)
	return figureOf(spreadOf(row.repeats["daemon_pss_mb"]), "MiB", atMost(bound),
		fmt.Sprintf("bound = 64 MiB + %.1f MiB of ring + 16 bytes for each of %d samples", float64(ringBytes)/(1<<20), samples))
}

func figureNames(figures map[string]Figure) []string {
	return slices.Sorted(maps.Keys(figures))
}
