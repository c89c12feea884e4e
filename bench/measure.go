package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// figureStep measures some figures that no row shows.
type figureStep struct {
	group, label string
	measure      func(context.Context) error
}

// figureSteps are those of the cases that were asked for.
func (c *comparison) figureSteps() []figureStep {
	steps := []figureStep{
		{"", "first batch in a new process", c.firstBatches},
		{GroupTokens, "open 10^8 samples", c.openLarge},
		{GroupTokens, fmt.Sprintf("memory and allocations over %d batches", c.o.SteadyBatches), c.steady},
		{GroupTar, "scan tar shards", c.scans},
		{GroupRaw, "the same files as read from the device", c.asRead},
	}
	if c.o.Quick { // the last is informative, and about as long as all others
		steps = steps[:len(steps)-1]
	}
	return slices.DeleteFunc(steps, func(s figureStep) bool { return !c.o.runs(s.group) })
}

// measureFigures measures what no row shows: time to the first batch in a new
// process, opening large datasets, memory and allocations over many batches, scans.
func (c *comparison) measureFigures(ctx context.Context) error {
	for _, step := range c.figureSteps() {
		c.step(step.label)
		if err := step.measure(ctx); err != nil {
			return err
		}
	}
	c.step("done")
	return nil
}

// asRead repeats the raw figures that depend most on how the files came into the
// page cache, after dropping them and reading them from the device. Nothing uses
// the written files after it. It is informative and not left out: read files are
// slower for everybody, which favours those who do more than read.
func (c *comparison) asRead(ctx context.Context) error {
	if c.o.PageCache == PageCacheRead {
		return nil
	}
	if err := c.data.evict(GroupRaw); err != nil {
		return err
	}
	if err := c.data.warm(ctx, GroupRaw); err != nil {
		return err
	}
	var rows, ceilings []Row
	var jobs []func() error
	for i := range c.ceilings {
		if c.ceilingRows[i].key == caseRaw+"/bare loop" {
			ceilings = append(ceilings, again(c.ceilingRows[i]))
			jobs = append(jobs, func() error { return c.runCeiling(ctx, i, &ceilings[0]) })
		}
	}
	for i, spec := range c.specs {
		isPeer := spec.source == "dataloader" && spec.workers > 0 && spec.collate == "best"
		if spec.data == caseRaw && !spec.informative && (spec.source == "stoker" || isPeer) || spec.name() == caseRaw+"/consumer alone/uint8" {
			rows = append(rows, again(c.rows[i]))
			at := len(rows) - 1
			jobs = append(jobs, func() error { return c.runRow(ctx, i, &rows[at]) })
		}
	}
	for range c.o.Repeats {
		for _, job := range jobs {
			if err := job(); err != nil {
				return err
			}
		}
	}
	c.asReadFigures(rows, ceilings)
	return nil
}

// again is a row with nothing measured yet.
func again(r Row) Row {
	r.repeats, r.Spread = nil, nil
	return r
}

func (c *comparison) asReadFigures(rows, ceilings []Row) {
	takeOutConsumer(rows)
	for _, of := range [][]Row{rows, ceilings} {
		for i := range of {
			of[i].summarise()
		}
	}
	figures := rowFigures(rows, ceilings)
	for _, name := range []string{"raw_share_of_bare_loop", "raw_vs_best_workers", "raw_cpu_s_per_gb", "raw_cpu_vs_best_workers"} {
		if f, found := figures[name]; found {
			f.Met, f.Target, f.Note = nil, "", f.Note+"; files read from the device, not written"
			c.report.Figures[name+"_as_read"] = f
		}
	}
}

// freshCase is one dataset whose first batch is timed.
type freshCase struct {
	group   string
	figure  string
	target  *target
	note    string
	Dataset string         `json:"dataset"`
	Options map[string]any `json:"options"` // of stoker.Dataset
}

