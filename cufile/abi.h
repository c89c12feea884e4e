/*
 * The C ABI of libcuda and libcufile as far as Stoker uses it, in our own words, for
 * Linux on 64-bit machines. Facts (numbers, sizes, signatures) are NVIDIA's; nothing
 * of their headers is copied.
 *
 * testdata/layout.c compiles all of it against the real cuda.h and cufile.h: it
 * defines STOKER_VENDOR_TYPES, makes the type names below aliases of NVIDIA's and
 * compares every signature; without it the types are our own and their sizes and
 * offsets are asserted at the end.
 */
#ifndef STOKER_ABI_H
#define STOKER_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Numbers: NVIDIA's own names behind the prefix STOKER_. */
enum {
	/* CUresult of CUDA 13. */
	STOKER_CUDA_SUCCESS = 0,
	STOKER_CUDA_ERROR_INVALID_VALUE = 1,
	STOKER_CUDA_ERROR_OUT_OF_MEMORY = 2,
	STOKER_CUDA_ERROR_NOT_INITIALIZED = 3,
	STOKER_CUDA_ERROR_DEINITIALIZED = 4,
	STOKER_CUDA_ERROR_PROFILER_DISABLED = 5,
	STOKER_CUDA_ERROR_PROFILER_NOT_INITIALIZED = 6,
	STOKER_CUDA_ERROR_PROFILER_ALREADY_STARTED = 7,
	STOKER_CUDA_ERROR_PROFILER_ALREADY_STOPPED = 8,
	STOKER_CUDA_ERROR_STUB_LIBRARY = 34,
	STOKER_CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER = 36,
	STOKER_CUDA_ERROR_DEVICE_UNAVAILABLE = 46,
	STOKER_CUDA_ERROR_NO_DEVICE = 100,
	STOKER_CUDA_ERROR_INVALID_DEVICE = 101,
	STOKER_CUDA_ERROR_DEVICE_NOT_LICENSED = 102,
	STOKER_CUDA_ERROR_INVALID_IMAGE = 200,
	STOKER_CUDA_ERROR_INVALID_CONTEXT = 201,
	STOKER_CUDA_ERROR_CONTEXT_ALREADY_CURRENT = 202,
	STOKER_CUDA_ERROR_MAP_FAILED = 205,
	STOKER_CUDA_ERROR_UNMAP_FAILED = 206,
	STOKER_CUDA_ERROR_ARRAY_IS_MAPPED = 207,
	STOKER_CUDA_ERROR_ALREADY_MAPPED = 208,
	STOKER_CUDA_ERROR_NO_BINARY_FOR_GPU = 209,
	STOKER_CUDA_ERROR_ALREADY_ACQUIRED = 210,
	STOKER_CUDA_ERROR_NOT_MAPPED = 211,
	STOKER_CUDA_ERROR_NOT_MAPPED_AS_ARRAY = 212,
	STOKER_CUDA_ERROR_NOT_MAPPED_AS_POINTER = 213,
	STOKER_CUDA_ERROR_ECC_UNCORRECTABLE = 214,
	STOKER_CUDA_ERROR_UNSUPPORTED_LIMIT = 215,
	STOKER_CUDA_ERROR_CONTEXT_ALREADY_IN_USE = 216,
	STOKER_CUDA_ERROR_PEER_ACCESS_UNSUPPORTED = 217,
	STOKER_CUDA_ERROR_INVALID_PTX = 218,
	STOKER_CUDA_ERROR_INVALID_GRAPHICS_CONTEXT = 219,
	STOKER_CUDA_ERROR_NVLINK_UNCORRECTABLE = 220,
	STOKER_CUDA_ERROR_JIT_COMPILER_NOT_FOUND = 221,
	STOKER_CUDA_ERROR_UNSUPPORTED_PTX_VERSION = 222,
	STOKER_CUDA_ERROR_JIT_COMPILATION_DISABLED = 223,
	STOKER_CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY = 224,
	STOKER_CUDA_ERROR_UNSUPPORTED_DEVSIDE_SYNC = 225,
	STOKER_CUDA_ERROR_CONTAINED = 226,
	STOKER_CUDA_ERROR_INVALID_SOURCE = 300,
	STOKER_CUDA_ERROR_FILE_NOT_FOUND = 301,
	STOKER_CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND = 302,
	STOKER_CUDA_ERROR_SHARED_OBJECT_INIT_FAILED = 303,
	STOKER_CUDA_ERROR_OPERATING_SYSTEM = 304,
	STOKER_CUDA_ERROR_INVALID_HANDLE = 400,
	STOKER_CUDA_ERROR_ILLEGAL_STATE = 401,
	STOKER_CUDA_ERROR_LOSSY_QUERY = 402,
	STOKER_CUDA_ERROR_NOT_FOUND = 500,
	STOKER_CUDA_ERROR_NOT_READY = 600,
	STOKER_CUDA_ERROR_ILLEGAL_ADDRESS = 700,
	STOKER_CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES = 701,
	STOKER_CUDA_ERROR_LAUNCH_TIMEOUT = 702,
	STOKER_CUDA_ERROR_LAUNCH_INCOMPATIBLE_TEXTURING = 703,
	STOKER_CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED = 704,
	STOKER_CUDA_ERROR_PEER_ACCESS_NOT_ENABLED = 705,
	STOKER_CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE = 708,
	STOKER_CUDA_ERROR_CONTEXT_IS_DESTROYED = 709,
	STOKER_CUDA_ERROR_ASSERT = 710,
	STOKER_CUDA_ERROR_TOO_MANY_PEERS = 711,
	STOKER_CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED = 712,
	STOKER_CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED = 713,
	STOKER_CUDA_ERROR_HARDWARE_STACK_ERROR = 714,
	STOKER_CUDA_ERROR_ILLEGAL_INSTRUCTION = 715,
	STOKER_CUDA_ERROR_MISALIGNED_ADDRESS = 716,
	STOKER_CUDA_ERROR_INVALID_ADDRESS_SPACE = 717,
	STOKER_CUDA_ERROR_INVALID_PC = 718,
	STOKER_CUDA_ERROR_LAUNCH_FAILED = 719,
	STOKER_CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE = 720,
	STOKER_CUDA_ERROR_TENSOR_MEMORY_LEAK = 721,
	STOKER_CUDA_ERROR_NOT_PERMITTED = 800,
	STOKER_CUDA_ERROR_NOT_SUPPORTED = 801,
	STOKER_CUDA_ERROR_SYSTEM_NOT_READY = 802,
	STOKER_CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803,
	STOKER_CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE = 804,
	STOKER_CUDA_ERROR_MPS_CONNECTION_FAILED = 805,
	STOKER_CUDA_ERROR_MPS_RPC_FAILURE = 806,
	STOKER_CUDA_ERROR_MPS_SERVER_NOT_READY = 807,
	STOKER_CUDA_ERROR_MPS_MAX_CLIENTS_REACHED = 808,
	STOKER_CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED = 809,
	STOKER_CUDA_ERROR_MPS_CLIENT_TERMINATED = 810,
	STOKER_CUDA_ERROR_CDP_NOT_SUPPORTED = 811,
	STOKER_CUDA_ERROR_CDP_VERSION_MISMATCH = 812,
	STOKER_CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900,
	STOKER_CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901,
	STOKER_CUDA_ERROR_STREAM_CAPTURE_MERGE = 902,
	STOKER_CUDA_ERROR_STREAM_CAPTURE_UNMATCHED = 903,
	STOKER_CUDA_ERROR_STREAM_CAPTURE_UNJOINED = 904,
	STOKER_CUDA_ERROR_STREAM_CAPTURE_ISOLATION = 905,
	STOKER_CUDA_ERROR_STREAM_CAPTURE_IMPLICIT = 906,
	STOKER_CUDA_ERROR_CAPTURED_EVENT = 907,
	STOKER_CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD = 908,
	STOKER_CUDA_ERROR_TIMEOUT = 909,
	STOKER_CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE = 910,
	STOKER_CUDA_ERROR_EXTERNAL_DEVICE = 911,
	STOKER_CUDA_ERROR_INVALID_CLUSTER_SIZE = 912,
	STOKER_CUDA_ERROR_FUNCTION_NOT_LOADED = 913,
	STOKER_CUDA_ERROR_INVALID_RESOURCE_TYPE = 914,
	STOKER_CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION = 915,
	STOKER_CUDA_ERROR_KEY_ROTATION = 916,
	STOKER_CUDA_ERROR_UNKNOWN = 999,
};

