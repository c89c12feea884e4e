package bench

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/stokerio/stoker/prefetch"
	"github.com/stokerio/stoker/prefetch/sim"
)

// PrefetchOptions says how to measure foresight. The zero value works.
type PrefetchOptions struct {
	// Quick plays each world with one seed in place of three, plans fewer samples, and
	// repeats the reads from disk less often.
	Quick bool
	// Steps are those to run: some of PrefetchSteps. Default: all.
	Steps []string
	// SkipDisk leaves StepDisk out, which needs 1.4 GB on a disk, and minutes.
	SkipDisk bool
	// DataDir is on the disk that StepDisk measures, and keeps the data between runs.
	// Default: as CompareOptions.
	DataDir string
	// Root is the repository, for the commit in the report. Default: as CompareOptions.
	Root string
	// Logger is that of the daemon that StepDisk runs. Default: nowhere.
	Logger *slog.Logger
	// Progress is told of each step. Default: nobody.
	Progress Progress

	disk   ColdDiskOptions // of which tests make less
	device DeviceOptions
}

// Steps of Prefetch.
const (
	StepDisk   = "disk"
	StepDepth  = "depth"
	StepBudget = "budget"
	StepKeep   = "keep"
	StepSecond = "second"
	StepShares = "shares"
	StepChunks = "chunks"
	StepCost   = "cost"
)

// PrefetchSteps returns all steps, in the order in which they run. The disk comes first:
// what can be wrong with a data directory is said before minutes have passed.
func PrefetchSteps() []string {
	return []string{StepDisk, StepDepth, StepBudget, StepKeep, StepSecond, StepShares, StepChunks, StepCost}
}

// EnsureDefaults fills what was left empty. Errors: a step that is not known.
func (o *PrefetchOptions) EnsureDefaults() error {
	places := CompareOptions{Root: o.Root, DataDir: o.DataDir}
	places.findPlaces()
	o.Root, o.DataDir = places.Root, places.DataDir
	if len(o.Steps) == 0 {
		o.Steps = PrefetchSteps()
	}
	for _, step := range o.Steps {
		if !slices.Contains(PrefetchSteps(), step) {
			return fmt.Errorf("step %q: there are %s", step, strings.Join(PrefetchSteps(), ", "))
		}
	}
	if o.Progress == nil {
		o.Progress = func(int, int, string) {}
	}
	return nil
}

// PrefetchReport is what Prefetch found; its JSON form is what `--json FILE` holds.
// Worlds are those of package sim; their deciders are "stoker" (the production planner)
// and what one would do without it. Rows of steps that did not run are missing.
type PrefetchReport struct {
	Version int               `json:"version"`
	Quick   bool              `json:"quick"`
	Machine Machine           `json:"machine"`
	Device  *DeviceReport     `json:"device,omitempty"`
	Disk    []ColdDiskRow     `json:"cold_disk,omitempty"`
	Depth   []DepthRow        `json:"depth"`
	Budget  []BudgetRow       `json:"budget"`
	Keep    []KeepRow         `json:"keep"`
	Second  []SecondRow       `json:"second_dataset"`
	Worlds  []WorldRow        `json:"worlds"`
	Cost    []CostRow         `json:"cost"`
	Figures map[string]Figure `json:"figures"`
}

// prefetchStep is a part of Prefetch.
type prefetchStep struct {
	name, label string
	run         func(context.Context) error
}

// Prefetch measures what foresight does and what it costs: reads from a disk that the page
// cache knows nothing of; in simulated time with the production code; then the planner's
// own time and memory. Errors: those of the disk; those of a world, which are a defect;
// and the cause of ctx.
func Prefetch(ctx context.Context, o PrefetchOptions) (*PrefetchReport, error) {
	if err := o.EnsureDefaults(); err != nil {
		return nil, err
	}
	b := &prefetchBench{o: o}
	steps := b.steps()
	if slices.ContainsFunc(steps, func(s prefetchStep) bool { return s.name == StepDisk }) {
		if err := makeOnDisk(o.DataDir); err != nil {
			return nil, err
		}
	}
	b.report = &PrefetchReport{
		Version: ReportVersion, Quick: o.Quick, Figures: map[string]Figure{},
		Machine: describeMachine(ctx, CompareOptions{Root: o.Root, DataDir: o.DataDir}),
	}
	for i, step := range steps {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		b.left = len(steps) - i
		b.progress(0, 1, step.label)
		if err := step.run(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", step.label, err)
		}
		b.done += b.parts
	}
	b.o.Progress(b.done, b.done, "done")
	return b.report, nil
}

// prefetchBench is one run of Prefetch.
type prefetchBench struct {
	o      PrefetchOptions
	report *PrefetchReport

	done  int // parts of the steps that ended
	parts int // of the running step
	left  int // steps, the running one included
}

// progress tells of the running step's parts; those to come count as one each.
func (b *prefetchBench) progress(done, parts int, label string) {
	b.parts = parts
	b.o.Progress(b.done+done, b.done+parts+b.left-1, label)
}

// steps are those that run.
func (b *prefetchBench) steps() []prefetchStep {
	all := []prefetchStep{
		{StepDisk, "cold reads from disk", b.disk},
		{StepDepth, "depth under four laws of latency", b.depth},
		{StepBudget, "budget of a link", b.budget},
		{StepKeep, "hit ratios", b.keep},
		{StepSecond, "a second dataset", b.second},
		{StepShares, "weights, a reserve, and a cache of nearly everything", b.shares},
		{StepChunks, "many samples a chunk, and many ranks", b.chunks},
		{StepCost, "cost of planning", b.cost},
	}
	return slices.DeleteFunc(all, func(s prefetchStep) bool {
		return !slices.Contains(b.o.Steps, s.name) || s.name == StepDisk && b.o.SkipDisk
	})
}

// figure adds a figure, with its unit, target and text from prefetchFigures. note says
// what is special in this run; "" is nothing.
func (b *prefetchBench) figure(name string, s Spread, note string) {
	b.report.Figures[name] = figureOfText(prefetchFigures, name, s, note)
}

func (b *prefetchBench) seeds() []uint64 {
	if b.o.Quick {
		return []uint64{1}
	}
	return []uint64{1, 2, 3}
}

// windowBytes is more than any window of the worlds needs that ask for depth: what bounds
// them is to be the planner's choice.
const windowBytes = 1 << 34

// planner makes the production planner for a node of a world.
func planner(w *sim.World, hedges float64) func(int) sim.Decider {
	return sim.Planners(prefetch.Options{WindowBytes: windowBytes, HedgeShare: hedges}).Of(w)
}

// Write stores the report as JSON, whole or not at all.
func (r *PrefetchReport) Write(path string) error { return writeReport(path, r) }

// Missed names the figures that miss their targets.
func (r *PrefetchReport) Missed() []string { return missedOf(r.Figures) }
