package cufile

import (
	"encoding/binary"
	"fmt"
)

// Offsets in the library's statistics, in bytes; abi.h asserts the same.
//
//	+---------+------------------+---------+----------------------+
//	| level 1 | read, write hist | devices | up to 16 of a device |
//	|     512 |        256 + 256 |   4 + 4 |            248 each  |
//	+---------+------------------+---------+----------------------+
//
// From 1.19 on level 1 has 112 bytes more at its end.
const (
	level1Bytes       = 512
	level1VectorBytes = 112
	histogramsBytes   = 512
	deviceBytes       = 248
	maxDevices        = 16
)

// Statistics reads the storage library's counters, at the level of
// Options.Statistics. ErrUnsupported where the library has none (before cuFile
// 1.15) or none were asked for.
func (d *Driver) Statistics() (Statistics, error) {
	if !d.gate.enter() {
		return Statistics{}, closed("read statistics", "")
	}
	defer d.gate.leave()
	if err := d.countable(); err != nil {
		return Statistics{}, err
	}
	raw, s := d.table.readStatistics(d.counting)
	if s.failed() {
		return Statistics{}, s.error("")
	}
	return decodeStatistics(raw, d.counting, d.has(vectoredReads)), nil
}

// ResetStatistics sets the counters to zero.
func (d *Driver) ResetStatistics() error {
	if !d.gate.enter() {
		return closed("reset statistics", "")
	}
	defer d.gate.leave()
	if err := d.countable(); err != nil {
		return err
	}
	return d.table.resetStatistics().err("")
}

func (d *Driver) countable() error {
	switch {
	case d.counting > 0:
		return nil
	case !d.storage:
		return fmt.Errorf("statistics: %w: opened without the storage library", ErrNoStorage)
	case d.options.Statistics == 0:
		return fmt.Errorf("statistics: %w: opened with Options.Statistics 0", ErrUnsupported)
	}
	return fmt.Errorf("statistics: %w: cuFile %s has none, they came with 1.15", ErrUnsupported, versionText(d.versions.CuFile))
}

// decodeStatistics reads what the library wrote. vectors says that level 1 is the
// longer one.
func decodeStatistics(raw []byte, level int, vectors bool) Statistics {
	word := func(offset int) uint64 { return binary.NativeEndian.Uint64(raw[offset:]) }
	counter := func(offset int) Counter { return Counter{word(offset), word(offset + 8)} }
	stats := Statistics{
		Level: level, Reads: counter(0), HandleRegisters: counter(32), HandleDeregisters: counter(48),
		BufferRegisters: counter(64), BufferDeregisters: counter(80), ReadBytes: word(96),
	}
	histograms := level1Bytes
	if vectors {
		histograms += level1VectorBytes
	}
	if level >= 2 {
		for i := range stats.ReadSizes {
			stats.ReadSizes[i] = word(histograms + 8*i)
		}
	}
	if level >= 3 {
		devices := histograms + histogramsBytes
		count := min(binary.NativeEndian.Uint32(raw[devices:]), maxDevices)
		for i := range int(count) {
			stats.Devices = append(stats.Devices, decodeDevice(raw[devices+8+i*deviceBytes:]))
		}
	}
	return stats
}

func decodeDevice(raw []byte) DeviceStatistics {
	word := func(offset int) uint64 { return binary.NativeEndian.Uint64(raw[offset:]) }
	d := DeviceStatistics{
		ReadBytes: word(16), ReadUtilisationPerc: word(32), ReadDurationMicros: word(40),
		Reads: word(48), P2PReads: word(56), NvidiaFSReads: word(64), PosixReads: word(72),
		UnalignedReads: word(80), RoutedReads: word(88), SparseRegions: word(96), InlineRegions: word(104),
		ReadErrors: word(112), Registrations: word(216), RegistrationErrors: word(224),
		Deregistrations: word(232), RegisteredBytes: word(240),
	}
	copy(d.UUID[:], raw)
	return d
}

// Properties reads what the storage library's driver says of itself.
func (d *Driver) Properties() (Properties, error) {
	if !d.gate.enter() {
		return Properties{}, closed("read properties", "")
	}
	defer d.gate.leave()
	properties, s := d.table.properties()
	return properties, d.optional(s, "properties", "1.0")
}

// P2PFlags says which ways the library may take to a kind of storage;
// ErrUnsupported before cuFile 1.16.
func (d *Driver) P2PFlags(fs FileSystem) (P2PFlags, error) {
	if !d.gate.enter() {
		return 0, closed("read P2P flags", "")
	}
	defer d.gate.leave()
	flags, s := d.table.p2pFlags(fs)
	return flags, d.optional(s, "P2P flags", "1.16")
}
