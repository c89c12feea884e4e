package bench

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is what the figures were measured on.
type Machine struct {
	CPU              string    `json:"cpu"`
	Cores            int       `json:"cores"`
	Virtual          bool      `json:"virtual"`
	MemoryBytes      int64     `json:"memory_bytes"`
	Kernel           string    `json:"kernel"`
	Filesystem       string    `json:"filesystem"` // of the data
	Go               string    `json:"go"`
	Python           string    `json:"python"`
	Torch            string    `json:"torch"`
	Numpy            string    `json:"numpy"`
	WebDataset       string    `json:"webdataset,omitempty"`
	HugePages        string    `json:"transparent_huge_pages"`
	HugePagesShmem   string    `json:"transparent_huge_pages_shmem"`
	Commit           string    `json:"commit"`
	Date             time.Time `json:"date"`
	LoadAverageStart float64   `json:"load_average_at_start"` // other work on the machine spoils figures
}

func describeMachine(ctx context.Context, o CompareOptions) Machine {
	m := Machine{
		Cores: runtime.NumCPU(), Go: runtime.Version(), Date: time.Now().UTC().Truncate(time.Second),
		CPU: cpuField("model name"), Virtual: strings.Contains(cpuField("flags"), "hypervisor"),
		HugePages:      selected("/sys/kernel/mm/transparent_hugepage/enabled"),
		HugePagesShmem: selected("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
		Commit:         commit(ctx, o.Root), Filesystem: filesystem(o.DataDir),
	}
	var system unix.Utsname
	if unix.Uname(&system) == nil {
		m.Kernel = unix.ByteSliceToString(system.Release[:])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.MemoryBytes = int64(info.Totalram) * int64(info.Unit)
	}
	if content, err := os.ReadFile("/proc/loadavg"); err == nil {
		first, _, _ := strings.Cut(string(content), " ")
		m.LoadAverageStart, _ = strconv.ParseFloat(first, 64)
	}
	return m
}

// cpuField returns a field of the first processor.
func cpuField(name string) string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for scan := bufio.NewScanner(f); scan.Scan(); {
		key, value, _ := strings.Cut(scan.Text(), ":")
		if strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// selected returns the word in brackets of a kernel setting.
func selected(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(content), "[")
	word, _, _ := strings.Cut(rest, "]")
	return word
}

// filesystem names the type of the filesystem that holds dir.
func filesystem(dir string) string {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return ""
	}
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.NFS_SUPER_MAGIC: "nfs",
	}
	if name, known := names[int64(s.Type)]; known {
		return name
	}
	return fmt.Sprintf("0x%x", s.Type)
}

// commit is what the running binary was built from, else what is checked out.
func commit(ctx context.Context, root string) string {
	var revision, modified string
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				revision = s.Value
			case "vcs.modified":
				if s.Value == "true" {
					modified = "+changes"
				}
			}
		}
	}
	if revision != "" {
		return revision + modified
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "git", "-C", root, "rev-parse", "--verify", "-q", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// memoryAvailable is what processes can still get without swapping, in bytes; all
// there is if the kernel does not say.
func memoryAvailable() int64 {
	content, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return math.MaxInt64
	}
	for line := range strings.Lines(string(content)) {
		if rest, found := strings.CutPrefix(line, "MemAvailable:"); found {
			fields := strings.Fields(rest)
			if len(fields) == 0 {
				break
			}
			if kib, err := strconv.ParseInt(fields[0], 10, 64); err == nil {
				return kib << 10
			}
		}
	}
	return math.MaxInt64
}
