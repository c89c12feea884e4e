package loader

import (
	"fmt"
	"sync"

	"github.com/stokerio/stoker/shm"
)

// largeBatches accounts for batches that did not fit their slot and came in
// memory of their own. Each still holds a slot, so their number is bounded by the
// ring, and their bytes count against the node's budget until the slot is free.
type largeBatches struct {
	bytes []int64 // by slot; whoever holds the slot owns its element

	mu     sync.Mutex
	parked map[uint64]*shm.Memory // by sequence: waiting to be copied over the socket
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
	s.large.bytes[slot] = bytes
	memory, err := shm.NewMemory("stoker-batch", bytes)
	if err != nil {
		s.settle(slot)
		return nil, ringFailure(err, bytes)
	}
	return memory, nil
}

// settle gives back what a slot's last batch had beside the slot.
func (s *session) settle(slot uint32) {
	if n := s.large.bytes[slot]; n > 0 {
		s.node.budget.give(n)
		s.large.bytes[slot] = 0
	}
}

// sendLarge passes a batch's own memory ahead of its entry.
func (s *session) sendLarge(large *shm.Memory, e *shm.Entry) bool {
	sequence := s.ring.NextSequence()
	if s.taker != nil {
		s.park(sequence, large)
		return true
	}
	note := shm.OversizedNote{Type: shm.TypeOversized, Sequence: sequence, Bytes: int64(e.Bytes)}
	if err := s.conn.Send(note, patience, large.FD()); err != nil {
		s.node.log.Warn("send a batch larger than its slot", "session", s.id, "error", err)
		_ = s.conn.Close() // the connection's reader then ends the session
		return false
	}
	return true
}

func (s *session) park(sequence uint64, memory *shm.Memory) {
	s.large.mu.Lock()
	defer s.large.mu.Unlock()
	if s.large.parked == nil {
		s.large.parked = map[uint64]*shm.Memory{}
	}
	s.large.parked[sequence] = memory
}

// unpark forgets parked memory that was not published; its owner closes it.
func (s *session) unpark(memory *shm.Memory) {
	s.large.mu.Lock()
	defer s.large.mu.Unlock()
	for sequence, parked := range s.large.parked {
		if parked == memory {
			delete(s.large.parked, sequence)
		}
	}
}

// takeParked hands parked memory to the caller, nil if there is none.
func (s *session) takeParked(sequence uint64) *shm.Memory {
	s.large.mu.Lock()
	defer s.large.mu.Unlock()
	memory := s.large.parked[sequence]
	delete(s.large.parked, sequence)
	return memory
}

func (s *session) unparkAll() {
	s.large.mu.Lock()
	defer s.large.mu.Unlock()
	for sequence, memory := range s.large.parked {
		_ = memory.Close()
		delete(s.large.parked, sequence)
	}
}
