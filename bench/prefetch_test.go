package bench

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stokerio/stoker/prefetch/sim"
)

// What the simulated steps find is held to its targets by prefetch/sim's tests and by the
// benchmark itself.
func TestTheDiskFillsTheReport(t *testing.T) {
	dir := t.TempDir()
	o := PrefetchOptions{
		Quick: true, DataDir: dir, Steps: []string{StepDisk},
		disk:   ColdDiskOptions{Samples: 4 * coldBatch, WarmUp: 1},
		device: DeviceOptions{FileBytes: 1 << 20, SyncBytes: 1 << 20},
	}
	last := -1
	o.Progress = func(done, total int, label string) {
		if done < last || done > total || label == "" {
			t.Errorf("%d of %d after %d: %s", done, total, last, label)
		}
		last = done
	}
	r, err := Prefetch(t.Context(), o)
	if onMemory(t, dir) {
		if err == nil || !strings.Contains(err.Error(), "--skip-disk") {
			t.Errorf("files in memory: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range r.Figures {
		i := slices.IndexFunc(PrefetchFigures(), func(text FigureText) bool { return text.Name == name })
		if i < 0 || f.Target != PrefetchFigures()[i].Target() || !strings.HasPrefix(f.Note, PrefetchFigures()[i].What) {
			t.Errorf("%s: %+v", name, f)
		}
	}
	for _, name := range []string{"cold_disk_stall_share", "cold_disk_stall_share_without_foresight", "cold_disk_device"} {
		if _, ok := r.Figures[name]; !ok {
			t.Errorf("figure %s is missing", name)
		}
	}
	if r.Device == nil || len(r.Disk) != 2*3*2 {
		t.Errorf("the device is %+v, and there are %d rows of cold reads", r.Device, len(r.Disk))
	}
	var out bytes.Buffer
	if err := r.Print(&out); err != nil || !strings.Contains(out.String(), "sequential 1 MiB") || strings.Contains(out.String(), "a chunk") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestStepsThatAreLeftOut(t *testing.T) {
	if _, err := Prefetch(t.Context(), PrefetchOptions{Steps: []string{"depth", "nonsense"}}); err == nil || !strings.Contains(err.Error(), "disk, depth") {
		t.Errorf("a step that is not there: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "data")
	r, err := Prefetch(t.Context(), PrefetchOptions{SkipDisk: true, DataDir: dir, Steps: []string{StepDisk}})
	if err != nil || r.Device != nil || len(r.Figures) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data directory is there though nothing was to be read: %v", err)
	}
	cancelled, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if _, err := Prefetch(cancelled, PrefetchOptions{SkipDisk: true}); !errors.Is(err, enough) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestWorldsGiveTheFiguresOfTheirDeciders(t *testing.T) {
	b := prefetchBench{o: PrefetchOptions{Quick: true}, report: &PrefetchReport{Figures: map[string]Figure{}}}
	played := map[string]int{}
	world := func(name string) sharedWorld {
		return sharedWorld{
			name: name, deciders: []namedDeciders{{name: "stoker"}, {name: "other"}},
			play: func(uint64, sim.Deciders) (map[string]float64, error) {
				played[name]++
				return map[string]float64{"error": float64(played[name]), "b": 1, "a": 2}, nil
			},
			figures: []measured{{"weights_error", "stoker", "error"}, {"weights_error_unmanaged", "other", "error"}},
		}
	}
	if err := b.play(t.Context(), []sharedWorld{world("first")}); err != nil {
		t.Fatal(err)
	}
	if len(b.report.Worlds) != 2 || b.report.Worlds[1].Decider != "other" || b.report.Worlds[0].text() != "a 2  b 1  error 1" {
		t.Errorf("%+v", b.report.Worlds)
	}
	if f := b.report.Figures; f["weights_error"].Value != 1 || f["weights_error_unmanaged"].Value != 2 {
		t.Errorf("%+v", f)
	}
	broken := world("broken")
	broken.play = func(uint64, sim.Deciders) (map[string]float64, error) { return nil, os.ErrInvalid }
	if err := b.play(t.Context(), []sharedWorld{broken}); !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), "broken, stoker") {
		t.Errorf("%v", err)
	}
}

func TestAFigureWithoutTextIsADefect(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	(&prefetchBench{report: &PrefetchReport{}}).figure("nonsense", Spread{}, "")
}

func TestPlanningIsTimedCallByCall(t *testing.T) {
	row, err := planCost(t.Context(), 20_000, 4, 2, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if !(row.UsPerSample > 0) || len(row.Calls) != int(planCalls) {
		t.Fatalf("%+v", row)
	}
	for _, call := range row.Calls {
		if call.Calls == 0 || !(call.MeanUs <= call.WorstUs && call.P9999Us <= call.WorstUs) {
			t.Errorf("%+v", call)
		}
	}
}

func TestCallsAreSummedUp(t *testing.T) {
	took := make([]int64, 10_000)
	for i := range took {
		took[i] = int64(len(took)-i) * 1000 // 10 ms down to 1 µs
	}
	if got, want := callRow("Next", took), (CallRow{"Next", 10_000, 5000.5, 10_000, 10_000}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := callRow("Wake", []int64{7000}); got.MeanUs != 7 || got.P9999Us != 7 || got.WorstUs != 7 {
		t.Errorf("%+v", got)
	}
}

func TestEqualSeedsShareTheTablesOfTheirOrders(t *testing.T) {
	// Without sharing it would be 16; other tests leave garbage behind.
	if bytes, err := tableBytes(t.Context(), 1<<20); err != nil || math.Abs(bytes-8) > 0.5 {
		t.Errorf("two streams take %g bytes a sample, %v", bytes, err)
	}
}
