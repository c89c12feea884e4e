package loader

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/prefetch"
)

// errOverBudget is why a fetch of a hint was refused where it would have been made.
var errOverBudget = errors.New("the hint's budget does not cover it")

// purse is what a hint may fetch. Its methods are safe for parallel use.
//
// Bytes paid, for fetches under way and for those that brought something, <= budget.
//
// Where the budget may not cover all, fetches pay in the order in which they were begun,
// whichever worker is quicker: else it might be spent on the last samples of a window and
// leave none of the first. A fetch holds a place in line until it is known to be free, or
// has paid.
type purse struct {
	budget int64 // bytes
	probed bool  // it may not cover all of the hint, so what is there must be told before

	paid struct {
		sync.Mutex
		bytes int64
		line  []inLine   // in the order of their beginnings
		moved *sync.Cond // somebody left the line; nil: nobody was ever in it
		shut  bool       // one was refused, and so are all behind it
	}
}

// inLine is a fetch of which it is not known yet what it costs.
type inLine struct {
	id         prefetch.FetchID
	name       string // of the object
	off, bytes int64
}

// enter puts a fetch at the end of the line.
func (p *purse) enter(f inLine) {
	p.paid.Lock()
	defer p.paid.Unlock()
	if p.paid.moved == nil {
		p.paid.moved = sync.NewCond(&p.paid)
	}
	p.paid.line = append(p.paid.line, f)
}

// leave takes a fetch out of the line that may have left it before.
func (p *purse) leave(id prefetch.FetchID) {
	p.paid.Lock()
	defer p.paid.Unlock()
	if i := slices.IndexFunc(p.paid.line, func(f inLine) bool { return f.id == id }); i >= 0 {
		p.leaveLocked(i)
	}
}

func (p *purse) leaveLocked(i int) {
	p.paid.line = slices.Delete(p.paid.line, i, i+1)
	p.paid.moved.Broadcast()
}

// free ends the wait of a fetch that costs nothing.
func (p *purse) free(name []byte, off, bytes int64) {
	p.paid.Lock()
	defer p.paid.Unlock()
	if i := p.findLocked(name, off, bytes); i >= 0 {
		p.leaveLocked(i)
	}
}

func (p *purse) findLocked(name []byte, off, bytes int64) int {
	return slices.IndexFunc(p.paid.line, func(f inLine) bool { return f.off == off && f.bytes == bytes && f.name == string(name) })
}

// buy pays for a fetch, or says errOverBudget. It waits for those before it in the line if
// there is not enough for all: they are being looked at by other workers.
func (p *purse) buy(ctx context.Context, name []byte, off, bytes int64) error {
	p.paid.Lock()
	defer p.paid.Unlock()
	i := p.findLocked(name, off, bytes)
	if i >= 0 {
		id := p.paid.line[i].id
		defer context.AfterFunc(ctx, p.wake)()
		for i > 0 && ctx.Err() == nil && !p.paid.shut && !p.coversLocked(i+1) {
			p.paid.moved.Wait()
			if i = slices.IndexFunc(p.paid.line, func(f inLine) bool { return f.id == id }); i < 0 {
				return context.Canceled // nobody waits for it any more
			}
		}
		p.leaveLocked(i)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.paid.shut || !p.payLocked(bytes) {
		p.paid.shut = true
		return errOverBudget
	}
	return nil
}

// coversLocked reports whether there is enough for the first n of the line.
func (p *purse) coversLocked(n int) bool {
	left := p.budget - p.paid.bytes
	for i := range p.paid.line[:n] {
		left -= p.paid.line[i].bytes
	}
	return left >= 0
}

// wake lets those in the line look whether they are still wanted.
func (p *purse) wake() {
	p.paid.Lock()
	defer p.paid.Unlock()
	p.paid.moved.Broadcast()
}

// payLocked takes bytes from the purse before they are fetched; false if it has not so many.
func (p *purse) payLocked(bytes int64) bool {
	if bytes > p.budget-p.paid.bytes {
		return false
	}
	p.paid.bytes += bytes
	return true
}

// giveBack puts bytes back that were there already, or did not come.
func (p *purse) giveBack(bytes int64) {
	p.paid.Lock()
	defer p.paid.Unlock()
	p.paid.bytes -= bytes
}

// budgeted is a store of which no more is brought than a purse pays for. What is there
// already is free, however little the purse holds; so it is looked at first, in the
// goroutine that would bring it, where a file that is slow to open delays nobody else.
type budgeted struct {
	backend.Store
	purse *purse
}

var _ backend.Warmer = budgeted{}

// Warm implements backend.Warmer, with errOverBudget for what the purse does not pay for.
func (b budgeted) Warm(ctx context.Context, o *backend.Object, off, n int64) (resident bool, err error) {
	if b.purse.probed && b.has(ctx, o, off, n) {
		b.purse.free(o.Name, off, n)
		return true, nil
	}
	if err := b.purse.buy(ctx, o.Name, off, n); err != nil {
		return false, err
	}
	resident, ok, err := backend.Warm(ctx, b.Store, o, off, n)
	if err == nil && !ok {
		err = backend.ErrCannotWarm
	}
	if resident || err != nil {
		b.purse.giveBack(n)
	}
	return resident, err
}

// has reports whether a range is known to be there. What is wrong with a file says Warm.
func (b budgeted) has(ctx context.Context, o *backend.Object, off, n int64) bool {
	prober, ok := backend.As[backend.Prober](b.Store)
	if !ok {
		return false
	}
	bytes, known, err := prober.Resident(ctx, o, off, n)
	return err == nil && known && bytes >= n
}

// placeSet are places in order.
type placeSet []int64

// add adds places that are not there yet.
func (s *placeSet) add(places ...int64) {
	for _, place := range places {
		if i, has := slices.BinarySearch(*s, place); !has {
			*s = slices.Insert(*s, i, place)
		}
	}
}

// before removes the places before one, and says how many they were.
func (s *placeSet) before(place int64) int64 {
	n, _ := slices.BinarySearch(*s, place)
	*s = slices.Delete(*s, 0, n)
	return int64(n)
}
