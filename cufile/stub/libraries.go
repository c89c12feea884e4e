package stub

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

//go:embed src
var sources embed.FS

// Version is a version of libcufile: 1000 times the major number and 10 times the minor.
type Version int

// The versions that differ in what they export or how it is laid out. NoStorage means
// a machine with a GPU driver and without libcufile.
const (
	NoStorage Version = 0
	V1_0      Version = 1000
	V1_7      Version = 1070
	V1_13     Version = 1130
	V1_14     Version = 1140
	V1_15     Version = 1150
	V1_16     Version = 1160
	V1_19     Version = 1190
)

// Versions returns all versions above, the oldest first, without NoStorage.
func Versions() []Version {
	return []Version{V1_0, V1_7, V1_13, V1_14, V1_15, V1_16, V1_19}
}

func (v Version) String() string {
	if v == NoStorage {
		return "no libcufile"
	}
	return fmt.Sprintf("%d.%d", int(v)/1000, int(v)%1000/10)
}

// Options says which stand-ins to build.
type Options struct {
	Version Version
	// Without names symbols that the libraries shall not export.
	Without []string
	// Flags go to the compiler, as -fsanitize=address,undefined.
	Flags []string
}

// Libraries are built stand-ins. CUFile is empty for NoStorage.
type Libraries struct {
	Dir, CUDA, CUFile string
	Version           Version
}

// Environment lets a child process find the libraries, and keeps them from printing.
func (l Libraries) Environment() []string {
	return []string{
		"STOKER_CUDA_LIB=" + l.CUDA,
		"STOKER_CUFILE_LIB=" + l.CUFile,
		"STOKER_STUB_QUIET=1",
	}
}

var (
	cudaSources = []string{
		"state.c", "link.c", "fault.c", "device.c", "context.c", "memory.c", "ipc.c", "vmm.c", "stream.c", "copy.c", "text.c",
	}
	storageSources = []string{"storage.c", "register.c", "transfer.c", "parameters.c", "statistics.c", "unsupported.c"}
)

// Build compiles both libraries of a version into dir, which must exist, as
// libcuda.so.1 and libcufile.so.0. The linker leaves out the symbols of without.
func Build(dir string, version Version, without ...string) (Libraries, error) {
	return Compile(dir, Options{Version: version, Without: without})
}

// Compile is Build with all options.
func Compile(dir string, options Options) (Libraries, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Libraries{}, fmt.Errorf("build stub libraries: %w", err)
	}
	work, err := os.MkdirTemp(dir, ".build-")
	if err != nil {
		return Libraries{}, fmt.Errorf("build stub libraries: %w", err)
	}
	defer os.RemoveAll(work)
	if err := unpack(work, options); err != nil {
		return Libraries{}, fmt.Errorf("build stub libraries: %w", err)
	}
	libraries := place(dir, options.Version)
	if err := link(work, libraries.CUDA, cudaSources, options); err != nil {
		return Libraries{}, err
	}
	if libraries.CUFile == "" {
		return libraries, nil
	}
	if err := link(work, libraries.CUFile, storageSources, options); err != nil {
		return Libraries{}, err
	}
	return libraries, nil
}

func place(dir string, version Version) Libraries {
	l := Libraries{Dir: dir, CUDA: filepath.Join(dir, "libcuda.so.1"), Version: version}
	if version != NoStorage {
		l.CUFile = filepath.Join(dir, "libcufile.so.0")
	}
	return l
}

// unpack writes the sources, and what tells the linker which symbols to leave out: an
// exact name is stronger than the wildcard (ld manual, "VERSION Command").
func unpack(work string, options Options) error {
	err := fs.WalkDir(sources, "src", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := sources.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(work, filepath.Base(path)), data, 0o600)
	})
	if err != nil || len(options.Without) == 0 {
		return err
	}
	script := "{ global: *; local: " + strings.Join(options.Without, "; ") + "; };\n"
	return os.WriteFile(filepath.Join(work, "without"), []byte(script), 0o600)
}

func link(work, library string, names []string, options Options) error {
	out := filepath.Join(work, filepath.Base(library))
	arguments := []string{
		"-std=gnu11", "-O1", "-g", "-fPIC", "-fvisibility=hidden", "-pthread", "-shared",
		"-ffile-prefix-map=" + work + "=cufile/stub/src",
		"-DSTUB_VERSION=" + strconv.Itoa(int(options.Version)),
		"-Wl,-soname," + filepath.Base(library), "-Wl,-z,now", "-o", out,
	}
	if len(options.Without) > 0 {
		arguments = append(arguments, "-Wl,--version-script="+filepath.Join(work, "without"))
	}
	arguments = append(arguments, options.Flags...)
	for _, name := range names {
		arguments = append(arguments, filepath.Join(work, name))
	}
	command := exec.Command(Compiler(), append(arguments, "-ldl")...)
	if text, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s with %s: %w\n%s\ninstall a C compiler (Debian and Ubuntu: apt install gcc libc6-dev), or name one in CC",
			filepath.Base(library), Compiler(), err, text)
	}
	return os.Rename(out, library)
}

// Compiler is the C compiler in use: what CC names, as for cgo, else cc.
func Compiler() string {
	if cc := os.Getenv("CC"); cc != "" {
		return cc
	}
	return "cc"
}

// Cached returns libraries that are built at most once: they are kept in the user's
// cache folder, in stoker-stub, under a hash of their sources and options. That folder
// can be removed at any time. Processes may call Cached at once.
func Cached(options Options) (Libraries, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = filepath.Join(os.TempDir(), "cache-"+strconv.Itoa(os.Getuid()))
	}
	cache = filepath.Join(cache, "stoker-stub")
	hash, err := hashOf(options)
	if err != nil {
		return Libraries{}, fmt.Errorf("build stub libraries: %w", err)
	}
	dir := filepath.Join(cache, hash)
	if _, err := os.Stat(dir); err == nil {
		return place(dir, options.Version), nil
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return Libraries{}, fmt.Errorf("build stub libraries: %w", err)
	}
	work, err := os.MkdirTemp(cache, ".new-")
	if err != nil {
		return Libraries{}, fmt.Errorf("build stub libraries: %w", err)
	}
	defer os.RemoveAll(work)
	if _, err := Compile(work, options); err != nil {
		return Libraries{}, err
	}
	if err := os.Rename(work, dir); err != nil {
		// Another process was faster: its libraries are the same.
		if _, missing := os.Stat(dir); missing != nil {
			return Libraries{}, fmt.Errorf("keep stub libraries: %w", err)
		}
	}
	return place(dir, options.Version), nil
}

func hashOf(options Options) (string, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "%d %q %q %q\n", options.Version, options.Without, options.Flags, Compiler())
	err := fs.WalkDir(sources, "src", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := sources.ReadFile(path)
		fmt.Fprintf(sum, "%s %d\n%s", path, len(data), data)
		return err
	})
	return hex.EncodeToString(sum.Sum(nil))[:32], err
}
