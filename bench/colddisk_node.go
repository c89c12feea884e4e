package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/loader"
	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/shm"
)

// coldNode is the daemon without its process: the same node, in this one.
type coldNode struct {
	prefetch bool
	node     *loader.Node
	socket   string
	served   chan error
}

// startColdNode starts a node on a fresh directory.
func startColdNode(_ context.Context, dir string, prefetch bool, log *slog.Logger) (*coldNode, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	n := &coldNode{prefetch: prefetch, socket: filepath.Join(dir, "session.sock"), served: make(chan error, 1)}
	var err error
	n.node, err = loader.Open(loader.Options{DataDir: dir, UID: -1, Logger: log, Prefetch: loader.PrefetchOptions{Off: !prefetch}})
	if err != nil {
		return nil, err
	}
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: n.socket, Net: "unixpacket"})
	if err != nil {
		return nil, errors.Join(err, n.node.Close())
	}
	go func() { n.served <- n.node.Serve(listener) }()
	return n, nil
}

func (n *coldNode) close() error { return errors.Join(n.node.Close(), <-n.served) }

// coldClient is a trainer's connection.
type coldClient struct {
	conn *shm.Conn
	ring *shm.Consumer
}

func (n *coldNode) connect() (*coldClient, error) {
	conn, err := shm.Dial(n.socket)
	if err != nil {
		return nil, err
	}
	c := &coldClient{conn: conn}
	var hello shm.Hello
	if _, err := c.ask(shm.Hello{Type: shm.TypeHello, Min: shm.ProtocolMin, Max: shm.ProtocolMax, Client: "stoker-bench"}, &hello); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *coldClient) close() error {
	err := c.conn.Close()
	if c.ring != nil {
		err = errors.Join(err, c.ring.Close())
	}
	return err
}

// coldPatience is how long the node may take to answer.
const coldPatience = 60 * time.Second

// ask sends a request and decodes the answer, or returns the failure. The descriptors
// that come with it are the caller's.
func (c *coldClient) ask(request, into any, descriptors ...int) (received []int, err error) {
	if err := c.conn.Send(request, coldPatience, descriptors...); err != nil {
		return nil, err
	}
	for {
		if err := c.conn.SetReadDeadline(time.Now().Add(coldPatience)); err != nil {
			return nil, err
		}
		packet, received, err := c.conn.Receive()
		if err != nil {
			return nil, err
		}
		var envelope shm.Envelope
		if err := json.Unmarshal(packet, &envelope); err != nil {
			return received, err
		}
		switch envelope.Type {
		case shm.TypeProgress:
		case shm.TypeError:
			var answer shm.ErrorAnswer
			if err := json.Unmarshal(packet, &answer); err != nil {
				return received, err
			}
			return received, &answer.Error
		default:
			return received, json.Unmarshal(packet, into)
		}
	}
}

// add indexes a directory as the format that the pattern is named for.
func (n *coldNode) add(_ context.Context, name, dir string) (err error) {
	c, err := n.connect()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	var answer shm.DatasetAnswer
	_, err = c.ask(shm.DatasetAdd{Type: shm.TypeDatasetAdd, Name: name, Format: name, Path: dir}, &answer, int(f.Fd()))
	return err
}

// open opens a session that reads all samples once in random order.
func (n *coldNode) open(dataset string, seed uint64) (*coldClient, error) {
	c, err := n.connect()
	if err != nil {
		return nil, err
	}
	var opened shm.Opened
	descriptors, err := c.ask(shm.Open{
		Type: shm.TypeOpen, Dataset: dataset, BatchSize: coldBatch, Order: "global", Seed: seed, WorldSize: 1, DropLast: true, Transport: shm.TransportRing,
	}, &opened)
	if err == nil && len(descriptors) != 1 {
		err = fmt.Errorf("%d descriptors came with the session, expected the ring's", len(descriptors))
	}
	if err == nil {
		c.ring, err = shm.MapConsumer(descriptors[0])
	}
	for _, fd := range descriptors {
		err = errors.Join(err, unix.Close(fd))
	}
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// consume reads an epoch as fast as a consumer that needs so many bytes/s, whose computing
// is sleeping.
func (n *coldNode) consume(ctx context.Context, p coldPattern, needed float64, warmUp int, seed uint64) (row ColdDiskRow, err error) {
	c, err := n.open(p.name, seed)
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	row.NeededMBPS = needed / 1e6
	var bytes, fromDisk uint64
	var pace coldPace
	for batch := 0; ; batch++ {
		if ctx.Err() != nil {
			return row, context.Cause(ctx)
		}
		asked := time.Now()
		e, ok := c.ring.Take(coldPatience)
		took := time.Since(asked)
		switch {
		case !ok:
			return row, errors.New("no batch came")
		case e.Kind == shm.KindEndOfEpoch:
			row.finish(bytes, fromDisk, &pace)
			row.foreseen(n.node.Stalls())
			return row, nil
		case e.Kind == shm.KindError:
			return row, fmt.Errorf("a batch failed: %s", c.ring.Slot(e))
		}
		if batch == warmUp {
			pace.computed, pace.waited = 0, 0
		}
		pace.compute(asked, took, time.Duration(float64(e.SourceBytes)/needed*float64(time.Second)))
		c.ring.Release(e)
		if batch >= warmUp {
			row.Batches++
			bytes, fromDisk = bytes+e.SourceBytes, fromDisk+e.DiskBytes
		}
	}
}

func (r *ColdDiskRow) finish(bytes, fromDisk uint64, pace *coldPace) {
	r.ComputeSeconds, r.WaitSeconds = pace.computed.Seconds(), pace.waited.Seconds()
	r.StallShare = r.WaitSeconds / max(1e-9, r.WaitSeconds+r.ComputeSeconds)
	r.ReachedMBPS = float64(bytes) / 1e6 / max(1e-9, r.WaitSeconds+r.ComputeSeconds)
	r.DiskShare = float64(fromDisk) / max(1, float64(bytes))
}

// foreseen notes what the node says of the session, which is the only open one.
func (r *ColdDiskRow) foreseen(stalls []api.SessionStalls) {
	if len(stalls) == 0 || stalls[0].Foresight == nil {
		return
	}
	f := stalls[0].Foresight
	r.BroughtShare = float64(f.BroughtBytes) / max(1, float64(f.BroughtBytes+f.FoundBytes))
	r.LateShare = float64(f.Late) / max(1, float64(f.Samples))
	r.Depth = f.WindowSamples
}
