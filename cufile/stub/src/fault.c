// Faults on demand: "op:code[:after[:times]];...", from STOKER_STUB_FAULTS or, if it has
// any, from the shared state. How often each was due is counted where it came from.
#define _GNU_SOURCE
#include "driver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum fault_kind { FAULT_CODE, FAULT_ERRNO, FAULT_SHORT, FAULT_LATENCY, FAULT_CORRUPT, FAULT_COMPAT };

struct fault {
	char operation[64];
	enum fault_kind kind;
	int64_t value;
	int cuda;
	uint64_t after, times;
};

static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static struct fault faults[STUB_FAULTS];
static int fault_count;
static uint32_t read_generation;
static struct { uint64_t seen, fired; } own_counts[STUB_FAULTS];
static int counts_are_shared;

static int parse_code(const char *text, struct fault *f)
{
	const char *value = strchr(text, '=');
	int64_t number = value ? strtoll(value + 1, NULL, 10) : 0;
	size_t n = value ? (size_t)(value - text) : strlen(text);
	static const struct { const char *name; enum fault_kind kind; int64_t fixed; } words[] = {
		{"eio", FAULT_ERRNO, EIO}, {"eintr", FAULT_ERRNO, EINTR}, {"errno", FAULT_ERRNO, 0}, {"short", FAULT_SHORT, 0},
		{"latency", FAULT_LATENCY, 0}, {"corrupt", FAULT_CORRUPT, 0}, {"oom", FAULT_CODE, OUT_OF_MEMORY},
	};
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (strlen(words[i].name) == n && !strncmp(text, words[i].name, n)) {
			f->kind = words[i].kind;
			f->value = words[i].fixed ? words[i].fixed : number;
			return 1;
		}
	char *end;
	f->kind = FAULT_CODE;
	f->value = strtoll(text, &end, 10);
	if (*end == '/')
		f->cuda = (int)strtol(end + 1, &end, 10);
	return end != text && *end == 0 && f->value != 0;
}

static int parse_fault(char *text, struct fault *f)
{
	char *rest = text, *operation = strsep(&rest, ":"), *code = strsep(&rest, ":");
	char *after = strsep(&rest, ":"), *times = strsep(&rest, ":");
	*f = (struct fault){.times = 1};
	if (strlen(operation) >= sizeof f->operation || rest)
		return 0;
	strcpy(f->operation, operation);
	if (!strcmp(operation, "compat")) {
		f->kind = FAULT_COMPAT;
		return code == NULL;
	}
	if (after && *after)
		f->after = strtoull(after, NULL, 10);
	if (times)
		f->times = strcmp(times, "*") ? strtoull(times, NULL, 10) : 0;
	return code && parse_code(code, f);
}

static void parse_all(const char *text)
{
	char copy[sizeof((struct stub_state *)0)->faults + 1];
	snprintf(copy, sizeof copy, "%s", text);
	fault_count = 0;
	for (char *rest = copy, *one; (one = strsep(&rest, ";"));) {
		if (!*one)
			continue;
		char original[256];
		snprintf(original, sizeof original, "%s", one);
		if (fault_count == STUB_FAULTS || !parse_fault(one, &faults[fault_count]))
			stub_misuse("fault \"%s\": not op:code[:after[:times]]", original);
		fault_count++;
	}
}

// stub_read_faults reads what is in force now.
void stub_read_faults(void)
{
	struct stub_state *s = stoker_stub_state();
	char text[sizeof s->faults + 1];
	uint32_t generation;
	pthread_rwlock_wrlock(&lock);
	do {
		generation = __atomic_load_n(&s->generation, __ATOMIC_ACQUIRE);
		memcpy(text, s->faults, sizeof s->faults);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while (generation % 2 || generation != __atomic_load_n(&s->generation, __ATOMIC_ACQUIRE));
	text[sizeof s->faults] = 0;
	read_generation = generation;
	counts_are_shared = generation != 0;
	const char *variable = getenv("STOKER_STUB_FAULTS");
	if (!counts_are_shared)
		memset(own_counts, 0, sizeof own_counts);
	parse_all(counts_are_shared ? text : variable ? variable : "");
	pthread_rwlock_unlock(&lock);
}

static int matches(const char *wanted, const char *operation)
{
	size_t n = strlen(wanted);
	if (!strcmp(wanted, "*"))
		return 1;
	return !strncmp(wanted, operation, n) && (operation[n] == 0 || !strcmp(operation + n, "_v2"));
}

static uint64_t *counter(int i, int fired)
{
	struct stub_state *s = stoker_stub_state();
	if (counts_are_shared)
		return fired ? &s->fault[i].fired : &s->fault[i].seen;
	return fired ? &own_counts[i].fired : &own_counts[i].seen;
}

static int due(int i)
{
	uint64_t seen = __atomic_fetch_add(counter(i, 0), 1, __ATOMIC_RELAXED);
	if (seen < faults[i].after || (faults[i].times && seen >= faults[i].after + faults[i].times))
		return 0;
	__atomic_add_fetch(counter(i, 1), 1, __ATOMIC_RELAXED);
	return 1;
}

static void wait_microseconds(int64_t n)
{
	struct timespec t = {n / 1000000, n % 1000000 * 1000};
	while (nanosleep(&t, &t) && errno == EINTR)
		;
}

// apply puts fault i into the outcome; 1: the call ends here.
static int apply(int i, struct stub_fault *outcome, int64_t *latency)
{
	const struct fault *f = &faults[i];
	switch (f->kind) {
	case FAULT_CODE:
		outcome->code = (int)f->value;
		outcome->cuda = f->cuda;
		return 1;
	case FAULT_ERRNO:
		outcome->number = (int)f->value;
		return 1;
	case FAULT_SHORT: outcome->shorten = 1; return 0;
	case FAULT_LATENCY: *latency += f->value; return 0;
	case FAULT_CORRUPT:
		outcome->corrupt = 1;
		outcome->offset = f->value;
		return 0;
	case FAULT_COMPAT: return 0;
	}
	return 0;
}

static int in_force(void)
{
	struct stub_state *s = stoker_stub_state();
	if (!s)
		return 0;
	if (__atomic_load_n(&s->generation, __ATOMIC_ACQUIRE) != __atomic_load_n(&read_generation, __ATOMIC_RELAXED))
		stub_read_faults();
	return __atomic_load_n(&fault_count, __ATOMIC_RELAXED) > 0;
}

int stub_fault(const char *operation, struct stub_fault *outcome)
{
	memset(outcome, 0, sizeof *outcome);
	if (!in_force())
		return 0;
	int64_t latency = 0;
	int ends = 0;
	pthread_rwlock_rdlock(&lock);
	for (int i = 0; i < fault_count && !ends; i++)
		if (faults[i].kind != FAULT_COMPAT && matches(faults[i].operation, operation) && due(i))
			ends = apply(i, outcome, &latency);
	pthread_rwlock_unlock(&lock);
	if (latency)
		wait_microseconds(latency);
	return ends;
}

int stub_compat(void)
{
	int found = 0;
	if (!in_force())
		return 0;
	pthread_rwlock_rdlock(&lock);
	for (int i = 0; i < fault_count; i++)
		if (faults[i].kind == FAULT_COMPAT) {
			found = 1;
			due(i);
		}
	pthread_rwlock_unlock(&lock);
	return found;
}

EXPORT long stoker_stub_fired(int i)
{
	if (i < 0 || i >= STUB_FAULTS || !stoker_stub_state())
		return -1;
	return (long)__atomic_load_n(counter(i, 1), __ATOMIC_RELAXED);
}
