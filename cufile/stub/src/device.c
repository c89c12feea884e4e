// Devices and their attributes.
#define _GNU_SOURCE
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static struct device configured[STUB_DEVICES];
static int configured_count;
static int visible[STUB_DEVICES];
static int visible_count;
static int ready;

int stub_ready(void) { return __atomic_load_n(&ready, __ATOMIC_ACQUIRE); }
int stub_devices(void) { return visible_count; }
struct device *stub_configured(int index) { return &configured[index]; }
int stub_index(CUdevice ordinal) { return ordinal < 0 || ordinal >= visible_count ? -1 : visible[ordinal]; }

struct device *stub_device(CUdevice ordinal)
{
	int i = stub_index(ordinal);
	return i < 0 ? NULL : &configured[i];
}

int stub_ordinal(int index)
{
	for (int i = 0; i < visible_count; i++)
		if (visible[i] == index)
			return i;
	return -1;
}

// stub_by_uuid gives the place in the configuration of a device that is visible, or -1.
int stub_by_uuid(const unsigned char *uuid)
{
	for (int i = 0; i < visible_count; i++)
		if (!memcmp(configured[visible[i]].uuid, uuid, 16))
			return visible[i];
	return -1;
}

static void default_device(struct device *d, int index)
{
	memset(d, 0, sizeof *d);
	memcpy(d->uuid, "STUB", 4);
	d->uuid[15] = (unsigned char)(index + 1);
	snprintf(d->name, sizeof d->name, "STUB GPU");
	snprintf(d->pci, sizeof d->pci, "0000:1%x:00.0", index);
	d->bytes = (uint64_t)1 << 30;
	d->major = 9;
	d->vmm = d->descriptors = d->rdma = 1;
	d->context.device = index;
	d->context.null_stream.context = &d->context;
}

static int parse_uuid(const char *text, unsigned char *out)
{
	int digits = 0;
	for (; *text && digits < 32; text++) {
		if (*text == '-')
			continue;
		unsigned nibble;
		if (sscanf((char[]){*text, 0}, "%x", &nibble) != 1)
			return -1;
		out[digits / 2] = (unsigned char)(digits % 2 ? out[digits / 2] | nibble : nibble << 4);
		digits++;
	}
	return digits == 32 ? 0 : -1;
}

static int set_option(struct device *d, const char *key, const char *value)
{
	int number = atoi(value);
	if (!strncmp(key, "attr", 4) && d->overrides < 8) {
		d->override[d->overrides].attribute = atoi(key + 4);
		d->override[d->overrides++].value = number;
	} else if (!strcmp(key, "bytes")) {
		d->bytes = stub_parse_bytes(value, 0);
	} else if (!strcmp(key, "name")) {
		snprintf(d->name, sizeof d->name, "%s", value);
	} else if (!strcmp(key, "pci")) {
		snprintf(d->pci, sizeof d->pci, "%s", value);
	} else if (!strcmp(key, "uuid")) {
		return parse_uuid(value, d->uuid);
	} else if (!strcmp(key, "cc")) {
		return sscanf(value, "%d.%d", &d->major, &d->minor) == 2 ? 0 : -1;
	} else if (!strcmp(key, "mig")) {
		d->mig = number;
	} else if (!strcmp(key, "vmm")) {
		d->vmm = number;
	} else if (!strcmp(key, "fd")) {
		d->descriptors = number;
	} else if (!strcmp(key, "rdma")) {
		d->rdma = number;
	} else {
		return -1;
	}
	return 0;
}

static void configure(const char *devices)
{
	char copy[4096];
	snprintf(copy, sizeof copy, "%s", devices);
	configured_count = 0;
	if (!*copy)
		return;
	for (char *rest = copy, *one; (one = strsep(&rest, ";"));) {
		if (configured_count == STUB_DEVICES)
			stub_misuse("STOKER_STUB_DEVICES: more than %d devices", STUB_DEVICES);
		struct device *d = &configured[configured_count];
		default_device(d, configured_count++);
		for (char *fields = one, *field; (field = strsep(&fields, ","));) {
			char *value = strchr(field, '=');
			if (!*field)
				continue;
			if (!value)
				stub_misuse("STOKER_STUB_DEVICES: \"%s\" is not key=value", field);
			*value = 0;
			if (set_option(d, field, value + 1))
				stub_misuse("STOKER_STUB_DEVICES: %s=%s", field, value + 1);
		}
	}
}

