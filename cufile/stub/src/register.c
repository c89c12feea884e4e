// Registered files and buffers, and what cuFile refuses of them.
#define _GNU_SOURCE
#include "storage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct file *files;
struct buffer *buffers;

static int refused_flags(int flags)
{
	const int tmpfile = O_TMPFILE & ~O_DIRECTORY;
	return flags & (O_APPEND | O_NONBLOCK | O_DIRECTORY | O_NOFOLLOW | tmpfile);
}

// check_file gives the code that refuses a descriptor, or SUCCESS.
static int check_file(int descriptor, struct stat *st, int *flags)
{
	*flags = fcntl(descriptor, F_GETFL);
	if (*flags < 0)
		return INVALID_VALUE;
	if (fstat(descriptor, st) || !S_ISREG(st->st_mode))
		return INVALID_FILE_TYPE;
	if (refused_flags(*flags))
		return INVALID_FILE_OPEN_FLAG;
	if (STUB_VERSION < 1070 && !(*flags & O_DIRECT))
		return DIO_NOT_SET;
	for (struct file *f = files; f; f = f->next)
		if (f->descriptor == descriptor) {
			storage_check_descriptor(f, "cuFileHandleRegister");
			return HANDLE_ALREADY_REGISTERED;
		}
	return SUCCESS;
}

static int add_file(int descriptor, struct file **out)
{
	struct stat st;
	int flags;
	char path[64];
	int code = check_file(descriptor, &st, &flags);
	if (code)
		return code;
	snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
	int reopened = open(path, (flags & O_ACCMODE) | O_CLOEXEC);
	if (reopened < 0)
		return GETNEWFD_FAILED;
	struct file *f = malloc(sizeof *f);
	if (!f)
		storage_misuse("no memory for a file");
	*f = (struct file){descriptor, reopened, st.st_dev, st.st_ino, 0, files};
	files = f;
	cuda.count(FILES, 1);
	*out = f;
	return SUCCESS;
}

EXPORT CUfileError_t cuFileHandleRegister(CUfileHandle_t *out, CUfileDescr_t *description)
{
	BEGIN("cuFileHandleRegister");
	const int opaque_fd = 1;
	if (!out || !description || description->type != opaque_fd)
		return answer(INVALID_VALUE);
	if (description->padding || description->fs_ops || (uint64_t)description->handle.handle >> 32) {
		fputs("STUB: cuFileHandleRegister: the 24 bytes of the description were not zeroed before use\n", stderr);
		return answer(INVALID_VALUE);
	}
	pthread_mutex_lock(&storage_lock);
	int code = add_file(description->handle.fd, out);
	storage_count(COUNT_FILE_REGISTER, code == SUCCESS);
	pthread_mutex_unlock(&storage_lock);
	return answer(code);
}

// storage_check_descriptor stops a program that closed a descriptor under its handle:
// its number may be another file's by now.
void storage_check_descriptor(const struct file *f, const char *operation)
{
	struct stat st;
	if (fstat(f->descriptor, &st) || st.st_dev != f->device || st.st_ino != f->inode)
		storage_misuse("%s: descriptor %d was closed before cuFileHandleDeregister", operation, f->descriptor);
}

EXPORT void cuFileHandleDeregister(CUfileHandle_t handle)
{
	struct stub_fault fault;
	storage_check_fork("cuFileHandleDeregister");
	if (!storage_open)
		storage_misuse("cuFileHandleDeregister after cuFileDriverClose");
	cuda.fault("cuFileHandleDeregister", &fault); // it returns nothing: only latency can be seen
	pthread_mutex_lock(&storage_lock);
	struct file **f = &files;
	while (*f && *f != handle)
		f = &(*f)->next;
	struct file *gone = *f;
	if (!gone)
		storage_misuse("cuFileHandleDeregister of %p, which is no handle (any more)", (void *)handle);
	if (gone->busy)
		storage_misuse("cuFileHandleDeregister with %d reads in flight", gone->busy);
	storage_check_descriptor(gone, "cuFileHandleDeregister");
	*f = gone->next;
	close(gone->reopened);
	free(gone);
	cuda.count(FILES, -1);
	storage_count(COUNT_FILE_DEREGISTER, 1);
	pthread_mutex_unlock(&storage_lock);
}

