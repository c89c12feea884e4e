package doctor

import (
	"errors"
	"fmt"
	"strings"

	"github.com/stokerio/stoker/cufile"
)

func examineBuild(m *Machine) Check {
	if errors.Is(m.GPU.Err, cufile.ErrNoCgo) {
		return Check{
			Status: Info, Found: "built without cgo", Meaning: "this program cannot load GPU libraries: it reads through the CPU only",
			Remedy: "make build", // the target that builds with cgo
		}.against(anyRoute, "this program was built without cgo")
	}
	return Check{Status: OK, Found: "built with cgo", Meaning: "GPU libraries can be loaded"}
}

// The driver's codes that have a remedy of their own; cuda.h, CUresult.
const (
	cudaStubLibrary    = 34
	cudaNoDevice       = 100
	cudaSystemNotReady = 802
	cudaDriverMismatch = 803
	cudaOldDevice      = 804
	cudaUnknown        = 999
)

func examineDriver(m *Machine) Check {
	switch err := m.GPU.Err; {
	case err == nil:
		v := m.GPU.Versions
		c := Check{Status: OK, Found: fmt.Sprintf("%s, CUDA %s", orElse(v.DevicePath, "libcuda.so.1"), cudaVersion(v.CUDA)), Meaning: "the driver answers"}
		if v.Stub {
			c.Status, c.Found = Info, "STUB "+c.Found
			c.Meaning = "the libraries are stand-ins for tests: nothing here is true of this machine's GPUs"
		}
		return c
	case errors.Is(err, cufile.ErrNoCgo):
		return Check{Status: None, Found: "not examined: built without cgo"}
	case errors.Is(err, cufile.ErrNoDriver):
		return m.withoutDriver()
	}
	return m.brokenDriver()
}

// withoutDriver tells a machine without a GPU from a container that does not see it.
func (m *Machine) withoutDriver() Check {
	const found = "there is no libcuda.so.1"
	if !m.exists("/proc/driver/nvidia/version") {
		return Check{Status: Info, Found: found, Meaning: "CPU-only: that is fine, batches are read into host memory"}
	}
	return Check{
		Status: Warn, Found: found + "; the kernel has NVIDIA's driver",
		Meaning: "the machine has a GPU, but this process does not see its libraries, as in a container that was not given them",
		Remedy:  "docker run --gpus all ... (with NVIDIA's container toolkit: sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker)",
	}
}

func (m *Machine) brokenDriver() Check {
	c := Check{Status: Bad, Found: said(m.GPU.Err), Meaning: "the driver is there, and does not start", Remedy: "sudo dmesg | grep -i nvrm"}
	var failed *cufile.Error
	if !errors.As(m.GPU.Err, &failed) {
		return c
	}
	if strings.HasPrefix(failed.Op, "dl") {
		c.Meaning = "the file is damaged, or another library's"
		c.Remedy = "install NVIDIA's driver anew; unset " + cufile.DeviceLibraryVariable + " if that names the file"
		return c
	}
	switch failed.CUDA {
	case cudaNoDevice:
		return m.noDevice(c)
	case cudaStubLibrary:
		c.Meaning = "the libcuda.so.1 that was found is the one that programs are linked with, not the driver's"
		c.Remedy = "remove the toolkit's folder lib64/stubs from LD_LIBRARY_PATH"
	case cudaSystemNotReady:
		c.Meaning = "the driver waits for the NVSwitch fabric"
		c.Remedy = "sudo systemctl enable --now nvidia-fabricmanager"
	case cudaDriverMismatch:
		c.Meaning = "libcuda.so.1 and the kernel's driver have different versions: the driver was updated and is not reloaded"
		c.Remedy = "sudo reboot"
	case cudaOldDevice:
		c.Meaning = "the forward-compatible libcuda.so.1 does not run on this GPU"
		c.Remedy = "remove cuda-compat from LD_LIBRARY_PATH, or update the driver"
	case cudaUnknown:
		c.Meaning = "the driver does not start: often the device files are missing, or nvidia-uvm is not loaded"
		c.Remedy = "sudo nvidia-modprobe -u -c=0"
	}
	return c
}

// noDevice is the driver's answer where CUDA_VISIBLE_DEVICES, or a container, hides all.
func (m *Machine) noDevice(c Check) Check {
	c.Status = Info
	if visible, set := m.Lookup("CUDA_VISIBLE_DEVICES"); set {
		c.Found += "; CUDA_VISIBLE_DEVICES=" + visible
		c.Meaning, c.Remedy = "CUDA_VISIBLE_DEVICES hides every GPU from this process", "unset CUDA_VISIBLE_DEVICES"
		return c
	}
	c.Meaning, c.Remedy = "the driver sees no GPU", ""
	if len(m.NVML.GPUs) > 0 || len(m.names("/proc/driver/nvidia/gpus")) > 0 {
		c.Status = Warn
		c.Meaning = "the machine has a GPU, but this process may not use it"
		c.Remedy = "docker run --gpus all ..."
	}
	return c
}

