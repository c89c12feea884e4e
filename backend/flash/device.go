package flash

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// device is a directory of segments.
type device struct {
	store    *Store
	number   int // of refs
	path     string
	id       deviceID
	files    Files
	lock     io.Closer
	geometry *geometry
	segments atomic.Pointer[[]*segment] // by number, nil for those that are not; replaced, never changed
	removing []atomic.Int64             // by class: extents that will be free after a round
	noDirect atomic.Bool                // reading past the page cache was refused
	readers  readers
	slabs    slabs
	syncer   syncer
	mover    mover
	scrubber scrubber
	counters counters
	health   health
	ready    atomic.Bool      // its chunks are found: it is used
	kept     map[string]int64 // bytes of segments' files that are left alone, by their names; guarded by mu once the device is open

	mu struct {
		sync.Mutex
		limit     int64 // bytes of all files
		bytes     int64 // of them, in use
		full      bool  // the file system has no room for more segments
		growing   bool  // somebody makes a segment
		classes   []classState
		freeSpans []*spanPlace
		changed   chan struct{} // closed, and replaced, when there may be room
		written   int64         // bytes of extents that were taken: the clock of the hands
		donating  *span         // that is taken from its class
		closed    bool
	}
}

// spanPlace is a span of no class.
type spanPlace struct {
	segment *segment
	number  uint32
	refused int64 // bytes of records for which the file system had no room
}

// Names in a device's directory.
const (
	manifestName = "format.json"
	lockName     = "LOCK"
	scrubName    = "scrub.json" // how far the scrubber is
	asideFolder  = "aside"      // what Check moved out of the way
)

// openDevice opens a directory and finds its chunks.
func (s *Store) openDevice(ctx context.Context, number int, o Device) (_ *device, err error) {
	d := &device{store: s, number: number, path: o.Path, files: o.Files}
	if d.files == nil {
		if d.files, err = OpenDirectory(o.Path); err != nil {
			return nil, err
		}
	}
	note := fmt.Sprintf("process %d", os.Getpid())
	if d.lock, err = d.files.Lock(lockName, note); err != nil {
		if errors.Is(err, ErrLocked) {
			err = fmt.Errorf("%w; one store uses a directory: stop it, or give this one another directory", err)
		}
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.abandon())
		}
	}()
	if err := d.prepare(&o); err != nil {
		return nil, err
	}
	d.mu.changed = make(chan struct{})
	d.mu.classes = make([]classState, len(d.geometry.classes))
	d.removing = make([]atomic.Int64, len(d.geometry.classes))
	d.segments.Store(new([]*segment))
	d.counters.live = make([]liveCount, len(d.geometry.classes))
	d.syncer.init(d)
	d.mover.init(d)
	d.scrubber.init(d)
	d.readers.init(d)
	s.devices[number].Store(d)
	if err := d.recover(ctx); err != nil {
		return nil, err
	}
	d.syncer.start()
	d.mover.start()
	d.scrubber.start()
	d.setLimit(d.mu.limit) // it may be lower than it was; wakes the mover, also for segments that are not written any more
	d.ready.Store(true)
	return d, nil
}

// abandon forgets the chunks that were found on a device that could not be opened, and
// closes what it has open.
func (d *device) abandon() error {
	d.eachSlot(func(_ *span, _ uint32, slot *slot) bool {
		h, hash := d.store.index.shardOf(&slot.id)
		h.remove(d.store.index.find(h, hash, &slot.id))
		slot.become(doomed)
		return true
	})
	d.store.devices[d.number].Store(nil)
	var failed []error
	if all := d.segments.Load(); all != nil {
		for _, x := range *all {
			if x != nil {
				failed = append(failed, x.file.Close())
			}
		}
	}
	return errors.Join(append(failed, d.lock.Close())...)
}

// prepare reads what the directory is, or makes it one.
func (d *device) prepare(o *Device) error {
	statistics, err := d.files.Statistics()
	if err != nil {
		return err
	}
	m, err := d.readManifest()
	if errors.Is(err, fs.ErrNotExist) {
		if err := d.refuseStrangers(); err != nil {
			return err
		}
		err = d.makeManifest(o, &statistics)
	}
	if err != nil {
		return err
	}
	if d.geometry == nil {
		d.geometry = newGeometry(m.SpanBytes, m.SegmentSpans)
	}
	d.mu.limit = o.LimitBytes
	if d.mu.limit <= 0 {
		used, err := d.bytesOnDisk()
		if err != nil {
			return err
		}
		d.mu.limit = (statistics.FreeBytes + used) / 10 * 9
	}
	d.mu.limit = min(d.mu.limit, Unlimited)
	d.warn(&statistics)
	return nil
}

// Unlimited is a limit that no device has room for: the file system is what ends it. For who
// only looks at a directory, which must not be emptied. Greater limits are lowered to it.
const Unlimited = 1 << 60

func (d *device) readManifest() (m manifest, err error) {
	f, err := d.files.Open(manifestName, false)
	if err != nil {
		return m, err
	}
	text := make([]byte, pageBytes)
	n, err := f.ReadAt(text, 0)
	if closed := f.Close(); err == nil || errors.Is(err, io.EOF) {
		err = closed
	}
	if err != nil {
		return m, err
	}
	m, d.id, err = decodeManifest(text[:n])
	if err != nil {
		return m, fmt.Errorf("%w; use another directory, or the program that wrote this one", err)
	}
	return m, nil
}

