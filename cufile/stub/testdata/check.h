// What the test programs share: the functions of both stand-ins, typed by NVIDIA's own
// headers, so that a wrong argument or result shows when the programs are compiled.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cuda.h>
#include <cufile.h>

#define CHECK(condition)                                                                       \
	do {                                                                                   \
		if (!(condition)) {                                                            \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			exit(1);                                                               \
		}                                                                              \
	} while (0)

#define IS(call, wanted)                                                                                     \
	do {                                                                                                 \
		long got_ = (long)(call);                                                                    \
		if (got_ != (long)(wanted)) {                                                                \
			fprintf(stderr, "%s:%d: %s is %ld, not %ld\n", __FILE__, __LINE__, #call, got_, (long)(wanted)); \
			exit(1);                                                                             \
		}                                                                                            \
	} while (0)

#define CUDA_FUNCTIONS(X) \
	X(cuInit) X(cuDriverGetVersion) X(cuGetErrorName) X(cuGetErrorString) X(cuDeviceGetCount) X(cuDeviceGet) \
	X(cuDeviceGetName) X(cuDeviceGetUuid) X(cuDeviceTotalMem) X(cuDeviceGetAttribute) X(cuDeviceGetPCIBusId) \
	X(cuDevicePrimaryCtxRetain) X(cuDevicePrimaryCtxRelease) X(cuDevicePrimaryCtxGetState) X(cuCtxSetCurrent) \
	X(cuCtxGetCurrent) X(cuCtxPushCurrent) X(cuCtxPopCurrent) X(cuCtxGetDevice) X(cuCtxSynchronize) X(cuMemAlloc) \
	X(cuMemFree) X(cuMemGetInfo) X(cuMemGetAddressRange) X(cuPointerGetAttribute) X(cuMemcpyHtoD) X(cuMemcpyDtoH) \
	X(cuMemcpyDtoD) X(cuMemcpyHtoDAsync) X(cuMemcpyDtoHAsync) X(cuMemcpyDtoDAsync) X(cuMemsetD8) X(cuMemsetD8Async) \
	X(cuMemHostAlloc) X(cuMemFreeHost) X(cuMemHostRegister) X(cuMemHostUnregister) X(cuMemHostGetDevicePointer) \
	X(cuStreamCreate) X(cuStreamDestroy) X(cuStreamSynchronize) X(cuStreamQuery) X(cuStreamWaitEvent) X(cuEventCreate) \
	X(cuEventDestroy) X(cuEventRecord) X(cuEventQuery) X(cuEventSynchronize) X(cuIpcGetMemHandle) X(cuIpcOpenMemHandle) \
	X(cuIpcCloseMemHandle) X(cuMemGetAllocationGranularity) X(cuMemCreate) X(cuMemRelease) X(cuMemExportToShareableHandle) \
	X(cuMemImportFromShareableHandle) X(cuMemAddressReserve) X(cuMemAddressFree) X(cuMemMap) X(cuMemUnmap) X(cuMemSetAccess) \
	X(cuMemGetAccess)

#define STORAGE_FUNCTIONS(X) \
	X(cuFileDriverOpen) X(cuFileDriverGetProperties) X(cuFileDriverSetPollMode) X(cuFileDriverSetMaxDirectIOSize) \
	X(cuFileDriverSetMaxCacheSize) X(cuFileDriverSetMaxPinnedMemSize) X(cuFileHandleRegister) X(cuFileHandleDeregister) \
	X(cuFileBufRegister) X(cuFileBufDeregister) X(cuFileRead) X(cuFileWrite)

#define LATER_FUNCTIONS(X) \
	X(cuFileUseCount) X(cuFileGetVersion) X(cuFileSetParameterSizeT) X(cuFileSetParameterBool) X(cuFileSetParameterString) \
	X(cuFileGetParameterSizeT) X(cuFileGetParameterBool) X(cuFileGetParameterString) X(cuFileGetBARSizeInKB) \
	X(cuFileSetStatsLevel) X(cuFileGetStatsLevel) X(cuFileStatsStart) X(cuFileStatsStop) X(cuFileStatsReset) \
	X(cuFileGetStatsL1) X(cuFileGetStatsL2) X(cuFileGetStatsL3)

#define DECLARE(f) static __typeof__(f) *p_##f;
CUDA_FUNCTIONS(DECLARE)
STORAGE_FUNCTIONS(DECLARE)
LATER_FUNCTIONS(DECLARE)

static CUfileError_t (*close_driver)(void);
static CUfileError_t (*set_p2p_flags)(int, unsigned); // younger than the header of 13.0
static CUfileError_t (*get_p2p_flags)(int, unsigned *);
static long (*live)(const char *);
static long (*leaked)(void);
static int version; // of cuFile

#define TEXT(name) #name
#define NAME(name) TEXT(name)
#define NEEDED(f) CHECK((p_##f = (__typeof__(p_##f))dlsym(library, NAME(f))));
#define LATER(f) p_##f = (__typeof__(p_##f))dlsym(library, NAME(f));

static inline void load(const char *cuda, const char *storage)
{
	void *library = dlopen(cuda, RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
	if (!library)
		fprintf(stderr, "%s\n", dlerror());
	CHECK(library);
	CUDA_FUNCTIONS(NEEDED)
	live = (long (*)(const char *))dlsym(library, "stoker_stub_live");
	leaked = (long (*)(void))dlsym(library, "stoker_stub_leaked");
	CHECK(live && leaked);
	library = dlopen(storage, RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
	if (!library)
		fprintf(stderr, "%s\n", dlerror());
	CHECK(library);
	STORAGE_FUNCTIONS(NEEDED)
	LATER_FUNCTIONS(LATER)
	set_p2p_flags = (CUfileError_t (*)(int, unsigned))dlsym(library, "cuFileDriverSetP2PFlags");
	get_p2p_flags = (CUfileError_t (*)(int, unsigned *))dlsym(library, "cuFileDriverGetP2PFlags");
	close_driver = (CUfileError_t (*)(void))dlsym(library, "cuFileDriverClose");
	int (*marker)(void) = (int (*)(void))dlsym(library, "stoker_stub");
	CHECK(close_driver && marker);
	version = marker();
}

enum { GRANULE = 2 << 20, PAGE = 4096 };

struct slab {
	CUmemGenericAllocationHandle handle;
	CUdeviceptr base;
	size_t bytes;
};

static inline CUmemAllocationProp properties(int device)
{
	CUmemAllocationProp p = {.type = CU_MEM_ALLOCATION_TYPE_PINNED, .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR};
	p.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
	p.location.id = device;
	p.allocFlags.gpuDirectRDMACapable = 1;
	return p;
}

static inline CUmemAccessDesc access_of(int device, int flags)
{
	CUmemAccessDesc d = {.flags = (CUmemAccess_flags)flags};
	d.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
	d.location.id = device;
	return d;
}

static inline void map_slab(struct slab *s, int device, int flags)
{
	CUmemAccessDesc d = access_of(device, flags);
	IS(p_cuMemAddressReserve(&s->base, s->bytes, 0, 0, 0), 0);
	IS(p_cuMemMap(s->base, s->bytes, 0, s->handle, 0), 0);
	IS(p_cuMemSetAccess(s->base, s->bytes, &d, 1), 0);
}

static inline struct slab make_slab(int device, size_t bytes)
{
	struct slab s = {.bytes = bytes};
	CUmemAllocationProp p = properties(device);
	IS(p_cuMemCreate(&s.handle, bytes, &p, 0), 0);
	map_slab(&s, device, 3);
	return s;
}

static inline void free_slab(struct slab *s)
{
	IS(p_cuMemUnmap(s->base, s->bytes), 0);
	IS(p_cuMemAddressFree(s->base, s->bytes), 0);
	if (s->handle)
		IS(p_cuMemRelease(s->handle), 0);
}

static inline CUcontext enter(int device)
{
	CUcontext c;
	IS(p_cuDevicePrimaryCtxRetain(&c, device), 0);
	IS(p_cuCtxSetCurrent(c), 0);
	return c;
}

// pattern is what byte i of the test's file is.
static inline unsigned char pattern(size_t i)
{
	return (unsigned char)(i * 131 + (i >> 12) * 7 + 1);
}

static inline CUfileError_t register_file(CUfileHandle_t *handle, int fd)
{
	CUfileDescr_t d;
	memset(&d, 0, sizeof d);
	d.type = CU_FILE_HANDLE_TYPE_OPAQUE_FD;
	d.handle.fd = fd;
	return p_cuFileHandleRegister(handle, &d);
}
