package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// DeviceOptions say how to measure what a disk does by itself. Only Dir must be given.
type DeviceOptions struct {
	// Dir is on the disk to be measured. A file is made there, and removed again.
	Dir string
	// FileBytes is the size of that file, rounded down to whole SyncBytes. What a disk's
	// own cache holds is measured as that cache. Default 256 MiB.
	FileBytes int64
	// SyncBytes is how much is written at once and made durable before the next.
	// Default 8 MiB: a chunk.
	SyncBytes int64
	// Depth is how many reads are under way. Default 32.
	Depth int
	// Section bounds the time of each kind of reads; writing ends with the file.
	// Default 2 s.
	Section time.Duration
}

// EnsureDefaults puts the documented defaults in place of zero values.
func (o *DeviceOptions) EnsureDefaults() {
	if o.FileBytes <= 0 {
		o.FileBytes = 256 << 20
	}
	if o.SyncBytes <= 0 {
		o.SyncBytes = 8 << 20
	}
	if o.Depth <= 0 {
		o.Depth = 32
	}
	if o.Section <= 0 {
		o.Section = 2 * time.Second
	}
}

// DeviceReport is what a disk does when nothing but bare loops asks for it.
type DeviceReport struct {
	Direct bool `json:"direct"` // O_DIRECT: the page cache takes no part
	// Refused says why Direct is false. Reads then go through a page cache that was
	// emptied before, and are made once.
	Refused   string      `json:"direct_refused,omitempty"`
	FileBytes int64       `json:"file_bytes"`
	Rows      []DeviceRow `json:"rows"`
}

// DeviceRow is one bare loop.
type DeviceRow struct {
	Pattern    string  `json:"pattern"`
	BlockBytes int64   `json:"block_bytes"`
	Depth      int     `json:"depth"` // under way at once
	Bytes      int64   `json:"bytes"`
	Seconds    float64 `json:"seconds"`
	MBPS       float64 `json:"mb_per_s"`
	PerSecond  float64 `json:"blocks_per_s"`
}

// devicePattern is a way to read a file.
type devicePattern struct {
	name     string
	block    int64
	shuffled bool
}

// order is which block each turn reads, of so many.
func (p devicePattern) order(blocks int64, seed uint64) func(turn int64) int64 {
	if !p.shuffled {
		return func(turn int64) int64 { return turn % blocks }
	}
	shuffled := permutation(int(blocks), seed)
	return func(turn int64) int64 { return int64(shuffled[turn%blocks]) }
}

// deviceWrites is the pattern of the loop that writes and makes durable.
const deviceWrites = "write and fdatasync"

func devicePatterns() []devicePattern {
	return []devicePattern{{"sequential 1 MiB", 1 << 20, false}, {"shuffled 100 KiB", 100 << 10, true}, {"shuffled 4 KiB", 4 << 10, true}}
}

// Device measures a disk: how fast a file is written and made durable piece by piece, and
// how fast it is read in several patterns with many reads under way. Errors: those of the
// disk, bytes that are not those that were written, and the cause of ctx.
func Device(ctx context.Context, o DeviceOptions) (_ *DeviceReport, err error) {
	d, err := openDevice(o)
	if err != nil {
		return nil, fmt.Errorf("measure the disk of %q: %w", o.Dir, err)
	}
	defer func() { err = errors.Join(err, d.close()) }()
	row, err := d.write(ctx)
	if err != nil {
		return nil, err
	}
	report := &DeviceReport{FileBytes: d.size, Rows: []DeviceRow{row}}
	for i, p := range devicePatterns() {
		if row, err = d.read(ctx, p, uint64(i)); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		report.Rows = append(report.Rows, row)
	}
	report.Direct, report.Refused = d.refused == "", d.refused
	return report, nil
}

// device is a file on a disk that is being measured.
type device struct {
	o       DeviceOptions
	path    string
	file    *os.File
	refused string // why reads and writes are not direct; "": they are
	size    int64
}

// openDevice makes the file, with its space but without content. The caller closes it.
func openDevice(o DeviceOptions) (*device, error) {
	o.EnsureDefaults()
	if o.FileBytes < o.SyncBytes || o.SyncBytes%deviceBlock != 0 {
		return nil, fmt.Errorf("a file of %d bytes in pieces of %d: need one piece at least, in whole blocks of %d", o.FileBytes, o.SyncBytes, deviceBlock)
	}
	f, err := os.CreateTemp(o.Dir, "stoker-device-*")
	if err != nil {
		return nil, err
	}
	d := &device{o: o, path: f.Name(), file: f, size: o.FileBytes / o.SyncBytes * o.SyncBytes}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, d.size); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return nil, errors.Join(fmt.Errorf("allocate %d bytes of %q: %w", d.size, d.path, err), d.close())
	}
	if err := d.openDirect(); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *device) close() error { return errors.Join(d.file.Close(), os.Remove(d.path)) }

