// Calls each function of both stand-ins rightly and wrongly, in one process.
//   check CUDA STORAGE FILE: FILE holds pattern(i) and is 3 pages and 100 bytes long.
#include "check.h"

static const char *path;
static const size_t file_bytes = 3 * PAGE + 100;

static void *without_context(void *unused)
{
	CUdeviceptr p;
	CUcontext c = (CUcontext)1;
	IS(p_cuMemAlloc(&p, 64), CUDA_ERROR_INVALID_CONTEXT);
	IS(p_cuCtxGetCurrent(&c), 0);
	CHECK(c == NULL);
	return unused;
}

static void check_devices(void)
{
	int n, v, d;
	CUuuid uuid;
	char name[64];
	size_t bytes;
	const char *text;
	IS(p_cuDeviceGetCount(&n), CUDA_ERROR_NOT_INITIALIZED);
	IS(p_cuInit(1), CUDA_ERROR_INVALID_VALUE);
	IS(p_cuInit(0), 0);
	IS(p_cuDriverGetVersion(&v), 0);
	IS(v, 13000);
	IS(p_cuDeviceGetCount(&n), 0);
	IS(n, 2);
	IS(p_cuDeviceGet(&d, 1), 0);
	IS(p_cuDeviceGet(&d, 2), CUDA_ERROR_INVALID_DEVICE);
	IS(p_cuDeviceGetUuid(&uuid, 1), 0);
	IS(memcmp(uuid.bytes, "STUB\0\0\0\0\0\0\0\0\0\0\0\2", 16), 0);
	IS(p_cuDeviceGetName(name, sizeof name, 0), 0);
	IS(strcmp(name, "STUB GPU"), 0);
	IS(p_cuDeviceGetPCIBusId(name, sizeof name, 1), 0);
	IS(strcmp(name, "0000:11:00.0"), 0);
	IS(p_cuDeviceTotalMem(&bytes, 0), 0);
	IS(bytes, 1 << 30);
	IS(p_cuDeviceGetAttribute(&v, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED, 0), 0);
	IS(v, 1);
	IS(p_cuDeviceGetAttribute(&v, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, 1), 0);
	IS(v, 0x11);
	IS(p_cuGetErrorName(CUDA_ERROR_OUT_OF_MEMORY, &text), 0);
	IS(strcmp(text, "CUDA_ERROR_OUT_OF_MEMORY"), 0);
	IS(p_cuGetErrorName(12345, &text), CUDA_ERROR_INVALID_VALUE);
	CHECK(text == NULL);
}

static void check_contexts(void)
{
	CUcontext a, b, c;
	CUdevice d;
	pthread_t thread;
	int active;
	IS(p_cuCtxGetDevice(&d), CUDA_ERROR_INVALID_CONTEXT);
	IS(p_cuDevicePrimaryCtxRetain(&a, 0), 0);
	IS(p_cuDevicePrimaryCtxRetain(&b, 1), 0);
	IS(p_cuCtxSetCurrent(a), 0);
	IS(p_cuCtxPushCurrent(b), 0);
	IS(p_cuCtxGetDevice(&d), 0);
	IS(d, 1);
	IS(p_cuCtxPopCurrent(&c), 0);
	CHECK(c == b);
	IS(p_cuCtxGetDevice(&d), 0);
	IS(d, 0);
	CHECK(!pthread_create(&thread, NULL, without_context, NULL) && !pthread_join(thread, NULL));
	IS(live("contexts"), 2);
	IS(p_cuDevicePrimaryCtxRelease(0), 0);
	IS(p_cuDevicePrimaryCtxGetState(0, NULL, &active), 0);
	IS(active, 0);
	IS(p_cuCtxGetDevice(&d), CUDA_ERROR_CONTEXT_IS_DESTROYED);
	IS(p_cuDevicePrimaryCtxRelease(0), CUDA_ERROR_INVALID_CONTEXT);
	IS(p_cuDevicePrimaryCtxRelease(1), 0);
	IS(p_cuCtxSetCurrent((CUcontext)&d), CUDA_ERROR_INVALID_CONTEXT);
	IS(p_cuCtxSetCurrent(NULL), 0);
	IS(live(""), 0);
}

