// Where the settings of one open come from: parameters set by calls, then environment
// variables, then cufile.json, then what NVIDIA ships (cuFile API reference, "Parameters").
#define _GNU_SOURCE
#include "storage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

// NVIDIA's 1.15 reads CUFILE_ENV_PATH_JSON in its constructor: a program that sets it only
// later is not heard here either. The file itself is read at each open here, so that one
// test process can open with several.
static int path_at_load;

__attribute__((constructor)) static void note_path(void)
{
	path_at_load = getenv("CUFILE_ENV_PATH_JSON") != NULL;
}

static void skip_comment(const char *text, size_t *at)
{
	while (text[*at] && text[*at] != '\n')
		(*at)++;
}

// strip blanks comments and the insides of no string, and checks that brackets match.
static int strip(char *text)
{
	int depth = 0, opened = 0, quoted = 0;
	for (size_t i = 0; text[i]; i++) {
		if (text[i] == '"' && (i == 0 || text[i - 1] != '\\'))
			quoted = !quoted;
		if (quoted)
			continue;
		if (text[i] == '/' && text[i + 1] == '/') {
			size_t end = i;
			skip_comment(text, &end);
			memset(text + i, ' ', end - i);
		}
		depth += (text[i] == '{') - (text[i] == '}');
		opened |= text[i] == '{';
		if (depth < 0)
			return 0;
	}
	return opened && depth == 0 && !quoted;
}

// value_of finds what follows "key": anywhere in the file; no key of ours is in two places
// with two meanings, but for use_pci_p2pdma, where NVIDIA wants all of them true.
static const char *value_of(const char *text, const char *key)
{
	char quoted[128];
	snprintf(quoted, sizeof quoted, "\"%s\"", key);
	const char *at = strstr(text, quoted);
	if (!at)
		return NULL;
	at += strlen(quoted);
	at += strspn(at, " \t\r\n");
	if (*at != ':')
		return NULL;
	at++;
	return at + strspn(at, " \t\r\n");
}

static void read_flag(const char *text, const char *key, int *out)
{
	const char *value = value_of(text, key);
	if (value)
		*out = !strncmp(value, "true", 4);
}

static void read_number(const char *text, const char *key, uint64_t *out)
{
	const char *value = value_of(text, key);
	if (value)
		*out = strtoull(value, NULL, 10);
}

static void read_p2pdma(const char *text, int *out)
{
	for (const char *at = text; (at = strstr(at, "\"use_pci_p2pdma\"")); at++) {
		int one = 1;
		read_flag(at, "use_pci_p2pdma", &one);
		*out &= one;
	}
}

static int read_configuration(struct settings *s)
{
	const char *path = getenv("CUFILE_ENV_PATH_JSON");
	static char text[1 << 16];
	if (!path)
		return SUCCESS;
	if (!path_at_load) {
		fputs("STUB: CUFILE_ENV_PATH_JSON was set after libcufile was loaded: ignored\n", stderr);
		return SUCCESS;
	}
	FILE *f = fopen(path, "re");
	if (!f) {
		fprintf(stderr, "STUB: CUFILE_ENV_PATH_JSON %s cannot be read: built-in settings\n", path);
		return SUCCESS;
	}
	size_t n = fread(text, 1, sizeof text - 1, f);
	fclose(f);
	text[n] = 0;
	if (!strip(text)) {
		fprintf(stderr, "STUB: CUFILE_ENV_PATH_JSON %s is not JSON\n", path);
		return DRIVER_INVALID_PROPS;
	}
	read_flag(text, "allow_compat_mode", &s->allow_compat);
	read_flag(text, "force_compat_mode", &s->force_compat);
	read_p2pdma(text, &s->p2pdma);
	read_number(text, "max_direct_io_size_kb", &s->max_direct_io_kb);
	read_number(text, "max_device_cache_size_kb", &s->max_device_cache_kb);
	read_number(text, "per_buffer_cache_size_kb", &s->per_buffer_cache_kb);
	read_number(text, "max_device_pinned_mem_size_kb", &s->max_pinned_kb);
	return SUCCESS;
}

