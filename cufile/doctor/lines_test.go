package doctor

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stokerio/stoker/cufile"
	"github.com/stokerio/stoker/cufile/inventory"
)

// state is one way in which a line can turn out.
type state struct {
	name   string
	line   string
	spoil  func(*made)
	status Status
	// contains is in what the line says: found, meaning or remedy.
	contains string
}

// check runs states, each on a healthy machine.
func check(t *testing.T, states []state) {
	t.Helper()
	for _, s := range states {
		t.Run(s.name, func(t *testing.T) {
			m := healthy()
			s.spoil(m)
			c := examined(t, m, s.line)
			text := c.Found + "\n" + c.Meaning + "\n" + c.Remedy
			if c.Status != s.status || !strings.Contains(text, s.contains) {
				t.Errorf("%s %+v\nwant %s and %q", s.line, c, s.status, s.contains)
			}
		})
	}
}

func without(err error) func(*made) { return func(m *made) { m.GPU = GPU{Err: err} } }

func TestBuildAndDriverLines(t *testing.T) {
	check(t, []state{
		{"no cgo", "build", without(cufile.ErrNoCgo), Info, "CPU only"},
		{"no cgo, driver", "driver", without(cufile.ErrNoCgo), None, "built without cgo"},
		{"cgo", "build", func(*made) {}, OK, "built with cgo"},
		{"driver", "driver", func(*made) {}, OK, "libcuda.so.1, CUDA 13.0"},
		{"no driver", "driver", func(m *made) { m.GPU = GPU{Err: cufile.ErrNoDriver}; m.remove("/proc/driver/nvidia/version") }, Info, "CPU-only"},
		{"container without libraries", "driver", without(cufile.ErrNoDriver), Warn, "docker run --gpus all"},
		{"no device", "driver", func(m *made) { m.GPU = GPU{Err: &cufile.Error{Op: "cuInit", CUDA: 100}}; m.NVML.GPUs = nil }, Info, "sees no GPU"},
		{"no device, but one is there", "driver", without(&cufile.Error{Op: "cuInit", CUDA: 100}), Warn, "may not use it"},
		{"hidden", "driver", func(m *made) {
			m.GPU = GPU{Err: &cufile.Error{Op: "cuInit", CUDA: 100}}
			m.vars["CUDA_VISIBLE_DEVICES"] = ""
		}, Info, "unset CUDA_VISIBLE_DEVICES"},
		{"toolkit's stub library", "driver", without(&cufile.Error{Op: "cuInit", CUDA: 34}), Bad, "lib64/stubs"},
		{"fabric", "driver", without(&cufile.Error{Op: "cuInit", CUDA: 802}), Bad, "nvidia-fabricmanager"},
		{"mismatch", "driver", without(&cufile.Error{Op: "cuInit", CUDA: 803}), Bad, "sudo reboot"},
		{"forward compatibility", "driver", without(&cufile.Error{Op: "cuInit", CUDA: 804}), Bad, "cuda-compat"},
		{"unknown", "driver", without(&cufile.Error{Op: "cuInit", CUDA: 999}), Bad, "nvidia-modprobe"},
		{"damaged", "driver", without(&cufile.Error{Op: "dlopen", Object: "/x", Detail: "file too short; remedy: none"}), Bad, "install NVIDIA's driver anew"},
		{"another error", "driver", without(errors.New("no symbol")), Bad, "no symbol"},
	})
}

