package doctor

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/stokerio/stoker/cufile"
	"github.com/stokerio/stoker/cufile/inventory"
)

// Machine is all that Examine knows of a machine.
type Machine struct {
	// Files is its root directory: proc, sys, etc, dev, run and boot below it.
	Files fs.FS
	// Lookup reads the environment.
	Lookup func(name string) (string, bool)
	// Architecture is GOARCH's: amd64, arm64.
	Architecture string

	Wanted      Wanted
	Directories []Directory
	GPU         GPU
	NVML        inventory.Inventory
	// Probes is nil if nothing was tried.
	Probes *Probes
}

// Wanted is what the machine is to be used for.
type Wanted struct {
	// GDS is auto, require or off, as in the configuration. "" is auto.
	GDS string
	// SlabBytes is the device memory that slabs are to take on each GPU.
	SlabBytes int64
}

// GPU is what the GPU's libraries say.
type GPU struct {
	// Err is why there is no driver: cufile.ErrNoCgo, cufile.ErrNoDriver, or what it
	// said when it was opened. Nil if there is one.
	Err error
	// StorageErr is the same of the storage library.
	StorageErr error

	Versions cufile.Versions
	Symbols  []cufile.Symbol
	Devices  []cufile.DeviceInfo
	// BAR1 is the window of each GPU as cuFile measures it, in bytes, by ordinal; a GPU
	// that is not in it has none that is known. NVML's is said to be inexact.
	BAR1 map[int]int64
}

// Directory is one in which chunks are kept, or will be.
type Directory struct {
	// Path is absolute and without links, so that a mount table can be asked.
	Path string
	// Err is why it cannot be looked at; the rest is then zero.
	Err string
	// DirectErr is why reading with O_DIRECT did not work, "" if it did; NotTried why
	// it was not tried.
	DirectErr, NotTried string
	// MemoryAlignment and OffsetAlignment are what the kernel asks of direct reads
	// (statx, STATX_DIOALIGN), in bytes; 0 unknown.
	MemoryAlignment, OffsetAlignment int64
	// Flags are the file attributes of FS_IOC_GETFLAGS, HasFlags whether there are any.
	Flags    uint32
	HasFlags bool
	// FreeBytes are those of its file system.
	FreeBytes int64
	// Files, Bytes and CachedBytes are what it holds and how much of that is in the page
	// cache; Counted is false if that is not known. More says that it holds more files.
	Files              int
	Bytes, CachedBytes int64
	Counted, More      bool
}

// Probes are what was tried for real.
type Probes struct {
	Sharing []SharingProbe
	Routes  []RouteProbe
	Speed   *SpeedProbe
	Python  PythonProbe
}

// SharingProbe exported a slab of one GPU to another process, which mapped and compared it.
type SharingProbe struct {
	Device string
	// Way is how it crossed: "descriptor" or "legacy IPC".
	Way string
	// Err is why it did not; "" if it did.
	Err string
}

// RouteProbe read a file of one directory into a GPU.
type RouteProbe struct {
	Directory, Device string
	Proof             cufile.Proof
	// Err is why there is no proof at all. Wrong says that bytes came, and were wrong, or
	// that the drive failed.
	Err   string
	Wrong bool
}

// SpeedProbe is a sample of rates, bytes a second; 0 where one was not measured.
type SpeedProbe struct {
	Directory, Device string
	// Upload is from pinned host memory to the GPU, Disk reads of the directory with
	// O_DIRECT, Direct reads by the direct route.
	Upload, Disk, Direct float64
	Err                  string
}

// PythonProbe is what a Python said that imported torch and mapped a slab.
type PythonProbe struct {
	Interpreter, Python, Torch string
	// Tensor says that a tensor over a slab of another process had the right values.
	Tensor bool
	// Err is the exception; "" if there was none.
	Err string
}

// hasDriver says whether a GPU's driver answers.
func (m *Machine) hasDriver() bool { return m.GPU.Err == nil }

// hasGPU says whether there is a GPU to use.
func (m *Machine) hasGPU() bool { return m.hasDriver() && len(m.GPU.Devices) > 0 }

// hasStorage says whether the storage library answers.
func (m *Machine) hasStorage() bool { return m.hasDriver() && m.GPU.Versions.CuFile > 0 }

// read returns a file without its trailing newline.
func (m *Machine) read(name string) (string, error) {
	text, err := fs.ReadFile(m.Files, inside(name))
	return strings.TrimRight(string(text), "\n"), err
}

// inside is an absolute path as fs.FS wants it.
func inside(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		return "."
	}
	return name
}

// exists says whether a path is there. What cannot be looked at is taken as there.
func (m *Machine) exists(name string) bool {
	_, err := fs.Stat(m.Files, inside(name))
	return !errors.Is(err, fs.ErrNotExist)
}

// names lists a directory; none if it cannot be read.
func (m *Machine) names(name string) []string {
	entries, err := fs.ReadDir(m.Files, inside(name))
	if err != nil {
		return nil
	}
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.Name()
	}
	return names
}

// link is where a symbolic link points; "" if it is none.
func (m *Machine) link(name string) string {
	target, err := fs.ReadLink(m.Files, inside(name))
	if err != nil {
		return ""
	}
	return target
}

// lineWith is the first line of a file that holds some text; "" if none does. It reads
// line by line: kallsyms has 10 MB.
func (m *Machine) lineWith(name, text string) (string, error) {
	file, err := m.Files.Open(inside(name))
	if err != nil {
		return "", err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if strings.Contains(lines.Text(), text) {
			return lines.Text(), nil
		}
	}
	return "", lines.Err()
}

// kernel is the running kernel's release: 6.8.0-45-generic.
func (m *Machine) kernel() string {
	release, err := m.read("/proc/sys/kernel/osrelease")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(release)
}

// atLeast compares the leading numbers of a version with some others: 580.65.06 is at
// least 565.47. A version without numbers is at least nothing.
func atLeast(version string, want ...int) bool {
	fields := strings.FieldsFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if len(fields) == 0 || version[0] < '0' || version[0] > '9' {
		return false
	}
	for i, least := range want {
		if i >= len(fields) {
			return least == 0
		}
		number, err := strconv.Atoi(fields[i])
		if err != nil {
			return false
		}
		if number != least {
			return number > least
		}
	}
	return true
}

// word is text as a shell takes it for one word.
func word(text string) string {
	if plainWord.MatchString(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:=@%+,-]+$`)

// cudaVersion writes 13000 as 13.0.
func cudaVersion(version int) string {
	return fmt.Sprintf("%d.%d", version/1000, version%1000/10)
}

// sized writes a size with its unit, rounded down: 1.5 GiB.
func sized(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	unit, value := 0, float64(n)
	for value >= 1024 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	return strconv.FormatFloat(float64(int64(value*10))/10, 'f', -1, 64) + " " + units[unit]
}

// rate writes bytes a second in decimal units, as vendors do.
func rate(perSecond float64) string {
	return strconv.FormatFloat(perSecond/1e9, 'f', 2, 64) + " GB/s"
}
