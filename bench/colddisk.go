package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// ColdDiskOptions say how to measure reads from a disk whose files are not in the page
// cache. Only DataDir must be given.
type ColdDiskOptions struct {
	// DataDir is on the disk to be measured, and keeps the data between runs: twice
	// Samples files' worth.
	DataDir string
	// Samples of 100 KB, as files and again in tar shards. Default 7168: 1.4 GB together,
	// read in some seconds by most disks.
	Samples int
	// Repeats of each pattern with and without foresight, interleaved. Default 5.
	Repeats int
	// Share of the device's rate that the consumer needs. Default 0.8.
	Share float64
	// Flights is how many reads the bare loop that measures the device keeps under way.
	// Default 32, as many as the daemon without foresight does.
	Flights int
	// WarmUp is how many batches of each run are not counted: those in which the ring
	// fills and foresight learns. Default 32.
	WarmUp int
	// Logger is the daemon's. Default: nowhere.
	Logger *slog.Logger
	// Progress is told of each step. Default: nobody.
	Progress Progress
}

// EnsureDefaults puts the documented defaults in place of zero values.
func (o *ColdDiskOptions) EnsureDefaults() {
	if o.Samples <= 0 {
		o.Samples = 7168
	}
	if o.Repeats <= 0 {
		o.Repeats = 5
	}
	if !(o.Share > 0) {
		o.Share = 0.8
	}
	if o.Flights <= 0 {
		o.Flights = 32
	}
	if o.WarmUp <= 0 {
		o.WarmUp = 32
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = func(int, int, string) {}
	}
}

// ColdDiskResult is what ColdDisk found.
type ColdDiskResult struct {
	DataDir string            `json:"data_dir"`
	Share   float64           `json:"share"`
	Rows    []ColdDiskRow     `json:"rows"`
	Figures map[string]Figure `json:"figures"`
}

// ColdDiskRow is one run of a consumer over cold files: medians would hide which device
// rate it belongs to.
type ColdDiskRow struct {
	Pattern        string  `json:"pattern"` // "raw" or "tar"
	Prefetch       bool    `json:"prefetch"`
	Repeat         int     `json:"repeat"`
	DeviceMBPS     float64 `json:"device_mb_per_s"` // of a bare loop of the same reads, just before
	NeededMBPS     float64 `json:"needed_mb_per_s"`
	ReachedMBPS    float64 `json:"reached_mb_per_s"`
	Batches        int     `json:"batches"` // after the warm-up
	ComputeSeconds float64 `json:"compute_seconds"`
	WaitSeconds    float64 `json:"wait_seconds"`
	StallShare     float64 `json:"stall_share"`
	DiskShare      float64 `json:"disk_share"` // of the bytes that batches were filled with, those that they had to wait for
	BroughtShare   float64 `json:"brought_share"`
	LateShare      float64 `json:"late_share"` // of the foreseen samples
	Depth          int64   `json:"depth"`      // samples, at the end
}

// coldStall is the stall share that a consumer may have that needs Share of the device.
const coldStall = 0.02

// coldBatch is samples a batch.
const coldBatch = 64

// ColdDisk measures how long a consumer waits that needs a share of what a disk can
// deliver, with foresight and without, on files and on tar shards that are not in the page
// cache. Errors: a directory whose files the page cache does not let go of, those of the
// disk, and the cause of ctx.
func ColdDisk(ctx context.Context, o ColdDiskOptions) (_ ColdDiskResult, err error) {
	o.EnsureDefaults()
	b := &coldBench{o: o, result: ColdDiskResult{DataDir: o.DataDir, Share: o.Share, Figures: map[string]Figure{}}}
	if o.DataDir == "" {
		return b.result, errors.New("measure cold reads: no data directory is given")
	}
	if least := coldBatch * 2 * o.WarmUp; o.Samples < least {
		return b.result, fmt.Errorf("measure cold reads: %d samples are too few, give at least %d", o.Samples, least)
	}
	if err := b.makeData(ctx); err != nil {
		return b.result, err
	}
	state, err := os.MkdirTemp("", "stoker-cold-")
	if err != nil {
		return b.result, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(state)) }()
	for _, on := range []bool{false, true} {
		n, err := startColdNode(ctx, filepath.Join(state, fmt.Sprint(on)), on, o.Logger)
		if err != nil {
			return b.result, err
		}
		defer func() { err = errors.Join(err, n.close()) }()
		b.nodes = append(b.nodes, n)
	}
	if err := b.run(ctx); err != nil {
		return b.result, err
	}
	b.figures()
	return b.result, nil
}

// coldBench is one run of ColdDisk.
type coldBench struct {
	o        ColdDiskOptions
	patterns []coldPattern
	nodes    []*coldNode // without foresight, with it
	steps    int
	result   ColdDiskResult
}

