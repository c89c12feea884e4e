package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// built holds the programs, built once for all tests.
var built struct {
	once sync.Once
	bin  string
	err  error
}

func buildPrograms() {
	if built.bin, built.err = os.MkdirTemp("", "stoker-bench-test-"); built.err != nil {
		return
	}
	build := exec.Command("go", "build", "-o", built.bin+"/", "./cmd/stoker", "./cmd/stokerd")
	build.Dir = findRoot()
	if out, err := build.CombinedOutput(); err != nil {
		built.err = fmt.Errorf("build the programs: %w\n%s", err, out)
	}
}

func TestMain(m *testing.M) {
	status := m.Run()
	if built.bin != "" {
		_ = os.RemoveAll(built.bin)
	}
	os.Exit(status)
}

// programs builds stoker and stokerd and finds an interpreter with torch.
func programs(t *testing.T) CompareOptions {
	t.Helper()
	o := CompareOptions{Root: findRoot()}
	built.once.Do(buildPrograms)
	if built.err != nil {
		t.Fatal(built.err)
	}
	bin := built.bin
	o.Stoker, o.Stokerd = filepath.Join(bin, "stoker"), filepath.Join(bin, "stokerd")
	o.Python, o.PythonPath = pythonWithTorch(t, o.Root), filepath.Join(o.Root, "python")
	return o
}

func pythonWithTorch(t *testing.T, root string) string {
	t.Helper()
	python := findPython(root)
	if out, err := exec.Command(python, "-c", "import numpy, torch").CombinedOutput(); err != nil {
		t.Fatalf("%s can not import numpy and torch (%v): run `make setup` first\n%s", python, err, out)
	}
	return python
}

// tiny shrinks a comparison to what a unit test can afford.
func tiny(t *testing.T, o CompareOptions) CompareOptions {
	t.Helper()
	o.DataDir = t.TempDir()
	o.Cases = []string{GroupRaw, GroupTokens}
	o.RawFiles, o.TokenBytes, o.TarSamples, o.ScanSamples = 64, 2*(140*tokenBlock+1), 130, 200
	o.Repeats, o.Section, o.SteadyBatches = 1, 50*time.Millisecond, 10_000
	o.Only = caseRaw + "/stoker/uint8"
	return o
}

// leftovers lists processes whose command line names dir.
func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, line := range lines {
		content, err := os.ReadFile(line)
		if err == nil && strings.Contains(string(content), dir) {
			found = append(found, fmt.Sprintf("%s: %q", line, content))
		}
	}
	return found
}

func TestTinyComparisonEndToEnd(t *testing.T) {
	o := tiny(t, programs(t))
	var labels []string
	o.Progress = func(done, total int, label string) {
		if done > total {
			t.Errorf("step %d of %d: %s", done, total, label)
		}
		labels = append(labels, label)
	}
	report, err := Compare(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Rows) != 1 || len(report.Ceilings) != 8 {
		t.Errorf("%d rows, %d ceilings", len(report.Rows), len(report.Ceilings))
	}
	for _, row := range report.Rows {
		if row.SamplesPerS <= 0 || row.FirstBatchMs <= 0 || row.PssMB <= 0 || row.DaemonPssMB <= 0 {
			t.Errorf("row %s measured nothing: %+v", row.key, row)
		}
	}
	for _, name := range []string{
		"raw_share_of_bare_loop", "raw_cpu_s_per_gb", "daemon_pss_mb", "first_batch_ms_1e4",
		"first_batch_ms_1e7", "open_1e8_ms", "order_bytes_1e8", "daemon_pss_growth_mb", "go_allocs_per_batch",
	} {
		if f, found := report.Figures[name]; !found || f.Met == nil {
			t.Errorf("no figure %s with a target", name)
		}
	}
	if report.Machine.Torch == "" || report.Machine.CPU == "" || len(labels) == 0 {
		t.Errorf("machine %+v, %d steps", report.Machine, len(labels))
	}
	if left := leftovers(t, o.Stokerd); len(left) != 0 {
		t.Errorf("still running: %v", left)
	}
}

