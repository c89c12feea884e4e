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
	Rows []ColdDiskRow
	// Stalled is the stall share with foresight, Unforeseen that without: of the worse
	// pattern, whose name is in Pattern and UnforeseenPattern.
	Stalled, Unforeseen        Spread
	Pattern, UnforeseenPattern string
	DeviceMBPS                 Spread // of the bare loops
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

// coldBatch is samples a batch.
const coldBatch = 64

// ColdDisk measures how long a consumer waits that needs a share of what a disk can
// deliver, with foresight and without, on files and on tar shards that are not in the page
// cache. Errors: a directory whose files the page cache does not let go of, those of the
// disk, and the cause of ctx.
func ColdDisk(ctx context.Context, o ColdDiskOptions) (_ ColdDiskResult, err error) {
	o.EnsureDefaults()
	b := &coldBench{o: o}
	if o.DataDir == "" {
		return b.result, errors.New("measure cold reads: no data directory is given")
	}
	if least := coldBatch * 2 * o.WarmUp; o.Samples < least {
		return b.result, fmt.Errorf("measure cold reads: %d samples are too few, give at least %d", o.Samples, least)
	}
	if err := makeOnDisk(o.DataDir); err != nil {
		return b.result, fmt.Errorf("measure cold reads: %w", err)
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
	b.summarise()
	return b.result, nil
}

// makeOnDisk makes a directory. Errors: it is in memory, where nothing is ever cold.
func makeOnDisk(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if name := filesystem(dir); inMemory(name) {
		return fmt.Errorf("%q is in memory (%s): choose a data directory on a disk with --data-dir, or leave the disk out with --skip-disk", dir, name)
	}
	return nil
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

// all is how many steps there are: making each pattern's data, and in each repeat one for
// the bare loop and two for the consumer.
func (b *coldBench) all() int { return len(b.patterns) * (1 + b.o.Repeats*(1+2)) }

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

// summarise finds the worse pattern, and the rates of all bare loops.
func (b *coldBench) summarise() {
	r := &b.result
	for _, p := range b.patterns {
		if s := spreadOf(b.shares(p.name, true)); r.Pattern == "" || s.Median > r.Stalled.Median {
			r.Stalled, r.Pattern = s, p.name
		}
		if s := spreadOf(b.shares(p.name, false)); r.UnforeseenPattern == "" || s.Median > r.Unforeseen.Median {
			r.Unforeseen, r.UnforeseenPattern = s, p.name
		}
	}
	var rates []float64
	for _, row := range r.Rows {
		rates = append(rates, row.DeviceMBPS)
	}
	r.DeviceMBPS = spreadOf(rates)
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
	b.patterns = []coldPattern{rawPattern(d), tarPattern(d.Tar)}
	for _, step := range []dataStep{
		{GroupRaw, d.RawDir, "make raw files", func(ctx context.Context, dir string) error { return makeRaw(ctx, dir, d) }},
		{GroupTar, d.Tar.Dir, "make tar shards", func(ctx context.Context, _ string) error { return d.Tar.write(ctx) }},
	} {
		b.step(step.label)
		if err := makeOnce(ctx, step.dir, step.make); err != nil {
			return fmt.Errorf("%s in %q: %w", step.label, step.dir, err)
		}
	}
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
