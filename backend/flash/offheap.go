//go:build !race

package flash

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// offHeap returns memory for n values without pointers, all zero, that the garbage
// collector neither reads nor counts: a million chunks' slots would otherwise let the
// heap grow by as much again before it is collected. After release it must not be used.
func offHeap[T any](n int) (values []T, release func()) {
	var one T
	if n == 0 {
		return nil, func() {}
	}
	p, err := unix.Mmap(-1, 0, n*int(unsafe.Sizeof(one)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		panic(fmt.Sprintf("map %d bytes of memory: %v", n*int(unsafe.Sizeof(one)), err)) // as if make had failed
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(p))), n), func() { _ = unix.Munmap(p) }
}