enum {
	/* CUfileOpError, base 5000. The set is open: IO_MAX_ERROR moves with every release. */
	STOKER_CU_FILE_DRIVER_NOT_INITIALIZED = 5001,
	STOKER_CU_FILE_DRIVER_INVALID_PROPS = 5002,
	STOKER_CU_FILE_DRIVER_UNSUPPORTED_LIMIT = 5003,
	STOKER_CU_FILE_DRIVER_VERSION_MISMATCH = 5004,
	STOKER_CU_FILE_DRIVER_VERSION_READ_ERROR = 5005,
	STOKER_CU_FILE_DRIVER_CLOSING = 5006,
	STOKER_CU_FILE_PLATFORM_NOT_SUPPORTED = 5007,
	STOKER_CU_FILE_IO_NOT_SUPPORTED = 5008,
	STOKER_CU_FILE_DEVICE_NOT_SUPPORTED = 5009,
	STOKER_CU_FILE_NVFS_DRIVER_ERROR = 5010,
	STOKER_CU_FILE_CUDA_DRIVER_ERROR = 5011,
	STOKER_CU_FILE_CUDA_POINTER_INVALID = 5012,
	STOKER_CU_FILE_CUDA_MEMORY_TYPE_INVALID = 5013,
	STOKER_CU_FILE_CUDA_POINTER_RANGE_ERROR = 5014,
	STOKER_CU_FILE_CUDA_CONTEXT_MISMATCH = 5015,
	STOKER_CU_FILE_INVALID_MAPPING_SIZE = 5016,
	STOKER_CU_FILE_INVALID_MAPPING_RANGE = 5017,
	STOKER_CU_FILE_INVALID_FILE_TYPE = 5018,
	STOKER_CU_FILE_INVALID_FILE_OPEN_FLAG = 5019,
	STOKER_CU_FILE_DIO_NOT_SET = 5020,
	STOKER_CU_FILE_INVALID_VALUE = 5022,
	STOKER_CU_FILE_MEMORY_ALREADY_REGISTERED = 5023,
	STOKER_CU_FILE_MEMORY_NOT_REGISTERED = 5024,
	STOKER_CU_FILE_PERMISSION_DENIED = 5025,
	STOKER_CU_FILE_DRIVER_ALREADY_OPEN = 5026,
	STOKER_CU_FILE_HANDLE_NOT_REGISTERED = 5027,
	STOKER_CU_FILE_HANDLE_ALREADY_REGISTERED = 5028,
	STOKER_CU_FILE_DEVICE_NOT_FOUND = 5029,
	STOKER_CU_FILE_INTERNAL_ERROR = 5030,
	STOKER_CU_FILE_GETNEWFD_FAILED = 5031,
	STOKER_CU_FILE_NVFS_SETUP_ERROR = 5033,
	STOKER_CU_FILE_IO_DISABLED = 5034,
	STOKER_CU_FILE_BATCH_SUBMIT_FAILED = 5035,
	STOKER_CU_FILE_GPU_MEMORY_PINNING_FAILED = 5036,
	STOKER_CU_FILE_BATCH_FULL = 5037,
	STOKER_CU_FILE_ASYNC_NOT_SUPPORTED = 5038,
	STOKER_CU_FILE_INTERNAL_BATCH_SETUP_ERROR = 5039,
	STOKER_CU_FILE_INTERNAL_BATCH_SUBMIT_ERROR = 5040,
	STOKER_CU_FILE_INTERNAL_BATCH_GETSTATUS_ERROR = 5041,
	STOKER_CU_FILE_INTERNAL_BATCH_CANCEL_ERROR = 5042,
	STOKER_CU_FILE_NOMEM_ERROR = 5043,
	STOKER_CU_FILE_IO_ERROR = 5044,
	STOKER_CU_FILE_INTERNAL_BUF_REGISTER_ERROR = 5045,
	STOKER_CU_FILE_HASH_OPR_ERROR = 5046,
	STOKER_CU_FILE_INVALID_CONTEXT_ERROR = 5047,
	STOKER_CU_FILE_NVFS_INTERNAL_DRIVER_ERROR = 5048,
	STOKER_CU_FILE_BATCH_NOCOMPAT_ERROR = 5049,
};

