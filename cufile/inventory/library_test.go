//go:build cgo && linux

package inventory

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// standIn compiles a libnvidia-ml.so.1 of an old driver.
func standIn(t *testing.T) string {
	t.Helper()
	library := filepath.Join(t.TempDir(), "libnvidia-ml.so.1")
	compiler := cmp.Or(os.Getenv("CC"), "cc")
	if out, err := exec.Command(compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, "testdata/nvml.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return library
}

// What an old library lacks would end the process if it was called: this test is then
// gone. Read is called twice, as what was bound the first time has to be there again.
func TestAnOldLibraryIsReadAgainAndAgain(t *testing.T) {
	library := standIn(t)
	first := Read(t.Context(), Options{Library: library, Interval: 1, Wait: atOnce})
	second := Read(t.Context(), Options{Library: library, Interval: 1, Wait: atOnce})
	if !reflect.DeepEqual(first, second) {
		t.Errorf("got  %s\nthen %s", text(t, first), text(t, second))
	}
	if first.Absent != "" || first.Driver != "470.1" || first.CUDA != 11040 || len(first.GPUs) != 1 {
		t.Fatalf("%s", text(t, first))
	}
	gpu := first.GPUs[0]
	if gpu.UUID != "GPU-stand-in" || gpu.PCI != "0001:17:02.0" || gpu.Major != 8 || gpu.Memory == nil || gpu.Memory.Free != 7<<30 {
		t.Errorf("%s", text(t, gpu))
	}
	for _, what := range []string{"bar1", "mig", "link", "utilisation", "metrics"} {
		if !strings.Contains(gpu.Absent[what], "this driver's library has no nvml") {
			t.Errorf("%s: %q", what, gpu.Absent[what])
		}
	}
}
