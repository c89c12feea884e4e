/*
 * The whole shim once through, for the sanitisers: sanitize LIBCUDA LIBCUFILE FILE.
 * It ends with 1 and a line where something is not as it must be.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shim.h"

#define REQUIRE(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			exit(1); \
		} \
	} while (0)

static void fine(stoker_status s) {
	if (s.op) {
		fprintf(stderr, "%s: %d %d %d\n", s.op, s.code, s.cuda, s.err);
		exit(1);
	}
}

static stoker_table *load(const char *device, const char *storage) {
	char text[64];
	stoker_table *t = stoker_new();
	REQUIRE(t);
	REQUIRE(!stoker_load(t, STOKER_DEVICE_LIBRARY, "/missing/libcuda.so.1", text, sizeof text));
	REQUIRE(memchr(text, 0, sizeof text));
	REQUIRE(stoker_load(t, STOKER_DEVICE_LIBRARY, device, text, sizeof text));
	REQUIRE(stoker_load(t, STOKER_STORAGE_LIBRARY, storage, text, sizeof text));
	REQUIRE(stoker_is_stub(t));
	stoker_symbol s;
	int symbols = 0;
	while (stoker_symbol_at(t, symbols, &s))
		symbols++;
	REQUIRE(symbols > 40 && !stoker_symbol_at(t, -1, &s));
	return t;
}

/* Whether a context is current in this thread, by a library that is loaded. */
static int has_context(const char *device) {
	void *library = dlopen(device, RTLD_LAZY | RTLD_NOLOAD);
	REQUIRE(library);
	int (*get)(void **) = (int (*)(void **))(uintptr_t)dlsym(library, "cuCtxGetCurrent");
	void *context;
	REQUIRE(get && get(&context) == 0);
	dlclose(library);
	return context != NULL;
}

static void copies(stoker_table *t, stoker_device d, stoker_segment s) {
	char there[5000], back[5000];
	memset(there, 'x', sizeof there);
	fine(stoker_copy_in(t, d, s.address + 1, there, sizeof there));
	fine(stoker_copy_out(t, d, back, s.address + 1, sizeof back));
	REQUIRE(memcmp(there, back, sizeof there) == 0);
	fine(stoker_copy_out(t, d, back, s.address, 1));
	REQUIRE(back[0] == 0);
	void *host = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(host != MAP_FAILED);
	fine(stoker_register_host(t, d, host, 1 << 16));
	fine(stoker_copy_in(t, d, s.address, host, 1 << 16));
	fine(stoker_unregister_host(t, d, host));
	REQUIRE(stoker_unregister_host(t, d, host).cuda);
	munmap(host, 1 << 16);
}

static void shares(stoker_table *t, stoker_device d, stoker_segment s) {
	stoker_segment other;
	int descriptor;
	fine(stoker_export(t, d, s, &descriptor));
	REQUIRE(fcntl(descriptor, F_GETFD) & FD_CLOEXEC);
	fine(stoker_import(t, d, descriptor, s.bytes, 1, &other));
	fine(stoker_copy_in(t, d, other.address, "x", 1));
	fine(stoker_destroy(t, d, &other));
	fine(stoker_import(t, d, descriptor, s.bytes, 0, &other));
	close(descriptor);
	REQUIRE(stoker_copy_in(t, d, other.address, "x", 1).cuda); /* mapped to be read */
	fine(stoker_destroy(t, d, &other));
	REQUIRE(other.parts == 0);
	fine(stoker_destroy(t, d, &other));
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	REQUIRE(stoker_import(t, d, null, s.bytes, 1, &other).op && other.parts == 0);
	close(null);
	char handle[STOKER_CU_IPC_HANDLE_SIZE];
	stoker_segment legacy;
	fine(stoker_create_legacy(t, d, 1, &legacy));
	fine(stoker_export_legacy(t, d, legacy, handle));
	memset(handle, 0, sizeof handle);
	REQUIRE(stoker_import_legacy(t, d, handle, legacy.bytes, &other).op && other.parts == 0);
	fine(stoker_destroy(t, d, &legacy));
}