static void format_uuid(const struct device *d, char *out, size_t n)
{
	const unsigned char *u = d->uuid;
	snprintf(out, n, "%s-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", d->mig ? "MIG" : "GPU",
		u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

// named finds what one entry of CUDA_VISIBLE_DEVICES means, or -1.
static int named(const char *entry)
{
	char *end, uuid[64];
	long n = strtol(entry, &end, 10);
	if (end != entry && *end == 0)
		return n >= 0 && n < configured_count ? (int)n : -1;
	for (int i = 0; i < configured_count; i++) {
		format_uuid(&configured[i], uuid, sizeof uuid);
		if (strlen(entry) > 4 && !strncasecmp(uuid, entry, strlen(entry)))
			return i;
	}
	return -1;
}

static void choose_visible(const char *wanted)
{
	visible_count = 0;
	if (!wanted) {
		for (int i = 0; i < configured_count; i++)
			visible[visible_count++] = i;
		return;
	}
	char copy[1024];
	snprintf(copy, sizeof copy, "%s", wanted);
	for (char *rest = copy, *entry; (entry = strsep(&rest, ",")) && visible_count < STUB_DEVICES;) {
		int i = named(entry);
		if (i < 0)
			return;
		if (stub_ordinal(i) >= 0) {
			visible_count = 0; // a device named twice: CUDA shows none
			return;
		}
		visible[visible_count++] = i;
	}
}

// read_machine reads what devices there are, if that has changed: another thread may be
// asking for them, with nothing of its own alive yet.
static void read_machine(void)
{
	static char last[8192];
	char now[sizeof last];
	const char *devices = getenv("STOKER_STUB_DEVICES"), *wanted = getenv("CUDA_VISIBLE_DEVICES");
	if (!devices)
		devices = ";"; // two of the default kind
	snprintf(now, sizeof now, "%s\n%s%s", devices, wanted ? "=" : "", wanted ? wanted : "");
	if (!strcmp(now, last))
		return;
	memcpy(last, now, sizeof last);
	configure(devices);
	choose_visible(wanted);
}

static void announce(void)
{
	static int done;
	if (!done && !stub_quiet())
		fputs("STUB: libcuda.so.1 is a stand-in for tests: no GPU, and no speed that it shows means anything\n", stderr);
	done = 1;
}

EXPORT CUresult cuInit(unsigned flags)
{
	struct stub_fault fault;
	if (stub_forked())
		return NOT_INITIALIZED;
	if (flags)
		return INVALID_VALUE;
	pthread_mutex_lock(&stub_lock);
	if (stub_nothing_alive()) {
		stub_attach();
		stub_read_faults();
		read_machine();
		announce();
	}
	pthread_mutex_unlock(&stub_lock);
	if (stub_fault("cuInit", &fault))
		return fault.number ? OPERATING_SYSTEM : fault.code;
	if (visible_count == 0)
		return NO_DEVICE;
	__atomic_store_n(&ready, 1, __ATOMIC_RELEASE);
	return OK;
}

EXPORT CUresult cuDriverGetVersion(int *version)
{
	if (!version)
		return INVALID_VALUE;
	*version = (int)stub_quantity("STOKER_STUB_CUDA_VERSION", 13000);
	return OK;
}

EXPORT CUresult cuDeviceGetCount(int *count)
{
	ENTER("cuDeviceGetCount");
	if (!count)
		return INVALID_VALUE;
	*count = visible_count;
	return OK;
}

EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
	ENTER("cuDeviceGet");
	if (!device)
		return INVALID_VALUE;
	if (!stub_device(ordinal))
		return INVALID_DEVICE;
	*device = ordinal;
	return OK;
}

EXPORT CUresult cuDeviceGetName(char *name, int bytes, CUdevice device)
{
	ENTER("cuDeviceGetName");
	struct device *d = stub_device(device);
	if (!d)
		return INVALID_DEVICE;
	if (!name || bytes <= 0)
		return INVALID_VALUE;
	snprintf(name, (size_t)bytes, "%s%s", d->name, d->mig ? " MIG 1g.10gb" : "");
	return OK;
}

// Under MIG the first form answers the whole GPU's UUID, the second the instance's
// (cuDeviceGetUuid_v2 in cuda.h). A stub has no whole GPU: its last byte differs.
EXPORT CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device)
{
	ENTER("cuDeviceGetUuid");
	struct device *d = stub_device(device);
	if (!d)
		return INVALID_DEVICE;
	if (!uuid)
		return INVALID_VALUE;
	memcpy(uuid->bytes, d->uuid, 16);
	if (d->mig)
		uuid->bytes[15] ^= 0x80;
	return OK;
}

EXPORT CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device)
{
	ENTER("cuDeviceGetUuid_v2");
	struct device *d = stub_device(device);
	if (!d)
		return INVALID_DEVICE;
	if (!uuid)
		return INVALID_VALUE;
	memcpy(uuid->bytes, d->uuid, 16);
	return OK;
}

EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
	ENTER("cuDeviceTotalMem_v2");
	struct device *d = stub_device(device);
	if (!d)
		return INVALID_DEVICE;
	if (!bytes)
		return INVALID_VALUE;
	*bytes = d->bytes;
	return OK;
}

EXPORT CUresult cuDeviceGetPCIBusId(char *id, int bytes, CUdevice device)
{
	ENTER("cuDeviceGetPCIBusId");
	struct device *d = stub_device(device);
	if (!d)
		return INVALID_DEVICE;
	if (!id || bytes <= (int)strlen(d->pci))
		return INVALID_VALUE;
	strcpy(id, d->pci);
	return OK;
}

static int attribute_of(const struct device *d, int attribute)
{
	unsigned domain = 0, bus = 0, slot = 0;
	sscanf(d->pci, "%x:%x:%x", &domain, &bus, &slot);
	switch (attribute) {
	case 16: return 132;                   // multiprocessors
	case 19: case 41: case 91: case 99: return 1; // host memory mapped, one address space, host registration
	case 33: return (int)bus;
	case 34: return (int)slot;
	case 50: return (int)domain;
	case 75: return d->major;
	case 76: return d->minor;
	case 102: return d->vmm;
	case 103: return d->vmm && d->descriptors;
	case 110: return d->vmm && d->rdma;
	case 113: return 1;                    // read-only host registration
	case 116: case 117: return d->rdma;
	case 118: return d->rdma ? 100 : 0;    // writes are ordered for the owner
	case 125: return !d->mig;              // legacy IPC
	default: return 0;
	}
}

int stub_attribute(const struct device *d, int attribute)
{
	for (int i = d->overrides; i > 0; i--)
		if (d->override[i - 1].attribute == attribute)
			return d->override[i - 1].value;
	return attribute_of(d, attribute);
}

EXPORT CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device)
{
	ENTER("cuDeviceGetAttribute");
	struct device *d = stub_device(device);
	if (!value || attribute <= 0 || attribute > 200)
		return INVALID_VALUE;
	if (!d)
		return INVALID_DEVICE;
	*value = stub_attribute(d, attribute);
	return OK;
}