func TestGPULines(t *testing.T) {
	mig := func(m *made) {
		m.NVML.GPUs[0].MIG = &inventory.MIG{Enabled: true, Devices: make([]inventory.MIGDevice, 3)}
	}
	// As CUDA names it: by the partition's UUID.
	partition := func(m *made) {
		m.NVML.GPUs[0].MIG = &inventory.MIG{Enabled: true, Devices: []inventory.MIGDevice{
			{UUID: "MIG-" + m.NVML.GPUs[0].UUID[4:], Memory: &inventory.Memory{Total: 10 << 30, Free: 9 << 30}},
		}}
		m.NVML.GPUs[0].UUID = "GPU-of-the-whole"
	}
	check(t, []state{
		{"a partition", "gpus", partition, Info, "MIG with 1 partitions"},
		{"room in a partition", "memory", partition, OK, "9 GiB of 10 GiB free"},
		{"one", "gpus", func(*made) {}, OK, "NVIDIA H100 80GB HBM3 (GPU-53545542-"},
		{"none", "gpus", func(m *made) { m.GPU.Devices = nil }, None, "no GPU that can be used"},
		{"old", "gpus", func(m *made) { m.GPU.Devices[0].Major = 7 }, Warn, "7.5 and newer"},
		{"old, but for this CUDA", "gpus", func(m *made) { m.GPU.Devices[0].Major, m.GPU.Versions.CUDA = 7, 12080 }, OK, "7.0"},
		{"MIG", "gpus", mig, Info, "MIG with 3 partitions"},
		{"unlisted", "gpus", func(m *made) { m.GPU.Devices[0].Name = "NVIDIA L40" }, Info, "NVIDIA names A100"},
		{"reordered", "gpus", func(m *made) { m.vars["CUDA_VISIBLE_DEVICES"] = "1,0" }, Info, "tells them by UUID"},
		{"shared as descriptors", "sharing", func(*made) {}, OK, "not tried with a second process"},
		{"no virtual memory", "sharing", func(m *made) { m.GPU.Devices[0].VirtualMemory = false }, Warn, "CUDA IPC"},
		{"no descriptors", "sharing", func(m *made) { m.GPU.Devices[0].DescriptorExport = false }, Warn, "--ipc=host"},
		{"not for other devices", "sharing", func(m *made) { m.GPU.Devices[0].DirectVirtualMemory = false }, Info, "attribute 110"},
		{"tried", "sharing", func(m *made) { m.Probes = &Probes{Sharing: []SharingProbe{{Device: "GPU-1", Way: "descriptor"}}} }, OK, "mapped a slab by descriptor"},
		{"tried in vain", "sharing", func(m *made) { m.Probes = &Probes{Sharing: []SharingProbe{{Device: "GPU-1", Err: "800"}}} }, Warn, "could not map a slab: 800"},
		{"room", "memory", func(*made) {}, OK, "79 GiB of 80 GiB free; BAR1 128 GiB"},
		{"no NVML", "memory", func(m *made) { m.NVML = inventory.Inventory{Absent: "no library"} }, Info, "no library"},
		{"a GPU that NVML does not know", "memory", func(m *made) { m.NVML.GPUs[0].UUID = "GPU-2" }, Info, "not known to NVML"},
		{"full", "memory", func(m *made) { m.NVML.GPUs[0].Memory.Free = 2 << 30 }, Warn, "nvidia-smi --query-compute-apps"},
		{"just enough", "memory", func(m *made) { m.NVML.GPUs[0].Memory.Free = 2<<30 + contextBytes }, OK, "free"},
		{"small BAR1", "memory", func(m *made) { m.NVML.GPUs[0].BAR1 = &inventory.Memory{Total: 256 << 20, Free: 200 << 20} }, Warn, "Resizable BAR"},
		{"BAR1 unknown", "memory", func(m *made) { m.NVML.GPUs[0].BAR1 = nil }, Info, "BAR1 unknown"},
		{"BAR1 as cuFile says", "memory", func(m *made) { m.GPU.BAR1 = map[int]int64{0: 1 << 30} }, Warn, "BAR1: 0 B of 1 GiB free"},
		{"BAR1 as cuFile alone says", "memory", func(m *made) { m.GPU.BAR1, m.NVML.GPUs[0].BAR1 = map[int]int64{0: 4 << 30}, nil }, OK, "BAR1 4 GiB"},
	})
}

func TestLibraryLines(t *testing.T) {
	version := func(v int) func(*made) { return func(m *made) { m.GPU.Versions.CuFile = v } }
	refused := &cufile.Error{Op: "cuFileDriverOpen", Code: 5007}
	check(t, []state{
		{"there", "cufile", func(*made) {}, OK, "libcufile.so.0, cuFile 1.15"},
		{"missing", "cufile", func(m *made) { m.GPU.Versions.CuFile, m.GPU.StorageErr = 0, cufile.ErrNoStorage }, Info, "pip install nvidia-cufile"},
		{"damaged", "cufile", func(m *made) { m.GPU.Versions.CuFile, m.GPU.StorageErr = 0, errors.New("file too short") }, Bad, "file too short"},
		{"settings that cannot be read are not the library's fault", "cufile", func(m *made) {
			m.GPU.Versions.CuFile, m.GPU.StorageErr = 0, fmt.Errorf("%w: unexpected EOF", cufile.ErrConfiguration)
		}, None, "unexpected EOF"},
		{"refuses", "cufile", func(m *made) { m.GPU.Versions.CuFile, m.GPU.StorageErr = 0, refused }, Warn, "sees no direct route"},
		{"refuses without udev", "cufile", func(m *made) {
			m.GPU.Versions.CuFile, m.GPU.StorageErr = 0, refused
			m.remove("/run/udev/data/b259:0")
		}, Warn, "-v /run/udev:/run/udev:ro"},
		{"refuses, of a known version", "cufile", func(m *made) { m.GPU.StorageErr = refused }, Warn, "cuFile 1.15; cuFileDriverOpen"},
		{"without P2PDMA", "cufile", version(1120), Warn, "1.13 (CUDA 12.8)"},
		{"without counters", "cufile", version(1140), Warn, "cannot be proved"},
		{"1.16 beside nvidia-fs unpatched", "cufile", func(m *made) { version(1160)(m); m.file("/proc/driver/nvidia-fs/version", "version: 2.26\n") }, Warn, "fails every read"},
		{"1.16", "cufile", version(1160), OK, "1.16"},
		{"cannot tell", "cufile", func(m *made) { m.GPU.Versions.CuFile, m.GPU.Versions.Inferred = 1000, true }, Warn, "1.0 or a little newer"},
		{"lacks functions", "cufile", func(m *made) {
			m.GPU.Symbols = []cufile.Symbol{{Name: "a", Library: "libcufile", Since: "1.16"}, {Name: "b", Library: "libcufile", Since: "1.16"}, {Name: "c", Library: "libcuda"}}
		}, Info, "2 functions of cuFile 1.16"},
		{"open modules", "kernel-module", func(*made) {}, OK, "open kernel modules, driver 580.65.06"},
		{"closed modules", "kernel-module", func(m *made) {
			m.file("/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Wed\n")
		}, Warn, "nvidia-open"},
		{"old modules", "kernel-module", func(m *made) {
			m.file("/proc/driver/nvidia/version", strings.Replace(openModule, "580.65.06", "565.46", 1))
		}, Warn, "565.47"},
		{"first that can", "kernel-module", func(m *made) {
			m.file("/proc/driver/nvidia/version", strings.Replace(openModule, "580.65.06", "565.47", 1))
		}, OK, "565.47"},
		{"unreadable", "kernel-module", func(m *made) { m.remove("/proc/driver/nvidia/version") }, Info, "cannot be read"},
	})
}

