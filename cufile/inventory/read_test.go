//go:build cgo && linux

package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
)

// fakeLibrary has these devices, and every symbol but those that are missing. Samples
// that it gives out and does not get back are in live.
type fakeLibrary struct {
	mock.Interface
	live    int
	missing []string
}

func newLibrary(devices ...*mock.Device) *fakeLibrary {
	l := &fakeLibrary{}
	l.InitFunc = func() nvml.Return { return nvml.SUCCESS }
	l.ShutdownFunc = func() nvml.Return { return nvml.SUCCESS }
	l.SystemGetDriverVersionFunc = func() (string, nvml.Return) { return "580.65.06", nvml.SUCCESS }
	l.SystemGetNVMLVersionFunc = func() (string, nvml.Return) { return "13.580.65.06", nvml.SUCCESS }
	l.SystemGetCudaDriverVersionFunc = func() (int, nvml.Return) { return 13000, nvml.SUCCESS }
	l.DeviceGetCountFunc = func() (int, nvml.Return) { return len(devices), nvml.SUCCESS }
	l.DeviceGetHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
		if devices[i] == nil {
			return nil, nvml.ERROR_GPU_IS_LOST
		}
		return devices[i], nvml.SUCCESS
	}
	l.ExtensionsFunc = func() nvml.ExtendedInterface {
		return &mock.ExtendedInterface{LookupSymbolFunc: func(name string) error {
			if slices.Contains(l.missing, name) {
				return errors.New("no such symbol")
			}
			return nil
		}}
	}
	l.GpmSampleAllocFunc = func() (nvml.GpmSample, nvml.Return) { l.live++; return &mock.GpmSample{}, nvml.SUCCESS }
	l.GpmSampleFreeFunc = func(nvml.GpmSample) nvml.Return { l.live--; return nvml.SUCCESS }
	l.GpmMetricsGetFunc = func(r *nvml.GpmMetricsGetType) nvml.Return {
		for i := range r.NumMetrics {
			m := &r.Metrics[i]
			m.Value, m.NvmlReturn = 50, uint32(nvml.SUCCESS)
			if nvml.GpmMetricId(m.MetricId) == nvml.GPM_METRIC_ANY_TENSOR_UTIL {
				m.NvmlReturn = uint32(nvml.ERROR_NOT_SUPPORTED)
			}
		}
		return nvml.SUCCESS
	}
	return l
}

// hopper is a GPU that can all there is.
func hopper() *mock.Device {
	number := func(n int) func() (int, nvml.Return) {
		return func() (int, nvml.Return) { return n, nvml.SUCCESS }
	}
	return &mock.Device{
		GetUUIDFunc:                  func() (string, nvml.Return) { return "GPU-1", nvml.SUCCESS },
		GetNameFunc:                  func() (string, nvml.Return) { return "NVIDIA H100 80GB HBM3", nvml.SUCCESS },
		GetCudaComputeCapabilityFunc: func() (int, int, nvml.Return) { return 9, 0, nvml.SUCCESS },
		GetPciInfoFunc:               func() (nvml.PciInfo, nvml.Return) { return nvml.PciInfo{Bus: 0x3b}, nvml.SUCCESS },
		GetMemoryInfoFunc:            func() (nvml.Memory, nvml.Return) { return nvml.Memory{Total: 80 << 30, Free: 79 << 30}, nvml.SUCCESS },
		GetBAR1MemoryInfoFunc: func() (nvml.BAR1Memory, nvml.Return) {
			return nvml.BAR1Memory{Bar1Total: 128 << 30, Bar1Free: 127 << 30}, nvml.SUCCESS
		},
		GetUtilizationRatesFunc:         func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{Gpu: 25, Memory: 5}, nvml.SUCCESS },
		GetCurrPcieLinkGenerationFunc:   number(1),
		GetCurrPcieLinkWidthFunc:        number(16),
		GetMaxPcieLinkGenerationFunc:    number(5),
		GetMaxPcieLinkWidthFunc:         number(16),
		GetMigModeFunc:                  func() (int, int, nvml.Return) { return nvml.DEVICE_MIG_DISABLE, nvml.DEVICE_MIG_DISABLE, nvml.SUCCESS },
		GpmQueryDeviceSupportFunc:       func() (nvml.GpmSupport, nvml.Return) { return nvml.GpmSupport{IsSupportedDevice: 1}, nvml.SUCCESS },
		GpmSampleGetFunc:                func(nvml.GpmSample) nvml.Return { return nvml.SUCCESS },
		GetMaxMigDeviceCountFunc:        number(7),
		GetMigDeviceHandleByIndexFunc:   func(int) (nvml.Device, nvml.Return) { return nil, nvml.ERROR_NOT_FOUND },
		GetGpuMaxPcieLinkGenerationFunc: number(5),
	}
}

// atOnce is a Wait that does not wait.
func atOnce(context.Context, time.Duration) error { return nil }

var measuring = Options{Interval: 100 * time.Millisecond, Wait: atOnce}

