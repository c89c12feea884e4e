package bench

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// madeRow is a row that ran with the given MB/s and CPU seconds a GB.
func madeRow(spec rowSpec, mb, cpu []float64) Row {
	r := Row{
		Loader: spec.loader, Case: spec.data, Workers: spec.workers, Collate: spec.collate,
		DType: spec.dtype, Informative: spec.informative, key: spec.name(),
	}
	for i := range mb {
		r.add(map[string]float64{"mb_per_s": mb[i], "cpu_s_per_gb": cpu[i], "samples_per_s": 10 * mb[i]})
	}
	return r
}

// madeRows are all rows, each with three repeats.
func madeRows(t *testing.T) (rows, ceilings []Row) {
	t.Helper()
	speeds := map[string]float64{
		caseRaw + "/stoker/uint8":                5000,
		caseRaw + "/DataLoader/default/w0/uint8": 1000,
		caseRaw + "/DataLoader/default/w1/uint8": 600,
		caseRaw + "/DataLoader/best/w2/uint8":    1250,
		caseRaw + "/DataLoader/pool/w2/uint8":    4000,
		caseTokens + "/stoker/uint16":            1500,
		caseTokens + "/memmap/uint16":            500,

		caseTar + "/stoker/uint8":                  5400,
		caseTar + "/tarfile/best/w0/uint8":         4000,
		caseTar + "/tarfile/mapped/w1/uint8":       900,
		caseTar + "/tarfile/extractfile/w2/uint8":  1200,
		caseTar + "/webdataset/best/w0/uint8":      1000,
		caseTar + "/webdataset/best/w2/uint8":      540,
		caseTarSmall + "/stoker/uint8":             3000,
		caseTarSmall + "/tarfile/default/w1/uint8": 150,
	}
	for _, spec := range append(rowSpecs(), residentSpecs()...) {
		mb, found := speeds[spec.name()]
		if !found {
			mb = 100
		}
		cpu := 1000 / mb
		if spec.source == "resident" {
			cpu = 0.05
		}
		rows = append(rows, madeRow(spec, []float64{mb, mb * 1.1, mb * 0.9}, []float64{cpu, cpu, cpu}))
	}
	for _, spec := range ceilingSpecs(Data{}, 1, nil) {
		row := Row{Loader: spec.name, Case: spec.data, key: spec.data + "/" + spec.name}
		for range 3 {
			row.add(map[string]float64{"mb_per_s": 6000})
		}
		ceilings = append(ceilings, row)
	}
	takeOutConsumer(rows)
	for i := range rows {
		rows[i].summarise()
	}
	for i := range ceilings {
		ceilings[i].summarise()
	}
	return rows, ceilings
}

func TestFiguresFromMadeUpRows(t *testing.T) {
	rows, ceilings := madeRows(t)
	figures := rowFigures(rows, ceilings)
	for _, test := range []struct {
		name  string
		value float64
		met   bool
	}{
		{"raw_share_of_bare_loop", 5000.0 / 6000, false},
		{"raw_vs_best_workers", 4, true},
		{"raw_vs_zero_workers", 5, true},
		{"tokens_vs_memmap", 3, false},
		{"raw_cpu_s_per_gb", 0.15, true},
		{"raw_cpu_vs_best_workers", 0.15 / 0.75, true},
		{"tar_share_of_bare_loop", 0.9, true},
		{"tar_4k_share_of_bare_loop", 0.5, false},
		{"tar_vs_tarfile_workers", 6, true},
		{"tar_vs_webdataset", 10, true},
		{"tar_cpu_s_per_gb", 1000.0/5400 - 0.05, true},
	} {
		f, found := figures[test.name]
		if !found || f.Met == nil {
			t.Errorf("%s: no figure with a target", test.name)
			continue
		}
		if diff := f.Value - test.value; diff > 1e-9 || diff < -1e-9 || *f.Met != test.met {
			t.Errorf("%s: got %g met %v, want %g met %v", test.name, f.Value, *f.Met, test.value, test.met)
		}
	}
	if f := figures["raw_vs_handmade_ring"]; f.Met != nil || f.Value != 1.25 {
		t.Errorf("the hand-made ring is informative: got %+v", f)
	}
}

