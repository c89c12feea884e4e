package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/cufile"
)

func TestADirectoryIsLookedAtAndLeftAsItWas(t *testing.T) {
	directory := t.TempDir()
	if err := os.MkdirAll(filepath.Join(directory, "a"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a/1", "a/2"} {
		if err := os.WriteFile(filepath.Join(directory, name), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(directory, link); err != nil {
		t.Fatal(err)
	}
	d := lookAt(link)
	if d.Path != directory || d.Err != "" || d.FreeBytes <= 0 || d.NotTried != "" {
		t.Errorf("%+v", d)
	}
	if d.Counted && (d.Files != 2 || d.CachedBytes < 2<<20) {
		t.Errorf("%+v, though both files were just written", d)
	}
	if entries, err := os.ReadDir(directory); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestWhatIsNoDirectoryIsSaid(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{file: "it is no directory", file + "x": "lstat " + file + "x: no such file or directory"} {
		if d := lookAt(path); d.Err != want {
			t.Errorf("%s: %+v", path, d)
		}
	}
}

// The tests may run as root, who may look everywhere.
func TestADirectoryOfAnotherUserIsNotBroken(t *testing.T) {
	m := healthy()
	m.Directories = []Directory{{Path: cacheDir}}
	m.Directories[0].cannot(&fs.PathError{Op: "lstat", Path: cacheDir, Err: unix.EACCES})
	if c := examined(t, m, "directory"); c.Status != OK {
		t.Errorf("%+v", c)
	}
	if c := examined(t, m, "direct-io"); c.Status != Info || !strings.Contains(c.Found, "permission denied") {
		t.Errorf("%+v", c)
	}
}

func TestAScratchFileHasNoName(t *testing.T) {
	directory := t.TempDir()
	descriptor, err := openScratch(directory)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(descriptor)
	page := make([]byte, directProbeBytes)
	if err := writeAndSync(descriptor, page); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(directory); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v", entries, err)
	}
	if _, err := openScratch(filepath.Join(directory, "gone")); !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
}

func TestNoSpeedIsSampledWhereNothingMayBeWritten(t *testing.T) {
	for want, d := range map[string]Directory{
		"/a: gone":              {Path: "/a", Err: "gone"},
		"/a: permission denied": {Path: "/a", NotTried: "permission denied"},
		"/a: 1 MiB free are too little to write a file of 256 MiB": {Path: "/a", FreeBytes: 1 << 20},
	} {
		if s := (&Machine{}).sampleSpeed(t.Context(), nil, nil, &d); s.Err != want {
			t.Errorf("%q, want %q", s.Err, want)
		}
	}
}

// Whatever machine the tests run on, there is no driver where the libraries are named
// that are not there.
func TestLookWithoutADriver(t *testing.T) {
	t.Setenv(cufile.DeviceLibraryVariable, filepath.Join(t.TempDir(), "libcuda.so.1"))
	directory := t.TempDir()
	m, err := Look(t.Context(), Options{Lookup: os.LookupEnv, Directories: []string{directory}, Prove: &Prove{}})
	if err != nil {
		t.Fatal(err)
	}
	if m.GPU.Err == nil || m.Probes != nil || len(m.Directories) != 1 || m.kernel() == "" || m.mountOf(directory) == nil {
		t.Errorf("%+v", m)
	}
	report := Examine(m)
	if report.Verdict.Mode != CPU || report.Verdict.Exit != 0 {
		t.Errorf("%+v", report.Verdict)
	}
}
