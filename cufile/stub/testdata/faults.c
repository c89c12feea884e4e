// Makes the same calls many times, and prints what came back.
//   faults CUDA STORAGE FILE N: N reads of two pages, a line each: result, errno if it
//   is -1, and the first byte that differs from the file or -1. Then N cuMemCreate.
#include "check.h"

static long first_difference(const unsigned char *got, ssize_t n)
{
	for (ssize_t i = 0; i < n; i++)
		if (got[i] != pattern((size_t)i))
			return (long)i;
	return -1;
}

int main(int count, char **arguments)
{
	CHECK(count == 5);
	load(arguments[1], arguments[2]);
	CUfileHandle_t h;
	CUmemAllocationProp p = properties(0);
	CUmemGenericAllocationHandle a;
	int calls = atoi(arguments[4]);
	IS(p_cuInit(0), 0);
	enter(0);
	struct slab s = make_slab(0, GRANULE);
	if (!getenv("CUFILE_ENV_PATH_JSON"))
		setenv("CUFILE_ALLOW_COMPAT_MODE", "false", 1);
	IS(p_cuFileDriverOpen().err, 0);
	int fd = open(arguments[3], O_RDONLY | O_CLOEXEC);
	IS(register_file(&h, fd).err, 0);
	IS(p_cuFileBufRegister((void *)s.base, s.bytes, 0).err, 0);
	for (int i = 0; i < calls; i++) {
		ssize_t got = p_cuFileRead(h, (void *)s.base, 2 * PAGE, 0, 0);
		printf("%zd %d %ld\n", got, got == -1 ? errno : 0, first_difference((unsigned char *)s.base, got));
	}
	for (int i = 0; i < calls; i++) {
		int code = p_cuMemCreate(&a, GRANULE, &p, 0);
		printf("%d\n", code);
		if (code == 0)
			IS(p_cuMemRelease(a), 0);
	}
	return 0;
}