// firstBatches times Dataset(...) to the first batch in processes that have
// imported torch and stoker and have done nothing else.
func (c *comparison) firstBatches(ctx context.Context) error {
	sparse := map[string]any{"block_size": sparseBlock}
	cases := []freshCase{
		{
			GroupRaw, "first_batch_ms_1e4", atMost(100), fmt.Sprintf("%d raw files of 100 KB, batch 64, in a new process", c.o.RawFiles),
			datasetRaw, map[string]any{},
		},
		{GroupTokens, "first_batch_ms_1e7", atMost(100), "10^7 rows of tokens, block 15, in a new process", datasetSparse7, sparse},
		{GroupTokens, "open_1e8_ms", atMost(1000), "10^8 rows of tokens, order global: to the first batch, in a new process", datasetSparse8, sparse},
		{
			GroupTar, "first_batch_ms_tar", nil, fmt.Sprintf("%d members of 4 KiB of tar shards, batch 64, in a new process", c.o.TarSamples),
			datasetTarSmall, map[string]any{"select": []string{tarPart}},
		},
	}
	cases = slices.DeleteFunc(cases, func(f freshCase) bool { return !c.o.runs(f.group) })
	argument, err := json.Marshal(map[string]any{"cases": cases, "batch_size": batchSize, "repeats": c.o.Repeats, "seed": 7})
	if err != nil {
		return err
	}
	out, err := output(ctx, "first batches", c.python.command("fresh.py", string(argument)), c.o.Logger)
	if err != nil {
		return err
	}
	var times [][]float64
	if err := json.Unmarshal(out, &times); err != nil || len(times) != len(cases) {
		return fmt.Errorf("first batches: answer %.200q: %w", out, err)
	}
	for i, f := range cases {
		c.report.Figures[f.figure] = figureOf(spreadOf(times[i]), "ms", f.target, f.note)
	}
	return nil
}

const (
	// sessionsForMemory is how many sessions are opened at once to see what one costs.
	sessionsForMemory = 4
	// roundsForMemory is how often, as a heap is never quite the same twice.
	roundsForMemory = 5
)

// openLarge compares sessions on 10^8 samples with sessions on 10^7: an order
// that is computed costs the same for both.
func (c *comparison) openLarge(ctx context.Context) error {
	var grown, took []float64
	for round := range roundsForMemory + 1 {
		small, _, err := c.heapOfSessions(ctx, datasetSparse7)
		if err != nil {
			return err
		}
		large, times, err := c.heapOfSessions(ctx, datasetSparse8)
		if err != nil {
			return err
		}
		if round > 0 { // the first round pays what is allocated once
			grown = append(grown, large-small)
			took = append(took, times...)
		}
	}
	c.report.Figures["open_1e8_daemon_ms"] = figureOf(spreadOf(took), "ms", atMost(1000),
		"10^8 rows, order global: the daemon's answer to open")
	c.report.Figures["order_bytes_1e8"] = figureOf(spreadOf(grown), "bytes", atMost(64<<10),
		"heap of a session on 10^8 samples more than of one on 10^7 (an order in memory: 360 MB or more)")
	return nil
}

// heapOfSessions returns what one session on a dataset adds to the daemon's live
// heap, and how long each took to open, in milliseconds.
func (c *comparison) heapOfSessions(ctx context.Context, dataset string) (heap float64, tookMs []float64, err error) {
	before, err := c.liveHeap(ctx)
	if err != nil {
		return 0, nil, err
	}
	for range sessionsForMemory {
		s, err := c.daemon.openSession(sessionSpec{dataset: dataset, blockSize: sparseBlock})
		if err != nil {
			return 0, nil, err
		}
		defer func() { _ = s.close() }()
		tookMs = append(tookMs, float64(s.Took)/1e6)
	}
	after, err := c.liveHeap(ctx)
	return (after - before) / sessionsForMemory, tookMs, err
}

func (c *comparison) liveHeap(ctx context.Context) (float64, error) {
	for range 2 { // what a finalizer or a pool let go of, the second collection frees
		if err := c.daemon.collectGarbage(ctx); err != nil {
			return 0, err
		}
	}
	return c.daemon.metric(ctx, "go_memstats_heap_alloc_bytes")
}

