// The driver of the stand-in for libcufile.so.0: finding libcuda, opening, closing, routes.
#define _GNU_SOURCE
#include "storage.h"

#include <dlfcn.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pthread_mutex_t storage_lock = PTHREAD_MUTEX_INITIALIZER;
struct stub_cuda cuda;
int storage_open;
struct settings settings;

static int cuda_found;
static int (*cuda_init)(unsigned);

CUfileError_t answer(int code)
{
	return (CUfileError_t){code, 0};
}

void storage_misuse(const char *format, ...)
{
	va_list list;
	va_start(list, format);
	fputs("STUB: misuse: ", stderr);
	vfprintf(stderr, format, list);
	fputc('\n', stderr);
	va_end(list);
	abort();
}

// sibling opens the libcuda.so.1 that lies beside this library.
static void *sibling(int flags)
{
	Dl_info self;
	char path[4096], copy[4000];
	if (!dladdr((void *)(uintptr_t)sibling, &self))
		return NULL;
	snprintf(copy, sizeof copy, "%s", self.dli_fname);
	snprintf(path, sizeof path, "%s/libcuda.so.1", dirname(copy));
	return dlopen(path, flags);
}

// storage_load_cuda finds the stub of libcuda that the process uses. NVIDIA's library
// looks for libcuda.so.1 by itself too, and loads without one.
int storage_load_cuda(void)
{
	pthread_mutex_lock(&storage_lock);
	if (!cuda_found) {
		void *library = sibling(RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
		if (!library)
			library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
		if (!library)
			library = sibling(RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
		void (*link)(struct stub_cuda *) = NULL;
		if (library) {
			link = (void (*)(struct stub_cuda *))(uintptr_t)dlsym(library, "stoker_stub_cuda");
			cuda_init = (int (*)(unsigned))(uintptr_t)dlsym(library, "cuInit");
		}
		if (link && cuda_init) {
			link(&cuda);
			cuda_found = 1;
		}
	}
	int found = cuda_found;
	pthread_mutex_unlock(&storage_lock);
	return found;
}

// storage_check_fork stops a forked child: what cuFile does there is undefined
// (GPUDirect Storage best practices guide).
void storage_check_fork(const char *operation)
{
	if (cuda_found && cuda.forked())
		storage_misuse("%s in a process forked after cuFileDriverOpen", operation);
}

int storage_faulty(const char *operation, CUfileError_t *out)
{
	struct stub_fault fault;
	if (!cuda_found || !cuda.fault(operation, &fault))
		return 0;
	*out = (CUfileError_t){fault.number ? INTERNAL_ERROR : fault.code, fault.cuda};
	return 1;
}

// machine_route is what STOKER_STUB_ROUTE says that this machine can do.
static enum stub_route machine_route(void)
{
	const char *wanted = getenv("STOKER_STUB_ROUTE");
	const char *route = wanted ? wanted : "p2p";
	if (!strcmp(route, "nvfs"))
		return ROUTE_NVFS;
	if (!strcmp(route, "p2p"))
		return STUB_VERSION >= 1130 && settings.p2pdma ? ROUTE_P2P : ROUTE_POSIX;
	if (strcmp(route, "none"))
		storage_misuse("STOKER_STUB_ROUTE=%s: not p2p, nvfs or none", route);
	return ROUTE_POSIX;
}

static enum stub_route opened_route; // decided when the driver opens

int storage_direct(void)
{
	return opened_route != ROUTE_POSIX;
}

// storage_route is the route of the next read: silent compat mode can begin at any time.
enum stub_route storage_route(void)
{
	return cuda.compat() ? ROUTE_POSIX : opened_route;
}

static void announce(void)
{
	static int done;
	if (!done && !cuda.quiet())
		fputs("STUB: libcufile.so.0 is a stand-in for tests: no direct storage, and no speed that it shows means anything\n", stderr);
	done = 1;
}

static CUfileError_t open_locked(void)
{
	if (storage_open)
		return answer(DRIVER_ALREADY_OPEN);
	int code = storage_take_settings(&settings);
	if (code)
		return answer(code);
	if (settings.allow_compat < 0) {
		fputs("STUB: allow_compat_mode is set nowhere: NVIDIA documents both defaults; this one is true\n", stderr);
		settings.allow_compat = 1;
	}
	opened_route = settings.force_compat ? ROUTE_POSIX : machine_route();
	if (opened_route == ROUTE_POSIX && !settings.allow_compat)
		return answer(DRIVER_NOT_INITIALIZED);
	announce();
	cuda.count(DRIVERS, 1);
	__atomic_store_n(&storage_open, 1, __ATOMIC_RELEASE);
	return answer(SUCCESS);
}

EXPORT CUfileError_t cuFileDriverOpen(void)
{
	CUfileError_t result;
	if (!storage_load_cuda())
		return answer(NVFS_SETUP_ERROR); // as NVIDIA's 1.15 does without libcuda
	storage_check_fork("cuFileDriverOpen");
	int code = cuda_init(0);
	if (code)
		return (CUfileError_t){CUDA_DRIVER_ERROR, code};
	if (storage_faulty("cuFileDriverOpen", &result))
		return result;
	pthread_mutex_lock(&storage_lock);
	result = open_locked();
	pthread_mutex_unlock(&storage_lock);
	return result;
}

static int in_flight(void)
{
	for (struct file *f = files; f; f = f->next)
		if (f->busy)
			return 1;
	return 0;
}

static CUfileError_t close_driver(void)
{
	BEGIN("cuFileDriverClose");
	CUfileError_t result = answer(SUCCESS);
	pthread_mutex_lock(&storage_lock);
	if (in_flight()) {
		result = answer(DRIVER_CLOSING);
	} else if (files || buffers) {
		fputs("STUB: cuFileDriverClose with files or buffers still registered\n", stderr);
		result = answer(INTERNAL_ERROR);
	} else {
		storage_stop_statistics();
		__atomic_store_n(&storage_open, 0, __ATOMIC_RELEASE);
		cuda.count(DRIVERS, -1);
	}
	pthread_mutex_unlock(&storage_lock);
	return result;
}

EXPORT CUfileError_t cuFileDriverClose(void)
{
	return close_driver();
}

#if STUB_VERSION >= 1040
EXPORT CUfileError_t cuFileDriverClose_v2(void)
{
	return close_driver();
}

EXPORT long cuFileUseCount(void)
{
	return __atomic_load_n(&storage_open, __ATOMIC_ACQUIRE);
}
#endif

#if STUB_VERSION >= 1080
EXPORT CUfileError_t cuFileGetVersion(int *version)
{
	CUfileError_t fault;
	if (storage_faulty("cuFileGetVersion", &fault))
		return fault;
	if (!version)
		return answer(INVALID_VALUE);
	*version = STUB_VERSION;
	return answer(SUCCESS);
}
#endif

EXPORT CUfileError_t cuFileDriverGetProperties(CUfileDrvProps_t *out)
{
	BEGIN("cuFileDriverGetProperties");
	const unsigned nvme = 1u << 4, nvme_p2p = 1u << 11, allow_compat = 1u << 1, batch = 1u << 1, streams = 1u << 2, parallel = 1u << 3, p2p = 1u << 4;
	if (!out)
		return answer(INVALID_VALUE);
	memset(out, 0, sizeof *out);
	// nvidia-fs's version is 0 where P2PDMA does its work: who tests it for "direct" errs.
	out->nvfs.major = opened_route == ROUTE_NVFS ? 2 : 0;
	out->nvfs.minor = opened_route == ROUTE_NVFS ? 26 : 0;
	out->nvfs.poll_threshold_kb = settings.poll_kb;
	out->nvfs.max_direct_io_kb = settings.max_direct_io_kb;
	out->nvfs.status_flags = opened_route == ROUTE_NVFS ? nvme : opened_route == ROUTE_P2P ? nvme_p2p : 0;
	out->nvfs.control_flags = settings.allow_compat ? allow_compat : 0;
	out->features = (STUB_VERSION >= 1020 ? batch : 0) | (STUB_VERSION >= 1070 ? streams | parallel : 0) | (opened_route == ROUTE_P2P ? p2p : 0);
	out->max_device_cache_kb = (unsigned)settings.max_device_cache_kb;
	out->per_buffer_cache_kb = (unsigned)settings.per_buffer_cache_kb;
	out->max_pinned_kb = (unsigned)settings.max_pinned_kb;
	out->max_batch = (unsigned)settings.batch;
	out->batch_timeout_ms = (unsigned)settings.batch_timeout_ms;
	return answer(SUCCESS);
}

static CUfileError_t set_limit(uint64_t *setting, size_t kb)
{
	if (kb == 0 || kb % 4)
		return answer(DRIVER_UNSUPPORTED_LIMIT);
	pthread_mutex_lock(&storage_lock);
	*setting = kb;
	pthread_mutex_unlock(&storage_lock);
	return answer(SUCCESS);
}

EXPORT CUfileError_t cuFileDriverSetPollMode(bool poll, size_t kb)
{
	BEGIN("cuFileDriverSetPollMode");
	return poll ? set_limit(&settings.poll_kb, kb) : answer(SUCCESS);
}

EXPORT CUfileError_t cuFileDriverSetMaxDirectIOSize(size_t kb)
{
	BEGIN("cuFileDriverSetMaxDirectIOSize");
	return set_limit(&settings.max_direct_io_kb, kb);
}

EXPORT CUfileError_t cuFileDriverSetMaxCacheSize(size_t kb)
{
	BEGIN("cuFileDriverSetMaxCacheSize");
	return set_limit(&settings.max_device_cache_kb, kb);
}

EXPORT CUfileError_t cuFileDriverSetMaxPinnedMemSize(size_t kb)
{
	BEGIN("cuFileDriverSetMaxPinnedMemSize");
	return set_limit(&settings.max_pinned_kb, kb);
}

#if STUB_VERSION >= 1160
// By target (CUfileDriverStatusFlags_t, 14 of them). x86-64 takes only PCI P2PDMA; the
// number of CU_FILE_P2P_FLAG_NOT_SUPPORTED is not published, so INVALID_VALUE stands for it.
static unsigned p2p_flags[14];

EXPORT CUfileError_t cuFileDriverSetP2PFlags(int target, unsigned flags)
{
	BEGIN("cuFileDriverSetP2PFlags");
	if (target < 0 || target >= 14 || flags > 1)
		return answer(INVALID_VALUE);
	p2p_flags[target] = flags;
	return answer(SUCCESS);
}

EXPORT CUfileError_t cuFileDriverGetP2PFlags(int target, unsigned *flags)
{
	BEGIN("cuFileDriverGetP2PFlags");
	const int nvme = 4;
	const unsigned p2pdma = 1, nvfs = 2;
	if (target < 0 || target >= 14 || !flags)
		return answer(INVALID_VALUE);
	*flags = p2p_flags[target];
	if (target == nvme)
		*flags |= opened_route == ROUTE_P2P ? p2pdma : opened_route == ROUTE_NVFS ? nvfs : 0;
	return answer(SUCCESS);
}
#endif

EXPORT int stoker_stub(void)
{
	return STUB_VERSION;
}

EXPORT long stoker_stub_live(const char *kind)
{
	return storage_load_cuda() ? cuda.live(kind) : 0;
}
