package cufile

import "fmt"

// storageCode is one of cuFile's codes.
type storageCode struct{ name, text, remedy string }

// StorageCodeName gives NVIDIA's name of a cuFile code (CUfileOpError). The set
// grows with every release, so an unknown one is named by its number.
func StorageCodeName(code int) string {
	if code == 0 {
		return "CU_FILE_SUCCESS"
	}
	if entry, found := storageCodes[code]; found {
		return "CU_FILE_" + entry.name
	}
	return fmt.Sprintf("cuFile code %d", code)
}

func storageCodeText(code int) string {
	if entry, found := storageCodes[code]; found {
		return entry.text
	}
	return "a code that this version of Stoker does not know"
}

// DeviceCodeName gives NVIDIA's name of a CUresult.
func DeviceCodeName(code int) string {
	if code == 0 {
		return "CUDA_SUCCESS"
	}
	if name, found := deviceCodes[code]; found {
		return "CUDA_ERROR_" + name
	}
	return fmt.Sprintf("CUresult %d", code)
}

// ours is the remedy where a call was wrong that Stoker checks before.
const ours = "a mistake of Stoker's: report it with cufile.log"

// storageCodes are those of cuFile 1.15's header; abi.h has the same, and a test
// compares both.
var storageCodes = map[int]storageCode{
	5001: {"DRIVER_NOT_INITIALIZED", "the storage driver is not there and compatibility mode is off", "load nvidia-fs (modprobe nvidia-fs) or set up PCI P2PDMA; stoker doctor says what is missing"},
	5002: {"DRIVER_INVALID_PROPS", "a property is not valid", "check the sizes in Parameters and in cufile.json"},
	5003: {"DRIVER_UNSUPPORTED_LIMIT", "a property is out of its range", "check the sizes in Parameters and in cufile.json"},
	5004: {"DRIVER_VERSION_MISMATCH", "nvidia-fs has a version that the library does not know", "install nvidia-fs and libcufile of one release"},
	5005: {"DRIVER_VERSION_READ_ERROR", "the version of nvidia-fs cannot be read", "see dmesg; load nvidia-fs anew, of the library's release"},
	5006: {"DRIVER_CLOSING", "the driver is shutting down", "wait until the other Driver of this process has closed, then open again"},
	5007: {"PLATFORM_NOT_SUPPORTED", "GPUDirect Storage does not work on this platform", "use Stoker's path through host memory (gds: off)"},
	5008: {"IO_NOT_SUPPORTED", "no direct route to this file", "put the cache on ext4 (data=ordered) or XFS on a local NVMe drive, uncompressed and unencrypted"},
	5009: {"DEVICE_NOT_SUPPORTED", "GPUDirect Storage does not work on this GPU", "use Stoker's path through host memory (gds: off)"},
	5010: {"NVFS_DRIVER_ERROR", "nvidia-fs refused an ioctl", "see dmesg; check that nvidia-fs was built for this kernel"},
	5011: {"CUDA_DRIVER_ERROR", "the GPU driver refused", ""},
	5012: {"CUDA_POINTER_INVALID", "no valid device pointer", ours},
	5013: {"CUDA_MEMORY_TYPE_INVALID", "memory of a wrong type", ours},
	5014: {"CUDA_POINTER_RANGE_ERROR", "the range goes past the allocation", ours},
	5015: {"CUDA_CONTEXT_MISMATCH", "the memory belongs to another context", ours},
	5016: {"INVALID_MAPPING_SIZE", "more memory than may be pinned", "raise properties.max_device_pinned_mem_size_kb in cufile.json, or use smaller slabs; compare with the GPU's BAR1"},
	5017: {"INVALID_MAPPING_RANGE", "the range goes past what is mapped", ours},
	5018: {"INVALID_FILE_TYPE", "not a regular file or block device", "name a regular file on a local drive"},
	5019: {"INVALID_FILE_OPEN_FLAG", "the file was opened with a flag that is not allowed", ours},
	5020: {"DIO_NOT_SET", "the file was not opened for direct I/O", "open it without FileOptions.Buffered; cuFile before 1.7 needs that"},
	5022: {"INVALID_VALUE", "an argument is not valid", "check Parameters and cufile.json; if they are right it is a mistake of Stoker's: report it with cufile.log"},
	5023: {"MEMORY_ALREADY_REGISTERED", "the memory is registered already", ours},
	5024: {"MEMORY_NOT_REGISTERED", "the memory is not registered", ours},
	5025: {"PERMISSION_DENIED", "no right to the driver or the file", "check the rights of /dev/nvidia-fs* and of the file"},
	5026: {"DRIVER_ALREADY_OPEN", "the driver is open already", "close the other Driver of this process first"},
	5027: {"HANDLE_NOT_REGISTERED", "the file is not registered", ours},
	5028: {"HANDLE_ALREADY_REGISTERED", "the file is registered already", ours},
	5029: {"DEVICE_NOT_FOUND", "the GPU is not found", "check CUDA_VISIBLE_DEVICES"},
	5030: {"INTERNAL_ERROR", "internal error of the library", "mount /run/udev into the container (-v /run/udev:/run/udev:ro); else read cufile.log"},
	5031: {"GETNEWFD_FAILED", "no new file descriptor", "raise the limit of open files (ulimit -n, LimitNOFILE=)"},
	5033: {"NVFS_SETUP_ERROR", "nvidia-fs cannot be set up", "read cufile.log; known causes: nvidia-fs that does not start (dmesg), ext4 without data=ordered in its mount options"},
	5034: {"IO_DISABLED", "direct I/O is switched off for this file by cufile.json", "look for the file system in cufile.json"},
	5035: {"BATCH_SUBMIT_FAILED", "a batch could not be submitted", ours},
	5036: {"GPU_MEMORY_PINNING_FAILED", "the GPU memory cannot be pinned", "use smaller slabs; the GPU's BAR1 may be full (nvidia-smi -q -d MEMORY)"},
	5037: {"BATCH_FULL", "the batch is full", ours},
	5038: {"ASYNC_NOT_SUPPORTED", "no operations on streams", ours},
	5039: {"INTERNAL_BATCH_SETUP_ERROR", "a batch could not be set up", ours},
	5040: {"INTERNAL_BATCH_SUBMIT_ERROR", "a batch could not be submitted", ours},
	5041: {"INTERNAL_BATCH_GETSTATUS_ERROR", "the state of a batch cannot be read", ours},
	5042: {"INTERNAL_BATCH_CANCEL_ERROR", "a batch could not be cancelled", ours},
	5043: {"NOMEM_ERROR", "out of memory", "free host memory, or use fewer and smaller buffers"},
	5044: {"IO_ERROR", "the read failed", "see dmesg and cufile.log"},
	5045: {"INTERNAL_BUF_REGISTER_ERROR", "the buffer could not be registered", "see cufile.log"},
	5046: {"HASH_OPR_ERROR", "a look-up in the library's tables failed", "read cufile.log; close and open anew"},
	5047: {"INVALID_CONTEXT_ERROR", "no valid context", ours},
	5048: {"NVFS_INTERNAL_DRIVER_ERROR", "nvidia-fs failed inside", "see dmesg"},
	5049: {"BATCH_NOCOMPAT_ERROR", "needs compatibility mode, which is off", "set allow_compat_mode only where a read through host memory will do (Parameters.AllowCompat)"},
}

