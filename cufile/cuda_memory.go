//go:build cgo && linux

package cufile

// #include "shim.h"
import "C"

import (
	"syscall"
	"unsafe"
)

func (s segment) c() C.stoker_segment {
	return C.stoker_segment{
		address: C.uint64_t(s.address), allocation: C.uint64_t(s.allocation),
		bytes: C.uint64_t(s.bytes), granularity: C.uint64_t(s.granularity), parts: C.uint32_t(s.parts),
	}
}

func segmentOf(c C.stoker_segment) segment {
	return segment{uint64(c.address), uint64(c.allocation), uint64(c.bytes), uint64(c.granularity), uint32(c.parts)}
}

func (t *cudaTable) create(d deviceHandle, kind SlabKind, bytes uint64, direct bool) (segment, status) {
	var c C.stoker_segment
	if kind == SlabLegacy {
		s := statusOf(C.stoker_create_legacy(t.c, d.c(), C.uint64_t(bytes), &c))
		return segmentOf(c), s
	}
	s := statusOf(C.stoker_create(t.c, d.c(), C.uint64_t(bytes), cBool(direct), &c))
	return segmentOf(c), s
}

func cBool(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

func (t *cudaTable) receive(d deviceHandle, descriptor int, bytes uint64, writable bool) (segment, status) {
	var c C.stoker_segment
	s := statusOf(C.stoker_import(t.c, d.c(), C.int(descriptor), C.uint64_t(bytes), cBool(writable), &c))
	return segmentOf(c), s
}

func (t *cudaTable) receiveLegacy(d deviceHandle, handle *[ipcHandleBytes]byte, bytes uint64) (segment, status) {
	var c C.stoker_segment
	s := statusOf(C.stoker_import_legacy(t.c, d.c(), (*C.char)(unsafe.Pointer(handle)), C.uint64_t(bytes), &c))
	return segmentOf(c), s
}

func (t *cudaTable) destroy(d deviceHandle, s *segment) status {
	c := s.c()
	st := statusOf(C.stoker_destroy(t.c, d.c(), &c))
	s.parts = uint32(c.parts) // all else stays: Slab.Address reads it without a lock
	return st
}

// export holds back forks until the descriptor is close-on-exec.
func (t *cudaTable) export(d deviceHandle, s segment) (int, status) {
	var descriptor C.int
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	st := statusOf(C.stoker_export(t.c, d.c(), s.c(), &descriptor))
	return int(descriptor), st
}

func (t *cudaTable) exportLegacy(d deviceHandle, s segment) (handle [ipcHandleBytes]byte, st status) {
	st = statusOf(C.stoker_export_legacy(t.c, d.c(), s.c(), (*C.char)(unsafe.Pointer(&handle[0]))))
	return handle, st
}