// deviceBlock is what offsets, lengths and addresses are multiples of.
const deviceBlock = 4096

// openDirect opens the file anew without the page cache, or notes why that cannot be.
func (d *device) openDirect() error {
	if name := filesystem(d.o.Dir); inMemory(name) {
		d.refused = name + " keeps files in memory"
		return nil
	}
	var stat unix.Statx_t
	err := unix.Statx(int(d.file.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &stat)
	if err == nil && stat.Mask&unix.STATX_DIOALIGN != 0 && (stat.Dio_offset_align == 0 || stat.Dio_offset_align > deviceBlock || stat.Dio_mem_align > deviceBlock) {
		d.refused = fmt.Sprintf("the filesystem has no direct reads of blocks of %d bytes", deviceBlock)
		return nil
	}
	fd, err := unix.Open(d.path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		d.refused = "the filesystem refuses O_DIRECT"
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %q: %w", d.path, err)
	}
	buffered := d.file
	d.file = os.NewFile(uintptr(fd), d.path)
	return buffered.Close()
}

// inMemory reports whether a filesystem has no disk.
func inMemory(filesystem string) bool { return filesystem == "tmpfs" || filesystem == "ramfs" }

// deviceSalt is of the numbers at the beginning of each block.
const deviceSalt = 0x6465_7669_0000_0000

func blockStamp(block int64) uint64 { return mix(deviceSalt + uint64(block)) }

// write fills the file, piece by piece, each durable before the next.
func (d *device) write(ctx context.Context) (DeviceRow, error) {
	piece, free, err := mapped(d.o.SyncBytes)
	if err != nil {
		return DeviceRow{}, err
	}
	fillWords(piece, deviceSalt, 1<<40) // what a disk could compress would be no measure
	loop := turns{flights: 1, count: d.size / d.o.SyncBytes}
	done, err := loop.run(ctx, func(_ int, turn int64) (int64, error) {
		at := turn * d.o.SyncBytes
		for block := int64(0); block < d.o.SyncBytes; block += deviceBlock {
			binary.LittleEndian.PutUint64(piece[block:], blockStamp((at+block)/deviceBlock))
		}
		n, err := d.file.WriteAt(piece, at)
		if err == nil {
			err = unix.Fdatasync(int(d.file.Fd()))
		}
		return int64(n), err
	})
	if err != nil {
		err = fmt.Errorf("write %q: %w", d.path, err)
	}
	return deviceRow(deviceWrites, d.o.SyncBytes, 1, done), errors.Join(err, free())
}

// read reads blocks until the section is over, or each once where the page cache would
// have them the second time.
func (d *device) read(ctx context.Context, p devicePattern, seed uint64) (DeviceRow, error) {
	blocks := d.size / p.block
	order := p.order(blocks, seed)
	buffers, free, err := mapped(int64(d.o.Depth) * p.block)
	if err != nil {
		return DeviceRow{}, err
	}
	loop := turns{flights: d.o.Depth, within: d.o.Section}
	if d.refused != "" {
		loop.count = blocks
		err = evictFile(d.path)
	}
	var done turned
	if err == nil {
		done, err = loop.run(ctx, func(flight int, turn int64) (int64, error) {
			return p.block, d.readBlock(buffers[int64(flight)*p.block:][:p.block], order(turn)*p.block)
		})
	}
	if err == nil && d.refused == "" {
		err = d.checkDirect()
	}
	return deviceRow(p.name, p.block, d.o.Depth, done), errors.Join(err, free())
}

// readBlock reads one block and looks whether it is the right one.
func (d *device) readBlock(p []byte, at int64) error {
	if _, err := d.file.ReadAt(p, at); err != nil {
		return err
	}
	return d.check(p, at)
}

// check looks whether a block has the right bytes.
func (d *device) check(p []byte, at int64) error {
	if got, want := binary.LittleEndian.Uint64(p), blockStamp(at/deviceBlock); got != want {
		return fmt.Errorf("%q has %#x at %d, and %#x was written", d.path, got, at, want)
	}
	return nil
}

// checkDirect asks whether direct reads have left the page cache alone.
func (d *device) checkDirect() error {
	cached, all, err := cachedPages(d.path)
	if err == nil && cached > all/100 {
		d.refused = "the filesystem takes O_DIRECT and reads through the page cache all the same"
	}
	return err
}

func deviceRow(pattern string, block int64, depth int, t turned) DeviceRow {
	return DeviceRow{
		Pattern: pattern, BlockBytes: block, Depth: depth, Bytes: t.bytes, Seconds: t.took.Seconds(),
		MBPS: t.perSecond() / 1e6, PerSecond: t.perSecond() / float64(block),
	}
}
