package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// runAll runs each ceiling and each row once a repeat. Every other repeat goes
// backwards, so that a machine that slowly changes its speed favours no row.
func (c *comparison) runAll(ctx context.Context) error {
	type job struct {
		label string
		run   func() error
	}
	var jobs []job
	for i, spec := range c.ceilings {
		jobs = append(jobs, job{spec.data + "/" + spec.name, func() error { return c.runCeiling(ctx, i, &c.ceilingRows[i]) }})
	}
	for i, spec := range c.specs {
		jobs = append(jobs, job{spec.name(), func() error { return c.runRow(ctx, i, &c.rows[i]) }})
	}
	// What is compared with a bare loop runs next to it.
	slices.SortStableFunc(jobs, func(a, b job) int { return strings.Compare(caseOf(a.label), caseOf(b.label)) })
	for repeat := range c.o.Repeats {
		for _, j := range jobs {
			c.step(fmt.Sprintf("repeat %d of %d: %s", repeat+1, c.o.Repeats, j.label))
			if err := j.run(); err != nil {
				return err
			}
		}
		slices.Reverse(jobs)
	}
	return nil
}

func caseOf(label string) string {
	data, _, _ := strings.Cut(label, "/")
	return data
}

// section is how long one run of a row or ceiling is timed.
func (c *comparison) section(informative bool) time.Duration {
	if informative {
		return c.o.Section / 2
	}
	return c.o.Section
}

// runCeiling runs a bare loop once and adds what it reached to row.
func (c *comparison) runCeiling(ctx context.Context, i int, row *Row) error {
	spec := c.ceilings[i]
	options := spec.options
	options.Seconds = c.section(spec.informative).Seconds()
	argument, err := json.Marshal(options)
	if err != nil {
		return err
	}
	cmd := exec.Command(c.o.Stoker, "bench", "ceiling", string(argument))
	out, err := output(ctx, "bare loop "+spec.name, cmd, c.o.Logger)
	if err != nil {
		return err
	}
	var r CeilingResult
	if err := json.Unmarshal(out, &r); err != nil {
		return fmt.Errorf("answer of bare loop %s: %w: %.200s", spec.name, err, out)
	}
	seconds, gb := float64(r.WallNs)/1e9, float64(r.Bytes)/1e9
	values := map[string]float64{"samples_per_s": float64(r.Rows) / seconds, "mb_per_s": gb * 1000 / seconds}
	if gb > 0 {
		values["cpu_s_per_gb"] = float64(r.CPUNs) / 1e9 / gb
	}
	row.add(values)
	return nil
}

// runRow runs a row once and adds what it measured to row.
func (c *comparison) runRow(ctx context.Context, i int, row *Row) error {
	spec := c.specs[i]
	daemonPid := 0
	if spec.source == "stoker" {
		daemonPid = c.daemon.pid()
	}
	return c.withConsumer(ctx, i, func(process *consumer) error {
		var profile errgroup.Group
		if daemonPid != 0 && c.o.Profiles != "" {
			profile.Go(func() error { return c.profile(ctx) })
		}
		a, err := process.run(ctx, c.section(spec.informative), 0, daemonPid)
		err = errors.Join(err, profile.Wait())
		if err == nil {
			row.add(rowValues(a, caseNamed(c.data, spec.data).sampleBytes, daemonPid))
		}
		return err
	})
}

// profile writes a CPU profile of the daemon over about the next section, a second
// at least.
func (c *comparison) profile(ctx context.Context) error {
	seconds := max(1, int(c.o.Section.Round(time.Second).Seconds()))
	content, err := c.daemon.profile(ctx, seconds)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(c.o.Profiles, "stokerd-*.pprof")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

// rowValues are the fields of one run, the CPU time still with the consumer's.
func rowValues(a runAnswer, sampleBytes int64, daemonPid int) map[string]float64 {
	seconds, gb := float64(a.WallNs)/1e9, float64(a.Rows*sampleBytes)/1e9
	var pss, files int64
	for _, kinds := range a.Pss {
		pss += kinds["pss"]
		files += kinds["pss_file"]
	}
	values := map[string]float64{
		"samples_per_s":  float64(a.Rows) / seconds,
		"mb_per_s":       gb * 1000 / seconds,
		"cpu_s_per_gb":   float64(a.CPUNs) / 1e9 / gb,
		"first_batch_ms": float64(a.FirstBatchNs) / 1e6,
		"stall_share":    float64(a.WaitNs) / float64(a.WallNs),
		"pss_mb":         float64(pss) / (1 << 20),
		"pss_file_mb":    float64(files) / (1 << 20),
	}
	if daemonPid != 0 {
		values["daemon_pss_mb"] = float64(a.Pss[strconv.Itoa(daemonPid)]["pss"]) / (1 << 20)
	}
	return values
}
