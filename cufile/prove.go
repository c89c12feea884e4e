package cufile

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

// What Prove reads: enough that a route shows, little enough for any slab.
const (
	proofReads     = 16
	proofReadBytes = 1 << 20
	proofBytes     = proofReads * proofReadBytes
)

// Prove writes a temporary file of 16 MiB into dir, reads it into a slab of its own
// on the device and compares every byte, then says which way the bytes took: by the
// library's route counters (cuFile 1.15 and later, with Options.Statistics 3). That
// the library opens and reads proves nothing: it may read through host memory without
// a word. A refusal by the library is an answer, NotDirect with the reason, and so is a
// file system without direct I/O; an error is what kept Prove from asking, bytes that
// are wrong, or what could not be closed afterwards, which the device then closes.
// Other reads on the device during the proof, and ResetStatistics, blur the counters.
// It needs 16 MiB on the device and in dir and leaves nothing. ctx is looked at between
// reads.
func (d *Driver) Prove(ctx context.Context, dir string, device *Device) (Proof, error) {
	p := Proof{Dir: dir, Device: device.UUID(), CuFile: d.versions.CuFile, Stub: d.versions.Stub}
	if !d.storage {
		return p, fmt.Errorf("prove the route to %q: %w", dir, ErrNoStorage)
	}
	content, path, err := proofFile(dir)
	if err != nil {
		return p, fmt.Errorf("prove the route to %q: %w", dir, err)
	}
	err = d.readProof(ctx, path, content, device, &p)
	if err = errors.Join(err, os.Remove(path)); err != nil {
		return p, fmt.Errorf("prove the route to %q: %w", dir, err)
	}
	return p, nil
}

// refused makes of the library's refusal the answer; any other error stays one. It is
// asked before anything is closed: an error of a Close is no refusal.
func (p *Proof) refused(err error) error {
	refusal := errorOf(err)
	switch {
	case refusal == nil:
		return err
	case refusal.Code != 0:
		p.Reason = "the library refuses: " + refusal.Error()
	case refusal.Op == "open" && refusal.Errno == unix.EINVAL:
		p.Reason = "no file opens for direct I/O here: " + refusal.Error()
	default:
		return err
	}
	p.Route, p.Refusal = NotDirect, refusal
	return nil
}

// proofFile writes random bytes, to the drive and out of the page cache, so that a
// read has to come from the drive. They are others each time: the drive may still hold
// those of an earlier proof, and a read that comes too early would find them right.
func proofFile(dir string) (content []byte, path string, err error) {
	var seed [32]byte
	_, _ = crand.Read(seed[:]) // never fails
	content = make([]byte, proofBytes)
	_, _ = rand.NewChaCha8(seed).Read(content) // never fails
	file, err := os.CreateTemp(dir, ".stoker-proof-*")
	if err != nil {
		return nil, "", err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, "", errors.Join(err, os.Remove(file.Name()))
	}
	return content, file.Name(), nil
}

// readProof reads and compares between two looks at the counters.
func (d *Driver) readProof(ctx context.Context, path string, content []byte, device *Device, p *Proof) (err error) {
	slab, err := device.NewSlab(proofBytes)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := slab.Close(); closeErr != nil {
			device.gate.abandon(slab)
			err = errors.Join(err, closeErr)
		}
	}()
	if err := slab.Register(); err != nil {
		return p.refused(err)
	}
	file, err := d.OpenFile(path, FileOptions{})
	if err != nil {
		return p.refused(err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	before, countErr := d.routes(device.UUID())
	if err := readAll(ctx, file, slab, content, p); err != nil {
		return p.refused(err)
	}
	if countErr != nil {
		p.Route, p.Reason = Unknown, fmt.Sprintf("%d reads are right, and nothing says how they came: %v", p.Reads, countErr)
		return d.mentionCompat(p)
	}
	after, err := d.routes(device.UUID())
	if err != nil {
		return err
	}
	p.judge(before, after)
	return nil
}

// mentionCompat says what may lie behind reads that nobody counted.
func (d *Driver) mentionCompat(p *Proof) error {
	properties, err := d.Properties()
	if err == nil && properties.CompatAllowed() {
		p.Reason += "; compatibility mode is on, so they may have come through host memory"
	}
	return err
}

// readAll reads the whole file piece by piece and compares it.
func readAll(ctx context.Context, file *File, slab *Slab, content []byte, p *Proof) error {
	for offset := int64(0); offset < int64(len(content)); offset += proofReadBytes {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := file.ReadAt(slab, offset, proofReadBytes, offset)
		if err != nil {
			return err
		}
		p.Reads++
		p.Bytes += int64(n)
	}
	got := make([]byte, len(content))
	if err := slab.CopyOut(got, 0); err != nil {
		return err
	}
	if i := firstDifference(got, content); i >= 0 {
		return fmt.Errorf("%w: byte %d of %d is %#x, want %#x: do not use this route, and report it with the versions of driver and library",
			ErrWrongBytes, i, len(content), got[i], content[i])
	}
	return nil
}

// firstDifference is where a and b, of one length, differ first; -1 if nowhere.
func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// routes reads the device's counters.
func (d *Driver) routes(uuid UUID) (DeviceStatistics, error) {
	stats, err := d.Statistics()
	if err != nil {
		return DeviceStatistics{}, err
	}
	if stats.Level < 3 {
		return DeviceStatistics{}, fmt.Errorf("route counters: %w: they need Options.Statistics 3, not %d", ErrUnsupported, stats.Level)
	}
	for _, device := range stats.Devices {
		if device.UUID == uuid {
			return device, nil
		}
	}
	return DeviceStatistics{UUID: uuid}, nil // none counted yet
}

// judge draws the conclusion from what the counters moved by. Each read must be
// counted at least once, all of them on one direct way and none through POSIX.
func (p *Proof) judge(before, after DeviceStatistics) {
	if before.P2PReads > after.P2PReads || before.NvidiaFSReads > after.NvidiaFSReads || before.PosixReads > after.PosixReads || before.UnalignedReads > after.UnalignedReads {
		p.Route, p.Reason = Unknown, fmt.Sprintf("%d reads are right, and the library's counters were set back meanwhile", p.Reads)
		return
	}
	p.Counted = true
	p.P2PReads = after.P2PReads - before.P2PReads
	p.NvidiaFSReads = after.NvidiaFSReads - before.NvidiaFSReads
	p.PosixReads = after.PosixReads - before.PosixReads
	p.UnalignedReads = after.UnalignedReads - before.UnalignedReads
	reads := uint64(p.Reads)
	switch {
	case p.PosixReads > 0:
		p.Route, p.Reason = NotDirect, fmt.Sprintf("the library read through host memory (POSIX) %d times of %d: GPUDirect Storage is not active here", p.PosixReads, reads)
	case p.P2PReads >= reads && p.NvidiaFSReads == 0:
		p.Route, p.Reason = PCIP2PDMA, fmt.Sprintf("%d reads by PCI P2PDMA, none through host memory", p.P2PReads)
	case p.NvidiaFSReads >= reads && p.P2PReads == 0:
		p.Route, p.Reason = NvidiaFS, fmt.Sprintf("%d reads by nvidia-fs, none through host memory", p.NvidiaFSReads)
	default:
		p.Route = Unknown
		p.Reason = fmt.Sprintf("%d reads are right, and the counters do not agree: %d by PCI P2PDMA, %d by nvidia-fs, none through host memory", reads, p.P2PReads, p.NvidiaFSReads)
	}
}
