package doctor

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stokerio/stoker/cufile"
	"github.com/stokerio/stoker/cufile/inventory"
)

// made is a machine of a test, with its files.
type made struct {
	Machine
	files fstest.MapFS
	vars  map[string]string
}

// Where the devices of a made-up machine are in /sys: one switch above both.
const (
	gpuAddress   = "0000:3c:00.0"
	driveAddress = "0000:3d:00.0"
	gpuDevice    = "devices/pci0000:3a/0000:3a:01.0/0000:3b:00.0/" + gpuAddress
	driveDevice  = "devices/pci0000:3a/0000:3a:01.0/0000:3b:08.0/" + driveAddress
	openModule   = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (builder)\nGCC version: gcc 12\n"
	cacheDir     = "/nvme0/stoker"
)

const mountTable = `22 1 0:21 / /proc rw - proc proc rw
25 24 0:23 / /dev/shm rw - tmpfs tmpfs rw,size=33554432k
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,data=ordered
40 27 259:1 / /nvme0 rw,noatime shared:7 - xfs /dev/nvme0n1p1 rw,attr2
`

const goodSettings = `{
    // how cuFile reads
    "properties": { "use_pci_p2pdma": true, "allow_compat_mode": false, /* pieces */ "max_direct_io_size_kb": 16384 },
    "execution": { "parallel_io": "true" },
    "block": { "nvme": { "use_pci_p2pdma": true } }
}`

func (m *made) file(name, text string) { m.files[inside(name)] = &fstest.MapFile{Data: []byte(text)} }

func (m *made) symlink(name, target string) {
	m.files[inside(name)] = &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink | 0o777}
}

func (m *made) remove(names ...string) {
	for _, name := range names {
		delete(m.files, inside(name))
	}
}

// drive adds a disk with one partition, with their links.
func (m *made) drive(number, disk, device string) {
	m.file("/sys/"+device+"/"+disk+"/"+disk+"p1/partition", "1\n")
	m.symlink("/sys/dev/block/"+number, "../../"+device+"/"+disk+"/"+disk+"p1")
	m.symlink("/sys/class/block/"+disk+"p1", "../../"+device+"/"+disk+"/"+disk+"p1")
	m.symlink("/sys/class/block/"+disk, "../../"+device+"/"+disk)
}

var theUUID = cufile.UUID{0x53, 0x54, 0x55, 0x42, 15: 1}

// healthy is a machine on which nothing speaks against P2PDMA.
func healthy() *made {
	m := &made{files: fstest.MapFS{}, vars: map[string]string{}}
	m.Files, m.Architecture = m.files, "amd64"
	m.Lookup = func(name string) (string, bool) { value, ok := m.vars[name]; return value, ok }
	m.Wanted = Wanted{GDS: "auto", SlabBytes: 2 << 30}
	m.Directories = []Directory{{Path: cacheDir, MemoryAlignment: 4, OffsetAlignment: 512, FreeBytes: 3 << 40, HasFlags: true, Files: 10, Bytes: 600 << 30, CachedBytes: 60 << 30, Counted: true}}
	m.GPU = GPU{
		Versions: cufile.Versions{CUDA: 13000, CuFile: 1150, DevicePath: "/usr/lib/libcuda.so.1", StoragePath: "/usr/lib/libcufile.so.0"},
		Devices: []cufile.DeviceInfo{{
			UUID: theUUID, Name: "NVIDIA H100 80GB HBM3", PCI: gpuAddress, Bytes: 80 << 30, Major: 9,
			VirtualMemory: true, DescriptorExport: true, DirectVirtualMemory: true, ReadOnlyHost: true, DirectMemory: true,
		}},
	}
	m.NVML = inventory.Inventory{Driver: "580.65.06", GPUs: []inventory.GPU{{
		UUID: theUUID.String(), PCI: gpuAddress, Memory: &inventory.Memory{Total: 80 << 30, Free: 79 << 30}, BAR1: &inventory.Memory{Total: 128 << 30, Free: 127 << 30},
	}}}
	for name, text := range map[string]string{
		"/proc/sys/kernel/osrelease":                 "6.8.0-45-generic\n",
		"/proc/kallsyms":                             "0000000000000000 T do_one\n0000000000000000 d p2pdma_pgmap_ops\n",
		"/proc/driver/nvidia/version":                openModule,
		"/proc/driver/nvidia/params":                 "ResmanDebugLevel: 4294967295\nRegistryDwords: \"RMForceStaticBar1=1;RmForceDisableIomapWC=1;\"\nRegistryDwordsPerDevice: \"\"\n",
		"/proc/cmdline":                              "BOOT_IMAGE=/vmlinuz quiet\n",
		"/proc/self/mountinfo":                       mountTable,
		"/proc/self/limits":                          "Limit                     Soft Limit           Hard Limit           Units\nMax locked memory         8388608              8388608              bytes\n",
		"/proc/self/cgroup":                          "0::/user.slice/session.scope\n",
		"/sys/fs/cgroup/cgroup.controllers":          "cpu memory\n",
		"/proc/meminfo":                              "MemTotal:       263913472 kB\nMemFree: 1 kB\n",
		"/run/udev/data/b259:0":                      "E:ID=1\n",
		"/etc/cufile.json":                           goodSettings,
		"/sys/" + gpuDevice + "/numa_node":           "0\n",
		"/sys/" + driveDevice + "/numa_node":         "0\n",
		"/sys/module/nvme_core/parameters/multipath": "N\n",
		"/sys/bus/pci/devices/0000:3a:01.0/config":   string(make([]byte, configBytes)),
		"/sys/bus/pci/devices/0000:3b:00.0/config":   string(make([]byte, configBytes)),
	} {
		m.file(name, text)
	}
	m.symlink("/sys/bus/pci/devices/"+gpuAddress, "../../../"+gpuDevice)
	m.symlink("/sys/bus/pci/devices/"+driveAddress, "../../../"+driveDevice)
	m.symlink("/proc/self/ns/ipc", firstIPC)
	m.symlink("/proc/self/ns/pid", firstPID)
	m.drive("259:1", "nvme0n1", driveDevice+"/nvme/nvme0")
	return m
}

// withNvidiaFS is a machine whose direct route is the kernel module, and not P2PDMA.
func withNvidiaFS() *made {
	m := healthy()
	m.file("/proc/driver/nvidia-fs/version", "version: 2.27.3\n")
	m.file("/proc/driver/nvidia-fs/modules", "nvme\nlustre: 1.0\n")
	m.file("/dev/nvidia-fs0", "")
	m.file("/proc/driver/nvidia/version", strings.Replace(openModule, "Open Kernel Module for x86_64", "x86_64 Kernel Module", 1))
	m.file("/etc/cufile.json", "{}")
	return m
}

// examined is one line of the report on a machine.
func examined(t *testing.T, m *made, name string) Check {
	t.Helper()
	c := find(Examine(&m.Machine).Checks, name)
	if c.Found == "" {
		t.Fatalf("there is no line %q that found something: %+v", name, c)
	}
	return c
}
