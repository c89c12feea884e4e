//go:build cgo && linux

package cufile

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stokerio/stoker/cufile/stub"
)

// vendorFolder is where NVIDIA's packages lie that `make setup` installs: their
// headers in include, their library in lib.
func vendorFolder(t testing.TB) string {
	t.Helper()
	if headers := os.Getenv("STOKER_CUDA_HEADERS"); headers != "" {
		return filepath.Dir(headers)
	}
	found, err := filepath.Glob("../.venv/lib/python3*/site-packages/nvidia/cu13")
	if err != nil || len(found) == 0 {
		t.Fatal("NVIDIA's headers are not in .venv: run `make setup`, or name the folder that holds cuda.h and cufile.h in STOKER_CUDA_HEADERS")
	}
	return found[0]
}

func realLibrary(t testing.TB) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(vendorFolder(t), "lib", "libcufile.so.0"))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// newerNumbers are of headers after the one that the tests install. The test of
// cuda-bindings, in Python, compares them.
var newerNumbers = []string{
	"CUFILE_STATS1_VECTOR_WORDS", "CU_FILE_VIRTIOFS_SUPPORTED",
	"CUFILE_P2PDMA", "CUFILE_NVFS", "CUFILE_DMABUF", "CUFILE_C2C", "CUFILE_NVIDIA_PEERMEM",
}

// enumerations compares every number of abi.h with the one that NVIDIA's headers
// have under the same name.
func enumerations(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("#include \"layout.c\"\n")
	for name, number := range enumerators(t) {
		if slices.Contains(newerNumbers, name) {
			continue
		}
		fmt.Fprintf(&b, "_Static_assert((int)%s == %d, \"%s\");\n", name, number, name)
	}
	return b.String()
}

func TestABIIsThatOfNVIDIAsHeaders(t *testing.T) {
	source := filepath.Join(t.TempDir(), "all.c")
	if err := os.WriteFile(source, []byte(enumerations(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(stub.Compiler(), "-std=gnu11", "-fsyntax-only", "-Wall", "-I.", "-Itestdata", "-isystem", filepath.Join(vendorFolder(t), "include"), source)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// The check above must be able to fail.
func TestABICheckFindsADifference(t *testing.T) {
	abi, err := os.ReadFile("abi.h")
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []struct{ from, to, about string }{
		{"STOKER_CU_FILE_IO_ERROR = 5044", "STOKER_CU_FILE_IO_ERROR = 5045", "CU_FILE_IO_ERROR"},
		{"STOKER_AT(stoker_cufile_gpu_stats, n_p2p_reads, 56)", "STOKER_AT(stoker_cufile_gpu_stats, n_p2p_reads, 64)", "n_p2p_reads"},
		{"(stoker_cufile_handle handle, void *base, size_t bytes, off_t file_offset, off_t base_offset)", "(stoker_cufile_handle handle, void *base, off_t file_offset, size_t bytes, off_t base_offset)", "cuFileRead"},
	} {
		if strings.Count(string(abi), change.from) != 1 {
			t.Fatalf("abi.h has no %q", change.from)
		}
		dir := t.TempDir()
		changed := strings.Replace(string(abi), change.from, change.to, 1)
		text := enumerations(t)
		if err := os.WriteFile(filepath.Join(dir, "abi.h"), []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if change.about == "CU_FILE_IO_ERROR" {
			text = strings.Replace(text, "CU_FILE_IO_ERROR == 5044", "CU_FILE_IO_ERROR == 5045", 1)
		}
		source := filepath.Join(dir, "all.c")
		if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := exec.Command(stub.Compiler(), "-std=gnu11", "-fsyntax-only", "-I"+dir, "-Itestdata", "-isystem", filepath.Join(vendorFolder(t), "include"), source)
		if out, err := c.CombinedOutput(); err == nil || !strings.Contains(string(out), change.about) {
			t.Errorf("a wrong %s passed: %v\n%s", change.about, err, out)
		}
	}
}

// later are functions of cuFile releases after the library that the tests install.
var later = []string{"cuFileDriverGetP2PFlags", "cuFileReadv"}

func TestEverySymbolIsInNVIDIAsLibrary(t *testing.T) {
	r := newRig(t, stub.V1_15)
	file, err := elf.Open(realLibrary(t))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	dynamic, err := file.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	d := r.open()
	looked := 0
	for _, s := range d.Symbols() {
		if s.Library != "libcufile" || slices.Contains(later, s.Name) {
			continue
		}
		looked++
		if !slices.ContainsFunc(dynamic, func(e elf.Symbol) bool { return e.Name == s.Name && e.Section != elf.SHN_UNDEF }) {
			t.Errorf("NVIDIA's library has no %s", s.Name)
		}
	}
	if looked < 20 {
		t.Errorf("only %d symbols were looked up", looked)
	}
	r.close(d)
}
