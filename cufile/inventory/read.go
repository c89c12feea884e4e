//go:build cgo && linux

package inventory

import (
	"context"
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// Read asks NVML. It ends early only where Options.Wait does, and then without Metrics.
func Read(ctx context.Context, o Options) Inventory {
	name := o.Library
	if name == "" {
		name = "libnvidia-ml.so.1"
	}
	keepLoaded(name)
	return read(ctx, nvml.New(nvml.WithLibraryPath(name)), o)
}

// keepLoaded has the library stay where it is for good: go-nvml unloads it at Shutdown,
// while the functions that were called stay bound to where it was, so that a second Read
// would call into nothing if it came back elsewhere. If it cannot be loaded, Init says so.
func keepLoaded(name string) {
	_ = dl.New(name, dl.RTLD_LAZY|dl.RTLD_GLOBAL|dl.RTLD_NODELETE).Open()
}

func read(ctx context.Context, library nvml.Interface, o Options) Inventory {
	found := Inventory{GPUs: []GPU{}}
	if code := library.Init(); code != nvml.SUCCESS {
		found.Absent = absence(code)
		return found
	}
	defer library.Shutdown()
	found.Driver, _ = library.SystemGetDriverVersion()
	found.Library, _ = library.SystemGetNVMLVersion()
	found.CUDA, _ = library.SystemGetCudaDriverVersion()
	count, code := library.DeviceGetCount()
	if code != nvml.SUCCESS {
		found.Absent = "NVML cannot count the GPUs: " + code.Error()
		return found
	}
	boards := make([]*board, count)
	found.GPUs = make([]GPU, count)
	for i := range boards {
		boards[i] = &board{library: library, gpu: &found.GPUs[i]}
		boards[i].read(i)
	}
	measure(ctx, boards, o)
	return found
}

// absence is why NVML does not start.
func absence(code nvml.Return) string {
	switch code {
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		return "NVML (libnvidia-ml.so.1) is not there or cannot be loaded: NVIDIA's driver is not installed, or not in this container"
	case nvml.ERROR_DRIVER_NOT_LOADED:
		return "NVIDIA's driver is installed, but not loaded"
	case nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		return "NVIDIA's driver was updated, and the old one is still loaded"
	}
	return "NVML does not start: " + code.Error()
}

// board reads one GPU.
type board struct {
	library       nvml.Interface
	device        nvml.Device // nil if there is no handle
	gpu           *GPU
	first, second nvml.GpmSample
}

// ask calls one function of the library, if it has it, and notes why there is no answer.
func (b *board) ask(what, symbol string, call func() nvml.Return) bool {
	if err := b.library.Extensions().LookupSymbol(symbol); err != nil {
		b.gpu.lacks(what, "this driver's library has no "+symbol)
		return false
	}
	if code := call(); code != nvml.SUCCESS {
		b.gpu.lacks(what, reason(code))
		return false
	}
	return true
}

func reason(code nvml.Return) string {
	switch code {
	case nvml.ERROR_NOT_SUPPORTED:
		return "this GPU does not have it"
	case nvml.ERROR_NO_PERMISSION:
		return "it needs more rights"
	}
	return code.Error()
}

func (b *board) read(index int) {
	device, code := b.library.DeviceGetHandleByIndex(index)
	if code != nvml.SUCCESS {
		b.gpu.lacks("device", reason(code))
		return
	}
	b.device = device
	b.ask("uuid", "nvmlDeviceGetUUID", func() (code nvml.Return) { b.gpu.UUID, code = device.GetUUID(); return code })
	b.ask("name", "nvmlDeviceGetName", func() (code nvml.Return) { b.gpu.Name, code = device.GetName(); return code })
	b.ask("capability", "nvmlDeviceGetCudaComputeCapability", func() (code nvml.Return) {
		b.gpu.Major, b.gpu.Minor, code = device.GetCudaComputeCapability()
		return code
	})
	b.ask("pci", "nvmlDeviceGetPciInfo", func() nvml.Return {
		info, code := device.GetPciInfo()
		if code == nvml.SUCCESS {
			b.gpu.PCI = fmt.Sprintf("%04x:%02x:%02x.0", info.Domain, info.Bus, info.Device)
		}
		return code
	})
	b.gpu.Memory = b.memory("memory", device)
	b.ask("bar1", "nvmlDeviceGetBAR1MemoryInfo", func() nvml.Return {
		info, code := device.GetBAR1MemoryInfo()
		if code == nvml.SUCCESS {
			b.gpu.BAR1 = &Memory{Total: int64(info.Bar1Total), Free: int64(info.Bar1Free)}
		}
		return code
	})
	b.ask("utilisation", "nvmlDeviceGetUtilizationRates", func() nvml.Return {
		rates, code := device.GetUtilizationRates()
		if code == nvml.SUCCESS {
			b.gpu.Utilisation = &Utilisation{Kernels: float64(rates.Gpu) / 100, Memory: float64(rates.Memory) / 100}
		}
		return code
	})
	b.readLink()
	b.readPartitions()
}

// memory is that of a GPU or of a partition.
func (b *board) memory(what string, device nvml.Device) (memory *Memory) {
	b.ask(what, "nvmlDeviceGetMemoryInfo", func() nvml.Return {
		info, code := device.GetMemoryInfo()
		if code == nvml.SUCCESS {
			memory = &Memory{Total: int64(info.Total), Free: int64(info.Free)}
		}
		return code
	})
	return memory
}

func (b *board) readLink() {
	var link Link
	for _, part := range []struct {
		symbol string
		call   func() (int, nvml.Return)
		value  *int
	}{
		{"nvmlDeviceGetCurrPcieLinkGeneration", b.device.GetCurrPcieLinkGeneration, &link.Generation},
		{"nvmlDeviceGetCurrPcieLinkWidth", b.device.GetCurrPcieLinkWidth, &link.Width},
		{"nvmlDeviceGetMaxPcieLinkGeneration", b.device.GetMaxPcieLinkGeneration, &link.GenerationMax},
		{"nvmlDeviceGetMaxPcieLinkWidth", b.device.GetMaxPcieLinkWidth, &link.WidthMax},
	} {
		if !b.ask("link", part.symbol, func() (code nvml.Return) { *part.value, code = part.call(); return code }) {
			return
		}
	}
	b.gpu.Link = &link
}

func (b *board) readPartitions() {
	var mig MIG
	if !b.ask("mig", "nvmlDeviceGetMigMode", func() nvml.Return {
		now, next, code := b.device.GetMigMode()
		mig.Enabled, mig.Pending = now == nvml.DEVICE_MIG_ENABLE, next == nvml.DEVICE_MIG_ENABLE
		return code
	}) {
		return
	}
	mig.Devices = []MIGDevice{}
	b.gpu.MIG = &mig
	if !mig.Enabled {
		return
	}
	count := 0
	b.ask("mig devices", "nvmlDeviceGetMaxMigDeviceCount", func() (code nvml.Return) { count, code = b.device.GetMaxMigDeviceCount(); return code })
	for i := range count {
		part, code := b.device.GetMigDeviceHandleByIndex(i)
		if code != nvml.SUCCESS {
			continue // a place that holds no partition
		}
		var device MIGDevice
		if device.UUID, code = part.GetUUID(); code != nvml.SUCCESS {
			b.gpu.lacks("mig devices", reason(code))
			continue
		}
		device.Memory = b.memory("memory of mig devices", part)
		mig.Devices = append(mig.Devices, device)
	}
}