func TestAGPUSaysAllThatItCan(t *testing.T) {
	library := newLibrary(hopper())
	found := read(t.Context(), library, measuring)
	half, bytes := 0.5, 50.0*(1<<20)
	want := Inventory{Driver: "580.65.06", Library: "13.580.65.06", CUDA: 13000, GPUs: []GPU{{
		UUID: "GPU-1", Name: "NVIDIA H100 80GB HBM3", PCI: "0000:3b:00.0", Major: 9,
		Memory: &Memory{80 << 30, 79 << 30}, BAR1: &Memory{128 << 30, 127 << 30}, MIG: &MIG{Devices: []MIGDevice{}},
		Link: &Link{Generation: 1, Width: 16, GenerationMax: 5, WidthMax: 16}, Utilisation: &Utilisation{0.25, 0.05},
		Metrics: &Metrics{Multiprocessors: &half, Occupancy: &half, MemoryBandwidth: &half, PCIeSent: &bytes, PCIeReceived: &bytes},
	}}}
	if !reflect.DeepEqual(found, want) {
		t.Errorf("got  %s\nwant %s", text(t, found), text(t, want))
	}
	if library.live != 0 || len(library.ShutdownCalls()) != 1 {
		t.Errorf("%d samples are left, %d shutdowns", library.live, len(library.ShutdownCalls()))
	}
	if found.Find("GPU-1") == nil || found.Find("GPU-2") != nil {
		t.Error("GPUs are not found by UUID")
	}
	if got := found.GPUs[0].Link.BytesPerSecondMax(); got < 63e9 || got > 64e9 {
		t.Errorf("generation 5 with 16 lanes carries %d", got)
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	line, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(line)
}

func TestAbsentIsAnAnswer(t *testing.T) {
	for code, want := range map[nvml.Return]string{
		nvml.ERROR_LIBRARY_NOT_FOUND:       "is not there or cannot be loaded",
		nvml.ERROR_DRIVER_NOT_LOADED:       "not loaded",
		nvml.ERROR_LIB_RM_VERSION_MISMATCH: "was updated",
		nvml.ERROR_UNKNOWN:                 "does not start",
	} {
		library := newLibrary()
		library.InitFunc = func() nvml.Return { return code }
		found := read(t.Context(), library, Options{})
		if !strings.Contains(found.Absent, want) || found.GPUs == nil || len(library.ShutdownCalls()) != 0 {
			t.Errorf("%v: %+v", code, found)
		}
	}
}

func TestALibraryThatIsNotThereIsAbsent(t *testing.T) {
	found := Read(t.Context(), Options{Library: filepath.Join(t.TempDir(), "libnvidia-ml.so.1")})
	if !strings.Contains(found.Absent, "is not there or cannot be loaded") || len(found.GPUs) != 0 {
		t.Errorf("%+v", found)
	}
}

func TestWhatAGPUDoesNotHaveIsNamed(t *testing.T) {
	refuse := nvml.ERROR_NOT_SUPPORTED
	for what, spoil := range map[string]func(*mock.Device){
		"bar1": func(d *mock.Device) {
			d.GetBAR1MemoryInfoFunc = func() (m nvml.BAR1Memory, _ nvml.Return) { return m, refuse }
		},
		"memory": func(d *mock.Device) { d.GetMemoryInfoFunc = func() (m nvml.Memory, _ nvml.Return) { return m, refuse } },
		"link":   func(d *mock.Device) { d.GetMaxPcieLinkWidthFunc = func() (int, nvml.Return) { return 0, refuse } },
		"mig":    func(d *mock.Device) { d.GetMigModeFunc = func() (int, int, nvml.Return) { return 0, 0, refuse } },
		"utilisation": func(d *mock.Device) {
			d.GetUtilizationRatesFunc = func() (u nvml.Utilization, _ nvml.Return) { return u, refuse }
		},
		"uuid": func(d *mock.Device) { d.GetUUIDFunc = func() (string, nvml.Return) { return "", refuse } },
		"name": func(d *mock.Device) { d.GetNameFunc = func() (string, nvml.Return) { return "", refuse } },
		"pci":  func(d *mock.Device) { d.GetPciInfoFunc = func() (p nvml.PciInfo, _ nvml.Return) { return p, refuse } },
		"capability": func(d *mock.Device) {
			d.GetCudaComputeCapabilityFunc = func() (int, int, nvml.Return) { return 0, 0, refuse }
		},
		"metrics": func(d *mock.Device) {
			d.GpmQueryDeviceSupportFunc = func() (nvml.GpmSupport, nvml.Return) { return nvml.GpmSupport{}, nvml.SUCCESS }
		},
	} {
		device := hopper()
		spoil(device)
		found := read(t.Context(), newLibrary(device), measuring)
		gpu := found.GPUs[0]
		if len(gpu.Absent) != 1 || gpu.Absent[what] != "this GPU does not have it" {
			t.Errorf("%s: %+v", what, gpu.Absent)
		}
		if what == "pci" && gpu.PCI != "" {
			t.Errorf("an address that could not be read is %s", gpu.PCI)
		}
	}
}

// Calling what the library lacks would end the process: mock.Device stands in for that
// by panicking for functions that are nil.
func TestNothingIsCalledThatTheLibraryLacks(t *testing.T) {
	device := hopper()
	device.GpmQueryDeviceSupportFunc, device.GetMigModeFunc, device.GetBAR1MemoryInfoFunc = nil, nil, nil
	library := newLibrary(device)
	library.missing = []string{"nvmlGpmSampleGet", "nvmlDeviceGetMigMode", "nvmlDeviceGetBAR1MemoryInfo"}
	found := read(t.Context(), library, measuring)
	for _, what := range []string{"metrics", "mig", "bar1"} {
		if !strings.Contains(found.GPUs[0].Absent[what], "this driver's library has no nvml") {
			t.Errorf("%s: %q", what, found.GPUs[0].Absent[what])
		}
	}
}

func TestPartitionsAreListed(t *testing.T) {
	device := hopper()
	device.GetMigModeFunc = func() (int, int, nvml.Return) { return nvml.DEVICE_MIG_ENABLE, nvml.DEVICE_MIG_ENABLE, nvml.SUCCESS }
	device.GetMigDeviceHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
		if i != 2 {
			return nil, nvml.ERROR_NOT_FOUND
		}
		part := hopper()
		part.GetUUIDFunc = func() (string, nvml.Return) { return "MIG-7", nvml.SUCCESS }
		return part, nvml.SUCCESS
	}
	mig := read(t.Context(), newLibrary(device), Options{}).GPUs[0].MIG
	if mig == nil || !mig.Enabled || len(mig.Devices) != 1 || mig.Devices[0].UUID != "MIG-7" || mig.Devices[0].Memory == nil {
		t.Errorf("%s", text(t, mig))
	}
}

