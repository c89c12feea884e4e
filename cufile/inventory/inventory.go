// Package inventory says which NVIDIA GPUs a machine has, and how they fare, through
// NVML (libnvidia-ml.so.1).
//
// Absent is an answer, not an error: where there is no driver, no library or no cgo,
// Inventory.Absent says so, and what one GPU cannot tell is listed in its Absent. No CUDA
// context is made, so looking costs no GPU memory.
//
// The package is small on purpose, and nothing else may import go-nvml:
//
//   - go-nvml links symbols that are resolved when they are first called. A program that
//     holds it does not start if it was linked with -z now (the C compilers of some
//     distributions do that unasked): link it with -extldflags=-Wl,-z,lazy there.
//   - For the same reason, calling what an older driver's library lacks ends the process
//     ("symbol lookup error"), so every function is looked up before it is called.
package inventory

import (
	"context"
	"strings"
	"time"
)

// Options say what is read.
type Options struct {
	// Library is the path of NVML. "": libnvidia-ml.so.1, where the loader finds it.
	Library string

	// Interval is over which Metrics are measured: 100 ms or more, as GPM counts what
	// happened between two samples. 0: they are not measured.
	Interval time.Duration

	// Wait waits for Interval, or until ctx ends. Nil: by the system's clock.
	Wait func(ctx context.Context, d time.Duration) error
}

// Inventory is what NVML says of a machine.
type Inventory struct {
	// Absent is why there is nothing to say; "" if there is.
	Absent string `json:"absent,omitempty"`

	// Driver and Library are versions, such as 580.65.06 and 13.580.65.06.
	Driver  string `json:"driver,omitempty"`
	Library string `json:"library,omitempty"`

	// CUDA is the newest version that the driver runs, 1000·major + 10·minor; 0 unknown.
	CUDA int `json:"cuda,omitempty"`

	// GPUs are in NVML's order, which is PCI's and not CUDA's: tell them by UUID.
	GPUs []GPU `json:"gpus"`
}

// GPU is one GPU. What it cannot tell is nil or zero, and named in Absent.
type GPU struct {
	UUID string `json:"uuid"`
	Name string `json:"name"`

	// PCI is the address as in /sys/bus/pci/devices: 0000:3b:00.0.
	PCI string `json:"pci"`

	// Major and Minor are the compute capability: 9 and 0 for Hopper.
	Major int `json:"major"`
	Minor int `json:"minor"`

	Memory      *Memory      `json:"memory,omitempty"`
	BAR1        *Memory      `json:"bar1,omitempty"` // the window through which other devices reach its memory
	MIG         *MIG         `json:"mig,omitempty"`  // nil: it cannot be partitioned
	Link        *Link        `json:"link,omitempty"`
	Utilisation *Utilisation `json:"utilisation,omitempty"`
	Metrics     *Metrics     `json:"metrics,omitempty"`

	// Absent is what could not be read, with the reason.
	Absent map[string]string `json:"absent,omitempty"`
}

// Memory is in bytes.
type Memory struct {
	Total int64 `json:"total"`
	Free  int64 `json:"free"`
}

// MIG is how a GPU is partitioned.
type MIG struct {
	Enabled bool `json:"enabled"`
	// Pending is what it becomes with the next reset of the GPU.
	Pending bool        `json:"pending"`
	Devices []MIGDevice `json:"devices"`
}

// MIGDevice is one partition.
type MIGDevice struct {
	UUID   string  `json:"uuid"`
	Memory *Memory `json:"memory,omitempty"`
}

// Link is a PCIe link: generation and lanes. GPUs that idle slow theirs down, so what it
// is now is below what it can be without anything being wrong.
type Link struct {
	Generation    int `json:"generation"`
	Width         int `json:"width"`
	GenerationMax int `json:"generation_max"`
	WidthMax      int `json:"width_max"`
}

// BytesPerSecondMax is what the link carries at most in one direction, before the
// protocol's own share: transfers a second and lane, less 8b/10b up to generation 2 and
// 128b/130b above (PCI Express base specification, table of data rates). 0: unknown.
func (l *Link) BytesPerSecondMax() int64 {
	lane := map[int]float64{1: 0.25e9, 2: 0.5e9, 3: 8e9 / 8 * 128 / 130, 4: 16e9 / 8 * 128 / 130, 5: 32e9 / 8 * 128 / 130, 6: 8e9}
	return int64(lane[l.GenerationMax] * float64(l.WidthMax))
}

// Utilisation is the share of the last sample period, 0 to 1, in which a kernel ran, and
// in which memory was read or written.
type Utilisation struct {
	Kernels float64 `json:"kernels"`
	Memory  float64 `json:"memory"`
}

// Metrics are GPM's, of Hopper and newer, over Options.Interval: shares 0 to 1, and bytes
// a second. A nil one is not measured on this GPU.
type Metrics struct {
	Multiprocessors *float64 `json:"multiprocessors,omitempty"` // share of the time that they had a warp
	Occupancy       *float64 `json:"occupancy,omitempty"`       // share of the warps that they could have
	Tensor          *float64 `json:"tensor,omitempty"`
	MemoryBandwidth *float64 `json:"memory_bandwidth,omitempty"`
	PCIeSent        *float64 `json:"pcie_sent,omitempty"`
	PCIeReceived    *float64 `json:"pcie_received,omitempty"`
}

// Find returns the GPU with a UUID, or the one that has a partition with it, or nil.
// Prefixes do not matter: CUDA names a partition by the bytes alone.
func (i *Inventory) Find(uuid string) *GPU {
	for j := range i.GPUs {
		if gpu := &i.GPUs[j]; sameUUID(gpu.UUID, uuid) || gpu.partition(uuid) != nil {
			return gpu
		}
	}
	return nil
}

// MemoryOf is that of the partition with a UUID, or of the GPU where it has none such.
func (g *GPU) MemoryOf(uuid string) *Memory {
	if p := g.partition(uuid); p != nil {
		return p.Memory
	}
	return g.Memory
}

func (g *GPU) partition(uuid string) *MIGDevice {
	if g.MIG == nil {
		return nil
	}
	for i := range g.MIG.Devices {
		if sameUUID(g.MIG.Devices[i].UUID, uuid) {
			return &g.MIG.Devices[i]
		}
	}
	return nil
}

// sameUUID compares what follows GPU- and MIG-. What could not be read is nobody's.
func sameUUID(a, b string) bool {
	bare := func(uuid string) string { return strings.TrimPrefix(strings.TrimPrefix(uuid, "GPU-"), "MIG-") }
	return bare(a) != "" && bare(a) == bare(b)
}

// lacks notes that something could not be read.
func (g *GPU) lacks(what, why string) {
	if g.Absent == nil {
		g.Absent = map[string]string{}
	}
	g.Absent[what] = why
}