func TestNvidiaFSLines(t *testing.T) {
	loaded := func(m *made) { m.file("/proc/driver/nvidia-fs/version", "version: 2.27.3\n") }
	active := func(m *made) { *m = *withNvidiaFS() }
	check(t, []state{
		{"not loaded", "nvidia-fs", func(*made) {}, Info, "that is fine"},
		{"no device", "nvidia-fs", loaded, Warn, "--device"},
		{"not registered", "nvidia-fs", func(m *made) {
			loaded(m)
			m.file("/dev/nvidia-fs0", "")
			m.file("/proc/driver/nvidia-fs/modules", "lustre\n")
		}, Warn, "registered: lustre"},
		{"active", "nvidia-fs", active, OK, "nvidia-fs 2.27.3, registered: nvme, lustre:"},
		{"slow small reads", "nvidia-fs", func(m *made) { active(m); m.file("/proc/sys/kernel/osrelease", "6.11.2\n") }, Info, "128 KiB"},
		{"hangs", "nvidia-fs", func(m *made) { active(m); m.file("/proc/sys/kernel/osrelease", "6.17.0\n") }, Warn, "hangs"},
	})
}

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestP2PDMALines(t *testing.T) {
	config := gzipped(t, "CONFIG_A=y\nCONFIG_PCI_P2PDMA=y\n")
	noConfig := "# CONFIG_PCI_P2PDMA is not set\n"
	hidden := func(m *made) { m.remove("/proc/kallsyms") }
	check(t, []state{
		{"set up", "p2pdma", func(*made) {}, OK, "p2pdma_pgmap_ops"},
		{"another architecture", "p2pdma", func(m *made) { m.Architecture = "arm64" }, Info, "x86-64"},
		{"not in the kernel", "p2pdma", func(m *made) { m.file("/proc/kallsyms", "0 T x\n") }, Warn, "CONFIG_PCI_P2PDMA=y"},
		{"by its configuration", "p2pdma", func(m *made) { hidden(m); m.file("/proc/config.gz", config) }, OK, "has CONFIG_PCI_P2PDMA=y"},
		{"not by its configuration", "p2pdma", func(m *made) { hidden(m); m.file("/boot/config-6.8.0-45-generic", noConfig) }, Warn, "without peer-to-peer DMA"},
		{"damaged configuration", "p2pdma", func(m *made) { hidden(m); m.file("/proc/config.gz", "no gzip") }, Info, "not known"},
		{"only its version is known", "p2pdma", hidden, Info, "new enough"},
		{"an empty list of symbols says nothing", "p2pdma", func(m *made) { m.file("/proc/kallsyms", "") }, Info, "new enough"},
		{"on Fedora and RHEL too", "p2pdma", func(m *made) { m.file("/sys/module/nvme_core/parameters/multipath", "Y\n") }, Warn, "sudo update-initramfs -u || sudo dracut -f"},
		{"old kernel", "p2pdma", func(m *made) { hidden(m); m.file("/proc/sys/kernel/osrelease", "5.15.0\n") }, Warn, "6.2 or newer"},
		{"no kernel release", "p2pdma", func(m *made) { hidden(m); m.remove("/proc/sys/kernel/osrelease") }, Warn, "of unknown release"},
		{"driver not set up", "p2pdma", func(m *made) { m.file("/proc/driver/nvidia/params", "RegistryDwords: \"\"\n") }, Warn, "/etc/modprobe.d/nvidia-p2pdma.conf"},
		{"half set up", "p2pdma", func(m *made) { m.file("/proc/driver/nvidia/params", "RegistryDwords: \"RMForceStaticBar1=1\"\n") }, Warn, "write combining"},
		{"no params", "p2pdma", func(m *made) { m.remove("/proc/driver/nvidia/params") }, Info, "not known"},
		{"multipath", "p2pdma", func(m *made) { m.file("/sys/module/nvme_core/parameters/multipath", "Y\n") }, Warn, "options nvme_core multipath=N"},
		{"no multipath", "p2pdma", func(m *made) { m.remove("/sys/module/nvme_core/parameters/multipath") }, OK, "has no multipath"},
	})
}

