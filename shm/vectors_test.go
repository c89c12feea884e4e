package shm

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the layout vectors anew; only with a new layout version")

// field is one named place in the layout: what Go and Python must agree on.
type field struct {
	Offset int    `json:"offset"`
	Width  int    `json:"width"`
	Value  uint64 `json:"value"` // in the ring image
}

// vectors is testdata/layout-v1.json.
type vectors struct {
	Layout      int              `json:"layout"`
	Magic       uint64           `json:"magic"`
	HeaderBytes int              `json:"header_bytes"`
	EntryBytes  int              `json:"entry_bytes"`
	Header      map[string]field `json:"header"` // offsets within the image
	Entry       map[string]field `json:"entry"`  // offsets within the entry at queue_offset
	ColumnTable map[string]field `json:"column_table"`
	Released    []uint64         `json:"released"`
	Batch       struct {
		SlotOffset int       `json:"slot_offset"`
		Rows       int       `json:"rows"`
		Columns    []Column  `json:"columns"`
		Values     [][]int64 `json:"values"` // the int64 columns, as integers
		Text       string    `json:"text"`   // the ragged column's values
		Offsets    []int64   `json:"offsets"`
	} `json:"batch"`
}

var vectorEntry = Entry{
	Sequence: 1, Kind: KindBatch, Slot: 2, Generation: 1, Bytes: 448, Rows: 3, Flags: 1, Epoch: 5, Position: 6,
	SamplesConsumed: 7, SourceBytes: 8, WaitSlotAt: 9, OrderAt: 10, IndexAt: 11, ReadAt: 12, DoneAt: 13, DiskBytes: 14,
}

// vectorImage makes a ring with one published batch, slot 2 of 3, and describes
// it. Its memory is the committed image, byte for byte.
func vectorImage(t *testing.T) ([]byte, vectors) {
	t.Helper()
	ring, err := NewRing(3, 4096)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ring.Close() })
	for range 3 { // hands out 0, 1, 2
		if _, ok := ring.Reserve(); !ok {
			t.Fatal("no slot")
		}
	}
	v := vectors{Layout: Layout, Magic: Magic, HeaderBytes: HeaderBytes, EntryBytes: EntryBytes}
	fillVectorBatch(ring, &v)
	entry := vectorEntry
	if !ring.Publish(&entry) {
		t.Fatal("not published")
	}
	mem := bytes.Clone(ring.mem)
	store64(mem, offTaken, 101)
	store32(mem, offTrainerWaiting, 102)
	store32(mem, offReleaseWord, 103)
	store32(mem, offDaemonWaiting, 104)
	for i := range int64(8) {
		store64(mem, offWaited+8*i, uint64(105+i))
	}
	store64(mem, offWaitedTransform, 113)
	for i := range int64(WorstWaits) {
		store64(mem, offWorstTransform+8*i, uint64(300+i))
	}
	for i := range int64(WorstWaits * WorstEntryBytes / 8) {
		store64(mem, offWorst+8*i, uint64(200+i))
	}
	g := ring.Geometry()
	for slot := range int64(g.Slots) {
		store64(mem, g.ReleasedOffset+8*slot, uint64(120+slot))
		v.Released = append(v.Released, uint64(120+slot))
	}
	describeFields(mem, g, &v)
	return mem, v
}

// fillVectorBatch writes three samples: a ragged column "abcdef" cut 1, 0, 5, a
// label, and the sample numbers.
func fillVectorBatch(ring *Ring, v *vectors) {
	slot := ring.Slot(2)
	v.Batch.SlotOffset = int(ring.geometry.SlotsOffset + 2*ring.geometry.SlotBytes)
	v.Batch.Rows, v.Batch.Text, v.Batch.Offsets = 3, "abcdef", []int64{0, 1, 1, 6}
	v.Batch.Values = [][]int64{{-1, 0, 1 << 40}, {30, 10, 20}}
	v.Batch.Columns = []Column{{ValuesOffset: 192, ValuesBytes: 6, OffsetsOffset: 128, OffsetsBytes: 32}, {256, 24, 0, 0}, {320, 24, 0, 0}}
	PutBatchHeader(slot, 3, v.Batch.Columns)
	copy(slot[192:], v.Batch.Text)
	put := func(offset int, values []int64) {
		for i, value := range values {
			store64(slot, int64(offset+8*i), uint64(value))
		}
	}
	put(128, v.Batch.Offsets)
	put(256, v.Batch.Values[0])
	put(320, v.Batch.Values[1])
}