static void read_variable(const char *name, int *out)
{
	const char *value = getenv(name);
	if (value)
		*out = !strcasecmp(value, "true") || !strcmp(value, "1");
}

#if STUB_VERSION >= 1140
enum { SIZES = 12, FLAGS = STUB_VERSION >= 1190 ? 14 : 12, TEXTS = STUB_VERSION >= 1190 ? 4 : 3 };

struct staged {
	char size_set[SIZES], flag_set[FLAGS];
	uint64_t size[SIZES];
	bool flag[FLAGS];
	char text[TEXTS][256];
};

static struct staged staged, in_force;

enum { SIZE_MAX_DIRECT_IO = 5, SIZE_MAX_DEVICE_CACHE = 6, SIZE_PER_BUFFER_CACHE = 7, SIZE_MAX_PINNED = 8, SIZE_BATCH = 9, SIZE_POLL = 10, SIZE_BATCH_TIMEOUT = 11 };
enum { FLAG_ALLOW_COMPAT = 1, FLAG_FORCE_COMPAT = 2, FLAG_P2PDMA = 7 };

static void take_size(int i, uint64_t *out)
{
	if (staged.size_set[i])
		*out = staged.size[i];
	staged.size[i] = *out;
}

static void take_flag(int i, int *out)
{
	if (staged.flag_set[i])
		*out = staged.flag[i];
	staged.flag[i] = *out > 0;
}

static void take_staged(struct settings *s)
{
	take_size(SIZE_MAX_DIRECT_IO, &s->max_direct_io_kb);
	take_size(SIZE_MAX_DEVICE_CACHE, &s->max_device_cache_kb);
	take_size(SIZE_PER_BUFFER_CACHE, &s->per_buffer_cache_kb);
	take_size(SIZE_MAX_PINNED, &s->max_pinned_kb);
	take_size(SIZE_BATCH, &s->batch);
	take_size(SIZE_POLL, &s->poll_kb);
	take_size(SIZE_BATCH_TIMEOUT, &s->batch_timeout_ms);
	take_flag(FLAG_ALLOW_COMPAT, &s->allow_compat);
	take_flag(FLAG_FORCE_COMPAT, &s->force_compat);
	take_flag(FLAG_P2PDMA, &s->p2pdma);
	in_force = staged;
	memset(&staged, 0, sizeof staged);
}
#else
static void take_staged(struct settings *s)
{
	(void)s;
}
#endif

int storage_take_settings(struct settings *out)
{
	*out = (struct settings){
		.allow_compat = -1, .p2pdma = 1, .max_direct_io_kb = 16384, .max_device_cache_kb = 131072, .per_buffer_cache_kb = 1024,
		.max_pinned_kb = 33554432, .batch = 128, .poll_kb = 4, .batch_timeout_ms = 5,
	};
	int code = read_configuration(out);
	if (code)
		return code;
	read_variable("CUFILE_ALLOW_COMPAT_MODE", &out->allow_compat);
	read_variable("CUFILE_FORCE_COMPAT_MODE", &out->force_compat);
	read_variable("CUFILE_USE_PCIP2PDMA", &out->p2pdma);
	take_staged(out);
	return SUCCESS;
}

#if STUB_VERSION >= 1140
// may_set gives the code that refuses setting a parameter now, or SUCCESS.
static int may_set(const char *operation, int i, int count, CUfileError_t *out)
{
	storage_check_fork(operation);
	storage_load_cuda();
	if (storage_faulty(operation, out))
		return out->err;
	*out = answer(storage_open ? DRIVER_ALREADY_OPEN : i < 0 || i >= count ? INVALID_VALUE : SUCCESS);
	return out->err;
}

EXPORT CUfileError_t cuFileSetParameterSizeT(int i, size_t value)
{
	CUfileError_t result;
	if (may_set("cuFileSetParameterSizeT", i, SIZES, &result))
		return result;
	pthread_mutex_lock(&storage_lock);
	staged.size[i] = value;
	staged.size_set[i] = 1;
	pthread_mutex_unlock(&storage_lock);
	return result;
}