func TestAPartitionWithoutMemoryDoesNotHideTheGPUs(t *testing.T) {
	device, part := hopper(), &mock.Device{
		GetUUIDFunc:       func() (string, nvml.Return) { return "MIG-7", nvml.SUCCESS },
		GetMemoryInfoFunc: func() (m nvml.Memory, _ nvml.Return) { return m, nvml.ERROR_NO_PERMISSION },
	}
	device.GetMigModeFunc = func() (int, int, nvml.Return) {
		return nvml.DEVICE_MIG_ENABLE, nvml.DEVICE_MIG_ENABLE, nvml.SUCCESS
	}
	device.GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 1, nvml.SUCCESS }
	device.GetMigDeviceHandleByIndexFunc = func(int) (nvml.Device, nvml.Return) { return part, nvml.SUCCESS }
	gpu := read(t.Context(), newLibrary(device), Options{}).GPUs[0]
	if gpu.Memory == nil || gpu.Absent["memory"] != "" || gpu.Absent["memory of mig devices"] != "it needs more rights" {
		t.Errorf("%s", text(t, gpu))
	}
}

func TestALostGPUDoesNotHideTheOthers(t *testing.T) {
	found := read(t.Context(), newLibrary(nil, hopper()), measuring)
	if len(found.GPUs) != 2 || found.GPUs[0].Absent["device"] == "" || found.GPUs[1].Metrics == nil {
		t.Errorf("%s", text(t, found))
	}
}

func TestMetricsFailAloneAndLeakNothing(t *testing.T) {
	for name, prepare := range map[string]func(*fakeLibrary, *mock.Device, *Options){
		"wait ends early": func(_ *fakeLibrary, _ *mock.Device, o *Options) {
			o.Wait = func(context.Context, time.Duration) error { return context.Canceled }
		},
		"no first sample": func(l *fakeLibrary, _ *mock.Device, _ *Options) {
			l.GpmSampleAllocFunc = func() (nvml.GpmSample, nvml.Return) { return &mock.GpmSample{}, nvml.ERROR_MEMORY }
		},
		"no second sample": func(l *fakeLibrary, _ *mock.Device, _ *Options) {
			alloc := l.GpmSampleAllocFunc
			l.GpmSampleAllocFunc = func() (nvml.GpmSample, nvml.Return) {
				if l.live > 0 {
					return nil, nvml.ERROR_MEMORY
				}
				return alloc()
			}
		},
		"sampling fails": func(_ *fakeLibrary, d *mock.Device, _ *Options) {
			d.GpmSampleGetFunc = func(nvml.GpmSample) nvml.Return { return nvml.ERROR_UNKNOWN }
		},
		"no answer": func(l *fakeLibrary, _ *mock.Device, _ *Options) {
			l.GpmMetricsGetFunc = func(*nvml.GpmMetricsGetType) nvml.Return { return nvml.ERROR_UNKNOWN }
		},
	} {
		device := hopper()
		library, o := newLibrary(device), measuring
		prepare(library, device, &o)
		gpu := read(t.Context(), library, o).GPUs[0]
		if gpu.Metrics != nil || gpu.Absent["metrics"] == "" || library.live != 0 || gpu.Memory == nil {
			t.Errorf("%s: %s, %d samples left", name, text(t, gpu), library.live)
		}
	}
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := waitByClock(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := waitByClock(t.Context(), 0); err != nil {
		t.Error(err)
	}
}
