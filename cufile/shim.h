/*
 * What Go calls: one C function for each thing that Go wants, so that a context is
 * set, a call made and errno read on one thread, without a hop back into Go between
 * them. No function keeps a pointer that Go passed, but for registered host memory,
 * which is not Go's.
 */
#ifndef STOKER_SHIM_H
#define STOKER_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include "abi.h"

/* Both libraries and what they export. */
typedef struct stoker_table stoker_table;

/* What failed and why; op is NULL where nothing failed. */
typedef struct {
	const char *op;
	int32_t code; /* CUfileOpError, positive */
	int32_t cuda; /* CUresult */
	int32_t err;  /* errno */
} stoker_status;

enum { STOKER_DEVICE_LIBRARY = 0, STOKER_STORAGE_LIBRARY = 1 };

/* stoker_new gives an empty table, or NULL where there is no memory. */
stoker_table *stoker_new(void);
/* stoker_free frees the table. The libraries stay loaded: see doc.go. */
void stoker_free(stoker_table *t);

/* stoker_load opens a library and looks all of its symbols up. It answers 1 and the
 * path of the file that the loader took, or 0 and the loader's message: dlerror
 * belongs to the thread, so both are done here. */
int stoker_load(stoker_table *t, int library, const char *name, char *text, size_t size);

typedef struct {
	const char *name;
	const char *since;
	int library;
	int needed;
	int found;
} stoker_symbol;

/* stoker_symbol_at describes the index-th symbol; 0 past the last. */
int stoker_symbol_at(const stoker_table *t, int index, stoker_symbol *out);

/* stoker_is_stub says whether a stand-in of the tests is loaded, and
 * stoker_stub_live how many things of a kind live in it; -1 where it is none. */
int stoker_is_stub(const stoker_table *t);
long stoker_live(const stoker_table *t, const char *kind);

/* The GPU driver. */
typedef struct {
	char uuid[16];
	char name[256];
	char pci[32];
	uint64_t bytes;
	int32_t major, minor;
	int32_t virtual_memory, descriptor, direct_virtual, read_only_host, direct;
} stoker_device_info;

typedef struct {
	int32_t device;
	uintptr_t context;
	uintptr_t stream;
} stoker_device;

stoker_status stoker_start(stoker_table *t, int *version, int *devices);
stoker_status stoker_describe(stoker_table *t, int ordinal, stoker_device_info *out);
/* stoker_retain retains the primary context and makes a stream in it. */
stoker_status stoker_retain(stoker_table *t, int ordinal, stoker_device *out);
/* stoker_release undoes it, as far as it is not undone: it may be called again. */
stoker_status stoker_release(stoker_table *t, stoker_device *device);
stoker_status stoker_memory(stoker_table *t, stoker_device device, uint64_t *free_bytes, uint64_t *total);
stoker_status stoker_register_host(stoker_table *t, stoker_device device, void *memory, size_t bytes);
stoker_status stoker_unregister_host(stoker_table *t, stoker_device device, void *memory);
/* The copies are done when they return. */
stoker_status stoker_copy_in(stoker_table *t, stoker_device device, uint64_t to, const void *from, size_t bytes);
stoker_status stoker_copy_out(stoker_table *t, stoker_device device, void *to, uint64_t from, size_t bytes);

/* One piece of device memory. parts says what of it exists, so that destroying it
 * can go on where it failed. */
typedef struct {
	uint64_t address;
	uint64_t allocation;
	uint64_t bytes;       /* mapped */
	uint64_t granularity;
	uint32_t parts;
} stoker_segment;

enum {
	STOKER_PART_ALLOCATION = 1, /* cuMemCreate, or an import */
	STOKER_PART_RESERVATION = 2,
	STOKER_PART_MAPPING = 4,
	STOKER_PART_MEMORY = 8, /* cuMemAlloc */
	STOKER_PART_IPC = 16,   /* cuIpcOpenMemHandle */
};

/* A create or import that fails leaves nothing, unless undoing it failed too; then
 * out->parts says what is left and stoker_destroy may be tried again. New memory is
 * zeroed. */
stoker_status stoker_create(stoker_table *t, stoker_device device, uint64_t bytes, int direct, stoker_segment *out);
stoker_status stoker_create_legacy(stoker_table *t, stoker_device device, uint64_t bytes, stoker_segment *out);
stoker_status stoker_import(stoker_table *t, stoker_device device, int descriptor, uint64_t bytes, int writable, stoker_segment *out);
/* segment->bytes is less than bytes where the memory is. */
stoker_status stoker_import_legacy(stoker_table *t, stoker_device device, const char *handle, uint64_t bytes, stoker_segment *out);
stoker_status stoker_destroy(stoker_table *t, stoker_device device, stoker_segment *segment);
/* stoker_export gives a descriptor that is close-on-exec and the caller's. */
stoker_status stoker_export(stoker_table *t, stoker_device device, stoker_segment segment, int *descriptor);
stoker_status stoker_export_legacy(stoker_table *t, stoker_device device, stoker_segment segment, char *handle);

/* The storage library. Functions that it does not have answer ENOSYS. */
stoker_status stoker_storage_version(stoker_table *t, int *version);
stoker_status stoker_set_size(stoker_table *t, int parameter, uint64_t kib);
stoker_status stoker_set_bool(stoker_table *t, int parameter, int value);
stoker_status stoker_set_string(stoker_table *t, int parameter, const char *value);
stoker_status stoker_storage_open(stoker_table *t);
stoker_status stoker_storage_close(stoker_table *t);
stoker_status stoker_storage_properties(stoker_table *t, stoker_cufile_properties *out);
stoker_status stoker_statistics_start(stoker_table *t, int level);
stoker_status stoker_statistics_stop(stoker_table *t);
stoker_status stoker_statistics_reset(stoker_table *t);

/* Long enough for every layout of level 3 that we know, and for growth. */
enum { STOKER_STATISTICS_BYTES = 8192 };
stoker_status stoker_statistics_read(stoker_table *t, int level, void *out);
stoker_status stoker_p2p_flags(stoker_table *t, int file_system, unsigned int *flags);
stoker_status stoker_bar_bytes(stoker_table *t, int ordinal, uint64_t *bytes);
stoker_status stoker_register_file(stoker_table *t, int descriptor, uintptr_t *handle);
void stoker_deregister_file(stoker_table *t, uintptr_t handle);
stoker_status stoker_register_buffer(stoker_table *t, stoker_device device, uint64_t base, uint64_t bytes);
stoker_status stoker_deregister_buffer(stoker_table *t, stoker_device device, uint64_t base);

typedef struct {
	int64_t n;    /* bytes; -1: see err; below: -CUfileOpError */
	int32_t cuda; /* CUresult of setting the context; then nothing was read */
	int32_t err;  /* errno, where n is -1 */
} stoker_read_result;

stoker_read_result stoker_read(stoker_table *t, uintptr_t context, uintptr_t handle, uint64_t base, uint64_t bytes, int64_t file_offset, int64_t base_offset);
/* stoker_read_loop reads the same count times, the yardstick of a benchmark: what
 * the calls cost without Go. It answers the sum of bytes, or the first failure. */
int64_t stoker_read_loop(stoker_table *t, uintptr_t context, uintptr_t handle, uint64_t base, uint64_t bytes, int64_t file_offset, int64_t count);

#endif /* STOKER_SHIM_H */
