package shm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLayout is returned for memory that is not a ring of a layout we know.
var ErrLayout = errors.New("not a ring of a known layout")

// Consumer is the trainer's side of a ring, in Go: the daemon uses it for
// sessions that cannot map memory, benchmarks and tests to act as a trainer.
// It is for one goroutine.
type Consumer struct {
	mem      []byte
	owned    bool // mem was mapped here
	geometry Geometry
	taken    uint64
}

// NewConsumer reads from a ring of the same process.
func NewConsumer(r *Ring) *Consumer {
	return &Consumer{mem: r.mem, geometry: r.geometry}
}

// MapConsumer maps the descriptor that a daemon passed. The descriptor stays the
// caller's. Errors: ErrLayout, or the failing system call's.
func MapConsumer(fd int) (*Consumer, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("stat ring: %w", err)
	}
	if st.Size < HeaderBytes {
		return nil, fmt.Errorf("%w: %d bytes", ErrLayout, st.Size)
	}
	mem, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map ring: %w", err)
	}
	c := &Consumer{mem: mem, owned: true}
	if c.geometry, err = readGeometry(mem); err != nil {
		return nil, errors.Join(err, unix.Munmap(mem))
	}
	c.taken = load64(mem, offTaken)
	return c, nil
}

// readGeometry reads and checks a ring's header.
func readGeometry(mem []byte) (Geometry, error) {
	if len(mem) < HeaderBytes || load64(mem, offMagic) != Magic {
		return Geometry{}, fmt.Errorf("%w: wrong magic", ErrLayout)
	}
	if v := load32(mem, offLayout); v != Layout {
		return Geometry{}, fmt.Errorf("%w: layout %d, this release reads %d", ErrLayout, v, Layout)
	}
	slots, slotBytes := int(load32(mem, offSlots)), load64(mem, offSlotBytes)
	if slots < MinSlots || slots > MaxSlots || slotBytes == 0 || slotBytes > uint64(MaxSlotBytes) {
		return Geometry{}, fmt.Errorf("%w: %d slots of %d bytes", ErrLayout, slots, slotBytes)
	}
	want := NewGeometry(slots, int64(slotBytes))
	found := Geometry{
		Slots: slots, QueueEntries: int(load32(mem, offQueueEntries)), SlotBytes: int64(slotBytes),
		QueueOffset: int64(load64(mem, offQueueOffset)), ReleasedOffset: int64(load64(mem, offReleasedOffset)),
		SlotsOffset: int64(load64(mem, offSlotsOffset)), TotalBytes: int64(load64(mem, offTotalBytes)),
	}
	if found != want || want.TotalBytes > int64(len(mem)) {
		return Geometry{}, fmt.Errorf("%w: header says %+v in %d bytes", ErrLayout, found, len(mem))
	}
	return found, nil
}

// Take returns the next entry, waiting for it up to bound. ok is false when none
// came. The entry's slot must be given to Release.
func (c *Consumer) Take(bound time.Duration) (e Entry, ok bool) {
	if !c.ready() && bound > 0 {
		c.wait(bound)
	}
	if !c.ready() {
		return Entry{}, false
	}
	index := int64(c.taken % uint64(c.geometry.QueueEntries))
	start := c.geometry.QueueOffset + index*EntryBytes
	e = decodeEntry(c.mem[start : start+EntryBytes])
	c.taken++
	store64(c.mem, offTaken, c.taken)
	c.signal()
	return e, true
}

func (c *Consumer) ready() bool { return load64(c.mem, offPublished) > c.taken }

func (c *Consumer) wait(bound time.Duration) {
	deadline := time.Now().Add(bound)
	for {
		seen := load32(c.mem, offReadyWord)
		store32(c.mem, offTrainerWaiting, 1)
		left := time.Until(deadline)
		if c.ready() || left <= 0 {
			break
		}
		sleepWord(c.mem, offReadyWord, seen, min(left, sleepBound))
	}
	store32(c.mem, offTrainerWaiting, 0)
}

// Slot returns the used bytes of an entry's slot, nil if the entry's claims do
// not fit the ring. They stay valid until Release.
func (c *Consumer) Slot(e Entry) []byte {
	if e.Slot >= uint32(c.geometry.Slots) || e.Bytes > uint64(c.geometry.SlotBytes) {
		return nil
	}
	start := c.geometry.SlotsOffset + int64(e.Slot)*c.geometry.SlotBytes
	return c.mem[start : start+int64(e.Bytes)]
}

// Release gives an entry's slot back. Releasing twice is harmless.
func (c *Consumer) Release(e Entry) {
	if e.Slot >= uint32(c.geometry.Slots) {
		return
	}
	store64(c.mem, c.geometry.ReleasedOffset+int64(e.Slot)*8, e.Generation)
	c.signal()
}

// signal tells the daemon that something was taken or released. release_word has
// one writer at a time, the trainer's iterating thread.
func (c *Consumer) signal() {
	store32(c.mem, offReleaseWord, load32(c.mem, offReleaseWord)+1)
	if load32(c.mem, offDaemonWaiting) != 0 {
		wakeWord(c.mem, offReleaseWord)
	}
}

// Close unmaps what MapConsumer mapped.
func (c *Consumer) Close() error {
	if !c.owned {
		return nil
	}
	c.owned = false
	return unix.Munmap(c.mem)
}

// ParseBatch reads the column table of a batch and checks that everything it
// names lies within slot.
func ParseBatch(slot []byte) (rows int, columns []Column, err error) {
	if len(slot) < 8 {
		return 0, nil, fmt.Errorf("%w: batch of %d bytes", ErrLayout, len(slot))
	}
	le := binary.LittleEndian
	count := int64(le.Uint32(slot))
	if BatchHeaderBytes(int(count)) > int64(len(slot)) {
		return 0, nil, fmt.Errorf("%w: %d columns in %d bytes", ErrLayout, count, len(slot))
	}
	within := func(offset, length uint64) bool {
		return offset <= uint64(len(slot)) && length <= uint64(len(slot))-offset
	}
	for i := range count {
		b := slot[8+i*ColumnEntryBytes:]
		c := Column{le.Uint64(b), le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:])}
		if !within(c.ValuesOffset, c.ValuesBytes) || !within(c.OffsetsOffset, c.OffsetsBytes) {
			return 0, nil, fmt.Errorf("%w: column %d lies at %+v in %d bytes", ErrLayout, i, c, len(slot))
		}
		columns = append(columns, c)
	}
	return int(le.Uint32(slot[4:])), columns, nil
}