// deviceCodes are the codes of CUDA 13's header, without their prefix.
var deviceCodes = map[int]string{
	1:   "INVALID_VALUE",
	2:   "OUT_OF_MEMORY",
	3:   "NOT_INITIALIZED",
	4:   "DEINITIALIZED",
	5:   "PROFILER_DISABLED",
	6:   "PROFILER_NOT_INITIALIZED",
	7:   "PROFILER_ALREADY_STARTED",
	8:   "PROFILER_ALREADY_STOPPED",
	34:  "STUB_LIBRARY",
	36:  "CALL_REQUIRES_NEWER_DRIVER",
	46:  "DEVICE_UNAVAILABLE",
	100: "NO_DEVICE",
	101: "INVALID_DEVICE",
	102: "DEVICE_NOT_LICENSED",
	200: "INVALID_IMAGE",
	201: "INVALID_CONTEXT",
	202: "CONTEXT_ALREADY_CURRENT",
	205: "MAP_FAILED",
	206: "UNMAP_FAILED",
	207: "ARRAY_IS_MAPPED",
	208: "ALREADY_MAPPED",
	209: "NO_BINARY_FOR_GPU",
	210: "ALREADY_ACQUIRED",
	211: "NOT_MAPPED",
	212: "NOT_MAPPED_AS_ARRAY",
	213: "NOT_MAPPED_AS_POINTER",
	214: "ECC_UNCORRECTABLE",
	215: "UNSUPPORTED_LIMIT",
	216: "CONTEXT_ALREADY_IN_USE",
	217: "PEER_ACCESS_UNSUPPORTED",
	218: "INVALID_PTX",
	219: "INVALID_GRAPHICS_CONTEXT",
	220: "NVLINK_UNCORRECTABLE",
	221: "JIT_COMPILER_NOT_FOUND",
	222: "UNSUPPORTED_PTX_VERSION",
	223: "JIT_COMPILATION_DISABLED",
	224: "UNSUPPORTED_EXEC_AFFINITY",
	225: "UNSUPPORTED_DEVSIDE_SYNC",
	226: "CONTAINED",
	300: "INVALID_SOURCE",
	301: "FILE_NOT_FOUND",
	302: "SHARED_OBJECT_SYMBOL_NOT_FOUND",
	303: "SHARED_OBJECT_INIT_FAILED",
	304: "OPERATING_SYSTEM",
	400: "INVALID_HANDLE",
	401: "ILLEGAL_STATE",
	402: "LOSSY_QUERY",
	500: "NOT_FOUND",
	600: "NOT_READY",
	700: "ILLEGAL_ADDRESS",
	701: "LAUNCH_OUT_OF_RESOURCES",
	702: "LAUNCH_TIMEOUT",
	703: "LAUNCH_INCOMPATIBLE_TEXTURING",
	704: "PEER_ACCESS_ALREADY_ENABLED",
	705: "PEER_ACCESS_NOT_ENABLED",
	708: "PRIMARY_CONTEXT_ACTIVE",
	709: "CONTEXT_IS_DESTROYED",
	710: "ASSERT",
	711: "TOO_MANY_PEERS",
	712: "HOST_MEMORY_ALREADY_REGISTERED",
	713: "HOST_MEMORY_NOT_REGISTERED",
	714: "HARDWARE_STACK_ERROR",
	715: "ILLEGAL_INSTRUCTION",
	716: "MISALIGNED_ADDRESS",
	717: "INVALID_ADDRESS_SPACE",
	718: "INVALID_PC",
	719: "LAUNCH_FAILED",
	720: "COOPERATIVE_LAUNCH_TOO_LARGE",
	721: "TENSOR_MEMORY_LEAK",
	800: "NOT_PERMITTED",
	801: "NOT_SUPPORTED",
	802: "SYSTEM_NOT_READY",
	803: "SYSTEM_DRIVER_MISMATCH",
	804: "COMPAT_NOT_SUPPORTED_ON_DEVICE",
	805: "MPS_CONNECTION_FAILED",
	806: "MPS_RPC_FAILURE",
	807: "MPS_SERVER_NOT_READY",
	808: "MPS_MAX_CLIENTS_REACHED",
	809: "MPS_MAX_CONNECTIONS_REACHED",
	810: "MPS_CLIENT_TERMINATED",
	811: "CDP_NOT_SUPPORTED",
	812: "CDP_VERSION_MISMATCH",
	900: "STREAM_CAPTURE_UNSUPPORTED",
	901: "STREAM_CAPTURE_INVALIDATED",
	902: "STREAM_CAPTURE_MERGE",
	903: "STREAM_CAPTURE_UNMATCHED",
	904: "STREAM_CAPTURE_UNJOINED",
	905: "STREAM_CAPTURE_ISOLATION",
	906: "STREAM_CAPTURE_IMPLICIT",
	907: "CAPTURED_EVENT",
	908: "STREAM_CAPTURE_WRONG_THREAD",
	909: "TIMEOUT",
	910: "GRAPH_EXEC_UPDATE_FAILURE",
	911: "EXTERNAL_DEVICE",
	912: "INVALID_CLUSTER_SIZE",
	913: "FUNCTION_NOT_LOADED",
	914: "INVALID_RESOURCE_TYPE",
	915: "INVALID_RESOURCE_CONFIGURATION",
	916: "KEY_ROTATION",
	999: "UNKNOWN",
}

