//go:build cgo && linux

package cufile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/cufile/stub"
)

// roles are what this test program does in another process.
var roles = map[string]func(){
	"importer":        importer,
	"exporter":        func() { exporter((*Device).NewSlab) },
	"legacy exporter": func() { exporter((*Device).NewLegacySlab) },
	"descriptors":     listDescriptors,
	"real":            openReal,
	"opening":         func() { must(Open(Options{NoStorage: true})) },
}

const sharedBytes = 4 << 20

// pattern is what the processes look for in each other's slabs.
func pattern() []byte { return bytes.Repeat([]byte("device memory of another process\n"), 1000) }

// must ends a role with the reason where there is one.
func must[T any](v T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return v
}

// partner is the other end of the parent's socket.
func partner() *net.UnixConn {
	file := os.NewFile(3, "socket")
	c := must(net.FileConn(file))
	must(0, file.Close())
	return c.(*net.UnixConn)
}

func firstGPU() *Device {
	d := must(Open(Options{NoStorage: true}))
	all := must(d.Devices())
	return must(d.Device(all[0].UUID))
}

// importer maps each slab that it is sent, and says "ok" if it holds the pattern. It
// ends without closing anything, as a trainer that is killed does.
func importer() {
	c, g := partner(), firstGPU()
	for {
		s, err := ReceiveSlab(c, g, false)
		if errors.Is(err, io.EOF) {
			return
		}
		must(s, err)
		got := make([]byte, len(pattern()))
		must(0, s.CopyOut(got, 1<<20))
		if !bytes.Equal(got, pattern()) {
			must(0, errors.New("the slab does not hold the pattern"))
		}
		must(c.Write([]byte("ok")))
	}
}

// exporter sends a slab with the pattern and waits to be killed.
func exporter(build func(*Device, int64) (*Slab, error)) {
	c, g := partner(), firstGPU()
	s := must(build(g, sharedBytes))
	must(0, s.CopyIn(pattern(), 1<<20))
	must(0, SendSlab(c, s))
	must(io.Copy(io.Discard, c))
}

func listDescriptors() {
	for _, entry := range must(os.ReadDir("/proc/self/fd")) {
		target, err := os.Readlink("/proc/self/fd/" + entry.Name())
		if err == nil {
			fmt.Println(entry.Name(), target)
		}
	}
}

// child starts this program in a role; its end of the socket is descriptor 3.
func child(t testing.TB, role, device string) (*exec.Cmd, *net.UnixConn) {
	t.Helper()
	descriptors, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(descriptors[1]), "socket")
	defer theirs.Close()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), roleVariable+"="+role, DeviceLibraryVariable+"="+device)
	c.ExtraFiles = []*os.File{theirs}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c, unixConn(t, descriptors[0])
}

// kill ends a child with SIGKILL and waits for it.
func kill(t testing.TB, c *exec.Cmd) {
	t.Helper()
	if err := c.Process.Kill(); err != nil {
		t.Error(err)
	}
	if err := c.Wait(); err == nil || c.ProcessState.ExitCode() != -1 {
		t.Errorf("the child ended by itself: %v", err)
	}
}

func free(t testing.TB, g *Device) int64 {
	t.Helper()
	n, _, err := g.Memory()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestASlabOutlivesItsReader(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	before := free(t, g)
	s := r.slab(g, sharedBytes)
	if err := s.CopyIn(pattern(), 1<<20); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		reader, c := child(t, "importer", r.device)
		if err := SendSlab(c, s); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 2)
		if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "ok" {
			t.Errorf("the reader answers %q, %v", answer, err)
		}
		kill(t, reader)
		expect(t, s, 1<<20, pattern())
		r.close(c)
	}
	r.close(s)
	if got := free(t, g); got != before {
		t.Errorf("%d bytes of device memory are missing", before-got)
	}
	r.close(g, d)
}

func TestASlabOutlivesItsMaker(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	before := free(t, g)
	for range 3 {
		maker, c := child(t, "exporter", r.device)
		s, err := ReceiveSlab(c, g, false)
		if err != nil {
			t.Fatal(err)
		}
		kill(t, maker)
		expect(t, s, 1<<20, pattern())
		r.close(s, c)
		if got := free(t, g); got != before {
			t.Errorf("%d bytes of device memory are missing", before-got)
		}
	}
	r.close(g, d)
}

