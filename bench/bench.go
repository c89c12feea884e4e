// Package bench measures Stoker beside what its users would otherwise run and
// beside what the machine could do at best.
//
// Compare runs all rows (loaders) and ceilings (bare loops) interleaved on the
// same data, several times over, and reports medians with their spread; Prefetch
// measures what reading ahead wins and costs; Flash measures the flash store beside
// bare loops on the same device; Wakeups measures how fast one process wakes another;
// Device what a disk does by itself. Nothing here is needed to run Stoker, and only
// cmd/stoker imports it.
//
// How a row is measured. Each row has a Python process of its own, which imports
// what it needs once and then sleeps in read(2) until it is told to run: so the
// start of the interpreter is in no timed section, no row runs beside another,
// and idle rows cost nothing. A run opens the loader anew, waits for the first
// batch (first_batch_ms), warms up, takes batches for the time budget while
// touching every cache line of each, and closes the loader. CPU time is that of
// the process, its DataLoader workers and the daemon, read from their CPU clocks
// at both ends of the section.
//
// Traps: rows that map files count those pages in their PSS; pages of libraries
// are shared by all the rows' processes, so they count for little in each.
package bench

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// Progress is called from one goroutine as work is done: step done of total,
// and what the step is. total may grow.
type Progress func(done, total int, label string)

// CompareOptions says how to compare. The zero value works from a build tree.
type CompareOptions struct {
	// Quick shortens the timed sections and leaves out rows that no target needs and
	// that are rarely the best of their kind; it never shrinks the data. Default false.
	Quick bool
	// DataDir keeps the generated data between runs; what is written anew for
	// PageCacheWritten keeps its bytes. Default: $TMPDIR/stoker-bench-<uid>.
	DataDir string
	// Stokerd and Stoker are the binaries. Default: beside the running
	// executable, else bin/ under Root.
	Stokerd, Stoker string
	// Python runs the consumers. Default: .venv/bin/python under Root, else python3.
	Python string
	// PythonPath is where the package stoker is. Default: python/ under Root.
	PythonPath string
	// Root is the repository. Default: the nearest folder with a go.mod above
	// the executable, else above the working directory.
	Root string
	// Repeats is how often each row runs. Default 5, or 3 if Quick.
	Repeats int
	// Section is the length of one timed section. Default 2 s, or 600 ms if Quick.
	Section time.Duration
	// PageCache is how the data comes into the page cache before the run. Files that
	// were written and never left it lie there in large pages, and are read half as
	// fast again as files that came from the device, in small pages; so each run
	// starts from one of these states, whatever was before. Default: PageCacheWritten.
	PageCache string
	// Readers is how many threads of the daemon, and of the bare loops, read for
	// a session. Default: the daemon's own.
	Readers int
	// SteadyBatches is how many batches the memory of the daemon is watched over.
	// Default 1,000,000, or 100,000 if Quick.
	SteadyBatches int
	// Cases are the groups of cases to run: some of Groups. Default: all.
	Cases []string
	// RawFiles, TokenBytes, TarSamples (of 4 KiB) and ScanSamples (tiny members that
	// are only scanned) shrink the data, for tests. Default 10,485, 1 GiB, 262,144 and
	// 10^6.
	RawFiles    int
	TokenBytes  int64
	TarSamples  int
	ScanSamples int
	// Only runs rows whose name contains this, for experiments. Default: all.
	// Figures whose rows did not run are left out.
	Only string
	// Profiles is a folder for CPU profiles of the daemon, one for each run of one of
	// its rows, and of the scans. Profiling takes a part of what is measured. Default:
	// none are taken.
	Profiles string
	// SkipFigures leaves out what is measured apart from the rows (first batch,
	// open, steady memory, allocations), for experiments and tests.
	SkipFigures bool
	// endEachRun starts each consumer anew for each run, as happens where memory is
	// scarce, for tests.
	endEachRun bool
	// Logger takes what the daemon and the consumers say. Default: discard.
	Logger *slog.Logger
	// Progress is told of each step. Default: nobody.
	Progress Progress
}

