// Two processes share device memory, and one of them is killed.
//   sharing CUDA STORAGE CASE, with STOKER_STUB_STATE set. The first process only looks.
#include "check.h"

#include <sys/prctl.h>

enum { SLAB = 4 * GRANULE };

static int line[2]; // between the two children: descriptors and handles
static int talk[2]; // from the children to the first process

static void say(char what) { CHECK(write(talk[1], &what, 1) == 1); }

static void hear(char what)
{
	char got = 0;
	CHECK(read(talk[0], &got, 1) == 1);
	IS(got, what);
}

static void send_descriptor(int fd)
{
	char room[CMSG_SPACE(sizeof fd)] = {0}, byte = 'd';
	struct iovec v = {&byte, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
	IS(sendmsg(line[0], &m, 0), 1);
}

static int receive_descriptor(void)
{
	char room[CMSG_SPACE(sizeof(int))], byte;
	struct iovec v = {&byte, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
	int fd;
	IS(recvmsg(line[1], &m, MSG_CMSG_CLOEXEC), 1);
	CHECK(CMSG_FIRSTHDR(&m));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
	return fd;
}

static void wait_for_death(void)
{
	for (;;)
		pause();
}

static void export_slab(void)
{
	int fd;
	IS(p_cuInit(0), 0);
	enter(0);
	struct slab s = make_slab(0, SLAB);
	IS(p_cuMemsetD8(s.base, 0x33, s.bytes), 0);
	IS(p_cuCtxSynchronize(), 0);
	IS(p_cuMemExportToShareableHandle(&fd, s.handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0), 0);
	send_descriptor(fd);
	close(fd);
	say('e');
	wait_for_death();
}

static void import_slab(void)
{
	struct slab s = {.bytes = SLAB};
	char byte;
	int fd = receive_descriptor();
	IS(p_cuInit(0), 0);
	enter(0);
	IS(p_cuMemImportFromShareableHandle(&s.handle, (void *)(uintptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR), 0);
	close(fd);
	map_slab(&s, 0, 1);
	IS(p_cuMemRelease(s.handle), 0); // the mapping keeps the memory
	say('i');
	CHECK(read(line[1], &byte, 1) == 1); // until the first process has killed, or not
	CHECK(((unsigned char *)s.base)[SLAB - 1] == 0x33);
	say('r');
	wait_for_death();
}

static void export_legacy(void)
{
	CUdeviceptr p;
	CUipcMemHandle h;
	char byte;
	IS(p_cuInit(0), 0);
	enter(0);
	IS(p_cuMemAlloc(&p, PAGE), 0);
	IS(p_cuMemsetD8(p, 0x44, PAGE), 0);
	IS(p_cuCtxSynchronize(), 0);
	IS(p_cuIpcGetMemHandle(&h, p + 8), 0);
	IS(p_cuIpcOpenMemHandle(&(CUdeviceptr){0}, h, 1), CUDA_ERROR_INVALID_CONTEXT);
	IS(write(line[0], &h, sizeof h), sizeof h);
	say('e');
	CHECK(read(line[0], &byte, 1) == 1);
	p_cuMemFree(p); // aborts if the other has it open still
	say('f');
	wait_for_death();
}

static void import_legacy(void)
{
	CUdeviceptr p, again;
	CUipcMemHandle h;
	char byte;
	IS(read(line[1], &h, sizeof h), sizeof h);
	IS(p_cuInit(0), 0);
	enter(0);
	IS(p_cuIpcOpenMemHandle(&p, h, 0), CUDA_ERROR_INVALID_VALUE);
	IS(p_cuIpcOpenMemHandle(&p, h, 1), 0);
	IS(p_cuIpcOpenMemHandle(&again, h, 1), 0);
	IS(again, p);
	CHECK(*(unsigned char *)p == 0x44);
	IS(p_cuIpcCloseMemHandle(p), 0);
	say('i');
	CHECK(read(line[1], &byte, 1) == 1);
	IS(p_cuIpcCloseMemHandle(p), 0);
	IS(p_cuIpcCloseMemHandle(p), CUDA_ERROR_INVALID_VALUE);
	say('c');
	wait_for_death();
}

static pid_t start(void (*role)(void))
{
	pid_t child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); // a test that fails leaves nobody waiting
		role();
		_exit(0);
	}
	return child;
}

static void end(pid_t child)
{
	int status;
	CHECK(!kill(child, SIGKILL));
	CHECK(waitpid(child, &status, 0) == child);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static size_t used(void)
{
	size_t free_bytes, total;
	IS(p_cuMemGetInfo(&free_bytes, &total), 0);
	return total - free_bytes;
}

// start_both starts the children before this process touches CUDA: a fork after that
// would leave them without it.
static void start_both(pid_t *exporter, pid_t *importer, void (*exports)(void), void (*imports)(void))
{
	*exporter = start(exports);
	*importer = start(imports);
	IS(p_cuInit(0), 0);
	enter(0);
}

static void kill_exporter_first(void)
{
	pid_t a, b;
	start_both(&a, &b, export_slab, import_slab);
	char got[2];
	CHECK(read(talk[0], &got[0], 1) == 1 && read(talk[0], &got[1], 1) == 1);
	CHECK(got[0] + got[1] == 'e' + 'i');
	IS(used(), SLAB); // mapped twice, there once
	end(a);
	IS(used(), SLAB);
	CHECK(write(line[0], "g", 1) == 1);
	hear('r');
	end(b);
	IS(used(), 0);
}

static void kill_importer_first(void)
{
	pid_t a, b;
	start_both(&a, &b, export_slab, import_slab);
	char got[2];
	CHECK(read(talk[0], &got[0], 1) == 1 && read(talk[0], &got[1], 1) == 1);
	end(b);
	IS(used(), SLAB);
	end(a);
	IS(used(), 0);
}

static void legacy(int close_first)
{
	pid_t a, b;
	int status;
	start_both(&a, &b, export_legacy, import_legacy);
	char got[2];
	CHECK(read(talk[0], &got[0], 1) == 1 && read(talk[0], &got[1], 1) == 1);
	IS(used(), PAGE);
	if (close_first) {
		CHECK(write(line[0], "g", 1) == 1);
		hear('c');
		CHECK(write(line[1], "g", 1) == 1);
		hear('f');
		end(a);
	} else {
		CHECK(write(line[1], "g", 1) == 1);
		CHECK(waitpid(a, &status, 0) == a);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	}
	end(b);
	IS(used(), 0);
}

int main(int count, char **arguments)
{
	CHECK(count == 4);
	alarm(120); // turns a hang into a failure, and only that
	load(arguments[1], arguments[2]);
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, line) && !socketpair(AF_UNIX, SOCK_STREAM, 0, talk));
	if (!strcmp(arguments[3], "kill-exporter-first"))
		kill_exporter_first();
	else if (!strcmp(arguments[3], "kill-importer-first"))
		kill_importer_first();
	else
		legacy(!strcmp(arguments[3], "legacy-close-first"));
	IS(p_cuDevicePrimaryCtxRelease(0), 0);
	puts("fine");
	return 0;
}