func describeFields(mem []byte, g Geometry, v *vectors) {
	at := func(base int64, offset int64, width int) field {
		f := field{Offset: int(offset), Width: width}
		if width == 4 {
			f.Value = uint64(load32(mem, base+offset))
		} else {
			f.Value = load64(mem, base+offset)
		}
		return f
	}
	v.Header = map[string]field{
		"magic": at(0, offMagic, 8), "layout_version": at(0, offLayout, 4), "header_bytes": at(0, offHeaderBytes, 4),
		"slots": at(0, offSlots, 4), "queue_entries": at(0, offQueueEntries, 4), "slot_bytes": at(0, offSlotBytes, 8),
		"queue_offset": at(0, offQueueOffset, 8), "released_offset": at(0, offReleasedOffset, 8),
		"slots_offset": at(0, offSlotsOffset, 8), "total_bytes": at(0, offTotalBytes, 8), "published": at(0, offPublished, 8),
		"ready_word": at(0, offReadyWord, 4), "daemon_waiting": at(0, offDaemonWaiting, 4), "taken": at(0, offTaken, 8),
		"trainer_waiting": at(0, offTrainerWaiting, 4), "release_word": at(0, offReleaseWord, 4),
		"waited_ns": at(0, offWaited, 8), "waited_disk_ns": at(0, offWaited+8, 8), "waited_index_ns": at(0, offWaited+16, 8),
		"waited_order_ns": at(0, offWaited+24, 8), "waited_ring_ns": at(0, offWaited+32, 8), "waited_wake_ns": at(0, offWaited+40, 8),
		"batches_taken": at(0, offBatchesTaken, 8), "batches_copied": at(0, offBatchesCopied, 8),
		"worst": at(0, offWorst, 8), "worst_1": at(0, offWorst+WorstEntryBytes, 8),
		"waited_transform_ns": at(0, offWaitedTransform, 8),
		"worst_transform_ns":  at(0, offWorstTransform, 8), "worst_transform_ns_1": at(0, offWorstTransform+8, 8),
	}
	v.Entry = map[string]field{}
	for i, f := range []struct {
		name  string
		width int
	}{
		{"sequence", 8}, {"kind", 4}, {"slot", 4}, {"generation", 8}, {"bytes", 8}, {"rows", 4}, {"flags", 4}, {"epoch", 8},
		{"position", 8}, {"samples_consumed", 8}, {"source_bytes", 8}, {"t_wait_slot", 8}, {"t_order", 8}, {"t_index", 8},
		{"t_read", 8}, {"t_done", 8}, {"disk_bytes", 8},
	} {
		offset := []int64{0, 8, 12, 16, 24, 32, 36, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112}[i]
		v.Entry[f.name] = at(g.QueueOffset, offset, f.width)
	}
	slot := int64(v.Batch.SlotOffset)
	v.ColumnTable = map[string]field{
		"columns": at(slot, 0, 4), "rows": at(slot, 4, 4), "values_offset": at(slot, 8, 8), "values_bytes": at(slot, 16, 8),
		"offsets_offset": at(slot, 24, 8), "offsets_bytes": at(slot, 32, 8),
	}
}

func TestLayoutIsWhatTheCommittedVectorsSay(t *testing.T) {
	image, found := vectorImage(t)
	text, err := json.MarshalIndent(found, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	for name, content := range map[string][]byte{"layout-v1.json": text, "ring-v1.bin": image} {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		committed, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(committed, content) {
			t.Errorf("%s differs from what the code lays out; a changed layout needs a new version and new vectors", name)
		}
	}
}

func TestEntryDecodesToWhatWasEncoded(t *testing.T) {
	b := EncodeEntry(&vectorEntry)
	if got := decodeEntry(b); got != vectorEntry {
		t.Errorf("decoded %+v, encoded %+v", got, vectorEntry)
	}
}
