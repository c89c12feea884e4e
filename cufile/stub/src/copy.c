// Copies and memsets. Each goes through a stream, the synchronous ones with a wait.
#define _GNU_SOURCE
#include "driver.h"

#include <stdlib.h>
#include <string.h>

// reachable: may the device of c touch these bytes? wanted is 1 to read, 2 to write.
static CUresult reachable(struct context *c, uint64_t address, uint64_t bytes, int wanted)
{
	struct range *r = stub_find_all(address, bytes);
	if (!r)
		return INVALID_VALUE;
	if (r->memory == VMM_MEMORY && !(r->access[c->device] & wanted))
		return ILLEGAL_ADDRESS;
	return OK;
}

enum side { DEVICE_SIDE, HOST_SIDE };

static CUresult check_sides(struct context *c, const struct op *o, enum side to, enum side from)
{
	CUresult rc = OK;
	if (to == DEVICE_SIDE)
		rc = reachable(c, o->to, o->bytes, 2);
	else if (!o->to)
		rc = INVALID_VALUE;
	if (rc == OK && o->kind == OP_COPY && from == DEVICE_SIDE)
		rc = reachable(c, o->from, o->bytes, 1);
	else if (rc == OK && o->kind == OP_COPY && !o->from)
		rc = INVALID_VALUE;
	return rc;
}

// stage copies pageable memory away, as CUDA does before an asynchronous copy returns.
static void stage(struct op *o)
{
	o->staging = malloc(o->bytes);
	if (!o->staging)
		stub_misuse("no memory to stage %lu bytes", o->bytes);
	memcpy(o->staging, (void *)o->from, o->bytes);
	o->from = (uint64_t)o->staging;
}

static CUresult enqueue(const char *operation, struct op o, CUstream stream, int wait, enum side to, enum side from)
{
	struct stub_fault fault;
	struct context *c;
	struct stream *s;
	if (stub_forked() || !stub_ready())
		return NOT_INITIALIZED;
	if (stub_fault(operation, &fault))
		return fault.number ? OPERATING_SYSTEM : fault.code;
	CUresult rc = stub_in_stream(stream, &c, &s);
	if (rc)
		return rc;
	if (o.bytes)
		rc = check_sides(c, &o, to, from);
	if (rc == OK && o.bytes) {
		o.corrupt = fault.corrupt;
		o.offset = fault.offset;
		if (!wait && o.kind == OP_COPY && from == HOST_SIDE && !stub_find_all(o.from, o.bytes))
			stage(&o);
		if (!wait && to == HOST_SIDE && !stub_find_all(o.to, o.bytes))
			wait = 1; // into pageable memory a copy returns when it is done
		stub_push(s, o);
		if (wait)
			stub_run(s, NULL, 0);
	}
	pthread_mutex_unlock(&stub_lock);
	return rc;
}

EXPORT CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes)
{
	struct op o = {.kind = OP_COPY, .to = to, .from = (uint64_t)from, .bytes = bytes};
	return enqueue("cuMemcpyHtoD_v2", o, NULL, 1, DEVICE_SIDE, HOST_SIDE);
}

EXPORT CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes)
{
	struct op o = {.kind = OP_COPY, .to = (uint64_t)to, .from = from, .bytes = bytes};
	return enqueue("cuMemcpyDtoH_v2", o, NULL, 1, HOST_SIDE, DEVICE_SIDE);
}

// Copies within the device, like memsets, return before they are done
// (CUDA driver API, "API synchronization behavior").
EXPORT CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
	struct op o = {.kind = OP_COPY, .to = to, .from = from, .bytes = bytes};
	return enqueue("cuMemcpyDtoD_v2", o, NULL, 0, DEVICE_SIDE, DEVICE_SIDE);
}

EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream)
{
	struct op o = {.kind = OP_COPY, .to = to, .from = (uint64_t)from, .bytes = bytes};
	return enqueue("cuMemcpyHtoDAsync_v2", o, stream, 0, DEVICE_SIDE, HOST_SIDE);
}

EXPORT CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream)
{
	struct op o = {.kind = OP_COPY, .to = (uint64_t)to, .from = from, .bytes = bytes};
	return enqueue("cuMemcpyDtoHAsync_v2", o, stream, 0, HOST_SIDE, DEVICE_SIDE);
}

EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
	struct op o = {.kind = OP_COPY, .to = to, .from = from, .bytes = bytes};
	return enqueue("cuMemcpyDtoDAsync_v2", o, stream, 0, DEVICE_SIDE, DEVICE_SIDE);
}

EXPORT CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t bytes)
{
	struct op o = {.kind = OP_SET, .to = to, .value = value, .bytes = bytes};
	return enqueue("cuMemsetD8_v2", o, NULL, 0, DEVICE_SIDE, DEVICE_SIDE);
}

EXPORT CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream)
{
	struct op o = {.kind = OP_SET, .to = to, .value = value, .bytes = bytes};
	return enqueue("cuMemsetD8Async", o, stream, 0, DEVICE_SIDE, DEVICE_SIDE);
}
