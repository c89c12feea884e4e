package bench

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"
)

// scanSet is a set of shards and how long its scans took, one value a repeat.
type scanSet struct {
	name  string // end of its figures' names
	data  TarData
	share []float64 // speed of the scan by that of the bare reads
	ns    []float64 // of the scan, a sample
	lint  []float64 // time that lint takes by that of the scan
}

// leastPasses is how often each set is scanned in a repeat at least.
const leastPasses = 3

// scans measures the scan of tar shards against reading the pages of their headers,
// and against Python's tarfile, interleaved.
func (c *comparison) scans(ctx context.Context) error {
	sets := []*scanSet{
		{name: "100k", data: c.data.Tar}, {name: "4k", data: c.data.TarSmall}, {name: "1e6", data: c.data.TarTiny},
	}
	var tarfile []float64
	for repeat := range c.o.Repeats {
		for _, set := range sets {
			if err := c.scanOnce(ctx, set); err != nil {
				return err
			}
		}
		ns, err := c.listWithTarfile(ctx, repeat)
		if err != nil {
			return err
		}
		tarfile = append(tarfile, ns)
	}
	scanFigures(c.report.Figures, sets, tarfile)
	return nil
}

// memoryFolder is a file system in memory on most Linux machines.
const memoryFolder = "/dev/shm"

// scanFolder makes the folder of the indexes that scans write: in memory where that
// can be had, as what is measured is the reading of the shards, and not how long the
// disk takes to make a finished index durable (two fsyncs, a few milliseconds each).
func scanFolder(otherwise string) (string, error) {
	if dir, err := os.MkdirTemp(memoryFolder, "stoker-bench-"); err == nil {
		return dir, nil
	}
	return os.MkdirTemp(otherwise, "scan-")
}

// scanOnce runs a set's passes and adds their medians.
func (c *comparison) scanOnce(ctx context.Context, set *scanSet) error {
	work, err := scanFolder(c.work)
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	argument, err := json.Marshal(ScanOptions{
		Dir: set.data.Dir, List: set.data.List, Work: work, Threads: ScanThreads(),
		Seconds: c.o.Section.Seconds() / 2, Passes: leastPasses, Profiles: c.o.Profiles,
	})
	if err != nil {
		return err
	}
	out, err := output(ctx, "scan of "+set.data.Dir, exec.Command(c.o.Stoker, "bench", "scan", string(argument)), c.o.Logger)
	if err != nil {
		return err
	}
	var r ScanResult
	if err := json.Unmarshal(out, &r); err != nil {
		return fmt.Errorf("answer of the scan: %w: %.200s", err, out)
	}
	set.add(r)
	return nil
}

func (s *scanSet) add(r ScanResult) {
	s.share = append(s.share, spreadOf(ratios(floats(r.PagesNs), floats(r.ScanNs))).Median)
	s.lint = append(s.lint, spreadOf(ratios(floats(r.LintNs), floats(r.ScanNs))).Median)
	s.ns = append(s.ns, spreadOf(floats(r.ScanNs)).Median/float64(r.Samples))
}

func floats(values []int64) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = float64(v)
	}
	return out
}

// listWithTarfile returns how long Python's tarfile takes for a sample of the tiny
// members, in nanoseconds. Each repeat lists other shards, so that all repeats of a
// full run list all of them once.
func (c *comparison) listWithTarfile(ctx context.Context, repeat int) (float64, error) {
	paths := shareOf(c.data.TarTiny.files(), repeat, c.o.Repeats)
	if c.o.Quick {
		paths = paths[:1]
	}
	out, err := output(ctx, "list with tarfile", c.python.command("tar_list.py", paths...), c.o.Logger)
	if err != nil {
		return 0, err
	}
	var listed []struct {
		Members int64
		Seconds float64
	}
	if err := json.Unmarshal(out, &listed); err != nil {
		return 0, fmt.Errorf("answer of tar_list.py: %w: %.200s", err, out)
	}
	var members int64
	var seconds float64
	for _, l := range listed {
		members += l.Members
		seconds += l.Seconds
	}
	if members == 0 {
		return 0, fmt.Errorf("tarfile found no member in %s", paths)
	}
	return seconds * float64(time.Second) / float64(members), nil
}

// shareOf cuts all into parts of nearly equal length and returns one of them, which is
// never empty.
func shareOf(all []string, part, parts int) []string {
	first, end := part*len(all)/parts, (part+1)*len(all)/parts
	if first == end {
		first = part % len(all)
		end = first + 1
	}
	return all[first:end]
}

const (
	scanGoal = 0.80 // least share of the bare reads' speed
	scanHeld = 2    // sets, the first ones, that are held to it
)

// scanFigures adds what follows from the sets' passes and from tarfile's nanoseconds a
// sample of the last set. That one takes no part in index_scan_share: several of its
// headers share a page, so that its scan is arithmetic on what few reads brought.
func scanFigures(figures map[string]Figure, sets []*scanSet, tarfile []float64) {
	shares, lints := make([]Spread, len(sets)), make([]Spread, len(sets))
	for i, set := range sets {
		shares[i], lints[i] = spreadOf(set.share), spreadOf(set.lint)
		note := fmt.Sprintf("%d samples: scan to finished index in memory, of bare reads of the pages with headers", set.data.Samples)
		if i >= scanHeld && shares[i].Median < scanGoal {
			note += fmt.Sprintf("; below %g, to which only %s and %s are held: several of these headers share a page", scanGoal, sets[0].name, sets[1].name)
		}
		figures["index_scan_share_"+set.name] = figureOf(shares[i], "ratio", nil, note)
		figures["lint_vs_scan_"+set.name] = figureOf(lints[i], "ratio", nil, fmt.Sprintf("%d samples: lint's time by the scan's", set.data.Samples))
	}
	byMedian := func(a, b Spread) int { return cmp.Compare(a.Median, b.Median) }
	figures["index_scan_share"] = figureOf(slices.MinFunc(shares[:scanHeld], byMedian), "ratio", atLeast(scanGoal),
		"the worse of "+sets[0].name+" and "+sets[1].name+", and of no other set")
	figures["lint_vs_scan"] = figureOf(slices.MaxFunc(lints, byMedian), "ratio", atMost(2), "the worst of the sets, each of about 1 GiB")
	tiny := sets[len(sets)-1]
	figures["index_vs_tarfile"] = figureOf(spreadOf(ratios(tarfile, tiny.ns)), "ratio", atLeast(10),
		fmt.Sprintf("how often our index of %d samples is made while tarfile lists them", tiny.data.Samples))
	seconds := make([]float64, len(tiny.ns))
	for i, ns := range tiny.ns {
		seconds[i] = ns * float64(tiny.data.Samples) / 1e9
	}
	figures["index_1e6_s"] = figureOf(spreadOf(seconds), "s", nil, fmt.Sprintf("index of %d samples of one tiny part", tiny.data.Samples))
}
