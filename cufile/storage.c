//go:build cgo && linux

#include "table.h"

#include <string.h>

stoker_status stoker_storage_version(stoker_table *t, int *version) {
	return STORAGE(cuFileGetVersion, version);
}

stoker_status stoker_set_size(stoker_table *t, int parameter, uint64_t kib) {
	return STORAGE(cuFileSetParameterSizeT, parameter, kib);
}

stoker_status stoker_set_bool(stoker_table *t, int parameter, int value) {
	return STORAGE(cuFileSetParameterBool, parameter, value != 0);
}

stoker_status stoker_set_string(stoker_table *t, int parameter, const char *value) {
	return STORAGE(cuFileSetParameterString, parameter, value);
}

stoker_status stoker_storage_open(stoker_table *t) {
	return STORAGE(cuFileDriverOpen);
}

/* The header renames cuFileDriverClose to _v2 where the library has it. */
stoker_status stoker_storage_close(stoker_table *t) {
	t->cuCtxSetCurrent(NULL); /* a context that was released may still be current here */
	if (t->cuFileDriverClose_v2)
		return STORAGE(cuFileDriverClose_v2);
	return STORAGE(cuFileDriverClose);
}

stoker_status stoker_storage_properties(stoker_table *t, stoker_cufile_properties *out) {
	memset(out, 0, sizeof *out);
	return STORAGE(cuFileDriverGetProperties, out);
}

stoker_status stoker_statistics_start(stoker_table *t, int level) {
	stoker_status status = STORAGE(cuFileSetStatsLevel, level);
	return status.op ? status : STORAGE(cuFileStatsStart);
}

stoker_status stoker_statistics_stop(stoker_table *t) {
	return STORAGE(cuFileStatsStop);
}

stoker_status stoker_statistics_reset(stoker_table *t) {
	return STORAGE(cuFileStatsReset);
}

stoker_status stoker_statistics_read(stoker_table *t, int level, void *out) {
	memset(out, 0, STOKER_STATISTICS_BYTES);
	switch (level) {
	case 1:
		return STORAGE(cuFileGetStatsL1, out);
	case 2:
		return STORAGE(cuFileGetStatsL2, out);
	default:
		return STORAGE(cuFileGetStatsL3, out);
	}
}

stoker_status stoker_p2p_flags(stoker_table *t, int file_system, unsigned int *flags) {
	*flags = 0;
	return STORAGE(cuFileDriverGetP2PFlags, file_system, flags);
}

stoker_status stoker_bar_bytes(stoker_table *t, int ordinal, uint64_t *bytes) {
	size_t kib = 0;
	stoker_status status = STORAGE(cuFileGetBARSizeInKB, ordinal, &kib);
	*bytes = (uint64_t)kib << 10;
	return status;
}

stoker_status stoker_register_file(stoker_table *t, int descriptor, uintptr_t *handle) {
	stoker_cufile_descriptor d;
	stoker_cufile_handle h = NULL;
	memset(&d, 0, sizeof d); /* also the padding */
	d.type = STOKER_CU_FILE_HANDLE_TYPE_OPAQUE_FD;
	d.handle.fd = descriptor;
	stoker_status status = STORAGE(cuFileHandleRegister, &h, &d);
	*handle = (uintptr_t)h;
	return status;
}

void stoker_deregister_file(stoker_table *t, uintptr_t handle) {
	t->cuFileHandleDeregister((stoker_cufile_handle)handle);
}

stoker_status stoker_register_buffer(stoker_table *t, stoker_device device, uint64_t base, uint64_t bytes) {
	ENTER(device);
	return STORAGE(cuFileBufRegister, (const void *)(uintptr_t)base, bytes, 0);
}

stoker_status stoker_deregister_buffer(stoker_table *t, stoker_device device, uint64_t base) {
	ENTER(device);
	return STORAGE(cuFileBufDeregister, (const void *)(uintptr_t)base);
}

/* The one call of the hot path. errno must be read on the thread that failed, so
 * before Go can move the goroutine. */
stoker_read_result stoker_read(stoker_table *t, uintptr_t context, uintptr_t handle, uint64_t base, uint64_t bytes, int64_t file_offset, int64_t base_offset) {
	stoker_read_result r = {0, 0, 0};
	r.cuda = t->cuCtxSetCurrent((stoker_cuda_context)context);
	if (r.cuda)
		return r;
	errno = 0;
	r.n = t->cuFileRead((stoker_cufile_handle)handle, (void *)(uintptr_t)base, bytes, file_offset, base_offset);
	if (r.n == -1)
		r.err = errno;
	return r;
}

int64_t stoker_read_loop(stoker_table *t, uintptr_t context, uintptr_t handle, uint64_t base, uint64_t bytes, int64_t file_offset, int64_t count) {
	int64_t sum = 0;
	while (count-- > 0) {
		stoker_read_result r = stoker_read(t, context, handle, base, bytes, file_offset, 0);
		if (r.n < 0 || r.cuda)
			return r.cuda ? -r.cuda : r.n;
		sum += r.n;
	}
	return sum;
}
