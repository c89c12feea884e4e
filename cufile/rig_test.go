//go:build cgo && linux

package cufile

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stokerio/stoker/cufile/stub"
)

// rig is a machine made of stand-ins, and what it holds when a test is over.
type rig struct {
	t           testing.TB
	state       *stub.State
	device      string // path of libcuda
	storage     string // path of libcufile; empty: none
	descriptors int
	mappings    int
}

// newRig makes a machine with one version of the storage library. When the test is
// over nothing may live in it: no handle, no memory, no descriptor, no mapping.
func newRig(t testing.TB, version stub.Version, without ...string) *rig {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	state, err := stub.NewState(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("STOKER_STUB_STATE", path)
	t.Setenv("STOKER_STUB_QUIET", "1")
	t.Setenv("CUFILE_ENV_PATH_JSON", "")
	r := &rig{t: t, state: state, device: libraries(t, stub.V1_16).CUDA, storage: libraries(t, version, without...).CUFile}
	r.warmUp()
	r.descriptors, r.mappings = openDescriptors(t), memoryMappings(t)
	t.Cleanup(r.check)
	return r
}

// libraries builds stand-ins once. The process loads one libcuda, as the stand-in for
// libcufile takes the one that is loaded.
func libraries(t testing.TB, version stub.Version, without ...string) stub.Libraries {
	t.Helper()
	l, err := stub.Cached(stub.Options{Version: version, Without: without})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// warmUp loads the libraries, which stay.
func (r *rig) warmUp() {
	r.t.Helper()
	if d, err := Open(r.options()); err == nil {
		r.close(d)
	}
}

func (r *rig) options() Options {
	return Options{Device: r.device, Storage: r.storage, NoStorage: r.storage == "", Statistics: 3}
}

func (r *rig) open() *Driver {
	r.t.Helper()
	d, err := Open(r.options())
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

// gpu opens the first GPU.
func (r *rig) gpu(d *Driver) *Device {
	r.t.Helper()
	all, err := d.Devices()
	if err != nil {
		r.t.Fatal(err)
	}
	g, err := d.Device(all[0].UUID)
	if err != nil {
		r.t.Fatal(err)
	}
	return g
}

func (r *rig) slab(g *Device, bytes int64) *Slab {
	r.t.Helper()
	s, err := g.NewSlab(bytes)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) close(closers ...interface{ Close() error }) {
	r.t.Helper()
	for _, c := range closers {
		if err := c.Close(); err != nil {
			r.t.Errorf("%T: %v", c, err)
		}
	}
}

// file writes random bytes and opens them.
func (r *rig) file(d *Driver, size int) (*File, []byte) {
	r.t.Helper()
	path, content := randomFile(r.t, size)
	f, err := d.OpenFile(path, FileOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return f, content
}

func randomFile(t testing.TB, size int) (string, []byte) {
	t.Helper()
	content := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

func (r *rig) faults(faults ...stub.Fault) {
	r.t.Helper()
	if err := r.state.SetFaults(faults...); err != nil {
		r.t.Fatal(err)
	}
}

// fired fails the test if a fault that it set never struck.
func (r *rig) fired(n int) {
	r.t.Helper()
	for i := range n {
		if r.state.Fired(i) == 0 {
			r.t.Errorf("fault %d never fired", i)
		}
	}
}

// check counts what is left.
func (r *rig) check() {
	if live := r.state.Live(""); live != 0 {
		r.t.Errorf("%d things live on in the stand-ins: %s", live, r.living())
	}
	if leaked := r.state.Leaked(); leaked != 0 {
		r.t.Errorf("%d things were left to the end of a context", leaked)
	}
	if got := openDescriptors(r.t); got != r.descriptors {
		r.t.Errorf("%d descriptors, %d before", got, r.descriptors)
	}
	if got := memoryMappings(r.t); got != r.mappings {
		r.t.Errorf("%d mappings of memory files, %d before", got, r.mappings)
	}
	if err := r.state.Close(); err != nil {
		r.t.Error(err)
	}
}

func (r *rig) living() string {
	text := ""
	for _, kind := range []string{"contexts", "allocations", "mappings", "reservations", "memory", "ipc", "registered_host", "streams", "files", "buffers", "drivers"} {
		if n := r.state.Live(kind); n != 0 {
			text += fmt.Sprintf(" %d %s", n, kind)
		}
	}
	return text
}

func openDescriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func memoryMappings(t testing.TB) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(text, []byte("memfd:"))
}
