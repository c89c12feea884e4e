package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// verifyBatches is how many batches of each row are checked byte by byte.
const verifyBatches = 2

// Compare makes the data if need be, starts a daemon, runs all rows and ceilings
// interleaved, and measures what the figures need besides. Every process that it
// starts has ended when it returns, also on errors and when ctx is cancelled.
func Compare(ctx context.Context, o CompareOptions) (report *Report, err error) {
	begin := time.Now()
	if err := o.EnsureDefaults(); err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	if err := os.MkdirAll(o.DataDir, 0o755); err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	work, err := os.MkdirTemp("", "stoker-bench-")
	if err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	c := comparison{o: o, work: work}
	defer func() { err = errors.Join(err, c.close()) }()
	if err := c.prepare(ctx); err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	if err := c.runAll(ctx); err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	if err := c.summarise(ctx); err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	c.report.Settings.TookSeconds = time.Since(begin).Seconds()
	return &c.report, nil
}

// comparison is one run of Compare.
type comparison struct {
	o         CompareOptions
	work      string // temporary folder
	data      Data
	daemon    *daemon
	python    interpreter
	specs     []rowSpec // rows and resident rows
	consumers []*consumer
	ceilings  []ceilingSpec
	rings     map[string]openedRing // by case

	rows         []Row // as specs
	ceilingRows  []Row // as ceilings
	report       Report
	steps, total int // progress
}

func (c *comparison) step(label string) {
	c.o.Progress(c.steps, c.total, label)
	c.steps++
}

// prepare makes data, daemon and consumers, and checks what each row delivers.
func (c *comparison) prepare(ctx context.Context) error {
	var err error
	c.report = Report{Version: ReportVersion, Quick: c.o.Quick, Machine: describeMachine(ctx, c.o), Figures: map[string]Figure{}}
	if err := c.prepareData(ctx); err != nil {
		return err
	}
	c.chooseRows()
	if c.daemon, err = startDaemon(ctx, c.o, c.work); err != nil {
		return err
	}
	if err := c.addDatasets(ctx); err != nil {
		return err
	}
	if err := c.findRings(); err != nil {
		return err
	}
	if c.python, err = newInterpreter(c.o, c.work, c.daemon.runtimeDir); err != nil {
		return err
	}
	return c.startConsumers(ctx)
}

// prepareData makes the data and brings it into the page cache in the state that
// the options ask for: what it was before depends on what the machine did.
func (c *comparison) prepareData(ctx context.Context) error {
	var err error
	for _, group := range c.o.Cases {
		if c.o.PageCache == PageCacheWritten {
			err = errors.Join(err, dataAt(c.o).forget(group))
		}
	}
	if err != nil {
		return err
	}
	if c.data, err = MakeData(ctx, c.o); err != nil {
		return err
	}
	c.step("read all data into the page cache")
	for _, group := range c.o.Cases {
		if c.o.PageCache == PageCacheRead {
			err = errors.Join(err, c.data.evict(group))
		}
		err = errors.Join(err, c.data.warm(ctx, group))
	}
	return err
}

// chooseRows fills specs and rows.
func (c *comparison) chooseRows() {
	for _, spec := range append(rowSpecs(), residentSpecs()...) {
		if !c.o.runs(groupOf(spec.data)) || c.o.Quick && spec.thorough() {
			continue
		}
		if c.o.Only == "" || strings.Contains(spec.name(), c.o.Only) || spec.source == "resident" {
			c.specs = append(c.specs, spec)
			c.rows = append(c.rows, Row{
				Loader: spec.loader, Case: spec.data, Workers: spec.workers, Collate: spec.collate,
				DType: spec.dtype, Informative: spec.informative, Note: spec.note, key: spec.name(),
			})
		}
	}
	runs := c.o.Repeats * (len(c.specs) + len(c.chosenCeilings(1, nil)))
	c.total = 1 + len(c.datasets()) + len(c.specs) + runs + len(c.figureSteps()) + 1
}

// chosenCeilings are the bare loops of the cases that were asked for.
func (c *comparison) chosenCeilings(threads int, slots map[string]int) []ceilingSpec {
	return slices.DeleteFunc(ceilingSpecs(c.data, threads, slots), func(s ceilingSpec) bool { return !c.o.runs(groupOf(s.data)) })
}

// datasetSpec is a dataset of the daemon.
type datasetSpec struct{ name, dir, format string }

// datasets are what the rows and figures read.
func (c *comparison) datasets() []datasetSpec {
	var specs []datasetSpec
	for _, of := range c.o.chosenCases(c.data) {
		specs = append(specs, datasetSpec{of.dataset, of.dir, of.format})
	}
	if c.o.runs(GroupTokens) {
		specs = append(specs, datasetSpec{datasetSparse7, c.data.Sparse7, "tokens"}, datasetSpec{datasetSparse8, c.data.Sparse8, "tokens"})
	}
	return specs
}

func (c *comparison) addDatasets(ctx context.Context) error {
	for _, dataset := range c.datasets() {
		c.step("add dataset " + dataset.name)
		if err := c.daemon.addDataset(ctx, dataset.name, dataset.dir, dataset.format); err != nil {
			return err
		}
	}
	return nil
}

// readerThreads is how many threads read for a session.
func (o *CompareOptions) readerThreads() int {
	if o.Readers > 0 {
		return o.Readers
	}
	return Readers()
}

