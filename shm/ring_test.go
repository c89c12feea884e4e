package shm

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func newTestRing(t testing.TB, slots int) *Ring {
	t.Helper()
	ring, err := NewRing(slots, 4096)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ring.Close() })
	return ring
}

// publish reserves a slot, marks its first byte and publishes it.
func publish(t testing.TB, r *Ring, mark byte) Entry {
	t.Helper()
	slot, ok := r.Reserve()
	if !ok {
		t.Fatal("ring stopped")
	}
	r.Slot(slot)[0] = mark
	e := Entry{Kind: KindBatch, Slot: slot, Bytes: 1, Rows: 1}
	if !r.Publish(&e) {
		t.Fatal("ring stopped")
	}
	return e
}

func TestEntriesArriveInTheOrderInWhichTheyWerePublished(t *testing.T) {
	ring := newTestRing(t, 4)
	consumer, err := MapConsumer(ring.Memory().FD())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = consumer.Close() }()
	const count = 5000
	var publishing sync.WaitGroup
	defer publishing.Wait()
	publishing.Go(func() {
		for i := range count {
			slot, ok := ring.Reserve()
			if !ok {
				return
			}
			ring.Slot(slot)[0] = byte(i)
			ring.Publish(&Entry{Kind: KindBatch, Slot: slot, Bytes: 1})
		}
	})
	var held []Entry
	for i := range count {
		e, ok := consumer.Take(5 * time.Second)
		if !ok {
			t.Fatalf("entry %d did not arrive", i)
		}
		if e.Sequence != uint64(i+1) || consumer.Slot(e)[0] != byte(i) {
			t.Fatalf("entry %d has sequence %d and mark %d", i, e.Sequence, consumer.Slot(e)[0])
		}
		if held = append(held, e); len(held) == 3 { // give back in any order
			rand.Shuffle(len(held), func(a, b int) { held[a], held[b] = held[b], held[a] })
			for _, h := range held {
				consumer.Release(h)
			}
			held = held[:0]
		}
	}
}

func TestASlotIsFreeOnlyUnderTheGenerationItWasLentUnder(t *testing.T) {
	ring := newTestRing(t, 3)
	e := publish(t, ring, 1)
	for _, word := range []uint64{0, e.Generation + 1, ^uint64(0), e.Generation - 1} {
		store64(ring.mem, ring.geometry.ReleasedOffset+8*int64(e.Slot), word)
		if levels := ring.Levels(); levels.Free != 2 {
			t.Errorf("released word %d freed the slot: %+v", word, levels)
		}
	}
	store64(ring.mem, ring.geometry.ReleasedOffset+8*int64(e.Slot), e.Generation)
	if levels := ring.Levels(); levels.Free != 3 {
		t.Errorf("released word %d did not free the slot: %+v", e.Generation, levels)
	}
}

func TestReleasingTwiceFreesOnce(t *testing.T) {
	ring := newTestRing(t, 3)
	consumer := NewConsumer(ring)
	first := publish(t, ring, 1)
	if _, ok := consumer.Take(time.Second); !ok {
		t.Fatal("nothing to take")
	}
	consumer.Release(first)
	consumer.Release(first)
	second := publish(t, ring, 2)
	consumer.Release(first) // stale: another generation, if it is the same slot at all
	if second.Slot == first.Slot && ring.Levels().Free != 2 {
		t.Errorf("a stale release freed a lent slot: %+v", ring.Levels())
	}
}

func TestStopEndsEveryoneWhoWaits(t *testing.T) {
	ring := newTestRing(t, 3)
	for range 3 {
		publish(t, ring, 0)
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if _, ok := ring.Reserve(); ok {
			t.Error("Reserve found a slot that nobody released")
		}
	})
	waiting.Go(func() {
		for ring.Publish(&Entry{Kind: KindEndOfEpoch, Slot: NoSlot}) {
			continue // until the queue is full, then waits
		}
	})
	ring.Stop()
	waiting.Wait()
}

func TestUntakenEntriesAreBoundedByTheQueue(t *testing.T) {
	ring := newTestRing(t, 3)
	for range ring.geometry.QueueEntries {
		if !ring.tryPublish(&Entry{Kind: KindEndOfEpoch, Slot: NoSlot}) {
			t.Fatal("queue full too early")
		}
	}
	if ring.tryPublish(&Entry{Kind: KindEndOfEpoch, Slot: NoSlot}) {
		t.Error("an entry that nobody took was overwritten")
	}
}

// TestAScribblingTrainerHarmsItselfOnly writes random bytes over everything that
// the trainer may write, while the daemon goes on.
func TestAScribblingTrainerHarmsItselfOnly(t *testing.T) {
	ring := newTestRing(t, 4)
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		for range 8 {
			at := random.IntN(len(ring.mem)/4) * 4
			store32(ring.mem, int64(at), random.Uint32())
		}
		if slot, ok := ring.tryReserve(); ok {
			if int(slot) >= 4 {
				t.Fatalf("slot %d handed out", slot)
			}
			e := Entry{Kind: KindBatch, Slot: slot, Bytes: 1}
			if !ring.tryPublish(&e) {
				ring.Return(slot)
			}
		}
		levels := ring.Levels()
		if levels.Free < 0 || levels.Free > 4 || levels.Ready < 0 || levels.Held < 0 || levels.Free+levels.Ready+levels.Held > 4 {
			t.Fatalf("levels make no sense: %+v", levels)
		}
		_ = ring.Waits()
	}
}

