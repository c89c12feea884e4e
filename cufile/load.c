//go:build cgo && linux

#define _GNU_SOURCE
#include "table.h"

#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
	const char *name;
	const char *since;
	int library;
	int needed;
	size_t offset; /* of the pointer in stoker_table */
} entry;

static const entry entries[] = {
#define STOKER_ENTRY(function, symbol, since, needed, result, arguments) \
	{symbol, since, LIBRARY, needed, offsetof(struct stoker_table, function)},
#define LIBRARY STOKER_DEVICE_LIBRARY
	STOKER_CUDA_FUNCTIONS(STOKER_ENTRY)
#undef LIBRARY
#define LIBRARY STOKER_STORAGE_LIBRARY
	STOKER_CUFILE_FUNCTIONS(STOKER_ENTRY)
	STOKER_CUFILE_LATER_FUNCTIONS(STOKER_ENTRY)
#undef LIBRARY
#undef STOKER_ENTRY
};

enum { ENTRIES = sizeof entries / sizeof entries[0] };

stoker_table *stoker_new(void) { return calloc(1, sizeof(stoker_table)); }

void stoker_free(stoker_table *t) { free(t); }

/* ISO C has no cast between object and function pointers; POSIX promises that the
 * bits are the same. */
static void look_up(stoker_table *t, int library, const char *name, void *pointer) {
	void *symbol = dlsym(t->library[library], name);
	memcpy(pointer, &symbol, sizeof symbol);
}

static void resolve(stoker_table *t, int library) {
	for (int i = 0; i < ENTRIES; i++)
		if (entries[i].library == library)
			look_up(t, library, entries[i].name, (char *)t + entries[i].offset);
	look_up(t, library, "stoker_stub", &t->stub[library]);
	if (!t->live)
		look_up(t, library, "stoker_stub_live", &t->live);
}

int stoker_load(stoker_table *t, int library, const char *name, char *text, size_t size) {
	void *handle = dlopen(name, RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
	if (!handle) {
		const char *message = dlerror();
		snprintf(text, size, "%s", message ? message : "the loader gives no reason");
		return 0;
	}
	struct link_map *map = NULL;
	int known = dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 && map && map->l_name[0];
	snprintf(text, size, "%s", known ? map->l_name : name);
	t->library[library] = handle;
	resolve(t, library);
	return 1;
}

int stoker_symbol_at(const stoker_table *t, int index, stoker_symbol *out) {
	if (index < 0 || index >= ENTRIES)
		return 0;
	const entry *e = &entries[index];
	void *pointer;
	memcpy(&pointer, (const char *)t + e->offset, sizeof pointer);
	*out = (stoker_symbol){e->name, e->since, e->library, e->needed, pointer != NULL};
	return 1;
}

int stoker_is_stub(const stoker_table *t) { return t->stub[0] != NULL || t->stub[1] != NULL; }

long stoker_live(const stoker_table *t, const char *kind) { return t->live ? t->live(kind) : -1; }
