package cufile

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// UUID names a GPU, or a MIG instance of one, in every process alike: ordinals
// change with CUDA_VISIBLE_DEVICES.
type UUID [16]byte

// String gives the form that nvidia-smi prints: GPU-xxxxxxxx-xxxx-.... A MIG instance
// has it, too, where nvidia-smi writes MIG-: nothing in the bytes tells them apart.
func (u UUID) String() string {
	x := hex.EncodeToString(u[:])
	return "GPU-" + x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}

// MarshalText gives what String gives.
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// ParseUUID reads what String gives, also with the prefix MIG- or with none.
func ParseUUID(text string) (UUID, error) {
	var u UUID
	digits := strings.TrimPrefix(strings.TrimPrefix(text, "GPU-"), "MIG-")
	raw, err := hex.DecodeString(strings.ReplaceAll(digits, "-", ""))
	if err != nil || len(raw) != len(u) {
		return u, fmt.Errorf("cufile: %q is no GPU's UUID: want GPU- and 32 hexadecimal digits, as nvidia-smi -L prints", text)
	}
	copy(u[:], raw)
	return u, nil
}

// Versions say which libraries a Driver speaks to.
type Versions struct {
	CUDA   int // 1000*major + 10*minor of what the GPU driver supports: 13000
	CuFile int // 1000*major + 10*minor: 1150; 0 where no storage library is loaded
	// Inferred says that the library cannot tell its version (before about 1.8)
	// and CuFile is the oldest that fits its symbols.
	Inferred bool
	// Stub says that a stand-in of our tests is loaded: nothing measured on it is
	// a GPU's.
	Stub bool
	// DevicePath and StoragePath are the files that the loader took; StoragePath
	// is empty where none is.
	DevicePath, StoragePath string
}

// Symbol is one function of a library that this package can use.
type Symbol struct {
	Name    string // as the library exports it: cuMemAlloc_v2
	Library string // libcuda or libcufile
	Since   string // version of the library that brought it: "1.15"
	Found   bool
}

// DeviceInfo describes one GPU.
type DeviceInfo struct {
	UUID    UUID
	Ordinal int    // in this process; never sent to another one
	Name    string // NVIDIA H100 80GB HBM3
	PCI     string // 0000:61:00.0
	Bytes   int64  // device memory in all
	Major   int    // compute capability: 9.0 is Major 9, Minor 0
	Minor   int
	// VirtualMemory and DescriptorExport (attributes 102 and 103) are both needed
	// for slabs that travel as a descriptor; without them slabs are legacy ones.
	VirtualMemory, DescriptorExport bool
	// DirectVirtualMemory (attribute 110): such slabs can be read into directly.
	DirectVirtualMemory bool
	// ReadOnlyHost (attribute 113): read-only host memory can be registered.
	ReadOnlyHost bool
	// DirectMemory (attribute 116): third-party devices can reach the memory.
	DirectMemory bool
}

// Exportable says whether slabs of this GPU travel as a descriptor.
func (i DeviceInfo) Exportable() bool { return i.VirtualMemory && i.DescriptorExport }

// SlabKind says how a slab was allocated and travels.
type SlabKind uint32

// Kinds of slab; the numbers travel in the slab message.
const (
	SlabVMM    SlabKind = 1 // virtual memory management: travels as a descriptor
	SlabLegacy SlabKind = 2 // cuMemAlloc: travels as a 64-byte handle, always writable
)

func (k SlabKind) String() string {
	switch k {
	case SlabVMM:
		return "VMM"
	case SlabLegacy:
		return "legacy IPC"
	}
	return fmt.Sprintf("kind %d", uint32(k))
}

// Properties are what the storage library's driver says of itself. Flags are bit
// sets as cuFile numbers them; sizes are in bytes.
type Properties struct {
	KernelMajor, KernelMinor uint32 // version of nvidia-fs; 0, 0 where it is not loaded
	PollThresholdBytes       int64
	MaxDirectBytes           int64 // piece in which a read is issued
	FileSystems              uint32
	Control                  uint32
	Features                 uint32
	MaxCacheBytes            int64 // bounce buffers in all
	PerBufferCacheBytes      int64 // one bounce buffer
	MaxPinnedBytes           int64
}

// CompatAllowed says whether the library may read through host memory.
func (p Properties) CompatAllowed() bool { return p.Control&(1<<1) != 0 }

// Counter counts calls that succeeded and calls that failed.
type Counter struct{ OK, Errors uint64 }

// Statistics are the storage library's own counters since it opened, or since
// ResetStatistics.
type Statistics struct {
	Level int // 1 to 3: which of the fields below are filled
	// Level 1.
	Reads, HandleRegisters, HandleDeregisters, BufferRegisters, BufferDeregisters Counter
	ReadBytes                                                                     uint64
	// ReadSizes (level 2) counts reads by size, in the library's 32 classes of KiB.
	ReadSizes [32]uint64
	// Devices (level 3) has one entry for each GPU that the library saw.
	Devices []DeviceStatistics
}

// DeviceStatistics count one GPU's reads by the way that they took.
type DeviceStatistics struct {
	UUID                UUID
	ReadBytes           uint64
	Reads               uint64
	P2PReads            uint64 // PCI P2PDMA: device to device, no kernel module
	NvidiaFSReads       uint64 // device to device through nvidia-fs
	PosixReads          uint64 // through host memory: not direct
	UnalignedReads      uint64 // through a bounce buffer
	RoutedReads         uint64 // through another GPU (dynamic routing)
	SparseRegions       uint64
	InlineRegions       uint64
	ReadErrors          uint64
	Registrations       uint64
	RegistrationErrors  uint64
	Deregistrations     uint64
	RegisteredBytes     uint64
	ReadDurationMicros  uint64
	ReadUtilisationPerc uint64
}

// FileSystem numbers the kinds of storage that P2PFlags asks about, as
// CUfileDriverStatusFlags does.
type FileSystem int

// Kinds of storage.
const (
	Lustre   FileSystem = 0
	WekaFS   FileSystem = 1
	NFS      FileSystem = 2
	GPFS     FileSystem = 3
	NVMe     FileSystem = 4
	NVMeOF   FileSystem = 5
	BeeGFS   FileSystem = 9
	VirtioFS FileSystem = 13
)

// P2PFlags say which ways device-to-device the library may take to a kind of
// storage (cuFile 1.16 and later).
type P2PFlags uint32

// Ways of P2PFlags.
const (
	FlagPCIP2PDMA P2PFlags = 1 << iota
	FlagNvidiaFS
	FlagDMABuf
	FlagC2C
	FlagPeerMemory
)
