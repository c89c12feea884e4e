package order

import (
	"fmt"
	"math"
)

// Seeding says how the orders of torch and numpy get their random numbers. It is one
// of the constants; the others give an error.
type Seeding string

// The seedings. In the notes s is Spec.Seed, e the epoch (from 0), n Spec.Samples.
const (
	// SeedEachEpoch seeds a generator of its own with s+e for every epoch. Torch: what
	// DistributedSampler(seed=s) does after set_epoch(e), and RandomSampler with a
	// generator that was seeded so. Numpy: np.random.seed(s+e), then shuffle of the
	// numbers from 0 on, or permutation(n), which are the same.
	SeedEachEpoch Seeding = ""

	// SeedOnce draws all epochs from one generator that was seeded with s. Torch:
	// RandomSampler(generator=g), iterated to its end in every epoch: it draws a second
	// permutation then, of which it uses nothing. Numpy: one permutation(n) an epoch.
	SeedOnce Seeding = "once"

	// SeedInPlace is numpy only: one generator seeded with s, and each epoch shuffles
	// again the list that the one before left.
	SeedInPlace Seeding = "in_place"

	// SeedLoader is torch only: DataLoader(shuffle=True) without a generator after
	// torch.manual_seed(s). It holds while nothing else draws from torch's generator of
	// the CPU. An epoch takes two 64-bit numbers of it, the second being the seed of the
	// sampler, of which randperm's generator uses the lower half.
	SeedLoader Seeding = "loader"

	// SeedLoaderPersistent is SeedLoader with persistent_workers=True: all epochs but
	// the first take one 64-bit number.
	SeedLoaderPersistent Seeding = "loader_persistent"

	// SeedLoaderGenerator is torch only: DataLoader(shuffle=True, generator=g) with g
	// seeded with s: as SeedOnce, with a 64-bit number before each epoch.
	SeedLoaderGenerator Seeding = "loader_generator"
)

// MaxTableSamples bounds the samples of an order that is kept as a table, whose entries
// have 32 bits.
const MaxTableSamples = 1 << 32

// maxReplay bounds how many random words are drawn to reach an epoch that only those
// before lead to: some ten minutes.
const maxReplay = 1 << 38

// maxLoaderEpoch bounds the epochs of SeedLoader, for the same reason: some 10 ms.
const maxLoaderEpoch = 1 << 20

// torchSmall is where torch.randperm begins to draw 64 bits a sample instead of 32, in
// another way (TensorFactories.cpp, randperm_cpu).
const torchSmall = math.MaxUint32 / 20

// Tabled says whether the kind's epochs are tables, which Tables makes, and not
// computed place by place, as New's are.
func (k Kind) Tabled() bool { return k == Torch || k == Numpy }

// Padded says whether ranks share the kind's positions as Share.Padded has it.
func (k Kind) Padded() bool { return k == Torch }

// TableBytes is the memory that the table of one epoch takes; 0 if there is none.
func (s Spec) TableBytes() int64 {
	if !s.Kind.Tabled() {
		return 0
	}
	return tableBytes(s.Samples)
}

func tableBytes(samples int64) int64 { return 4 * samples }

// validateTabled is Validate for torch and numpy.
func (s Spec) validateTabled() error {
	if s.Samples > MaxTableSamples {
		return fmt.Errorf("order %q of %d samples: it is kept as a table, of at most %d; %q has no limit",
			s.Kind, s.Samples, int64(MaxTableSamples), Global)
	}
	torchOnly := s.Seeding == SeedLoader || s.Seeding == SeedLoaderPersistent || s.Seeding == SeedLoaderGenerator
	switch {
	case s.Seeding == SeedEachEpoch, s.Seeding == SeedOnce, torchOnly && s.Kind == Torch, s.Seeding == SeedInPlace && s.Kind == Numpy:
	default:
		return fmt.Errorf("order %q is not seeded as %q", s.Kind, s.Seeding)
	}
	if s.Kind == Numpy && s.Seed > math.MaxUint32 {
		return fmt.Errorf("seed %d: numpy takes seeds from 0 to %d", s.Seed, uint32(math.MaxUint32))
	}
	return nil
}

// tableKey names a table: what its content depends on, and no more, so that whoever
// needs the same one finds it.
type tableKey struct {
	kind    Kind
	seeding Seeding
	samples int64
	seed    uint32
	epoch   int64 // 0 where each epoch has a seed of its own
}

// key returns the name of an epoch's table. The spec must be valid.
func (s Spec) key(epoch int64) (tableKey, error) {
	key := tableKey{kind: s.Kind, samples: s.Samples, seed: uint32(s.Seed)}
	if epoch < 0 {
		return key, fmt.Errorf("epoch %d: epochs count from 0", epoch)
	}
	switch s.Seeding {
	case SeedEachEpoch:
		seed := s.Seed + uint64(epoch)
		if s.Kind == Numpy && seed > math.MaxUint32 {
			return key, fmt.Errorf("epoch %d with seed %d: numpy takes seeds up to %d, which their sum exceeds",
				epoch, s.Seed, uint32(math.MaxUint32))
		}
		key.seed = uint32(seed)
	case SeedLoader:
		return key, key.seedByLoader(3, 4, epoch)
	case SeedLoaderPersistent:
		return key, key.seedByLoader(3, 2, epoch)
	default:
		key.seeding, key.epoch = s.Seeding, epoch
		if epoch > maxReplay/(2*key.drawWords()+2) {
			return key, tooFar(epoch)
		}
	}
	return key, nil
}

// seedByLoader sets the seed to word first + each·epoch of the generator that has the
// seed now.
func (k *tableKey) seedByLoader(first, each, epoch int64) error {
	if epoch > maxLoaderEpoch {
		return tooFar(epoch)
	}
	var m mt19937
	m.seed(k.seed)
	m.skip(first + each*epoch)
	k.seed = m.word()
	return nil
}

func tooFar(epoch int64) error {
	return fmt.Errorf("epoch %d is too far: all epochs before it have to be drawn to reach it", epoch)
}

// wide says whether torch draws 64 bits for each sample.
func (k *tableKey) wide() bool { return k.kind == Torch && k.samples >= torchSmall }

// draws is how many places of a permutation are drawn: of the last one there is no
// choice left, but torch's wide draw takes a number for it.
func (k *tableKey) draws() int64 {
	if k.wide() {
		return k.samples
	}
	return k.samples - 1
}

// drawWords is how many words of the generator one permutation takes of torch, and at
// least of numpy.
func (k *tableKey) drawWords() int64 {
	if k.wide() {
		return 2 * k.draws()
	}
	return k.draws()
}
