package bench

import (
	"context"
	"time"
)

// disk measures the disk itself, and then a consumer that needs most of what it can do.
func (b *prefetchBench) disk(ctx context.Context) error {
	device, cold := b.o.device, b.o.disk
	device.Dir, cold.DataDir, cold.Logger = b.o.DataDir, b.o.DataDir, b.o.Logger
	if b.o.Quick {
		device.Section = 500 * time.Millisecond
		cold.Repeats = 3
	}
	var err error
	if b.report.Device, err = Device(ctx, device); err != nil {
		return err
	}
	cold.Progress = b.progress
	r, err := ColdDisk(ctx, cold)
	if err != nil {
		return err
	}
	b.report.Disk = r.Rows
	b.figure("cold_disk_stall_share", r.Stalled, r.Pattern)
	b.figure("cold_disk_stall_share_without_foresight", r.Unforeseen, r.UnforeseenPattern)
	b.figure("cold_disk_device", r.DeviceMBPS, "files and tar shards")
	return nil
}
