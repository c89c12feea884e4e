//go:build !cgo || !linux

package inventory

import "context"

// Read says that this program cannot ask: NVML is a C library.
func Read(context.Context, Options) Inventory {
	return Inventory{Absent: "this program was built without cgo, so it cannot ask NVIDIA's driver", GPUs: []GPU{}}
}
