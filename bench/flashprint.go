package bench

import (
	"fmt"
	"io"
)

// Print writes the report for people.
func (r *FlashReport) Print(w io.Writer) error {
	out := &printer{w: w}
	out.machine(&r.Machine)
	out.line("%s, %s, commit %s", r.Machine.Go, r.Machine.Date.Format("2006-01-02 15:04 UTC"), r.Machine.Commit)
	for _, lines := range [][][]string{r.readLines(), r.writeLines(), r.putLines(), r.amplificationLines(), r.startLines(), r.churnLines()} {
		if len(lines) > 1 { // the first is the heading
			out.line("")
			out.table(lines)
		}
	}
	if len(r.Reads) > 0 && !r.Direct {
		out.line("not by O_DIRECT: %s", r.Refused)
	}
	if r.NoRing != "" {
		out.line("not by io_uring: %s", r.NoRing)
	}
	out.line("")
	out.figures(r.Figures)
	out.missed(r.Missed())
	return out.err
}

func (r *FlashReport) readLines() [][]string {
	lines := [][]string{{"reads", "by", "chunks", "page cache", "MB/s", "(min..max)", "CPU s/GB", "of the bare loop"}}
	for _, row := range r.Reads {
		cache := "past"
		if row.PageCache {
			cache = "through"
		}
		lines = append(lines, []string{
			row.Pattern, row.By, row.Chunks, cache, number(row.MBPS.Median), number(row.MBPS.Min) + ".." + number(row.MBPS.Max),
			number(row.CPUSPerGB.Median), number(row.Share.Median),
		})
	}
	return lines
}

func (r *FlashReport) writeLines() [][]string {
	lines := [][]string{{"writes of 8 MiB, made durable", "MB/s", "(min..max)", "CPU s/GB", "of the bare loop"}}
	for _, row := range r.Writes {
		lines = append(lines, []string{
			row.By, number(row.MBPS.Median), number(row.MBPS.Min) + ".." + number(row.MBPS.Max), number(row.CPUSPerGB.Median), number(row.Share.Median),
		})
	}
	return lines
}

func (r *FlashReport) putLines() [][]string {
	lines := [][]string{{"puts of 1 MiB", "median ms", "99 % below", "MB/s"}}
	for _, row := range r.Puts {
		lines = append(lines, []string{fmt.Sprintf("%d at once", row.Parallel), number(row.P50Ms), number(row.P99Ms), number(row.MBPS)})
	}
	return lines
}

func (r *FlashReport) amplificationLines() [][]string {
	lines := [][]string{{"chunks filled", "MB", "written MB", "ratio"}}
	for _, row := range r.Amplification {
		lines = append(lines, []string{
			fmt.Sprintf("of %d MiB", row.ChunkBytes>>20), number(float64(row.PayloadBytes) / 1e6), number(float64(row.WrittenBytes) / 1e6), fmt.Sprintf("%.4f", row.Ratio),
		})
	}
	return lines
}

func (r *FlashReport) startLines() [][]string {
	lines := [][]string{{"chunks", "of KiB", "segments", "open s", "PSS MiB", "made in s"}}
	for _, row := range r.Starts {
		lines = append(lines, []string{
			fmt.Sprint(row.Chunks), fmt.Sprint(row.ChunkBytes >> 10), fmt.Sprint(row.Segments), number(row.Seconds.Median), number(row.PSSMB.Median), number(row.MakeS),
		})
	}
	return lines
}

func (r *FlashReport) churnLines() [][]string {
	lines := [][]string{{"arrivals", "chunks", "refused", "hours", "lost at the end", "at worst"}}
	for _, row := range r.Churn {
		lines = append(lines, []string{row.Mix, fmt.Sprint(row.Arrivals), fmt.Sprint(row.Refused), fmt.Sprint(row.Hours), percent(row.End), percent(row.Worst)})
	}
	return lines
}
