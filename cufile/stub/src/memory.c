// Ranges of addresses: cuMemAlloc, host memory, and questions about pointers.
// Device memory is a memfd mapped here, so a device pointer is also a host address.
#define _GNU_SOURCE
#include "driver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static struct range *ranges;

struct range *stub_ranges(void) { return ranges; }

struct range *stub_find_all(uint64_t address, uint64_t bytes)
{
	struct range *r = stub_find(address);
	return r && bytes <= r->bytes - (address - r->base) ? r : NULL;
}

struct range *stub_find(uint64_t address)
{
	for (struct range *r = ranges; r; r = r->next)
		if (address >= r->base && address - r->base < r->bytes)
			return r;
	return NULL;
}

struct range *stub_add(struct range wanted)
{
	struct range *r = malloc(sizeof *r);
	if (!r)
		stub_misuse("no memory for a range");
	*r = wanted;
	r->next = ranges;
	ranges = r;
	return r;
}

void stub_remove(struct range *gone)
{
	for (struct range **r = &ranges; *r; r = &(*r)->next)
		if (*r == gone) {
			*r = gone->next;
			free(gone);
			return;
		}
}

// stub_check_unused stops a program that takes memory away from under its users.
void stub_check_unused(struct range *r, const char *operation)
{
	if (r->pins)
		stub_misuse("%s of memory at %#lx that is registered with cuFile: call cuFileBufDeregister first", operation, r->base);
	if (r->holds)
		stub_misuse("%s of memory at %#lx with %d cuFile reads in flight", operation, r->base, r->holds);
	if (stub_pending(r->base, r->bytes))
		stub_misuse("%s of memory at %#lx with copies pending: synchronise first", operation, r->base);
}

int stub_memfd(const char *name, uint64_t bytes, uint64_t *inode)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct stat st;
	if (fd < 0)
		return -1;
	if (ftruncate(fd, (off_t)bytes) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) || fstat(fd, &st)) {
		close(fd);
		return -1;
	}
	*inode = st.st_ino;
	return fd;
}

// stub_poison fills the first and last page of every granule: nobody promises that
// device memory is zero. All of it would make big slabs slow for nothing.
void stub_poison(void *p, uint64_t bytes)
{
	const uint64_t page = 4096;
	for (uint64_t at = 0; at < bytes; at += GRANULE) {
		uint64_t n = bytes - at < GRANULE ? bytes - at : GRANULE;
		uint64_t edge = n < page ? n : page;
		memset((char *)p + at, 0xA5, edge);
		memset((char *)p + at + n - edge, 0xA5, edge);
	}
}

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *out, size_t bytes)
{
	ENTER("cuMemAlloc_v2");
	struct context *c;
	uint64_t inode;
	CUresult rc = stub_current(&c);
	if (rc)
		return rc;
	if (!out || bytes == 0 || bytes > MAX_BYTES)
		return INVALID_VALUE;
	int fd = stub_memfd("stoker-stub-memory", whole_pages(bytes), &inode);
	if (fd < 0)
		return OPERATING_SYSTEM;
	pthread_mutex_lock(&stub_lock);
	void *p = MAP_FAILED;
	if (stub_claim_memory(inode, whole_pages(bytes), stub_configured(c->device)->bytes, c->device, 0)) {
		rc = OUT_OF_MEMORY;
	} else {
		p = mmap(NULL, whole_pages(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		rc = p == MAP_FAILED ? OUT_OF_MEMORY : OK;
		if (rc)
			stub_drop_claim(inode);
	}
	if (rc) {
		close(fd);
	} else {
		stub_poison(p, bytes);
		stub_add((struct range){.base = (uint64_t)p, .bytes = bytes, .memory = DEVICE_MEMORY, .device = c->device, .fd = fd,
			.rdma = stub_configured(c->device)->rdma, .inode = inode, .context = c});
		stub_count(MEMORY, 1);
		*out = (uint64_t)p;
	}
	pthread_mutex_unlock(&stub_lock);
	return rc;
}

static void free_device_memory(struct range *r)
{
	if (stub_opened_elsewhere(r->inode))
		stub_misuse("cuMemFree of memory at %#lx that another process has open by IPC", r->base);
	munmap((void *)r->base, whole_pages(r->bytes));
	close(r->fd);
	stub_drop_claim(r->inode);
	stub_count(MEMORY, -1);
	stub_remove(r);
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr address)
{
	ENTER("cuMemFree_v2");
	struct context *c;
	CUresult rc = stub_current(&c);
	if (rc)
		return rc;
	pthread_mutex_lock(&stub_lock);
	struct range *r = stub_find(address);
	if (!r || r->base != address || r->memory != DEVICE_MEMORY) {
		rc = INVALID_VALUE;
	} else {
		stub_run_all(r->context); // cuMemFree waits for the device
		stub_check_unused(r, "cuMemFree");
		free_device_memory(r);
	}
	pthread_mutex_unlock(&stub_lock);
	return rc;
}

EXPORT CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
	ENTER("cuMemGetInfo_v2");
	struct context *c;
	CUresult rc = stub_current(&c);
	if (rc)
		return rc;
	if (!free_bytes || !total)
		return INVALID_VALUE;
	uint64_t all = stub_configured(c->device)->bytes, used = stub_memory_used(c->device);
	*total = all;
	*free_bytes = used < all ? all - used : 0;
	return OK;
}

EXPORT CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr address)
{
	ENTER("cuMemGetAddressRange_v2");
	pthread_mutex_lock(&stub_lock);
	struct range *r = stub_find(address);
	CUresult rc = r && r->device >= 0 ? OK : NOT_FOUND;
	if (rc == OK && base)
		*base = r->base;
	if (rc == OK && bytes)
		*bytes = r->bytes;
	pthread_mutex_unlock(&stub_lock);
	return rc;
}