// storage_buffer finds the registration that an address lies in.
struct buffer *storage_buffer(uint64_t address)
{
	for (struct buffer *b = buffers; b; b = b->next)
		if (address >= b->base && address - b->base < b->bytes)
			return b;
	return NULL;
}

static uint64_t registered_bytes(int device)
{
	uint64_t sum = 0;
	for (struct buffer *b = buffers; b; b = b->next)
		if (device < -1 || b->device == device)
			sum += b->bytes;
	return sum;
}

static int check_limits(const struct stub_range *r, uint64_t bytes)
{
	uint64_t pinned = settings.max_pinned_kb << 10;
	uint64_t other = cuda.quantity("STOKER_STUB_PINNED", pinned);
	if (registered_bytes(-2) + bytes > (other < pinned ? other : pinned))
		return INVALID_MAPPING_SIZE;
	if (r->device < 0)
		return SUCCESS;
	if (registered_bytes(r->device) + bytes > cuda.quantity("STOKER_STUB_BAR", UINT64_MAX))
		return GPU_MEMORY_PINNING_FAILED;
	if (storage_direct() && !r->rdma)
		return GPU_MEMORY_PINNING_FAILED; // made without gpuDirectRDMACapable
	return SUCCESS;
}

static int check_buffer(uint64_t base, uint64_t bytes, int flags, struct stub_range *r)
{
	int current = cuda.current();
	if (!base || bytes == 0 || flags & ~3)
		return INVALID_VALUE;
	if (current < 0)
		return INVALID_CONTEXT_ERROR;
	if (!cuda.range(base, r))
		return CUDA_POINTER_INVALID;
	if (r->device < 0 && STUB_VERSION < 1070)
		return CUDA_MEMORY_TYPE_INVALID;
	if (bytes > r->bytes - (base - r->base))
		return CUDA_POINTER_RANGE_ERROR;
	if (r->device >= 0 && r->device != current)
		return CUDA_CONTEXT_MISMATCH;
	if (!r->writable)
		return CUDA_POINTER_INVALID;
	for (struct buffer *b = buffers; b; b = b->next)
		if (base < b->base + b->bytes && b->base < base + bytes)
			return MEMORY_ALREADY_REGISTERED;
	return check_limits(r, bytes);
}

EXPORT CUfileError_t cuFileBufRegister(const void *base, size_t bytes, int flags)
{
	BEGIN("cuFileBufRegister");
	struct stub_range r = {.device = -1};
	pthread_mutex_lock(&storage_lock);
	int code = check_buffer((uint64_t)base, bytes, flags, &r);
	if (code == SUCCESS) {
		struct buffer *b = malloc(sizeof *b);
		if (!b)
			storage_misuse("no memory for a buffer");
		*b = (struct buffer){(uint64_t)base, bytes, r.device, 0, buffers};
		buffers = b;
		cuda.pin(b->base, 1);
		cuda.count(BUFFERS, 1);
	}
	storage_count(COUNT_BUFFER_REGISTER, code == SUCCESS);
	storage_count_buffer(r.device, code == SUCCESS, 0, bytes);
	pthread_mutex_unlock(&storage_lock);
	return answer(code);
}

EXPORT CUfileError_t cuFileBufDeregister(const void *base)
{
	BEGIN("cuFileBufDeregister");
	int code = INVALID_VALUE;
	pthread_mutex_lock(&storage_lock);
	for (struct buffer **b = &buffers; *b; b = &(*b)->next) {
		struct buffer *gone = *b;
		if (gone->base != (uint64_t)base)
			continue;
		if (gone->busy)
			storage_misuse("cuFileBufDeregister of %p with %d reads in flight", base, gone->busy);
		*b = gone->next;
		cuda.pin(gone->base, -1);
		cuda.count(BUFFERS, -1);
		storage_count_buffer(gone->device, 1, 1, gone->bytes);
		free(gone);
		code = SUCCESS;
		break;
	}
	storage_count(COUNT_BUFFER_DEREGISTER, code == SUCCESS);
	pthread_mutex_unlock(&storage_lock);
	return answer(code);
}
