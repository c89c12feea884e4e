// Package shm is the shared memory between the daemon and one trainer: a sealed
// memfd that holds a ring of slots, and the session socket that passes it.
//
// # Trust
//
// Both sides map the memfd writable. The daemon believes nothing it finds there:
// it keeps its own cursors, generations and offsets, compares what the trainer
// wrote for equality only, and sleeps on nothing without a bound. A hostile
// trainer can spoil its own batches and nothing else. The trainer trusts the
// daemon, but checks magic, version and bounds, as it may face another release.
//
// # Layout, version 1
//
// Little-endian, natural alignment. x86-64 only: the ring relies on its store
// order (every other architecture uses the copying transport).
//
//	memfd
//	+--------------------+ 0
//	| header             | 4096 bytes, fields below
//	+--------------------+ queue_offset
//	| queue              | queue_entries x 128 bytes: what was published, in order
//	+--------------------+ released_offset
//	| released           | slots x u64: generation that the trainer gave back
//	+--------------------+ slots_offset (page aligned)
//	| slot 0             | slot_bytes each (page aligned)
//	| slot 1 ...         |
//	+--------------------+ total_bytes
//
//	header                               written by
//	  0 u64 magic "STOKRNG1"             daemon, once
//	  8 u32 layout_version               daemon, once
//	 12 u32 header_bytes                 daemon, once
//	 16 u32 slots                        daemon, once
//	 20 u32 queue_entries (power of two) daemon, once
//	 24 u64 slot_bytes                   daemon, once
//	 32 u64 queue_offset                 daemon, once
//	 40 u64 released_offset              daemon, once
//	 48 u64 slots_offset                 daemon, once
//	 56 u64 total_bytes                  daemon, once
//	 64 u64 published                    daemon: entries ever published
//	 72 u32 ready_word                   daemon: low half of published; the trainer sleeps on it
//	 76 u32 daemon_waiting               daemon: 1 while it sleeps on release_word
//	128 u64 taken                        trainer: sequence of the last entry taken
//	136 u32 trainer_waiting              trainer: 1 while it sleeps on ready_word
//	140 u32 release_word                 trainer: +1 after a take or release; the daemon sleeps on it
//	192 u64 waited_ns, then _disk, _index, _order, _ring, _wake  trainer: its stalls
//	240 u64 batches_taken                trainer
//	248 u64 batches_copied               trainer
//	256 u64 waited_transform_ns          trainer: of waited_ns, for its own pool of transforms
//	320 worst[10], 80 bytes each         trainer: its longest waits, in no order
//	1120 u64 worst_transform_ns[10]      trainer: of each of them, for its own pool of transforms
//
//	worst entry (80 bytes), zero waited_ns: none
//	  0 u64 waited_ns, then _disk, _index, _order, _ring, _wake
//	 48 u64 sequence of the batch's entry
//	 56 u64 epoch
//	 64 u64 position
//	 72 u64 rows
//
//	queue entry (128 bytes), sequence n at index (n-1) mod queue_entries
//	  0 u64 sequence, from 1       64 u64 source_bytes
//	  8 u32 kind                   72 u64 t_wait_slot  CLOCK_MONOTONIC ns, ascending
//	 12 u32 slot                   80 u64 t_order
//	 16 u64 generation             88 u64 t_index
//	 24 u64 bytes                  96 u64 t_read
//	 32 u32 rows                  104 u64 t_done
//	 36 u32 flags                 112 u64 disk_bytes
//	 40 u64 epoch                 120 u64 zero
//	 48 u64 position
//	 56 u64 samples_consumed
//
//	batch in a slot
//	  0 u32 columns C              column table entry (32 bytes)
//	  4 u32 rows                     0 u64 values_offset, from slot start, 64-aligned
//	  8 C column table entries       8 u64 values_bytes
//	    ... values and offsets      16 u64 offsets_offset, 0 unless ragged
//	                                24 u64 offsets_bytes
//
// The last column is always the sample numbers, int64[rows]. The committed
// vectors in testdata are read by the Go and the Python tests alike.
package shm

