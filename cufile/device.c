//go:build cgo && linux

#include "table.h"

#include <string.h>

stoker_status stoker_start(stoker_table *t, int *version, int *devices) {
	TRY(cuInit, 0);
	TRY(cuDriverGetVersion, version);
	TRY(cuDeviceGetCount, devices);
	return fine;
}

/* What an old driver does not know it does not have. */
static int32_t attribute(stoker_table *t, stoker_cuda_device device, stoker_cuda_attribute which) {
	int value = 0;
	return t->cuDeviceGetAttribute(&value, which, device) ? 0 : value;
}

stoker_status stoker_describe(stoker_table *t, int ordinal, stoker_device_info *out) {
	stoker_cuda_device device;
	stoker_cuda_uuid uuid;
	size_t bytes;
	memset(out, 0, sizeof *out);
	TRY(cuDeviceGet, &device, ordinal);
	TRY(cuDeviceGetUuid, &uuid, device);
	TRY(cuDeviceGetName, out->name, sizeof out->name - 1, device);
	TRY(cuDeviceGetPCIBusId, out->pci, sizeof out->pci - 1, device);
	TRY(cuDeviceTotalMem, &bytes, device);
	memcpy(out->uuid, uuid.bytes, sizeof out->uuid);
	out->bytes = bytes;
	out->major = attribute(t, device, STOKER_CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
	out->minor = attribute(t, device, STOKER_CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
	out->virtual_memory = attribute(t, device, STOKER_CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED);
	out->descriptor = attribute(t, device, STOKER_CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED);
	out->direct_virtual = attribute(t, device, STOKER_CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED);
	out->read_only_host = attribute(t, device, STOKER_CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED);
	out->direct = attribute(t, device, STOKER_CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED);
	return fine;
}

static stoker_status make_stream(stoker_table *t, stoker_device *device) {
	stoker_cuda_stream stream;
	ENTER(*device);
	TRY(cuStreamCreate, &stream, STOKER_CU_STREAM_NON_BLOCKING);
	device->stream = (uintptr_t)stream;
	return fine;
}

stoker_status stoker_retain(stoker_table *t, int ordinal, stoker_device *out) {
	stoker_cuda_device device;
	stoker_cuda_context context;
	memset(out, 0, sizeof *out);
	TRY(cuDeviceGet, &device, ordinal);
	TRY(cuDevicePrimaryCtxRetain, &context, device);
	out->device = device;
	out->context = (uintptr_t)context;
	stoker_status status = make_stream(t, out);
	if (status.op)
		stoker_release(t, out);
	return status;
}

stoker_status stoker_release(stoker_table *t, stoker_device *device) {
	if (device->stream) {
		ENTER(*device);
		TRY(cuStreamDestroy, (stoker_cuda_stream)device->stream);
		device->stream = 0;
	}
	if (device->context) {
		TRY(cuDevicePrimaryCtxRelease, device->device);
		device->context = 0;
		/* Leave no dead context current; other threads set theirs before use. */
		t->cuCtxSetCurrent(NULL);
	}
	return fine;
}

stoker_status stoker_memory(stoker_table *t, stoker_device device, uint64_t *free_bytes, uint64_t *total) {
	size_t f, a;
	ENTER(device);
	TRY(cuMemGetInfo, &f, &a);
	*free_bytes = f;
	*total = a;
	return fine;
}

stoker_status stoker_register_host(stoker_table *t, stoker_device device, void *memory, size_t bytes) {
	ENTER(device);
	TRY(cuMemHostRegister, memory, bytes, STOKER_CU_MEMHOSTREGISTER_PORTABLE);
	return fine;
}

stoker_status stoker_unregister_host(stoker_table *t, stoker_device device, void *memory) {
	ENTER(device);
	TRY(cuMemHostUnregister, memory);
	return fine;
}

stoker_status stoker_copy_in(stoker_table *t, stoker_device device, uint64_t to, const void *from, size_t bytes) {
	stoker_cuda_stream stream = (stoker_cuda_stream)device.stream;
	ENTER(device);
	TRY(cuMemcpyHtoDAsync, to, from, bytes, stream);
	TRY(cuStreamSynchronize, stream);
	return fine;
}

stoker_status stoker_copy_out(stoker_table *t, stoker_device device, void *to, uint64_t from, size_t bytes) {
	stoker_cuda_stream stream = (stoker_cuda_stream)device.stream;
	ENTER(device);
	TRY(cuMemcpyDtoHAsync, to, from, bytes, stream);
	TRY(cuStreamSynchronize, stream);
	return fine;
}