enum {
	/* CUdevice_attribute. */
	STOKER_CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
	STOKER_CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
	STOKER_CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED = 102,
	STOKER_CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED = 103,
	STOKER_CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED = 110,
	STOKER_CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED = 113,
	STOKER_CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED = 116,
	/* Memory. */
	STOKER_CU_MEM_ALLOCATION_TYPE_PINNED = 1,
	STOKER_CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR = 1,
	STOKER_CU_MEM_LOCATION_TYPE_DEVICE = 1,
	STOKER_CU_MEM_ACCESS_FLAGS_PROT_READ = 1,
	STOKER_CU_MEM_ACCESS_FLAGS_PROT_READWRITE = 3,
	STOKER_CU_MEM_ALLOC_GRANULARITY_MINIMUM = 0,
	STOKER_CU_MEMHOSTREGISTER_PORTABLE = 1,
	STOKER_CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS = 1,
	STOKER_CU_IPC_HANDLE_SIZE = 64,
	STOKER_CU_STREAM_NON_BLOCKING = 1,
};

enum {
	/* CUFileSizeTConfigParameter, CUFileBoolConfigParameter, CUFileStringConfigParameter. */
	STOKER_CUFILE_PARAM_PROPERTIES_MAX_DIRECT_IO_SIZE_KB = 5,
	STOKER_CUFILE_PARAM_PROPERTIES_MAX_DEVICE_PINNED_MEM_SIZE_KB = 8,
	STOKER_CUFILE_PARAM_PROPERTIES_ALLOW_COMPAT_MODE = 1,
	STOKER_CUFILE_PARAM_FORCE_COMPAT_MODE = 2,
	STOKER_CUFILE_PARAM_USE_PCIP2PDMA = 7,
	STOKER_CUFILE_PARAM_LOG_DIR = 2,
	/* CUfileDriverStatusFlags. */
	STOKER_CU_FILE_LUSTRE_SUPPORTED = 0,
	STOKER_CU_FILE_WEKAFS_SUPPORTED = 1,
	STOKER_CU_FILE_NFS_SUPPORTED = 2,
	STOKER_CU_FILE_GPFS_SUPPORTED = 3,
	STOKER_CU_FILE_NVME_SUPPORTED = 4,
	STOKER_CU_FILE_NVMEOF_SUPPORTED = 5,
	STOKER_CU_FILE_BEEGFS_SUPPORTED = 9,
	STOKER_CU_FILE_VIRTIOFS_SUPPORTED = 13,
	/* CUfileP2PFlags, the numbers of bits. */
	STOKER_CUFILE_P2PDMA = 0,
	STOKER_CUFILE_NVFS = 1,
	STOKER_CUFILE_DMABUF = 2,
	STOKER_CUFILE_C2C = 3,
	STOKER_CUFILE_NVIDIA_PEERMEM = 4,
	/* The rest. */
	STOKER_CU_FILE_HANDLE_TYPE_OPAQUE_FD = 1,
	STOKER_CU_FILE_ALLOW_COMPAT_MODE = 1,
	STOKER_CUFILE_GPU_UUID_LEN = 16,
};

