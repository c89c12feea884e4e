// Does what NVIDIA's libraries answer with corruption or a hang; the stand-ins abort.
//   misuse CUDA STORAGE FILE CASE
#include "check.h"

static struct slab slab;
static CUfileHandle_t handle;
static int descriptor;

static void unmap_registered(void) { p_cuMemUnmap(slab.base, slab.bytes); }

static void unmap_pending(void)
{
	p_cuFileBufDeregister((void *)slab.base);
	p_cuMemsetD8(slab.base, 0, slab.bytes);
	p_cuMemUnmap(slab.base, slab.bytes);
}

static void read_pending(void)
{
	p_cuMemsetD8(slab.base, 0, PAGE);
	p_cuFileRead(handle, (void *)slab.base, PAGE, 0, 0);
}

// Another part of the same slab is no concern of the read: this one ends well.
static void read_beside_pending(void)
{
	p_cuMemsetD8(slab.base, 0, PAGE);
	IS(p_cuFileRead(handle, (void *)slab.base, PAGE, 0, PAGE), PAGE);
}

static void close_early(void)
{
	close(descriptor);
	p_cuFileHandleDeregister(handle);
}

static void read_after_close(void)
{
	close(descriptor);
	p_cuFileRead(handle, (void *)slab.base, PAGE, 0, 0);
}

static void read_after_deregister(void)
{
	p_cuFileHandleDeregister(handle);
	p_cuFileRead(handle, (void *)slab.base, PAGE, 0, 0);
}

static void deregister_twice(void)
{
	p_cuFileHandleDeregister(handle);
	p_cuFileHandleDeregister(handle);
}

static void fork_and_read(void)
{
	int status;
	pid_t child = fork();
	if (child == 0) {
		p_cuFileRead(handle, (void *)slab.base, PAGE, 0, 0);
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child);
	if (WIFSIGNALED(status))
		abort();
}

static void free_host_pending(void)
{
	void *host;
	CUstream s;
	IS(p_cuMemHostAlloc(&host, PAGE, 0), 0);
	IS(p_cuStreamCreate(&s, CU_STREAM_NON_BLOCKING), 0);
	IS(p_cuMemcpyHtoDAsync(slab.base, host, PAGE, s), 0);
	p_cuMemFreeHost(host);
}

static int started[2];

static void *slow_read(void *context)
{
	IS(p_cuCtxSetCurrent(context), 0);
	CHECK(write(started[1], "x", 1) == 1);
	p_cuFileRead(handle, (void *)slab.base, PAGE, 0, 0);
	return NULL;
}

// The read is slow by a fault that the test sets. Deregistering waits for nothing, so
// it is tried until the read is in flight: the driver says when (DRIVER_CLOSING).
static void in_flight(void (*then)(void))
{
	pthread_t thread;
	CUcontext c;
	char byte;
	IS(p_cuCtxGetCurrent(&c), 0);
	CHECK(!pipe(started));
	CHECK(!pthread_create(&thread, NULL, slow_read, c));
	CHECK(read(started[0], &byte, 1) == 1);
	while (close_driver().err != CU_FILE_DRIVER_CLOSING)
		sched_yield();
	then();
	pthread_join(thread, NULL);
}

static void deregister_file(void) { p_cuFileHandleDeregister(handle); }
static void deregister_buffer(void) { p_cuFileBufDeregister((void *)slab.base); }
static void deregister_file_in_flight(void) { in_flight(deregister_file); }
static void deregister_buffer_in_flight(void) { in_flight(deregister_buffer); }

static const struct { const char *name; void (*run)(void); } cases[] = {
	{"unmap-registered", unmap_registered}, {"unmap-pending", unmap_pending}, {"read-pending", read_pending},
	{"read-beside-pending", read_beside_pending}, {"close-early", close_early}, {"read-after-close", read_after_close},
	{"read-after-deregister", read_after_deregister}, {"deregister-twice", deregister_twice}, {"fork-and-read", fork_and_read},
	{"free-host-pending", free_host_pending}, {"deregister-file-in-flight", deregister_file_in_flight},
	{"deregister-buffer-in-flight", deregister_buffer_in_flight},
};

int main(int count, char **arguments)
{
	CHECK(count == 5);
	load(arguments[1], arguments[2]);
	IS(p_cuInit(0), 0);
	enter(0);
	slab = make_slab(0, GRANULE);
	IS(p_cuFileSetParameterBool(CUFILE_PARAM_PROPERTIES_ALLOW_COMPAT_MODE, false).err, 0);
	IS(p_cuFileDriverOpen().err, 0);
	descriptor = open(arguments[3], O_RDONLY | O_CLOEXEC);
	IS(register_file(&handle, descriptor).err, 0);
	IS(p_cuFileBufRegister((void *)slab.base, slab.bytes, 0).err, 0);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		if (!strcmp(cases[i].name, arguments[4])) {
			cases[i].run();
			puts("survived");
			return 0;
		}
	CHECK(!"a case of this name");
}
