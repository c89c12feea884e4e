//go:build cgo && linux

package cufile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/cufile/stub"
)

func TestWhatIsStoodOnCannotBeClosed(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	s := r.slab(g, 2<<20)
	f, _ := r.file(d, 4096)
	for _, test := range []struct {
		name   string
		closer interface{ Close() error }
		want   string
	}{
		{"driver", d, f.Path()},
		{"device", g, "slab of 2097152 bytes"},
	} {
		if err := test.closer.Close(); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("closing the %s: %v, want ErrInUse by %s", test.name, err, test.want)
		}
	}
	r.close(s, f, g, d)
}

func TestUseAfterCloseIsAnError(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	s, other := r.slab(g, 2<<20), r.slab(g, 2<<20)
	f, _ := r.file(d, 4096)
	g2, f2 := r.gpu(d), f
	gone, err := s.Export()
	if err != nil {
		t.Fatal(err)
	}
	r.close(gone, s)
	second := func(_ any, err error) error { return err }
	calls := map[string]func() error{
		"Slab.Close":        s.Close,
		"Slab.Register":     s.Register,
		"Slab.Unregister":   s.Unregister,
		"Slab.CopyIn":       func() error { return s.CopyIn([]byte{1}, 0) },
		"Slab.CopyOut":      func() error { return s.CopyOut(make([]byte, 1), 0) },
		"Slab.Export":       func() error { return second(s.Export()) },
		"ReadAt, slab gone": func() error { return second(f2.ReadAt(s, 0, 1, 0)) },
		"Import, file gone": func() error { return second(g.Import(gone, false)) },
	}
	closedAll(t, calls)
	r.close(f)
	closedAll(t, map[string]func() error{
		"File.Close":        f.Close,
		"ReadAt, file gone": func() error { return second(f2.ReadAt(other, 0, 1, 0)) },
	})
	r.close(other, g, g2)
	closedAll(t, map[string]func() error{
		"Device.Close":        g.Close,
		"Device.NewSlab":      func() error { return second(g.NewSlab(1)) },
		"Device.Memory":       func() error { _, _, err := g.Memory(); return err },
		"Device.RegisterHost": func() error { return second(g.RegisterHost(make([]byte, 1))) },
	})
	r.close(d)
	closedAll(t, map[string]func() error{
		"Driver.Close":           d.Close,
		"Driver.Devices":         func() error { return second(d.Devices()) },
		"Driver.Device":          func() error { return second(d.Device(g.UUID())) },
		"Driver.OpenFile":        func() error { return second(d.OpenFile("/dev/null", FileOptions{})) },
		"Driver.Statistics":      func() error { return second(d.Statistics()) },
		"Driver.ResetStatistics": d.ResetStatistics,
		"Driver.Properties":      func() error { return second(d.Properties()) },
		"Driver.P2PFlags":        func() error { return second(d.P2PFlags(NVMe)) },
		"Driver.BARBytes":        func() error { return second(d.BARBytes(0)) },
	})
	if d.Symbols() != nil {
		t.Error("a closed driver has symbols")
	}
}

func closedAll(t *testing.T, calls map[string]func() error) {
	t.Helper()
	for name, call := range calls {
		if err := call(); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v, want ErrClosed", name, err)
		}
	}
}

func TestMisuseIsAnError(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	s := r.slab(g, 2<<20)
	if err := s.Unregister(); err == nil {
		t.Error("a slab that is not registered was unregistered")
	}
	if err := s.Register(); err != nil {
		t.Fatal(err)
	}
	if err := s.Register(); err == nil {
		t.Error("a slab was registered twice")
	}
	plain, err := Open(Options{Device: r.device, NoStorage: true})
	if err != nil {
		t.Fatal(err)
	}
	g2 := r.gpu(plain)
	s2 := r.slab(g2, 2<<20)
	if err := s2.Register(); !errors.Is(err, ErrNoStorage) {
		t.Errorf("registered without a storage library: %v", err)
	}
	f, _ := r.file(d, 4096)
	if _, err := f.ReadAt(s2, 0, 4096, 0); !errors.Is(err, ErrUnsupported) {
		t.Errorf("read into another Driver's slab: %v", err)
	}
	r.close(f, s2, g2, plain, s, g, d)
}

func TestOpenFileGivesTheReason(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	path, _ := randomFile(t, 4096)
	missing := filepath.Join(t.TempDir(), "missing")
	if _, err := d.OpenFile(missing, FileOptions{}); !errors.Is(err, syscall.ENOENT) || errorOf(err).Object != missing {
		t.Errorf("a missing file: %v", err)
	}
	for _, code := range []int{5008, 5018, 5019, 5020, 5025, 5028, 5030, 5031, 5033, 5034, 5047} {
		r.faults(stub.Fault{Op: "cuFileHandleRegister", Value: code})
		if f, err := d.OpenFile(path, FileOptions{}); f != nil || errorOf(err) == nil || errorOf(err).Code != code || errorOf(err).Object != path {
			t.Errorf("%d: %v", code, err)
		}
		r.fired(1)
	}
	r.faults()
	r.close(d)
}

func TestBufferedFilesNeedCuFile17(t *testing.T) {
	t.Setenv("STOKER_STUB_ROUTE", "nvfs")
	for _, version := range []stub.Version{stub.V1_0, stub.V1_7} {
		r := newRig(t, version)
		d := r.open()
		path, _ := randomFile(t, 4096)
		f, err := d.OpenFile(path, FileOptions{Buffered: true})
		if version == stub.V1_0 {
			if errorOf(err) == nil || errorOf(err).Code != 5020 {
				t.Errorf("%s: %v, want 5020", version, err)
			}
		} else if err != nil {
			t.Errorf("%s: %v", version, err)
		} else {
			r.close(f)
		}
		r.close(d)
	}
}

func TestDescriptorsAreCloseOnExec(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	s := r.slab(g, 2<<20)
	f, _ := r.file(d, 4096)
	e, err := s.Export()
	if err != nil {
		t.Fatal(err)
	}
	for name, descriptor := range map[string]int{"file": f.descriptor, "export": int(e.File.Fd())} {
		if flags, err := unix.FcntlInt(uintptr(descriptor), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%s: flags %#x, %v: not close-on-exec", name, flags, err)
		}
	}
	r.close(e, f, s, g, d)
}

func TestALogGoesWhereItIsAskedFor(t *testing.T) {
	if got := (Parameters{}).logDir(); got != os.TempDir() {
		t.Errorf("the log goes to %q", got)
	}
	if got := (Parameters{LogDir: "/var/log/stoker"}).logDir(); got != "/var/log/stoker" {
		t.Errorf("the log goes to %q", got)
	}
}