#ifndef STOKER_VENDOR_TYPES

typedef int stoker_cuda_result;
typedef int stoker_cuda_device;
typedef int stoker_cuda_attribute;
typedef int stoker_cuda_handle_type;
typedef int stoker_cuda_granularity;
typedef unsigned long long stoker_cuda_address;
typedef unsigned long long stoker_cuda_allocation;
typedef struct stoker_cuda_context_object *stoker_cuda_context;
typedef struct stoker_cuda_stream_object *stoker_cuda_stream;

typedef struct {
	char bytes[16];
} stoker_cuda_uuid;

typedef struct {
	char reserved[STOKER_CU_IPC_HANDLE_SIZE];
} stoker_cuda_ipc_handle;

typedef struct {
	int type;
	int id;
} stoker_cuda_location;

typedef struct {
	int type;
	int requestedHandleTypes;
	stoker_cuda_location location;
	void *win32HandleMetaData;
	struct {
		unsigned char compressionType;
		unsigned char gpuDirectRDMACapable;
		unsigned short usage;
		unsigned char reserved[4];
	} allocFlags;
} stoker_cuda_allocation_properties;

typedef struct {
	stoker_cuda_location location;
	int flags;
} stoker_cuda_access;

typedef void *stoker_cufile_handle;
typedef int stoker_cufile_size_parameter;
typedef int stoker_cufile_bool_parameter;
typedef int stoker_cufile_string_parameter;

/* Returned by value: both halves of one register on x86-64. */
typedef struct {
	int err;    /* CUfileOpError */
	int cu_err; /* CUresult; says something if err is 5011 */
} stoker_cufile_error;

typedef struct {
	int type;
	union {
		int fd;
		void *handle;
	} handle;
	const void *fs_ops;
} stoker_cufile_descriptor;

/* Sizes in KiB. */
typedef struct {
	struct {
		unsigned int major_version;
		unsigned int minor_version;
		size_t poll_thresh_size;
		size_t max_direct_io_size;
		unsigned int dstatusflags;
		unsigned int dcontrolflags;
	} nvfs;
	unsigned int fflags;
	unsigned int max_device_cache_size;
	unsigned int per_buffer_cache_size;
	unsigned int max_device_pinned_mem_size;
	unsigned int max_batch_io_size;
	unsigned int max_batch_io_timeout_msecs;
} stoker_cufile_properties;

typedef struct {
	uint64_t ok;
	uint64_t err;
} stoker_cufile_counter;

typedef struct {
	stoker_cufile_counter read_ops, write_ops;
	stoker_cufile_counter hdl_register_ops, hdl_deregister_ops;
	stoker_cufile_counter buf_register_ops, buf_deregister_ops;
	uint64_t read_bytes, write_bytes;
	uint64_t rates_and_latencies[8];
	stoker_cufile_counter batch_ops[15];
	uint64_t batch_amounts[12];
} stoker_cufile_stats1;

