// Streams and events. What is asynchronous is done when somebody synchronises
// and not before, so that a program which forgets to is seen at once.
#define _GNU_SOURCE
#include "driver.h"

#include <stdlib.h>
#include <string.h>

struct event {
	struct context *context;
	unsigned flags;
	struct stream *stream;       // of the last record
	uint64_t recorded, finished; // tickets
	int asked;
	struct event *next;
};

static struct stream *streams;
static struct event *events;

static struct stream *find_stream(struct context *c, CUstream wanted)
{
	const uint64_t legacy = 1, per_thread = 2;
	if (!wanted || (uint64_t)wanted == legacy || (uint64_t)wanted == per_thread)
		return &c->null_stream;
	for (struct stream *s = streams; s; s = s->next)
		if (s == wanted && s->context == c)
			return s;
	return NULL;
}

static struct event *find_event(CUevent wanted)
{
	for (struct event *e = events; e; e = e->next)
		if (e == wanted)
			return e;
	return NULL;
}

static int overlap(uint64_t a, uint64_t n, uint64_t b, uint64_t m)
{
	return n && m && a < b + m && b < a + n;
}

static int pending_in(const struct stream *s, uint64_t address, uint64_t bytes)
{
	for (const struct op *o = s->first; o; o = o->next)
		if (o->kind <= OP_SET && (overlap(o->to, o->bytes, address, bytes) || overlap(o->from, o->kind == OP_COPY ? o->bytes : 0, address, bytes)))
			return 1;
	return 0;
}

// stub_pending: does work that waits in any stream touch these bytes?
int stub_pending(uint64_t address, uint64_t bytes)
{
	for (int i = 0; i < STUB_DEVICES; i++)
		if (pending_in(&stub_configured(i)->context.null_stream, address, bytes))
			return 1;
	for (const struct stream *s = streams; s; s = s->next)
		if (pending_in(s, address, bytes))
			return 1;
	return 0;
}

static void corrupt(uint64_t to, uint64_t bytes, int64_t offset)
{
	if (offset >= 0 && (uint64_t)offset < bytes)
		((unsigned char *)to)[offset] ^= 0x10;
}

static void do_op(struct op *o)
{
	switch (o->kind) {
	case OP_COPY:
		memmove((void *)o->to, (void *)o->from, o->bytes);
		if (o->corrupt)
			corrupt(o->to, o->bytes, o->offset);
		break;
	case OP_SET: memset((void *)o->to, o->value, o->bytes); break;
	case OP_RECORD: o->event->finished = o->ticket; break;
	case OP_WAIT:
		if (o->event->finished < o->ticket)
			stub_run(o->event->stream, o->event, o->ticket);
		break;
	}
}

// run_first does the op at the head of s; 1: it was the record that is looked for.
static int run_first(struct stream *s, const struct event *until, uint64_t ticket)
{
	struct op *o = s->first;
	int last = until && o->kind == OP_RECORD && o->event == until && o->ticket == ticket;
	s->first = o->next;
	if (!s->first)
		s->last = NULL;
	do_op(o);
	free(o->staging);
	free(o);
	return last;
}

// run_default does, in the order of the calls, what waits in the default stream and in
// those that wait for it and it for them: all made without CU_STREAM_NON_BLOCKING
// (CUDA driver API, "Stream synchronization behavior").
static void run_default(struct context *c)
{
	for (;;) {
		struct stream *next = c->null_stream.first ? &c->null_stream : NULL;
		for (struct stream *s = streams; s; s = s->next)
			if (s->context == c && !(s->flags & 1) && s->first && (!next || s->first->order < next->first->order))
				next = s;
		if (!next)
			return;
		run_first(next, NULL, 0);
	}
}

// stub_run does what waits in s, up to the record of an event, or all of it (NULL).
void stub_run(struct stream *s, const struct event *until, uint64_t ticket)
{
	struct stream *null_stream = &s->context->null_stream;
	if (s == null_stream || (!(s->flags & 1) && null_stream->first))
		run_default(s->context);
	while (s->first && !run_first(s, until, ticket))
		;
}

