//go:build cgo && linux

#include "table.h"

#include <fcntl.h>
#include <string.h>

static stoker_cuda_allocation_properties properties_of(stoker_device device, int direct) {
	stoker_cuda_allocation_properties p;
	memset(&p, 0, sizeof p);
	p.type = STOKER_CU_MEM_ALLOCATION_TYPE_PINNED;
	p.requestedHandleTypes = STOKER_CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
	p.location.type = STOKER_CU_MEM_LOCATION_TYPE_DEVICE;
	p.location.id = device.device;
	p.allocFlags.gpuDirectRDMACapable = direct != 0;
	return p;
}

/* One reservation and one mapping for the one allocation: cuFile wants a registered
 * range to be one piece. */
static stoker_status map(stoker_table *t, stoker_device device, int writable, stoker_segment *s) {
	stoker_cuda_address address;
	TRY(cuMemAddressReserve, &address, s->bytes, s->granularity, 0, 0);
	s->address = address;
	s->parts |= STOKER_PART_RESERVATION;
	TRY(cuMemMap, s->address, s->bytes, 0, s->allocation, 0);
	s->parts |= STOKER_PART_MAPPING;
	stoker_cuda_access access;
	memset(&access, 0, sizeof access);
	access.location.type = STOKER_CU_MEM_LOCATION_TYPE_DEVICE;
	access.location.id = device.device;
	access.flags = writable ? STOKER_CU_MEM_ACCESS_FLAGS_PROT_READWRITE : STOKER_CU_MEM_ACCESS_FLAGS_PROT_READ;
	TRY(cuMemSetAccess, s->address, s->bytes, &access, 1);
	return fine;
}

/* New memory may hold what another process left. */
static stoker_status zero(stoker_table *t, stoker_device device, stoker_segment *s) {
	TRY(cuMemsetD8Async, s->address, 0, s->bytes, (stoker_cuda_stream)device.stream);
	TRY(cuStreamSynchronize, (stoker_cuda_stream)device.stream);
	return fine;
}

static stoker_status create(stoker_table *t, stoker_device device, uint64_t bytes, int direct, stoker_segment *s) {
	stoker_cuda_allocation_properties properties = properties_of(device, direct);
	size_t granularity;
	stoker_cuda_allocation allocation;
	ENTER(device);
	TRY(cuMemGetAllocationGranularity, &granularity, &properties, STOKER_CU_MEM_ALLOC_GRANULARITY_MINIMUM);
	s->granularity = granularity;
	s->bytes = (bytes + granularity - 1) / granularity * granularity;
	TRY(cuMemCreate, &allocation, s->bytes, &properties, 0);
	s->allocation = allocation;
	s->parts |= STOKER_PART_ALLOCATION;
	stoker_status status = map(t, device, 1, s);
	return status.op ? status : zero(t, device, s);
}

static stoker_status create_legacy(stoker_table *t, stoker_device device, uint64_t bytes, stoker_segment *s) {
	stoker_cuda_address address;
	s->granularity = 2 << 20;
	s->bytes = (bytes + s->granularity - 1) / s->granularity * s->granularity;
	ENTER(device);
	TRY(cuMemAlloc, &address, s->bytes);
	s->address = address;
	s->parts |= STOKER_PART_MEMORY;
	return zero(t, device, s);
}