typedef struct {
	stoker_cufile_stats1 basic;
	uint64_t read_size_kb_hist[32];
	uint64_t write_size_kb_hist[32];
} stoker_cufile_stats2;

typedef struct {
	char uuid[STOKER_CUFILE_GPU_UUID_LEN];
	uint64_t read_bytes, read_bw_bytes_per_sec, read_utilization, read_duration_us;
	uint64_t n_total_reads, n_p2p_reads, n_nvfs_reads, n_posix_reads, n_unaligned_reads;
	uint64_t n_dr_reads, n_sparse_regions, n_inline_regions, n_reads_err;
	uint64_t writes[11];
	uint64_t n_mmap, n_mmap_ok, n_mmap_err, n_mmap_free, reg_bytes;
} stoker_cufile_gpu_stats;

typedef struct {
	stoker_cufile_stats2 detailed;
	uint32_t num_gpus;
	stoker_cufile_gpu_stats per_gpu_stats[16];
} stoker_cufile_stats3;

#endif /* STOKER_VENDOR_TYPES */

/*
 * From 1.19 on, with cuFileReadv, level 1 ends in 14 more words, and all after it
 * lies further back. The number of words is the only fact needed: nothing here
 * reads them.
 */
enum { STOKER_CUFILE_STATS1_VECTOR_WORDS = 14 };

/*
 * The functions: X(function, symbol, since, needed, result, arguments). A library
 * without a needed one is refused; all others may be missing. Symbols carry _v2
 * where the bare name is the ABI of 32-bit sizes.
 */
