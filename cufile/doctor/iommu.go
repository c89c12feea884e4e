package doctor

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"strings"
)

func examineIOMMU(m *Machine) Check {
	p, against := m.translation()
	if p.status == Warn {
		p.status = m.unlessNvidiaFS(Warn)
	}
	c := joined(p, m.redirects())
	if c.Status == OK {
		c.Meaning = "nothing stands between two PCI devices"
	}
	return c.against(byP2PDMA, against)
}

// translation says whether an IOMMU rewrites the addresses that devices use.
func (m *Machine) translation() (p part, against string) {
	units := m.names("/sys/class/iommu")
	if len(units) == 0 && !m.exists("/sys/class") {
		return part{Info, "/sys/class cannot be read", "whether an IOMMU is on is not known", ""}, ""
	}
	if len(units) == 0 {
		return part{OK, "no IOMMU is on", "", ""}, ""
	}
	option := "iommu=off"
	switch {
	case strings.HasPrefix(units[0], "dmar"):
		option = "intel_iommu=off"
	case strings.HasPrefix(units[0], "ivhd"):
		option = "amd_iommu=off"
	}
	remedy := addKernelOption(option)
	domains := m.domains()
	found := fmt.Sprintf("%d IOMMU units (%s), domains: %s", len(units), units[0], orElse(domains, "unknown"))
	if command, err := m.read("/proc/cmdline"); err == nil {
		for _, word := range strings.Fields(command) {
			if strings.Contains(word, "iommu") {
				found += ", " + word
			}
		}
	}
	if domains == "identity" {
		return part{Info, found, "the IOMMU passes addresses through; NVIDIA asks for it to be off", remedy}, ""
	}
	return part{Warn, found, "the IOMMU sends what one PCI device has for another through the root complex, or blocks it", remedy}, "the IOMMU translates addresses"
}

// addKernelOption has the kernel start with an option: with grubby on Fedora and RHEL,
// else by the settings of GRUB.
func addKernelOption(option string) string {
	return "{ command -v grubby >/dev/null && sudo grubby --update-kernel=ALL --args=" + option +
		` || { sudo sed -i 's/^GRUB_CMDLINE_LINUX="/&` + option + ` /' /etc/default/grub && sudo update-grub; }; } && sudo reboot`
}

// domains are the kinds of IOMMU domain that devices are in: "DMA-FQ, identity".
func (m *Machine) domains() string {
	var kinds []string
	for _, group := range m.names("/sys/kernel/iommu_groups") {
		kind, err := m.read("/sys/kernel/iommu_groups/" + group + "/type")
		if err == nil {
			kinds = add(kinds, strings.TrimSpace(kind))
		}
	}
	return strings.Join(kinds, ", ")
}

// PCI Express base specification, sections 7.6.3 and 7.7.11: extended capabilities begin
// at 256; a header is a 16-bit id, a 4-bit version and a 12-bit next offset; ACS has id
// 13, and its control register is at 6.
const (
	extendedStart = 256
	configBytes   = 4096
	acsID         = 13
	acsControl    = 6
	acsRedirect   = 1<<2 | 1<<3 // redirect of requests, and of completions
)

// redirects looks for bridges above a GPU that send peers' requests up to the root.
func (m *Machine) redirects() part {
	var redirecting []string
	unreadable, unknown := false, false
	for i := range m.GPU.Devices {
		way := m.pciPath(m.GPU.Devices[i].PCI)
		unknown = unknown || len(way) == 0
		for _, bridge := range above(way) {
			config, err := fs.ReadFile(m.Files, inside("/sys/bus/pci/devices/"+bridge+"/config"))
			if err != nil || len(config) < configBytes {
				unreadable = true // only root may read more than the first 64 bytes
				continue
			}
			if control := acs(config); control&acsRedirect != 0 {
				redirecting = add(redirecting, bridge)
			}
		}
	}
	switch {
	case len(redirecting) > 0:
		commands := make([]string, len(redirecting))
		for i, bridge := range redirecting {
			commands[i] = "sudo setpci -s " + bridge + " ECAP_ACS+6.w=0:c"
		}
		return part{Warn, "ACS redirects on " + strings.Join(redirecting, ", "),
			"access control sends what one device has for another through the root complex, which costs speed or blocks it", strings.Join(commands, "\n")}
	case unreadable:
		return part{OK, "whether bridges redirect (ACS) only root can read", "", ""}
	}
	if unknown {
		return part{OK, "whether bridges redirect (ACS) is not known: a GPU is not in /sys/bus/pci", "", ""}
	}
	return part{OK, "no bridge above a GPU redirects (ACS)", "", ""}
}

// acs is the control register of a device's access control services; 0 without them.
func acs(config []byte) uint16 {
	at := extendedStart
	for range (configBytes - extendedStart) / 4 { // a list that runs in a circle ends too
		if at < extendedStart || at+8 > len(config) {
			return 0
		}
		header := binary.LittleEndian.Uint32(config[at:])
		if header&0xffff == acsID {
			return binary.LittleEndian.Uint16(config[at+acsControl:])
		}
		if at = int(header >> 20); at == 0 {
			return 0
		}
	}
	return 0
}
