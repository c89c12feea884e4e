//go:build race

package flash

// offHeap is memory that the race detector can watch.
func offHeap[T any](n int) (values []T, release func()) { return make([]T, n), func() {} }
