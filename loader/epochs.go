package loader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/stokerio/stoker/loader/order"
	"github.com/stokerio/stoker/shm"
)

// epochs gives a session the order of each epoch. Orders that are computed need
// nothing. Those that are drawn need tables: that of the epoch in use, and that of the
// next one, which is made meanwhile so that nobody waits where epochs meet.
type epochs struct {
	computed order.Order // nil: drawn
	tables   *order.Tables
	spec     order.Spec
	session  func() string // its id, for profiles and the log
	log      *slog.Logger

	mu struct {
		sync.Mutex
		epoch int64
		table *order.Table // of epoch; nil if none is held
		made  *ahead       // has its table; nil if none does
	}
	ahead *ahead // guarded by whoever calls at; nil if none was begun
}

// ahead makes the table of an epoch that will be needed.
type ahead struct {
	epoch  int64
	cancel context.CancelFunc
	done   chan struct{} // closed by the goroutine when it ends
	table  *order.Table  // set before done is closed; nil if it was not made
}

// newEpochs checks that the order is possible and that one table fits the limit. close
// releases what it holds.
func newEpochs(tables *order.Tables, spec order.Spec, session func() string, log *slog.Logger) (*epochs, error) {
	e := &epochs{tables: tables, spec: spec, session: session, log: log}
	if !spec.Kind.Tabled() {
		if spec.Seeding != "" {
			return nil, invalid("seeding", string(spec.Seeding), fmt.Sprintf("leave it out, or use order %q or %q", order.Torch, order.Numpy))
		}
		var err error
		if e.computed, err = order.New(spec); err != nil {
			return nil, invalid("order", string(spec.Kind), err.Error())
		}
		return e, nil
	}
	if err := spec.Validate(); err != nil {
		return nil, invalid("order", string(spec.Kind), err.Error())
	}
	if need := spec.TableBytes(); need > tables.Limit() {
		return nil, tableFailure(&order.LimitError{Need: need, Used: tables.Used(), Limit: tables.Limit()})
	}
	return e, nil
}

// at returns the order of an epoch, once its table is made. One goroutine at a time may
// call it. The permutation may be used for as long as it is wanted.
func (e *epochs) at(ctx context.Context, epoch int64) (order.Permutation, error) {
	if p, ok := e.held(epoch); ok {
		return p, nil
	}
	e.hold(nil, 0) // first, so that its memory is free for the next one
	if e.ahead != nil && e.ahead.epoch != epoch {
		e.stopAhead()
	}
	table, err := e.tables.Acquire(ctx, e.spec, epoch) // what is made ahead, if that is under way
	e.stopAhead()
	if err != nil {
		return order.Permutation{}, tableFailure(err)
	}
	e.hold(table, epoch)
	e.startAhead(epoch + 1)
	return table.Permutation(), nil
}

// held returns the order of an epoch if nothing has to be made for it. It is safe for
// parallel use.
func (e *epochs) held(epoch int64) (order.Permutation, bool) {
	if e.computed != nil {
		return e.computed.Epoch(epoch), true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.table == nil || e.mu.epoch != epoch {
		return order.Permutation{}, false
	}
	return e.mu.table.Permutation(), true
}

// foreseen is held, and also knows the order that was made ahead.
func (e *epochs) foreseen(epoch int64) (order.Permutation, bool) {
	if p, ok := e.held(epoch); ok {
		return p, true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.made == nil || e.mu.made.epoch != epoch {
		return order.Permutation{}, false
	}
	return e.mu.made.table.Permutation(), true
}

// hold replaces the table in use.
func (e *epochs) hold(table *order.Table, epoch int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.table != nil {
		e.mu.table.Release()
	}
	e.mu.table, e.mu.epoch = table, epoch
}

// startAhead begins to make the table of an epoch. stopAhead ends it.
func (e *epochs) startAhead(epoch int64) {
	ctx, cancel := context.WithCancel(context.Background())
	a := &ahead{epoch: epoch, cancel: cancel, done: make(chan struct{})}
	e.ahead = a
	go labelled(ctx, "order", e.session(), func() {
		defer close(a.done)
		var err error
		if a.table, err = e.tables.Acquire(ctx, e.spec, epoch); err == nil {
			e.mu.Lock()
			e.mu.made = a
			e.mu.Unlock()
		} else if ctx.Err() == nil {
			e.log.Warn("order of the next epoch not made ahead: the epoch may begin late", "session", e.session(), "epoch", epoch, "error", err)
		}
	})
}

// stopAhead gives up what is made ahead, if anything is.
func (e *epochs) stopAhead() {
	if e.ahead == nil {
		return
	}
	e.ahead.cancel()
	<-e.ahead.done
	e.mu.Lock()
	e.mu.made = nil
	e.mu.Unlock()
	if e.ahead.table != nil {
		e.ahead.table.Release()
	}
	e.ahead = nil
}

// close gives everything back. Nobody may call at any more.
func (e *epochs) close() {
	e.stopAhead()
	e.hold(nil, 0)
}

// tableFailure says what keeps a table from being made.
func tableFailure(err error) error {
	var limit *order.LimitError
	switch {
	case errors.As(err, &limit):
		return limitFailure("tables of orders", limit.Limit, "bytes",
			"end sessions with order \"torch\" or \"numpy\", raise session.order_table_bytes (4 bytes a sample and epoch, two epochs a seed), or use order \"global\", which needs none")
	case errors.Is(err, context.Canceled):
		return err
	}
	return &shm.Failure{Code: "invalid", Where: "order", What: err.Error(), Remedy: "choose another seed or order"}
}