// stub_run_all does all that waits in a context.
void stub_run_all(struct context *c)
{
	run_default(c);
	for (struct stream *s = streams; s; s = s->next)
		if (s->context == c)
			stub_run(s, NULL, 0);
}

static void remove_stream(struct stream *gone)
{
	for (struct stream **s = &streams; *s; s = &(*s)->next)
		if (*s == gone) {
			*s = gone->next;
			break;
		}
	free(gone);
	stub_count(STREAMS, -1);
}

static void remove_event(struct event *gone)
{
	for (struct event **e = &events; *e; e = &(*e)->next)
		if (*e == gone) {
			*e = gone->next;
			break;
		}
	free(gone);
	stub_count(EVENTS, -1);
}

void stub_free_streams(struct context *c)
{
	for (struct stream *s = streams, *next; s; s = next) {
		next = s->next;
		if (s->context == c) {
			remove_stream(s);
			stub_leak();
		}
	}
	for (struct event *e = events, *next; e; e = next) {
		next = e->next;
		if (e->context == c) {
			remove_event(e);
			stub_leak();
		}
	}
}

void stub_push(struct stream *s, struct op wanted)
{
	static uint64_t order;
	struct op *o = malloc(sizeof *o);
	if (!o)
		stub_misuse("no memory for an op");
	*o = wanted;
	o->order = ++order;
	o->next = NULL;
	if (s->last)
		s->last->next = o;
	else
		s->first = o;
	s->last = o;
	s->asked = 0;
}

EXPORT CUresult cuStreamCreate(CUstream *out, unsigned flags)
{
	ENTER("cuStreamCreate");
	struct context *c;
	CUresult rc = stub_current(&c);
	if (rc)
		return rc;
	if (!out || flags > 1)
		return INVALID_VALUE;
	struct stream *s = calloc(1, sizeof *s);
	if (!s)
		return OUT_OF_MEMORY;
	s->context = c;
	s->flags = flags;
	pthread_mutex_lock(&stub_lock);
	s->next = streams;
	streams = s;
	stub_count(STREAMS, 1);
	pthread_mutex_unlock(&stub_lock);
	*out = s;
	return OK;
}

// stub_in_stream finds a stream of the current context; on OK the caller holds stub_lock.
CUresult stub_in_stream(CUstream wanted, struct context **c, struct stream **s)
{
	CUresult rc = stub_current(c);
	if (rc)
		return rc;
	pthread_mutex_lock(&stub_lock);
	*s = find_stream(*c, wanted);
	if (*s)
		return OK;
	pthread_mutex_unlock(&stub_lock);
	return INVALID_HANDLE;
}

EXPORT CUresult cuStreamDestroy_v2(CUstream stream)
{
	ENTER("cuStreamDestroy_v2");
	struct context *c;
	struct stream *s;
	if (!stream)
		return INVALID_VALUE;
	CUresult rc = stub_in_stream(stream, &c, &s);
	if (rc)
		return rc;
	stub_run(s, NULL, 0); // CUDA finishes the work of a destroyed stream
	if (s != &c->null_stream)
		remove_stream(s);
	pthread_mutex_unlock(&stub_lock);
	return OK;
}

// A synchronise that fails by a fault has done the work all the same: it reports an
// error of earlier work, and nothing is pending after it.
EXPORT CUresult cuStreamSynchronize(CUstream stream)
{
	struct stub_fault fault;
	struct context *c;
	struct stream *s;
	if (stub_forked() || !stub_ready())
		return NOT_INITIALIZED;
	int faulty = stub_fault("cuStreamSynchronize", &fault);
	CUresult rc = stub_in_stream(stream, &c, &s);
	if (rc)
		return rc;
	stub_run(s, NULL, 0);
	pthread_mutex_unlock(&stub_lock);
	return !faulty ? OK : fault.number ? OPERATING_SYSTEM : fault.code;
}