static void check_vmm_errors(void)
{
	CUmemGenericAllocationHandle h, other;
	CUmemAllocationProp p = properties(0);
	CUdeviceptr v;
	size_t granularity;
	int fd = -1;
	IS(p_cuMemGetAllocationGranularity(&granularity, &p, CU_MEM_ALLOC_GRANULARITY_MINIMUM), 0);
	IS(granularity, GRANULE);
	IS(p_cuMemCreate(&h, GRANULE + 4096, &p, 0), CUDA_ERROR_INVALID_VALUE);
	IS(p_cuMemCreate(&h, (size_t)2 << 30, &p, 0), CUDA_ERROR_OUT_OF_MEMORY);
	p.location.id = 7;
	IS(p_cuMemCreate(&h, GRANULE, &p, 0), CUDA_ERROR_INVALID_DEVICE);
	p.location.id = 0;
	p.requestedHandleTypes = 0;
	IS(p_cuMemCreate(&h, GRANULE, &p, 0), 0);
	IS(p_cuMemExportToShareableHandle(&fd, h, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0), CUDA_ERROR_INVALID_VALUE);
	IS(p_cuMemImportFromShareableHandle(&other, (void *)(uintptr_t)0, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR), CUDA_ERROR_INVALID_VALUE);
	IS(p_cuMemAddressReserve(&v, 2 * GRANULE, 0, 0, 0), 0);
	IS(v % GRANULE, 0);
	IS(p_cuMemMap(v, 2 * GRANULE, 0, h, 0), CUDA_ERROR_INVALID_VALUE);
	IS(p_cuMemMap(v + 4096, GRANULE, 0, h, 0), CUDA_ERROR_INVALID_VALUE);
	IS(p_cuMemMap(v, GRANULE, 0, h, 0), 0);
	IS(p_cuMemMap(v, GRANULE, 0, h, 0), CUDA_ERROR_INVALID_VALUE);
	IS(p_cuMemAddressFree(v, 2 * GRANULE), CUDA_ERROR_INVALID_VALUE);
	IS(p_cuMemUnmap(v, 2 * GRANULE), CUDA_ERROR_INVALID_VALUE);
	IS(p_cuMemUnmap(v, GRANULE), 0);
	IS(p_cuMemAddressFree(v, GRANULE), CUDA_ERROR_INVALID_VALUE);
	IS(p_cuMemAddressFree(v, 2 * GRANULE), 0);
	IS(p_cuMemRelease(h), 0);
	IS(p_cuMemRelease(h), CUDA_ERROR_INVALID_VALUE);
	IS(live(""), 0);
}