// withACS is a bridge's configuration whose access control has these bits.
func withACS(control uint16) string {
	config := make([]byte, configBytes)
	binary.LittleEndian.PutUint32(config[extendedStart:], 0x2a010001) // another capability, next at 0x2a0
	binary.LittleEndian.PutUint32(config[0x2a0:], acsID|1<<16)        // ACS, the last
	binary.LittleEndian.PutUint16(config[0x2a0+acsControl:], control)
	return string(config)
}

func TestIOMMULines(t *testing.T) {
	on := func(unit, kind string) func(*made) {
		return func(m *made) {
			m.file("/sys/class/iommu/"+unit+"/x", "")
			m.file("/sys/kernel/iommu_groups/0/type", kind+"\n")
		}
	}
	bridge := "/sys/bus/pci/devices/0000:3b:00.0/config"
	check(t, []state{
		{"off", "iommu", func(*made) {}, OK, "no IOMMU is on; no bridge above a GPU redirects"},
		{"Intel's", "iommu", on("dmar0", "DMA-FQ"), Warn, "intel_iommu=off"},
		{"AMD's", "iommu", on("ivhd0", "DMA"), Warn, "amd_iommu=off"},
		{"another", "iommu", on("smmu3.0", "DMA"), Warn, "iommu=off"},
		{"passing through", "iommu", on("dmar0", "identity"), Info, "passes addresses through"},
		{"kinds are mixed", "iommu", func(m *made) { on("dmar0", "identity")(m); m.file("/sys/kernel/iommu_groups/1/type", "DMA\n") }, Warn, "identity, DMA"},
		{"as the kernel was told", "iommu", func(m *made) { on("dmar0", "DMA")(m); m.file("/proc/cmdline", "quiet intel_iommu=on\n") }, Warn, ", intel_iommu=on"},
		{"redirects", "iommu", func(m *made) { m.file(bridge, withACS(0x1d)) }, Warn, "sudo setpci -s 0000:3b:00.0 ECAP_ACS+6.w=0:c"},
		{"ACS that does not redirect", "iommu", func(m *made) { m.file(bridge, withACS(0x11)) }, OK, "no bridge above a GPU redirects"},
		{"bridges that are not in /sys", "iommu", func(m *made) { m.remove("/sys/bus/pci/devices/" + gpuAddress) }, OK, "is not known: a GPU is not in /sys/bus/pci"},
		{"on Fedora and RHEL", "iommu", on("dmar0", "DMA"), Warn, "grubby --update-kernel=ALL --args=intel_iommu=off"},
		{"only root reads it", "iommu", func(m *made) { m.file(bridge, "64 bytes") }, OK, "only root can read"},
	})
}

