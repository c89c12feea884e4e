package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Print writes the report for people: machine, ceilings, rows, figures with
// their targets, and what was missed.
func (r *Report) Print(w io.Writer) error {
	m := r.Machine
	out := &printer{w: w}
	out.machine(&m)
	webdataset := ""
	if m.WebDataset != "" {
		webdataset = ", webdataset " + m.WebDataset
	}
	out.line("%s, Python %s, torch %s, numpy %s%s; huge pages %s (shmem %s)", m.Go, m.Python, m.Torch, m.Numpy, webdataset, m.HugePages, m.HugePagesShmem)
	out.line("%s, commit %s; %d repeats of %.2f s, interleaved, page cache warm (as %s), batch %d, %d reader threads",
		m.Date.Format("2006-01-02 15:04 UTC"), m.Commit, r.Settings.Repeats, r.Settings.SectionSeconds,
		r.Settings.PageCache, r.Settings.BatchSize, r.Settings.ReaderThreads)
	memory := true // shown once, with the first case
	for _, of := range allCases(Data{}) {
		if slices.ContainsFunc(r.Rows, func(row Row) bool { return row.Case == of.name }) {
			out.line("")
			out.rows(of.name, r, memory)
			memory = false
		}
	}
	out.line("")
	out.figures(r.Figures)
	out.line("* informative: no target is measured against it")
	out.missed(r.Missed())
	return out.err
}

// machine says where it was measured.
func (p *printer) machine(m *Machine) {
	virtual := ""
	if m.Virtual {
		virtual = ", virtual"
	}
	text := fmt.Sprintf("%s, %d cores%s, %.0f GiB, Linux %s", m.CPU, m.Cores, virtual, float64(m.MemoryBytes)/(1<<30), m.Kernel)
	if m.Filesystem != "" {
		text += ", " + m.Filesystem
	}
	p.line("%s", text)
}

func (p *printer) missed(names []string) {
	if len(names) > 0 {
		p.line("MISSED: %s", strings.Join(names, ", "))
	}
}

// printer remembers the first error of its writer.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, arguments ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", arguments...)
	}
}

func (p *printer) table(lines [][]string) {
	t := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	for _, line := range lines {
		if _, err := fmt.Fprintln(t, strings.Join(line, "\t")); err != nil && p.err == nil {
			p.err = err
		}
	}
	if err := t.Flush(); err != nil && p.err == nil {
		p.err = err
	}
}

// rows shows a case, and what memory can do if asked.
func (p *printer) rows(data string, r *Report, memory bool) {
	lines := [][]string{{
		data, "workers", "collate", "dtype", "samples/s", "MB/s", "(min..max)", "CPU s/GB", "consumer", "first ms", "PSS MB", "stalled",
	}}
	for _, row := range r.Rows {
		if row.Case == data {
			lines = append(lines, row.cells(true))
		}
	}
	for _, row := range r.Ceilings {
		if row.Case == data || row.Case == caseMemory && memory {
			lines = append(lines, row.cells(false))
		}
	}
	p.table(lines)
}

// cells is the row's line in the table; ceilings have no loader's columns.
func (r Row) cells(loader bool) []string {
	mb := r.Spread["mb_per_s"]
	name := r.Loader
	if r.Informative {
		name += " *"
	}
	cells := []string{
		name, "", r.Collate, r.DType, fmt.Sprintf("%.0f", r.SamplesPerS), fmt.Sprintf("%.0f", r.MBPerS),
		fmt.Sprintf("%.0f..%.0f", mb[0], mb[1]), fmt.Sprintf("%.3f", r.CPUSPerGB),
	}
	if r.SamplesPerS == 0 {
		cells[4] = ""
	}
	if !loader {
		return cells
	}
	if hasWorkers(r.Loader) {
		cells[1] = fmt.Sprint(r.Workers)
	}
	return append(cells, fmt.Sprintf("%.3f", r.ConsumerCPUSPerGB), fmt.Sprintf("%.1f", r.FirstBatchMs),
		fmt.Sprintf("%.0f", r.PssMB), fmt.Sprintf("%.0f%%", 100*r.StallShare))
}

func (p *printer) figures(figures map[string]Figure) {
	lines := [][]string{{"figure", "value", "(min..max)", "target", "", "what"}}
	for _, name := range figureNames(figures) {
		f := figures[name]
		verdict := ""
		if f.Met != nil {
			verdict = map[bool]string{true: "met", false: "MISSED"}[*f.Met]
		}
		lines = append(lines, []string{
			name, number(f.Value) + " " + f.Unit, number(f.Min) + ".." + number(f.Max), f.Target, verdict, f.Note,
		})
	}
	p.table(lines)
}

// number shows about four digits.
func number(v float64) string {
	if v >= 1000 || v <= -1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.4g", v)
}
