package bench

import (
	"fmt"
	"io"
)

// Print writes the report for people.
func (r *PrefetchReport) Print(w io.Writer) error {
	out := &printer{w: w}
	out.machine(&r.Machine)
	out.line("%s, %s, commit %s; simulated time, but for the disk and the cost of planning",
		r.Machine.Go, r.Machine.Date.Format("2006-01-02 15:04 UTC"), r.Machine.Commit)
	out.device(r.Device)
	for _, lines := range [][][]string{
		r.diskLines(), r.depthLines(), r.budgetLines(), r.keepLines(), r.secondLines(), r.worldLines(), r.costLines(), r.callLines(),
	} {
		if len(lines) > 1 { // the first is the heading
			out.line("")
			out.table(lines)
		}
	}
	out.line("")
	out.figures(r.Figures)
	out.missed(r.Missed())
	return out.err
}

// device shows bare loops on the disk.
func (p *printer) device(r *DeviceReport) {
	if r == nil {
		return
	}
	lines := [][]string{{"disk, bare loops", "under way", "MB/s", "blocks/s"}}
	for _, row := range r.Rows {
		lines = append(lines, []string{row.Pattern, fmt.Sprint(row.Depth), number(row.MBPS), number(row.PerSecond)})
	}
	p.line("")
	p.table(lines)
	if !r.Direct {
		p.line("not by O_DIRECT: %s", r.Refused)
	}
}

func (r *PrefetchReport) diskLines() [][]string {
	lines := [][]string{{"cold disk", "foresight", "disk MB/s", "needs", "had", "stalled", "late", "depth"}}
	for _, d := range r.Disk {
		foresight := "off"
		if d.Prefetch {
			foresight = "on"
		}
		lines = append(lines, []string{
			d.Pattern, foresight, number(d.DeviceMBPS), number(d.NeededMBPS), number(d.ReachedMBPS), percent(d.StallShare), percent(d.LateShare), fmt.Sprint(d.Depth),
		})
	}
	return lines
}

func (r *PrefetchReport) depthLines() [][]string {
	lines := [][]string{{"latency", "window by", "stalled", "wasted", "mean depth", "max", "by the least fixed depth"}}
	for _, d := range r.Depth {
		lines = append(lines, []string{d.Law, d.Decider, percent(d.StallShare), percent(d.WasteShare), number(d.MeanDepth), number(d.MaxDepth), number(d.Ratio)})
	}
	return lines
}

func (r *PrefetchReport) budgetLines() [][]string {
	lines := [][]string{{"link", "job", "needs MB/s", "fair", "had", "stalled"}}
	for _, j := range r.Budget {
		lines = append(lines, []string{number(j.Link), fmt.Sprint(j.Job), number(j.DemandMBPS), number(j.FairMBPS), number(j.RateMBPS), percent(j.StallShare)})
	}
	return lines
}

func (r *PrefetchReport) keepLines() [][]string {
	lines := [][]string{{"cache", "hits: stoker", "OPT", "never evict", "SIEVE", "S3-FIFO", "LRU", "LRU, closed form"}}
	for _, k := range r.Keep {
		lines = append(lines, []string{percent(k.C), number(k.Stoker), number(k.OPT), number(k.NeverEvict), number(k.SIEVE), number(k.S3FIFO), number(k.LRU), number(k.LRUForm)})
	}
	return lines
}

func (r *PrefetchReport) secondLines() [][]string {
	lines := [][]string{{"two datasets, one cache", "epoch", "hits", "of its share"}}
	for _, s := range r.Second {
		lines = append(lines, []string{fmt.Sprintf("job %d", s.Job), fmt.Sprint(s.Epoch), number(s.HitRatio), number(s.ShareReached)})
	}
	return lines
}

func (r *PrefetchReport) worldLines() [][]string {
	lines := [][]string{{"world", "decides", "measured"}}
	for i := range r.Worlds {
		w := &r.Worlds[i]
		lines = append(lines, []string{w.World, w.Decider, w.text()})
	}
	return lines
}

func (r *PrefetchReport) costLines() [][]string {
	lines := [][]string{{"planning", "jobs", "samples a chunk", "µs a sample", "bytes a chunk"}}
	for _, c := range r.Cost {
		lines = append(lines, []string{fmt.Sprintf("%.0e samples", float64(c.Samples)), fmt.Sprint(c.Jobs), fmt.Sprint(c.PerChunk), number(c.UsPerSample), number(c.BytesPerChunk)})
	}
	return lines
}

func (r *PrefetchReport) callLines() [][]string {
	lines := [][]string{{"call", "samples a chunk", "calls", "mean µs", "99.99 % below", "worst"}}
	for _, c := range r.Cost {
		for _, call := range c.Calls {
			lines = append(lines, []string{call.Call, fmt.Sprint(c.PerChunk), fmt.Sprint(call.Calls), number(call.MeanUs), number(call.P9999Us), number(call.WorstUs)})
		}
	}
	return lines
}

func percent(share float64) string { return fmt.Sprintf("%.2f %%", 100*share) }
