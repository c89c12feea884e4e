// A stand-in for libnvidia-ml.so.1 as an old driver has it: one GPU, and no functions for
// BAR1, MIG, links and GPM. Declared by nvml.h of CUDA's toolkit, in our own words.
#include <stdio.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2 };

static int device;

int nvmlInit_v2(void) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return code == SUCCESS ? "success" : "error of the stand-in"; }

static int say(char *out, unsigned bytes, const char *text)
{
	snprintf(out, bytes, "%s", text);
	return SUCCESS;
}

int nvmlSystemGetDriverVersion(char *out, unsigned bytes) { return say(out, bytes, "470.1"); }
int nvmlSystemGetNVMLVersion(char *out, unsigned bytes) { return say(out, bytes, "11.470.1"); }
int nvmlSystemGetCudaDriverVersion(int *version) { *version = 11040; return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle)
{
	*handle = &device;
	return index == 0 ? SUCCESS : INVALID_ARGUMENT;
}

static int known(void *handle) { return handle == &device ? SUCCESS : INVALID_ARGUMENT; }

int nvmlDeviceGetUUID(void *handle, char *out, unsigned bytes) { return known(handle) || say(out, bytes, "GPU-stand-in"); }
int nvmlDeviceGetName(void *handle, char *out, unsigned bytes) { return known(handle) || say(out, bytes, "stand-in"); }

int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor)
{
	*major = 8, *minor = 6;
	return known(handle);
}

struct pci {
	char old_id[16];
	unsigned domain, bus, device, id, subsystem;
	char bus_id[32];
};

int nvmlDeviceGetPciInfo_v3(void *handle, struct pci *pci)
{
	memset(pci, 0, sizeof *pci);
	pci->domain = 1, pci->bus = 0x17, pci->device = 2;
	return known(handle);
}

int nvmlDeviceGetPciInfo(void *handle, struct pci *pci) { return nvmlDeviceGetPciInfo_v3(handle, pci); }

struct memory {
	unsigned long long total, free, used;
};

int nvmlDeviceGetMemoryInfo(void *handle, struct memory *memory)
{
	memory->total = 8ull << 30, memory->free = 7ull << 30, memory->used = 1ull << 30;
	return known(handle);
}
