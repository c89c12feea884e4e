// cuFileRead and cuFileWrite: the rules, then pread or pwrite on memory that is the CPU's.
#define _GNU_SOURCE
#include "storage.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct transfer {
	const char *operation;
	int writes;
	struct file *file;
	struct buffer *buffer; // NULL: not registered
	uint64_t memory;       // where the bytes go to or come from
	uint64_t bytes;
	off_t offset;
	int device;
	int unaligned;
	enum stub_route route;
};

static struct file *find_file(CUfileHandle_t handle)
{
	for (struct file *f = files; f; f = f->next)
		if (f == handle)
			return f;
	return NULL;
}

// check_memory holds the rules of the buffer: its registration, its range, its context.
static int check_memory(struct transfer *t, uint64_t base, off_t into)
{
	struct stub_range r;
	int current = cuda.current();
	if (current < 0)
		return INVALID_CONTEXT_ERROR;
	if (!cuda.range(base, &r))
		return CUDA_POINTER_INVALID;
	if (r.device < 0 && STUB_VERSION < 1070)
		return CUDA_MEMORY_TYPE_INVALID;
	if (r.device >= 0 && r.device != current)
		return CUDA_CONTEXT_MISMATCH;
	t->buffer = storage_buffer(base);
	if (t->buffer && t->buffer->base != base) {
		fprintf(stderr, "STUB: %s: %#lx lies in the registration at %#lx: pass its base, and the rest as the buffer's offset\n",
			t->operation, base, t->buffer->base);
		return INVALID_VALUE;
	}
	uint64_t room = t->buffer ? t->buffer->bytes : r.bytes - (base - r.base);
	if ((uint64_t)into > room || t->bytes > room - (uint64_t)into)
		return t->buffer ? INVALID_MAPPING_RANGE : CUDA_POINTER_RANGE_ERROR;
	if (!r.writable)
		return CUDA_POINTER_INVALID;
	t->device = r.device;
	t->memory = base + (uint64_t)into;
	if (cuda.pending(t->memory, t->bytes))
		storage_misuse("%s over memory that a copy or memset is still pending on: synchronise first", t->operation);
	return SUCCESS;
}

// admit checks everything and counts the transfer as in flight.
static int admit(struct transfer *t, CUfileHandle_t handle, uint64_t base, off_t into)
{
	if (!handle)
		return HANDLE_NOT_REGISTERED;
	t->file = find_file(handle);
	if (!t->file)
		storage_misuse("%s on %p, which is no handle (any more)", t->operation, (void *)handle);
	storage_check_descriptor(t->file, t->operation);
	if (!base || into < 0 || t->offset < 0)
		return INVALID_VALUE;
	int code = check_memory(t, base, into);
	if (code)
		return code;
	t->unaligned = ((uint64_t)t->offset | t->bytes | base | (uint64_t)into) % 4096 != 0;
	t->route = t->device < 0 ? ROUTE_POSIX : storage_route();
	t->file->busy++;
	if (t->buffer)
		t->buffer->busy++;
	cuda.hold(t->memory, 1);
	return SUCCESS;
}

static ssize_t perform(const struct transfer *t)
{
	struct stub_fault fault;
	uint64_t n = t->bytes;
	if (cuda.fault(t->operation, &fault)) {
		errno = fault.number;
		return fault.number ? -1 : -fault.code;
	}
	if (fault.shorten && n > 1)
		n /= 2;
	if (t->writes)
		return pwrite(t->file->reopened, (void *)t->memory, n, t->offset);
	ssize_t got = pread(t->file->reopened, (void *)t->memory, n, t->offset);
	if (fault.corrupt && fault.offset >= 0 && fault.offset < got)
		((unsigned char *)t->memory)[fault.offset] ^= 0x10;
	return got;
}

static void settle(struct transfer *t, ssize_t got)
{
	int saved = errno;
	pthread_mutex_lock(&storage_lock);
	t->file->busy--;
	if (t->buffer)
		t->buffer->busy--;
	cuda.hold(t->memory, -1);
	storage_count(t->writes ? COUNT_WRITE : COUNT_READ, got >= 0);
	if (t->writes)
		storage_count_write(t->device, t->route, t->unaligned, got);
	else
		storage_count_read(t->device, t->route, t->unaligned, got);
	pthread_mutex_unlock(&storage_lock);
	if (!t->writes && got >= 0) {
		cuda.read_done(t->route);
		if (t->unaligned)
			cuda.read_done(ROUTE_UNALIGNED);
	}
	errno = saved;
}

static ssize_t transfer(struct transfer *t, CUfileHandle_t handle, const void *base, off_t into)
{
	storage_check_fork(t->operation);
	if (!__atomic_load_n(&storage_open, __ATOMIC_ACQUIRE))
		return -DRIVER_NOT_INITIALIZED;
	pthread_mutex_lock(&storage_lock);
	int code = admit(t, handle, (uint64_t)base, into);
	if (code)
		storage_count(t->writes ? COUNT_WRITE : COUNT_READ, 0);
	pthread_mutex_unlock(&storage_lock);
	if (code)
		return -code;
	ssize_t got = perform(t);
	settle(t, got);
	return got;
}

EXPORT ssize_t cuFileRead(CUfileHandle_t handle, void *base, size_t bytes, off_t offset, off_t into)
{
	struct transfer t = {.operation = "cuFileRead", .bytes = bytes, .offset = offset};
	return transfer(&t, handle, base, into);
}

EXPORT ssize_t cuFileWrite(CUfileHandle_t handle, const void *base, size_t bytes, off_t offset, off_t from)
{
	struct transfer t = {.operation = "cuFileWrite", .writes = 1, .bytes = bytes, .offset = offset};
	return transfer(&t, handle, base, from);
}