#define STOKER_CUDA_FUNCTIONS(X) \
	X(cuInit, "cuInit", "1", 1, stoker_cuda_result, (unsigned int flags)) \
	X(cuDriverGetVersion, "cuDriverGetVersion", "2.2", 1, stoker_cuda_result, (int *version)) \
	X(cuDeviceGetCount, "cuDeviceGetCount", "1", 1, stoker_cuda_result, (int *count)) \
	X(cuDeviceGet, "cuDeviceGet", "1", 1, stoker_cuda_result, (stoker_cuda_device *device, int ordinal)) \
	X(cuDeviceGetName, "cuDeviceGetName", "1", 1, stoker_cuda_result, (char *name, int length, stoker_cuda_device device)) \
	X(cuDeviceTotalMem, "cuDeviceTotalMem_v2", "3.2", 1, stoker_cuda_result, (size_t *bytes, stoker_cuda_device device)) \
	X(cuDeviceGetAttribute, "cuDeviceGetAttribute", "1", 1, stoker_cuda_result, (int *value, stoker_cuda_attribute attribute, stoker_cuda_device device)) \
	X(cuDeviceGetPCIBusId, "cuDeviceGetPCIBusId", "4.1", 1, stoker_cuda_result, (char *id, int length, stoker_cuda_device device)) \
	X(cuDeviceGetUuid, "cuDeviceGetUuid_v2", "11.4", 1, stoker_cuda_result, (stoker_cuda_uuid *uuid, stoker_cuda_device device)) \
	X(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", "7.0", 1, stoker_cuda_result, (stoker_cuda_context *context, stoker_cuda_device device)) \
	X(cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2", "11.0", 1, stoker_cuda_result, (stoker_cuda_device device)) \
	X(cuCtxSetCurrent, "cuCtxSetCurrent", "4.0", 1, stoker_cuda_result, (stoker_cuda_context context)) \
	X(cuMemGetInfo, "cuMemGetInfo_v2", "3.2", 1, stoker_cuda_result, (size_t *free, size_t *total)) \
	X(cuMemAlloc, "cuMemAlloc_v2", "3.2", 1, stoker_cuda_result, (stoker_cuda_address *address, size_t bytes)) \
	X(cuMemFree, "cuMemFree_v2", "3.2", 1, stoker_cuda_result, (stoker_cuda_address address)) \
	X(cuMemGetAddressRange, "cuMemGetAddressRange_v2", "3.2", 0, stoker_cuda_result, (stoker_cuda_address *base, size_t *bytes, stoker_cuda_address address)) \
	X(cuMemHostRegister, "cuMemHostRegister_v2", "6.5", 1, stoker_cuda_result, (void *memory, size_t bytes, unsigned int flags)) \
	X(cuMemHostUnregister, "cuMemHostUnregister", "4.0", 1, stoker_cuda_result, (void *memory)) \
	X(cuMemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2", "3.2", 1, stoker_cuda_result, (stoker_cuda_address to, const void *from, size_t bytes, stoker_cuda_stream stream)) \
	X(cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2", "3.2", 1, stoker_cuda_result, (void *to, stoker_cuda_address from, size_t bytes, stoker_cuda_stream stream)) \
	X(cuMemsetD8Async, "cuMemsetD8Async", "3.2", 1, stoker_cuda_result, (stoker_cuda_address to, unsigned char value, size_t bytes, stoker_cuda_stream stream)) \
	X(cuStreamCreate, "cuStreamCreate", "2.0", 1, stoker_cuda_result, (stoker_cuda_stream *stream, unsigned int flags)) \
	X(cuStreamSynchronize, "cuStreamSynchronize", "2.0", 1, stoker_cuda_result, (stoker_cuda_stream stream)) \
	X(cuStreamDestroy, "cuStreamDestroy_v2", "4.0", 1, stoker_cuda_result, (stoker_cuda_stream stream)) \
	X(cuIpcGetMemHandle, "cuIpcGetMemHandle", "4.1", 0, stoker_cuda_result, (stoker_cuda_ipc_handle *handle, stoker_cuda_address address)) \
	X(cuIpcOpenMemHandle, "cuIpcOpenMemHandle_v2", "11.0", 0, stoker_cuda_result, (stoker_cuda_address *address, stoker_cuda_ipc_handle handle, unsigned int flags)) \
	X(cuIpcCloseMemHandle, "cuIpcCloseMemHandle", "4.1", 0, stoker_cuda_result, (stoker_cuda_address address)) \
	X(cuMemGetAllocationGranularity, "cuMemGetAllocationGranularity", "10.2", 0, stoker_cuda_result, (size_t *bytes, const stoker_cuda_allocation_properties *properties, stoker_cuda_granularity option)) \
	X(cuMemCreate, "cuMemCreate", "10.2", 0, stoker_cuda_result, (stoker_cuda_allocation *allocation, size_t bytes, const stoker_cuda_allocation_properties *properties, unsigned long long flags)) \
	X(cuMemRelease, "cuMemRelease", "10.2", 0, stoker_cuda_result, (stoker_cuda_allocation allocation)) \
	X(cuMemExportToShareableHandle, "cuMemExportToShareableHandle", "10.2", 0, stoker_cuda_result, (void *shared, stoker_cuda_allocation allocation, stoker_cuda_handle_type type, unsigned long long flags)) \
	X(cuMemImportFromShareableHandle, "cuMemImportFromShareableHandle", "10.2", 0, stoker_cuda_result, (stoker_cuda_allocation *allocation, void *shared, stoker_cuda_handle_type type)) \
	X(cuMemAddressReserve, "cuMemAddressReserve", "10.2", 0, stoker_cuda_result, (stoker_cuda_address *address, size_t bytes, size_t alignment, stoker_cuda_address wanted, unsigned long long flags)) \
	X(cuMemAddressFree, "cuMemAddressFree", "10.2", 0, stoker_cuda_result, (stoker_cuda_address address, size_t bytes)) \
	X(cuMemMap, "cuMemMap", "10.2", 0, stoker_cuda_result, (stoker_cuda_address address, size_t bytes, size_t offset, stoker_cuda_allocation allocation, unsigned long long flags)) \
	X(cuMemUnmap, "cuMemUnmap", "10.2", 0, stoker_cuda_result, (stoker_cuda_address address, size_t bytes)) \
	X(cuMemSetAccess, "cuMemSetAccess", "10.2", 0, stoker_cuda_result, (stoker_cuda_address address, size_t bytes, const stoker_cuda_access *access, size_t count))