func TestBestRowWithWorkersIgnoresNoWorkersAndInformativeRows(t *testing.T) {
	rows, _ := madeRows(t)
	if got := bestWithWorkers(rows, caseRaw, loaderDataLoader); got == nil || got.key != caseRaw+"/DataLoader/best/w2/uint8" {
		t.Errorf("got %v", got)
	}
}

func TestPeersOfTarShardsAreShownWithoutWorkersToo(t *testing.T) {
	figures := rowFigures(madeRows(t))
	for name, want := range map[string]float64{"tar_vs_tarfile": 1.35, "tar_vs_webdataset_any": 5.4, "tar_4k_vs_tarfile_workers": 20} {
		if f := figures[name]; !near(f.Value, want) || f.Met != nil {
			t.Errorf("%s: %+v, want %g and no target", name, f, want)
		}
	}
}

func TestScanFiguresTakeTheWorstSet(t *testing.T) {
	sets := []*scanSet{{name: "100k"}, {name: "4k"}, {name: "1e6", data: TarData{Samples: 1_000_000}}}
	for range 3 {
		sets[0].add(ScanResult{Samples: 10, PagesNs: []int64{90, 100, 900}, ScanNs: []int64{100, 100, 1000}, LintNs: []int64{250, 150, 1500}})
		sets[1].add(ScanResult{Samples: 10, PagesNs: []int64{70, 70, 70}, ScanNs: []int64{100, 100, 100}, LintNs: []int64{220, 220, 220}})
		sets[2].add(ScanResult{Samples: 10, PagesNs: []int64{2000}, ScanNs: []int64{1000}, LintNs: []int64{1000}})
	}
	figures := map[string]Figure{}
	scanFigures(figures, sets, []float64{2500, 1500, 1200})
	for name, want := range map[string]struct {
		value float64
		met   bool
	}{"index_scan_share": {0.7, false}, "index_vs_tarfile": {15, true}, "lint_vs_scan": {2.2, false}} {
		f := figures[name]
		if !near(f.Value, want.value) || f.Met == nil || *f.Met != want.met {
			t.Errorf("%s: %+v, want %+v", name, f, want)
		}
	}
	if f := figures["index_scan_share_100k"]; !near(f.Value, 0.9) || f.Met != nil {
		t.Errorf("share of one set: %+v", f)
	}
	if f := figures["index_1e6_s"]; !near(f.Value, 0.1) {
		t.Errorf("seconds: %+v", f)
	}
}

func TestSharesOfShardsCoverAllAndAreNeverEmpty(t *testing.T) {
	all := []string{"a", "b", "c", "d", "e", "f", "g"}
	var got []string
	for part := range 3 {
		got = append(got, shareOf(all, part, 3)...)
	}
	if !slices.Equal(got, all) {
		t.Errorf("got %v", got)
	}
	for part := range 5 {
		if got := shareOf(all[:2], part, 5); len(got) != 1 {
			t.Errorf("part %d of 5: %v", part, got)
		}
	}
}

func TestFiguresWithoutTheirRowsAreLeftOut(t *testing.T) {
	if figures := rowFigures(nil, nil); len(figures) != 0 {
		t.Errorf("figures of nothing: %v", figures)
	}
}

func TestConsumerIsTakenOutOfEachRepeatAndNeverBelowZero(t *testing.T) {
	stoker := rowSpec{loader: "stoker", source: "stoker", data: caseRaw, dtype: "uint8"}
	rows := []Row{
		madeRow(stoker, []float64{1, 1, 1}, []float64{0.3, 0.5, 0.1}),
		madeRow(residentSpecs()[0], []float64{1, 1, 1}, []float64{0.1, 0.2, 0.3}),
	}
	takeOutConsumer(rows)
	for i := range rows {
		rows[i].summarise()
	}
	if want := []float64{0.2, 0.3, 0}; !slices.EqualFunc(rows[0].repeats["cpu_s_per_gb"], want, near) {
		t.Errorf("got %v, want %v", rows[0].repeats["cpu_s_per_gb"], want)
	}
	if !near(rows[0].ConsumerCPUSPerGB, 0.2) || !near(rows[1].CPUSPerGB, 0.2) {
		t.Errorf("the consumer's own row changed, or is not shown: %+v", rows)
	}
}

