package shm

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// checkAvailable refuses an allocation that the machine cannot serve. Without it
// fallocate would not fail: a memfd has no size limit of its own, so the kernel
// would go on taking pages until it kills somebody.
func checkAvailable(size int64) error {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return nil // no way to know; the budget of whoever asks still holds
	}
	available, ok := meminfoBytes(text, "MemAvailable")
	if ok && size > available {
		return fmt.Errorf("%w: %d bytes asked for, %d available", ErrNoMemory, size, available)
	}
	return nil
}

// meminfoBytes finds one field of /proc/meminfo, which counts in KiB.
func meminfoBytes(text []byte, field string) (int64, bool) {
	for line := range bytes.Lines(text) {
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || string(name) != field {
			continue
		}
		kib, err := strconv.ParseInt(string(bytes.TrimSuffix(bytes.TrimSpace(value), []byte(" kB"))), 10, 64)
		return kib << 10, err == nil
	}
	return 0, false
}
