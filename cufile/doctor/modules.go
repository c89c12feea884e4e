package doctor

import (
	"fmt"
	"regexp"
	"strings"
)

// driverVersion finds the release in /proc/driver/nvidia/version.
var driverVersion = regexp.MustCompile(`\s(\d+\.\d+(?:\.\d+)?)\s`)

// installOpenModule gives a machine the kernel modules that P2PDMA needs.
const installOpenModule = "sudo apt install nvidia-open (Fedora, RHEL: sudo dnf install nvidia-open), then sudo reboot"

func examineKernelModule(m *Machine) Check {
	line, err := m.lineWith("/proc/driver/nvidia/version", "NVRM")
	if err != nil || line == "" {
		return Check{Status: Info, Found: "/proc/driver/nvidia/version cannot be read", Meaning: "whether the kernel's modules are the open ones, which P2PDMA needs, is not known"}
	}
	version := ""
	if found := driverVersion.FindStringSubmatch(line); found != nil {
		version = found[1]
	}
	switch {
	case !strings.Contains(line, "Open Kernel Module"):
		return Check{
			Status: m.unlessNvidiaFS(Warn), Found: strings.TrimSpace(line), Meaning: "these are the closed kernel modules: they have no P2PDMA",
			Remedy: installOpenModule,
		}.against(byP2PDMA, "the kernel modules are the closed ones, which have no P2PDMA")
	case !atLeast(version, 565, 47):
		return Check{
			Status: m.unlessNvidiaFS(Warn), Found: "open kernel modules, driver " + version, Meaning: "P2PDMA needs driver 565.47 or newer",
			Remedy: installOpenModule,
		}.against(byP2PDMA, "the driver is older than 565.47, which P2PDMA needs")
	}
	return Check{Status: OK, Found: "open kernel modules, driver " + version, Meaning: "P2PDMA is possible"}
}

// unlessNvidiaFS softens what concerns P2PDMA only where the other route is there.
func (m *Machine) unlessNvidiaFS(s Status) Status {
	if m.nvidiaFSActive() {
		return Info
	}
	return s
}

// nvidiaFS is what /proc says of NVIDIA's kernel module for storage.
type nvidiaFS struct {
	loaded  bool
	version string
	devices int    // of /dev/nvidia-fs*
	modules string // storage drivers that are registered with it
	nvme    bool   // whether NVMe's is
}

func (m *Machine) nvidiaFS() (n nvidiaFS) {
	version, err := m.read("/proc/driver/nvidia-fs/version")
	n.loaded = err == nil || m.exists("/sys/module/nvidia_fs")
	n.version = strings.TrimPrefix(strings.TrimSpace(version), "version: ")
	for _, name := range m.names("/dev") {
		if strings.HasPrefix(name, "nvidia-fs") {
			n.devices++
		}
	}
	modules, _ := m.read("/proc/driver/nvidia-fs/modules")
	for line := range strings.SplitSeq(modules, "\n") {
		if name, _, _ := strings.Cut(strings.TrimSpace(line), " "); name != "" {
			n.modules = strings.TrimPrefix(n.modules+", "+name, ", ")
			n.nvme = n.nvme || strings.TrimSuffix(name, ":") == "nvme"
		}
	}
	return n
}

// nvidiaFSActive says whether that route can be in use for NVMe: loaded is not enough.
func (m *Machine) nvidiaFSActive() bool {
	n := m.nvidiaFS()
	return n.loaded && n.devices > 0 && n.nvme
}

func examineNvidiaFS(m *Machine) Check {
	n := m.nvidiaFS()
	switch {
	case !n.loaded:
		return Check{
			Status: Info, Found: "nvidia-fs is not loaded", Meaning: "that is fine: P2PDMA needs no module of NVIDIA's storage stack",
		}.against(byNvidiaFS, "nvidia-fs is not loaded")
	case n.devices == 0:
		return Check{
			Status: Warn, Found: "nvidia-fs " + n.version + ", no /dev/nvidia-fs*", Meaning: "the module is loaded, but this process has no device of it, as in a container that was not given them",
			Remedy: "docker run $(printf -- '--device %s ' /dev/nvidia-fs*) ...",
		}.against(byNvidiaFS, "there is no /dev/nvidia-fs* here")
	case !n.nvme:
		return Check{
			Status: Warn, Found: "nvidia-fs " + n.version + ", registered: " + orElse(n.modules, "nothing"),
			Meaning: "the module is loaded, but the NVMe driver is not the patched one, so it is not used for NVMe",
			Remedy:  "sudo apt install doca-ofed mlnx-nvme-dkms && sudo reboot (or use P2PDMA, which needs neither)",
		}.against(byNvidiaFS, "the NVMe driver is not registered with nvidia-fs")
	}
	return m.oldTraps(n)
}

// oldTraps are combinations that the release notes of GPUDirect Storage warn of.
func (m *Machine) oldTraps(n nvidiaFS) Check {
	found := fmt.Sprintf("nvidia-fs %s, registered: %s", n.version, n.modules)
	parts := []part{{OK, found, "reads of NVMe can go directly by nvidia-fs", ""}}
	if kernel := m.kernel(); atLeast(kernel, 6, 17) {
		parts = append(parts, part{Warn, "kernel " + kernel, "nvidia-fs hangs with SGL drives on kernel 6.17 and newer, unless DOCA is 3.3.0 or newer", "sudo rmmod nvidia-fs"})
	} else if atLeast(kernel, 6, 11) {
		parts = append(parts, part{Info, "kernel " + kernel, "reads of 128 KiB and less are slow by nvidia-fs on kernel 6.11 and newer", ""})
	}
	return joined(parts...)
}
