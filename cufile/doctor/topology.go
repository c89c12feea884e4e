package doctor

import "fmt"

// examineTopology says how far each drive is from the nearest GPU. Far is slower, and
// works.
func examineTopology(m *Machine) Check {
	var parts []part
	for i := range m.Directories {
		d := &m.Directories[i]
		at := m.mountOf(d.Path)
		if d.Err != "" || at == nil {
			continue
		}
		b := m.block(at.number, at.source)
		if b == nil {
			continue
		}
		for _, disk := range b.disks {
			parts = append(parts, m.nearest(disk))
		}
	}
	if len(parts) == 0 {
		return Check{Status: Info, Found: "the directories' drives are not in /sys", Meaning: "how far they are from the GPUs is not known"}
	}
	c := joined(parts...)
	if c.Status == OK {
		c.Meaning = "drives and GPUs are near to each other"
	}
	return c
}

// distance is how two PCI devices are connected, nearest first.
type distance int

const (
	sameSwitch distance = iota
	sameRoot
	sameNode
	unknownDistance
	farNode
)

func (m *Machine) nearest(d disk) part {
	if len(d.way) == 0 {
		return part{Info, d.name + " is not a PCI device", "how far it is from the GPUs is not known", ""}
	}
	best, gpu := farNode+1, ""
	for i := range m.GPU.Devices {
		address := m.GPU.Devices[i].PCI
		if between := m.distance(d.way, address); between < best {
			best, gpu = between, address
		}
	}
	found := fmt.Sprintf("%s (%s) and GPU %s: ", d.name, d.way[len(d.way)-1], gpu)
	switch best {
	case sameSwitch:
		return part{OK, found + "below one PCIe switch or port", "", ""}
	case sameRoot:
		return part{OK, found + "at one root complex", "", ""}
	case sameNode:
		return part{Info, found + "at different root complexes of one NUMA node", "direct reads cross the processor: slower than below one switch", ""}
	case farNode:
		return part{Warn, found + "at different NUMA nodes", "direct reads cross the link between processors, which costs speed", "put the cache on a drive of the GPU's node: nvidia-smi topo -m shows them"}
	}
	return part{Info, found + "distance unknown", "the machine does not say how they are connected", ""}
}

// distance is that of a device, by its path, to the one with an address.
func (m *Machine) distance(way []string, address string) distance {
	other := m.pciPath(address)
	common := 0
	for common < len(way)-1 && common < len(other)-1 && way[common] == other[common] {
		common++
	}
	switch {
	case common > 1:
		return sameSwitch
	case common == 1:
		return sameRoot
	}
	one, two := m.numaNode(way[len(way)-1]), m.numaNode(address)
	switch {
	case one == "" || two == "":
		return unknownDistance
	case one == two:
		return sameNode
	}
	return farNode
}