// deviceTexts say what the codes mean that the calls of this package can answer, or
// that a context brings along from another's mistake.
var deviceTexts = map[int]string{
	1:   "an argument is not valid, or not valid for this object",
	2:   "out of memory on the device",
	3:   "the driver is not initialised in this process",
	4:   "the driver is shutting down",
	34:  "the library is the toolkit's link-time stand-in, not the driver",
	36:  "the driver is too old for this call",
	46:  "the device is busy or unavailable",
	100: "no device that CUDA can use",
	101: "no device of this number",
	201: "no valid context",
	205: "the memory cannot be mapped",
	206: "the memory cannot be unmapped",
	208: "mapped already",
	211: "not mapped",
	214: "an error in the device's memory that ECC cannot correct",
	217: "the devices cannot reach each other's memory",
	220: "an error of NVLink that cannot be corrected",
	226: "the device contained an error of its memory",
	304: "a call of the operating system failed",
	400: "no valid handle",
	401: "not possible in the present state",
	500: "no such name or object",
	600: "work is still under way",
	700: "an earlier operation used memory that is not there; the context is lost",
	702: "an earlier kernel took too long; the context is lost",
	709: "the context is destroyed",
	711: "too many devices are connected",
	712: "the host memory is registered already, or part of it",
	713: "the host memory is not registered",
	716: "an earlier operation used memory at an odd address; the context is lost",
	719: "an earlier kernel failed; the context is lost",
	800: "not permitted",
	801: "not supported",
	802: "the system is not ready",
	803: "the driver's two parts are of different versions",
	804: "the compatibility package does not support this device",
	805: "no connection to the MPS server",
	806: "the MPS server failed",
	807: "the MPS server takes no clients yet",
	808: "the MPS server has all the clients that it can have",
	810: "the MPS server ended this client",
	999: "unknown error of the driver",
}