// findRings asks for the rings' sizes, so that the bare loops have as many slots.
func (c *comparison) findRings() error {
	c.rings = map[string]openedRing{}
	slots, threads := map[string]int{}, c.o.readerThreads()
	for _, of := range c.o.chosenCases(c.data) {
		session, err := c.daemon.openSession(sessionSpec{dataset: of.dataset, blockSize: of.blockSize, parts: of.parts})
		if err != nil {
			return err
		}
		c.rings[of.name], slots[of.name] = session.Ring, max(session.Ring.Slots, threads+1)
		if err := session.close(); err != nil {
			return err
		}
	}
	c.report.Settings = Settings{
		Repeats: c.o.Repeats, SectionSeconds: c.o.Section.Seconds(), BatchSize: batchSize, Cases: c.o.Cases,
		RawFiles: c.o.RawFiles, TokenBytes: c.o.TokenBytes, TarSamples: c.o.TarSamples, ScanSamples: c.o.ScanSamples,
		ReaderThreads: threads, RawSlots: slots[caseRaw], TokenSlots: slots[caseTokens], Slots: slots, PageCache: c.o.PageCache,
	}
	c.ceilings = c.chosenCeilings(threads, slots)
	for _, spec := range c.ceilings {
		c.ceilingRows = append(c.ceilingRows, Row{
			Loader: spec.name, Case: spec.data, Workers: threads, Informative: spec.informative, key: spec.data + "/" + spec.name,
		})
	}
	return nil
}

const (
	// consumerBytes is more than a Python process with torch needs for itself.
	consumerBytes = 400 << 20
	// runningBytes is more than those processes need in addition that run at a time.
	runningBytes = 1 << 30
)

// startConsumers starts the rows' processes, as many at once as there are cores. As
// many stay as memory has room for beside the data in the page cache; the others are
// started again for each of their runs, which takes longer and measures the same.
func (c *comparison) startConsumers(ctx context.Context) error {
	c.consumers = make([]*consumer, len(c.specs))
	kept := c.consumersKept(memoryAvailable())
	if kept < len(c.specs) {
		c.o.Logger.Info("too little memory to keep all consumers", "kept", kept, "consumers", len(c.specs))
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	for i, spec := range c.specs[:kept] {
		group.Go(func() error {
			var err error
			c.consumers[i], err = startConsumer(groupCtx, c.python, spec.name(), spec.config(c.data))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return c.checkConsumers(ctx)
}

// consumersKept is how many of the rows' processes may stay with that much memory.
func (c *comparison) consumersKept(available int64) int {
	if c.o.endEachRun {
		return 0
	}
	room := available - runningBytes
	for _, group := range c.o.Cases {
		room -= c.data.bytes(group)
	}
	return int(min(max(room/consumerBytes, 0), int64(len(c.specs))))
}

// checkConsumers checks the bytes that each row delivers.
func (c *comparison) checkConsumers(ctx context.Context) error {
	for i, spec := range c.specs {
		c.step("check the bytes of " + spec.name())
		err := c.withConsumer(ctx, i, func(row *consumer) error {
			m := &c.report.Machine
			m.Python, m.Numpy = row.hello.Python, row.hello.Numpy
			m.Torch = cmp.Or(row.hello.Torch, m.Torch)
			m.WebDataset = cmp.Or(row.hello.WebDataset, m.WebDataset)
			if spec.source == "resident" {
				return nil
			}
			_, err := row.verify(ctx, verifyBatches)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// withConsumer calls do with a row's process, which it starts and ends if the
// processes are not kept.
func (c *comparison) withConsumer(ctx context.Context, i int, do func(*consumer) error) error {
	if c.consumers[i] != nil {
		return do(c.consumers[i])
	}
	row, err := startConsumer(ctx, c.python, c.specs[i].name(), c.specs[i].config(c.data))
	if err != nil {
		return err
	}
	return errors.Join(do(row), row.close())
}

// takeOutConsumer subtracts from each row's CPU time what the consumer alone
// costs for the same kind of batch in the same repeat.
func takeOutConsumer(rows []Row) {
	for i := range rows {
		r := &rows[i]
		alone := find(rows, r.Case+"/consumer alone/"+r.DType)
		if alone == nil || alone == r {
			continue
		}
		cost := alone.repeats["cpu_s_per_gb"]
		for repeat := range min(len(cost), len(r.repeats["cpu_s_per_gb"])) {
			r.repeats["cpu_s_per_gb"][repeat] = max(0, r.repeats["cpu_s_per_gb"][repeat]-cost[repeat])
		}
		r.repeats["consumer_cpu_s_per_gb"] = slices.Clone(cost)
	}
}

func (c *comparison) summarise(ctx context.Context) error {
	takeOutConsumer(c.rows)
	for _, rows := range [][]Row{c.rows, c.ceilingRows} {
		for i := range rows {
			rows[i].summarise()
		}
	}
	for i, spec := range c.specs {
		if spec.source == "resident" {
			c.ceilingRows = append(c.ceilingRows, c.rows[i])
		} else {
			c.report.Rows = append(c.report.Rows, c.rows[i])
		}
	}
	c.report.Ceilings = c.ceilingRows
	maps.Copy(c.report.Figures, rowFigures(c.report.Rows, c.report.Ceilings))
	c.memoryFigures()
	if c.o.SkipFigures {
		return nil
	}
	return c.measureFigures(ctx)
}

// close ends consumers and daemon. A consumer that has to be killed is a warning:
// it has been measured, and what it held is gone with it. A daemon that does not
// end is a defect of what is measured.
func (c *comparison) close() error {
	var group sync.WaitGroup
	for _, consumer := range c.consumers {
		if consumer != nil {
			group.Go(func() {
				if err := consumer.close(); err != nil {
					c.o.Logger.Warn("end a consumer", "error", err)
				}
			})
		}
	}
	group.Wait()
	if c.daemon == nil {
		return nil
	}
	return c.daemon.close()
}
