package loader

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/prefetch"
)

// slowly is a store whose bytes come when a test lets them, and of which some are there.
type slowly struct {
	backend.Store
	there map[string]bool
	let   map[string]chan struct{}
}

func (s *slowly) Resident(_ context.Context, o *backend.Object, _, n int64) (int64, bool, error) {
	if let := s.let[string(o.Name)]; let != nil {
		<-let
	}
	if s.there[string(o.Name)] {
		return n, true, nil
	}
	return 0, true, nil
}

func (s *slowly) Warm(context.Context, *backend.Object, int64, int64) (bool, error) {
	return false, nil
}

// Workers are as quick as the scheduler lets them; the budget goes to what is used first.
func TestABudgetIsSpentInTheOrderOfUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &purse{budget: 20, probed: true}
		store := &slowly{there: map[string]bool{"b": true}, let: map[string]chan struct{}{"a": make(chan struct{})}}
		names := []string{"a", "b", "c", "d", "e"}
		for i, name := range names {
			p.enter(inLine{id: prefetch.FetchID(i), name: name, bytes: 10})
		}
		errs := map[string]error{}
		ended := make(chan struct{})
		for i := len(names) - 1; i >= 0; i-- { // the last first
			go func() {
				_, err := budgeted{store, p}.Warm(t.Context(), &backend.Object{Name: []byte(names[i])}, 0, 10)
				p.paid.Lock()
				errs[names[i]] = err
				p.paid.Unlock()
				ended <- struct{}{}
			}()
			synctest.Wait()
		}
		<-ended // b, which costs nothing
		close(store.let["a"])
		for range len(names) - 1 {
			<-ended
		}
		for name, want := range map[string]error{"a": nil, "b": nil, "c": nil, "d": errOverBudget, "e": errOverBudget} {
			if !errors.Is(errs[name], want) {
				t.Errorf("%s: %v, want %v", name, errs[name], want)
			}
		}
		if p.paid.bytes != 20 || len(p.paid.line) != 0 {
			t.Errorf("%d paid, in line %v", p.paid.bytes, p.paid.line)
		}
	})
}

func TestNobodyWaitsInLineForAHintThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &purse{budget: 10, probed: true}
		p.enter(inLine{id: 1, name: "hangs", bytes: 10})
		p.enter(inLine{id: 2, name: "waits", bytes: 10})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- p.buy(ctx, []byte("waits"), 0, 10) }()
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) || p.paid.bytes != 0 {
			t.Errorf("%v, %d paid", err, p.paid.bytes)
		}
		p.enter(inLine{id: 3, name: "goes on", bytes: 10})
		go func() { ended <- p.buy(t.Context(), []byte("goes on"), 0, 10) }()
		synctest.Wait()
		p.leave(1) // it failed before it was looked at
		if err := <-ended; err != nil || p.paid.bytes != 10 || len(p.paid.line) != 0 {
			t.Errorf("%v, %d paid", err, p.paid.bytes)
		}
	})
}