EXPORT CUresult cuStreamQuery(CUstream stream)
{
	ENTER("cuStreamQuery");
	struct context *c;
	struct stream *s;
	CUresult rc = stub_in_stream(stream, &c, &s);
	if (rc)
		return rc;
	if (s->first && !s->asked) {
		s->asked = 1;
		rc = NOT_READY;
	} else {
		stub_run(s, NULL, 0);
	}
	pthread_mutex_unlock(&stub_lock);
	return rc;
}

EXPORT CUresult cuEventCreate(CUevent *out, unsigned flags)
{
	ENTER("cuEventCreate");
	struct context *c;
	const unsigned disable_timing = 2, interprocess = 4;
	CUresult rc = stub_current(&c);
	if (rc)
		return rc;
	if (!out || flags > 7 || (flags & interprocess && !(flags & disable_timing)))
		return INVALID_VALUE;
	struct event *e = calloc(1, sizeof *e);
	if (!e)
		return OUT_OF_MEMORY;
	e->context = c;
	e->flags = flags;
	pthread_mutex_lock(&stub_lock);
	e->next = events;
	events = e;
	stub_count(EVENTS, 1);
	pthread_mutex_unlock(&stub_lock);
	*out = e;
	return OK;
}

// finish_event does what an event waits for. Waits of other streams for it may be
// queued still, with an older ticket: they see a finished one.
static void finish_event(struct event *e)
{
	if (e->finished < e->recorded && e->stream)
		stub_run(e->stream, e, e->recorded);
}

EXPORT CUresult cuEventDestroy_v2(CUevent event)
{
	ENTER("cuEventDestroy_v2");
	pthread_mutex_lock(&stub_lock);
	struct event *e = find_event(event);
	if (e) {
		stub_run_all(e->context); // so that no op keeps a pointer to it
		remove_event(e);
	}
	CUresult rc = e ? OK : INVALID_HANDLE;
	pthread_mutex_unlock(&stub_lock);
	return rc;
}

EXPORT CUresult cuEventRecord(CUevent event, CUstream stream)
{
	ENTER("cuEventRecord");
	struct context *c;
	struct stream *s;
	CUresult rc = stub_in_stream(stream, &c, &s);
	if (rc)
		return rc;
	struct event *e = find_event(event);
	if (e && e->context == c) {
		finish_event(e);
		e->stream = s;
		e->asked = 0;
		stub_push(s, (struct op){.kind = OP_RECORD, .event = e, .ticket = ++e->recorded});
	} else {
		rc = INVALID_HANDLE;
	}
	pthread_mutex_unlock(&stub_lock);
	return rc;
}

EXPORT CUresult cuEventQuery(CUevent event)
{
	ENTER("cuEventQuery");
	CUresult rc = OK;
	pthread_mutex_lock(&stub_lock);
	struct event *e = find_event(event);
	if (!e) {
		rc = INVALID_HANDLE;
	} else if (e->finished < e->recorded && !e->asked) {
		e->asked = 1;
		rc = NOT_READY;
	} else {
		finish_event(e);
	}
	pthread_mutex_unlock(&stub_lock);
	return rc;
}

EXPORT CUresult cuEventSynchronize(CUevent event)
{
	ENTER("cuEventSynchronize");
	pthread_mutex_lock(&stub_lock);
	struct event *e = find_event(event);
	if (e)
		finish_event(e);
	pthread_mutex_unlock(&stub_lock);
	return e ? OK : INVALID_HANDLE;
}

EXPORT CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{
	ENTER("cuStreamWaitEvent");
	struct context *c;
	struct stream *s;
	if (flags > 1)
		return INVALID_VALUE;
	CUresult rc = stub_in_stream(stream, &c, &s);
	if (rc)
		return rc;
	struct event *e = find_event(event);
	if (e && e->finished < e->recorded)
		stub_push(s, (struct op){.kind = OP_WAIT, .event = e, .ticket = e->recorded});
	pthread_mutex_unlock(&stub_lock);
	return e ? OK : INVALID_HANDLE;
}
