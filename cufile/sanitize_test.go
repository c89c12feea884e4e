//go:build cgo && linux

package cufile

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stokerio/stoker/cufile/stub"
)

// The shim and the stand-ins in one C program, where the sanitisers see every byte
// and count what is not given back.
func TestShimIsCleanUnderTheSanitizers(t *testing.T) {
	flags := []string{"-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"}
	libraries, err := stub.Cached(stub.Options{Version: stub.V1_16, Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "sanitize")
	arguments := append([]string{"-std=gnu11", "-Wall", "-Wextra", "-Werror", "-I."}, flags...)
	arguments = append(arguments, "-o", program, "testdata/sanitize.c", "load.c", "device.c", "segment.c", "storage.c", "-ldl")
	if out, err := exec.Command(stub.Compiler(), arguments...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	file, _ := randomFile(t, 300_001)
	c := exec.Command(program, libraries.CUDA, libraries.CUFile, file)
	c.Env = append(os.Environ(), "STOKER_STUB_QUIET=1", "CUFILE_ALLOW_COMPAT_MODE=false", "ASAN_OPTIONS=detect_leaks=1")
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