EXPORT CUfileError_t cuFileSetParameterBool(int i, bool value)
{
	CUfileError_t result;
	if (may_set("cuFileSetParameterBool", i, FLAGS, &result))
		return result;
	pthread_mutex_lock(&storage_lock);
	staged.flag[i] = value;
	staged.flag_set[i] = 1;
	pthread_mutex_unlock(&storage_lock);
	return result;
}

EXPORT CUfileError_t cuFileSetParameterString(int i, const char *value)
{
	CUfileError_t result;
	if (may_set("cuFileSetParameterString", i, TEXTS, &result))
		return result;
	if (!value || strlen(value) >= sizeof staged.text[0])
		return answer(INVALID_VALUE);
	pthread_mutex_lock(&storage_lock);
	strcpy(staged.text[i], value);
	pthread_mutex_unlock(&storage_lock);
	return result;
}

static const struct staged *current(void)
{
	return storage_open ? &in_force : &staged;
}

EXPORT CUfileError_t cuFileGetParameterSizeT(int i, size_t *out)
{
	CUfileError_t fault;
	if (storage_faulty("cuFileGetParameterSizeT", &fault))
		return fault;
	if (i < 0 || i >= SIZES || !out)
		return answer(INVALID_VALUE);
	*out = current()->size[i];
	return answer(SUCCESS);
}

EXPORT CUfileError_t cuFileGetParameterBool(int i, bool *out)
{
	CUfileError_t fault;
	if (storage_faulty("cuFileGetParameterBool", &fault))
		return fault;
	if (i < 0 || i >= FLAGS || !out)
		return answer(INVALID_VALUE);
	*out = current()->flag[i];
	return answer(SUCCESS);
}

EXPORT CUfileError_t cuFileGetParameterString(int i, char *out, int bytes)
{
	CUfileError_t fault;
	if (storage_faulty("cuFileGetParameterString", &fault))
		return fault;
	if (i < 0 || i >= TEXTS || !out || bytes <= (int)strlen(current()->text[i]))
		return answer(INVALID_VALUE);
	strcpy(out, current()->text[i]);
	return answer(SUCCESS);
}

EXPORT CUfileError_t cuFileGetParameterMinMaxValue(int i, size_t *least, size_t *most)
{
	if (i < 0 || i >= SIZES || !least || !most)
		return answer(INVALID_VALUE);
	*least = 0;
	*most = (size_t)1 << 40;
	return answer(SUCCESS);
}

static size_t slab_sizes[16], slab_counts[16];
static int slabs;

EXPORT CUfileError_t cuFileSetParameterPosixPoolSlabArray(const size_t *sizes, const size_t *counts, int count)
{
	if (storage_open)
		return answer(DRIVER_ALREADY_OPEN);
	if (!sizes || !counts || count <= 0 || count > 16)
		return answer(INVALID_VALUE);
	memcpy(slab_sizes, sizes, (size_t)count * sizeof *sizes);
	memcpy(slab_counts, counts, (size_t)count * sizeof *counts);
	slabs = count;
	return answer(SUCCESS);
}

EXPORT CUfileError_t cuFileGetParameterPosixPoolSlabArray(size_t *sizes, size_t *counts, int count)
{
	if (!sizes || !counts || count != slabs)
		return answer(INVALID_VALUE);
	memcpy(sizes, slab_sizes, (size_t)count * sizeof *sizes);
	memcpy(counts, slab_counts, (size_t)count * sizeof *counts);
	return answer(SUCCESS);
}

EXPORT CUfileError_t cuFileGetBARSizeInKB(int gpu, size_t *out)
{
	BEGIN("cuFileGetBARSizeInKB");
	const uint64_t ordinary = (uint64_t)128 << 30;
	if (gpu < 0 || gpu >= cuda.devices() || !out)
		return answer(INVALID_VALUE);
	*out = cuda.quantity("STOKER_STUB_BAR", ordinary) >> 10;
	return answer(SUCCESS);
}
#endif
