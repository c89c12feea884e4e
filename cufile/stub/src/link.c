// What libcufile asks of libcuda here, in place of NVIDIA's own ways between the two.
#define _GNU_SOURCE
#include "driver.h"

#include <string.h>

static void read_done(enum stub_route route)
{
	__atomic_add_fetch(&stoker_stub_state()->reads[route], 1, __ATOMIC_RELAXED);
}

static int current_device(void)
{
	struct context *c;
	if (stub_current(&c))
		return -1;
	return stub_ordinal(c->device);
}

static void uuid_of(int ordinal, unsigned char *out)
{
	struct device *d = stub_device(ordinal);
	memcpy(out, d ? d->uuid : (const unsigned char[16]){0}, 16);
}

static int describe_range(uint64_t address, struct stub_range *out)
{
	struct context *c = NULL;
	stub_current(&c);
	pthread_mutex_lock(&stub_lock);
	struct range *r = stub_find(address);
	if (r)
		*out = (struct stub_range){
			r->base, r->bytes, r->memory, r->device < 0 ? -1 : stub_ordinal(r->device), r->rdma,
			r->memory != VMM_MEMORY || (c && r->access[c->device] == 3),
		};
	pthread_mutex_unlock(&stub_lock);
	return r != NULL;
}

static void pin(uint64_t address, int change)
{
	pthread_mutex_lock(&stub_lock);
	struct range *r = stub_find(address);
	if (r)
		r->pins += change;
	pthread_mutex_unlock(&stub_lock);
}

static void hold(uint64_t address, int change)
{
	pthread_mutex_lock(&stub_lock);
	struct range *r = stub_find(address);
	if (r)
		r->holds += change;
	pthread_mutex_unlock(&stub_lock);
}

static int pending(uint64_t address, uint64_t bytes)
{
	pthread_mutex_lock(&stub_lock);
	int found = stub_pending(address, bytes);
	pthread_mutex_unlock(&stub_lock);
	return found;
}

EXPORT void stoker_stub_cuda(struct stub_cuda *out)
{
	*out = (struct stub_cuda){
		stoker_stub_state, stub_fault, stub_compat, stub_forked, stub_count, current_device, stub_devices,
		uuid_of, describe_range, pin, hold, pending, stub_quantity, read_done, stub_quiet, stoker_stub_live,
	};
}
