// Virtual memory management: physical allocations that are memfds, address reservations,
// and mappings of the ones in the others, with the access that was asked for.
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

struct allocation {
	CUallocation handle;
	int fd, device, exportable, rdma;
	uint64_t bytes, inode;
	int handles, maps;
	struct allocation *next;
};

struct reservation {
	uint64_t base, bytes;
	struct reservation *next;
};

static struct allocation *allocations;
static struct reservation *reservations;
static CUallocation last_handle = 0x5354554200000000; // unlike any pointer or descriptor

static struct allocation *find_allocation(CUallocation handle)
{
	for (struct allocation *a = allocations; a; a = a->next)
		if (a->handle == handle && a->handles > 0)
			return a;
	return NULL;
}

static CUallocation add_allocation(struct allocation wanted)
{
	struct allocation *a = malloc(sizeof *a);
	if (!a)
		stub_misuse("no memory for an allocation");
	*a = wanted;
	a->handle = ++last_handle;
	a->handles = 1;
	a->next = allocations;
	allocations = a;
	stub_count(ALLOCATIONS, 1);
	return a->handle;
}

// drop_allocation frees memory that has neither a handle nor a mapping any more.
static void drop_allocation(struct allocation *gone)
{
	if (gone->handles > 0 || gone->maps > 0)
		return;
	for (struct allocation **a = &allocations; *a; a = &(*a)->next)
		if (*a == gone) {
			*a = gone->next;
			break;
		}
	close(gone->fd);
	stub_drop_claim(gone->inode);
	free(gone);
}

static CUresult check_properties(const CUmemAllocationProp *p, struct device **device)
{
	static const uint8_t zero[4];
	if (!p || p->type != 1 || p->location.type != 1 || p->win32)
		return INVALID_VALUE;
	struct device *d = stub_device(p->location.id);
	if (!d)
		return INVALID_DEVICE;
	if (p->flags.compression || p->flags.usage || p->flags.rdma > 1 || memcmp(p->flags.reserved, zero, 4))
		return INVALID_VALUE;
	if (!d->vmm || (p->handle_types & 8) || (p->handle_types & 1 && !d->descriptors))
		return NOT_SUPPORTED;
	if (p->handle_types & ~1 || (p->flags.rdma && !d->rdma))
		return INVALID_VALUE;
	*device = d;
	return OK;
}

EXPORT CUresult cuMemGetAllocationGranularity(size_t *granularity, const CUmemAllocationProp *properties, int option)
{
	ENTER("cuMemGetAllocationGranularity");
	struct device *d;
	if (!granularity || option < 0 || option > 1)
		return INVALID_VALUE;
	CUresult rc = check_properties(properties, &d);
	if (rc == OK)
		*granularity = GRANULE;
	return rc;
}

static int make_memory(const struct device *d, const CUmemAllocationProp *p, uint64_t bytes, uint64_t *inode)
{
	char name[128];
	int at = snprintf(name, sizeof name, "stoker-stub:");
	for (int i = 0; i < 16; i++)
		at += snprintf(name + at, sizeof name - (size_t)at, "%02x", d->uuid[i]);
	snprintf(name + at, sizeof name - (size_t)at, ":%d:%d", p->handle_types & 1, p->flags.rdma);
	return stub_memfd(name, bytes, inode);
}

static void poison_memory(int fd, uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return;
	stub_poison(p, bytes);
	munmap(p, bytes);
}

EXPORT CUresult cuMemCreate(CUallocation *handle, size_t bytes, const CUmemAllocationProp *properties, unsigned long long flags)
{
	ENTER("cuMemCreate");
	struct device *d;
	uint64_t inode;
	CUresult rc = check_properties(properties, &d);
	if (rc)
		return rc;
	if (!handle || bytes == 0 || bytes % GRANULE || bytes > MAX_BYTES || flags)
		return INVALID_VALUE;
	int fd = make_memory(d, properties, bytes, &inode);
	if (fd < 0)
		return OPERATING_SYSTEM;
	int device = d->context.device;
	pthread_mutex_lock(&stub_lock);
	if (stub_claim_memory(inode, bytes, d->bytes, device, 0)) {
		close(fd);
		rc = OUT_OF_MEMORY;
	} else {
		poison_memory(fd, bytes);
		*handle = add_allocation((struct allocation){.fd = fd, .device = device, .exportable = properties->handle_types & 1,
			.rdma = properties->flags.rdma, .bytes = bytes, .inode = inode});
	}
	pthread_mutex_unlock(&stub_lock);
	return rc;
}

EXPORT CUresult cuMemRelease(CUallocation handle)
{
	ENTER("cuMemRelease");
	pthread_mutex_lock(&stub_lock);
	struct allocation *a = find_allocation(handle);
	CUresult rc = a ? OK : INVALID_VALUE;
	if (a) {
		a->handles--;
		stub_count(ALLOCATIONS, -1);
		drop_allocation(a);
	}
	pthread_mutex_unlock(&stub_lock);
	return rc;
}

