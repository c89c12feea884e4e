package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"
)

// FlashOptions says how to measure the flash store. The zero value works.
type FlashOptions struct {
	// Quick measures with less data and fewer repeats: a minute.
	Quick bool
	// Dir is on the device to be measured. A folder is made there, and removed again; it
	// takes up to 4 GiB. Default: the system's temporary folder.
	Dir string
	// Steps are those to run: some of FlashSteps. Default: all.
	Steps []string
	// Stoker is this command, which is run for what needs a process of its own. Default:
	// the program that is running.
	Stoker string
	// Root is the repository, for the commit in the report. Default: as CompareOptions.
	Root string
	// Logger is the store's. Default: nowhere.
	Logger *slog.Logger
	// Progress is told of each step. Default: nobody.
	Progress Progress

	sizes flashSizes // of which tests make less
	// open opens a store of very many chunks. Default: in a process of its own. Tests have
	// none.
	open func(context.Context, FlashStartOptions) (FlashStartResult, error)
}

// flashSizes is how much is measured.
type flashSizes struct {
	repeats      int
	section      time.Duration // of each kind of reads
	modes        []flashMode   // of reads
	readBytes    int64         // of each set of chunks
	writeBytes   int64         // of each repeat of writing
	puts         int           // of each latency
	chunks       int           // of the directories that are opened
	chunkSizes   []int64       // of theirs; those of several blocks have a last one of a page
	churnHours   int
	churnBytes   int64
	spanBytes    int64
	segmentSpans int
	depth        int
}

// Steps of Flash.
const (
	StepRead  = "read"
	StepWrite = "write"
	StepStart = "start"
	StepChurn = "churn"
)

// FlashSteps returns all steps, in the order in which they run.
func FlashSteps() []string { return []string{StepRead, StepWrite, StepStart, StepChurn} }

// EnsureDefaults fills what was left empty. Errors: a step that is not known.
func (o *FlashOptions) EnsureDefaults() error {
	places := CompareOptions{Root: o.Root}
	places.findPlaces()
	o.Root = places.Root
	if o.Dir == "" {
		o.Dir = os.TempDir()
	}
	if len(o.Steps) == 0 {
		o.Steps = FlashSteps()
	}
	for _, step := range o.Steps {
		if !slices.Contains(FlashSteps(), step) {
			return fmt.Errorf("step %q: there are %s", step, strings.Join(FlashSteps(), ", "))
		}
	}
	if o.open == nil {
		o.open = o.openApart
	}
	if o.Stoker == "" {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		o.Stoker = exe
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = func(int, int, string) {}
	}
	if o.sizes.repeats == 0 {
		o.sizes = usualSizes(o.Quick)
	}
	return nil
}

// usualSizes are those of a run in earnest. Spans and segments are those of a device of
// 16 GiB and more.
func usualSizes(quick bool) flashSizes {
	s := flashSizes{
		repeats: 5, section: 700 * time.Millisecond, modes: []flashMode{pastPageCache, withoutRing, throughPageCache},
		readBytes: 512 << 20, writeBytes: 512 << 20, puts: 500,
		chunks: 1_000_000, chunkSizes: []int64{4 << 10, 1<<20 + 4<<10, 7<<20 + 4<<10},
		churnHours: 24, churnBytes: 4 << 30, spanBytes: 64 << 20, segmentSpans: 16, depth: 32,
	}
	if quick {
		s.repeats, s.section, s.readBytes, s.writeBytes, s.puts = 3, 200*time.Millisecond, 192<<20, 256<<20, 100
		s.chunkSizes = []int64{4 << 10, 7<<20 + 4<<10}
		s.churnBytes = 2 << 30
		s.modes = []flashMode{pastPageCache, throughPageCache}
	}
	return s
}

// FlashReport is what Flash found; its JSON form is what `--json FILE` holds. Rows of steps
// that did not run are missing.
type FlashReport struct {
	Version int     `json:"version"`
	Quick   bool    `json:"quick"`
	Machine Machine `json:"machine"`
	// Direct says that reads went past the page cache, on both sides; Refused why not.
	Direct        bool                    `json:"direct"`
	Refused       string                  `json:"direct_refused,omitempty"`
	NoRing        string                  `json:"io_uring_refused,omitempty"` // no loop and no store uses it
	Reads         []FlashReadRow          `json:"reads,omitempty"`
	Writes        []FlashWriteRow         `json:"writes,omitempty"`
	Puts          []FlashPutRow           `json:"puts,omitempty"`
	Amplification []FlashAmplificationRow `json:"amplification,omitempty"`
	Starts        []FlashStartRow         `json:"starts,omitempty"`
	Churn         []FlashChurnRow         `json:"churn,omitempty"`
	Figures       map[string]Figure       `json:"figures"`
}

// flashStep is a part of Flash.
type flashStep struct {
	name  string
	parts int // of its progress
	run   func(context.Context) error
}

// Flash measures the flash store beside bare loops on the same device: reads in several
// patterns, writes, what it writes beside payload, what a start takes, and what many hours
// of arrivals leave of the room. Errors: a directory that is in memory, those of the
// device and of the store, and the cause of ctx.
func Flash(ctx context.Context, o FlashOptions) (_ *FlashReport, err error) {
	if err := o.EnsureDefaults(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	if name := filesystem(o.Dir); inMemory(name) {
		return nil, fmt.Errorf("%q is in memory (%s), not on flash: say with --dir where the device is mounted", o.Dir, name)
	}
	dir, err := os.MkdirTemp(o.Dir, "stoker-flash-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &flashBench{o: o, dir: dir, report: &FlashReport{
		Version: ReportVersion, Quick: o.Quick, Figures: map[string]Figure{},
		Machine: describeMachine(ctx, CompareOptions{Root: o.Root, DataDir: o.Dir}),
	}}
	return b.report, b.run(ctx)
}

// flashBench is one run of Flash.
type flashBench struct {
	o      FlashOptions
	dir    string // empty between steps
	report *FlashReport

	done, all int // parts of progress
}

func (b *flashBench) run(ctx context.Context) error {
	steps := slices.DeleteFunc([]flashStep{
		{StepRead, b.readParts(), b.read},
		{StepWrite, b.writeParts(), b.write},
		{StepStart, b.startParts(), b.start},
		{StepChurn, b.churnParts(), b.churn},
	}, func(s flashStep) bool { return !slices.Contains(b.o.Steps, s.name) })
	for _, s := range steps {
		b.all += s.parts
	}
	for _, s := range steps {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	b.o.Progress(b.all, b.all, "done")
	return nil
}

// part tells of a part that begins.
func (b *flashBench) part(label string) {
	b.o.Progress(b.done, b.all, label)
	b.done++
}

// figure adds a figure with its text. note says what is special in this run; "" is nothing.
func (b *flashBench) figure(name string, s Spread, note string) {
	b.report.Figures[name] = figureOfText(flashFigures, name, s, note)
}

// Write stores the report as JSON, whole or not at all.
func (r *FlashReport) Write(path string) error { return writeReport(path, r) }

// Missed names the figures that miss their targets.
func (r *FlashReport) Missed() []string { return missedOf(r.Figures) }
