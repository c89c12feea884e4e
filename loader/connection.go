package loader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/shm"
)

// connection is one client of the session socket: at most one session.
type connection struct {
	node        *Node
	conn        *shm.Conn
	peer        shm.Peer
	ctx         context.Context //nolint:containedctx // the connection's own life
	cancel      context.CancelFunc
	session     *session
	greeted     bool
	client      string // as it calls itself
	pace        pacer
	sampleBytes int64       // of the node's budget, for the last sample sent
	exited      atomic.Bool // the process behind it is gone, whoever else holds the socket
	hints       map[string]bool
}

func newConnection(n *Node, socket *net.UnixConn) *connection {
	ctx, cancel := context.WithCancel(n.ctx)
	return &connection{node: n, conn: shm.NewConn(socket), ctx: ctx, cancel: cancel, pace: newPacer(n.options.MessagesPerSecond)}
}

// farewell is how long a last message may take; its reader may be stuck.
const farewell = 200 * time.Millisecond

// refuse answers a connection that will not be served, and closes it.
func (c *connection) refuse(err error) {
	c.node.totals.refuse()
	_ = c.conn.Send(shm.ErrorAnswer{Type: shm.TypeError, Error: *failureOf(err)}, farewell)
	c.cancel()
	c.conn.Linger(farewell)
}

// sayBye tells the client that its lease ends, and ends it.
func (c *connection) sayBye(reason string) {
	c.conn.Hurry(farewell) // also ends an answer that the client does not read
	_ = c.conn.Send(shm.Bye{Type: shm.TypeBye, Reason: reason}, farewell)
	_ = c.conn.Close()
}

// serve answers messages until the client is gone, and gives back what it had.
func (c *connection) serve() {
	defer c.cancel()
	defer func() {
		c.conn.Forget()
		c.node.budget.give(c.sampleBytes)
	}()
	if err := c.identify(); err != nil {
		c.node.log.Warn("connection refused", "uid", c.peer.UID, "pid", c.peer.PID, "error", err)
		c.refuse(err)
		return
	}
	if err := c.node.admitPeer(c.peer); err != nil {
		c.refuse(err)
		return
	}
	defer c.node.forgetPeer(c.peer)
	stopWatch, err := c.watch()
	if err != nil {
		c.refuse(err)
		return
	}
	reason := c.loop()
	if reason == endMisused {
		c.conn.Linger(farewell)
	}
	_ = c.conn.Close()
	stopWatch()
	c.endHints()
	if c.session != nil {
		c.session.close(reason)
		c.node.log.Info("session closed", "session", c.session.id, "dataset", c.session.request.Dataset, "reason", reason,
			"batches", c.session.counters.batches.Load())
	}
}

// identify asks the kernel who the client is and whether it may be here.
func (c *connection) identify() error {
	peer, err := shm.PeerOf(c.conn.Unix())
	if err != nil {
		return err
	}
	c.peer = peer
	if own := uint32(c.node.options.UID); peer.UID == shm.NobodyUID && own != shm.NobodyUID || peer.UID != own {
		return &shm.Failure{
			Code: "permission", Where: fmt.Sprintf("uid %d", peer.UID),
			What:   fmt.Sprintf("this daemon serves uid %d only", own),
			Remedy: "start a stokerd of your own, or run the job as that user",
		}
	}
	return nil
}

// watch closes the connection when the client's process exits, even if a fork of
// it still holds the socket. The returned function ends the watch.
func (c *connection) watch() (func(), error) {
	process, err := shm.WatchPeer(c.conn.Unix())
	if err != nil {
		return nil, err
	}
	if process == nil {
		return func() {}, nil
	}
	done := make(chan struct{}) // closed by the watching goroutine
	go func() {
		defer close(done)
		if process.Wait() == nil {
			c.exited.Store(true)
			c.cancel()
			_ = c.conn.Close()
		}
	}()
	return func() {
		_ = process.Close()
		<-done
	}, nil
}

// The reasons for which a lease ends.
const (
	endClosed   = "close"    // the client said so
	endGone     = "eof"      // end of file on the socket
	endExit     = "exit"     // the process exited
	endShutdown = "shutdown" // the daemon stops
	endMisused  = "protocol" // the client broke the protocol
)