EXPORT CUresult cuMemExportToShareableHandle(void *out, CUallocation handle, int type, unsigned long long flags)
{
	ENTER("cuMemExportToShareableHandle");
	CUresult rc = INVALID_VALUE;
	if (!out || type != 1 || flags)
		return rc;
	pthread_mutex_lock(&stub_lock);
	struct allocation *a = find_allocation(handle);
	if (a && a->exportable) {
		int fd = fcntl(a->fd, F_DUPFD, 0); // nothing documents that CUDA sets close-on-exec
		rc = fd < 0 ? OPERATING_SYSTEM : OK;
		if (fd >= 0)
			memcpy(out, &fd, sizeof fd);
	}
	pthread_mutex_unlock(&stub_lock);
	return rc;
}

// recognise reads from a descriptor's name what make_memory wrote into it.
static CUresult recognise(int fd, struct allocation *a)
{
	char path[64], name[256];
	unsigned char uuid[16];
	struct stat st;
	int at = 0, exportable, rdma;
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(path, name, sizeof name - 1);
	if (n <= 0 || fstat(fd, &st))
		return INVALID_VALUE;
	name[n] = 0;
	const char *prefix = "/memfd:stoker-stub:";
	if (strncmp(name, prefix, strlen(prefix)))
		return INVALID_VALUE;
	const char *text = name + strlen(prefix);
	for (; at < 16; at++, text += 2)
		if (sscanf(text, "%2hhx", &uuid[at]) != 1)
			return INVALID_VALUE;
	if (sscanf(text, ":%d:%d", &exportable, &rdma) != 2 || !exportable)
		return INVALID_VALUE;
	int device = stub_by_uuid(uuid);
	*a = (struct allocation){.device = device, .exportable = 1, .rdma = rdma, .bytes = (uint64_t)st.st_size, .inode = st.st_ino};
	return device < 0 ? INVALID_DEVICE : OK;
}

EXPORT CUresult cuMemImportFromShareableHandle(CUallocation *handle, void *descriptor, int type)
{
	ENTER("cuMemImportFromShareableHandle");
	struct allocation a;
	if (!handle || type != 1 || (uint64_t)descriptor > INT32_MAX)
		return INVALID_VALUE;
	int given = (int)(uint64_t)descriptor;
	CUresult rc = recognise(given, &a);
	if (rc)
		return rc;
	a.fd = fcntl(given, F_DUPFD_CLOEXEC, 0);
	if (a.fd < 0)
		return OPERATING_SYSTEM;
	pthread_mutex_lock(&stub_lock);
	stub_claim_memory(a.inode, a.bytes, 0, a.device, 0);
	*handle = add_allocation(a);
	pthread_mutex_unlock(&stub_lock);
	return OK;
}

