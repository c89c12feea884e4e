//go:build cgo && linux

package cufile

/*
#cgo CFLAGS: -std=gnu11 -O2 -Wall -Wextra -Werror=implicit-function-declaration
#cgo LDFLAGS: -ldl
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"syscall"
	"unsafe"
)

// cudaTable is NVIDIA's table.
type cudaTable struct{ c *C.stoker_table }

// newTable makes an empty one.
func newTable() (table, error) {
	c := C.stoker_new()
	if c == nil {
		return nil, syscall.ENOMEM
	}
	return &cudaTable{c}, nil
}

// statusOf takes over what C answered; a failure's text is C's constant.
func statusOf(s C.stoker_status) status {
	if s.op == nil {
		return status{}
	}
	return status{C.GoString(s.op), int(s.code), int(s.cuda), syscall.Errno(s.err)}
}

func (t *cudaTable) free() { C.stoker_free(t.c) }

func (t *cudaTable) load(which library, name string) (string, bool) {
	c := C.CString(name)
	defer C.free(unsafe.Pointer(c))
	var text [4096]byte
	ok := C.stoker_load(t.c, C.int(which), c, (*C.char)(unsafe.Pointer(&text[0])), C.size_t(len(text)))
	return untilNUL(text[:]), ok != 0
}

func (t *cudaTable) symbols() []symbol {
	var all []symbol
	var s C.stoker_symbol
	for i := 0; C.stoker_symbol_at(t.c, C.int(i), &s) != 0; i++ {
		all = append(all, symbol{
			Symbol: Symbol{
				Name: C.GoString(s.name), Library: nvidia.libraries[s.library].name,
				Since: C.GoString(s.since), Found: s.found != 0,
			},
			needed: s.needed != 0,
		})
	}
	return all
}

func (t *cudaTable) stub() bool { return C.stoker_is_stub(t.c) != 0 }

func (t *cudaTable) start() (version, devices int, s status) {
	var v, n C.int
	s = statusOf(C.stoker_start(t.c, &v, &n))
	return int(v), int(n), s
}

func (t *cudaTable) describe(ordinal int) (DeviceInfo, status) {
	var c C.stoker_device_info
	s := statusOf(C.stoker_describe(t.c, C.int(ordinal), &c))
	info := DeviceInfo{
		Ordinal: ordinal, Name: C.GoString(&c.name[0]), PCI: C.GoString(&c.pci[0]), Bytes: int64(c.bytes),
		Major: int(c.major), Minor: int(c.minor),
		VirtualMemory: c.virtual_memory != 0, DescriptorExport: c.descriptor != 0,
		DirectVirtualMemory: c.direct_virtual != 0, ReadOnlyHost: c.read_only_host != 0, DirectMemory: c.direct != 0,
	}
	copy(info.UUID[:], C.GoBytes(unsafe.Pointer(&c.uuid[0]), 16))
	return info, s
}

func (d deviceHandle) c() C.stoker_device {
	return C.stoker_device{device: C.int32_t(d.device), context: C.uintptr_t(d.context), stream: C.uintptr_t(d.stream)}
}

func deviceOf(c C.stoker_device) deviceHandle {
	return deviceHandle{int32(c.device), uintptr(c.context), uintptr(c.stream)}
}

func (t *cudaTable) retain(ordinal int) (deviceHandle, status) {
	var c C.stoker_device
	s := statusOf(C.stoker_retain(t.c, C.int(ordinal), &c))
	return deviceOf(c), s
}

func (t *cudaTable) release(d *deviceHandle) status {
	c := d.c()
	s := statusOf(C.stoker_release(t.c, &c))
	*d = deviceOf(c)
	return s
}

func (t *cudaTable) memory(d deviceHandle) (free, total uint64, s status) {
	var f, a C.uint64_t
	s = statusOf(C.stoker_memory(t.c, d.c(), &f, &a))
	return uint64(f), uint64(a), s
}

// start is where the bytes begin.
func start(p []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(p)) }

func (t *cudaTable) registerHost(d deviceHandle, p []byte) status {
	return statusOf(C.stoker_register_host(t.c, d.c(), start(p), C.size_t(len(p))))
}

func (t *cudaTable) unregisterHost(d deviceHandle, p []byte) status {
	return statusOf(C.stoker_unregister_host(t.c, d.c(), start(p)))
}

func (t *cudaTable) copyIn(d deviceHandle, to uint64, p []byte) status {
	return statusOf(C.stoker_copy_in(t.c, d.c(), C.uint64_t(to), start(p), C.size_t(len(p))))
}

func (t *cudaTable) copyOut(d deviceHandle, p []byte, from uint64) status {
	return statusOf(C.stoker_copy_out(t.c, d.c(), start(p), C.uint64_t(from), C.size_t(len(p))))
}