// A second import maps the same bytes; memory lives until its last handle and mapping.
static void check_vmm(void)
{
	CUcontext c = enter(0);
	struct slab a = make_slab(0, 2 * GRANULE), b = {.bytes = 2 * GRANULE};
	size_t before, after, total;
	int fd = -1;
	IS(p_cuMemGetInfo(&before, &total), 0);
	IS(total - before, 2 * GRANULE);
	CHECK(*(unsigned char *)a.base == 0xA5);
	IS(p_cuMemExportToShareableHandle(&fd, a.handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0), 0);
	IS(fcntl(fd, F_GETFD), 0);
	IS(p_cuMemImportFromShareableHandle(&b.handle, (void *)(uintptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR), 0);
	close(fd);
	map_slab(&b, 0, 1);
	IS(p_cuMemsetD8(a.base, 0x5B, a.bytes), 0);
	CHECK(*(unsigned char *)b.base == 0xA5);
	IS(p_cuCtxSynchronize(), 0);
	CHECK(*(unsigned char *)(b.base + b.bytes - 1) == 0x5B);
	IS(p_cuMemcpyHtoD(b.base, "no", 2), CUDA_ERROR_ILLEGAL_ADDRESS);
	free_slab(&a);
	IS(p_cuMemGetInfo(&after, &total), 0);
	IS(after, before);
	IS(p_cuMemRelease(b.handle), 0);
	b.handle = 0;
	CHECK(*(unsigned char *)b.base == 0x5B);
	free_slab(&b);
	IS(p_cuMemGetInfo(&after, &total), 0);
	IS(after, total);
	IS(p_cuDevicePrimaryCtxRelease(0), 0);
	CHECK(c);
	IS(live(""), 0);
}

static void check_streams(void)
{
	CUdeviceptr p;
	CUstream s, t;
	CUevent e;
	unsigned char host[16] = {0}, *pinned;
	enter(0);
	IS(p_cuMemAlloc(&p, 4096), 0);
	IS(p_cuMemHostAlloc((void **)&pinned, 4096, 0), 0);
	IS(p_cuStreamCreate(&s, CU_STREAM_NON_BLOCKING), 0);
	IS(p_cuStreamCreate(&t, 0), 0);
	memset(pinned, 7, 16);
	IS(p_cuMemcpyHtoDAsync(p, pinned, 16, s), 0);
	CHECK(*(unsigned char *)p == 0xA5);
	IS(p_cuStreamQuery(s), CUDA_ERROR_NOT_READY);
	CHECK(*(unsigned char *)p == 0xA5);
	IS(p_cuStreamSynchronize(s), 0);
	CHECK(*(unsigned char *)p == 7);
	// The default stream and a blocking one keep the order of the calls.
	IS(p_cuMemsetD8(p, 1, 16), 0);
	memset(pinned, 2, 16);
	IS(p_cuMemcpyHtoDAsync(p, pinned, 16, t), 0);
	IS(p_cuStreamSynchronize(t), 0);
	CHECK(*(unsigned char *)p == 2);
	IS(p_cuMemcpyHtoDAsync(p, pinned, 16, t), 0);
	IS(p_cuMemsetD8(p, 1, 16), 0);
	IS(p_cuStreamSynchronize(NULL), 0);
	CHECK(*(unsigned char *)p == 1);
	// Pageable memory may be used again at once.
	memset(host, 3, 16);
	IS(p_cuMemcpyHtoDAsync(p, host, 16, s), 0);
	memset(host, 0, 16);
	IS(p_cuEventCreate(&e, CU_EVENT_DISABLE_TIMING), 0);
	IS(p_cuEventRecord(e, s), 0);
	IS(p_cuStreamWaitEvent(t, e, 0), 0);
	IS(p_cuMemcpyDtoDAsync(p + 64, p, 16, t), 0);
	IS(p_cuEventQuery(e), CUDA_ERROR_NOT_READY);
	IS(p_cuStreamSynchronize(t), 0);
	IS(p_cuEventQuery(e), 0);
	IS(p_cuMemcpyDtoH(host, p + 64, 16), 0);
	CHECK(host[0] == 3 && host[15] == 3);
	IS(p_cuEventCreate(&(CUevent){0}, CU_EVENT_INTERPROCESS), CUDA_ERROR_INVALID_VALUE);
	IS(p_cuMemcpyDtoH(host, p + 4090, 16), CUDA_ERROR_INVALID_VALUE);
	IS(p_cuEventDestroy(e), 0);
	IS(p_cuStreamDestroy(s), 0);
	IS(p_cuStreamSynchronize(s), CUDA_ERROR_INVALID_HANDLE);
	IS(p_cuStreamDestroy(t), 0);
	IS(p_cuMemFreeHost(pinned), 0);
	IS(p_cuMemFree(p), 0);
	IS(p_cuMemFree(p), CUDA_ERROR_INVALID_VALUE);
	IS(p_cuDevicePrimaryCtxRelease(0), 0);
	IS(live(""), 0);
}

static void check_host(void)
{
	CUdeviceptr p, base;
	size_t bytes;
	unsigned type;
	char *memory = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *readable = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	enter(1);
	IS(p_cuMemHostRegister(memory, 4 * PAGE, 0), 0);
	IS(p_cuMemHostRegister(memory + PAGE, 4 * PAGE, 0), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
	IS(p_cuMemHostRegister(readable, PAGE, 0), CUDA_ERROR_INVALID_VALUE);
	IS(p_cuMemHostRegister(readable, PAGE, CU_MEMHOSTREGISTER_READ_ONLY), 0);
	IS(p_cuMemHostUnregister(readable), 0);
	IS(p_cuMemHostUnregister(memory + PAGE), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
	IS(p_cuMemHostGetDevicePointer(&p, memory, 0), 0);
	IS(p_cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, p), 0);
	IS(type, CU_MEMORYTYPE_HOST);
	IS(p_cuMemGetAddressRange(&base, &bytes, p), CUDA_ERROR_NOT_FOUND);
	IS(p_cuMemHostUnregister(memory), 0);
	// What a context takes with it is counted.
	IS(p_cuMemAlloc(&p, 100), 0);
	IS(p_cuMemGetAddressRange(&base, &bytes, p + 50), 0);
	IS(base, p);
	IS(bytes, 100);
	long before = leaked();
	IS(p_cuDevicePrimaryCtxRelease(1), 0);
	IS(leaked() - before, 1);
	IS(live(""), 0);
	munmap(memory, 8 * PAGE);
	munmap(readable, PAGE);
}

static int open_file(int flags)
{
	int fd = open(path, (version < 1070 ? O_DIRECT : 0) | O_RDONLY | O_CLOEXEC | flags);
	CHECK(fd >= 0);
	return fd;
}

static void allow_compat(bool allow)
{
	if (p_cuFileSetParameterBool)
		IS(p_cuFileSetParameterBool(CUFILE_PARAM_PROPERTIES_ALLOW_COMPAT_MODE, allow).err, 0);
	else
		setenv("CUFILE_ALLOW_COMPAT_MODE", allow ? "true" : "false", 1);
}

// No route to the disk: only compat mode opens.
static void check_routes(void)
{
	setenv("STOKER_STUB_ROUTE", "none", 1);
	allow_compat(false);
	IS(p_cuFileDriverOpen().err, CU_FILE_DRIVER_NOT_INITIALIZED);
	allow_compat(true);
	IS(p_cuFileDriverOpen().err, 0);
	IS(close_driver().err, 0);
	setenv("STOKER_STUB_ROUTE", "nvfs", 1);
	allow_compat(false);
	IS(p_cuFileDriverOpen().err, 0);
	IS(close_driver().err, 0);
	IS(close_driver().err, CU_FILE_DRIVER_NOT_INITIALIZED);
}

static void check_files(void)
{
	CUfileHandle_t h, other;
	CUfileDescr_t d;
	int fds[2], fd = open_file(0), refused[] = {O_APPEND, O_NONBLOCK, O_NOFOLLOW};
	CHECK(!pipe(fds));
	IS(register_file(&h, fds[0]).err, CU_FILE_INVALID_FILE_TYPE);
	close(fds[0]);
	close(fds[1]);
	IS(register_file(&h, fds[0]).err, CU_FILE_INVALID_VALUE);
	for (int i = 0; i < 3; i++) {
		int one = open_file(refused[i]);
		IS(register_file(&h, one).err, CU_FILE_INVALID_FILE_OPEN_FLAG);
		close(one);
	}
	if (version < 1070) {
		int one = open(path, O_RDONLY | O_CLOEXEC);
		IS(register_file(&h, one).err, CU_FILE_DIO_NOT_SET);
		close(one);
	}
	memset(&d, 0xff, sizeof d);
	d.type = CU_FILE_HANDLE_TYPE_OPAQUE_FD;
	d.handle.fd = fd;
	IS(p_cuFileHandleRegister(&h, &d).err, CU_FILE_INVALID_VALUE);
	IS(register_file(&h, fd).err, 0);
	IS(register_file(&other, fd).err, CU_FILE_HANDLE_ALREADY_REGISTERED);
	IS(live("files"), 1);
	IS(close_driver().err, CU_FILE_INTERNAL_ERROR);
	p_cuFileHandleDeregister(h);
	close(fd);
}

static void check_buffers(struct slab *s)
{
	CUmemAllocationProp p = properties(0);
	struct slab plain = {.bytes = GRANULE};
	CUcontext c;
	IS(p_cuFileBufRegister((void *)s->base, s->bytes + 1, 0).err, CU_FILE_CUDA_POINTER_RANGE_ERROR);
	IS(p_cuFileBufRegister((void *)(s->base + s->bytes + GRANULE), 1, 0).err, CU_FILE_CUDA_POINTER_INVALID);
	IS(p_cuFileBufRegister((void *)s->base, s->bytes, 4).err, CU_FILE_INVALID_VALUE);
	IS(p_cuCtxGetCurrent(&c), 0);
	IS(p_cuCtxSetCurrent(NULL), 0);
	IS(p_cuFileBufRegister((void *)s->base, s->bytes, 0).err, CU_FILE_INVALID_CONTEXT_ERROR);
	IS(p_cuCtxSetCurrent(c), 0);
	p.allocFlags.gpuDirectRDMACapable = 0;
	IS(p_cuMemCreate(&plain.handle, plain.bytes, &p, 0), 0);
	map_slab(&plain, 0, 3);
	IS(p_cuFileBufRegister((void *)plain.base, plain.bytes, 0).err, CU_FILE_GPU_MEMORY_PINNING_FAILED);
	free_slab(&plain);
	setenv("STOKER_STUB_PINNED", "1M", 1);
	IS(p_cuFileBufRegister((void *)s->base, s->bytes, 0).err, CU_FILE_INVALID_MAPPING_SIZE);
	unsetenv("STOKER_STUB_PINNED");
	setenv("STOKER_STUB_BAR", "1M", 1);
	IS(p_cuFileBufRegister((void *)s->base, s->bytes, 0).err, CU_FILE_GPU_MEMORY_PINNING_FAILED);
	unsetenv("STOKER_STUB_BAR");
	IS(p_cuFileBufRegister((void *)s->base, s->bytes, 0).err, 0);
	IS(p_cuFileBufRegister((void *)(s->base + PAGE), PAGE, 0).err, CU_FILE_MEMORY_ALREADY_REGISTERED);
	IS(p_cuFileBufDeregister((void *)(s->base + PAGE)).err, CU_FILE_INVALID_VALUE);
}

static void check_bytes(CUdeviceptr at, size_t from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		CHECK(((unsigned char *)at)[i] == pattern(from + i));
}

static void check_reads(struct slab *s, CUfileHandle_t h)
{
	char *base = (char *)s->base;
	CUcontext c, other;
	IS(p_cuFileRead(h, base, 2 * PAGE, PAGE, PAGE), 2 * PAGE);
	check_bytes(s->base + PAGE, PAGE, 2 * PAGE);
	IS(p_cuFileRead(h, base, 10, 5, 3), 10);
	check_bytes(s->base + 3, 5, 10);
	IS(p_cuFileRead(h, base, 2 * PAGE, 3 * PAGE, 0), 100);
	IS(p_cuFileRead(h, base, PAGE, (off_t)file_bytes, 0), 0);
	IS(p_cuFileRead(h, base, PAGE, -1, 0), -CU_FILE_INVALID_VALUE);
	IS(p_cuFileRead(h, base, PAGE, 0, (off_t)s->bytes), -CU_FILE_INVALID_MAPPING_RANGE);
	IS(p_cuFileRead(h, base + PAGE, PAGE, 0, 0), -CU_FILE_INVALID_VALUE);
	IS(p_cuFileRead(h, (char *)&c, PAGE, 0, 0), -CU_FILE_CUDA_POINTER_INVALID);
	IS(p_cuFileRead(NULL, base, PAGE, 0, 0), -CU_FILE_HANDLE_NOT_REGISTERED);
	IS(p_cuCtxGetCurrent(&c), 0);
	IS(p_cuCtxSetCurrent(NULL), 0);
	IS(p_cuFileRead(h, base, PAGE, 0, 0), -CU_FILE_INVALID_CONTEXT_ERROR);
	other = enter(1);
	CHECK(other != c);
	IS(p_cuFileRead(h, base, PAGE, 0, 0), -CU_FILE_CUDA_CONTEXT_MISMATCH);
	IS(p_cuCtxSetCurrent(c), 0);
	IS(p_cuDevicePrimaryCtxRelease(1), 0);
}

static void check_statistics(void)
{
	static union { CUfileStatsLevel3_t level3; char room[8192]; } s;
	if (!p_cuFileGetStatsL3 || version >= 1190)
		return;
	int level;
	IS(p_cuFileGetStatsLevel(&level).err, 0);
	IS(level, 3);
	IS(p_cuFileGetStatsL3(&s.level3).err, 0);
	IS(s.level3.num_gpus, 2);
	CUfilePerGpuStats_t *g = &s.level3.per_gpu_stats[0];
	IS(memcmp(g->uuid, "STUB", 4), 0);
	IS(g->uuid[15], 1);
	IS(g->n_total_reads, 4);
	IS(g->n_nvfs_reads, 4);
	IS(g->n_posix_reads + g->n_p2p_reads, 0);
	IS(g->n_unaligned_reads, 2);
	IS(g->read_bytes, 2 * PAGE + 10 + 100);
	IS(s.level3.detailed.basic.read_ops.ok, 4);
	CHECK(s.level3.detailed.basic.read_ops.err > 0);
	IS(g->n_mmap_ok, 1);
	IS(p_cuFileStatsReset().err, 0);
	IS(p_cuFileGetStatsL3(&s.level3).err, 0);
	IS(s.level3.per_gpu_stats[0].n_total_reads, 0);
}

static void check_parameters(void)
{
	size_t kb, bar;
	bool flag;
	if (!p_cuFileSetParameterSizeT)
		return;
	IS(p_cuFileSetParameterSizeT(CUFILE_PARAM_PROPERTIES_MAX_DIRECT_IO_SIZE_KB, 4096).err, CU_FILE_DRIVER_ALREADY_OPEN);
	IS(p_cuFileGetParameterSizeT(CUFILE_PARAM_PROPERTIES_MAX_DIRECT_IO_SIZE_KB, &kb).err, 0);
	IS(kb, 8192);
	IS(p_cuFileGetParameterBool(CUFILE_PARAM_PROPERTIES_ALLOW_COMPAT_MODE, &flag).err, 0);
	IS(flag, false);
	IS(p_cuFileGetBARSizeInKB(1, &bar).err, 0);
	IS(p_cuFileGetBARSizeInKB(2, &bar).err, CU_FILE_INVALID_VALUE);
}

static void check_p2p_flags(void)
{
	unsigned flags;
	const unsigned p2pdma = 1, nvfs = 2;
	if (!set_p2p_flags)
		return;
	IS(get_p2p_flags(CU_FILE_NVME_SUPPORTED, &flags).err, 0);
	IS(flags, nvfs);
	IS(set_p2p_flags(CU_FILE_NVME_SUPPORTED, nvfs).err, CU_FILE_INVALID_VALUE);
	IS(set_p2p_flags(CU_FILE_LUSTRE_SUPPORTED, p2pdma).err, 0);
	IS(get_p2p_flags(CU_FILE_LUSTRE_SUPPORTED, &flags).err, 0);
	IS(flags, p2pdma);
	IS(set_p2p_flags(99, p2pdma).err, CU_FILE_INVALID_VALUE);
}

// Host memory that CUDA knows is a target since 1.7, and what was written is read.
static void check_host_target(void)
{
	char name[4096], *host;
	CUfileHandle_t h;
	IS(p_cuMemHostAlloc((void **)&host, 2 * PAGE, 0), 0);
	snprintf(name, sizeof name, "%s-XXXXXX", path);
	int fd = mkstemp(name);
	CHECK(fd >= 0 && !unlink(name));
	if (version < 1070) {
		IS(p_cuFileBufRegister(host, 2 * PAGE, 0).err, CU_FILE_CUDA_MEMORY_TYPE_INVALID);
	} else {
		IS(register_file(&h, fd).err, 0);
		IS(p_cuFileBufRegister(host, 2 * PAGE, 0).err, 0);
		memset(host, 9, PAGE);
		IS(p_cuFileWrite(h, host, PAGE, PAGE, 0), PAGE);
		IS(p_cuFileRead(h, host, PAGE, PAGE, PAGE), PAGE);
		CHECK(host[PAGE] == 9 && host[2 * PAGE - 1] == 9);
		IS(p_cuFileBufDeregister(host).err, 0);
		p_cuFileHandleDeregister(h);
	}
	close(fd);
	IS(p_cuMemFreeHost(host), 0);
}

static void check_storage(void)
{
	CUfileDrvProps_t properties;
	CUfileHandle_t h;
	enter(0);
	struct slab s = make_slab(0, 2 * GRANULE);
	IS(p_cuFileBufRegister((void *)s.base, s.bytes, 0).err, CU_FILE_DRIVER_NOT_INITIALIZED);
	allow_compat(false);
	if (p_cuFileSetParameterSizeT)
		IS(p_cuFileSetParameterSizeT(CUFILE_PARAM_PROPERTIES_MAX_DIRECT_IO_SIZE_KB, 8192).err, 0);
	if (p_cuFileSetStatsLevel) {
		IS(p_cuFileSetStatsLevel(4).err, CU_FILE_INVALID_VALUE);
		IS(p_cuFileSetStatsLevel(3).err, 0);
		IS(p_cuFileStatsStart().err, CU_FILE_DRIVER_NOT_INITIALIZED);
	}
	IS(p_cuFileDriverOpen().err, 0);
	IS(p_cuFileDriverOpen().err, CU_FILE_DRIVER_ALREADY_OPEN);
	if (p_cuFileUseCount)
		IS(p_cuFileUseCount(), 1);
	if (p_cuFileStatsStart)
		IS(p_cuFileStatsStart().err, 0);
	IS(p_cuFileDriverGetProperties(&properties).err, 0);
	IS(properties.nvfs.major_version, 2);
	IS(properties.nvfs.max_direct_io_size, p_cuFileSetParameterSizeT ? 8192 : 16384);
	check_parameters();
	check_files();
	check_buffers(&s);
	int fd = open_file(0);
	IS(register_file(&h, fd).err, 0);
	check_reads(&s, h);
	check_statistics();
	p_cuFileHandleDeregister(h);
	close(fd);
	IS(p_cuFileBufDeregister((void *)s.base).err, 0);
	check_p2p_flags();
	check_host_target();
	IS(close_driver().err, 0);
	free_slab(&s);
	IS(p_cuDevicePrimaryCtxRelease(0), 0);
	IS(live(""), 0);
}

static void check_fork(void)
{
	int status;
	pid_t child = fork();
	if (child == 0) {
		int n;
		_exit(p_cuDeviceGetCount(&n) == CUDA_ERROR_NOT_INITIALIZED && p_cuInit(0) == CUDA_ERROR_NOT_INITIALIZED ? 0 : 1);
	}
	CHECK(waitpid(child, &status, 0) == child);
	IS(status, 0);
}

static int descriptors(void)
{
	int n = 0;
	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static int mappings_of_device_memory(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[1024];
	int n = 0;
	CHECK(maps);
	while (fgets(line, sizeof line, maps))
		n += strstr(line, "memfd:stoker-stub") != NULL;
	fclose(maps);
	return n;
}

int main(int count, char **arguments)
{
	CHECK(count == 4);
	load(arguments[1], arguments[2]);
	path = arguments[3];
	int before = descriptors();
	check_devices();
	check_contexts();
	check_vmm_errors();
	check_vmm();
	check_streams();
	check_host();
	check_routes();
	check_storage();
	check_fork();
	IS(descriptors(), before);
	IS(mappings_of_device_memory(), 0);
	puts("fine");
	return 0;
}
