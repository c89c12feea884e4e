package doctor

import (
	"path"
	"regexp"
	"strings"
)

// pciAddress is one component of a device's path in /sys: 0000:3b:00.0. pciRoot is the
// first: pci0000:3a.
var (
	pciAddress = regexp.MustCompile(`^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)
	pciRoot    = regexp.MustCompile(`^pci[0-9a-f]{4,}:[0-9a-f]{2}$`)
)

// pciPath is the way from a root complex down to a device: the root, the bridges, the
// device. Nil if /sys does not say.
func (m *Machine) pciPath(address string) []string {
	return pciIn(m.link("/sys/bus/pci/devices/" + strings.ToLower(address)))
}

// pciIn are the PCI components of a path in /sys.
func pciIn(device string) []string {
	var way []string
	for component := range strings.SplitSeq(device, "/") {
		if pciRoot.MatchString(component) || pciAddress.MatchString(component) {
			way = append(way, component)
		}
	}
	return way
}

// above are the bridges on the way to a device.
func above(way []string) []string {
	if len(way) < 3 {
		return nil
	}
	return way[1 : len(way)-1]
}

// numaNode is the memory that a PCI device is nearest to; "" unknown.
func (m *Machine) numaNode(address string) string {
	node, err := m.read("/sys/bus/pci/devices/" + strings.ToLower(address) + "/numa_node")
	if node = strings.TrimSpace(node); err != nil || node == "-1" {
		return ""
	}
	return node
}

// blockDevice is a disk, or what is made of disks.
type blockDevice struct {
	name string // nvme0n1
	// layers are what lies between the file system and the disks: dm-0, md127.
	layers []string
	// disks are the disks themselves.
	disks []disk
}

type disk struct {
	name string   // nvme0n1, vda
	way  []string // its PCI path; nil if it has none
}

// nvme says whether all disks are NVMe.
func (b *blockDevice) nvme() bool {
	for _, d := range b.disks {
		if !strings.HasPrefix(d.name, "nvme") {
			return false
		}
	}
	return len(b.disks) > 0
}

// block finds the disks below a device number ("259:1"), or, for file systems that have a
// number of their own, below the source that the mount table names.
func (m *Machine) block(number, source string) *blockDevice {
	device := m.link("/sys/dev/block/" + number)
	if device == "" {
		device = m.link("/sys/class/block/" + path.Base(source))
	}
	if device == "" {
		return nil
	}
	b := &blockDevice{name: path.Base(device)}
	m.descend(b, b.name, 0)
	return b
}

// layersMax bounds how deep disks may be stacked.
const layersMax = 8

// descend follows partitions and layers down to disks.
func (m *Machine) descend(b *blockDevice, name string, depth int) {
	device := m.link("/sys/class/block/" + name)
	if device == "" || depth > layersMax {
		return
	}
	if below := m.names("/sys/class/block/" + name + "/slaves"); len(below) > 0 {
		b.layers = append(b.layers, name)
		for _, part := range below {
			m.descend(b, part, depth+1)
		}
		return
	}
	if m.exists("/sys/class/block/" + name + "/partition") {
		name = path.Base(path.Dir(device))
	}
	way := pciIn(device)
	if controller := nvmeController.FindString(name); len(way) == 0 && controller != "" {
		way = pciIn(m.link("/sys/class/nvme/" + controller)) // with multipath a namespace is not below its controller
	}
	b.disks = append(b.disks, disk{name, way})
}

var nvmeController = regexp.MustCompile(`^nvme\d+`)
