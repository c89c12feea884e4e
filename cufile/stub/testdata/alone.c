// What libcufile.so.0 does on a machine without libcuda.so.1.
//   alone STORAGE
#include "check.h"

int main(int count, char **arguments)
{
	CHECK(count == 2);
	void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
	CHECK(library);
	CUfileError_t (*open_driver)(void) = (CUfileError_t (*)(void))dlsym(library, "cuFileDriverOpen");
	CUfileError_t (*get_version)(int *) = (CUfileError_t (*)(int *))dlsym(library, "cuFileGetVersion");
	ssize_t (*read_file)(CUfileHandle_t, void *, size_t, off_t, off_t) = (ssize_t (*)(CUfileHandle_t, void *, size_t, off_t, off_t))dlsym(library, "cuFileRead");
	CHECK(open_driver && get_version && read_file);
	IS(open_driver().err, CU_FILE_NVFS_SETUP_ERROR);
	IS(get_version(&version).err, 0);
	IS(version, 1150);
	IS(read_file(NULL, NULL, 0, 0, 0), -CU_FILE_DRIVER_NOT_INITIALIZED);
	puts("fine");
	return 0;
}
