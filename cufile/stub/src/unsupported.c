// Batches, streams and vectors: Stoker uses none of them, so that the stand-in has the
// symbols of each version and refuses the calls with codes that NVIDIA documents.
#define _GNU_SOURCE
#include "storage.h"

#if STUB_VERSION >= 1020
EXPORT CUfileError_t cuFileBatchIOSetUp(void **batch, unsigned entries)
{
	(void)batch, (void)entries;
	return answer(IO_NOT_SUPPORTED);
}

EXPORT CUfileError_t cuFileBatchIOSubmit(void *batch, unsigned entries, void *parameters, unsigned flags)
{
	(void)batch, (void)entries, (void)parameters, (void)flags;
	return answer(IO_NOT_SUPPORTED);
}

EXPORT CUfileError_t cuFileBatchIOGetStatus(void *batch, unsigned least, unsigned *entries, void *events, void *timeout)
{
	(void)batch, (void)least, (void)entries, (void)events, (void)timeout;
	return answer(IO_NOT_SUPPORTED);
}

EXPORT CUfileError_t cuFileBatchIOCancel(void *batch)
{
	(void)batch;
	return answer(IO_NOT_SUPPORTED);
}

EXPORT void cuFileBatchIODestroy(void *batch)
{
	(void)batch;
}
#endif

#if STUB_VERSION >= 1070
EXPORT CUfileError_t cuFileReadAsync(void *handle, void *base, size_t *bytes, off_t *offset, off_t *into, ssize_t *done, void *stream)
{
	(void)handle, (void)base, (void)bytes, (void)offset, (void)into, (void)done, (void)stream;
	return answer(ASYNC_NOT_SUPPORTED);
}

EXPORT CUfileError_t cuFileWriteAsync(void *handle, void *base, size_t *bytes, off_t *offset, off_t *from, ssize_t *done, void *stream)
{
	(void)handle, (void)base, (void)bytes, (void)offset, (void)from, (void)done, (void)stream;
	return answer(ASYNC_NOT_SUPPORTED);
}

EXPORT CUfileError_t cuFileStreamRegister(void *stream, unsigned flags)
{
	(void)stream, (void)flags;
	return answer(ASYNC_NOT_SUPPORTED);
}

EXPORT CUfileError_t cuFileStreamDeregister(void *stream)
{
	(void)stream;
	return answer(ASYNC_NOT_SUPPORTED);
}
#endif

#if STUB_VERSION >= 1190
EXPORT ssize_t cuFileReadv(void *handle, const void *vectors, size_t count, off_t offset, unsigned flags)
{
	(void)handle, (void)vectors, (void)count, (void)offset, (void)flags;
	return -IO_NOT_SUPPORTED;
}

EXPORT ssize_t cuFileWritev(void *handle, const void *vectors, size_t count, off_t offset, unsigned flags)
{
	(void)handle, (void)vectors, (void)count, (void)offset, (void)flags;
	return -IO_NOT_SUPPORTED;
}
#endif
