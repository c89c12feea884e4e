package loader

import (
	"fmt"
	"sync"

	"github.com/stokerio/stoker/shm"
)

// largeBatches holds the batches that did not fit their slot and came in memory of
// their own. Each still has a slot, so their number is bounded by the ring; memory
// and its share of the node's budget stay until the trainer has released the slot
// and are then given back, whatever the trainer still maps.
//
// What is in it belongs to whoever holds its slot: the reader that fills it, then
// the trainer's side, then the reader that reserves the slot again.
type largeBatches struct {
	mu struct {
		sync.Mutex
		bySlot map[uint32]*shm.Memory
	}
}

// of returns a slot's own memory, nil if it has none.
func (l *largeBatches) of(slot uint32) *shm.Memory {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.bySlot[slot]
}

// put remembers a slot's own memory.
func (l *largeBatches) put(slot uint32, memory *shm.Memory) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.bySlot == nil {
		l.mu.bySlot = map[uint32]*shm.Memory{}
	}
	l.mu.bySlot[slot] = memory
}

// take forgets a slot's own memory and returns it, nil if it has none.
func (l *largeBatches) take(slot uint32) *shm.Memory {
	l.mu.Lock()
	defer l.mu.Unlock()
	memory := l.mu.bySlot[slot]
	delete(l.mu.bySlot, slot)
	return memory
}

// largeMemory makes memory for a batch that does not fit its slot.
func (s *session) largeMemory(slot uint32, bytes int64) (*shm.Memory, error) {
	if limit := s.options.BatchBytesMax; bytes > limit {
		return nil, &shm.Failure{
			Code: "limit", Where: "dataset " + s.request.Dataset,
			What:   fmt.Sprintf("a batch takes %d bytes, the limit is %d", bytes, limit),
			Remedy: "lower batch_size, or raise session.batch_bytes_max in stokerd's configuration",
		}
	}
	if err := s.node.budget.take(bytes); err != nil {
		return nil, err
	}
	memory, err := shm.NewMemory("stoker-batch", bytes)
	if err != nil {
		s.node.budget.give(bytes)
		return nil, ringFailure(err, bytes)
	}
	s.large.put(slot, memory)
	return memory, nil
}

// settle gives back what a slot's last batch had beside the slot. Its pages are
// freed at once unless the trainer may still look at them.
func (s *session) settle(slot uint32, keepPages bool) {
	memory := s.large.take(slot)
	if memory == nil {
		return
	}
	s.node.budget.give(int64(len(memory.Bytes())))
	if !keepPages {
		if err := memory.Discard(); err != nil {
			s.node.log.Error("discard batch", "session", s.id, "error", err)
		}
	}
	if err := memory.Close(); err != nil {
		s.node.log.Error("free batch", "session", s.id, "error", err)
	}
}

// sendLarge passes a batch's own memory ahead of its entry. Under TransportSocket
// the daemon copies it out of the slot's table instead.
func (s *session) sendLarge(e *shm.Entry) bool {
	memory := s.large.of(e.Slot)
	if memory == nil || s.taker != nil {
		return true
	}
	note := shm.OversizedNote{Type: shm.TypeOversized, Sequence: s.ring.NextSequence(), Bytes: int64(e.Bytes)}
	err := s.conn.Send(note, patience, memory.FD())
	if err == nil {
		err = memory.DropFD() // the trainer has its own descriptor
	}
	if err != nil {
		s.node.log.Warn("send a batch larger than its slot", "session", s.id, "error", err)
		_ = s.conn.Close() // the connection's reader then ends the session
		return false
	}
	return true
}
