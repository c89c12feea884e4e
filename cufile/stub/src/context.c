// Primary contexts, and which one is current in a thread.
#define _GNU_SOURCE
#include "driver.h"

enum { CONTEXT_STACK = 16 };

// The current contexts of this thread, innermost last.
static __thread struct context *stack[CONTEXT_STACK];
static __thread int depth;

// Written under stub_lock, read by whoever uses a context.
static int retained(const struct context *c)
{
	return __atomic_load_n(&c->retains, __ATOMIC_ACQUIRE) > 0;
}

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
	ENTER("cuDevicePrimaryCtxRetain");
	struct device *d = stub_device(device);
	if (!d)
		return INVALID_DEVICE;
	if (!context)
		return INVALID_VALUE;
	pthread_mutex_lock(&stub_lock);
	__atomic_add_fetch(&d->context.retains, 1, __ATOMIC_RELEASE);
	stub_count(CONTEXTS, 1);
	pthread_mutex_unlock(&stub_lock);
	*context = &d->context;
	return OK;
}

// The last release destroys the context: what was allocated in it goes with it, counted
// by stoker_stub_leaked, since whoever leaves that to CUDA forgot it.
EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
	ENTER("cuDevicePrimaryCtxRelease_v2");
	struct device *d = stub_device(device);
	if (!d)
		return INVALID_DEVICE;
	pthread_mutex_lock(&stub_lock);
	CUresult rc = OK;
	if (!retained(&d->context)) {
		rc = INVALID_CONTEXT;
	} else {
		stub_count(CONTEXTS, -1);
		if (__atomic_sub_fetch(&d->context.retains, 1, __ATOMIC_ACQ_REL) == 0) {
			stub_run_all(&d->context);
			stub_free_of_context(&d->context);
			stub_free_streams(&d->context);
		}
	}
	pthread_mutex_unlock(&stub_lock);
	return rc;
}

EXPORT CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active)
{
	ENTER("cuDevicePrimaryCtxGetState");
	struct device *d = stub_device(device);
	if (!d)
		return INVALID_DEVICE;
	if (flags)
		*flags = 0;
	if (active)
		*active = retained(&d->context);
	return OK;
}

// stub_current is the context that this thread acts in.
CUresult stub_current(struct context **out)
{
	if (depth == 0 || !stack[depth - 1])
		return INVALID_CONTEXT;
	struct context *c = stack[depth - 1];
	if (!retained(c))
		return CONTEXT_IS_DESTROYED;
	*out = c;
	return OK;
}

static int is_context(const struct context *c)
{
	for (int i = 0; i < STUB_DEVICES; i++)
		if (c == &stub_configured(i)->context)
			return 1;
	return 0;
}

EXPORT CUresult cuCtxSetCurrent(CUcontext context)
{
	ENTER("cuCtxSetCurrent");
	if (context && !is_context(context))
		return INVALID_CONTEXT;
	if (context && !retained(context))
		return CONTEXT_IS_DESTROYED;
	if (!context) {
		depth -= depth > 0;
		return OK;
	}
	depth += depth == 0;
	stack[depth - 1] = context;
	return OK;
}

EXPORT CUresult cuCtxGetCurrent(CUcontext *context)
{
	ENTER("cuCtxGetCurrent");
	if (!context)
		return INVALID_VALUE;
	*context = depth ? stack[depth - 1] : NULL;
	return OK;
}

EXPORT CUresult cuCtxPushCurrent_v2(CUcontext context)
{
	ENTER("cuCtxPushCurrent_v2");
	if (!context || !is_context(context))
		return INVALID_CONTEXT;
	if (!retained(context))
		return CONTEXT_IS_DESTROYED;
	if (depth == CONTEXT_STACK)
		stub_misuse("%d contexts pushed and not popped", depth);
	stack[depth++] = context;
	return OK;
}

EXPORT CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
	ENTER("cuCtxPopCurrent_v2");
	if (depth == 0)
		return INVALID_CONTEXT;
	depth--;
	if (context)
		*context = stack[depth];
	return OK;
}

EXPORT CUresult cuCtxGetDevice(CUdevice *device)
{
	ENTER("cuCtxGetDevice");
	struct context *c;
	CUresult rc = stub_current(&c);
	if (rc)
		return rc;
	if (!device)
		return INVALID_VALUE;
	*device = stub_ordinal(c->device);
	return OK;
}

// A fault here means what it means for cuStreamSynchronize.
EXPORT CUresult cuCtxSynchronize(void)
{
	struct stub_fault fault;
	struct context *c;
	if (stub_forked() || !stub_ready())
		return NOT_INITIALIZED;
	int faulty = stub_fault("cuCtxSynchronize", &fault);
	CUresult rc = stub_current(&c);
	if (rc)
		return rc;
	pthread_mutex_lock(&stub_lock);
	stub_run_all(c);
	pthread_mutex_unlock(&stub_lock);
	return !faulty ? OK : fault.number ? OPERATING_SYSTEM : fault.code;
}