func near(a, b float64) bool { return a-b < 1e-9 && b-a < 1e-9 }

func TestQuickRunsKeepTheRowsThatTargetsNeed(t *testing.T) {
	all, ceilings := madeRows(t)
	specs := append(rowSpecs(), residentSpecs()...)
	var kept []Row
	for i, spec := range specs {
		if !spec.thorough() {
			kept = append(kept, all[i])
		}
	}
	quick := rowFigures(kept, ceilings)
	for name, f := range rowFigures(all, ceilings) {
		if _, found := quick[name]; f.Met != nil && !found {
			t.Errorf("quick runs have no figure %s", name)
		}
	}
	if len(kept) > 34 {
		t.Errorf("%d rows in quick runs: more than 4 minutes can hold", len(kept))
	}
}

func TestRowNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, spec := range append(rowSpecs(), residentSpecs()...) {
		if seen[spec.name()] {
			t.Errorf("two rows are called %q", spec.name())
		}
		seen[spec.name()] = true
	}
}

func TestRowValuesComeFromOneRun(t *testing.T) {
	a := runAnswer{
		Rows: 1000, Batches: 16, WallNs: 5e8, WaitNs: 2e8, CPUNs: 4e7, FirstBatchNs: 3e6,
		Pss: map[string]map[string]int64{"10": {"pss": 3 << 20, "pss_file": 1 << 20}, "20": {"pss": 5 << 20}},
	}
	got := rowValues(a, 100_000, 20)
	want := map[string]float64{
		"samples_per_s": 2000, "mb_per_s": 200, "cpu_s_per_gb": 0.4, "first_batch_ms": 3,
		"stall_share": 0.4, "pss_mb": 8, "pss_file_mb": 1, "daemon_pss_mb": 5,
	}
	for name, value := range want {
		if !near(got[name], value) {
			t.Errorf("%s: got %g, want %g", name, got[name], value)
		}
	}
}

func madeReport(t *testing.T) *Report {
	t.Helper()
	rows, ceilings := madeRows(t)
	r := &Report{
		Version: ReportVersion,
		Machine: Machine{CPU: "a CPU", Cores: 2, Date: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)},
		Rows:    rows, Ceilings: ceilings, Figures: rowFigures(rows, ceilings),
	}
	return r
}

func TestReportKeepsTheFieldsThatTheIssueNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	if err := madeReport(t).Write(path); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var decoded struct {
		Machine  map[string]any
		Ceilings []map[string]any
		Rows     []map[string]any
		Figures  map[string]map[string]any
	}
	if err := json.Unmarshal(content, &decoded); err != nil {
		t.Fatal(err)
	}
	if decoded.Machine["cpu"] != "a CPU" || len(decoded.Ceilings) == 0 {
		t.Errorf("machine %v, %d ceilings", decoded.Machine, len(decoded.Ceilings))
	}
	for _, field := range []string{
		"loader", "case", "workers", "samples_per_s", "mb_per_s", "cpu_s_per_gb",
		"first_batch_ms", "pss_mb", "stall_share", "spread",
	} {
		for _, row := range decoded.Rows {
			if _, found := row[field]; !found {
				t.Errorf("row %v has no %s", row["loader"], field)
			}
		}
	}
	for name, figure := range decoded.Figures {
		for _, field := range []string{"value", "min", "max"} {
			if _, found := figure[field]; !found {
				t.Errorf("figure %s has no %s", name, field)
			}
		}
	}
}

func TestPrintShowsEveryMissBesideItsTarget(t *testing.T) {
	var out bytes.Buffer
	r := madeReport(t)
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	if missed := r.Missed(); !slices.Contains(missed, "tokens_vs_memmap") {
		t.Errorf("missed: %v", missed)
	}
	for _, want := range []string{"MISSED: ", "tokens_vs_memmap", ">= 4", "DataLoader *", "bare loop + consumer", "a CPU, 2 cores", "tar-4k", "webdataset", "extractfile"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
}
