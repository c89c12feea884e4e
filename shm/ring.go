package shm

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// sleepBound limits every sleep on a word that the trainer may write: a missed or
// withheld wake-up costs at most this.
const sleepBound = 50 * time.Millisecond

// Ring is the daemon's side of one session's shared memory: it hands out free
// slots, publishes entries in order, and takes back what the trainer released.
//
// Reserve and Publish may be called from several goroutines. Publish calls must
// be made in the order in which entries are to be seen.
type Ring struct {
	geometry Geometry
	memory   *Memory
	mem      []byte
	stopped  atomic.Bool

	mu struct {
		sync.Mutex
		published  uint64
		free       []uint32 // last released first: its lines are the warmest
		lent       []bool   // by slot: published and not yet given back
		generation []uint64 // by slot
		sleepers   int      // goroutines that sleep on release_word, or are about to
	}
}

// NewRing makes the memory of a ring. Errors: ErrNoMemory.
func NewRing(slots int, slotBytes int64) (*Ring, error) {
	if slots < MinSlots || slots > MaxSlots || slotBytes < 1 || slotBytes > MaxSlotBytes {
		return nil, fmt.Errorf("ring of %d slots of %d bytes: need %d to %d slots of 1 to %d bytes",
			slots, slotBytes, MinSlots, MaxSlots, MaxSlotBytes)
	}
	g := NewGeometry(slots, slotBytes)
	memory, err := NewMemory("stoker-ring", g.TotalBytes)
	if err != nil {
		return nil, err
	}
	r := &Ring{geometry: g, memory: memory, mem: memory.Bytes()}
	r.mu.lent = make([]bool, slots)
	r.mu.generation = make([]uint64, slots)
	for slot := slots - 1; slot >= 0; slot-- {
		r.mu.free = append(r.mu.free, uint32(slot))
	}
	r.writeHeader()
	return r, nil
}

func (r *Ring) writeHeader() {
	g := r.geometry
	store32(r.mem, offLayout, Layout)
	store32(r.mem, offHeaderBytes, HeaderBytes)
	store32(r.mem, offSlots, uint32(g.Slots))
	store32(r.mem, offQueueEntries, uint32(g.QueueEntries))
	store64(r.mem, offSlotBytes, uint64(g.SlotBytes))
	store64(r.mem, offQueueOffset, uint64(g.QueueOffset))
	store64(r.mem, offReleasedOffset, uint64(g.ReleasedOffset))
	store64(r.mem, offSlotsOffset, uint64(g.SlotsOffset))
	store64(r.mem, offTotalBytes, uint64(g.TotalBytes))
	store64(r.mem, offMagic, Magic)
}

// Geometry returns where everything lies.
func (r *Ring) Geometry() Geometry { return r.geometry }

// Memory returns the memory behind the ring, for passing its descriptor.
func (r *Ring) Memory() *Memory { return r.memory }

// Slot returns the bytes of a slot that Reserve handed out.
func (r *Ring) Slot(slot uint32) []byte {
	start := r.geometry.SlotsOffset + int64(slot)*r.geometry.SlotBytes
	return r.mem[start : start+r.geometry.SlotBytes : start+r.geometry.SlotBytes]
}

// Reserve waits for a free slot. ok is false once Stop was called.
func (r *Ring) Reserve() (slot uint32, ok bool) {
	for {
		seen := load32(r.mem, offReleaseWord)
		if r.stopped.Load() {
			return 0, false
		}
		if slot, ok = r.tryReserve(); ok {
			return slot, true
		}
		r.sleep(seen, r.tryCollect)
	}
}

// sleep waits until release_word leaves seen, bounded; look is asked once more
// after the trainer can see that we are about to sleep.
func (r *Ring) sleep(seen uint32, look func() bool) {
	r.addSleeper(1)
	if !look() && !r.stopped.Load() {
		sleepWord(r.mem, offReleaseWord, seen, sleepBound)
	}
	r.addSleeper(-1)
}

func (r *Ring) addSleeper(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.sleepers += n
	store32(r.mem, offDaemonWaiting, uint32(r.mu.sleepers))
}

func (r *Ring) tryReserve() (uint32, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.mu.free) == 0 {
		r.collect()
	}
	n := len(r.mu.free)
	if n == 0 {
		return 0, false
	}
	slot := r.mu.free[n-1]
	r.mu.free = r.mu.free[:n-1]
	return slot, true
}

func (r *Ring) tryCollect() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.collect()
	return len(r.mu.free) > 0
}

// collect takes back the slots whose released word equals the generation under
// which they were lent. Any other value says nothing.
func (r *Ring) collect() {
	for slot, lent := range r.mu.lent {
		if lent && load64(r.mem, r.geometry.ReleasedOffset+int64(slot)*8) == r.mu.generation[slot] {
			r.mu.lent[slot] = false
			r.mu.free = append(r.mu.free, uint32(slot))
		}
	}
}