// p2pModels are the GPUs that NVIDIA's guide names for P2PDMA (GPUDirect Storage
// troubleshooting guide, section 14.2).
var p2pModels = []string{"A100", "A40", "L4", "L40S", "H100", "H200", "B100", "B200", "B300"}

func examineGPUs(m *Machine) Check {
	var parts []part
	for i := range m.GPU.Devices {
		parts = append(parts, m.examineGPU(&m.GPU.Devices[i])...)
	}
	if visible, set := m.Lookup("CUDA_VISIBLE_DEVICES"); set {
		parts = append(parts, part{Info, "CUDA_VISIBLE_DEVICES=" + visible, "the driver counts GPUs in that order: Stoker tells them by UUID", ""})
	}
	c := joined(parts...)
	if c.Status == OK {
		c.Meaning = "they can be used"
	}
	if why := m.oldGPU(); why != "" {
		return c.against(anyRoute, why)
	}
	return c
}

// oldGPU is why no GPU has a direct route with this CUDA.
func (m *Machine) oldGPU() string {
	for i := range m.GPU.Devices {
		if !m.tooOld(&m.GPU.Devices[i]) {
			return ""
		}
	}
	return "no GPU is new enough for this CUDA's cuFile"
}

// tooOld says whether cuFile dropped a GPU: CUDA 13 needs compute capability 7.5.
func (m *Machine) tooOld(d *cufile.DeviceInfo) bool {
	return m.GPU.Versions.CUDA >= 13000 && (d.Major < 7 || d.Major == 7 && d.Minor < 5)
}

func (m *Machine) examineGPU(d *cufile.DeviceInfo) []part {
	found := fmt.Sprintf("%s (%s, %s, %s, compute capability %d.%d)", orElse(d.Name, "GPU"), d.UUID, d.PCI, sized(d.Bytes), d.Major, d.Minor)
	parts := []part{{OK, found, "", ""}}
	if m.tooOld(d) {
		parts = append(parts, part{Warn, "", "CUDA 13 reads directly only into GPUs of compute capability 7.5 and newer", ""})
	}
	known := m.NVML.Find(d.UUID.String())
	if known != nil && known.MIG != nil && known.MIG.Enabled {
		var names []string
		for _, device := range known.MIG.Devices {
			names = append(names, device.UUID)
		}
		parts = append(parts, part{Info, fmt.Sprintf("MIG with %d partitions: %s", len(names), strings.Join(names, ", ")),
			"partitions share memory by descriptor only, and not across GPU instances: stoker doctor --prove tries it", ""})
	}
	if !isP2PModel(d.Name) && !m.nvidiaFSActive() {
		parts = append(parts, part{Info, "", "NVIDIA names " + strings.Join(p2pModels, ", ") + " for P2PDMA; others may work or not", ""})
	}
	return parts
}

// isP2PModel looks for a model's whole word: L4 is not L40.
func isP2PModel(name string) bool {
	for _, word := range strings.FieldsFunc(name, func(r rune) bool { return r == ' ' || r == '-' || r == '_' }) {
		for _, model := range p2pModels {
			if word == model {
				return true
			}
		}
	}
	return false
}

// examineSharing is about slabs that trainers map.
func examineSharing(m *Machine) Check {
	var parts []part
	for i := range m.GPU.Devices {
		if p := sharingBy(&m.GPU.Devices[i]); p.status != OK || m.Probes == nil {
			parts = append(parts, p)
		}
	}
	if m.Probes == nil {
		parts = append(parts, part{OK, "not tried with a second process", "", ""})
	} else {
		for _, p := range m.Probes.Sharing {
			parts = append(parts, tried(p))
		}
	}
	c := joined(parts...)
	if c.Status == OK {
		c.Meaning = "trainers can map slabs of GPU memory read-only"
	}
	return c
}

func sharingBy(d *cufile.DeviceInfo) part {
	if !d.Exportable() {
		return part{Warn, fmt.Sprintf("%s: no virtual memory that can be exported", d.UUID),
			"slabs are shared by CUDA IPC: writable for every trainer, and only within one PID namespace", "docker run --pid=host --ipc=host ..."}
	}
	if !d.DirectVirtualMemory {
		return part{Info, fmt.Sprintf("%s: virtual memory, not for other devices (attribute 110)", d.UUID), "such slabs can be shared, but not read into directly", ""}
	}
	return part{OK, fmt.Sprintf("%s: virtual memory, exported as descriptors", d.UUID), "", ""}
}

func tried(p SharingProbe) part {
	if p.Err != "" {
		return part{Warn, fmt.Sprintf("%s: a second process could not map a slab: %s", p.Device, p.Err),
			"GPU memory cannot be shared here (as in some sandboxes): batches go through host memory", "run the daemon and the trainers outside the sandbox, or in one container"}
	}
	return part{OK, fmt.Sprintf("%s: a second process mapped a slab by %s, and its bytes were right", p.Device, p.Way), "", ""}
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