func TestDirectoryLines(t *testing.T) {
	mount := func(line string) func(*made) { return func(m *made) { m.file("/proc/self/mountinfo", line+"\n") } }
	on := func(kind, options string) func(*made) {
		return mount("40 27 259:1 / /nvme0 rw - " + kind + " /dev/nvme0n1p1 " + options)
	}
	virtual := func(m *made) {
		m.drive("254:1", "vda", "devices/pci0000:00/0000:00:05.0/virtio2/block")
		mount("40 27 254:1 / /nvme0 rw - xfs /dev/vda1 rw")(m)
	}
	check(t, []state{
		{"XFS on NVMe", "directory", func(*made) {}, OK, "xfs of /dev/nvme0n1p1 on /nvme0, 3 TiB free, on nvme0n1"},
		{"ext4 ordered", "directory", on("ext4", "rw,data=ordered"), OK, "data=ordered"},
		{"ext4 that does not say", "directory", on("ext4", "rw"), Warn, "sudo umount /nvme0 && sudo mount -o data=ordered /dev/nvme0n1p1 /nvme0 (a remount does not do it"},
		{"ext4 that does not say, on a virtual disk", "directory", func(m *made) {
			virtual(m)
			mount("40 27 254:1 / /nvme0 rw - ext4 /dev/vda1 rw")(m)
		}, Warn, "virtual machine's: no GPU can read from it\nstoker doctor"},
		{"ext4 that does not say, in a folder with a space", "directory", mount(`40 27 259:1 / /nvme0 rw - ext4 /dev/mapper/a\040b rw`), Warn, "'/dev/mapper/a b' /nvme0"},
		{"ext4 journalled, remounting is refused", "directory", on("ext4", "rw,data=journal"), Warn, "sudo umount"},
		{"ext4 of the root does not say", "directory", mount("27 1 259:1 / / rw - ext4 /dev/nvme0n1p1 rw"), Warn, "--args=rootflags=data=ordered"},
		{"ext4 journalled", "directory", on("ext4", "rw,data=journal"), Warn, "data=journal has no direct route"},
		{"overlay", "directory", on("overlay", "rw"), Warn, "docker run -v /mnt/nvme0:/nvme0/stoker"},
		{"tmpfs", "directory", on("tmpfs", "rw"), Warn, "not flash"},
		{"btrfs", "directory", on("btrfs", "rw"), Warn, "no direct route from btrfs"},
		{"NFS", "directory", on("nfs4", "rw"), Info, "over RDMA only"},
		{"Lustre", "directory", on("lustre", "rw"), Info, "Lustre"},
		{"virtual disk", "directory", virtual, Warn, "virtual machine's"},
		{"SATA", "directory", func(m *made) {
			m.drive("8:1", "sda", "devices/pci0000:00/0000:00:1f.2/ata1")
			mount("40 27 8:1 / /nvme0 rw - xfs /dev/sda1 rw")(m)
		}, Warn, "not NVMe"},
		{"not in the table", "directory", mount("22 1 0:21 / /proc rw - proc proc rw"), Info, "not in /proc/self/mountinfo"},
		{"no table", "directory", func(m *made) { m.remove("/proc/self/mountinfo") }, Info, "not known"},
		{"no such disk", "directory", mount("40 27 300:1 / /nvme0 rw - xfs /dev/other rw"), Info, "not in /sys"},
		{"missing", "directory", func(m *made) { m.Directories = []Directory{{Path: "/gone", Err: "no such file or directory"}} }, Bad, "mkdir -p /gone"},
		{"missing, with a space", "directory", func(m *made) {
			m.Directories = []Directory{{Path: "/go'ne; reboot", Err: "lstat: no such file or directory"}}
		}, Bad, `mkdir -p '/go'\''ne; reboot'`},
		{"a file", "directory", func(m *made) { m.Directories = []Directory{{Path: "/file", Err: "it is no directory"}} }, Bad, "stoker doctor --dir DIRECTORY"},
		{"none", "directory", func(m *made) { m.Directories = nil }, None, "--dir"},
		{"several", "directory", func(m *made) { m.Directories = append(m.Directories, Directory{Path: "/tmp"}) }, Info, "/tmp: ext4 of /dev/vda on /"},
		{"RAID", "directory", raid, Warn, "flash.devices"},
		{"RAID by nvidia-fs", "directory", func(m *made) { *m = *withNvidiaFS(); raid(m) }, Info, "md0 over nvme0n1, nvme1n1"},
		{"O_DIRECT", "direct-io", func(*made) {}, OK, "alignment 512 bytes (memory 4)"},
		{"no O_DIRECT", "direct-io", func(m *made) { m.Directories[0].DirectErr = "invalid argument" }, Warn, "invalid argument"},
		{"O_DIRECT not tried", "direct-io", func(m *made) { m.Directories[0].NotTried = "permission denied" }, Info, "sudo -u"},
		{"O_DIRECT not tried, read-only", "direct-io", func(m *made) { m.Directories[0].NotTried = "read-only file system" }, Info, "remount,rw"},
		{"O_DIRECT not tried, full", "direct-io", func(m *made) { m.Directories[0].NotTried = "write: no space left on device" }, Info, "df -h"},
		{"O_DIRECT not tried, no file can be made", "direct-io", func(m *made) { m.Directories[0].NotTried = "open /proc/x: no such file or directory" }, Info, "in which files can be made"},
		{"large blocks", "direct-io", func(m *made) { m.Directories[0].OffsetAlignment = 16384 }, Warn, "multiples of 16384"},
		{"compressed", "direct-io", func(m *made) { m.Directories[0].Flags = 0x4 }, Warn, "chattr"},
		{"immutable", "direct-io", func(m *made) { m.Directories[0].Flags = 0x10 }, Warn, "immutable"},
		{"missing, O_DIRECT", "direct-io", func(m *made) { m.Directories = []Directory{{Path: "/gone", Err: "no"}} }, None, "not examined"},
	})
}

// raid puts two drives below one file system.
func raid(m *made) {
	m.drive("259:3", "nvme1n1", "devices/pci0000:80/0000:80:01.0/0000:81:00.0/nvme/nvme1")
	m.file("/sys/devices/virtual/block/md0/size", "1")
	m.symlink("/sys/dev/block/9:0", "../../devices/virtual/block/md0")
	m.symlink("/sys/class/block/md0", "../../devices/virtual/block/md0")
	m.symlink("/sys/devices/virtual/block/md0/slaves/nvme0n1", "../../../../../"+driveDevice+"/nvme/nvme0/nvme0n1")
	m.symlink("/sys/devices/virtual/block/md0/slaves/nvme1n1", "../../../../pci0000:80/0000:80:01.0/0000:81:00.0/nvme/nvme1/nvme1n1")
	m.file("/proc/self/mountinfo", "40 27 9:0 / /nvme0 rw - xfs /dev/md0 rw\n")
}

