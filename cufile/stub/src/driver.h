// The CUDA driver's types and numbers that the stand-in uses, declared here anew and
// not taken from the binding: a mistake in one of the two then shows as a difference.
#ifndef STOKER_STUB_DRIVER_H
#define STOKER_STUB_DRIVER_H

#include <stddef.h>
#include <stdint.h>

#include "state.h"

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef struct context *CUcontext;
typedef struct stream *CUstream;
typedef struct event *CUevent;
typedef uint64_t CUallocation;

enum {
	OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101,
	INVALID_CONTEXT = 201, MAP_FAILED_CODE = 205, OPERATING_SYSTEM = 304, INVALID_HANDLE = 400, NOT_FOUND = 500,
	NOT_READY = 600, ILLEGAL_ADDRESS = 700, CONTEXT_IS_DESTROYED = 709, HOST_ALREADY_REGISTERED = 712,
	HOST_NOT_REGISTERED = 713, NOT_SUPPORTED = 801,
};

typedef struct { unsigned char bytes[16]; } CUuuid;
typedef struct { char bytes[64]; } CUipcMemHandle;
typedef struct { int type, id; } CUmemLocation;
typedef struct {
	int type;
	int handle_types;
	CUmemLocation location;
	void *win32;
	struct { uint8_t compression, rdma; uint16_t usage; uint8_t reserved[4]; } flags;
} CUmemAllocationProp;
typedef struct { CUmemLocation location; int flags; } CUmemAccessDesc;

_Static_assert(sizeof(CUmemAllocationProp) == 32, "CUmemAllocationProp");
_Static_assert(offsetof(CUmemAllocationProp, flags) == 24, "CUmemAllocationProp.allocFlags");
_Static_assert(sizeof(CUmemAccessDesc) == 12, "CUmemAccessDesc");

#define GRANULE ((uint64_t)2 << 20)
#define MAX_BYTES ((uint64_t)1 << 46) // no device has more; sums of sizes cannot overflow

// One op that waits in a stream until somebody synchronises.
struct op {
	enum { OP_COPY, OP_SET, OP_RECORD, OP_WAIT } kind;
	uint64_t to, from, bytes;
	void *staging; // freed with the op; from points into it
	int value;
	int corrupt;
	int64_t offset;
	struct event *event;
	uint64_t ticket; // of the event
	uint64_t order;  // among all ops of the process
	struct op *next;
};

struct stream {
	struct context *context;
	unsigned flags;
	int asked;
	struct op *first, *last;
	struct stream *next;
};

struct context {
	int device; // in the order of STOKER_STUB_DEVICES
	int retains;
	struct stream null_stream;
};

struct device {
	unsigned char uuid[16];
	char name[64], pci[16];
	uint64_t bytes;
	int major, minor, mig, vmm, descriptors, rdma;
	struct { int attribute, value; } override[8];
	int overrides;
	struct context context;
};

// A range of addresses that CUDA knows.
struct range {
	uint64_t base, bytes;
	enum stub_memory memory;
	int device; // in the order of STOKER_STUB_DEVICES; -1: host
	int rdma;
	int access[STUB_DEVICES]; // VMM: by device
	int pins, holds, opens;
	int fd; // of cuMemAlloc's memfd; else -1
	uint64_t inode;
	struct context *context;
	struct allocation *allocation;
	struct range *next;
};

static inline uint64_t whole_pages(uint64_t bytes)
{
	return (bytes + 4095) & ~(uint64_t)4095;
}

// state.c
EXPORT struct stub_state *stoker_stub_state(void);
EXPORT long stoker_stub_live(const char *kind);
extern pthread_mutex_t stub_lock; // guards all tables of this process
void stub_attach(void);
int stub_nothing_alive(void);
int stub_forked(void);
int stub_quiet(void);
void stub_count(enum stub_kind kind, int64_t change);
void stub_leak(void);
int stub_claim_memory(uint64_t inode, uint64_t bytes, uint64_t limit, int device, int ipc);
void stub_drop_claim(uint64_t inode);
int stub_opened_elsewhere(uint64_t inode);
uint64_t stub_memory_used(int device);
uint64_t stub_quantity(const char *variable, uint64_t otherwise);
uint64_t stub_parse_bytes(const char *text, uint64_t otherwise);
_Noreturn void stub_misuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

// fault.c
void stub_read_faults(void);
int stub_fault(const char *operation, struct stub_fault *outcome);
int stub_compat(void);

// device.c
int stub_ready(void);
struct device *stub_device(CUdevice ordinal);
struct device *stub_configured(int index);
int stub_attribute(const struct device *d, int attribute);
int stub_index(CUdevice ordinal);
int stub_ordinal(int index);
int stub_by_uuid(const unsigned char *uuid);
int stub_devices(void);

// context.c
CUresult stub_current(struct context **out);

// ipc.c
void stub_close_ipc(struct range *r);

// memory.c
struct range *stub_ranges(void);
struct range *stub_find(uint64_t address);
struct range *stub_find_all(uint64_t address, uint64_t bytes);
struct range *stub_add(struct range r);
void stub_remove(struct range *r);
void stub_check_unused(struct range *r, const char *operation);
void stub_free_of_context(struct context *c);
int stub_memfd(const char *name, uint64_t bytes, uint64_t *inode);
void stub_poison(void *p, uint64_t bytes);

// stream.c
int stub_pending(uint64_t address, uint64_t bytes);
CUresult stub_in_stream(CUstream wanted, struct context **c, struct stream **s);
void stub_push(struct stream *s, struct op wanted);
void stub_run(struct stream *s, const struct event *until, uint64_t ticket);
void stub_run_all(struct context *c);
void stub_free_streams(struct context *c);

// ENTER begins every function that needs cuInit; a forked child is told 3, as by CUDA.
#define ENTER(operation)                                              \
	do {                                                          \
		struct stub_fault fault_;                             \
		if (stub_forked() || !stub_ready())                   \
			return NOT_INITIALIZED;                       \
		if (stub_fault(operation, &fault_))                   \
			return fault_.number ? OPERATING_SYSTEM : fault_.code; \
	} while (0)

#endif