// greetingTime is how long a client may take to say hello: one that says nothing
// would hold its place for nothing.
const greetingTime = 5 * time.Second

// loop answers messages; it returns why it ended.
func (c *connection) loop() string {
	_ = c.conn.SetReadDeadline(time.Now().Add(greetingTime))
	for {
		packet, descriptors, err := c.conn.Receive()
		if err != nil {
			return c.endOf(err)
		}
		if !c.pace.wait(c.ctx) {
			shm.CloseAll(descriptors)
			return c.endOf(io.EOF)
		}
		more, err := c.answer(packet, descriptors)
		if err == nil && more {
			continue
		}
		if err == nil {
			return endClosed
		}
		if !c.tell(err) {
			return c.endOf(io.EOF)
		}
		if errors.Is(err, errMisuse) {
			return endMisused
		}
	}
}

// tell sends an error. It returns false if the client can no longer be reached.
func (c *connection) tell(err error) bool {
	failure := failureOf(err)
	c.node.countError(failure.Code)
	c.node.log.Debug("request refused", "pid", c.peer.PID, "code", failure.Code, "error", err)
	return c.conn.Send(shm.ErrorAnswer{Type: shm.TypeError, Error: *failure}, patience) == nil
}

func (c *connection) endOf(err error) string {
	switch {
	case c.exited.Load():
		return endExit
	case c.node.ctx.Err() != nil:
		return endShutdown
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.EPIPE):
		return endGone
	}
	c.node.log.Warn("connection ended", "pid", c.peer.PID, "error", err)
	failure := &shm.Failure{Code: "invalid", Where: "session socket", What: err.Error(), Remedy: "use a client of this release"}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		failure.What, failure.Remedy = fmt.Sprintf("no hello within %v", greetingTime), "connect again; the client paused for longer than that"
	}
	_ = c.tell(failure)
	return endMisused
}

// errMisuse marks errors after which a connection makes no sense any more.
var errMisuse = errors.New("the client does not speak the protocol")

// answer carries out one message. more is false after a close.
func (c *connection) answer(packet []byte, descriptors []int) (more bool, err error) {
	defer func() { shm.CloseAll(descriptors) }()
	var envelope shm.Envelope
	if err := json.Unmarshal(packet, &envelope); err != nil || envelope.Type == "" {
		return false, misuse(fmt.Sprintf("message is no JSON object with a type: %.60q", packet))
	}
	if !c.greeted && envelope.Type != shm.TypeHello {
		return false, misuse(fmt.Sprintf("first message is %q, expected \"hello\"", envelope.Type))
	}
	switch envelope.Type {
	case shm.TypeHello:
		return true, decoded(packet, c.hello)
	case shm.TypeDatasetAdd:
		var request shm.DatasetAdd
		if err := decode(packet, &request); err != nil {
			return true, err
		}
		if len(descriptors) != 1 {
			return true, invalid("dataset_add", fmt.Sprintf("%d descriptors", len(descriptors)), "pass the open directory with the message")
		}
		directory := descriptors[0]
		descriptors = nil // add owns it
		return true, c.addDataset(request, directory)
	case shm.TypeDatasetLint:
		var request shm.DatasetLint
		if err := decode(packet, &request); err != nil {
			return true, err
		}
		given := descriptors
		descriptors = nil // lint owns them
		return true, c.lint(request, given)
	case shm.TypeRebuild:
		return true, decoded(packet, c.rebuild)
	case shm.TypeKeys:
		return true, decoded(packet, c.keys)
	case shm.TypeDatasetList:
		return true, c.send(shm.DatasetsAnswer{Type: shm.TypeDatasets, Datasets: c.node.registry.list()})
	case shm.TypeDatasetInfo:
		return true, decoded(packet, c.datasetInfo)
	case shm.TypeOpen:
		return true, decoded(packet, c.open)
	case shm.TypeSample:
		return true, decoded(packet, c.sample)
	case shm.TypeHint:
		return true, c.hint(packet, descriptors)
	case shm.TypeHintInfo:
		return true, decoded(packet, c.hintInfo)
	case shm.TypeHintEnd:
		return true, decoded(packet, c.endHint)
	case shm.TypeClose:
		return false, c.send(shm.Envelope{Type: shm.TypeClosed})
	}
	return true, c.answerSession(envelope.Type, packet)
}