func TestTopologyLines(t *testing.T) {
	move := func(device, node string) func(*made) {
		return func(m *made) {
			for name := range m.files {
				if strings.HasPrefix(name, "sys/"+driveDevice) {
					m.remove(name)
				}
			}
			m.drive("259:1", "nvme0n1", device+"/nvme/nvme0")
			m.file("/sys/"+device+"/numa_node", node+"\n")
			m.symlink("/sys/bus/pci/devices/"+driveAddress, "../../../"+device)
		}
	}
	check(t, []state{
		{"one switch", "topology", func(*made) {}, OK, "below one PCIe switch or port"},
		{"one root complex", "topology", move("devices/pci0000:3a/0000:3a:02.0/"+driveAddress, "0"), OK, "at one root complex"},
		{"one node", "topology", move("devices/pci0000:50/0000:50:02.0/"+driveAddress, "0"), Info, "one NUMA node"},
		{"two nodes", "topology", move("devices/pci0000:80/0000:80:02.0/"+driveAddress, "1"), Warn, "nvidia-smi topo -m"},
		{"nobody knows", "topology", move("devices/pci0000:80/0000:80:02.0/"+driveAddress, "-1"), Info, "distance unknown"},
		{"no PCI device", "topology", move("devices/virtual/block", "0"), Info, "how far"},
		{"no drive", "topology", func(m *made) { m.remove("/proc/self/mountinfo") }, Info, "not in /sys"},
		{"RAID over both nodes", "topology", func(m *made) {
			raid(m)
			m.file("/sys/devices/pci0000:80/0000:80:01.0/0000:81:00.0/numa_node", "1")
			m.symlink("/sys/bus/pci/devices/0000:81:00.0", "../../../devices/pci0000:80/0000:80:01.0/0000:81:00.0")
		}, Warn, "nvme1n1 (0000:81:00.0)"},
	})
}

// With multipath a namespace is below a subsystem, not below its controller.
func TestADriveIsFoundThroughMultipath(t *testing.T) {
	m := healthy()
	m.drive("259:1", "nvme0n1", "devices/virtual/nvme-subsystem/nvme-subsys0")
	m.symlink("/sys/class/nvme/nvme0", "../../"+driveDevice+"/nvme/nvme0")
	if c := examined(t, m, "topology"); c.Status != OK || !strings.Contains(c.Found, driveAddress) {
		t.Errorf("%+v", c)
	}
}