static CUresult pointer_attribute(void *data, int attribute, CUdeviceptr address, struct range *r)
{
	int host = r->device < 0;
	switch (attribute) {
	case 1:
		if (!r->context)
			return INVALID_VALUE;
		*(struct context **)data = r->context;
		return OK;
	case 2: *(unsigned *)data = host ? 1 : 2; return OK;
	case 3: *(CUdeviceptr *)data = address; return OK;
	case 4:
		if (!host)
			return INVALID_VALUE;
		*(void **)data = (void *)address;
		return OK;
	case 8: *(unsigned char *)data = 0; return OK;
	case 9: *(int *)data = stub_ordinal(host ? r->context->device : r->device); return OK;
	case 10: *(unsigned char *)data = r->memory == DEVICE_MEMORY; return OK;
	case 11: *(CUdeviceptr *)data = r->base; return OK;
	case 12: *(size_t *)data = r->bytes; return OK;
	case 13: *(unsigned char *)data = 1; return OK;
	case 15: *(unsigned char *)data = r->rdma != 0; return OK;
	default: return NOT_SUPPORTED; // SYNC_MEMOPS (6) cannot be set on VMM memory either
	}
}

EXPORT CUresult cuPointerGetAttribute(void *data, int attribute, CUdeviceptr address)
{
	ENTER("cuPointerGetAttribute");
	if (!data)
		return INVALID_VALUE;
	pthread_mutex_lock(&stub_lock);
	struct range *r = stub_find(address);
	CUresult rc = r ? pointer_attribute(data, attribute, address, r) : INVALID_VALUE;
	pthread_mutex_unlock(&stub_lock);
	return rc;
}