// TestRingAgreesWithAModel drives a ring and a list of what must be in it.
func TestRingAgreesWithAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		slots := rapid.IntRange(MinSlots, 9).Draw(t, "slots")
		ring, err := NewRing(slots, 4096)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ring.Close() }()
		consumer := NewConsumer(ring)
		var reserved []uint32
		var ready, held []Entry
		t.Repeat(map[string]func(*rapid.T){
			"reserve": func(t *rapid.T) {
				slot, ok := ring.tryReserve()
				if want := len(reserved)+len(ready)+len(held) < slots; ok != want {
					t.Fatalf("reserve: %v, expected %v", ok, want)
				}
				if ok {
					reserved = append(reserved, slot)
				}
			},
			"publish": func(t *rapid.T) {
				if len(reserved) == 0 {
					t.Skip("nothing reserved")
				}
				e := Entry{Kind: KindBatch, Slot: reserved[0], Bytes: 1}
				reserved = reserved[1:]
				if !ring.tryPublish(&e) {
					t.Fatal("queue full with slots to spare")
				}
				ready = append(ready, e)
			},
			"return": func(t *rapid.T) {
				if len(reserved) == 0 {
					t.Skip("nothing reserved")
				}
				ring.Return(reserved[0])
				reserved = reserved[1:]
			},
			"take": func(t *rapid.T) {
				e, ok := consumer.Take(0)
				if ok != (len(ready) > 0) || ok && e != ready[0] {
					t.Fatalf("took %+v %v, expected the first of %+v", e, ok, ready)
				}
				if ok {
					ready, held = ready[1:], append(held, e)
				}
			},
			"release": func(t *rapid.T) {
				if len(held) == 0 {
					t.Skip("nothing held")
				}
				i := rapid.IntRange(0, len(held)-1).Draw(t, "which")
				consumer.Release(held[i])
				held = append(held[:i:i], held[i+1:]...)
			},
			"": func(t *rapid.T) {
				want := Levels{Slots: slots, Free: slots - len(reserved) - len(ready) - len(held), Ready: len(ready), Held: len(held)}
				if got := ring.Levels(); got != want {
					t.Fatalf("levels %+v, expected %+v", got, want)
				}
			},
		})
	})
}

func TestPublishAndTakeAllocateNothing(t *testing.T) {
	ring := newTestRing(t, 3)
	consumer := NewConsumer(ring)
	e := Entry{Kind: KindBatch, Bytes: 1}
	allocations := testing.AllocsPerRun(1000, func() {
		e.Slot, _ = ring.Reserve()
		ring.Publish(&e)
		got, _ := consumer.Take(0)
		consumer.Release(got)
	})
	if allocations != 0 {
		t.Errorf("%v allocations a batch", allocations)
	}
}

func TestMemoryIsSealedAgainstResizingAndSealing(t *testing.T) {
	memory, err := NewMemory("test", 8192)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = memory.Close() }()
	fd := memory.FD()
	for _, size := range []int64{0, 4096, 1 << 20} {
		if err := unix.Ftruncate(fd, size); !errors.Is(err, unix.EPERM) {
			t.Errorf("resize to %d: %v, expected EPERM", size, err)
		}
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); !errors.Is(err, unix.EPERM) {
		t.Errorf("further sealing: %v, expected EPERM", err)
	}
}

func TestDiscardedMemoryIsFreeThoughSomebodyMapsIt(t *testing.T) {
	memory, err := NewMemory("test", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = memory.Close() }()
	other, err := unix.Mmap(memory.FD(), 0, 1<<20, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(other) }()
	if err := memory.Discard(); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(memory.FD(), &st); err != nil || st.Blocks != 0 {
		t.Errorf("%d blocks are still allocated, %v", st.Blocks, err)
	}
}

func TestMemoryThatCannotBeHadIsAnErrorAndNoSignal(t *testing.T) {
	if _, err := NewMemory("test", 1<<46); !errors.Is(err, ErrNoMemory) {
		t.Errorf("64 TiB of memory: %v, expected %v", err, ErrNoMemory)
	}
}

func FuzzMapConsumer(f *testing.F) {
	ring := newTestRing(f, 3)
	f.Add(ring.mem[:PageBytes])
	f.Fuzz(func(t *testing.T, header []byte) {
		mem := make([]byte, max(len(header), HeaderBytes))
		copy(mem, header)
		if g, err := readGeometry(mem); err == nil && g.TotalBytes > int64(len(mem)) {
			t.Errorf("accepted %+v in %d bytes", g, len(mem))
		}
	})
}

func FuzzParseBatch(f *testing.F) {
	slot := make([]byte, 256)
	PutBatchHeader(slot, 3, []Column{{64, 24, 0, 0}, {128, 24, 0, 0}})
	f.Add(slot)
	f.Fuzz(func(t *testing.T, slot []byte) {
		_, columns, err := ParseBatch(slot)
		if err != nil {
			return
		}
		for _, c := range columns {
			_ = slot[c.ValuesOffset : c.ValuesOffset+c.ValuesBytes]
			_ = slot[c.OffsetsOffset : c.OffsetsOffset+c.OffsetsBytes]
		}
	})
}
