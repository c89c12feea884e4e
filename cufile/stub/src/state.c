// The shared state: processes, what they hold, and who is still alive.
#define _GNU_SOURCE
#include "driver.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

pthread_mutex_t stub_lock = PTHREAD_MUTEX_INITIALIZER;

static struct stub_state *state;
static char attached_path[512];
static uint32_t own_slot;
static int64_t leaked;

// The kernel empties this page in a child (MADV_WIPEONFORK), however it was forked.
static volatile char *own_process;

static const char *const kind_names[KINDS] = {
	"contexts", "allocations", "mappings", "reservations", "memory", "ipc", "host", "registered_host",
	"streams", "events", "files", "buffers", "drivers",
};

void stub_misuse(const char *format, ...)
{
	va_list list;
	va_start(list, format);
	fputs("STUB: misuse: ", stderr);
	vfprintf(stderr, format, list);
	fputc('\n', stderr);
	va_end(list);
	abort();
}

int stub_quiet(void)
{
	const char *value = getenv("STOKER_STUB_QUIET");
	return value && !strcmp(value, "1");
}

int stub_forked(void)
{
	return own_process && *own_process == 0;
}

static uint64_t start_of(uint32_t pid)
{
	char path[64], text[1024];
	snprintf(path, sizeof path, "/proc/%u/stat", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	if (n <= 0)
		return 0;
	text[n] = 0;
	char *at = strrchr(text, ')');
	if (!at || at[1] == 0 || at[2] == 'Z' || at[2] == 'X')
		return 0; // a zombie holds no memory
	for (int field = 2; field < 22 && at; field++)
		at = strchr(at + 1, ' ');
	return at ? strtoull(at + 1, NULL, 10) : 0;
}

static void lock_state(void)
{
	// The former owner was killed: each change below is one store, so nothing is half made.
	if (pthread_mutex_lock(&state->lock) == EOWNERDEAD)
		pthread_mutex_consistent(&state->lock);
}

static void unlock_state(void)
{
	pthread_mutex_unlock(&state->lock);
}

static void make_lock(struct stub_state *s)
{
	pthread_mutexattr_t how;
	pthread_mutexattr_init(&how);
	pthread_mutexattr_setpshared(&how, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&how, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&s->lock, &how);
	pthread_mutexattr_destroy(&how);
	memcpy(s->magic, STUB_MAGIC, 8);
	s->layout = STUB_LAYOUT;
	__atomic_store_n(&s->lock_ready, 1, __ATOMIC_RELEASE);
}

static struct stub_state *map_file(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || flock(fd, LOCK_EX))
		stub_misuse("STOKER_STUB_STATE %s: %s", path, strerror(errno));
	struct stat st;
	if (fstat(fd, &st) || ((uint64_t)st.st_size < sizeof(struct stub_state) && ftruncate(fd, sizeof(struct stub_state))))
		stub_misuse("STOKER_STUB_STATE %s: %s", path, strerror(errno));
	struct stub_state *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (s == MAP_FAILED)
		stub_misuse("STOKER_STUB_STATE %s: %s", path, strerror(errno));
	if (!s->lock_ready)
		make_lock(s);
	if (memcmp(s->magic, STUB_MAGIC, 8) || s->layout != STUB_LAYOUT)
		stub_misuse("STOKER_STUB_STATE %s is not a state file of this stub", path);
	flock(fd, LOCK_UN); // the mapping keeps the open file, and with it the lock
	close(fd);
	return s;
}

static struct stub_state *map_private(void)
{
	struct stub_state *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s == MAP_FAILED)
		stub_misuse("no memory for the state");
	make_lock(s);
	return s;
}

static int alive(uint32_t slot)
{
	struct stub_process *p = &state->process[slot];
	if (p->pid == 0)
		return 0;
	return slot == own_slot || start_of(p->pid) == p->start;
}

static void sweep(void)
{
	char living[STUB_PROCESSES];
	memset(living, 0, sizeof living);
	for (uint32_t i = 0; i < STUB_PROCESSES; i++)
		if (state->process[i].pid)
			living[i] = (char)alive(i);
	for (uint32_t i = 0; i < state->claims_used; i++)
		if (state->claim[i].inode && !living[state->claim[i].process])
			state->claim[i].inode = 0;
	for (uint32_t i = 0; i < STUB_PROCESSES; i++)
		if (state->process[i].pid && !living[i])
			state->process[i].pid = 0;
}

static void take_slot(void)
{
	uint32_t pid = (uint32_t)getpid();
	lock_state();
	own_slot = STUB_PROCESSES;
	sweep();
	for (uint32_t i = 0; i < STUB_PROCESSES; i++) {
		struct stub_process *p = &state->process[i];
		if (p->pid)
			continue;
		memset(p, 0, sizeof *p);
		p->start = start_of(pid);
		p->pid = pid;
		own_slot = i;
		break;
	}
	unlock_state();
	if (own_slot == STUB_PROCESSES)
		stub_misuse("more than %d processes on one state file", STUB_PROCESSES);
}

static void detach(void)
{
	lock_state();
	state->process[own_slot].pid = 0;
	unlock_state();
	munmap(state, sizeof *state);
	state = NULL;
}

static void mark_process(void)
{
	long page = sysconf(_SC_PAGESIZE);
	char *p = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED || madvise(p, (size_t)page, MADV_WIPEONFORK))
		stub_misuse("cannot mark this process: %s", strerror(errno));
	*p = 1;
	own_process = p;
}

