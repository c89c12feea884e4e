// Statistics, levels 1 to 3. Rates and latencies stay 0: a stand-in has no speeds.
#define _GNU_SOURCE
#include "storage.h"

#include <string.h>

static CUfileStatsLevel3_t statistics; // guarded by storage_lock
static int level, started;

static int counts(int wanted)
{
	return started && level >= wanted;
}

void storage_count(enum counted what, int ok)
{
	CUfileStatsLevel1_t *s = &statistics.detailed.basic;
	CUfileOpCounter_t *counters[] = {
		[COUNT_READ] = &s->read, [COUNT_WRITE] = &s->write, [COUNT_FILE_REGISTER] = &s->file_register,
		[COUNT_FILE_DEREGISTER] = &s->file_deregister, [COUNT_BUFFER_REGISTER] = &s->buffer_register,
		[COUNT_BUFFER_DEREGISTER] = &s->buffer_deregister,
	};
	if (!counts(1))
		return;
	if (ok)
		counters[what]->ok++;
	else
		counters[what]->err++;
}

static void count_size(uint64_t *histogram, int64_t bytes)
{
	int bucket = 0;
	for (int64_t kb = bytes >> 10; kb > 0 && bucket < 31; kb >>= 1)
		bucket++;
	histogram[bucket]++;
}

static CUfilePerGpuStats_t *gpu(int device)
{
	return counts(3) && device >= 0 && device < 16 ? &statistics.gpu[device] : NULL;
}

void storage_count_read(int device, enum stub_route route, int unaligned, int64_t bytes)
{
	CUfilePerGpuStats_t *g = gpu(device);
	if (counts(1) && bytes >= 0)
		statistics.detailed.basic.read_bytes += (uint64_t)bytes;
	if (counts(2) && bytes >= 0)
		count_size(statistics.detailed.read_sizes, bytes);
	if (!g)
		return;
	if (bytes < 0) {
		g->read_errors++;
		return;
	}
	g->reads++;
	g->read_bytes += (uint64_t)bytes;
	g->p2p_reads += route == ROUTE_P2P;
	g->nvfs_reads += route == ROUTE_NVFS;
	g->posix_reads += route == ROUTE_POSIX;
	g->unaligned_reads += (uint64_t)unaligned;
}

void storage_count_write(int device, enum stub_route route, int unaligned, int64_t bytes)
{
	CUfilePerGpuStats_t *g = gpu(device);
	if (counts(1) && bytes >= 0)
		statistics.detailed.basic.write_bytes += (uint64_t)bytes;
	if (counts(2) && bytes >= 0)
		count_size(statistics.detailed.write_sizes, bytes);
	if (!g)
		return;
	if (bytes < 0) {
		g->write_errors++;
		return;
	}
	g->writes++;
	g->write_bytes += (uint64_t)bytes;
	g->p2p_writes += route == ROUTE_P2P;
	g->nvfs_writes += route == ROUTE_NVFS;
	g->posix_writes += route == ROUTE_POSIX;
	g->unaligned_writes += (uint64_t)unaligned;
}

void storage_count_buffer(int device, int ok, int freed, uint64_t bytes)
{
	CUfilePerGpuStats_t *g = gpu(device);
	if (!g)
		return;
	if (freed) {
		g->maps_freed++;
		g->registered_bytes -= bytes < g->registered_bytes ? bytes : g->registered_bytes;
		return;
	}
	g->maps++;
	g->maps_ok += (uint64_t)ok;
	g->maps_failed += (uint64_t)!ok;
	g->registered_bytes += ok ? bytes : 0;
}

void storage_stop_statistics(void)
{
	memset(&statistics, 0, sizeof statistics);
	started = level = 0;
}

#if STUB_VERSION >= 1150
EXPORT CUfileError_t cuFileSetStatsLevel(int wanted)
{
	CUfileError_t fault;
	storage_check_fork("cuFileSetStatsLevel");
	if (storage_faulty("cuFileSetStatsLevel", &fault))
		return fault;
	if (wanted < 0 || wanted > 3)
		return answer(INVALID_VALUE);
	pthread_mutex_lock(&storage_lock);
	level = wanted;
	pthread_mutex_unlock(&storage_lock);
	return answer(SUCCESS);
}

EXPORT CUfileError_t cuFileGetStatsLevel(int *out)
{
	CUfileError_t fault;
	if (storage_faulty("cuFileGetStatsLevel", &fault))
		return fault;
	if (!out)
		return answer(INVALID_VALUE);
	*out = level;
	return answer(SUCCESS);
}

EXPORT CUfileError_t cuFileStatsStart(void)
{
	BEGIN("cuFileStatsStart");
	pthread_mutex_lock(&storage_lock);
	int code = level > 0 ? SUCCESS : INVALID_VALUE;
	started |= code == SUCCESS;
	pthread_mutex_unlock(&storage_lock);
	return answer(code);
}

EXPORT CUfileError_t cuFileStatsStop(void)
{
	BEGIN("cuFileStatsStop");
	pthread_mutex_lock(&storage_lock);
	started = 0;
	pthread_mutex_unlock(&storage_lock);
	return answer(SUCCESS);
}

EXPORT CUfileError_t cuFileStatsReset(void)
{
	BEGIN("cuFileStatsReset");
	pthread_mutex_lock(&storage_lock);
	memset(&statistics, 0, sizeof statistics);
	pthread_mutex_unlock(&storage_lock);
	return answer(SUCCESS);
}

static CUfileError_t copy_statistics(void *out, size_t bytes, int wanted)
{
	int code = INVALID_VALUE;
	pthread_mutex_lock(&storage_lock);
	if (out && level >= wanted) {
		statistics.gpus = (uint32_t)cuda.devices();
		for (int i = 0; i < cuda.devices() && i < 16; i++)
			cuda.uuid(i, (unsigned char *)statistics.gpu[i].uuid);
		memcpy(out, &statistics, bytes);
		code = SUCCESS;
	}
	pthread_mutex_unlock(&storage_lock);
	return answer(code);
}

EXPORT CUfileError_t cuFileGetStatsL1(CUfileStatsLevel1_t *out)
{
	BEGIN("cuFileGetStatsL1");
	return copy_statistics(out, sizeof *out, 1);
}

EXPORT CUfileError_t cuFileGetStatsL2(CUfileStatsLevel2_t *out)
{
	BEGIN("cuFileGetStatsL2");
	return copy_statistics(out, sizeof *out, 2);
}

EXPORT CUfileError_t cuFileGetStatsL3(CUfileStatsLevel3_t *out)
{
	BEGIN("cuFileGetStatsL3");
	return copy_statistics(out, sizeof *out, 3);
}
#endif
