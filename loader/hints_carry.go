package loader

import (
	"github.com/stokerio/stoker/backend"
)

var _ reader = (*hintStream)(nil)

// hintsAhead carries hints out by the node's foresight.
type hintsAhead struct{ *foresight }

// carry implements hintCarrier.
func (a hintsAhead) carry(s *hintStream, done func()) error {
	if !a.able(s.store) {
		return &backend.Error{Kind: backend.Invalid, Op: "announce", Object: "dataset", Err: backend.ErrCannotWarm, Remedy: "read it without a hint"}
	}
	x := &foreseen{reader: s, name: "a hint", view: s.view, store: budgeted{s.store, &s.purse}}
	s.mu.Lock()
	s.mu.carried = x
	s.mu.Unlock()
	a.add(x, done)
	return nil
}

// drop implements hintCarrier.
func (a hintsAhead) drop(s *hintStream) {
	s.mu.Lock()
	x := s.mu.carried
	s.mu.Unlock()
	if x != nil {
		a.leave(x)
	}
}