static void reads(stoker_table *t, stoker_device d, stoker_segment s, const char *path) {
	int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
	REQUIRE(descriptor >= 0);
	uintptr_t handle;
	fine(stoker_register_buffer(t, d, s.address, s.bytes));
	REQUIRE(stoker_register_buffer(t, d, s.address, s.bytes).code);
	fine(stoker_register_file(t, descriptor, &handle));
	static const struct { int64_t bytes, file, base, want; } all[] = {
		{4096, 0, 0, 4096}, {4095, 1, 3, 4095}, {1 << 20, 0, 0, 300001}, {4096, 300000, 0, 1}, {4096, 1 << 20, 0, 0},
	};
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		stoker_read_result r = stoker_read(t, d.context, handle, s.address, all[i].bytes, all[i].file, all[i].base);
		REQUIRE(r.n == all[i].want && r.cuda == 0 && r.err == 0);
	}
	REQUIRE(stoker_read(t, 0, handle, s.address, 4096, 0, 0).n < 0);
	REQUIRE(stoker_read_loop(t, d.context, handle, s.address, 4096, 0, 10) == 40960);
	stoker_deregister_file(t, handle);
	close(descriptor);
	fine(stoker_deregister_buffer(t, d, s.address));
}

static void statistics(stoker_table *t) {
	void *out = malloc(STOKER_STATISTICS_BYTES);
	for (int level = 1; level <= 3; level++)
		fine(stoker_statistics_read(t, level, out));
	free(out);
	unsigned int flags;
	fine(stoker_p2p_flags(t, 4, &flags));
	uint64_t bytes;
	fine(stoker_bar_bytes(t, 0, &bytes));
	stoker_cufile_properties properties;
	fine(stoker_storage_properties(t, &properties));
	fine(stoker_statistics_reset(t));
	fine(stoker_statistics_stop(t));
}

int main(int argc, char **argv) {
	REQUIRE(argc == 4);
	stoker_table *t = load(argv[1], argv[2]);
	int version, devices;
	fine(stoker_start(t, &version, &devices));
	stoker_device_info info;
	fine(stoker_describe(t, 0, &info));
	REQUIRE(stoker_describe(t, devices, &info).op);
	fine(stoker_storage_version(t, &version));
	fine(stoker_set_bool(t, STOKER_CUFILE_PARAM_PROPERTIES_ALLOW_COMPAT_MODE, 0));
	fine(stoker_set_size(t, STOKER_CUFILE_PARAM_PROPERTIES_MAX_DIRECT_IO_SIZE_KB, 8192));
	fine(stoker_set_string(t, STOKER_CUFILE_PARAM_LOG_DIR, "/tmp"));
	fine(stoker_storage_open(t));
	fine(stoker_statistics_start(t, 3));
	stoker_device d;
	fine(stoker_retain(t, 0, &d));
	REQUIRE(stoker_retain(t, devices, &(stoker_device){0}).op);
	uint64_t free_bytes, total;
	fine(stoker_memory(t, d, &free_bytes, &total));
	stoker_segment s;
	fine(stoker_create(t, d, (1 << 20) + 1, 1, &s));
	REQUIRE(s.bytes == 2 << 20);
	REQUIRE(stoker_create(t, d, 1ull << 50, 1, &(stoker_segment){0}).cuda);
	copies(t, d, s);
	shares(t, d, s);
	reads(t, d, s, argv[3]);
	statistics(t);
	fine(stoker_destroy(t, d, &s));
	REQUIRE(has_context(argv[1]));
	fine(stoker_release(t, &d));
	REQUIRE(!has_context(argv[1])); /* a dead one would be in the way of what comes next */
	fine(stoker_release(t, &d));
	fine(stoker_storage_close(t));
	REQUIRE(stoker_live(t, "") == 0);
	stoker_free(t);
	return 0;
}