// Layout is the version of everything described in the package comment.
const Layout = 1

// Magic is "STOKRNG1" read as a little-endian integer.
const Magic uint64 = 0x31474E524B4F5453

// Sizes and alignments, bytes.
const (
	PageBytes        = 4096
	HeaderBytes      = PageBytes
	EntryBytes       = 128
	ColumnEntryBytes = 32
	ColumnAlign      = 64
	WorstEntryBytes  = 80
)

// WorstWaits is how many of its longest waits a trainer keeps for the daemon.
const WorstWaits = 10

// Offsets of header fields, bytes.
const (
	offMagic           = 0
	offLayout          = 8
	offHeaderBytes     = 12
	offSlots           = 16
	offQueueEntries    = 20
	offSlotBytes       = 24
	offQueueOffset     = 32
	offReleasedOffset  = 40
	offSlotsOffset     = 48
	offTotalBytes      = 56
	offPublished       = 64
	offReadyWord       = 72
	offDaemonWaiting   = 76
	offTaken           = 128
	offTrainerWaiting  = 136
	offReleaseWord     = 140
	offWaited          = 192
	offBatchesTaken    = 240
	offBatchesCopied   = 248
	offWaitedTransform = 256
	offWorst           = 320
	offWorstTransform  = 1120
)

// EntryKind says what a queue entry announces.
type EntryKind uint32

// The kinds of queue entries.
const (
	KindBatch      EntryKind = 1
	KindEndOfEpoch EntryKind = 2
	KindError      EntryKind = 3
)

// FlagOversized marks a batch whose bytes came in a memfd of its own.
const FlagOversized uint32 = 1

// NoSlot is the slot of an entry that has none.
const NoSlot = ^uint32(0)

// Entry is one queue entry, decoded. Times are CLOCK_MONOTONIC nanoseconds.
type Entry struct {
	Sequence        uint64
	Kind            EntryKind
	Slot            uint32
	Generation      uint64
	Bytes           uint64 // used bytes of the slot, from its start
	Rows            uint32
	Flags           uint32
	Epoch           uint64
	Position        uint64 // first position of this batch in the epoch's order
	SamplesConsumed uint64 // of the epoch, over all ranks, after this batch
	SourceBytes     uint64 // read from files
	WaitSlotAt      uint64 // began to wait for a slot
	OrderAt         uint64 // had it; began to ask the order
	IndexAt         uint64 // began to ask the index
	ReadAt          uint64 // began to read
	DoneAt          uint64 // had everything
	DiskBytes       uint64 // of SourceBytes: was not in the page cache
}

// Geometry is where everything lies in one ring's memory.
type Geometry struct {
	Slots          int
	QueueEntries   int
	SlotBytes      int64
	QueueOffset    int64
	ReleasedOffset int64
	SlotsOffset    int64
	TotalBytes     int64
}

// Limits of a ring's geometry.
const (
	MinSlots     = 3 // one read, one ready, one being filled
	MaxSlots     = 1024
	MaxSlotBytes = int64(1) << 40
)

// NewGeometry lays out a ring of that many slots of at least slotBytes each.
func NewGeometry(slots int, slotBytes int64) Geometry {
	entries := 1
	for entries < 2*slots {
		entries *= 2
	}
	g := Geometry{Slots: slots, QueueEntries: entries, SlotBytes: Align(slotBytes, PageBytes)}
	g.QueueOffset = HeaderBytes
	g.ReleasedOffset = g.QueueOffset + int64(entries)*EntryBytes
	g.SlotsOffset = Align(g.ReleasedOffset+int64(slots)*8, PageBytes)
	g.TotalBytes = g.SlotsOffset + int64(slots)*g.SlotBytes
	return g
}

// Align rounds n up to a multiple of to, a power of two.
func Align(n, to int64) int64 { return (n + to - 1) &^ (to - 1) }
