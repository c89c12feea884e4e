package cufile

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

// gate lets callers in until it is closed, and knows what stands on its owner.
// Closing waits for those inside: that is how reads are drained before what they
// use goes away. Where two gates are entered, the file's comes before the slab's.
type gate struct {
	lock    sync.RWMutex
	ending  bool // shut has begun: what its owner held may be half gone
	closed  bool
	tenants struct {
		sync.Mutex
		names     map[any]string
		abandoned []io.Closer
	}
}

// enter must be followed by leave if it answers true.
func (g *gate) enter() bool {
	g.lock.RLock()
	if g.ending {
		g.lock.RUnlock()
		return false
	}
	return true
}

func (g *gate) leave() { g.lock.RUnlock() }

// alone runs f while nobody else is inside.
func (g *gate) alone(f func() error) error {
	g.lock.Lock()
	defer g.lock.Unlock()
	if g.ending {
		return ErrClosed
	}
	return f()
}

// shut closes what was abandoned, runs f alone and closes the gate if f succeeds. It
// refuses while there are tenants. Where it fails later nobody comes in any more, but
// shut may be called again.
func (g *gate) shut(f func() error) error {
	g.lock.Lock()
	defer g.lock.Unlock()
	if g.closed {
		return ErrClosed
	}
	if err := g.inUse(); err != nil {
		return err
	}
	g.ending = true
	if err := g.closeAbandoned(); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	g.closed = true
	return nil
}

// moveIn is called between enter and leave, so that shut sees the tenant or the
// tenant sees that the gate is closed.
func (g *gate) moveIn(tenant any, name string) {
	g.tenants.Lock()
	defer g.tenants.Unlock()
	if g.tenants.names == nil {
		g.tenants.names = make(map[any]string)
	}
	g.tenants.names[tenant] = name
}

func (g *gate) moveOut(tenant any) {
	g.tenants.Lock()
	defer g.tenants.Unlock()
	delete(g.tenants.names, tenant)
}

// abandon takes over a tenant that could not be closed and that nobody else has any
// more. Shut tries it again: what it holds is not lost before.
func (g *gate) abandon(tenant io.Closer) {
	g.tenants.Lock()
	defer g.tenants.Unlock()
	delete(g.tenants.names, tenant)
	g.tenants.abandoned = append(g.tenants.abandoned, tenant)
}

// closeAbandoned is called by shut alone. A tenant moves out while it closes, so the
// lock is free meanwhile.
func (g *gate) closeAbandoned() error {
	for {
		g.tenants.Lock()
		left := g.tenants.abandoned
		g.tenants.Unlock()
		if len(left) == 0 {
			return nil
		}
		if err := left[0].Close(); err != nil {
			return err
		}
		g.tenants.Lock()
		g.tenants.abandoned = g.tenants.abandoned[1:]
		g.tenants.Unlock()
	}
}

func (g *gate) inUse() error {
	g.tenants.Lock()
	defer g.tenants.Unlock()
	if len(g.tenants.names) == 0 {
		return nil
	}
	names := make([]string, 0, len(g.tenants.names))
	for _, name := range g.tenants.names {
		names = append(names, name)
	}
	slices.Sort(names)
	more := ""
	if len(names) > 3 {
		more = fmt.Sprintf(" and %d more", len(names)-3)
		names = names[:3]
	}
	return fmt.Errorf("%w by %s%s; close them first", ErrInUse, strings.Join(names, ", "), more)
}
