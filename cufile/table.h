/*
 * What the C files share: the table, and how a call becomes a status.
 */
#ifndef STOKER_TABLE_H
#define STOKER_TABLE_H

#include <errno.h>

#include "shim.h"

/* A fork duplicates this memory and not the libraries' state; see doc.go. */
struct stoker_table {
	void *library[2];
	int (*stub[2])(void);
	long (*live)(const char *kind);
#define STOKER_MEMBER(function, symbol, since, needed, result, arguments) stoker_##function##_function *function;
	STOKER_CUDA_FUNCTIONS(STOKER_MEMBER)
	STOKER_CUFILE_FUNCTIONS(STOKER_MEMBER)
	STOKER_CUFILE_LATER_FUNCTIONS(STOKER_MEMBER)
#undef STOKER_MEMBER
};

static const stoker_status fine;

static inline stoker_status absent(const char *op) {
	return (stoker_status){.op = op, .err = ENOSYS};
}

static inline stoker_status cuda(const char *op, stoker_cuda_result result) {
	return result ? (stoker_status){.op = op, .cuda = result} : fine;
}

static inline stoker_status storage(const char *op, stoker_cufile_error e) {
	if (!e.err)
		return fine;
	/* Only 5011 speaks of the driver; elsewhere cu_err is whatever was there. */
	return (stoker_status){.op = op, .code = e.err, .cuda = e.err == STOKER_CU_FILE_CUDA_DRIVER_ERROR ? e.cu_err : 0};
}

/* TRY calls a function of the GPU driver and returns from where it stands on failure. */
#define TRY(function, ...) \
	do { \
		if (!t->function) \
			return absent(#function); \
		stoker_cuda_result result_ = t->function(__VA_ARGS__); \
		if (result_) \
			return cuda(#function, result_); \
	} while (0)

/* The same for functions of the storage library, as a whole function's answer. */
#define STORAGE(function, ...) \
	(t->function ? storage(#function, t->function(__VA_ARGS__)) : absent(#function))

#define ENTER(device) TRY(cuCtxSetCurrent, (stoker_cuda_context)(device).context)

#endif /* STOKER_TABLE_H */
