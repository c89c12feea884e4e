// Prints what cuInit answers and, a line each, what devices there are: the UUID's last
// byte, name, PCI id, bytes, attributes 102, 103 and 110, and what legacy IPC answers.
//   devices CUDA STORAGE
#include "check.h"

static int attribute(CUdevice_attribute which, int device)
{
	int value;
	IS(p_cuDeviceGetAttribute(&value, which, device), 0);
	return value;
}

static int legacy(int device)
{
	CUipcMemHandle h;
	CUdeviceptr p;
	enter(device);
	IS(p_cuMemAlloc(&p, PAGE), 0);
	int code = p_cuIpcGetMemHandle(&h, p);
	IS(p_cuMemFree(p), 0);
	IS(p_cuDevicePrimaryCtxRelease(device), 0);
	return code;
}

int main(int count, char **arguments)
{
	int n;
	char name[64], pci[32];
	CUuuid uuid;
	size_t bytes;
	CHECK(count == 3);
	load(arguments[1], arguments[2]);
	int code = p_cuInit(0);
	printf("%d\n", code);
	if (code)
		return 0;
	IS(p_cuDeviceGetCount(&n), 0);
	for (int i = 0; i < n; i++) {
		IS(p_cuDeviceGetUuid(&uuid, i), 0);
		IS(p_cuDeviceGetName(name, sizeof name, i), 0);
		IS(p_cuDeviceGetPCIBusId(pci, sizeof pci, i), 0);
		IS(p_cuDeviceTotalMem(&bytes, i), 0);
		printf("%d %s %s %zu %d%d%d %d\n", uuid.bytes[15], name, pci, bytes,
			attribute(CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, i),
			attribute(CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, i),
			attribute(CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED, i), legacy(i));
	}
	return 0;
}