#define STOKER_CUFILE_FUNCTIONS(X) \
	X(cuFileDriverOpen, "cuFileDriverOpen", "1.0", 1, stoker_cufile_error, (void)) \
	X(cuFileDriverGetProperties, "cuFileDriverGetProperties", "1.0", 1, stoker_cufile_error, (stoker_cufile_properties *properties)) \
	X(cuFileHandleRegister, "cuFileHandleRegister", "1.0", 1, stoker_cufile_error, (stoker_cufile_handle *handle, stoker_cufile_descriptor *descriptor)) \
	X(cuFileHandleDeregister, "cuFileHandleDeregister", "1.0", 1, void, (stoker_cufile_handle handle)) \
	X(cuFileBufRegister, "cuFileBufRegister", "1.0", 1, stoker_cufile_error, (const void *base, size_t bytes, int flags)) \
	X(cuFileBufDeregister, "cuFileBufDeregister", "1.0", 1, stoker_cufile_error, (const void *base)) \
	X(cuFileRead, "cuFileRead", "1.0", 1, ssize_t, (stoker_cufile_handle handle, void *base, size_t bytes, off_t file_offset, off_t base_offset)) \
	X(cuFileDriverClose, "cuFileDriverClose", "1.0", 0, stoker_cufile_error, (void)) \
	X(cuFileDriverClose_v2, "cuFileDriverClose_v2", "1.4", 0, stoker_cufile_error, (void)) \
	X(cuFileGetVersion, "cuFileGetVersion", "1.8", 0, stoker_cufile_error, (int *version)) \
	X(cuFileUseCount, "cuFileUseCount", "1.4", 0, long, (void)) \
	X(cuFileReadAsync, "cuFileReadAsync", "1.7", 0, stoker_cufile_error, (stoker_cufile_handle handle, void *base, size_t *bytes, off_t *file_offset, off_t *base_offset, ssize_t *done, stoker_cuda_stream stream)) \
	X(cuFileSetParameterSizeT, "cuFileSetParameterSizeT", "1.14", 0, stoker_cufile_error, (stoker_cufile_size_parameter parameter, size_t value)) \
	X(cuFileSetParameterBool, "cuFileSetParameterBool", "1.14", 0, stoker_cufile_error, (stoker_cufile_bool_parameter parameter, bool value)) \
	X(cuFileSetParameterString, "cuFileSetParameterString", "1.14", 0, stoker_cufile_error, (stoker_cufile_string_parameter parameter, const char *value)) \
	X(cuFileGetBARSizeInKB, "cuFileGetBARSizeInKB", "1.14", 0, stoker_cufile_error, (int gpu, size_t *kib)) \
	X(cuFileSetStatsLevel, "cuFileSetStatsLevel", "1.15", 0, stoker_cufile_error, (int level)) \
	X(cuFileStatsStart, "cuFileStatsStart", "1.15", 0, stoker_cufile_error, (void)) \
	X(cuFileStatsStop, "cuFileStatsStop", "1.15", 0, stoker_cufile_error, (void)) \
	X(cuFileStatsReset, "cuFileStatsReset", "1.15", 0, stoker_cufile_error, (void)) \
	X(cuFileGetStatsL1, "cuFileGetStatsL1", "1.15", 0, stoker_cufile_error, (stoker_cufile_stats1 *stats)) \
	X(cuFileGetStatsL2, "cuFileGetStatsL2", "1.15", 0, stoker_cufile_error, (stoker_cufile_stats2 *stats)) \
	X(cuFileGetStatsL3, "cuFileGetStatsL3", "1.15", 0, stoker_cufile_error, (stoker_cufile_stats3 *stats))

/* Newer than the header that the tests compile against, so that no test holds their
 * arguments: those of cuFileDriverGetP2PFlags are of NVIDIA's API reference, and
 * cuFileReadv, which is only looked up, is as cuda-bindings declares it. */
#define STOKER_CUFILE_LATER_FUNCTIONS(X) \
	X(cuFileDriverGetP2PFlags, "cuFileDriverGetP2PFlags", "1.16", 0, stoker_cufile_error, (int file_system, unsigned int *flags)) \
	X(cuFileReadv, "cuFileReadv", "1.19", 0, ssize_t, (stoker_cufile_handle handle, const void *vector, size_t count, off_t file_offset, unsigned int flags))

#define STOKER_FUNCTION_TYPE(function, symbol, since, needed, result, arguments) \
	typedef result stoker_##function##_function arguments;
STOKER_CUDA_FUNCTIONS(STOKER_FUNCTION_TYPE)
STOKER_CUFILE_FUNCTIONS(STOKER_FUNCTION_TYPE)
STOKER_CUFILE_LATER_FUNCTIONS(STOKER_FUNCTION_TYPE)
#undef STOKER_FUNCTION_TYPE

/* Sizes and offsets in bytes, true of our types and of NVIDIA's. */
#define STOKER_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), "size of " #type)
#define STOKER_AT(type, member, offset) _Static_assert(offsetof(type, member) == (offset), #type "." #member)

STOKER_SIZE(stoker_cuda_result, 4);
STOKER_SIZE(stoker_cuda_address, 8);
STOKER_SIZE(stoker_cuda_allocation, 8);
STOKER_SIZE(stoker_cuda_uuid, 16);
STOKER_SIZE(stoker_cuda_ipc_handle, 64);
STOKER_SIZE(stoker_cuda_location, 8);
STOKER_SIZE(stoker_cuda_allocation_properties, 32);
STOKER_AT(stoker_cuda_allocation_properties, type, 0);
STOKER_AT(stoker_cuda_allocation_properties, requestedHandleTypes, 4);
STOKER_AT(stoker_cuda_allocation_properties, location, 8);
STOKER_AT(stoker_cuda_allocation_properties, win32HandleMetaData, 16);
STOKER_AT(stoker_cuda_allocation_properties, allocFlags.compressionType, 24);
STOKER_AT(stoker_cuda_allocation_properties, allocFlags.gpuDirectRDMACapable, 25);
STOKER_AT(stoker_cuda_allocation_properties, allocFlags.usage, 26);
STOKER_SIZE(stoker_cuda_access, 12);
STOKER_AT(stoker_cuda_access, flags, 8);