// refuseStrangers refuses a directory that is somebody else's.
func (d *device) refuseStrangers() error {
	names, err := d.files.List(".")
	if err != nil {
		return err
	}
	for _, name := range names {
		switch name {
		case lockName, manifestName + unfinished, scrubName, scrubName + unfinished, asideFolder, "lost+found": // lost+found: the directory is a mount point
		case segmentsFolder:
			inside, err := d.files.List(segmentsFolder)
			if err != nil {
				return err
			}
			if len(inside) > 0 {
				return fmt.Errorf("it has segments but no %s: it cannot be said how they are divided; stoker cache check --repair may find out", manifestName)
			}
		default:
			return fmt.Errorf("it is no directory of flash chunks and not empty: it has %q; give an empty directory", name)
		}
	}
	return nil
}

// makeManifest makes the directory one of segments, durably.
func (d *device) makeManifest(o *Device, statistics *Statistics) error {
	capacity := o.LimitBytes
	if capacity <= 0 {
		capacity = statistics.FreeBytes / 10 * 9
	}
	spanBytes, spans := geometryFor(capacity)
	if o.SpanBytes != 0 {
		spanBytes = o.SpanBytes
	}
	if o.SegmentSpans != 0 {
		spans = o.SegmentSpans
	}
	if !geometryIsSane(spanBytes, spans) {
		return fmt.Errorf("%d spans of %d bytes make no segment: 1 to %d spans of a power of two of at least %d and at most %d bytes",
			spans, spanBytes, maxSegmentSpans, minSpanBytes, maxSpanBytes)
	}
	_, _ = rand.Read(d.id[:])
	d.geometry = newGeometry(spanBytes, spans)
	m := manifest{Format: manifestFormat, Version: FormatVersion, Device: hex.EncodeToString(d.id[:]), SpanBytes: spanBytes, SegmentSpans: spans}
	if err := d.files.MakeDirectory(segmentsFolder); err != nil {
		return err
	}
	return replaceFile(d.files, manifestName, m.encode())
}

// replaceFile makes a small file have that content, durably: a crash leaves the old one or
// the new one.
func replaceFile(files Files, name string, content []byte) error {
	made := name + unfinished
	if err := files.Remove(made); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := files.Open(made, true)
	if err != nil {
		return err
	}
	if err := errors.Join(writeAll(f, content, 0), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := files.SyncDirectory("."); err != nil { // what the file speaks of is there before it is
		return err
	}
	if err := files.Rename(made, name); err != nil {
		return err
	}
	return files.SyncDirectory(".")
}

// bytesOnDisk is what the directory's segments take.
func (d *device) bytesOnDisk() (total int64, err error) {
	names, err := d.files.List(segmentsFolder)
	if err != nil {
		return 0, err
	}
	type taken struct {
		bytes int64
		err   error
	}
	inOrder(len(names), func(i int) (t taken) {
		f, err := d.files.Open(segmentsFolder+"/"+names[i], false)
		if err != nil {
			return t // said when the segments are opened
		}
		t.bytes, t.err = f.Size()
		t.err = errors.Join(t.err, f.Close())
		return t
	}, func(_ int, t taken) {
		total += t.bytes
		err = errors.Join(err, t.err)
	})
	return total, err
}

// nearlyFull is the part of a file system, one in so many, below which free room is worth
// a warning.
const nearlyFull = 20

// warn says what of the directory is not as flash should be.
func (d *device) warn(statistics *Statistics) {
	warn := func(detail string) {
		d.store.event(Event{Kind: DeviceWarning, Device: d.path, Detail: detail})
	}
	switch statistics.Type {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
		warn("it is memory (tmpfs), not flash: it is lost when the machine restarts, and counts as memory of it")
	case unix.OVERLAYFS_SUPER_MAGIC:
		warn("it is a container's own layer (overlay): slower, and lost with the container; mount a directory of the host")
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC:
		warn("it is a network or user-space file system: its locks, its syncs and its speed are another machine's or program's")
	}
	if statistics.ReadOnly {
		warn("it is mounted read-only: nothing can be kept there")
	}
	if room := d.mu.limit - statistics.FreeBytes; room > 0 && d.mu.limit < Unlimited {
		if used, err := d.bytesOnDisk(); err == nil && used < room {
			warn(fmt.Sprintf("the limit is %d bytes and the file system has %d free: it will end earlier", d.mu.limit, statistics.FreeBytes+used))
		}
	}
	if statistics.FreeBytes < statistics.AllBytes/nearlyFull {
		warn(fmt.Sprintf("the file system is nearly full: %d of %d bytes are free", statistics.FreeBytes, statistics.AllBytes))
	}
}

// rest ends what the device does by itself, but for its syncs. No call is in progress.
func (d *device) rest() {
	d.mu.Lock()
	d.mu.closed = true
	d.broadcast()
	d.mu.Unlock()
	d.scrubber.stop()
	d.mover.stop()
	d.readers.stop()
}

// close closes the files. Nothing is pending on any device of the store.
func (d *device) close() error {
	var failed []error
	for _, x := range *d.segments.Load() {
		if x == nil {
			continue
		}
		failed = append(failed, x.file.Close())
		for _, span := range x.spans {
			if span != nil && !span.isHeld() { // else who holds it still has to release it
				span.release()
			}
		}
	}
	return errors.Join(append(failed, d.lock.Close())...)
}

// broadcast wakes who waits for room. The lock is held.
func (d *device) broadcast() {
	close(d.mu.changed)
	d.mu.changed = make(chan struct{})
}