static stoker_status import(stoker_table *t, stoker_device device, int descriptor, uint64_t bytes, int writable, stoker_segment *s) {
	stoker_cuda_allocation_properties properties = properties_of(device, 0);
	size_t granularity;
	stoker_cuda_allocation allocation;
	ENTER(device);
	TRY(cuMemGetAllocationGranularity, &granularity, &properties, STOKER_CU_MEM_ALLOC_GRANULARITY_MINIMUM);
	s->granularity = granularity;
	s->bytes = bytes;
	TRY(cuMemImportFromShareableHandle, &allocation, (void *)(intptr_t)descriptor, STOKER_CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
	s->allocation = allocation;
	s->parts |= STOKER_PART_ALLOCATION;
	return map(t, device, writable, s);
}

/* A handle says nothing of its size, and its sender may lie. No document promises that
 * a driver answers for memory of another process: where it does not, the sender is
 * believed. */
static uint64_t whole(stoker_table *t, uint64_t address, uint64_t claimed) {
	stoker_cuda_address base;
	size_t bytes;
	if (!t->cuMemGetAddressRange || t->cuMemGetAddressRange(&base, &bytes, address))
		return claimed;
	uint64_t room = base + bytes - address;
	return room < claimed ? room : claimed;
}

static stoker_status import_legacy(stoker_table *t, stoker_device device, const char *handle, uint64_t bytes, stoker_segment *s) {
	stoker_cuda_ipc_handle copy;
	stoker_cuda_address address;
	memcpy(copy.reserved, handle, sizeof copy.reserved);
	s->granularity = 2 << 20;
	ENTER(device);
	TRY(cuIpcOpenMemHandle, &address, copy, STOKER_CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
	s->address = address;
	s->parts |= STOKER_PART_IPC;
	s->bytes = whole(t, address, bytes);
	return fine;
}

/* What was half made is undone; the first failure is the answer. */
static stoker_status undo(stoker_table *t, stoker_device device, stoker_segment *s, stoker_status status) {
	if (status.op)
		stoker_destroy(t, device, s);
	return status;
}

stoker_status stoker_create(stoker_table *t, stoker_device device, uint64_t bytes, int direct, stoker_segment *out) {
	memset(out, 0, sizeof *out);
	return undo(t, device, out, create(t, device, bytes, direct, out));
}

stoker_status stoker_create_legacy(stoker_table *t, stoker_device device, uint64_t bytes, stoker_segment *out) {
	memset(out, 0, sizeof *out);
	return undo(t, device, out, create_legacy(t, device, bytes, out));
}

stoker_status stoker_import(stoker_table *t, stoker_device device, int descriptor, uint64_t bytes, int writable, stoker_segment *out) {
	memset(out, 0, sizeof *out);
	return undo(t, device, out, import(t, device, descriptor, bytes, writable, out));
}

stoker_status stoker_import_legacy(stoker_table *t, stoker_device device, const char *handle, uint64_t bytes, stoker_segment *out) {
	memset(out, 0, sizeof *out);
	return undo(t, device, out, import_legacy(t, device, handle, bytes, out));
}

stoker_status stoker_destroy(stoker_table *t, stoker_device device, stoker_segment *s) {
	ENTER(device);
	if (s->parts & STOKER_PART_MAPPING) {
		TRY(cuMemUnmap, s->address, s->bytes);
		s->parts &= ~STOKER_PART_MAPPING;
	}
	if (s->parts & STOKER_PART_ALLOCATION) {
		TRY(cuMemRelease, s->allocation);
		s->parts &= ~STOKER_PART_ALLOCATION;
	}
	if (s->parts & STOKER_PART_RESERVATION) {
		TRY(cuMemAddressFree, s->address, s->bytes);
		s->parts &= ~STOKER_PART_RESERVATION;
	}
	if (s->parts & STOKER_PART_MEMORY) {
		TRY(cuMemFree, s->address);
		s->parts &= ~STOKER_PART_MEMORY;
	}
	if (s->parts & STOKER_PART_IPC) {
		TRY(cuIpcCloseMemHandle, s->address);
		s->parts &= ~STOKER_PART_IPC;
	}
	return fine;
}

stoker_status stoker_export(stoker_table *t, stoker_device device, stoker_segment s, int *descriptor) {
	*descriptor = -1;
	ENTER(device);
	TRY(cuMemExportToShareableHandle, descriptor, s.allocation, STOKER_CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
	fcntl(*descriptor, F_SETFD, FD_CLOEXEC);
	return fine;
}

stoker_status stoker_export_legacy(stoker_table *t, stoker_device device, stoker_segment s, char *handle) {
	stoker_cuda_ipc_handle out;
	ENTER(device);
	TRY(cuIpcGetMemHandle, &out, s.address);
	memcpy(handle, out.reserved, sizeof out.reserved);
	return fine;
}