func TestTinyComparisonOfTarShards(t *testing.T) {
	o := tiny(t, programs(t))
	o.Cases, o.Only, o.endEachRun = []string{GroupTar}, "/stoker/", true
	report, err := Compare(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Rows) != 2 || len(report.Ceilings) != 7 {
		t.Errorf("%d rows, %d ceilings", len(report.Rows), len(report.Ceilings))
	}
	for _, name := range []string{
		"tar_share_of_bare_loop", "tar_4k_share_of_bare_loop", "tar_cpu_s_per_gb", "tar_4k_daemon_pss_mb",
		"index_scan_share", "index_vs_tarfile", "lint_vs_scan",
	} {
		if f, found := report.Figures[name]; !found || f.Met == nil || f.Value <= 0 {
			t.Errorf("figure %s: %+v", name, f)
		}
	}
	for name := range report.Figures {
		if strings.HasPrefix(name, "raw_") || strings.HasPrefix(name, "open_") {
			t.Errorf("figure %s of a case that was not asked for", name)
		}
	}
	if report.Settings.Slots[caseTar] == 0 {
		t.Errorf("settings %+v", report.Settings)
	}
}

func TestCancelledComparisonEndsItsProcesses(t *testing.T) {
	o := tiny(t, programs(t))
	o.SkipFigures = true
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(context.Background())
	o.endEachRun = true
	o.Section = time.Hour // only the cancellation ends it
	o.Progress = func(_, _ int, label string) {
		if strings.HasPrefix(label, "repeat 1 of 1") {
			time.AfterFunc(100*time.Millisecond, func() { cancel(stop) })
		}
	}
	begin := time.Now()
	_, err := Compare(ctx, o)
	if !errors.Is(err, stop) {
		t.Errorf("got %v, want the cause of the cancellation", err)
	}
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("ended after %s", took)
	}
	if left := leftovers(t, o.Stokerd); len(left) != 0 {
		t.Errorf("still running: %v", left)
	}
}

func TestComparisonWithoutProgramsSaysHowToGetThem(t *testing.T) {
	o := CompareOptions{Stokerd: "/nowhere/stokerd", Stoker: "/nowhere/stoker", Root: t.TempDir()}
	_, err := Compare(context.Background(), o)
	if err == nil || !strings.Contains(err.Error(), "make build") || !strings.Contains(err.Error(), "--python-path") {
		t.Errorf("got %v", err)
	}
}