// answerSession carries out the messages that need an open session.
func (c *connection) answerSession(kind string, packet []byte) error {
	switch kind {
	case shm.TypeSeek, shm.TypeNext, shm.TypeStats:
	default:
		return invalid("type", kind, "use a client of this release")
	}
	if c.session == nil {
		return invalid("type", kind, "open a session first")
	}
	switch kind {
	case shm.TypeSeek:
		return decoded(packet, c.seek)
	case shm.TypeNext:
		return decoded(packet, c.next)
	default:
		text, err := json.Marshal(c.session.describe())
		if err != nil {
			return err
		}
		return c.send(shm.StatsAnswer{Type: shm.TypeStats, Session: text})
	}
}

func (c *connection) hello(request shm.Hello) error {
	version, failure := shm.Negotiate(request.Min, request.Max)
	if failure != nil {
		return failure
	}
	c.greeted, c.client = true, clip(request.Client)
	if err := c.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	return c.send(shm.Hello{
		Type: shm.TypeHello, Version: version, Daemon: c.node.options.Version.Version, PID: os.Getpid(),
		Features: []string{shm.TransportRing, shm.TransportSocket, shm.FeatureSeeding},
	})
}

func (c *connection) open(request shm.Open) error {
	if c.session != nil {
		return invalid("type", shm.TypeOpen, "one connection has one session; make another connection")
	}
	s, err := newSession(c.node, c.conn, c.peer, request)
	if err != nil {
		return err
	}
	s.client = c.client
	if err := c.node.sessions.add(s, c.node.options.Session); err != nil {
		s.close(endClosed)
		return err
	}
	c.node.totals.sessionOpened()
	c.session = s // from here on, closed with the connection
	var descriptors []int
	if request.Transport == shm.TransportRing {
		descriptors = []int{s.ring.Memory().FD()}
	}
	if err := c.conn.SendAny(s.answer(), patience, descriptors...); err != nil {
		return err
	}
	if err := s.ring.Memory().DropFD(); err != nil {
		return err
	}
	s.seek(place{epoch: request.Epoch, consumed: request.SamplesConsumed})
	c.node.log.Info("session opened", "session", s.id, "dataset", request.Dataset, "pid", c.peer.PID,
		"rank", request.Rank, "world_size", request.WorldSize, "batch_size", request.BatchSize, "transport", request.Transport)
	return nil
}

func (c *connection) seek(request shm.Seek) error {
	err := c.session.share.Continues(c.session.source.view.Len(), request.SamplesConsumed)
	if request.Epoch < 0 {
		err = errors.New("epochs count from 0")
	}
	if err != nil {
		return &shm.Failure{
			Code: "invalid", Where: "dataset " + c.session.request.Dataset,
			What:   fmt.Sprintf("cannot go to epoch %d, samples_consumed %d: %v", request.Epoch, request.SamplesConsumed, err),
			Remedy: "load a state that was saved for this dataset, with the same world_size if the order is \"torch\"",
		}
	}
	from := c.session.seek(place{epoch: request.Epoch, consumed: request.SamplesConsumed})
	return c.send(shm.Seeked{Type: shm.TypeSeeked, FromSequence: from})
}

func (c *connection) send(message any) error { return c.conn.SendAny(message, patience) }

// decode parses a message; what it cannot parse is the client's mistake.
func decode(packet []byte, into any) error {
	if err := json.Unmarshal(packet, into); err != nil {
		return &shm.Failure{Code: "invalid", Where: "message", What: err.Error(), Remedy: "use a client of this release"}
	}
	return nil
}

func decoded[T any](packet []byte, do func(T) error) error {
	var request T
	if err := decode(packet, &request); err != nil {
		return err
	}
	return do(request)
}

func misuse(what string) error {
	return errors.Join(&shm.Failure{Code: "invalid", Where: "session socket", What: what, Remedy: "speak with Stoker's own client"}, errMisuse)
}

func isExhaustion(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.ENOBUFS)
}

// clip bounds what a client may call itself.
func clip(name string) string {
	const limit = 64
	if len(name) > limit {
		name = name[:limit]
	}
	return strings.ToValidUTF8(name, "?")
}
