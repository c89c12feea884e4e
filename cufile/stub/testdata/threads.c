// Several threads use both stand-ins at once: each makes a slab, registers it, reads
// the file into it through one common handle, and takes all down again.
//   threads CUDA STORAGE FILE
#include "check.h"

enum { THREADS = 4, ROUNDS = 40 };

static CUfileHandle_t handle;

static void one_round(int device)
{
	struct slab s = make_slab(device, GRANULE);
	unsigned char got[PAGE];
	CUstream stream;
	IS(p_cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), 0);
	IS(p_cuMemsetD8Async(s.base, 0, s.bytes, stream), 0);
	IS(p_cuStreamSynchronize(stream), 0);
	IS(p_cuFileBufRegister((void *)s.base, s.bytes, 0).err, 0);
	for (int i = 0; i < 4; i++)
		IS(p_cuFileRead(handle, (void *)s.base, PAGE, 0, i * PAGE), PAGE);
	IS(p_cuMemcpyDtoH(got, s.base + 3 * PAGE, PAGE), 0);
	CHECK(got[PAGE - 1] == pattern(PAGE - 1));
	IS(p_cuFileBufDeregister((void *)s.base).err, 0);
	IS(p_cuStreamDestroy(stream), 0);
	free_slab(&s);
}

static void *work(void *argument)
{
	int device = (int)(uintptr_t)argument % 2;
	for (int i = 0; i < ROUNDS; i++) {
		enter(device);
		one_round(device);
		IS(p_cuDevicePrimaryCtxRelease(device), 0);
		IS(p_cuCtxSetCurrent(NULL), 0);
	}
	return NULL;
}

int main(int count, char **arguments)
{
	pthread_t threads[THREADS];
	CHECK(count == 4);
	load(arguments[1], arguments[2]);
	IS(p_cuInit(0), 0);
	setenv("CUFILE_ALLOW_COMPAT_MODE", "false", 1);
	IS(p_cuFileDriverOpen().err, 0);
	int fd = open(arguments[3], O_RDONLY | O_CLOEXEC);
	IS(register_file(&handle, fd).err, 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK(!pthread_create(&threads[i], NULL, work, (void *)i));
	for (int i = 0; i < THREADS; i++)
		CHECK(!pthread_join(threads[i], NULL));
	p_cuFileHandleDeregister(handle);
	close(fd);
	IS(close_driver().err, 0);
	IS(live(""), 0);
	puts("fine");
	return 0;
}
