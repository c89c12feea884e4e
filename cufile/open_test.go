//go:build cgo && linux

package cufile

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stokerio/stoker/cufile/stub"
)

func TestOpenSaysWhichLibraryIsMissing(t *testing.T) {
	r := newRig(t, stub.V1_15)
	missing := filepath.Join(t.TempDir(), "lib.so")
	for _, test := range []struct {
		name    string
		options Options
		want    error
	}{
		{"no driver", Options{Device: missing}, ErrNoDriver},
		{"no storage library", Options{Device: r.device, Storage: missing}, ErrNoStorage},
	} {
		d, err := Open(test.options)
		if !errors.Is(err, test.want) || d != nil || !strings.Contains(err.Error(), missing) {
			t.Errorf("%s: %v, want %v with the path", test.name, err, test.want)
		}
	}
	d, err := Open(Options{Device: r.device, Storage: missing, NoStorage: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.OpenFile("/dev/null", FileOptions{}); !errors.Is(err, ErrNoStorage) {
		t.Errorf("OpenFile without a storage library: %v", err)
	}
	if _, err := d.Statistics(); !errors.Is(err, ErrNoStorage) {
		t.Errorf("Statistics without a storage library: %v", err)
	}
	r.close(d)
}

func TestOpenTakesTheLibrariesThatTheEnvironmentNames(t *testing.T) {
	r := newRig(t, stub.V1_15)
	t.Setenv(DeviceLibraryVariable, r.device)
	t.Setenv(StorageLibraryVariable, r.storage)
	d, err := Open(Options{})
	if err != nil {
		t.Fatal(err)
	}
	v := d.Versions()
	if v.DevicePath != r.device || v.StoragePath != r.storage || v.CUDA != 13000 || v.CuFile != 1150 || v.Inferred || !v.Stub {
		t.Errorf("versions %+v", v)
	}
	r.close(d)
}

func TestOpenRefusesADamagedLibrary(t *testing.T) {
	r := newRig(t, stub.V1_15)
	whole, err := os.ReadFile(r.storage)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		content []byte
	}{
		{"empty", nil},
		{"text", []byte("not a library\n")},
		{"only the header", whole[:64]},
		{"half", whole[:len(whole)/2]},
		{"another machine's", append(append([]byte{}, whole[:18]...), append([]byte{0xb7, 0}, whole[20:]...)...)},
	} {
		path := filepath.Join(t.TempDir(), "libcufile.so.0")
		if err := os.WriteFile(path, test.content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(Options{Device: r.device, Storage: path})
		if e := errorOf(err); e == nil || e.Op != "dlopen" || e.Object != path || errors.Is(err, ErrNoStorage) {
			t.Errorf("%s: %v, want an error of dlopen about %s", test.name, err, path)
		}
	}
}

// It is there, so that it is not missing; what it needs is.
func TestOpenSaysWhichLibraryALibraryLacks(t *testing.T) {
	r := newRig(t, stub.V1_15)
	dir := t.TempDir()
	needed, path := filepath.Join(dir, "libneeded.so"), filepath.Join(dir, "libcufile.so.0")
	source := filepath.Join(dir, "empty.c")
	if err := os.WriteFile(source, []byte("int stoker_empty;\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, arguments := range [][]string{{"-o", needed, source}, {"-Wl,--no-as-needed", "-o", path, source, needed}} {
		if out, err := exec.Command(stub.Compiler(), append([]string{"-shared", "-fPIC"}, arguments...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if err := os.Remove(needed); err != nil {
		t.Fatal(err)
	}
	_, err := Open(Options{Device: r.device, Storage: path})
	if e := errorOf(err); e == nil || e.Op != "dlopen" || e.Object != path || !strings.Contains(e.Detail, "libneeded.so") || errors.Is(err, ErrNoStorage) {
		t.Errorf("%v, want an error of dlopen that names libneeded.so", err)
	}
}

func TestOpenRefusesALibraryThatIsNoFile(t *testing.T) {
	r := newRig(t, stub.V1_15)
	for _, path := range []string{pipe(t), t.TempDir()} {
		if _, err := Open(Options{Device: r.device, Storage: path}); errorOf(err) == nil || !strings.Contains(errorOf(err).Detail, "no regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// The loader would map it, and the process would die of SIGBUS.
func TestOpenRefusesADamagedLibraryThatTheLoaderFinds(t *testing.T) {
	r := newRig(t, stub.V1_15)
	whole, err := os.ReadFile(r.device)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "libcuda.so.1")
	if err := os.WriteFile(path, whole[:8192], 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), roleVariable+"=opening", DeviceLibraryVariable+"=", loaderPathVariable+"="+filepath.Dir(path))
	out, err := c.CombinedOutput()
	if c.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "the loader takes "+path) {
		t.Errorf("%v: %.500s", err, out)
	}
}

func TestOpenRefusesALibraryWithoutWhatItNeeds(t *testing.T) {
	r := newRig(t, stub.V1_15)
	for _, symbol := range []string{"cuFileRead", "cuFileHandleRegister"} {
		l := libraries(t, stub.V1_15, symbol)
		_, err := Open(Options{Device: r.device, Storage: l.CUFile})
		if e := errorOf(err); e == nil || e.Op != "dlsym" || !strings.Contains(e.Detail, symbol) {
			t.Errorf("without %s: %v", symbol, err)
		}
	}
}

func TestEveryVersionIsUsedAsFarAsItGoes(t *testing.T) {
	for _, version := range stub.Versions() {
		t.Run(version.String(), func(t *testing.T) {
			t.Setenv("STOKER_STUB_ROUTE", "nvfs")
			r := newRig(t, version)
			d := r.open()
			g := r.gpu(d)
			checkVersion(t, d, int(version))
			checkSymbols(t, d, int(version))
			checkOptional(t, d, int(version))
			f, content := r.file(d, 1<<20)
			s := r.slab(g, 1<<20)
			if err := s.Register(); err != nil {
				t.Fatal(err)
			}
			if n, err := f.ReadAt(s, 0, 1<<20, 0); n != 1<<20 || err != nil {
				t.Errorf("ReadAt: %d, %v", n, err)
			}
			expect(t, s, 0, content)
			r.close(f, s, g, d)
		})
	}
}

func checkVersion(t *testing.T, d *Driver, version int) {
	t.Helper()
	v := d.Versions()
	if !v.Inferred && v.CuFile != version {
		t.Errorf("version %d, want %d", v.CuFile, version)
	}
	if v.Inferred != (version < 1080) || v.CuFile != version { // the oldest that fits is each of these itself
		t.Errorf("version %d, inferred %v, of %d", v.CuFile, v.Inferred, version)
	}
}

// checkSymbols: a symbol is there if the version is not older than it.
func checkSymbols(t *testing.T, d *Driver, version int) {
	t.Helper()
	for _, s := range d.Symbols() {
		if s.Library == "libcuda" {
			if !s.Found {
				t.Errorf("%s is missing", s.Name)
			}
			continue
		}
		major, minor, _ := strings.Cut(s.Since, ".")
		a, err1 := strconv.Atoi(major)
		b, err2 := strconv.Atoi(minor)
		if err1 != nil || err2 != nil {
			t.Fatalf("%s is since %q", s.Name, s.Since)
		}
		if want := version >= 1000*a+10*b; s.Found != want {
			t.Errorf("%s, since %s, found %v in %d", s.Name, s.Since, s.Found, version)
		}
	}
}

func checkOptional(t *testing.T, d *Driver, version int) {
	t.Helper()
	for _, test := range []struct {
		name  string
		since int
		call  func() error
	}{
		{"Properties", 1000, func() error { _, err := d.Properties(); return err }},
		{"BARBytes", 1140, func() error { _, err := d.BARBytes(0); return err }},
		{"Statistics", 1150, func() error { _, err := d.Statistics(); return err }},
		{"ResetStatistics", 1150, d.ResetStatistics},
		{"P2PFlags", 1160, func() error { _, err := d.P2PFlags(NVMe); return err }},
	} {
		if err := test.call(); (err == nil) != (version >= test.since) || err != nil && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s of %d: %v", test.name, version, err)
		}
	}
}

// expect compares what a slab holds.
func expect(t testing.TB, s *Slab, offset int64, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if err := s.CopyOut(got, offset); err != nil {
		t.Fatal(err)
	}
	if i := firstDifference(got, want); i >= 0 {
		t.Errorf("byte %d is %#x, want %#x", offset+int64(i), got[i], want[i])
	}
}

func TestCompatModeIsSetInEveryVersion(t *testing.T) {
	for _, version := range stub.Versions() {
		for _, allow := range []bool{false, true} {
			t.Run(version.String()+"/allow="+strconv.FormatBool(allow), func(t *testing.T) {
				t.Setenv("STOKER_STUB_ROUTE", "nvfs")
				t.Setenv("CUFILE_FORCE_COMPAT_MODE", "true")
				t.Setenv("CUFILE_ALLOW_COMPAT_MODE", strconv.FormatBool(!allow))
				r := newRig(t, version)
				options := r.options()
				options.Parameters.AllowCompat = allow
				d, err := Open(options)
				if err != nil {
					t.Fatal(err)
				}
				p, err := d.Properties()
				if err != nil || p.CompatAllowed() != allow {
					t.Errorf("compat allowed: %v, %v, want %v", p.CompatAllowed(), err, allow)
				}
				if got := os.Getenv("CUFILE_FORCE_COMPAT_MODE"); got != "true" {
					t.Errorf("the environment says %q afterwards", got)
				}
				r.close(d)
			})
		}
	}
}

// Where the environment says the opposite. Without the route, and without compat mode,
// the stand-in does not open.
func TestTheRouteThatIsAskedForIsSetInEveryVersion(t *testing.T) {
	for _, version := range stub.Versions() {
		if version < stub.V1_13 {
			continue // has no such route
		}
		for _, wanted := range []bool{false, true} {
			t.Run(version.String()+"/"+strconv.FormatBool(wanted), func(t *testing.T) {
				t.Setenv("STOKER_STUB_ROUTE", "p2p")
				t.Setenv("CUFILE_USE_PCIP2PDMA", strconv.FormatBool(!wanted))
				r := newRig(t, version)
				options := r.options()
				options.Parameters.PCIP2PDMA = &wanted
				d, err := Open(options)
				if (err == nil) != wanted {
					t.Fatalf("Open: %v, with P2PDMA %v", err, wanted)
				}
				if wanted {
					r.close(d)
				} else if errorOf(err) == nil || errorOf(err).Code != 5001 {
					t.Errorf("Open: %v, want 5001", err)
				}
			})
		}
	}
}

func TestParametersReachEveryVersion(t *testing.T) {
	for _, version := range stub.Versions() {
		t.Run(version.String(), func(t *testing.T) {
			t.Setenv("STOKER_STUB_ROUTE", "nvfs")
			r := newRig(t, version)
			options := r.options()
			options.Parameters = Parameters{MaxDirectBytes: 4 << 20, MaxPinnedBytes: 64 << 20, LogDir: t.TempDir()}
			d, err := Open(options)
			if err != nil {
				t.Fatal(err)
			}
			p, err := d.Properties()
			if err != nil || p.MaxDirectBytes != 4<<20 || p.MaxPinnedBytes != 64<<20 {
				t.Errorf("properties %+v, %v", p, err)
			}
			r.close(d)
		})
	}
}

func TestOpenReportsTheLibrarysRefusal(t *testing.T) {
	r := newRig(t, stub.V1_15)
	for _, test := range []struct {
		fault      stub.Fault
		op         string
		code, cuda int
	}{
		{stub.Fault{Op: "cuInit", Value: 100}, "cuInit", 0, 100},
		{stub.Fault{Op: "cuInit", Value: 999}, "cuInit", 0, 999},
		{stub.Fault{Op: "cuFileDriverOpen", Value: 5001}, "cuFileDriverOpen", 5001, 0},
		{stub.Fault{Op: "cuFileDriverOpen", Value: 5007}, "cuFileDriverOpen", 5007, 0},
		{stub.Fault{Op: "cuFileDriverOpen", Value: 5030}, "cuFileDriverOpen", 5030, 0},
		{stub.Fault{Op: "cuFileDriverOpen", Value: 5033}, "cuFileDriverOpen", 5033, 0},
		{stub.Fault{Op: "cuFileDriverOpen", Value: 5011, CUDA: 999}, "cuFileDriverOpen", 5011, 999},
		{stub.Fault{Op: "cuFileSetParameterBool", Value: 5026}, "cuFileSetParameterBool", 5026, 0},
		{stub.Fault{Op: "cuFileStatsStart", Value: 5030}, "cuFileStatsStart", 5030, 0},
	} {
		r.faults(test.fault)
		_, err := Open(r.options())
		if e := errorOf(err); e == nil || e.Op != test.op || e.Code != test.code || e.CUDA != test.cuda {
			t.Errorf("%s: %v", test.fault, err)
		} else if e.Remedy() == "" {
			t.Errorf("%s: no remedy in %v", test.fault, err)
		}
		r.fired(1)
	}
	r.faults()
}

func TestASecondDriverWithStorageIsRefused(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	if _, err := Open(r.options()); errorOf(err) == nil || errorOf(err).Code != 5026 {
		t.Errorf("second Open: %v, want 5026", err)
	}
	r.close(d)
}