func TestSurroundingsLines(t *testing.T) {
	limit := func(group, text string) func(*made) {
		return func(m *made) { m.file("/sys/fs/cgroup"+group+"/memory.max", text+"\n") }
	}
	shm := func(line string) func(*made) { return func(m *made) { m.file("/proc/self/mountinfo", line+"\n") } }
	check(t, []state{
		{"a machine", "surroundings", func(*made) {}, OK, "locked memory up to 8 MiB; /dev/shm has 32 GiB; no memory limit"},
		{"no udev", "surroundings", func(m *made) { m.remove("/run/udev/data/b259:0") }, Warn, "-v /run/udev:/run/udev:ro"},
		{"no udev, no library", "surroundings", func(m *made) { m.remove("/run/udev/data/b259:0"); m.GPU.Versions.CuFile = 0 }, OK, "there is no /run/udev"},
		{"container", "surroundings", func(m *made) { m.symlink("/proc/self/ns/ipc", "ipc:[4026532000]") }, Info, "namespaces of its own: IPC"},
		{"container of its own", "surroundings", func(m *made) { m.symlink("/proc/self/ns/ipc", "ipc:[1]"); m.symlink("/proc/self/ns/pid", "pid:[1]") }, Info, "IPC, PID"},
		{"unlimited", "surroundings", func(m *made) {
			m.file("/proc/self/limits", "Max locked memory         unlimited            unlimited            bytes\n")
		}, OK, "locked memory unlimited"},
		{"docker's /dev/shm", "surroundings", shm("1 2 0:5 / /dev/shm rw - tmpfs shm rw,size=65536k"), Info, "--shm-size=8g"},
		{"/dev/shm without a limit", "surroundings", shm("1 2 0:5 / /dev/shm rw - tmpfs shm rw"), OK, "half of the memory"},
		{"no /dev/shm", "surroundings", shm("1 2 0:5 / / rw - ext4 x rw"), Info, "there is no /dev/shm"},
		{"memory limit", "surroundings", limit("/user.slice", "4294967296"), Info, "memory limit 4 GiB"},
		{"of a group above", "surroundings", func(m *made) { limit("/user.slice/session.scope", "max")(m); limit("", "1073741824")(m) }, Info, "memory limit 1 GiB"},
		{"limit of cgroup v1", "surroundings", func(m *made) {
			m.file("/proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/\n")
			m.file("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n")
			m.file("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "2147483648\n")
		}, Info, "memory limit 2 GiB"},
		{"no limit of cgroup v1", "surroundings", func(m *made) {
			m.remove("/sys/fs/cgroup/cgroup.controllers")
			m.file("/proc/self/cgroup", "4:memory:/\n")
			m.file("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
		}, OK, "; no memory limit"},
		{"control groups that cannot be read", "surroundings", func(m *made) { m.remove("/sys/fs/cgroup/cgroup.controllers") }, OK, "whether there is a memory limit cannot be read"},
		{"namespaces that cannot be read", "surroundings", func(m *made) { m.remove("/proc/self/ns/ipc") }, OK, "its namespaces cannot be read"},
		{"large limit", "surroundings", limit("/user.slice/session.scope", "68719476736"), OK, "memory limit 64 GiB"},
	})
}

func TestSettingsLines(t *testing.T) {
	file := func(text string) func(*made) { return func(m *made) { m.file("/etc/cufile.json", text) } }
	named := func(name string) func(*made) { return func(m *made) { m.vars[settingsVariable] = name } }
	p2p := `"properties":{"use_pci_p2pdma":true%s},"block":{"nvme":{"use_pci_p2pdma":true}}`
	with := func(more string) func(*made) { return file("{" + strings.Replace(p2p, "%s", more, 1) + "}") }
	check(t, []state{
		{"good", "cufile-json", func(*made) {}, OK, "parallel_io true"},
		{"none", "cufile-json", func(m *made) { m.remove("/etc/cufile.json") }, Warn, "built-in settings"},
		{"no JSON", "cufile-json", file(`{"properties": }`), Bad, "not documented"},
		{"a list", "cufile-json", file(`[]`), Bad, "no JSON"},
		{"only comments", "cufile-json", file("// nothing\n"), Bad, "no JSON"},
		{"one of two keys", "cufile-json", file(`{"properties":{"use_pci_p2pdma":true}}`), Warn, "both keys"},
		{"the other", "cufile-json", file(`{"block":{"nvme":{"use_pci_p2pdma":true}}}`), Warn, "properties.use_pci_p2pdma false"},
		{"as words", "cufile-json", file(`{"properties":{"use_pci_p2pdma":"true"},"block":{"nvme":{"use_pci_p2pdma":"true"}}}`), OK, "block.nvme.use_pci_p2pdma true"},
		{"below fs", "cufile-json", file(`{"properties":{"use_pci_p2pdma":true},"fs":{"block":{"nvme":{"use_pci_p2pdma":true}}}}`), OK, "fs.block.nvme."},
		{"compatible", "cufile-json", with(`,"allow_compat_mode":true`), OK, "turns it off for itself"},
		{"small pieces", "cufile-json", with(`,"max_direct_io_size_kb":1024`), Info, "16384 is faster"},
		{"little to pin", "cufile-json", with(`,"max_device_pinned_mem_size_kb":1048576`), Warn, "5016"},
		{"enough to pin", "cufile-json", with(`,"max_device_pinned_mem_size_kb":2097152`), OK, "cufile.json"},
		{"a number that is none", "cufile-json", with(`,"max_direct_io_size_kb":{}`), OK, "cufile.json"},
		{"no regular file", "cufile-json", func(m *made) { named("/etc")(m) }, Bad, "no regular file"},
		{"too large", "cufile-json", file(strings.Repeat(" ", settingsBytesMax+1) + "{}"), Bad, "some KiB"},
		{"no JSON, so that the library was not opened", "cufile-json", func(m *made) {
			file("{")(m)
			m.GPU.Versions.CuFile, m.GPU.StorageErr = 0, fmt.Errorf("%w: unexpected EOF", cufile.ErrConfiguration)
		}, Bad, "not documented"},
		{"a library that refuses may do so for its settings", "cufile-json", func(m *made) {
			m.GPU.Versions.CuFile, m.GPU.StorageErr = 0, &cufile.Error{Op: "cuFileDriverOpen", Code: 5002}
		}, OK, "/etc/cufile.json"},
		{"named", "cufile-json", func(m *made) { named("/opt/x.json")(m); m.file("/opt/x.json", goodSettings) }, OK, "/opt/x.json"},
		{"named, and missing", "cufile-json", named("/opt/x.json"), Bad, "unset CUFILE_ENV_PATH_JSON"},
		{"named relatively", "cufile-json", named("x.json"), Warn, "relative"},
		{"P2PDMA by the environment", "cufile-json", func(m *made) { m.vars["CUFILE_USE_PCIP2PDMA"] = "false" }, Warn, "CUFILE_USE_PCIP2PDMA false"},
		{"P2PDMA not by the environment", "cufile-json", func(m *made) { m.vars["CUFILE_USE_PCIP2PDMA"] = "" }, OK, "properties.use_pci_p2pdma true"},
		{"forced, and it can be told otherwise", "cufile-json", func(m *made) { m.vars["CUFILE_FORCE_COMPAT_MODE"] = "true" }, OK, ""},
		{"forced", "cufile-json", func(m *made) { m.vars["CUFILE_FORCE_COMPAT_MODE"], m.GPU.Versions.CuFile = "true", 1130 }, Warn, "unset CUFILE_FORCE_COMPAT_MODE"},
		{"no library", "cufile-json", func(m *made) { m.GPU.Versions.CuFile = 0 }, None, "no libcufile"},
	})
}

func TestProbeLines(t *testing.T) {
	routes := func(p RouteProbe) func(*made) { return func(m *made) { m.Probes = &Probes{Routes: []RouteProbe{p}} } }
	speed := func(s *SpeedProbe) func(*made) { return func(m *made) { m.Probes = &Probes{Speed: s} } }
	python := func(p PythonProbe) func(*made) { return func(m *made) { m.Probes = &Probes{Python: p} } }
	proof := cufile.Proof{Route: cufile.PCIP2PDMA, Reason: "counted", Counted: true, P2PReads: 16}
	check(t, []state{
		{"direct", "route", routes(RouteProbe{Directory: "/a", Proof: proof}), OK, "/a: counted (reads by P2PDMA 16, nvidia-fs 0, POSIX 0, unaligned 0)"},
		{"not direct", "route", routes(RouteProbe{Directory: "/a", Proof: cufile.Proof{Route: cufile.NotDirect, Reason: "by POSIX"}}), Warn, "by POSIX"},
		{"nobody knows", "route", routes(RouteProbe{Directory: "/a", Proof: cufile.Proof{Route: cufile.Unknown, Reason: "no counters"}}), Warn, "takes that for not direct"},
		{"refused", "route", routes(RouteProbe{Directory: "/a", Proof: cufile.Proof{Route: cufile.NotDirect, Reason: "no; remedy: x", Refusal: &cufile.Error{CUDA: 801}}}), Warn, "Stoker's path through host memory works there"},
		{"other bytes", "route", routes(RouteProbe{Directory: "/a", Err: "byte 7 is wrong", Wrong: true}), Bad, "byte 7 is wrong"},
		{"no right to write there", "route", routes(RouteProbe{Directory: "/a", Err: "permission denied"}), Warn, "could not be tried: permission denied"},
		{"no right to write there, remedy", "route", routes(RouteProbe{Directory: "/a b", Err: "open: permission denied"}), Warn, "sudo -u USER_OF_STOKERD stoker doctor --prove --dir '/a b'"},
		{"no room to write there", "route", routes(RouteProbe{Directory: "/a", Err: "write: no space left on device"}), Warn, "df -h /a"},
		{"no directory could be used", "route", func(m *made) { m.Probes = &Probes{} }, None, "no directory could be used"},
		{"not tried", "route", func(*made) {}, None, "--prove"},
		{"drive is the limit", "speed", speed(&SpeedProbe{Upload: 55e9, Disk: 3.1e9}), Info, "3.10 GB/s of the 55.00 GB/s"},
		{"GPU is the limit", "speed", speed(&SpeedProbe{Upload: 25e9, Disk: 24e9, Direct: 23e9}), OK, "directly 23.00 GB/s"},
		{"no speed", "speed", speed(&SpeedProbe{Err: "no room"}), Info, "no room"},
		{"not measured", "speed", speed(nil), None, "not measured"},
		{"tensor", "python", python(PythonProbe{Interpreter: "python3", Python: "3.11.2", Torch: "2.13.0", Tensor: true}), OK, "Python 3.11.2, torch 2.13.0"},
		{"no torch", "python", python(PythonProbe{Interpreter: "python3", Python: "3.11.2", Err: "ModuleNotFoundError: torch"}), Warn, "torch not there: ModuleNotFoundError"},
		{"no torch, and it says so", "python", python(PythonProbe{Interpreter: "python3", Python: "3.11.2", Err: "ModuleNotFoundError: torch"}), Warn, "python3 -m pip install torch"},
		{"no package of ours", "python", python(PythonProbe{Interpreter: "/a b/python", Python: "3.11.2", Torch: "2.13.0", Err: "ModuleNotFoundError: stoker"}), Warn, "'/a b/python' -m pip install ./python (in the folder"},
		{"no such interpreter", "python", python(PythonProbe{Interpreter: "/nope", Err: "start /nope: no such file"}), Warn, "--python .venv/bin/python"},
		{"wrong values", "python", python(PythonProbe{Interpreter: "python3", Torch: "2.13.0"}), Warn, "wrong values"},
		{"no interpreter", "python", python(PythonProbe{}), None, "--python"},
	})
}

func TestPageCacheLines(t *testing.T) {
	holds := func(held, cached int64) func(*made) {
		return func(m *made) { m.Directories[0].Bytes, m.Directories[0].CachedBytes = held, cached }
	}
	check(t, []state{
		{"larger than the memory", "page-cache", func(*made) {}, OK, "10 files with 600 GiB, of which 60 GiB (10 %)"},
		{"fits", "page-cache", holds(100<<30, 0), Info, "fit into the page cache"},
		{"fits the machine, not the limit", "page-cache", func(m *made) { holds(100<<30, 0)(m); m.file("/sys/fs/cgroup/memory.max", "1073741824\n") }, OK, "larger than the memory"},
		{"many files", "page-cache", func(m *made) { m.Directories[0].More = true }, Info, "the first 10 files with 600 GiB"},
		{"nothing yet", "page-cache", holds(0, 0), None, "hold nothing yet"},
		{"not known", "page-cache", func(m *made) { m.Directories[0].Counted = false }, None, "kernel 6.5"},
	})
}