// peer starts the consumer of a peer's row on small data.
func peer(t *testing.T, python string, d Data, spec rowSpec) *consumer {
	t.Helper()
	o := CompareOptions{Python: python, PythonPath: ".", Logger: slog.New(slog.DiscardHandler)}
	i, err := newInterpreter(o, t.TempDir(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c, err := startConsumer(context.Background(), i, spec.name(), spec.config(d))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPeersDeliverTheDataAndTimeIt(t *testing.T) {
	python := pythonWithTorch(t, findRoot())
	_, d := smallData(t, t.TempDir())
	wanted := map[string]bool{
		caseRaw + "/DataLoader/best/w1/uint8": true, caseRaw + "/DataLoader/pool/w2/uint8": true,
		caseTokens + "/DataLoader/default/w1/uint16": true, caseTokens + "/memmap/int64": true,
		caseTar + "/tarfile/best/w1/uint8": true, caseTarSmall + "/tarfile/default/w0/uint8": true,
		caseTarSmall + "/tarfile/mapped/w0/uint8": true, caseTarSmall + "/tarfile/extractfile/w2/uint8": true,
		caseTar + "/webdataset/best/w0/uint8": true, caseTarSmall + "/webdataset/best/w1/uint8": true,
	}
	for _, spec := range rowSpecs() {
		if !wanted[spec.name()] {
			continue
		}
		delete(wanted, spec.name())
		t.Run(spec.name(), func(t *testing.T) {
			t.Parallel()
			c := peer(t, python, d, spec)
			defer func() {
				if err := c.close(); err != nil {
					t.Error(err)
				}
			}()
			if a, err := c.verify(context.Background(), 1); err != nil || a.Distinct < 2 {
				t.Errorf("verify: %+v, %v", a, err)
			}
			a, err := c.run(context.Background(), 50*time.Millisecond, 0, 0)
			if err != nil || a.Rows == 0 || a.CPUNs == 0 || len(a.Pss) != spec.workers+1 {
				t.Errorf("run: %+v, %v", a, err)
			}
		})
	}
	if len(wanted) != 0 {
		t.Errorf("no such rows: %v", wanted)
	}
}

func TestWrongBytesAndFailuresAreReported(t *testing.T) {
	python := pythonWithTorch(t, findRoot())
	_, d := smallData(t, t.TempDir())
	content := read(t, d.Tokens)
	for i := 0; i < len(content); i += 2 * tokenBlock {
		content[i] ^= 1
	}
	if err := os.WriteFile(d.Tokens, content, 0o600); err != nil {
		t.Fatal(err)
	}
	c := peer(t, python, d, rowSpec{loader: "memmap", source: "memmap", data: caseTokens, dtype: "uint16"})
	_, err := c.verify(context.Background(), 1)
	if err == nil || !strings.Contains(err.Error(), "wrong bytes in 64 of 64") {
		t.Errorf("got %v", err)
	}
	if err := os.Remove(d.Tokens); err != nil {
		t.Fatal(err)
	}
	_, err = c.run(context.Background(), time.Millisecond, 0, 0)
	if err == nil || !strings.Contains(err.Error(), "FileNotFoundError") {
		t.Errorf("got %v, want the traceback", err)
	}
	if err := c.close(); err != nil {
		t.Error(err)
	}
}

func TestRowsKnowMembersOfOtherDataFromTheirOwn(t *testing.T) {
	python := pythonWithTorch(t, findRoot())
	_, d := smallData(t, t.TempDir())
	spec := rowSpec{loader: loaderTarfile, source: "tarfile", data: caseTarSmall, dtype: "uint8", collate: "best"}
	other := d.TarSmall
	other.salt = rawSalt
	if err := os.RemoveAll(other.shard(0)); err != nil {
		t.Fatal(err)
	}
	if err := other.write(context.Background()); err != nil {
		t.Fatal(err)
	}
	c := peer(t, python, d, spec)
	_, err := c.verify(context.Background(), 1)
	if err == nil || !strings.Contains(err.Error(), "wrong bytes in 64 of 64") {
		t.Errorf("got %v", err)
	}
	if err := c.close(); err != nil {
		t.Error(err)
	}
}

func TestConsumersStayWhereThereIsRoomForThem(t *testing.T) {
	o := CompareOptions{Cases: Groups(), RawFiles: 10_485, TokenBytes: 1 << 30, TarSamples: 1 << 18, ScanSamples: 1_000_000}
	c := comparison{o: o, data: dataAt(o), specs: make([]rowSpec, 50)}
	for _, test := range []struct {
		available int64
		want      int
	}{{0, 0}, {6 << 30, 0}, {8 << 30, 4}, {22 << 30, 40}, {64 << 30, 50}} {
		if got := c.consumersKept(test.available); got < test.want-1 || got > test.want+1 {
			t.Errorf("%d GiB available: %d consumers stay, want about %d", test.available>>30, got, test.want)
		}
	}
	c.o.endEachRun = true
	if got := c.consumersKept(64 << 30); got != 0 {
		t.Errorf("%d consumers stay", got)
	}
}

func TestWakeupsOfEachKind(t *testing.T) {
	report, err := Wakeups(context.Background(), WakeupOptions{RoundTrips: 50, Python: "python3"})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Wakeups) != len(wakeupKinds) {
		t.Fatalf("%+v", report)
	}
	for _, w := range report.Wakeups {
		if w.MedianUs <= 0 || w.P99Us < w.MedianUs || w.MinUs > w.MedianUs {
			t.Errorf("%+v", w)
		}
	}
}
