package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// ReportVersion changes whenever a field of the report changes its meaning.
const ReportVersion = 1

// Report is what Compare found; its JSON form is what `--json FILE` holds.
type Report struct {
	Version  int               `json:"version"`
	Quick    bool              `json:"quick"`
	Settings Settings          `json:"settings"`
	Machine  Machine           `json:"machine"`
	Ceilings []Row             `json:"ceilings"`
	Rows     []Row             `json:"rows"`
	Figures  map[string]Figure `json:"figures"`
}

// Settings says how the rows were run.
type Settings struct {
	Repeats        int            `json:"repeats"`
	SectionSeconds float64        `json:"section_seconds"`
	BatchSize      int            `json:"batch_size"`
	Cases          []string       `json:"cases"` // groups
	RawFiles       int            `json:"raw_files"`
	TokenBytes     int64          `json:"token_bytes"`
	TarSamples     int            `json:"tar_samples"`  // of 4 KiB
	ScanSamples    int            `json:"scan_samples"` // tiny ones that are only scanned
	ReaderThreads  int            `json:"reader_threads"`
	RawSlots       int            `json:"raw_slots"`
	TokenSlots     int            `json:"token_slots"`
	Slots          map[string]int `json:"slots"` // of each case that ran
	TookSeconds    float64        `json:"took_seconds"`
	PageCache      string         `json:"page_cache"`
}

// Row is one loader on one case: medians over the repeats, and Spread with the
// smallest and largest. MB and GB are of source bytes, powers of ten; MB of
// memory are 2^20.
type Row struct {
	Loader      string `json:"loader"`
	Case        string `json:"case"`
	Workers     int    `json:"workers"`
	Collate     string `json:"collate,omitempty"`
	DType       string `json:"dtype,omitempty"`
	Informative bool   `json:"informative,omitempty"`
	Note        string `json:"note,omitempty"`

	SamplesPerS float64 `json:"samples_per_s"`
	MBPerS      float64 `json:"mb_per_s"`
	// CPUSPerGB is of all processes, daemon included, without ConsumerCPUSPerGB.
	CPUSPerGB float64 `json:"cpu_s_per_gb"`
	// ConsumerCPUSPerGB is what touching the batches costs, measured alone.
	ConsumerCPUSPerGB float64 `json:"consumer_cpu_s_per_gb"`
	FirstBatchMs      float64 `json:"first_batch_ms"`
	PssMB             float64 `json:"pss_mb"`
	PssFileMB         float64 `json:"pss_file_mb"` // of PssMB: mapped files, among them memory maps of the data
	// DaemonPssMB is the daemon's part of PssMB.
	DaemonPssMB float64 `json:"daemon_pss_mb"`
	// StallShare is the share of the section that the consumer spent in next().
	StallShare float64 `json:"stall_share"`

	Spread map[string][2]float64 `json:"spread"` // field name -> min, max

	repeats map[string][]float64 // field name -> value of each repeat
	key     string
}

// Figure is one number that the issue or a reader asks for.
type Figure struct {
	Value  float64 `json:"value"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Unit   string  `json:"unit,omitempty"`
	Target string  `json:"target,omitempty"` // "" = informative
	Met    *bool   `json:"met,omitempty"`
	Note   string  `json:"note,omitempty"`
}

// fields are the measured fields of a row in the order of the table.
func (r *Row) fields() []struct {
	name  string
	value *float64
} {
	return []struct {
		name  string
		value *float64
	}{
		{"samples_per_s", &r.SamplesPerS}, {"mb_per_s", &r.MBPerS},
		{"cpu_s_per_gb", &r.CPUSPerGB}, {"consumer_cpu_s_per_gb", &r.ConsumerCPUSPerGB},
		{"first_batch_ms", &r.FirstBatchMs}, {"pss_mb", &r.PssMB}, {"pss_file_mb", &r.PssFileMB},
		{"daemon_pss_mb", &r.DaemonPssMB}, {"stall_share", &r.StallShare},
	}
}

// add records one repeat.
func (r *Row) add(values map[string]float64) {
	if r.repeats == nil {
		r.repeats = map[string][]float64{}
	}
	for name, value := range values {
		r.repeats[name] = append(r.repeats[name], value)
	}
}

// summarise computes medians and spreads.
func (r *Row) summarise() {
	r.Spread = map[string][2]float64{}
	for _, field := range r.fields() {
		s := spreadOf(r.repeats[field.name])
		*field.value = s.Median
		r.Spread[field.name] = [2]float64{s.Min, s.Max}
	}
}

// Write stores the report as JSON, whole or not at all.
func (r *Report) Write(path string) error { return writeReport(path, r) }

func writeReport(path string, r any) error {
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the report: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write the report to %q: %w", path, err)
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(append(content, '\n')); err != nil {
		return fmt.Errorf("write the report to %q: %w", path, err)
	}
	if err := f.Chmod(0o644); err != nil {
		return fmt.Errorf("write the report to %q: %w", path, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write the report to %q: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}

// Missed returns the names of the figures whose target is not met, sorted.
func (r *Report) Missed() []string { return missedOf(r.Figures) }

func missedOf(figures map[string]Figure) []string {
	var missed []string
	for _, name := range figureNames(figures) {
		if met := figures[name].Met; met != nil && !*met {
			missed = append(missed, name)
		}
	}
	return missed
}
