// What the two stand-ins, and processes that use them, share.
//
// struct stub_state is the file that STOKER_STUB_STATE names, or anonymous memory
// without it. Package stub reads and writes it too: a change here needs one there.
#ifndef STOKER_STUB_STATE_H
#define STOKER_STUB_STATE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

enum stub_kind {
	CONTEXTS, ALLOCATIONS, MAPPINGS, RESERVATIONS, MEMORY, IPC, HOST, REGISTERED_HOST,
	STREAMS, EVENTS, FILES, BUFFERS, DRIVERS, KINDS,
};

enum stub_route { ROUTE_P2P, ROUTE_NVFS, ROUTE_POSIX, ROUTE_UNALIGNED, ROUTES };

enum { STUB_FAULTS = 64, STUB_PROCESSES = 256, STUB_CLAIMS = 4096, STUB_DEVICES = 16 };

#define STUB_MAGIC "STOKSTUB"
#define STUB_LAYOUT 1

// One process that called cuInit. It is gone when no process has both pid and start.
struct stub_process {
	uint32_t pid;
	uint32_t unused;
	uint64_t start; // field 22 of /proc/PID/stat
	int64_t live[16];
	int64_t leaked;
	uint8_t padding[256 - 152];
};

// One process's hold on one piece of device memory. A piece is free when no living
// process holds it: claims of the dead are swept before memory is counted.
struct stub_claim {
	uint64_t inode; // of the memfd; 0: not in use
	uint64_t bytes;
	uint32_t device; // in the order of STOKER_STUB_DEVICES
	uint32_t process;
	uint32_t count;
	uint32_t ipc; // opened from another process's IPC handle
};

struct stub_state {
	char magic[8];
	uint32_t layout;
	uint32_t generation; // of faults: odd while they are written
	uint32_t lock_ready;
	uint32_t claims_used; // none is in use from this index on
	uint64_t reads[ROUTES];
	uint8_t padding0[72];
	pthread_mutex_t lock; // robust, between processes; guards processes and claims
	uint8_t padding1[256 - 128 - sizeof(pthread_mutex_t)];
	char faults[3840];
	struct { uint64_t seen, fired; } fault[STUB_FAULTS];
	uint8_t padding2[8192 - 5120];
	struct stub_process process[STUB_PROCESSES];
	struct stub_claim claim[STUB_CLAIMS];
};

_Static_assert(offsetof(struct stub_state, lock) == 128, "lock");
_Static_assert(offsetof(struct stub_state, faults) == 256, "faults");
_Static_assert(offsetof(struct stub_state, fault) == 4096, "fault");
_Static_assert(offsetof(struct stub_state, process) == 8192, "process");
_Static_assert(sizeof(struct stub_process) == 256, "process");
_Static_assert(sizeof(struct stub_claim) == 32, "claim");
_Static_assert(sizeof(struct stub_state) == 204800, "state");

// What a fault asks of the call that met it.
struct stub_fault {
	int code;   // return this; 0: none
	int cuda;   // and this as the CUDA code beside a cuFile code
	int number; // errno to set, with the result -1; 0: none
	int shorten;
	int corrupt;
	int64_t offset; // of the byte to corrupt
};

enum stub_memory { VMM_MEMORY, DEVICE_MEMORY, IPC_MEMORY, HOST_MEMORY, REGISTERED_MEMORY };

// A range of addresses as libcufile sees it.
struct stub_range {
	uint64_t base, bytes;
	enum stub_memory memory;
	int device;   // ordinal in this process
	int rdma;     // may be registered for direct reads
	int writable; // by the device of the current context
};

// What libcufile needs of libcuda beside NVIDIA's own functions.
struct stub_cuda {
	struct stub_state *(*state)(void);
	// fault fills the outcome; 1: the call must fail with code or number.
	int (*fault)(const char *operation, struct stub_fault *outcome);
	int (*compat)(void);
	int (*forked)(void);
	void (*count)(enum stub_kind kind, int64_t change);
	// current gives the ordinal of the current context's device, or -1.
	int (*current)(void);
	int (*devices)(void);
	void (*uuid)(int device, unsigned char *out);
	int (*range)(uint64_t address, struct stub_range *out);
	// pin counts registrations, hold counts reads in flight on a range.
	void (*pin)(uint64_t address, int change);
	void (*hold)(uint64_t address, int change);
	int (*pending)(uint64_t address, uint64_t bytes);
	uint64_t (*quantity)(const char *variable, uint64_t otherwise);
	void (*read_done)(enum stub_route route);
	int (*quiet)(void);
	long (*live)(const char *kind);
};

#endif