// A legacy slab belongs to its maker, who must outlive the readers.
func TestALegacySlabTravelsAsAHandle(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	before := free(t, g)
	maker, c := child(t, "legacy exporter", r.device)
	s, err := ReceiveSlab(c, g, false)
	if err != nil {
		t.Fatal(err)
	}
	if s.Kind() != SlabLegacy || s.Bytes() != sharedBytes || s.Writable() {
		t.Errorf("a %s slab of %d bytes, writable %v", s.Kind(), s.Bytes(), s.Writable())
	}
	expect(t, s, 1<<20, pattern())
	if err := s.CopyIn([]byte{1}, 0); !errors.Is(err, ErrReadOnly) {
		t.Errorf("a write into a slab that was received to be read: %v", err)
	}
	r.close(s, c)
	if err := maker.Wait(); err != nil {
		t.Error(err)
	}
	mine, err := g.NewLegacySlab(sharedBytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := mine.CopyIn(pattern(), 1<<20); err != nil {
		t.Fatal(err)
	}
	reader, c := child(t, "importer", r.device)
	if err := SendSlab(c, mine); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 2)
	if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "ok" {
		t.Errorf("the reader answers %q, %v", answer, err)
	}
	kill(t, reader)
	r.close(c, mine)
	if got := free(t, g); got != before {
		t.Errorf("%d bytes of device memory are missing", before-got)
	}
	r.close(g, d)
}

// A child that another goroutine starts while slabs are exported and files opened
// must inherit nothing.
func TestChildrenInheritNothing(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	s := r.slab(g, 2<<20)
	f, content := r.file(d, 4096)
	e, err := s.Export()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), roleVariable+"=descriptors")
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "memfd") || strings.Contains(line, f.Path()) {
			t.Errorf("the child has %s", line)
		}
	}
	if len(out) == 0 {
		t.Error("the child listed nothing")
	}
	if n, err := f.ReadAt(s, 0, 4096, 0); n != 4096 || err != nil {
		t.Errorf("a read after the fork: %d, %v", n, err)
	}
	expect(t, s, 0, content)
	r.close(e, f, s, g, d)
}

// The library gives a descriptor without close-on-exec: a child that is started before
// it is set would keep the memory for as long as it lives.
func TestChildrenThatStartDuringAnExportInheritNothing(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	s := r.slab(g, 2<<20)
	var group sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		group.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				e, err := s.Export()
				if err != nil {
					t.Error(err)
					return
				}
				r.close(e)
			}
		})
	}
	for range 60 {
		c := exec.Command("/bin/ls", "-l", "/proc/self/fd")
		if out, err := c.Output(); err != nil || strings.Contains(string(out), "stoker-stub") {
			t.Errorf("the child has %s, %v", out, err)
			break
		}
	}
	close(done)
	group.Wait()
	r.close(s, g, d)
}

// openReal opens NVIDIA's own library as Open does, but with no driver below it, and
// prints what came of it.
func openReal() {
	on := true
	d := &Driver{table: must(newTable()), vendor: &nvidia, found: make(map[string]bool)}
	d.options.Parameters = Parameters{MaxDirectBytes: 8 << 20, MaxPinnedBytes: 1 << 30, PCIP2PDMA: &on}
	restore := must(d.configure())
	path := must(d.load(storageLibrary, os.Getenv(StorageLibraryVariable), ErrNoStorage))
	d.findVersion()
	must(0, d.setParameters())
	opened := d.table.openStorage()
	restore()
	fmt.Println(d.versions.CuFile, d.versions.Inferred, opened.err(path))
}

func TestNVIDIAsLibraryFailsCleanlyWithoutADriver(t *testing.T) {
	c := exec.Command(os.Args[0])
	c.Dir = t.TempDir()
	logs := t.TempDir()
	c.Env = append(os.Environ(), roleVariable+"=real", StorageLibraryVariable+"="+realLibrary(t), "TMPDIR="+logs)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// It says on its output what it misses. With a driver it may open: <nil>.
	if !regexp.MustCompile(`(?m)^1\d\d0 false (<nil>|cuFileDriverOpen .* \(50\d\d\): .*)$`).Match(out) {
		t.Errorf("NVIDIA's library: %s", out)
	}
	if left, err := filepath.Glob(filepath.Join(c.Dir, "*")); err != nil || len(left) != 0 {
		t.Errorf("it left %v in the working folder, %v", left, err)
	}
	if log, err := filepath.Glob(filepath.Join(logs, "cufile*.log")); err != nil || len(log) != 1 {
		t.Errorf("logs %v, %v: it did not take our configuration, which says where the log goes", log, err)
	}
}