EXPORT CUresult cuMemHostAlloc(void **out, size_t bytes, unsigned flags)
{
	ENTER("cuMemHostAlloc");
	struct context *c;
	CUresult rc = stub_current(&c);
	if (rc)
		return rc;
	if (!out || bytes == 0 || flags > 7)
		return INVALID_VALUE;
	void *p = mmap(NULL, whole_pages(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return OUT_OF_MEMORY;
	pthread_mutex_lock(&stub_lock);
	stub_add((struct range){.base = (uint64_t)p, .bytes = bytes, .memory = HOST_MEMORY, .device = -1, .fd = -1, .context = c});
	stub_count(HOST, 1);
	pthread_mutex_unlock(&stub_lock);
	*out = p;
	return OK;
}

static void free_host_memory(struct range *r)
{
	munmap((void *)r->base, whole_pages(r->bytes));
	stub_count(HOST, -1);
	stub_remove(r);
}

EXPORT CUresult cuMemFreeHost(void *p)
{
	ENTER("cuMemFreeHost");
	CUresult rc = OK;
	pthread_mutex_lock(&stub_lock);
	struct range *r = stub_find((uint64_t)p);
	if (!r || r->base != (uint64_t)p || r->memory != HOST_MEMORY) {
		rc = INVALID_VALUE;
	} else {
		stub_check_unused(r, "cuMemFreeHost");
		free_host_memory(r);
	}
	pthread_mutex_unlock(&stub_lock);
	return rc;
}

// accessible: is every page of [p, p+bytes) mapped, readable, and writable if asked?
static int accessible(uint64_t p, uint64_t bytes, int writable)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[1024], rights[8];
	uint64_t at = p, first, last;
	if (!maps)
		return 0;
	while (at < p + bytes && fgets(line, sizeof line, maps)) {
		if (sscanf(line, "%lx-%lx %7s", &first, &last, rights) != 3 || last <= at)
			continue;
		if (first > at || rights[0] != 'r' || (writable && rights[1] != 'w'))
			break;
		at = last;
	}
	fclose(maps);
	return at >= p + bytes;
}

static int overlaps_registered(uint64_t base, uint64_t bytes)
{
	for (struct range *r = ranges; r; r = r->next)
		if (base < r->base + r->bytes && r->base < base + bytes)
			return 1;
	return 0;
}

EXPORT CUresult cuMemHostRegister_v2(void *p, size_t bytes, unsigned flags)
{
	ENTER("cuMemHostRegister_v2");
	struct context *c;
	const unsigned read_only = 8, io_memory = 4;
	CUresult rc = stub_current(&c);
	if (rc)
		return rc;
	if (!p || bytes == 0 || bytes > MAX_BYTES || flags > 15 || flags & io_memory)
		return INVALID_VALUE;
	if (flags & read_only && !stub_attribute(stub_configured(c->device), 113))
		return NOT_SUPPORTED;
	if (!accessible((uint64_t)p, bytes, !(flags & read_only)))
		return INVALID_VALUE;
	pthread_mutex_lock(&stub_lock);
	if (overlaps_registered((uint64_t)p, bytes)) {
		rc = HOST_ALREADY_REGISTERED;
	} else {
		stub_add((struct range){.base = (uint64_t)p, .bytes = bytes, .memory = REGISTERED_MEMORY, .device = -1, .fd = -1, .context = c});
		stub_count(REGISTERED_HOST, 1);
	}
	pthread_mutex_unlock(&stub_lock);
	return rc;
}

EXPORT CUresult cuMemHostUnregister(void *p)
{
	ENTER("cuMemHostUnregister");
	CUresult rc = OK;
	pthread_mutex_lock(&stub_lock);
	struct range *r = stub_find((uint64_t)p);
	if (!r || r->base != (uint64_t)p || r->memory != REGISTERED_MEMORY) {
		rc = HOST_NOT_REGISTERED;
	} else {
		stub_check_unused(r, "cuMemHostUnregister");
		stub_count(REGISTERED_HOST, -1);
		stub_remove(r);
	}
	pthread_mutex_unlock(&stub_lock);
	return rc;
}

EXPORT CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *out, void *p, unsigned flags)
{
	ENTER("cuMemHostGetDevicePointer_v2");
	if (!out || flags)
		return INVALID_VALUE;
	pthread_mutex_lock(&stub_lock);
	struct range *r = stub_find((uint64_t)p);
	CUresult rc = r && r->device < 0 ? OK : INVALID_VALUE;
	pthread_mutex_unlock(&stub_lock);
	if (rc == OK)
		*out = (CUdeviceptr)p;
	return rc;
}

static void free_forgotten(struct range *r)
{
	stub_check_unused(r, "the release of the context");
	switch (r->memory) {
	case DEVICE_MEMORY: free_device_memory(r); break;
	case HOST_MEMORY: free_host_memory(r); break;
	case IPC_MEMORY:
		stub_count(IPC, -r->opens);
		stub_close_ipc(r);
		break;
	default:
		stub_count(REGISTERED_HOST, -1);
		stub_remove(r);
	}
	stub_leak();
}

// stub_free_of_context frees what a context takes with it. VMM memory is nobody's.
void stub_free_of_context(struct context *c)
{
	for (struct range *r = ranges, *next; r; r = next) {
		next = r->next;
		if (r->context == c && r->memory != VMM_MEMORY)
			free_forgotten(r);
	}
}
