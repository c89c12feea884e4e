package doctor

import (
	"bufio"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"strings"
)

// What NVIDIA's guide asks of a kernel for P2PDMA: GPUDirect Storage troubleshooting
// guide, section 14.
const (
	p2pSymbol      = "p2pdma_pgmap_ops"
	nvidiaSettings = `echo 'options nvidia NVreg_RegistryDwords="RMForceStaticBar1=1;RmForceDisableIomapWC=1;"' | sudo tee /etc/modprobe.d/nvidia-p2pdma.conf && ` + newInitramfs
	nvmeSettings   = `echo 'options nvme_core multipath=N' | sudo tee /etc/modprobe.d/nvme.conf && ` + newInitramfs
	newInitramfs   = `{ sudo update-initramfs -u || sudo dracut -f; } && sudo reboot` // Debian and Ubuntu; Fedora and RHEL
	newerKernel    = "boot a kernel of 6.2 or newer that has CONFIG_PCI_P2PDMA=y"
)

func examineP2PDMA(m *Machine) Check {
	if m.Architecture != "amd64" {
		return Check{
			Status: Info, Found: m.Architecture, Meaning: "P2PDMA by cuFile is for x86-64; this architecture's direct routes are others",
		}.against(byP2PDMA, "P2PDMA is for x86-64")
	}
	warn := m.unlessNvidiaFS(Warn)
	var parts []part
	why := ""
	for _, examine := range []func() (part, string){m.p2pKernel, m.p2pDriver, m.p2pMultipath} {
		p, against := examine()
		if p.status == Warn {
			p.status = warn
		}
		parts = append(parts, p)
		if why == "" {
			why = against
		}
	}
	c := joined(parts...)
	if c.Status == OK {
		c.Meaning = "kernel and driver are set up for P2PDMA"
	}
	return c.against(byP2PDMA, why)
}

// p2pKernel says whether the kernel has peer-to-peer DMA. Its symbol says most: kernels
// of distributions have what their version does not say, and the other way round.
func (m *Machine) p2pKernel() (p part, against string) {
	release := m.kernel()
	found := "kernel " + orElse(release, "of unknown release")
	line, err := m.lineWith("/proc/kallsyms", p2pSymbol)
	if some, _ := m.lineWith("/proc/kallsyms", " "); some == "" && err == nil {
		err = fs.ErrPermission // an empty one, as sandboxes have, says nothing
	}
	switch config := m.kernelConfig(release, "CONFIG_PCI_P2PDMA"); {
	case err == nil && line != "":
		return part{OK, found + " has " + p2pSymbol, "", ""}, ""
	case config == "y":
		return part{OK, found + " has CONFIG_PCI_P2PDMA=y", "", ""}, ""
	case err == nil, config == "n":
		return part{Warn, found + " has no " + p2pSymbol, "this kernel was built without peer-to-peer DMA", newerKernel}, "the kernel has no peer-to-peer DMA"
	case atLeast(release, 6, 2):
		return part{Info, found + ", /proc/kallsyms cannot be read", "the kernel is new enough for P2PDMA; whether it was built with it is not known", ""}, ""
	}
	return part{Warn, found, "P2PDMA needs kernel 6.2 or newer, or RHEL 9.4's", newerKernel}, "the kernel is older than 6.2"
}

// kernelConfig is a setting with which the kernel was built: y, m, n, or "" unknown.
func (m *Machine) kernelConfig(release, name string) string {
	for _, file := range []string{"/proc/config.gz", "/boot/config-" + release} {
		if value := m.configIn(file, name); value != "" {
			return value
		}
	}
	return ""
}

func (m *Machine) configIn(name, setting string) string {
	file, err := m.Files.Open(inside(name))
	if err != nil {
		return ""
	}
	defer file.Close()
	var text io.Reader = file
	if strings.HasSuffix(name, ".gz") {
		unpacked, err := gzip.NewReader(file)
		if err != nil {
			return ""
		}
		text = unpacked
	}
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), setting+"="); ok {
			return value
		}
		if lines.Text() == "# "+setting+" is not set" {
			return "n"
		}
	}
	return ""
}

// p2pDriver looks for the driver's two settings.
func (m *Machine) p2pDriver() (p part, against string) {
	line, err := m.lineWith("/proc/driver/nvidia/params", "RegistryDwords:")
	if err != nil {
		return part{Info, "/proc/driver/nvidia/params cannot be read", "whether the driver is set up for P2PDMA is not known", ""}, ""
	}
	set := strings.ToLower(line)
	if strings.Contains(set, "rmforcestaticbar1=1") && strings.Contains(set, "rmforcedisableiomapwc=1") {
		return part{OK, strings.TrimSpace(line), "", ""}, ""
	}
	return part{
		Warn, orElse(strings.TrimSpace(line), "no RegistryDwords"), "the driver is not set up for P2PDMA: it needs a static BAR1 without write combining", nvidiaSettings,
	}, "the driver's RegistryDwords for P2PDMA are not set"
}

// p2pMultipath: a namespace of NVMe multipath has no PCI device of its own.
func (m *Machine) p2pMultipath() (p part, against string) {
	switch value, err := m.read("/sys/module/nvme_core/parameters/multipath"); {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return part{Info, "nvme_core's multipath cannot be read", "whether NVMe multipath is on is not known", ""}, ""
	case err != nil:
		return part{OK, "nvme_core has no multipath", "", ""}, ""
	case strings.TrimSpace(value) == "N":
		return part{OK, "nvme_core multipath=N", "", ""}, ""
	}
	return part{Warn, "nvme_core multipath=Y", "NVMe multipath hides the drives from P2PDMA", nvmeSettings}, "NVMe multipath is on"
}
