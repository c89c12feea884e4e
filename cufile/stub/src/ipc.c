// Legacy IPC: memory of cuMemAlloc in another process, by 64 bytes.
#define _GNU_SOURCE
#include "driver.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

// What the 64 bytes of an IPC handle hold here. NVIDIA's hold other things, but are as
// useless to whoever cannot see the exporter's process.
struct ipc_handle {
	char magic[8];
	int32_t pid, fd;
	uint64_t inode, bytes;
	unsigned char uuid[16];
	uint64_t unused[2];
};
_Static_assert(sizeof(struct ipc_handle) == 64, "ipc_handle");

EXPORT CUresult cuIpcGetMemHandle(CUipcMemHandle *out, CUdeviceptr address)
{
	ENTER("cuIpcGetMemHandle");
	CUresult rc = INVALID_VALUE;
	if (!out)
		return rc;
	pthread_mutex_lock(&stub_lock);
	struct range *r = stub_find(address);
	if (r && r->memory == DEVICE_MEMORY) {
		struct device *d = stub_configured(r->device);
		struct ipc_handle h = {.pid = getpid(), .fd = r->fd, .inode = r->inode, .bytes = r->bytes};
		memcpy(h.magic, "STUBIPC1", 8);
		memcpy(h.uuid, d->uuid, 16);
		memcpy(out, &h, sizeof h);
		rc = d->mig ? NOT_SUPPORTED : OK;
	}
	pthread_mutex_unlock(&stub_lock);
	return rc;
}

// open_exported opens the exporter's memfd, or gives -1 if it is gone.
static int open_exported(const struct ipc_handle *h)
{
	char path[64];
	struct stat st;
	snprintf(path, sizeof path, "/proc/%d/fd/%d", h->pid, h->fd);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -1;
	if (fstat(fd, &st) || st.st_ino != h->inode || (uint64_t)st.st_size != whole_pages(h->bytes)) {
		close(fd);
		return -1;
	}
	return fd;
}

static struct range *already_open(uint64_t inode)
{
	for (struct range *r = stub_ranges(); r; r = r->next)
		if (r->memory == IPC_MEMORY && r->inode == inode)
			return r;
	return NULL;
}

static CUresult open_ipc(struct context *c, const struct ipc_handle *h, CUdeviceptr *out)
{
	struct range *r = already_open(h->inode);
	int device = stub_by_uuid(h->uuid);
	if (device < 0)
		return INVALID_DEVICE;
	if (!r) {
		int fd = open_exported(h);
		if (fd < 0)
			return MAP_FAILED_CODE;
		void *p = mmap(NULL, whole_pages(h->bytes), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		close(fd);
		if (p == MAP_FAILED)
			return MAP_FAILED_CODE;
		stub_claim_memory(h->inode, whole_pages(h->bytes), 0, device, 1);
		r = stub_add((struct range){.base = (uint64_t)p, .bytes = h->bytes, .memory = IPC_MEMORY, .device = device, .fd = -1,
			.inode = h->inode, .context = c});
	}
	r->opens++;
	stub_count(IPC, 1);
	*out = r->base;
	return OK;
}

EXPORT CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *out, CUipcMemHandle handle, unsigned flags)
{
	ENTER("cuIpcOpenMemHandle_v2");
	struct context *c;
	struct ipc_handle h;
	CUresult rc = stub_current(&c);
	if (rc)
		return rc;
	memcpy(&h, &handle, sizeof h);
	if (!out || flags != 1 || memcmp(h.magic, "STUBIPC1", 8))
		return INVALID_VALUE;
	if (h.pid == getpid())
		return INVALID_CONTEXT; // not in the process that exported it
	pthread_mutex_lock(&stub_lock);
	rc = open_ipc(c, &h, out);
	pthread_mutex_unlock(&stub_lock);
	return rc;
}

void stub_close_ipc(struct range *r)
{
	munmap((void *)r->base, whole_pages(r->bytes));
	stub_drop_claim(r->inode);
	stub_remove(r);
}

EXPORT CUresult cuIpcCloseMemHandle(CUdeviceptr address)
{
	ENTER("cuIpcCloseMemHandle");
	CUresult rc = OK;
	pthread_mutex_lock(&stub_lock);
	struct range *r = stub_find(address);
	if (!r || r->base != address || r->memory != IPC_MEMORY) {
		rc = INVALID_VALUE;
	} else {
		stub_count(IPC, -1);
		if (--r->opens == 0) {
			stub_check_unused(r, "cuIpcCloseMemHandle");
			stub_close_ipc(r);
		}
	}
	pthread_mutex_unlock(&stub_lock);
	return rc;
}
