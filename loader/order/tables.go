package order

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// LimitError says that a table would take more memory than Tables may use.
type LimitError struct {
	Need, Used, Limit int64 // bytes
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("the table of an order needs %d bytes, and %d of the %d bytes for all tables are in use", e.Need, e.Used, e.Limit)
}

// Tables makes the tables of orders that are not computed place by place, and shares
// each one between all who need it: whoever asks for the same kind, number of samples
// and seed of an epoch gets the same table. A table takes 4 bytes a sample, and as many
// again once it is inverted, for as long as anybody holds it.
//
// Tables are safe for parallel use. They start no goroutines: a table is made by the
// goroutine that asks for it, while others that need the same one wait, and one of them
// goes on with the work if the first gives up.
type Tables struct {
	limit int64

	mu struct {
		sync.Mutex
		entries map[tableKey]*entry
		used    int64
	}
}

// entry is a table that somebody holds or makes.
type entry struct {
	key     tableKey
	holders int   // guarded by Tables.mu
	bytes   int64 // counted in Tables.mu.used, and guarded as that is

	maker   chan struct{} // holds a value while somebody makes the table or its inverse
	drawing *drawing      // of whoever is in maker; not changed once made
	made    atomic.Bool   // drawing and table are finished
	table   table
}

// NewTables returns tables that take at most limit bytes together.
func NewTables(limit int64) *Tables {
	t := &Tables{limit: limit}
	t.mu.entries = map[tableKey]*entry{}
	return t
}

// Limit is how many bytes all tables may take.
func (t *Tables) Limit() int64 { return t.limit }

// Used is how many bytes they take now.
func (t *Tables) Used() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.used
}

// Acquire returns the table of an epoch, making it if nobody has it: some 10 ns a
// sample; more for an epoch of SeedOnce and its like, unless somebody holds the epoch
// before. The caller releases it. To have the table of the next epoch in time, acquire
// it in a goroutine while this one goes on.
//
// Errors: what is wrong with spec or epoch; *LimitError; that of ctx, whose end stops
// the making unless others wait for the same table.
func (t *Tables) Acquire(ctx context.Context, spec Spec, epoch int64) (*Table, error) {
	if !spec.Kind.Tabled() {
		return nil, fmt.Errorf("order %q has no tables: use New", spec.Kind)
	}
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	key, err := spec.key(epoch)
	if err != nil {
		return nil, err
	}
	e, err := t.hold(key)
	if err != nil {
		return nil, err
	}
	if err := e.make(ctx); err != nil {
		t.drop(e)
		return nil, fmt.Errorf("make the table of epoch %d of order %q: %w", epoch, spec.Kind, err)
	}
	return &Table{tables: t, entry: e}, nil
}

// hold returns the entry of a key, a new one if there is none, with one more holder.
func (t *Tables) hold(key tableKey) (*entry, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.mu.entries[key]
	if e == nil {
		e = &entry{key: key, maker: make(chan struct{}, 1)}
		if err := t.takeLocked(e, tableBytes(key.samples)); err != nil {
			return nil, err
		}
		e.drawing = newDrawing(key, t.beforeLocked(key))
		t.mu.entries[key] = e
	}
	e.holders++
	return e, nil
}

// beforeLocked returns the finished drawing that a key's can go on from, nil if none is
// at hand.
func (t *Tables) beforeLocked(key tableKey) *drawing {
	key.epoch--
	if e := t.mu.entries[key]; e != nil && e.made.Load() {
		return e.drawing
	}
	return nil
}

// drop undoes one hold.
func (t *Tables) drop(e *entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.holders--; e.holders == 0 {
		t.mu.used -= e.bytes
		delete(t.mu.entries, e.key)
	}
}

func (t *Tables) takeLocked(e *entry, bytes int64) error {
	if bytes > t.limit-t.mu.used {
		return &LimitError{Need: bytes, Used: t.mu.used, Limit: t.limit}
	}
	t.mu.used += bytes
	e.bytes += bytes
	return nil
}

// enter waits until nobody else makes the entry's table or inverse.
func (e *entry) enter(ctx context.Context) error {
	select {
	case e.maker <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *entry) leave() { <-e.maker }

// make makes the table, or waits until another has made it.
func (e *entry) make(ctx context.Context) error {
	if e.made.Load() {
		return nil
	}
	if err := e.enter(ctx); err != nil {
		return err
	}
	defer e.leave()
	if e.made.Load() {
		return nil
	}
	if err := e.drawing.run(ctx); err != nil {
		return err
	}
	e.table.samples, e.table.universe = e.drawing.table, e.key.samples
	e.made.Store(true)
	return nil
}

// Table is one holder's hold on the table of an epoch.
type Table struct {
	tables   *Tables
	entry    *entry
	released atomic.Bool
}

// Permutation returns the epoch's order. It may be used after Release, when its memory
// is no longer counted.
func (h *Table) Permutation() Permutation {
	e := h.entry
	return Permutation{kind: e.key.kind, samples: e.key.samples, table: &e.table}
}

// Invert makes PositionOf of the table's permutations, those that exist included, look
// positions up. Without it they search for them. It takes as many bytes again as the
// table, which all holders share. The table must not have been released.
func (h *Table) Invert(ctx context.Context) error {
	e, t := h.entry, h.tables
	if err := e.enter(ctx); err != nil {
		return err
	}
	defer e.leave()
	if e.table.inverse.Load() != nil {
		return nil
	}
	bytes := tableBytes(e.key.samples)
	if err := t.take(e, bytes); err != nil {
		return err
	}
	if err := e.table.invert(ctx); err != nil {
		t.give(e, bytes)
		return fmt.Errorf("invert the table of order %q: %w", e.key.kind, err)
	}
	return nil
}

func (t *Tables) take(e *entry, bytes int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.takeLocked(e, bytes)
}

func (t *Tables) give(e *entry, bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.used -= bytes
	e.bytes -= bytes
}

// Release ends the hold. Releasing twice is no error.
func (h *Table) Release() {
	if h.released.CompareAndSwap(false, true) {
		h.tables.drop(h.entry)
	}
}