static void *reserve(uint64_t bytes, uint64_t alignment)
{
	char *p = mmap(NULL, bytes + alignment, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	uint64_t before = (alignment - (uint64_t)p % alignment) % alignment;
	if (before)
		munmap(p, before);
	munmap(p + before + bytes, alignment - before);
	return p + before;
}

EXPORT CUresult cuMemAddressReserve(CUdeviceptr *out, size_t bytes, size_t alignment, CUdeviceptr hint, unsigned long long flags)
{
	ENTER("cuMemAddressReserve");
	if (!out || bytes == 0 || bytes % GRANULE || bytes > MAX_BYTES || flags || hint % 4096)
		return INVALID_VALUE;
	if (alignment & (alignment - 1) || alignment > (uint64_t)1 << 40)
		return INVALID_VALUE;
	struct reservation *v = malloc(sizeof *v);
	void *p = v ? reserve(bytes, alignment > GRANULE ? alignment : GRANULE) : NULL;
	if (!p) {
		free(v);
		return OUT_OF_MEMORY;
	}
	pthread_mutex_lock(&stub_lock);
	*v = (struct reservation){(uint64_t)p, bytes, reservations};
	reservations = v;
	stub_count(RESERVATIONS, 1);
	pthread_mutex_unlock(&stub_lock);
	*out = v->base;
	return OK;
}

// mapped: does any mapping touch [base, base+bytes)? All mappings are whole granules.
static int mapped(uint64_t base, uint64_t bytes)
{
	for (uint64_t at = base; at < base + bytes; at += GRANULE)
		if (stub_find(at))
			return 1;
	return 0;
}

EXPORT CUresult cuMemAddressFree(CUdeviceptr base, size_t bytes)
{
	ENTER("cuMemAddressFree");
	CUresult rc = INVALID_VALUE;
	pthread_mutex_lock(&stub_lock);
	for (struct reservation **v = &reservations; *v; v = &(*v)->next) {
		struct reservation *gone = *v;
		if (gone->base != base || gone->bytes != bytes || mapped(base, bytes))
			continue;
		*v = gone->next;
		munmap((void *)base, bytes);
		free(gone);
		stub_count(RESERVATIONS, -1);
		rc = OK;
		break;
	}
	pthread_mutex_unlock(&stub_lock);
	return rc;
}

static int reserved(uint64_t base, uint64_t bytes)
{
	for (struct reservation *v = reservations; v; v = v->next)
		if (base >= v->base && base - v->base <= v->bytes && bytes <= v->bytes - (base - v->base))
			return 1;
	return 0;
}

EXPORT CUresult cuMemMap(CUdeviceptr base, size_t bytes, size_t offset, CUallocation handle, unsigned long long flags)
{
	ENTER("cuMemMap");
	CUresult rc = OK;
	pthread_mutex_lock(&stub_lock);
	struct allocation *a = find_allocation(handle);
	if (!a || bytes == 0 || bytes % GRANULE || base % GRANULE || offset || flags || bytes > a->bytes || !reserved(base, bytes) || mapped(base, bytes)) {
		rc = INVALID_VALUE;
	} else if (mmap((void *)base, bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, a->fd, 0) == MAP_FAILED) {
		rc = OUT_OF_MEMORY;
	} else {
		a->maps++;
		stub_add((struct range){.base = base, .bytes = bytes, .memory = VMM_MEMORY, .device = a->device, .fd = -1, .rdma = a->rdma,
			.inode = a->inode, .allocation = a});
		stub_count(MAPPINGS, 1);
	}
	pthread_mutex_unlock(&stub_lock);
	return rc;
}

// whole_mappings: is [base, base+bytes) exactly one or more neighbouring mappings?
static int whole_mappings(uint64_t base, uint64_t bytes)
{
	uint64_t at = base;
	if (bytes == 0 || bytes > MAX_BYTES)
		return 0;
	while (at < base + bytes) {
		struct range *r = stub_find(at);
		if (!r || r->memory != VMM_MEMORY || r->base != at || r->bytes > base + bytes - at)
			return 0;
		at += r->bytes;
	}
	return 1;
}

static void unmap_one(struct range *r)
{
	struct allocation *a = r->allocation;
	stub_check_unused(r, "cuMemUnmap");
	if (mmap((void *)r->base, r->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
		stub_misuse("cannot unmap %#lx: %s", r->base, strerror(errno));
	stub_remove(r);
	stub_count(MAPPINGS, -1);
	a->maps--;
	drop_allocation(a);
}

EXPORT CUresult cuMemUnmap(CUdeviceptr base, size_t bytes)
{
	ENTER("cuMemUnmap");
	pthread_mutex_lock(&stub_lock);
	int whole = whole_mappings(base, bytes);
	for (uint64_t at = base; whole && at < base + bytes;) {
		struct range *r = stub_find(at);
		at += r->bytes;
		unmap_one(r);
	}
	pthread_mutex_unlock(&stub_lock);
	return whole ? OK : INVALID_VALUE;
}

// protect gives the CPU what any device has: a device's write is the CPU's here.
static int protect(struct range *r)
{
	int rights = PROT_NONE;
	for (int i = 0; i < STUB_DEVICES; i++) {
		if (r->access[i] & 1)
			rights |= PROT_READ;
		if (r->access[i] & 2)
			rights |= PROT_WRITE;
	}
	return mprotect((void *)r->base, r->bytes, rights);
}

EXPORT CUresult cuMemSetAccess(CUdeviceptr base, size_t bytes, const CUmemAccessDesc *descriptions, size_t count)
{
	ENTER("cuMemSetAccess");
	CUresult rc = OK;
	if (!descriptions || count == 0)
		return INVALID_VALUE;
	for (size_t i = 0; i < count; i++) {
		const CUmemAccessDesc *d = &descriptions[i];
		if (d->location.type != 1 || (d->flags != 0 && d->flags != 1 && d->flags != 3))
			return INVALID_VALUE;
		if (!stub_device(d->location.id))
			return INVALID_DEVICE;
	}
	pthread_mutex_lock(&stub_lock);
	if (!whole_mappings(base, bytes))
		rc = INVALID_VALUE;
	for (uint64_t at = base; rc == OK && at < base + bytes;) {
		struct range *r = stub_find(at);
		for (size_t i = 0; i < count; i++)
			r->access[stub_index(descriptions[i].location.id)] = descriptions[i].flags;
		if (protect(r))
			rc = OPERATING_SYSTEM;
		at += r->bytes;
	}
	pthread_mutex_unlock(&stub_lock);
	return rc;
}

EXPORT CUresult cuMemGetAccess(unsigned long long *flags, const CUmemLocation *location, CUdeviceptr address)
{
	ENTER("cuMemGetAccess");
	if (!flags || !location || location->type != 1)
		return INVALID_VALUE;
	int device = stub_index(location->id);
	if (device < 0)
		return INVALID_DEVICE;
	pthread_mutex_lock(&stub_lock);
	struct range *r = stub_find(address);
	CUresult rc = r && r->memory == VMM_MEMORY ? OK : INVALID_VALUE;
	if (rc == OK)
		*flags = (unsigned long long)r->access[device];
	pthread_mutex_unlock(&stub_lock);
	return rc;
}
