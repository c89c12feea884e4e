package order

import (
	"fmt"
	"math"
)

// Share is one rank's part of the work: who reads what. Everything about it is a
// pure function of its fields, the number of samples and how many of them the epoch
// has consumed over all ranks, so an epoch may be continued by any other number of
// ranks with any other batch size.
//
// A full step takes G = WorldSize·BatchSize positions from consumed on; rank r reads
// [consumed + r·BatchSize, +BatchSize). With R = samples - consumed left:
//
//   - DropLast: floor(R/G) full steps; the rest is not read.
//   - otherwise: ceil(R/G) steps, in which all ranks together read each position
//     exactly once. The last two steps share what is left evenly (sizes differ by at
//     most 1), so that every rank has a sample in every step.
//
// Every rank has the same number of steps. A step may be empty (Length 0) for some
// ranks in one case only: without DropLast, when fewer samples are left than there
// are ranks, which takes BatchSize 1 or an epoch continued by a larger world.
//
// If Padded, positions are shared as torch's DistributedSampler shares them, and steps
// are the batches that a DataLoader makes of a rank's part: rank r reads positions r,
// r + WorldSize, r + 2·WorldSize and so on. All ranks read equally many: with DropLast
// floor(samples/WorldSize), less a last batch that is not full; otherwise
// ceil(samples/WorldSize), for which the order begins again after its end, so that
// consumed may end above samples. Only the same WorldSize can continue such an epoch;
// BatchSize may change.
type Share struct {
	Rank      int  // in [0, WorldSize)
	WorldSize int  // ranks
	BatchSize int  // samples a rank and step
	DropLast  bool // leave out a last step that is not full
	Padded    bool // share as torch's DistributedSampler
}

// Step is what one rank reads in one step: positions Start, Start + Stride and so on.
// They may be beyond the order's end if the share is padded; Position brings them back.
type Step struct {
	Start    int64 // first position
	Stride   int64 // from one position to the next
	Length   int64 // positions
	Consumed int64 // positions that all ranks together have read after this step
}

// Position returns the i-th position of the step, for i in [0, Length), in an order of
// that many samples.
func (s Step) Position(i, samples int64) int64 {
	position := s.Start + i*s.Stride
	if position >= samples {
		position %= samples
	}
	return position
}

// Validate reports what makes the share unusable for a dataset of that many samples.
func (s Share) Validate(samples int64) error {
	switch {
	case s.WorldSize < 1:
		return fmt.Errorf("world_size %d: need at least 1", s.WorldSize)
	case s.Rank < 0 || s.Rank >= s.WorldSize:
		return fmt.Errorf("rank %d is not in [0, %d): ranks count from 0 to world_size-1", s.Rank, s.WorldSize)
	case s.BatchSize < 1:
		return fmt.Errorf("batch_size %d: need at least 1", s.BatchSize)
	case int64(s.BatchSize) > math.MaxInt64/2/int64(s.WorldSize):
		return fmt.Errorf("batch_size %d with world_size %d: more samples a step than there are numbers", s.BatchSize, s.WorldSize)
	case s.Padded && samples > math.MaxInt64/2:
		return fmt.Errorf("%d samples: a padded order has at most %d", samples, int64(math.MaxInt64/2))
	case int64(s.WorldSize) > samples && !s.Padded:
		return fmt.Errorf("world_size %d is larger than the dataset (%d samples): some ranks would get nothing; use fewer ranks or a larger dataset",
			s.WorldSize, samples)
	case s.DropLast && s.global() > samples:
		return fmt.Errorf("drop_last with batch_size %d and world_size %d leaves no step: one takes %d samples and the dataset has %d; lower batch_size or turn drop_last off",
			s.BatchSize, s.WorldSize, s.global(), samples)
	}
	return nil
}

// Continues reports why the share cannot go on where consumed positions have been read.
// The share must be valid.
func (s Share) Continues(samples, consumed int64) error {
	end := samples
	if s.Padded {
		end = Share{WorldSize: s.WorldSize}.each(samples) * int64(s.WorldSize)
	}
	switch {
	case consumed < 0 || consumed > end:
		return fmt.Errorf("samples_consumed is %d, the epoch has %d samples", consumed, end)
	case s.Padded && consumed%int64(s.WorldSize) != 0:
		return fmt.Errorf("samples_consumed is %d, which world_size %d does not divide: this order gives all ranks equally many samples, so only the world_size that began the epoch can go on with it",
			consumed, s.WorldSize)
	}
	return nil
}

// Next returns the step that follows when consumed of samples positions have been
// read; false at the end of the epoch. The share must be valid, and continue there.
func (s Share) Next(samples, consumed int64) (Step, bool) {
	if consumed < 0 {
		panic(fmt.Sprintf("order: %d samples consumed", consumed))
	}
	if s.Padded {
		return s.nextPadded(samples, consumed)
	}
	left, full, world := samples-consumed, s.global(), int64(s.WorldSize)
	if left <= 0 || s.DropLast && left < full {
		return Step{}, false
	}
	switch {
	case s.DropLast, left == full, left-full >= world:
		return s.cut(consumed, full), true
	case left < full:
		return s.cut(consumed, left), true
	case left-world >= world:
		// A full step would leave fewer samples than ranks: leave one for each.
		return s.cut(consumed, left-world), true
	}
	return s.cut(consumed, full), true // batch_size 1: the next step is empty for some
}

// cut shares total positions from consumed on evenly among the ranks, the first
// total mod WorldSize of them getting one more.
func (s Share) cut(consumed, total int64) Step {
	rank, world := int64(s.Rank), int64(s.WorldSize)
	each, more := total/world, total%world
	step := Step{Start: consumed + rank*each + min(rank, more), Stride: 1, Length: each, Consumed: consumed + total}
	if rank < more {
		step.Length++
	}
	return step
}

// nextPadded is Next for a padded share.
func (s Share) nextPadded(samples, consumed int64) (Step, bool) {
	world, batch := int64(s.WorldSize), int64(s.BatchSize)
	left := s.each(samples) - consumed/world
	if left <= 0 || s.DropLast && left < batch {
		return Step{}, false
	}
	length := min(batch, left)
	step := s.StepAt((consumed + int64(s.Rank)) % samples)
	step.Length, step.Consumed = length, consumed+length*world
	return step, true
}

// StepAt returns a step that begins at a position, of no length.
func (s Share) StepAt(position int64) Step {
	if s.Padded {
		return Step{Start: position, Stride: int64(s.WorldSize)}
	}
	return Step{Start: position, Stride: 1}
}

// each is how many positions of a padded order belong to each rank.
func (s Share) each(samples int64) int64 {
	each := samples / int64(s.WorldSize)
	if !s.DropLast && samples%int64(s.WorldSize) != 0 {
		each++
	}
	return each
}

// Steps returns how many more times Next says yes. It is equal for all ranks.
func (s Share) Steps(samples, consumed int64) int64 {
	left, full := samples-consumed, s.global()
	if s.Padded {
		left, full = s.each(samples)-consumed/int64(s.WorldSize), int64(s.BatchSize)
	}
	if left <= 0 {
		return 0
	}
	steps := left / full
	if !s.DropLast && left%full != 0 {
		steps++
	}
	return steps
}

// global is the samples of a full step over all ranks.
func (s Share) global() int64 { return int64(s.WorldSize) * int64(s.BatchSize) }