STOKER_SIZE(stoker_cufile_error, 8);
STOKER_AT(stoker_cufile_error, err, 0);
STOKER_AT(stoker_cufile_error, cu_err, 4);
STOKER_SIZE(stoker_cufile_descriptor, 24);
STOKER_AT(stoker_cufile_descriptor, type, 0);
STOKER_AT(stoker_cufile_descriptor, handle.fd, 8);
STOKER_AT(stoker_cufile_descriptor, fs_ops, 16);
STOKER_SIZE(stoker_cufile_properties, 56);
STOKER_AT(stoker_cufile_properties, nvfs.major_version, 0);
STOKER_AT(stoker_cufile_properties, nvfs.minor_version, 4);
STOKER_AT(stoker_cufile_properties, nvfs.poll_thresh_size, 8);
STOKER_AT(stoker_cufile_properties, nvfs.max_direct_io_size, 16);
STOKER_AT(stoker_cufile_properties, nvfs.dstatusflags, 24);
STOKER_AT(stoker_cufile_properties, nvfs.dcontrolflags, 28);
STOKER_AT(stoker_cufile_properties, fflags, 32);
STOKER_AT(stoker_cufile_properties, max_device_cache_size, 36);
STOKER_AT(stoker_cufile_properties, per_buffer_cache_size, 40);
STOKER_AT(stoker_cufile_properties, max_device_pinned_mem_size, 44);
STOKER_AT(stoker_cufile_properties, max_batch_io_size, 48);
STOKER_AT(stoker_cufile_properties, max_batch_io_timeout_msecs, 52);
STOKER_SIZE(stoker_cufile_counter, 16);
STOKER_SIZE(stoker_cufile_stats1, 512);
STOKER_AT(stoker_cufile_stats1, read_ops, 0);
STOKER_AT(stoker_cufile_stats1, write_ops, 16);
STOKER_AT(stoker_cufile_stats1, hdl_register_ops, 32);
STOKER_AT(stoker_cufile_stats1, hdl_deregister_ops, 48);
STOKER_AT(stoker_cufile_stats1, buf_register_ops, 64);
STOKER_AT(stoker_cufile_stats1, buf_deregister_ops, 80);
STOKER_AT(stoker_cufile_stats1, read_bytes, 96);
STOKER_AT(stoker_cufile_stats1, write_bytes, 104);
STOKER_SIZE(stoker_cufile_stats2, 1024);
STOKER_AT(stoker_cufile_stats2, read_size_kb_hist, 512);
STOKER_AT(stoker_cufile_stats2, write_size_kb_hist, 768);
STOKER_SIZE(stoker_cufile_gpu_stats, 248);
STOKER_AT(stoker_cufile_gpu_stats, uuid, 0);
STOKER_AT(stoker_cufile_gpu_stats, read_bytes, 16);
STOKER_AT(stoker_cufile_gpu_stats, read_utilization, 32);
STOKER_AT(stoker_cufile_gpu_stats, read_duration_us, 40);
STOKER_AT(stoker_cufile_gpu_stats, n_total_reads, 48);
STOKER_AT(stoker_cufile_gpu_stats, n_p2p_reads, 56);
STOKER_AT(stoker_cufile_gpu_stats, n_nvfs_reads, 64);
STOKER_AT(stoker_cufile_gpu_stats, n_posix_reads, 72);
STOKER_AT(stoker_cufile_gpu_stats, n_unaligned_reads, 80);
STOKER_AT(stoker_cufile_gpu_stats, n_dr_reads, 88);
STOKER_AT(stoker_cufile_gpu_stats, n_sparse_regions, 96);
STOKER_AT(stoker_cufile_gpu_stats, n_inline_regions, 104);
STOKER_AT(stoker_cufile_gpu_stats, n_reads_err, 112);
STOKER_AT(stoker_cufile_gpu_stats, n_mmap, 208);
STOKER_AT(stoker_cufile_gpu_stats, n_mmap_ok, 216);
STOKER_AT(stoker_cufile_gpu_stats, n_mmap_err, 224);
STOKER_AT(stoker_cufile_gpu_stats, n_mmap_free, 232);
STOKER_AT(stoker_cufile_gpu_stats, reg_bytes, 240);
STOKER_SIZE(stoker_cufile_stats3, 5000);
STOKER_AT(stoker_cufile_stats3, num_gpus, 1024);
STOKER_AT(stoker_cufile_stats3, per_gpu_stats, 1032);

#undef STOKER_SIZE
#undef STOKER_AT

#endif /* STOKER_ABI_H */
