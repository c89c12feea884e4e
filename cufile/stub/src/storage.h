// cuFile's types and numbers that the stand-in uses, declared here anew, as in driver.h.
// STUB_VERSION is 1000 * major + 10 * minor of the library that is to be stood in for.
#ifndef STOKER_STUB_STORAGE_H
#define STOKER_STUB_STORAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "state.h"

#ifndef STUB_VERSION
#error "compile with -DSTUB_VERSION=1150 or another version"
#endif

enum {
	SUCCESS = 0, DRIVER_NOT_INITIALIZED = 5001, DRIVER_INVALID_PROPS = 5002, DRIVER_UNSUPPORTED_LIMIT = 5003,
	DRIVER_CLOSING = 5006, IO_NOT_SUPPORTED = 5008, CUDA_DRIVER_ERROR = 5011, CUDA_POINTER_INVALID = 5012,
	CUDA_MEMORY_TYPE_INVALID = 5013, CUDA_POINTER_RANGE_ERROR = 5014, CUDA_CONTEXT_MISMATCH = 5015,
	INVALID_MAPPING_SIZE = 5016, INVALID_MAPPING_RANGE = 5017, INVALID_FILE_TYPE = 5018, INVALID_FILE_OPEN_FLAG = 5019,
	DIO_NOT_SET = 5020, INVALID_VALUE = 5022, MEMORY_ALREADY_REGISTERED = 5023, DRIVER_ALREADY_OPEN = 5026,
	HANDLE_NOT_REGISTERED = 5027, HANDLE_ALREADY_REGISTERED = 5028, INTERNAL_ERROR = 5030, GETNEWFD_FAILED = 5031, NVFS_SETUP_ERROR = 5033,
	GPU_MEMORY_PINNING_FAILED = 5036, ASYNC_NOT_SUPPORTED = 5038, INVALID_CONTEXT_ERROR = 5047,
};

typedef struct { int err, cu_err; } CUfileError_t;
typedef struct file *CUfileHandle_t;
typedef struct {
	int type;
	uint32_t padding;
	union { int fd; void *handle; } handle;
	const void *fs_ops;
} CUfileDescr_t;
typedef struct {
	struct {
		unsigned major, minor;
		size_t poll_threshold_kb, max_direct_io_kb;
		unsigned status_flags, control_flags;
	} nvfs;
	unsigned features, max_device_cache_kb, per_buffer_cache_kb, max_pinned_kb, max_batch, batch_timeout_ms;
} CUfileDrvProps_t;
typedef struct { uint64_t ok, err; } CUfileOpCounter_t;
typedef struct {
	CUfileOpCounter_t read, write, file_register, file_deregister, buffer_register, buffer_deregister;
	uint64_t read_bytes, write_bytes, rates_and_latencies[8];
	CUfileOpCounter_t batch[15];
	uint64_t batch_numbers[12];
#if STUB_VERSION >= 1190
	uint64_t vectors[14];
#endif
} CUfileStatsLevel1_t;
typedef struct {
	CUfileStatsLevel1_t basic;
	uint64_t read_sizes[32], write_sizes[32];
} CUfileStatsLevel2_t;
typedef struct {
	char uuid[16];
	uint64_t read_bytes, read_rate, read_utilization, read_time, reads, p2p_reads, nvfs_reads, posix_reads,
		unaligned_reads, routed_reads, sparse, inlined, read_errors;
	uint64_t write_bytes, write_rate, write_utilization, write_time, writes, p2p_writes, nvfs_writes, posix_writes,
		unaligned_writes, routed_writes, write_errors;
	uint64_t maps, maps_ok, maps_failed, maps_freed, registered_bytes;
} CUfilePerGpuStats_t;
typedef struct {
	CUfileStatsLevel2_t detailed;
	uint32_t gpus;
	CUfilePerGpuStats_t gpu[16];
} CUfileStatsLevel3_t;

_Static_assert(sizeof(CUfileError_t) == 8, "CUfileError_t");
_Static_assert(sizeof(CUfileDescr_t) == 24, "CUfileDescr_t");
_Static_assert(sizeof(CUfileDrvProps_t) == 56, "CUfileDrvProps_t");
_Static_assert(sizeof(CUfilePerGpuStats_t) == 248, "CUfilePerGpuStats_t");
#if STUB_VERSION >= 1190
_Static_assert(sizeof(CUfileStatsLevel3_t) == 5112, "CUfileStatsLevel3_t");
#else
_Static_assert(sizeof(CUfileStatsLevel1_t) == 512, "CUfileStatsLevel1_t");
_Static_assert(sizeof(CUfileStatsLevel3_t) == 5000, "CUfileStatsLevel3_t");
#endif

// The parameters that the stand-in acts on. Those of NVIDIA's that it only keeps are in
// parameters.c.
struct settings {
	int allow_compat; // -1: set nowhere
	int force_compat;
	int p2pdma;
	uint64_t max_direct_io_kb, max_device_cache_kb, per_buffer_cache_kb, max_pinned_kb, batch, poll_kb, batch_timeout_ms;
};

// A registered file. descriptor is the caller's, reopened a buffered one of ours.
struct file {
	int descriptor, reopened;
	uint64_t device, inode;
	int busy; // reads and writes in flight
	struct file *next;
};

struct buffer {
	uint64_t base, bytes;
	int device; // ordinal; -1: host
	int busy;
	struct buffer *next;
};

// storage.c
extern pthread_mutex_t storage_lock; // guards everything of this library
extern struct stub_cuda cuda;
extern int storage_open;
extern struct settings settings;
extern struct file *files;
extern struct buffer *buffers;
CUfileError_t answer(int code);
int storage_load_cuda(void);
void storage_check_fork(const char *operation);
int storage_faulty(const char *operation, CUfileError_t *out);
enum stub_route storage_route(void);
int storage_direct(void);
_Noreturn void storage_misuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

// register.c
struct buffer *storage_buffer(uint64_t address);
void storage_check_descriptor(const struct file *f, const char *operation);

// parameters.c: gives the settings for one open, and forgets what was staged.
int storage_take_settings(struct settings *out);

// statistics.c
enum counted { COUNT_READ, COUNT_WRITE, COUNT_FILE_REGISTER, COUNT_FILE_DEREGISTER, COUNT_BUFFER_REGISTER, COUNT_BUFFER_DEREGISTER };
void storage_count(enum counted what, int ok);
void storage_count_read(int device, enum stub_route route, int unaligned, int64_t bytes);
void storage_count_write(int device, enum stub_route route, int unaligned, int64_t bytes);
void storage_count_buffer(int device, int ok, int freed, uint64_t bytes);
void storage_stop_statistics(void);

// BEGIN begins a function that returns CUfileError_t: fork, open driver, faults.
#define BEGIN(operation)                                  \
	CUfileError_t fault_;                             \
	storage_check_fork(operation);                    \
	if (!__atomic_load_n(&storage_open, __ATOMIC_ACQUIRE)) \
		return answer(DRIVER_NOT_INITIALIZED);    \
	if (storage_faulty(operation, &fault_))           \
		return fault_

#endif
