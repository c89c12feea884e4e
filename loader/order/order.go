// Package order says in which order an epoch visits the samples of a dataset, and
// which rank reads which part of it.
//
// Of Stoker's own kinds nothing is stored. A keyed permutation computes the sample at
// any position, and the position of any sample, in O(1) time and memory, so that
// resuming in the middle of an epoch costs nothing and "when is sample x needed" has an
// answer. Equal (Spec, epoch) give equal sequences on every machine and in every release
// with the same Version.
//
// Torch's and numpy's orders are drawn, not computed: their epochs are tables, which
// Tables makes and shares. They equal those of the libraries bit for bit; testdata holds
// what the libraries give.
//
// The permutations spread samples well; they are no ciphers. Whoever knows part of
// a sequence may work out its seed.
package order

import "fmt"

// Version names the sequences that this package computes. It grows whenever the
// sequence of any kind changes; a session that resumes must find the same one.
const Version = 1

// DefaultWindow is a windowed order's window where the user names none.
const DefaultWindow = 65536

// Kind names how an order shuffles.
type Kind string

// The kinds.
const (
	// Global visits all samples in an order that is new in each epoch.
	Global Kind = "global"
	// Windowed cuts the samples into windows of consecutive numbers, and visits the
	// windows in a new order and the samples of each window in a new order. It keeps
	// reads close together for origins where nearness is cheap.
	Windowed Kind = "windowed"
	// Sequential visits the samples by number, every epoch alike.
	Sequential Kind = "sequential"
	// Torch visits the samples as torch.randperm orders them on the CPU; see Seeding. Its
	// epochs are tables.
	Torch Kind = "torch"
	// Numpy visits the samples as numpy's legacy shuffle and permutation order them; see
	// Seeding. Its epochs are tables.
	Numpy Kind = "numpy"
	// Listed visits the samples of a List.
	Listed Kind = "list"
)

// Spec describes an order. Its fields are all that a sequence depends on, besides
// the epoch and Version.
type Spec struct {
	Kind    Kind    `json:"kind"`
	Seed    uint64  `json:"seed"`              // ignored by sequential; of torch's, the lower 32 bits count, as in torch
	Samples int64   `json:"samples"`           // at least 1
	Window  int64   `json:"window,omitempty"`  // samples a window, at least 1; only windowed looks at it
	Seeding Seeding `json:"seeding,omitempty"` // only torch and numpy look at it
}

// Order gives the permutation of each epoch. Orders are immutable and safe for
// parallel use.
type Order interface {
	// Len is the number of samples, which is the number of positions.
	Len() int64
	// Epoch returns the permutation of an epoch. It allocates nothing.
	Epoch(epoch int64) Permutation
}

// New checks spec and returns its order, which is one of those that are computed.
func New(spec Spec) (Order, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if spec.Kind.Tabled() {
		return nil, fmt.Errorf("order %q is drawn, not computed: use Tables", spec.Kind)
	}
	if spec.Kind != Windowed {
		spec.Window = 0
	}
	spec.Window = min(spec.Window, spec.Samples)
	return computed{spec}, nil
}

// Validate reports what makes the spec unusable.
func (s Spec) Validate() error {
	if s.Samples < 1 {
		return fmt.Errorf("order of %d samples: need at least 1", s.Samples)
	}
	switch s.Kind {
	case Global, Sequential:
		return nil
	case Torch, Numpy:
		return s.validateTabled()
	case Windowed:
		if s.Window < 1 {
			return fmt.Errorf("windowed order: window of %d samples: need at least 1 (the default is %d)",
				s.Window, int64(DefaultWindow))
		}
		return nil
	}
	return fmt.Errorf("order %q is not known: use %q, %q, %q, %q or %q", s.Kind, Global, Windowed, Sequential, Torch, Numpy)
}

// computed is the Order of a valid Spec.
type computed struct{ spec Spec }

// Len implements Order.
func (c computed) Len() int64 { return c.spec.Samples }

// Epoch implements Order.
func (c computed) Epoch(epoch int64) Permutation {
	key := mix(mix(c.spec.Seed+golden) + uint64(epoch))
	p := Permutation{kind: c.spec.Kind, samples: c.spec.Samples, window: c.spec.Window}
	switch c.spec.Kind {
	case Global:
		p.outer = newFeistel(uint64(c.spec.Samples), mix(key+golden))
	case Windowed:
		p.setWindows(key)
	}
	return p
}
