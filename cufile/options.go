package cufile

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// Names of the environment variables that name the libraries where [Options] does
// not: like LD_LIBRARY_PATH they concern the loader, and tests and containers set them.
// Beside these two this package takes from the environment what the libraries
// themselves read there: LD_LIBRARY_PATH, to look at a library before it is loaded, and
// CUFILE_ENV_PATH_JSON. While the storage library opens, its variables hold what
// Parameters say, so that a process started meanwhile inherits them.
const (
	DeviceLibraryVariable  = "STOKER_CUDA_LIB"
	StorageLibraryVariable = "STOKER_CUFILE_LIB"
)

// Options say what Open loads and how. The zero value is right for most.
type Options struct {
	// Device is the path of the GPU driver's library. Empty: what STOKER_CUDA_LIB
	// names, else libcuda.so.1 where the loader finds it, else the folders of
	// NVIDIA's containers. A path that is given is the only one tried.
	Device string
	// Storage is the path of the storage library. Empty: what STOKER_CUFILE_LIB
	// names, else libcufile.so.0 where the loader finds it, else below
	// /usr/local/cuda. A path that is given is the only one tried.
	Storage string
	// NoStorage leaves the storage library alone: slabs and copies work, files do
	// not.
	NoStorage bool
	// Parameters are set before the storage library's driver opens.
	Parameters Parameters
	// Statistics is the level at which the storage library counts: 0 nothing,
	// 1 operations and bytes, 2 also sizes, 3 also the route of each read by GPU.
	// Libraries older than cuFile 1.15 count nothing whatever is asked;
	// [Driver.Statistics] says so. Level 3 is what [Driver.Prove] needs.
	Statistics int
}

// Parameters are the settings of the storage library that Stoker decides. All
// others stay what the machine's cufile.json says. They are set by the library's
// own calls from cuFile 1.14 on. Older ones read a copy of the machine's cufile.json
// with these values put in, which CUFILE_ENV_PATH_JSON names while they open; so a
// cufile.json that cannot be read as JSON (with comments) is an error of Open. They
// read it when they load, so once in a process: there a later Driver has the
// parameters of the first; see [Properties].
type Parameters struct {
	// AllowCompat lets the library read through host memory where it has no
	// direct route. Such a read looks like a direct one and is slower than
	// Stoker's own path through host memory; false makes it an error.
	AllowCompat bool
	// MaxDirectBytes is the piece in which a read is issued; 0 leaves the
	// library's own (16 MiB). Rounded down to KiB.
	MaxDirectBytes int64
	// MaxPinnedBytes bounds device memory that is registered; 0 leaves the
	// library's own (32 GiB). Rounded down to KiB.
	MaxPinnedBytes int64
	// PCIP2PDMA asks for, or forbids, the route that needs no kernel module of
	// NVIDIA's storage stack (cuFile 1.13 and later); nil leaves it as configured.
	PCIP2PDMA *bool
	// LogDir is where the library writes its log, a file for each process
	// (cufile_PID_DATE.log). Empty: the system's temporary folder. It would be the
	// working folder otherwise.
	LogDir string
}

// logDir is LogDir or its default.
func (p Parameters) logDir() string {
	if p.LogDir != "" {
		return p.LogDir
	}
	return os.TempDir()
}

// Validate reports all that is wrong with the options.
func (o Options) Validate() error {
	var wrong []error
	if o.Statistics < 0 || o.Statistics > 3 {
		wrong = append(wrong, fmt.Errorf("statistics level %d: want 0 to 3", o.Statistics))
	}
	for _, size := range []struct {
		name  string
		bytes int64
	}{
		{"MaxDirectBytes", o.Parameters.MaxDirectBytes},
		{"MaxPinnedBytes", o.Parameters.MaxPinnedBytes},
	} {
		if size.bytes < 0 || size.bytes > 0 && size.bytes < Alignment {
			wrong = append(wrong, fmt.Errorf("%s %d: want 0, or at least %d bytes", size.name, size.bytes, Alignment))
		}
	}
	for _, path := range []struct{ name, text string }{{"Device", o.Device}, {"Storage", o.Storage}, {"LogDir", o.Parameters.LogDir}} {
		if strings.ContainsRune(path.text, 0) { // C would take it for the end
			wrong = append(wrong, fmt.Errorf("%s %q: a path has no zero byte", path.name, path.text))
		}
	}
	return errors.Join(wrong...)
}

// FileOptions say how OpenFile opens.
type FileOptions struct {
	// Buffered opens without O_DIRECT, which cuFile accepts from 1.7 on; it then
	// decides itself how to read. Without it a file system that has no direct I/O
	// answers EINVAL.
	Buffered bool
}
