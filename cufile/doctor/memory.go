package doctor

import (
	"fmt"

	"github.com/stokerio/stoker/cufile"
	"github.com/stokerio/stoker/cufile/inventory"
)

// contextBytes is what a process's context takes of each GPU, about
// (https://github.com/sgl-project/sglang/issues/22662).
const contextBytes = 500 << 20

func examineMemory(m *Machine) Check {
	if m.NVML.Absent != "" {
		return Check{Status: Info, Found: m.NVML.Absent, Meaning: "how much memory is free, and how large BAR1 is, is not known"}
	}
	var parts []part
	why := ""
	for i := range m.GPU.Devices {
		some, against := m.room(&m.GPU.Devices[i])
		parts = append(parts, some...)
		if why == "" {
			why = against
		}
	}
	c := joined(parts...)
	if c.Status == OK {
		c.Meaning = "there is room for slabs of " + sized(m.Wanted.SlabBytes) + " on each"
	}
	return c.against(anyRoute, why)
}

// room compares a GPU's memory, and the window to it, with what slabs are to take.
func (m *Machine) room(d *cufile.DeviceInfo) (parts []part, against string) {
	known := m.NVML.Find(d.UUID.String())
	var memory *inventory.Memory
	if known != nil {
		memory = known.MemoryOf(d.UUID.String())
	}
	if memory == nil {
		return []part{{Info, d.UUID.String() + ": not known to NVML", "how much of its memory is free is not known", ""}}, ""
	}
	needed := m.Wanted.SlabBytes + contextBytes
	if memory.Free < needed {
		parts = append(parts, part{
			Warn, fmt.Sprintf("%s: %s free", d.UUID, sized(memory.Free)),
			"slabs of " + sized(m.Wanted.SlabBytes) + " and a context of about 500 MiB do not fit", "nvidia-smi --query-compute-apps=pid,used_memory --format=csv",
		})
		against = "the GPU has too little free memory"
	} else {
		parts = append(parts, part{OK, fmt.Sprintf("%s: %s of %s free", d.UUID, sized(memory.Free), sized(memory.Total)), "", ""})
	}
	window, windowFree, ok := m.window(d, known)
	switch {
	case !ok:
		return append(parts, part{Info, "BAR1 unknown", "how much of its memory other devices reach is not known", ""}), against
	case windowFree < m.Wanted.SlabBytes:
		parts = append(parts, part{
			Warn, fmt.Sprintf("BAR1: %s of %s free", sized(windowFree), sized(window)),
			"the window through which drives reach the GPU's memory is smaller than the slabs", "turn on Above 4G Decoding and Resizable BAR in the firmware, or make the slabs smaller",
		})
		return parts, orElse(against, "BAR1 is smaller than the slabs")
	}
	return append(parts, part{OK, "BAR1 " + sized(window), "", ""}), against
}

// window is a GPU's BAR1: its size as cuFile says, else as NVML does, and what NVML says
// is in use taken off.
func (m *Machine) window(d *cufile.DeviceInfo, known *inventory.GPU) (total, free int64, ok bool) {
	total, ok = m.GPU.BAR1[d.Ordinal]
	if known.BAR1 == nil {
		return total, total, ok
	}
	if !ok {
		total = known.BAR1.Total
	}
	return total, total - (known.BAR1.Total - known.BAR1.Free), true
}