// How data comes into the page cache.
const (
	PageCacheRead    = "read"    // dropped, then read from the device: as after an epoch
	PageCacheWritten = "written" // written anew: as after a download
)

// findPlaces fills in where the repository and the data are.
func (o *CompareOptions) findPlaces() {
	if o.Root == "" {
		o.Root = findRoot()
	}
	if o.DataDir == "" {
		o.DataDir = filepath.Join(os.TempDir(), fmt.Sprintf("stoker-bench-%d", os.Getuid()))
	}
}

// EnsureDefaults fills what was left empty. Errors: a binary or interpreter that
// is not there, with how to make it.
func (o *CompareOptions) EnsureDefaults() error {
	o.findPlaces()
	if len(o.Cases) == 0 {
		o.Cases = Groups()
	}
	if err := checkGroups(o.Cases); err != nil {
		return err
	}
	if o.Repeats == 0 {
		o.Repeats = 5
		if o.Quick {
			o.Repeats = 3
		}
	}
	if o.Section == 0 {
		o.Section = 2 * time.Second
		if o.Quick {
			o.Section = 600 * time.Millisecond
		}
	}
	if o.PageCache == "" {
		o.PageCache = PageCacheWritten
	}
	if o.PageCache != PageCacheRead && o.PageCache != PageCacheWritten {
		return fmt.Errorf("page cache %q: say %q or %q", o.PageCache, PageCacheRead, PageCacheWritten)
	}
	if o.SteadyBatches == 0 {
		o.SteadyBatches = 1_000_000
		if o.Quick {
			o.SteadyBatches = 100_000
		}
	}
	if o.RawFiles == 0 {
		o.RawFiles = 10_485
	}
	if o.TokenBytes == 0 {
		o.TokenBytes = 1 << 30
	}
	if o.TarSamples == 0 {
		o.TarSamples = 1 << 18
	}
	if o.ScanSamples == 0 {
		o.ScanSamples = 1_000_000
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = func(int, int, string) {}
	}
	return o.findPrograms()
}

func (o *CompareOptions) findPrograms() error {
	var problems []error
	for _, p := range []struct {
		path *string
		name string
	}{{&o.Stokerd, "stokerd"}, {&o.Stoker, "stoker"}} {
		if *p.path == "" {
			*p.path = findBinary(o.Root, p.name)
		}
		if !isFile(*p.path) {
			problems = append(problems, fmt.Errorf("no %s at %q; build it with `make build`", p.name, *p.path))
		}
	}
	if o.Python == "" {
		o.Python = findPython(o.Root)
	}
	if o.PythonPath == "" {
		o.PythonPath = filepath.Join(o.Root, "python")
	}
	if !isFile(filepath.Join(o.PythonPath, "stoker", "__init__.py")) {
		problems = append(problems, fmt.Errorf("no Python package stoker under %q; say where it is with --python-path", o.PythonPath))
	}
	return errors.Join(problems...)
}

// findRoot returns the repository above the executable or the working directory.
func findRoot() string {
	var starts []string
	if exe, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(exe))
	}
	if wd, err := os.Getwd(); err == nil {
		starts = append(starts, wd)
	}
	for _, start := range starts {
		for dir := start; ; dir = filepath.Dir(dir) {
			if isFile(filepath.Join(dir, "go.mod")) {
				return dir
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return "."
}

func findBinary(root, name string) string {
	if exe, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(exe), name); isFile(beside) {
			return beside
		}
	}
	return filepath.Join(root, "bin", name)
}

func findPython(root string) string {
	if venv := filepath.Join(root, ".venv", "bin", "python"); isFile(venv) {
		return venv
	}
	return "python3"
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// Readers is how many threads of the daemon read for one session unless it is
// configured otherwise: all cores but one, which is the trainer's, at least one
// and at most four. The bare loops use as many.
func Readers() int { return min(max(runtime.GOMAXPROCS(0)-1, 1), 4) }
