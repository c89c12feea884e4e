// Package loader is where everything meets: it owns a node's datasets and
// sessions. A session takes sample numbers from an order, their places from an
// index, their bytes from a store, and hands finished batches over in a ring.
//
// One Node serves one session socket. Every connection is a lease: when it
// reaches its end, or the process behind it exits, whatever it had is given back.
package loader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stokerio/stoker/loader/order"
	"github.com/stokerio/stoker/shm"
)

// Node is the daemon without its sockets' paths and flags.
type Node struct {
	options     Options
	log         *slog.Logger
	clock       shm.Clock
	started     time.Time
	registry    *registry
	budget      budget
	tables      *order.Tables
	foresight   *foresight
	sessions    sessionTable
	nextSession atomic.Int64
	totals      totals
	hints       hints
	recordings  recordings
	cache       cache

	ctx    context.Context //nolint:containedctx // the node's own life
	cancel context.CancelFunc

	mu struct {
		sync.Mutex
		connections map[*connection]struct{}
		peers       map[int32]int // connections by process, where that is known
		refusing    int           // connections beyond the limit, being told so
		closed      bool
	}
	serving sync.WaitGroup // one for each Serve and each connection
}

// Open opens the datasets kept under options.DataDir, and the flash devices. Close releases
// them.
func Open(options Options) (*Node, error) {
	options.EnsureDefaults()
	if options.DataDir == "" {
		return nil, errors.New("open node: no data directory given")
	}
	registry, err := openRegistry(filepath.Join(options.DataDir, "datasets"), options.Object, options.Logger)
	if err != nil {
		return nil, fmt.Errorf("open data directory %s: %w", options.DataDir, err)
	}
	n := &Node{
		options: options, log: options.Logger, clock: shm.NewClock(), started: time.Now(),
		registry: registry, budget: budget{limit: options.Session.RingBytesTotal},
		tables: order.NewTables(options.Session.OrderTableBytes), foresight: newForesight(options.Prefetch, options.Logger),
	}
	if err := n.cache.open(options.Flash, options.Logger); err != nil {
		n.foresight.close()
		registry.close()
		return nil, fmt.Errorf("open flash.devices: %w", err)
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.mu.connections, n.mu.peers = map[*connection]struct{}{}, map[int32]int{}
	n.sessions.mu.open = map[string]*session{}
	n.totals.init()
	n.hints.init(options.Hints)
	if !options.Prefetch.Off {
		n.hints.carrier = hintsAhead{n.foresight}
	}
	return n, nil
}

// Serve accepts connections from a SEQPACKET listener until Close, or until the
// listener fails. It takes ownership of the listener.
func (n *Node) Serve(listener *net.UnixListener) error {
	n.mu.Lock()
	if n.mu.closed { // Close may be waiting for all who serve, and waits for no more
		n.mu.Unlock()
		return listener.Close()
	}
	n.serving.Add(1)
	n.mu.Unlock()
	defer n.serving.Done()
	stop := context.AfterFunc(n.ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		socket, err := listener.AcceptUnix()
		if n.ctx.Err() != nil {
			if err == nil {
				_ = socket.Close()
			}
			return nil
		}
		if isExhaustion(err) {
			n.exhausted(err)
			continue
		}
		if err != nil {
			return fmt.Errorf("accept connection: %w", errors.Join(err, listener.Close()))
		}
		n.admit(socket)
	}
}

// exhausted makes room for one more connection: descriptors that are only kept
// for reuse go first. Where there are none, others may come back when a client
// leaves; the pause keeps the accept loop from spinning until then.
func (n *Node) exhausted(err error) {
	evicted := n.registry.evictIdle()
	if evicted > 0 {
		n.log.Info("descriptors ran out: closed files that were kept open for reuse", "closed", evicted)
		return
	}
	n.log.Warn("accept connection", "error", err, "remedy", "raise the limit of open files (ulimit -n)")
	select {
	case <-n.ctx.Done():
	case <-time.After(time.Second):
	}
}

// admit starts serving one connection, unless there are too many or we close.
func (n *Node) admit(socket *net.UnixConn) {
	c := newConnection(n, socket)
	n.mu.Lock()
	full := len(n.mu.connections) >= n.options.ConnectionsMax
	if n.mu.closed || full && n.mu.refusing >= refusingMax {
		n.mu.Unlock()
		_ = socket.Close()
		return
	}
	if full {
		n.mu.refusing++
	} else {
		n.mu.connections[c] = struct{}{}
	}
	n.serving.Add(1)
	n.mu.Unlock()
	go func() {
		defer n.serving.Done()
		defer n.forget(c, full)
		if full {
			c.refuse(limitFailure("connections of this daemon", int64(n.options.ConnectionsMax), "connections",
				"end jobs that are no longer needed (`stoker status` lists sessions), or raise the limit of open files, of which connections get an eighth"))
			return
		}
		c.serve()
	}()
}

// refusingMax bounds how many connections are told at once that there are too many.
const refusingMax = 16

// admitPeer counts a process's connections, so that none can take the places of
// the others.
func (n *Node) admitPeer(peer shm.Peer) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if peer.PID != 0 && n.mu.peers[peer.PID] >= n.options.ConnectionsPerPeer {
		return limitFailure("connections of one process", int64(n.options.ConnectionsPerPeer), "connections",
			"close stoker.Datasets that are no longer used (Dataset.close)")
	}
	n.mu.peers[peer.PID]++
	return nil
}

func (n *Node) forgetPeer(peer shm.Peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.peers[peer.PID]--; n.mu.peers[peer.PID] == 0 {
		delete(n.mu.peers, peer.PID)
	}
}

func (n *Node) forget(c *connection, refused bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.mu.connections, c)
	if refused {
		n.mu.refusing--
	}
}

// Close tells every client that the daemon goes, ends all sessions, waits for
// them and releases the datasets and the flash devices. Closing twice is no error.
func (n *Node) Close() error {
	n.mu.Lock()
	first := !n.mu.closed
	n.mu.closed = true
	open := make([]*connection, 0, len(n.mu.connections))
	for c := range n.mu.connections {
		open = append(open, c)
	}
	n.mu.Unlock()
	n.cancel()
	var telling sync.WaitGroup
	for _, c := range open {
		telling.Go(func() { c.sayBye("shutdown") })
	}
	telling.Wait()
	n.serving.Wait()
	n.hints.close()
	if first {
		n.foresight.close()
		n.registry.close()
		return n.cache.close()
	}
	return nil
}
