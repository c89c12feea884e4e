//go:build cgo && linux

package cufile

/*
#include <stdlib.h>
#include "shim.h"
#cgo noescape stoker_read
#cgo noescape stoker_read_loop
*/
import "C"

import "unsafe"

func (t *cudaTable) storageVersion() (int, status) {
	var version C.int
	s := statusOf(C.stoker_storage_version(t.c, &version))
	return int(version), s
}

func (t *cudaTable) setSize(parameter sizeParameter, bytes int64) status {
	return statusOf(C.stoker_set_size(t.c, C.int(parameter), C.uint64_t(bytes>>10)))
}

func (t *cudaTable) setBool(parameter boolParameter, value bool) status {
	return statusOf(C.stoker_set_bool(t.c, C.int(parameter), cBool(value)))
}

func (t *cudaTable) setLogDir(dir string) status {
	c := C.CString(dir)
	defer C.free(unsafe.Pointer(c))
	return statusOf(C.stoker_set_string(t.c, C.STOKER_CUFILE_PARAM_LOG_DIR, c))
}

func (t *cudaTable) openStorage() status  { return statusOf(C.stoker_storage_open(t.c)) }
func (t *cudaTable) closeStorage() status { return statusOf(C.stoker_storage_close(t.c)) }

func (t *cudaTable) properties() (Properties, status) {
	var c C.stoker_cufile_properties
	s := statusOf(C.stoker_storage_properties(t.c, &c))
	return Properties{
		KernelMajor: uint32(c.nvfs.major_version), KernelMinor: uint32(c.nvfs.minor_version),
		PollThresholdBytes:  int64(c.nvfs.poll_thresh_size) << 10,
		MaxDirectBytes:      int64(c.nvfs.max_direct_io_size) << 10,
		FileSystems:         uint32(c.nvfs.dstatusflags),
		Control:             uint32(c.nvfs.dcontrolflags),
		Features:            uint32(c.fflags),
		MaxCacheBytes:       int64(c.max_device_cache_size) << 10,
		PerBufferCacheBytes: int64(c.per_buffer_cache_size) << 10,
		MaxPinnedBytes:      int64(c.max_device_pinned_mem_size) << 10,
	}, s
}

func (t *cudaTable) startStatistics(level int) status {
	return statusOf(C.stoker_statistics_start(t.c, C.int(level)))
}

func (t *cudaTable) stopStatistics() status  { return statusOf(C.stoker_statistics_stop(t.c)) }
func (t *cudaTable) resetStatistics() status { return statusOf(C.stoker_statistics_reset(t.c)) }

func (t *cudaTable) readStatistics(level int) ([]byte, status) {
	p := make([]byte, C.STOKER_STATISTICS_BYTES)
	s := statusOf(C.stoker_statistics_read(t.c, C.int(level), start(p)))
	return p, s
}

func (t *cudaTable) p2pFlags(fs FileSystem) (P2PFlags, status) {
	var flags C.uint
	s := statusOf(C.stoker_p2p_flags(t.c, C.int(fs), &flags))
	return P2PFlags(flags), s
}

func (t *cudaTable) barBytes(ordinal int) (int64, status) {
	var bytes C.uint64_t
	s := statusOf(C.stoker_bar_bytes(t.c, C.int(ordinal), &bytes))
	return int64(bytes), s
}

func (t *cudaTable) registerFile(descriptor int) (uintptr, status) {
	var handle C.uintptr_t
	s := statusOf(C.stoker_register_file(t.c, C.int(descriptor), &handle))
	return uintptr(handle), s
}

func (t *cudaTable) deregisterFile(handle uintptr) {
	C.stoker_deregister_file(t.c, C.uintptr_t(handle))
}

func (t *cudaTable) registerBuffer(d deviceHandle, base, bytes uint64) status {
	return statusOf(C.stoker_register_buffer(t.c, d.c(), C.uint64_t(base), C.uint64_t(bytes)))
}

func (t *cudaTable) deregisterBuffer(d deviceHandle, base uint64) status {
	return statusOf(C.stoker_deregister_buffer(t.c, d.c(), C.uint64_t(base)))
}

func (t *cudaTable) read(context, handle uintptr, base, bytes uint64, offset, baseOffset int64) (n int64, cuda, errno int32) {
	r := C.stoker_read(t.c, C.uintptr_t(context), C.uintptr_t(handle), C.uint64_t(base), C.uint64_t(bytes), C.int64_t(offset), C.int64_t(baseOffset))
	return int64(r.n), int32(r.cuda), int32(r.err)
}

func (t *cudaTable) readLoop(context, handle uintptr, base, bytes uint64, offset, count int64) int64 {
	return int64(C.stoker_read_loop(t.c, C.uintptr_t(context), C.uintptr_t(handle), C.uint64_t(base), C.uint64_t(bytes), C.int64_t(offset), C.int64_t(count)))
}