// stub_attach maps what STOKER_STUB_STATE names now. The caller holds stub_lock and
// has seen that nothing of this process is alive, or that nothing is attached yet.
void stub_attach(void)
{
	const char *path = getenv("STOKER_STUB_STATE");
	if (!path)
		path = "";
	if (!own_process)
		mark_process();
	if (state && !strcmp(path, attached_path))
		return;
	if (state)
		detach();
	snprintf(attached_path, sizeof attached_path, "%s", path);
	state = *path ? map_file(path) : map_private();
	take_slot();
}

int stub_nothing_alive(void)
{
	if (!state)
		return 1;
	for (int i = 0; i < KINDS; i++)
		if (__atomic_load_n(&state->process[own_slot].live[i], __ATOMIC_RELAXED))
			return 0;
	return 1;
}

void stub_count(enum stub_kind kind, int64_t change)
{
	if (__atomic_add_fetch(&state->process[own_slot].live[kind], change, __ATOMIC_RELAXED) < 0)
		stub_misuse("more %s given back than taken: a bug of the stub", kind_names[kind]);
}

void stub_leak(void)
{
	__atomic_add_fetch(&leaked, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&state->process[own_slot].leaked, 1, __ATOMIC_RELAXED);
}

static uint64_t used_locked(int device)
{
	uint64_t sum = 0;
	for (uint32_t i = 0; i < state->claims_used; i++) {
		struct stub_claim *c = &state->claim[i];
		if (!c->inode || c->device != (uint32_t)device)
			continue;
		uint32_t earlier = 0;
		while (earlier < i && state->claim[earlier].inode != c->inode)
			earlier++;
		if (earlier == i)
			sum += c->bytes;
	}
	return sum;
}

uint64_t stub_memory_used(int device)
{
	lock_state();
	sweep();
	uint64_t used = used_locked(device);
	unlock_state();
	return used;
}

static struct stub_claim *own_claim(uint64_t inode)
{
	for (uint32_t i = 0; i < state->claims_used; i++)
		if (state->claim[i].inode == inode && state->claim[i].process == own_slot)
			return &state->claim[i];
	return NULL;
}

static int new_claim(struct stub_claim wanted)
{
	for (uint32_t i = 0; i < STUB_CLAIMS; i++) {
		struct stub_claim *c = &state->claim[i];
		if (c->inode)
			continue;
		uint64_t inode = wanted.inode;
		wanted.inode = 0;
		*c = wanted;
		if (i >= state->claims_used)
			state->claims_used = i + 1;
		__atomic_store_n(&c->inode, inode, __ATOMIC_RELEASE);
		return 0;
	}
	return -1;
}

// stub_claim_memory counts this process's hold on memory; with a limit it refuses (-1)
// what would take the device beyond it, counting the memory of all living processes.
int stub_claim_memory(uint64_t inode, uint64_t bytes, uint64_t limit, int device, int ipc)
{
	int rc = 0;
	lock_state();
	struct stub_claim *c = own_claim(inode);
	if (c) {
		c->count++;
	} else {
		if (limit && used_locked(device) + bytes > limit)
			sweep();
		if (limit && used_locked(device) + bytes > limit)
			rc = -1;
		else
			rc = new_claim((struct stub_claim){inode, bytes, (uint32_t)device, own_slot, 1, (uint32_t)ipc});
	}
	unlock_state();
	return rc;
}

void stub_drop_claim(uint64_t inode)
{
	lock_state();
	struct stub_claim *c = own_claim(inode);
	if (c && --c->count == 0)
		c->inode = 0;
	unlock_state();
}

int stub_opened_elsewhere(uint64_t inode)
{
	int found = 0;
	lock_state();
	for (uint32_t i = 0; i < state->claims_used; i++) {
		struct stub_claim *c = &state->claim[i];
		if (c->inode == inode && c->ipc && c->process != own_slot && alive(c->process))
			found = 1;
	}
	unlock_state();
	return found;
}

uint64_t stub_parse_bytes(const char *text, uint64_t otherwise)
{
	char *end;
	uint64_t n = strtoull(text, &end, 10);
	if (end == text)
		return otherwise;
	switch (*end) {
	case 'K': return n << 10;
	case 'M': return n << 20;
	case 'G': return n << 30;
	default: return n;
	}
}

uint64_t stub_quantity(const char *variable, uint64_t otherwise)
{
	const char *value = getenv(variable);
	return value ? stub_parse_bytes(value, otherwise) : otherwise;
}

EXPORT struct stub_state *stoker_stub_state(void)
{
	return state;
}

EXPORT int stoker_stub(void)
{
	return (int)stub_quantity("STOKER_STUB_CUDA_VERSION", 13000);
}

EXPORT long stoker_stub_live(const char *kind)
{
	long sum = 0;
	if (!state)
		return 0;
	for (int i = 0; i < KINDS; i++)
		if (!kind || !*kind || !strcmp(kind, kind_names[i]))
			sum += (long)__atomic_load_n(&state->process[own_slot].live[i], __ATOMIC_RELAXED);
	return sum;
}

EXPORT long stoker_stub_leaked(void)
{
	return (long)__atomic_load_n(&leaked, __ATOMIC_RELAXED);
}