// run measures all patterns.
func (b *coldBench) run(ctx context.Context) error {
	for _, p := range b.patterns {
		for _, n := range b.nodes {
			if err := n.add(ctx, p.name, p.dir); err != nil {
				return fmt.Errorf("index %s: %w", p.dir, err)
			}
		}
		if err := p.sync(); err != nil {
			return err
		}
		for repeat := range b.o.Repeats {
			if err := b.repeat(ctx, p, repeat); err != nil {
				return fmt.Errorf("%s, repeat %d: %w", p.name, repeat, err)
			}
		}
	}
	b.o.Progress(b.all(), b.all(), "done")
	return nil
}

func (b *coldBench) all() int { return len(b.patterns) * b.o.Repeats * (1 + len(b.nodes)) }

func (b *coldBench) step(label string) {
	b.o.Progress(b.steps, b.all(), label)
	b.steps++
}

// repeat measures the device, then the consumer without and with foresight; every other
// time the other way round, so that a disk that gets slower does not favour one.
func (b *coldBench) repeat(ctx context.Context, p coldPattern, repeat int) error {
	if err := p.drop(ctx); err != nil {
		return err
	}
	b.step("bare reads, " + p.name)
	rate, err := p.deviceRate(ctx, b.o.Flights, uint64(repeat))
	if err != nil {
		return err
	}
	for i := range b.nodes {
		n := b.nodes[(i+repeat)%len(b.nodes)]
		if err := p.drop(ctx); err != nil {
			return err
		}
		b.step(fmt.Sprintf("%s, foresight %v", p.name, n.prefetch))
		row, err := n.consume(ctx, p, rate*b.o.Share, b.o.WarmUp, uint64(repeat))
		if err != nil {
			return err
		}
		row.Pattern, row.Prefetch, row.Repeat, row.DeviceMBPS = p.name, n.prefetch, repeat, rate/1e6
		b.result.Rows = append(b.result.Rows, row)
	}
	return nil
}

// figures are those of the worse pattern.
func (b *coldBench) figures() {
	for _, f := range []struct {
		name     string
		prefetch bool
		target   *target
		note     string
	}{
		{"cold_disk_stall_share", true, atMost(coldStall), "a consumer that needs %.0f%% of what a bare loop reads of the same cold files; the worse pattern: %s"},
		{"cold_disk_stall_share_without_foresight", false, nil, "the same with prefetch.enabled: false (%.0f%%); the worse pattern: %s"},
	} {
		var worst Spread
		pattern := ""
		for _, p := range b.patterns {
			s := spreadOf(b.shares(p.name, f.prefetch))
			if pattern == "" || s.Median > worst.Median {
				worst, pattern = s, p.name
			}
		}
		b.result.Figures[f.name] = figureOf(worst, "ratio", f.target, fmt.Sprintf(f.note, 100*b.o.Share, pattern))
	}
	var rates []float64
	for _, row := range b.result.Rows {
		rates = append(rates, row.DeviceMBPS)
	}
	b.result.Figures["cold_disk_device"] = figureOf(spreadOf(rates), "MB/s", nil, "bare reads of 100 KB")
}

func (b *coldBench) shares(pattern string, prefetch bool) (shares []float64) {
	for _, row := range b.result.Rows {
		if row.Pattern == pattern && row.Prefetch == prefetch {
			shares = append(shares, row.StallShare)
		}
	}
	return shares
}

// makeData writes what is read, unless it is there.
func (b *coldBench) makeData(ctx context.Context) error {
	d := dataAt(CompareOptions{DataDir: b.o.DataDir, RawFiles: b.o.Samples})
	steps := []dataStep{
		{GroupRaw, d.RawDir, "make raw files", func(ctx context.Context, dir string) error { return makeRaw(ctx, dir, d) }},
		{GroupTar, d.Tar.Dir, "make tar shards", func(ctx context.Context, _ string) error { return d.Tar.write(ctx) }},
	}
	for i, step := range steps {
		b.o.Progress(i, len(steps), step.label)
		if err := makeOnce(ctx, step.dir, step.make); err != nil {
			return fmt.Errorf("%s in %q: %w", step.label, step.dir, err)
		}
	}
	b.patterns = []coldPattern{rawPattern(d), tarPattern(d.Tar)}
	return nil
}

// coldPace is the virtual clock of a consumer that computes for some time on each batch.
// Sleeping longer than asked for is made good, so that it needs what it is to need; waiting
// for a batch is not.
type coldPace struct {
	free             time.Time // when the batch before was computed
	computed, waited time.Duration
}

// atOnce is how long taking a batch may last that was there.
const atOnce = 100 * time.Microsecond

// compute sleeps for a batch that was asked for then, came after took, and takes so long.
func (c *coldPace) compute(asked time.Time, took, takes time.Duration) {
	if c.free.IsZero() || took > atOnce {
		c.free = asked.Add(took)
	}
	c.free = c.free.Add(takes)
	c.computed += takes
	c.waited += took
	time.Sleep(time.Until(c.free))
}