// steady takes many small batches and watches the daemon's memory and its count
// of allocations.
func (c *comparison) steady(ctx context.Context) error {
	spec := rowSpec{
		loader: "stoker", source: "stoker", data: caseTokens, dtype: "uint16",
		options: map[string]any{
			"dataset": datasetSparse7, "block_size": sparseBlock, "batch_size": 8,
			"shapes": [][]int64{{sparseBlock}, {sparseBlock}},
		},
	}
	row, err := startConsumer(ctx, c.python, "steady memory", spec.config(c.data))
	if err != nil {
		return err
	}
	err = c.watch(ctx, row)
	return errors.Join(err, row.close())
}

func (c *comparison) watch(ctx context.Context, row *consumer) error {
	// A first short run, so that what is allocated once is there already.
	if _, err := row.run(ctx, 10*time.Minute, c.o.SteadyBatches/50, c.daemon.pid()); err != nil {
		return err
	}
	watched := watchPss(c.daemon.pid())
	idle, err := c.idleMallocs(ctx)
	if err != nil {
		return errors.Join(err, watched.stop())
	}
	before, err := c.daemon.metric(ctx, mallocsMetric)
	if err != nil {
		return errors.Join(err, watched.stop())
	}
	watched.begin()
	a, err := row.run(ctx, 10*time.Minute, c.o.SteadyBatches, c.daemon.pid())
	if err := errors.Join(err, watched.stop()); err != nil {
		return err
	}
	after, err := c.daemon.metric(ctx, mallocsMetric)
	if err != nil {
		return err
	}
	c.steadyFigures(a, (after-before-idle)/float64(a.Batches), watched.values)
	return nil
}

func (c *comparison) steadyFigures(a runAnswer, mallocs float64, pss []float64) {
	first, last := pss[0], pss[len(pss)-1]
	c.report.Figures["daemon_pss_growth_mb"] = figureOf(spreadOf([]float64{last - first}), "MiB", atMost(4),
		fmt.Sprintf("over %d batches: %.1f MiB at the start, %.1f at the end, %.1f at most", a.Batches, first, last, spreadOf(pss).Max))
	c.report.Figures["go_allocs_per_batch"] = figureOf(spreadOf([]float64{mallocs}), "allocations", atMost(0.05),
		fmt.Sprintf("the daemon's mallocs over %d batches, among them opening and closing the session", a.Batches))
	c.report.Figures["small_batches_per_s"] = figureOf(
		spreadOf([]float64{float64(a.Batches) / (float64(a.WallNs) / 1e9)}), "batches/s", nil, "batches of 8 rows of 16 tokens, touched")
}

const mallocsMetric = "go_memstats_mallocs_total"

// idleMallocs is what asking for the metric allocates by itself, at least.
func (c *comparison) idleMallocs(ctx context.Context) (float64, error) {
	least, last := math.Inf(1), math.NaN()
	for range 6 {
		v, err := c.daemon.metric(ctx, mallocsMetric)
		if err != nil {
			return 0, err
		}
		if !math.IsNaN(last) {
			least = min(least, v-last)
		}
		last = v
	}
	return least, nil
}

// pssWatch samples a process's memory until it is stopped.
type pssWatch struct {
	pid    int
	start  chan struct{}
	end    chan struct{}
	done   chan struct{}
	values []float64 // MiB; read after stop
}

// watchPss prepares a watch; begin starts it, stop ends it and must be called.
func watchPss(pid int) *pssWatch {
	w := &pssWatch{pid: pid, start: make(chan struct{}), end: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		select {
		case <-w.start:
		case <-w.end:
			return
		}
		// The session is opened after us: its ring belongs to the start.
		delay := 150 * time.Millisecond
		for {
			select {
			case <-w.end:
				return
			case <-time.After(delay):
				w.values = append(w.values, float64(pssBytes(w.pid))/(1<<20))
				delay = 50 * time.Millisecond
			}
		}
	}()
	return w
}

func (w *pssWatch) begin() { close(w.start) }

// stop ends the watch. Errors: the run was too short for two samples.
func (w *pssWatch) stop() error {
	close(w.end)
	<-w.done
	if len(w.values) < 2 {
		return fmt.Errorf("the daemon's memory was sampled %d times: take more batches", len(w.values))
	}
	return nil
}