// Return gives back a reserved slot that will not be published.
func (r *Ring) Return(slot uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.free = append(r.mu.free, slot)
}

// Publish appends e to the queue, setting its Sequence and, for an entry with a
// slot, its Generation, and wakes the trainer if it sleeps. It waits while the
// queue is full; ok is false once Stop was called, and then nothing was published.
func (r *Ring) Publish(e *Entry) (ok bool) {
	for {
		seen := load32(r.mem, offReleaseWord)
		if r.stopped.Load() {
			return false
		}
		if r.tryPublish(e) {
			break
		}
		r.sleep(seen, r.queueHasRoom)
	}
	if load32(r.mem, offTrainerWaiting) != 0 {
		wakeWord(r.mem, offReadyWord)
	}
	return true
}

func (r *Ring) tryPublish(e *Entry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.roomLocked() {
		return false
	}
	r.mu.published++
	e.Sequence = r.mu.published
	e.Generation = 0
	if e.Slot != NoSlot {
		r.mu.generation[e.Slot]++
		r.mu.lent[e.Slot] = true
		e.Generation = r.mu.generation[e.Slot]
	}
	index := int64((e.Sequence - 1) % uint64(r.geometry.QueueEntries))
	start := r.geometry.QueueOffset + index*EntryBytes
	encodeEntry(r.mem[start:start+EntryBytes], e)
	store64(r.mem, offPublished, e.Sequence)
	store32(r.mem, offReadyWord, uint32(e.Sequence))
	return true
}

func (r *Ring) queueHasRoom() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.roomLocked()
}

// roomLocked says whether an untaken entry would survive the next Publish. taken
// is the trainer's word: a lie can only lose its own entries.
func (r *Ring) roomLocked() bool {
	taken := min(load64(r.mem, offTaken), r.mu.published)
	return r.mu.published-taken < uint64(r.geometry.QueueEntries)
}

// NextSequence is the sequence that the next published entry will have.
func (r *Ring) NextSequence() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.published + 1
}

// Stop makes Reserve and Publish return false, at once for those that wait.
func (r *Ring) Stop() {
	r.stopped.Store(true)
	r.wakeSelf()
}

// Restart undoes Stop once every user of the ring has returned.
func (r *Ring) Restart() { r.stopped.Store(false) }

func (r *Ring) wakeSelf() { wakeWord(r.mem, offReleaseWord) }

// Levels is how full a ring is: Ready were published and not taken, Held taken
// and not released; both by the trainer's word, bounded.
type Levels struct{ Slots, Free, Ready, Held int }

// Levels reports how full the ring is.
func (r *Ring) Levels() Levels {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.collect()
	taken := min(load64(r.mem, offTaken), r.mu.published)
	lent := 0
	for _, l := range r.mu.lent {
		if l {
			lent++
		}
	}
	ready := min(int(r.mu.published-taken), lent)
	return Levels{Slots: r.geometry.Slots, Free: len(r.mu.free), Ready: ready, Held: lent - ready}
}

// Waits is what the trainer says of its own waiting, nanoseconds and counts.
// Nothing here is checked.
type Waits struct {
	Total, Disk, Index, Order, Ring, Wake uint64
	Transform                             uint64 // for the trainer's own pool of transforms
	Taken, Copied                         uint64
}

// Waits reads the trainer's counters.
func (r *Ring) Waits() Waits {
	w := r.waitsAt(offWaited, offWaitedTransform)
	w.Taken, w.Copied = load64(r.mem, offBatchesTaken), load64(r.mem, offBatchesCopied)
	return w
}

// waitsAt reads a sum and its causes, of which the last lies apart, as it came later.
func (r *Ring) waitsAt(offset, transform int64) Waits {
	at := func(i int64) uint64 { return load64(r.mem, offset+8*i) }
	return Waits{Total: at(0), Disk: at(1), Index: at(2), Order: at(3), Ring: at(4), Wake: at(5), Transform: load64(r.mem, transform)}
}

// WorstWait is one of the trainer's longest waits, in its own words.
type WorstWait struct {
	Waits                           // Taken and Copied are 0
	Sequence, Epoch, Position, Rows uint64
}

// WorstWaits appends the trainer's longest waits to waits, in no order. Nothing
// here is checked, and one that the trainer writes right now may be half new.
func (r *Ring) WorstWaits(waits []WorstWait) []WorstWait {
	for i := range int64(WorstWaits) {
		offset := offWorst + i*WorstEntryBytes
		w := WorstWait{
			Waits:    r.waitsAt(offset, offWorstTransform+8*i),
			Sequence: load64(r.mem, offset+48), Epoch: load64(r.mem, offset+56),
			Position: load64(r.mem, offset+64), Rows: load64(r.mem, offset+72),
		}
		if w.Total > 0 {
			waits = append(waits, w)
		}
	}
	return waits
}

// Close frees the daemon's mapping and descriptor. Every other call must have
// returned.
func (r *Ring) Close() error {
	r.mem = nil
	return r.memory.Close()
}
